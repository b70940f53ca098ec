//! Matrix products of row-major slices, by the crate `gemm-f32`, the part of `gemm` for `f32`.
//!
//! It is as fast as the BLAS libraries of libtorch, reads operands with any stride, and gives the same bits for any number of
//! threads. The names follow BLAS: `n` for an operand as it is, `t` for its transpose.

use gemm_common::Parallelism;

use super::threads::ThreadPool;

/// A matrix to read: rows of `width` elements, one every `stride` elements. The last row may end at its width.
#[derive(Clone, Copy)]
pub(crate) struct MatRef<'a> {
    data: &'a [f32],
    width: usize,
    stride: usize,
}

/// A matrix to write, laid out like [`MatRef`].
pub(crate) struct MatMut<'a> {
    data: &'a mut [f32],
    width: usize,
    stride: usize,
}

impl<'a> MatRef<'a> {
    /// Contiguous rows.
    pub(super) fn new(data: &'a [f32], width: usize) -> Self {
        Self::with_stride(data, width, width)
    }

    /// The first `width` elements of rows of `stride`.
    pub(super) fn with_stride(data: &'a [f32], width: usize, stride: usize) -> Self {
        Self { data, width, stride }
    }

    fn as_is(&self) -> Operand<'a> {
        let rows = rows(self.data.len(), self.width, self.stride);
        Operand { data: self.data, rows, columns: self.width, row_stride: self.stride, column_stride: 1 }
    }

    fn transposed(&self) -> Operand<'a> {
        let Operand { data, rows, columns, row_stride, column_stride } = self.as_is();
        Operand { data, rows: columns, columns: rows, row_stride: column_stride, column_stride: row_stride }
    }
}

impl<'a> MatMut<'a> {
    /// Contiguous rows.
    pub(super) fn new(data: &'a mut [f32], width: usize) -> Self {
        Self::with_stride(data, width, width)
    }

    /// The first `width` elements of rows of `stride`.
    pub(super) fn with_stride(data: &'a mut [f32], width: usize, stride: usize) -> Self {
        Self { data, width, stride }
    }

    /// The same matrix, for one of several products that write to it.
    pub(super) fn reborrow(&mut self) -> MatMut<'_> {
        MatMut { data: &mut *self.data, width: self.width, stride: self.stride }
    }
}

fn rows(len: usize, width: usize, stride: usize) -> usize {
    assert!(0 < width && width <= stride, "rows of {width} elements every {stride}");
    (len + stride - width) / stride
}

/// A [`MatRef`] or its transpose.
struct Operand<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

/// What a product does to the previous content of its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accumulate {
    /// It overwrites it.
    Overwrite,
    /// It adds to it.
    Add,
}

/// `out ← scale · a bᵀ`: a linear layer's output, with `b` the weight (outputs, inputs).
pub(super) fn gemm_nt(
    pool: &ThreadPool,
    out: MatMut<'_>,
    accumulate: Accumulate,
    scale: f32,
    a: MatRef<'_>,
    b: MatRef<'_>,
) {
    gemm(pool, out, accumulate, scale, &a.as_is(), &b.transposed());
}

/// `out ← scale · a b`: the derivative with respect to a linear layer's input, with `b` the weight (outputs, inputs).
pub(super) fn gemm_nn(
    pool: &ThreadPool,
    out: MatMut<'_>,
    accumulate: Accumulate,
    scale: f32,
    a: MatRef<'_>,
    b: MatRef<'_>,
) {
    gemm(pool, out, accumulate, scale, &a.as_is(), &b.as_is());
}

/// `out ← scale · aᵀ b`: the derivative with respect to a linear layer's weight, with `b` the input.
pub(super) fn gemm_tn(
    pool: &ThreadPool,
    out: MatMut<'_>,
    accumulate: Accumulate,
    scale: f32,
    a: MatRef<'_>,
    b: MatRef<'_>,
) {
    gemm(pool, out, accumulate, scale, &a.transposed(), &b.as_is());
}

