//! Matrix products over plain memory, by the crate `gemm`: as fast as the machine's best libraries, one result for every
//! number of threads, and no packing of operands that lie within wider rows.

use super::team::Team;

/// Rows of a matrix in row-major memory: `width` numbers each, `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    data: &'a [f32],
    width: usize,
    stride: usize,
}

/// The same, to be written to.
pub(super) struct RowsMut<'a> {
    data: &'a mut [f32],
    width: usize,
    stride: usize,
}

impl<'a> Rows<'a> {
    /// Rows that lie one behind the other.
    pub(super) fn new(data: &'a [f32], width: usize) -> Self {
        Self::within(data, width, width)
    }

    /// The first `width` numbers of rows of `stride`. The last row may end with its width.
    pub(super) fn within(data: &'a [f32], width: usize, stride: usize) -> Self {
        Self { data, width, stride }
    }

    fn count(&self) -> usize {
        count(self.data.len(), self.width, self.stride)
    }

    /// Start, sizes and strides.
    pub(super) fn layout(&self) -> (*const f32, [i64; 2], [i64; 2]) {
        (self.data.as_ptr(), [self.count() as i64, self.width as i64], [self.stride as i64, 1])
    }

    fn plain(&self) -> Operand<'a> {
        Operand { data: self.data, rows: self.count(), columns: self.width, down: self.stride, along: 1 }
    }

    fn turned(&self) -> Operand<'a> {
        let Operand { data, rows, columns, down, along } = self.plain();
        Operand { data, rows: columns, columns: rows, down: along, along: down }
    }
}

impl<'a> RowsMut<'a> {
    /// Rows that lie one behind the other.
    pub(super) fn new(data: &'a mut [f32], width: usize) -> Self {
        Self::within(data, width, width)
    }

    /// The first `width` numbers of rows of `stride`. The last row may end with its width.
    pub(super) fn within(data: &'a mut [f32], width: usize, stride: usize) -> Self {
        Self { data, width, stride }
    }

    /// Start, sizes and strides.
    pub(super) fn layout(&mut self) -> (*mut f32, [i64; 2], [i64; 2]) {
        let rows = count(self.data.len(), self.width, self.stride);
        (self.data.as_mut_ptr(), [rows as i64, self.width as i64], [self.stride as i64, 1])
    }
}

fn count(len: usize, width: usize, stride: usize) -> usize {
    assert!(0 < width && width <= stride, "rows of {width} numbers every {stride}");
    (len + stride - width) / stride
}

/// A matrix that is read, perhaps as its own transpose.
struct Operand<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    down: usize,
    along: usize,
}

/// What becomes of the numbers that stand in the result's place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Into {
    /// They are overwritten.
    Set,
    /// The product is added to them.
    Add,
}

/// `out ← scale · a bᵀ`: a linear layer, with `b` its weight of (outputs, inputs).
pub(super) fn by_transpose(team: &Team, out: RowsMut<'_>, into: Into, scale: f32, a: Rows<'_>, b: Rows<'_>) {
    product(team, out, into, scale, (a, Rows::plain), (b, Rows::turned));
}

/// `out ← scale · a b`: the gradient of a linear layer's input, with `b` its weight.
pub(super) fn plain(team: &Team, out: RowsMut<'_>, into: Into, scale: f32, a: Rows<'_>, b: Rows<'_>) {
    product(team, out, into, scale, (a, Rows::plain), (b, Rows::plain));
}

/// `out ← scale · aᵀ b`: the gradient of a linear layer's weight, with `a` that of its output and `b` its input.
pub(super) fn of_transpose(team: &Team, out: RowsMut<'_>, into: Into, scale: f32, a: Rows<'_>, b: Rows<'_>) {
    product(team, out, into, scale, (a, Rows::turned), (b, Rows::plain));
}

/// A matrix, and which way round it is read.
type Read<'a> = (Rows<'a>, fn(&Rows<'a>) -> Operand<'a>);

fn product(team: &Team, out: RowsMut<'_>, into: Into, scale: f32, a: Read<'_>, b: Read<'_>) {
    team.run(move || one_product(team.threads(), out, into, scale, &a.1(&a.0), &b.1(&b.0)));
}

fn one_product(threads: usize, out: RowsMut<'_>, into: Into, scale: f32, a: &Operand<'_>, b: &Operand<'_>) {
    let (rows, columns, inner) = (a.rows, b.columns, a.columns);
    assert_eq!(inner, b.rows, "the inner sizes of a product");
    assert_eq!((count(out.data.len(), out.width, out.stride), out.width), (rows, columns), "the sizes of a product");
    let parallel = match threads {
        1 => gemm::Parallelism::None,
        threads => gemm::Parallelism::Rayon(threads),
    };
    let (previous, add) = if into == Into::Add { (1.0, true) } else { (0.0, false) };
    let step = |n: usize| n as isize;
    // SAFETY: operands and result are slices with room for their rows, which `count` counts so that the last number of the
    // last row is within; the result is borrowed for writing, so it overlaps neither operand; the three sizes fit one
    // another, as asserted above.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            out.data.as_mut_ptr(),
            1,
            step(out.stride),
            add,
            a.data.as_ptr(),
            step(a.along),
            step(a.down),
            b.data.as_ptr(),
            step(b.along),
            step(b.down),
            previous,
            scale,
            false,
            false,
            false,
            parallel,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_the_definition_for_every_number_of_threads() {
        let number = |i: usize| ((i * 7919) % 23) as f32 - 11.0;
        let (n, k, m) = (37, 19, 45);
        let fill = |len: usize| (0..len).map(number).collect::<Vec<f32>>();
        // Rows within wider ones, the last of them cut off.
        let (a, b) = (fill((n - 1) * (k + 5) + k), fill(m * k));
        let mut results = Vec::new();
        for threads in [1, 2, 5] {
            let team = Team::new(threads).unwrap();
            let mut out = vec![1.0; (n - 1) * (m + 2) + m];
            let (a, b) = (Rows::within(&a, k, k + 5), Rows::new(&b, k));
            by_transpose(&team, RowsMut::within(&mut out, m, m + 2), Into::Add, 0.5, a, b);
            results.push(out);
        }
        for i in 0..n {
            for j in 0..m {
                let sum: f32 = (0..k).map(|l| a[i * (k + 5) + l] * b[j * k + l]).sum();
                assert_eq!(results[0][i * (m + 2) + j], 1.0 + 0.5 * sum);
            }
            assert!(i + 1 == n || results[0][i * (m + 2) + m..(i + 1) * (m + 2)] == [1.0, 1.0]);
        }
        assert!(results.iter().all(|out| *out == results[0]));
        let team = Team::new(1).unwrap();
        let (mut there, mut back) = (vec![0.0; k * m], vec![0.0; n * k]);
        let dense = fill(n * m);
        let x = fill(n * k);
        of_transpose(&team, RowsMut::new(&mut there, m), Into::Set, 1.0, Rows::new(&x, k), Rows::new(&dense, m));
        plain(&team, RowsMut::new(&mut back, k), Into::Set, 1.0, Rows::new(&dense, m), Rows::new(&b, k));
        assert_eq!(there[3 * m + 4], (0..n).map(|l| x[l * k + 3] * dense[l * m + 4]).sum::<f32>());
        assert_eq!(back[3 * k + 4], (0..m).map(|l| dense[3 * m + l] * b[l * k + 4]).sum::<f32>());
    }
}
