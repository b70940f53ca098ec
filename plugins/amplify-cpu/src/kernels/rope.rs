//! Rotary position embedding (Su et al. 2021, *RoFormer*, section 3.4.2).

use super::vectorised;

/// Which way to rotate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// By the position's angle.
    Forward,
    /// Back by it: the derivative, since a rotation's transpose is its inverse.
    Backward,
}

/// Rotates the pairs of features of each head: `(a, b) ← (a cos θ − b sin θ, a sin θ + b cos θ)`.
///
/// `row` holds the heads of one position, (heads, head size); `table` is `cos θ, sin θ` of each pair, (head size).
pub(crate) fn rope(row: &mut [f32], table: &[f32], direction: Direction) {
    let sign = if direction == Direction::Backward { -1.0 } else { 1.0 };
    let n = table.len();
    vectorised!(for head in 0..row.len() / n {
        let row = &mut row[head * n..(head + 1) * n];
        for pair in 0..n / 2 {
            let (a, b, cos, sin) = (row[2 * pair], row[2 * pair + 1], table[2 * pair], table[2 * pair + 1] * sign);
            row[2 * pair] = a * cos - b * sin;
            row[2 * pair + 1] = a * sin + b * cos;
        }
    });
}
