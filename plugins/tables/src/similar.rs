//! Groups of similar sequences: the connected components of the graph whose edges are pairs within a number of edits.
//!
//! In the worst case all pairs are compared, so a pair costs as little as possible. Pairs that are known to be of one
//! component are skipped, whole blocks of them at once. Of the others most are told apart by their counts of words of
//! [`WORD`] letters: an edit changes at most so many words of either sequence (Ukkonen 1992), and comparing counts is a
//! sum over bytes in order. What remains is decided by Ukkonen's furthest-reaching diagonals (1985), whose cost grows
//! with the number of edits allowed and not with the length. The components depend on no order, so none of this shows
//! in the result.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use plugin_api::{Context, Result};

/// LetterCounts of a word.
const WORD: usize = 2;
/// How many counts of words are kept of a sequence. Several words may share one, which only makes pairs look closer.
const COUNTS: usize = 256;
/// Sequences are compared block by block, so that the counts of two blocks stay in the processor's cache.
const BLOCK: usize = 128;
/// So many counts are compared between two looks at the sum.
const STEP: usize = 64;

/// The component of each of these distinct sequences, numbered in the order in which components appear.
///
/// # Errors
/// If the call shall stop.
pub(crate) fn components(sequences: &[&[u8]], identity: f64, ctx: &Context<'_>) -> Result<Vec<usize>> {
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(sequences[i].len()));
    let sorted: Vec<&[u8]> = order.iter().map(|&i| sequences[i]).collect();
    let counts: Vec<[u8; COUNTS]> = sorted.iter().map(|sequence| word_counts(sequence)).collect();
    let forest = Mutex::new(DisjointSets((0..sorted.len()).collect()));
    let lock = || forest.lock().unwrap_or_else(PoisonError::into_inner);
    let next = AtomicUsize::new(0);
    // Each thread takes a block, with what all of them know by then, and adds what it finds.
    let some = || -> Result<()> {
        let mut reach = BoundedEditDistance::default();
        loop {
            let rows = block_at(next.fetch_add(BLOCK, Ordering::Relaxed), sorted.len());
            if rows.is_empty() {
                return Ok(());
            }
            ctx.check()?;
            let mut known = lock().clone();
            let found = near_pairs(rows, &sorted, &counts, identity, &mut known, &mut reach);
            let mut forest = lock();
            found.into_iter().for_each(|(a, b)| forest.join(a, b));
        }
    };
    std::thread::scope(|scope| {
        let threads = ctx.threads().min(sorted.len().div_ceil(BLOCK));
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(some)).collect();
        let mine = some();
        let theirs = others.into_iter().map(|other| other.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
        theirs.fold(mine, Result::and)
    })?;
    let mut forest = forest.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (mut numbers, mut next, mut place) = (vec![usize::MAX; sorted.len()], 0, vec![0; sorted.len()]);
    order.iter().enumerate().for_each(|(sorted, &sequence)| place[sequence] = sorted);
    let number = |sequence: usize| {
        let root = forest.root(place[sequence]);
        if numbers[root] == usize::MAX {
            numbers[root] = next;
            next += 1;
        }
        numbers[root]
    };
    Ok((0..sequences.len()).map(number).collect())
}

/// The near pairs of these rows and those before that join what is not known to be joined.
fn near_pairs(
    rows: Range<usize>,
    sorted: &[&[u8]],
    counts: &[[u8; COUNTS]],
    identity: f64,
    known: &mut DisjointSets,
    reach: &mut BoundedEditDistance,
) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for start in (0..rows.end).step_by(BLOCK) {
        let others = block_at(start, rows.end);
        // The shortest of the earlier, longer ones against the longest of these: if they are too far apart, all are.
        let (longer, shorter) = (sorted[others.end - 1].len(), sorted[rows.start].len());
        if shorter + max_edits(longer, identity) < longer || known.all_joined(rows.clone().chain(others.clone())) {
            continue;
        }
        let most: Vec<usize> = others.clone().map(|other| max_edits(sorted[other].len(), identity)).collect();
        for row in rows.clone() {
            let mut root = known.root(row);
            for (other, &most) in (others.start..others.end.min(row)).zip(&most) {
                if known.root(other) != root
                    && !differ_by_more_than(&counts[other], &counts[row], 2 * WORD * most)
                    && reach.within(sorted[other], sorted[row], most)
                {
                    known.join(other, row);
                    root = known.root(row);
                    found.push((other, row));
                }
            }
        }
    }
    found
}

