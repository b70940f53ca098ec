//! Groups of similar sequences: the connected components of the graph whose edges are pairs with a minimum identity.
//!
//! In the worst case all pairs are compared, so a pair must cost little:
//!
//! - Pairs known to be in one component are skipped, whole blocks of them at once, and so are pairs whose lengths differ too
//!   much.
//! - Most other pairs are ruled out by their counts of words of [`WORD`] letters: an edit changes at most that many words of
//!   either sequence (Ukkonen, *Approximate string-matching with q-grams and maximal matches*, 1992).
//! - The rest is decided by the bit-parallel Levenshtein distance (Myers 1999, Hyyrö 2003) of the `rapidfuzz` crate.
//!
//! The components do not depend on the order of comparisons, so neither shortcut nor thread affects the result.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use plugin_api::{Context, Result};
use rapidfuzz::distance::levenshtein::{Args, BatchComparator};

/// The number of letters of a word.
const WORD: usize = 2;
/// The number of word counts of a sequence. Words may share a count, which only makes pairs look closer.
const COUNTS: usize = 256;
/// Sequences are compared in blocks of this many, so that the counts of two blocks fit into the processor's cache. In tests few
/// sequences are several blocks.
const BLOCK: usize = if cfg!(test) { 8 } else { 128 };
/// How many counts are compared between two checks of the sum.
const STEP: usize = 64;

/// The component of each of these distinct sequences, numbered in order of first appearance. Two sequences are joined if
/// their identity, `1 - edits / length of the longer`, is at least `identity`.
///
/// # Errors
/// If the call is cancelled.
pub(crate) fn components(sequences: &[&[u8]], identity: f64, ctx: &Context<'_>) -> Result<Vec<usize>> {
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(sequences[i].len()));
    let sorted: Vec<Counted<'_>> = order.iter().map(|&i| Counted::new(sequences[i])).collect();
    let mut sets = joined(&sorted, identity, ctx)?;
    let mut rank = vec![0; sorted.len()];
    order.iter().enumerate().for_each(|(sorted, &sequence)| rank[sequence] = sorted);
    let (mut numbers, mut next) = (vec![usize::MAX; sorted.len()], 0);
    let number = |sequence: usize| {
        let root = sets.root(rank[sequence]);
        if numbers[root] == usize::MAX {
            numbers[root] = next;
            next += 1;
        }
        numbers[root]
    };
    Ok((0..sequences.len()).map(number).collect())
}

/// Joins all similar pairs of these sequences, the longest first, on the threads of the call.
fn joined(sorted: &[Counted<'_>], identity: f64, ctx: &Context<'_>) -> Result<DisjointSets> {
    let sets = Mutex::new(DisjointSets((0..sorted.len()).collect()));
    let lock = || sets.lock().unwrap_or_else(PoisonError::into_inner);
    let next = AtomicUsize::new(0);
    // Each thread takes a block with what all threads know by then, and adds what it finds.
    let work = || -> Result<()> {
        loop {
            let rows = block_at(next.fetch_add(BLOCK, Ordering::Relaxed), sorted.len());
            if rows.is_empty() {
                return Ok(());
            }
            ctx.check()?;
            let mut known = lock().clone();
            let found = similar_pairs(rows, sorted, identity, &mut known);
            let mut sets = lock();
            found.into_iter().for_each(|(a, b)| sets.join(a, b));
        }
    };
    std::thread::scope(|scope| {
        let threads = ctx.threads().min(sorted.len().div_ceil(BLOCK));
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mine = work();
        let theirs = others.into_iter().map(|other| other.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
        theirs.fold(mine, Result::and)
    })?;
    Ok(sets.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// The similar pairs of one of these rows and an earlier one that are not known to be joined. Updates what is known.
fn similar_pairs(
    rows: Range<usize>,
    sorted: &[Counted<'_>],
    identity: f64,
    known: &mut DisjointSets,
) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for start in (0..rows.end).step_by(BLOCK) {
        let others = block_at(start, rows.end);
        // The shortest of the earlier, longer ones and the longest of these have the closest lengths.
        let (longer, shorter) = (sorted[others.end - 1].letters.len(), sorted[rows.start].letters.len());
        if shorter + max_edits(longer, identity) < longer || known.all_joined(rows.clone().chain(others.clone())) {
            continue;
        }
        let limits: Vec<usize> = others.clone().map(|other| max_edits(sorted[other].letters.len(), identity)).collect();
        for row in rows.clone() {
            let mut root = known.root(row);
            let mut comparator = None;
            for (other, &limit) in (others.start..others.end.min(row)).zip(&limits) {
                if known.root(other) == root || sorted[other].counts_differ_by_more_than(2 * WORD * limit, &sorted[row])
                {
                    continue;
                }
                let comparator =
                    comparator.get_or_insert_with(|| BatchComparator::new(sorted[row].letters.iter().copied()));
                if within(comparator, sorted[other].letters, limit) {
                    known.join(other, row);
                    root = known.root(row);
                    found.push((other, row));
                }
            }
        }
    }
    found
}

/// Whether the comparator's sequence becomes `other` by at most `limit` edits.
fn within(comparator: &BatchComparator<u8>, other: &[u8], limit: usize) -> bool {
    comparator.distance_with_args(other.iter().copied(), &Args::default().score_cutoff(limit)).is_some()
}

/// The block that starts at this index; empty past the end.
fn block_at(start: usize, count: usize) -> Range<usize> {
    start..count.min(start + BLOCK)
}

/// The largest number of edits that keeps the identity, where the longer sequence has this length.
fn max_edits(longer: usize, identity: f64) -> usize {
    // 0.1 × 230 is slightly less than 23 in binary.
    ((1.0 - identity) * longer as f64 + 1e-9) as usize
}

/// A sequence and its word counts.
struct Counted<'a> {
    letters: &'a [u8],
    counts: [u8; COUNTS],
}

impl<'a> Counted<'a> {
    fn new(letters: &'a [u8]) -> Self {
        let mut counts = [0_u8; COUNTS];
        for word in letters.windows(WORD) {
            let number = word.iter().fold(0_u32, |number, &letter| number.wrapping_mul(31).wrapping_add(letter.into()));
            let count = &mut counts[(number.wrapping_mul(0x9e37_79b9) >> 24) as usize % COUNTS];
            *count = count.saturating_add(1);
        }
        Self { letters, counts }
    }

    /// Whether the sum of the counts' absolute differences is more than `limit`.
    fn counts_differ_by_more_than(&self, limit: usize, other: &Self) -> bool {
        let mut sum = 0;
        self.counts.chunks_exact(STEP).zip(other.counts.chunks_exact(STEP)).any(|(a, b)| {
            // The sum of 64 bytes cannot overflow; without the check the compiler vectorises.
            sum += a.iter().zip(b).fold(0_u32, |sum, (a, b)| sum.wrapping_add(a.abs_diff(*b).into())) as usize;
            sum > limit
        })
    }
}

/// Disjoint sets of indices, as a forest: each index points to another of its set, or to itself.
#[derive(Clone)]
struct DisjointSets(Vec<usize>);

impl DisjointSets {
    fn root(&mut self, mut index: usize) -> usize {
        while self.0[index] != index {
            self.0[index] = self.0[self.0[index]];
            index = self.0[index];
        }
        index
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
    }

    fn all_joined(&mut self, mut indices: impl Iterator<Item = usize>) -> bool {
        let first = indices.next().map(|first| self.root(first));
        indices.all(|other| Some(self.root(other)) == first)
    }
}

#[cfg(test)]
mod tests;
