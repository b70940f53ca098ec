//! A client's threads: a rayon pool, or the calling thread alone.
//!
//! Work is cut into the same pieces for any number of threads, and partial sums are added in the order of the pieces, so
//! that the number of threads changes no bit.

use plugin_api::{Error, Result};
use rayon::prelude::*;

/// Rows of a matrix in one piece of work.
const ROWS: usize = 64;
/// Elements of a flat buffer in one piece of work.
const ELEMENTS: usize = 1 << 15;

/// The calling thread alone.
pub(super) static CALLING_THREAD: ThreadPool = ThreadPool { threads: 1, pool: None };

/// A fixed number of threads.
#[derive(Debug)]
pub struct ThreadPool {
    threads: usize,
    /// None for one thread, which is the calling one.
    pool: Option<rayon::ThreadPool>,
}

impl ThreadPool {
    /// Starts `threads` threads. For 0 or 1 it starts none, and the calling thread does the work.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn new(threads: usize) -> Result<Self> {
        let start = || rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = (threads > 1).then(start).transpose();
        let pool = pool.map_err(|e| Error::other(format!("cannot start {threads} threads")).because(&e))?;
        Ok(Self { threads: threads.max(1), pool })
    }

    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `work` on a thread of the pool, whose rayon calls then use the pool.
    pub(super) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Calls `work` with each item.
    pub fn for_each<T: Send>(&self, items: Vec<T>, work: impl Fn(T) + Sync + Send) {
        match self.pool {
            Some(_) => self.install(|| items.into_par_iter().with_max_len(1).for_each(work)),
            None => items.into_iter().for_each(work),
        }
    }

    /// Calls `work` with pieces of consecutive rows, and the index of each piece's first row.
    pub(super) fn for_rows<T: SplitRows>(&self, rows: T, work: impl Fn(usize, T) + Sync + Send) {
        self.for_pieces(rows, ROWS, work);
    }

    /// Calls `work` with pieces of flat buffers, given as matrices of one column, and the index of each piece's first element.
    pub fn for_elements<T: SplitRows>(&self, buffers: T, work: impl Fn(usize, T) + Sync + Send) {
        self.for_pieces(buffers, ELEMENTS, work);
    }

    fn for_pieces<T: SplitRows>(&self, rows: T, size: usize, work: impl Fn(usize, T) + Sync + Send) {
        let mut pieces = Vec::with_capacity(rows.rows().div_ceil(size));
        let (mut first, mut rest) = (0, rows);
        while rest.rows() > size {
            let (piece, others) = rest.split(size);
            pieces.push((first, piece));
            (first, rest) = (first + size, others);
        }
        pieces.push((first, rest));
        self.for_each(pieces, |(first, piece)| work(first, piece));
    }

    /// A row of `width` zeros to which `add` has added every row of `0..rows`.
    pub(super) fn sum_rows(
        &self,
        rows: usize,
        width: usize,
        add: impl Fn(usize, &mut [f32]) + Sync + Send,
    ) -> Vec<f32> {
        let mut parts = vec![0.0; width * rows.div_ceil(ROWS).max(1)];
        let pieces = parts.chunks_exact_mut(width).enumerate().collect();
        self.for_each(pieces, |(piece, part)| {
            for row in piece * ROWS..((piece + 1) * ROWS).min(rows) {
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

/// One or more matrices of the same number of rows, which can be split between two rows.
pub trait SplitRows: Send + Sized {
    /// The number of rows.
    fn rows(&self) -> usize;
    /// The first `rows` rows, and the others.
    fn split(self, rows: usize) -> (Self, Self);
}

/// A row-major matrix: its elements, and the width of a row.
pub type Matrix<'a> = (&'a mut [f32], usize);

impl SplitRows for Matrix<'_> {
    fn rows(&self) -> usize {
        self.0.len() / self.1
    }
    fn split(self, rows: usize) -> (Self, Self) {
        let (first, others) = self.0.split_at_mut(rows * self.1);
        ((first, self.1), (others, self.1))
    }
}

impl<A: SplitRows, B: SplitRows> SplitRows for (A, B) {
    fn rows(&self) -> usize {
        self.0.rows()
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
    fn for_rows_visits_every_row_once() {
        for threads in [1, 2, 7] {
            let pool = ThreadPool::new(threads).unwrap();
            for count in [0, 1, 64, 65, 1000] {
                let (mut a, mut b) = (vec![0.0; count * 3], vec![0.0; count]);
                pool.for_rows(((&mut a[..], 3), (&mut b[..], 1)), |first, ((a, _), (b, _))| {
                    b.iter_mut().enumerate().for_each(|(i, b)| *b += (first + i) as f32);
                    a.chunks_exact_mut(3).zip(b).for_each(|(a, b)| a[2] += *b);
                });
                assert!(b.iter().enumerate().all(|(i, b)| *b == i as f32));
                assert!(a.chunks_exact(3).zip(&b).all(|(a, b)| a == [0.0, 0.0, *b]));
            }
        }
    }

    #[test]
    fn sum_rows_gives_the_same_bits_for_any_number_of_threads() {
        let sum = |threads| {
            let pool = ThreadPool::new(threads).unwrap();
            pool.sum_rows(1000, 2, |row, sum| sum[1] += 1.0 / (1.0 + row as f32))
        };
        let alone = sum(1);
        assert!((alone[1] - 7.485_471).abs() < 1e-5 && alone[0] == 0.0);
        assert!([2, 7].into_iter().all(|threads| sum(threads) == alone));
        assert_eq!(CALLING_THREAD.sum_rows(0, 2, |_, _| {}), [0.0, 0.0]);
    }
}