/// The block that starts there; empty past the end.
fn block_at(start: usize, count: usize) -> Range<usize> {
    start..count.min(start + BLOCK)
}

/// How many edits keep the identity with a sequence of this length, the longer one.
fn max_edits(longer: usize, identity: f64) -> usize {
    // 0.1 × 230 is a little less than 23.
    ((1.0 - identity) * longer as f64 + 1e-9) as usize
}

/// How often words occur.
fn word_counts(sequence: &[u8]) -> [u8; COUNTS] {
    let mut counts = [0_u8; COUNTS];
    for word in sequence.windows(WORD) {
        let number = word.iter().fold(0_u32, |number, &letter| number.wrapping_mul(31).wrapping_add(letter.into()));
        let count = &mut counts[(number.wrapping_mul(0x9e37_79b9) >> 24) as usize % COUNTS];
        *count = count.saturating_add(1);
    }
    counts
}

/// Whether counts differ by more than `most` in all.
fn differ_by_more_than(a: &[u8; COUNTS], b: &[u8; COUNTS], most: usize) -> bool {
    let mut sum = 0;
    a.chunks_exact(STEP).zip(b.chunks_exact(STEP)).any(|(a, b)| {
        // Without a check for overflow, which 64 bytes cannot cause, so that it is one sum of vectors.
        sum += a.iter().zip(b).fold(0_u32, |sum, (a, b)| sum.wrapping_add(a.abs_diff(*b).into())) as usize;
        sum > most
    })
}

/// Which sequences are joined so far: each points to another of its component, or to itself.
#[derive(Clone)]
struct DisjointSets(Vec<usize>);

impl DisjointSets {
    fn root(&mut self, mut at: usize) -> usize {
        while self.0[at] != at {
            self.0[at] = self.0[self.0[at]];
            at = self.0[at];
        }
        at
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
    }

    fn all_joined(&mut self, mut all: impl Iterator<Item = usize>) -> bool {
        let first = all.next().map(|first| self.root(first));
        all.all(|other| Some(self.root(other)) == first)
    }
}

/// How far into the first sequence each diagonal reaches, before and after one more edit.
#[derive(Default)]
struct BoundedEditDistance {
    before: Vec<isize>,
    after: Vec<isize>,
}

impl BoundedEditDistance {
    /// Whether `most` edits are enough to make one sequence the other.
    fn within(&mut self, a: &[u8], b: &[u8], most: usize) -> bool {
        const NOWHERE: isize = isize::MIN / 2;
        let (rows, columns, most) = (a.len() as isize, b.len() as isize, most as isize);
        // A place in both sequences lies on the diagonal that is the difference of the two.
        let home = columns - rows;
        let slot = |diagonal: isize| (diagonal + most + 1) as usize;
        for reach in [&mut self.before, &mut self.after] {
            reach.clear();
            reach.resize(slot(most) + 2, NOWHERE);
        }
        for edits in 0..=most {
            // Diagonals that can be reached with so many edits and left for the end's with the others.
            let left = most - edits;
            for diagonal in (-edits).max(home - left)..=edits.min(home + left) {
                let place = slot(diagonal);
                let start = if edits == 0 {
                    0
                } else {
                    let (deleted, inserted) = (self.before[place + 1] + 1, self.before[place - 1]);
                    (self.before[place] + 1).max(deleted).max(inserted).min(rows).min(columns - diagonal)
                };
                if start < 0 {
                    self.after[place] = NOWHERE;
                    continue;
                }
                let end = start + common_prefix(&a[start as usize..], &b[(start + diagonal).max(0) as usize..]);
                if diagonal == home && end >= rows {
                    return true;
                }
                self.after[place] = end;
            }
            std::mem::swap(&mut self.before, &mut self.after);
        }
        false
    }
}

/// How many letters two texts have in common at their start.
fn common_prefix(a: &[u8], b: &[u8]) -> isize {
    let mut done = 0;
    for (a, b) in a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0) {
        let different = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if different != 0 {
            return done + (different.trailing_zeros() / 8) as isize;
        }
        done += 8;
    }
    let rest = a[done as usize..].iter().zip(&b[done as usize..]);
    done + rest.take_while(|(a, b)| a == b).count() as isize
}

