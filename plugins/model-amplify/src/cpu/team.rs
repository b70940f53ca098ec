//! The threads that a client computes with. What they compute does not depend on how many there are: work is cut into
//! the same pieces for any number, and what pieces add up to is added in their order.

use plugin_api::{Error, Result};
use rayon::prelude::*;

/// How many rows of a matrix a thread takes at once.
const PIECE: usize = 64;
/// How many numbers of a list a thread takes at once.
const NUMBERS: usize = 1 << 15;

/// A number of threads.
#[derive(Debug)]
pub(crate) struct Team {
    threads: usize,
    pool: Option<rayon::ThreadPool>,
}

impl Team {
    /// So many threads; one is the calling thread itself.
    ///
    /// # Errors
    /// If they cannot be started.
    pub(crate) fn new(threads: usize) -> Result<Self> {
        // What libtorch computes in one of these threads, it computes in that thread alone.
        let alone = |_| tch::set_num_threads(1);
        let start = || rayon::ThreadPoolBuilder::new().num_threads(threads).start_handler(alone).build();
        let pool = (threads > 1).then(start).transpose();
        let pool = pool.map_err(|e| Error::other(format!("cannot start {threads} threads")).because(&e))?;
        Ok(Self { threads: threads.max(1), pool })
    }

    /// The calling thread alone.
    pub(super) fn alone() -> Self {
        Self { threads: 1, pool: None }
    }

    /// How many there are.
    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `work` on one of the team's threads, from which rayon finds the others.
    pub(super) fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Works on each of `items`.
    pub(super) fn each<T: Send>(&self, items: Vec<T>, work: impl Fn(T) + Sync + Send) {
        match self.pool {
            Some(_) => self.run(|| items.into_par_iter().with_max_len(1).for_each(work)),
            None => items.into_iter().for_each(work),
        }
    }

    /// Works on pieces of some rows; `work` gets the number of a piece's first row.
    pub(super) fn rows<T: Pieces>(&self, rows: T, work: impl Fn(usize, T) + Sync + Send) {
        self.pieces(rows, PIECE, work);
    }

    /// Works on pieces of lists of numbers, which are matrices of one column.
    pub(crate) fn numbers<T: Pieces>(&self, lists: T, work: impl Fn(usize, T) + Sync + Send) {
        self.pieces(lists, NUMBERS, work);
    }

    fn pieces<T: Pieces>(&self, rows: T, piece: usize, work: impl Fn(usize, T) + Sync + Send) {
        let mut pieces = Vec::with_capacity(rows.count().div_ceil(piece));
        let (mut first, mut rest) = (0, rows);
        while rest.count() > piece {
            let (own, others) = rest.split(piece);
            pieces.push((first, own));
            (first, rest) = (first + piece, others);
        }
        pieces.push((first, rest));
        self.each(pieces, |(first, piece)| work(first, piece));
    }

    /// The sum over all rows of what `add` adds to a row of `width` zeros.
    pub(super) fn sum(&self, count: usize, width: usize, add: impl Fn(usize, &mut [f32]) + Sync + Send) -> Vec<f32> {
        let mut parts = vec![0.0; width * count.div_ceil(PIECE).max(1)];
        let pieces = parts.chunks_exact_mut(width).enumerate().collect();
        self.each(pieces, |(piece, part)| {
            for row in piece * PIECE..((piece + 1) * PIECE).min(count) {
                add(row, part);
            }
        });
        let (sum, others) = parts.split_at_mut(width);
        for part in others.chunks_exact(width) {
            sum.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
        }
        parts.truncate(width);
        parts
    }
}

/// Rows of one or more matrices of the same number of rows.
pub(crate) trait Pieces: Send + Sized {
    /// How many rows there are.
    fn count(&self) -> usize;
    /// The first `rows` and the others.
    fn split(self, rows: usize) -> (Self, Self);
}

/// A matrix: its numbers, and how many a row has.
pub(crate) type Matrix<'a> = (&'a mut [f32], usize);

impl Pieces for Matrix<'_> {
    fn count(&self) -> usize {
        self.0.len() / self.1
    }
    fn split(self, rows: usize) -> (Self, Self) {
        let (first, others) = self.0.split_at_mut(rows * self.1);
        ((first, self.1), (others, self.1))
    }
}

impl<A: Pieces, B: Pieces> Pieces for (A, B) {
    fn count(&self) -> usize {
        self.0.count()
    }
    fn split(self, rows: usize) -> (Self, Self) {
        let ((a, c), (b, d)) = (self.0.split(rows), self.1.split(rows));
        ((a, b), (c, d))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_worked_on_once_and_sums_are_the_same_for_any_number_of_threads() {
        let mut sums = Vec::new();
        for threads in [1, 2, 7] {
            let team = Team::new(threads).unwrap();
            for count in [0, 1, 64, 65, 1000] {
                let (mut a, mut b) = (vec![0.0; count * 3], vec![0.0; count]);
                team.rows(((&mut a[..], 3), (&mut b[..], 1)), |first, ((a, _), (b, _))| {
                    b.iter_mut().enumerate().for_each(|(i, b)| *b += (first + i) as f32);
                    a.chunks_exact_mut(3).zip(b).for_each(|(a, b)| a[2] += *b);
                });
                assert!(b.iter().enumerate().all(|(i, b)| *b == i as f32));
                assert!(a.chunks_exact(3).zip(&b).all(|(a, b)| a == [0.0, 0.0, *b]));
            }
            sums.push(team.sum(1000, 2, |row, sum| sum[1] += 1.0 / (1.0 + row as f32)));
        }
        assert!((sums[0][1] - 7.485_471).abs() < 1e-5 && sums[0][0] == 0.0);
        assert!(sums.iter().all(|sum| *sum == sums[0]));
        assert_eq!(Team::new(1).unwrap().sum(0, 2, |_, _| {}), [0.0, 0.0]);
    }
}