fn gemm(pool: &ThreadPool, out: MatMut<'_>, accumulate: Accumulate, scale: f32, a: &Operand<'_>, b: &Operand<'_>) {
    let (rows, columns, inner) = (a.rows, b.columns, a.columns);
    assert_eq!(inner, b.rows, "the inner sizes of a product");
    assert_eq!(
        (self::rows(out.data.len(), out.width, out.stride), out.width),
        (rows, columns),
        "the sizes of a product"
    );
    let parallelism = match pool.threads() {
        1 => Parallelism::None,
        threads => Parallelism::Rayon(threads),
    };
    let (beta, read_out) = if accumulate == Accumulate::Add { (1.0, true) } else { (0.0, false) };
    let stride = |n: usize| n as isize;
    pool.install(move || {
        // The kernels write columns, so the product is given to them transposed: `outᵀ ← scale · bᵀ aᵀ`.
        // SAFETY: operands and output are slices whose last row's last element is inside, since `rows` counts the rows that
        // fit; the output is borrowed mutably, so it overlaps no operand; the assertions above match the sizes.
        unsafe {
            gemm_f32::gemm::f32::get_gemm_fn()(
                columns,
                rows,
                inner,
                out.data.as_mut_ptr(),
                stride(out.stride),
                1,
                read_out,
                b.data.as_ptr(),
                stride(b.row_stride),
                stride(b.column_stride),
                a.data.as_ptr(),
                stride(a.row_stride),
                stride(a.column_stride),
                beta,
                scale,
                false,
                false,
                false,
                parallelism,
            );
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use Accumulate::{Add, Overwrite};

    fn numbers(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919) % 23) as f32 - 11.0).collect()
    }

    #[test]
    fn strided_gemm_nt_follows_the_definition_for_any_shape_and_number_of_threads() {
        let k = 19;
        // The crate has other ways for a product with one row or one column.
        for (n, m) in [(37, 45), (1, 45), (37, 1), (1, 1)] {
            // The last row ends at its width.
            let (a, b) = (numbers((n - 1) * (k + 5) + k), numbers(m * k));
            for room in [0, 2] {
                let product = |threads: usize| {
                    let pool = ThreadPool::new(threads).unwrap();
                    let mut out = vec![1.0; (n - 1) * (m + room) + m];
                    let (a, b) = (MatRef::with_stride(&a, k, k + 5), MatRef::new(&b, k));
                    gemm_nt(&pool, MatMut::with_stride(&mut out, m, m + room), Add, 0.5, a, b);
                    out
                };
                let out = product(1);
                for i in 0..n {
                    for j in 0..m {
                        let sum: f32 = (0..k).map(|l| a[i * (k + 5) + l] * b[j * k + l]).sum();
                        assert_eq!(out[i * (m + room) + j], 1.0 + 0.5 * sum, "({n}, {m})");
                    }
                    assert!(
                        i + 1 == n || out[i * (m + room) + m..][..room].iter().all(|&x| x == 1.0),
                        "between the rows"
                    );
                }
                assert!([2, 5].into_iter().all(|threads| product(threads) == out));
            }
        }
    }

    #[test]
    fn gemm_tn_and_gemm_nn_follow_the_definition() {
        let (n, k, m) = (37, 19, 45);
        let pool = ThreadPool::new(1).unwrap();
        let (x, dense, b) = (numbers(n * k), numbers(n * m), numbers(m * k));
        let (mut tn, mut nn) = (vec![0.0; k * m], vec![0.0; n * k]);
        gemm_tn(&pool, MatMut::new(&mut tn, m), Overwrite, 1.0, MatRef::new(&x, k), MatRef::new(&dense, m));
        gemm_nn(&pool, MatMut::new(&mut nn, k), Overwrite, 1.0, MatRef::new(&dense, m), MatRef::new(&b, k));
        assert_eq!(tn[3 * m + 4], (0..n).map(|l| x[l * k + 3] * dense[l * m + 4]).sum::<f32>());
        assert_eq!(nn[3 * k + 4], (0..m).map(|l| dense[3 * m + l] * b[l * k + 4]).sum::<f32>());
    }
}