#[cfg(test)]
mod tests {
    use plugin_api::context::Silent;
    use rand::{Rng, RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Levenshtein's distance as it is defined.
    fn distance(a: &[u8], b: &[u8]) -> usize {
        let mut row: Vec<usize> = (0..=b.len()).collect();
        for (i, a) in a.iter().enumerate() {
            let mut diagonal = std::mem::replace(&mut row[0], i + 1);
            for (j, b) in b.iter().enumerate() {
                let least = (diagonal + usize::from(a != b)).min(row[j + 1] + 1).min(row[j] + 1);
                diagonal = std::mem::replace(&mut row[j + 1], least);
            }
        }
        row[b.len()]
    }

    fn random(letters: usize, rng: &mut impl Rng) -> Vec<u8> {
        (0..letters).map(|_| b"ACDEFGHIKLMNPQRSTVWY"[rng.random_range(0..20)]).collect()
    }

    /// The text after so many random edits at most.
    fn edited(text: &[u8], edits: usize, rng: &mut impl Rng) -> Vec<u8> {
        let mut text = text.to_vec();
        for _ in 0..edits {
            let at = rng.random_range(0..text.len());
            match rng.random_range(0..4) {
                0 => text.insert(at, b'W'),
                1 if text.len() > 1 => _ = text.remove(at),
                _ => text[at] = b"ACDEFGHIKLMNPQRSTVWY"[rng.random_range(0..20)],
            }
        }
        text
    }

    #[test]
    fn edits_are_those_of_the_definition_and_the_filter_never_tells_near_ones_apart() {
        let (mut rng, mut reach) = (ChaCha8Rng::seed_from_u64(1), BoundedEditDistance::default());
        for _ in 0..3000 {
            let a = {
                let letters = rng.random_range(1..60);
                random(letters, &mut rng)
            };
            let b = {
                let edits = rng.random_range(0..12);
                edited(&a, edits, &mut rng)
            };
            let exact = distance(&a, &b);
            for most in [0, 1, 3, exact.saturating_sub(1), exact, exact + 1, 20] {
                assert_eq!(reach.within(&a, &b, most), exact <= most, "{exact} and {most}");
                assert!(exact > most || !differ_by_more_than(&word_counts(&a), &word_counts(&b), 2 * WORD * most));
            }
        }
        assert!(reach.within(b"", b"", 0) && !reach.within(b"", b"AB", 1) && reach.within(b"AB", b"", 2));
    }

    #[test]
    fn components_are_those_of_all_pairs() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        // Families of one ancestor each, some near one another, more than a block of them.
        let parent = random(120, &mut rng);
        let mut all: Vec<Vec<u8>> = Vec::new();
        for _ in 0..30 {
            let ancestor = {
                let edits = rng.random_range(0..70);
                edited(&parent, edits, &mut rng)
            };
            all.extend((0..10).map(|_| {
                let edits = rng.random_range(0..14);
                edited(&ancestor, edits, &mut rng)
            }));
        }
        all.sort();
        all.dedup();
        let texts: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
        for identity in [0.8, 0.85, 0.9, 0.95] {
            let found = components(&texts, identity, &Context::new(&Silent)).unwrap();
            let mut wanted: Vec<usize> = (0..texts.len()).collect();
            for i in 0..texts.len() {
                for j in 0..i {
                    let longer = texts[i].len().max(texts[j].len()) as f64;
                    if 1.0 - distance(texts[i], texts[j]) as f64 / longer >= identity - 1e-12 {
                        let (from, to) = (wanted[i].max(wanted[j]), wanted[i].min(wanted[j]));
                        wanted.iter_mut().filter(|group| **group == from).for_each(|group| *group = to);
                    }
                }
            }
            let mut numbers = wanted.clone();
            numbers.sort_unstable();
            numbers.dedup();
            let wanted: Vec<usize> = wanted.iter().map(|group| numbers.binary_search(group).unwrap()).collect();
            assert!(numbers.len() > 1 && numbers.len() < texts.len(), "{identity}: {} groups", numbers.len());
            assert_eq!(found, wanted, "{identity}");
        }
    }
}
