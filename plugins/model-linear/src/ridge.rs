//! Ridge regression to convergence, from rows or from sums over rows, and what the mean needs of the same sums.
//!
//! The minimum of `mean of (y − w · x − b)² + λ ‖w‖²` (Hoerl and Kennard 1970, *Ridge regression*) is where
//! `(C + λ I) w = c` with the features' covariance matrix `C` and their covariances `c` with the target, and
//! `b = ȳ − w · x̄`. Conjugate gradients solve it, preconditioned by the diagonal, which needs products with `C` alone: so it
//! takes the rows of half a million k-mers as well as a Gram matrix.

use plugin_api::{Context, Error, Result};

use crate::features::Features;

/// The residual, relative to `c`, at which the solution has converged.
const TOLERANCE: f64 = 1e-12;
const MOST_STEPS: usize = 20_000;

/// What predicts a task, in f64: `w · x + b`. Without features, `b` has a value for each output.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Solution {
    pub(crate) weight: Vec<f64>,
    pub(crate) bias: Vec<f64>,
}

impl Solution {
    /// Predicts 0, or the same probability for each class.
    pub(crate) fn zero(features: usize, outputs: usize) -> Self {
        Self { weight: vec![0.0; features], bias: vec![0.0; outputs] }
    }

    /// The outputs for a row.
    pub(crate) fn outputs(&self, x: &Features) -> Vec<f32> {
        let product: f64 = x.iter().map(|(i, x)| self.weight[i] * x).sum();
        self.bias.iter().map(|bias| (product + bias) as f32).collect()
    }
}

/// Sums over rows. The feature 0 is the intercept's, which is 1 in each row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sums {
    /// `Σ x xᵀ`, (features + 1, features + 1), row-major.
    pub(crate) gram: Vec<f64>,
    /// `Σ y x` for each output, (outputs, features + 1). Classes have an output each, which is 1 for the row's class.
    pub(crate) moment: Vec<f64>,
}

impl Sums {
    /// Of no rows.
    pub(crate) fn zero(features: usize, outputs: usize) -> Self {
        let size = features + 1;
        Self { gram: vec![0.0; size * size], moment: vec![0.0; outputs * size] }
    }

    /// Adds a row, whose target is `y` in one output, `count` times.
    pub(crate) fn add(&mut self, x: &Features, output: usize, y: f64, count: f64) {
        let size = self.size();
        let row: Vec<(usize, f64)> =
            std::iter::once((0, 1.0)).chain(x.iter().map(|(index, value)| (index + 1, value))).collect();
        for &(i, a) in &row {
            self.moment[output * size + i] += count * y * a;
            row.iter().for_each(|&(j, b)| self.gram[i * size + j] += count * a * b);
        }
    }

    fn size(&self) -> usize {
        self.gram.len().isqrt()
    }

    /// The shares of the outputs, or their mean if there is one; `None` without rows.
    pub(crate) fn means(&self) -> Option<Vec<f64>> {
        let rows = self.gram[0];
        (rows > 0.0).then(|| self.moment.chunks(self.size()).map(|output| output[0] / rows).collect())
    }

    /// Ridge regression on the rows that were added; `None` without rows.
    ///
    /// # Errors
    /// If it does not converge, or the context asks to stop.
    pub(crate) fn ridge(&self, lambda: f64, ctx: &Context<'_>) -> Result<Option<Solution>> {
        let (size, rows) = (self.size(), self.gram[0]);
        let Some(means) = self.means() else { return Ok(None) };
        let means = Means {
            x: self.gram[1..size].iter().map(|sum| sum / rows).collect(),
            y: means[0],
            xy: self.moment[1..size].iter().map(|sum| sum / rows).collect(),
            squares: (1..size).map(|i| self.gram[i * size + i] / rows).collect(),
        };
        let product = |v: &[f64], out: &mut [f64]| {
            for (out, row) in out.iter_mut().zip(self.gram[size..].chunks(size)) {
                *out = dot(&row[1..], v) / rows;
            }
        };
        means.ridge(product, lambda, ctx).map(Some)
    }
}

impl From<Solution> for [Vec<f64>; 2] {
    fn from(Solution { weight, bias }: Solution) -> Self {
        [weight, bias]
    }
}

impl From<Sums> for [Vec<f64>; 2] {
    fn from(Sums { gram, moment }: Sums) -> Self {
        [gram, moment]
    }
}

/// Ridge regression on rows; `None` without rows.
///
/// # Errors
/// If it does not converge, or the context asks to stop.
pub(crate) fn of_rows(
    x: &[Features],
    y: &[f32],
    features: usize,
    lambda: f64,
    ctx: &Context<'_>,
) -> Result<Option<Solution>> {
    if x.is_empty() {
        return Ok(None);
    }
    let rows = x.len() as f64;
    let mean_y = y.iter().map(|&y| f64::from(y)).sum::<f64>() / rows;
    // The targets' deviations from their mean have the same covariances, and no offset that would cost digits.
    let [mut mean, mut xy, mut squares] = [(); 3].map(|()| vec![0.0; features]);
    for (row, &y) in x.iter().zip(y) {
        for (i, value) in row.iter() {
            mean[i] += value / rows;
            xy[i] += value * (f64::from(y) - mean_y) / rows;
            squares[i] += value * value / rows;
        }
    }
    let means = Means { x: mean, y: 0.0, xy, squares };
    let product = |v: &[f64], out: &mut [f64]| {
        out.fill(0.0);
        for row in x {
            let along: f64 = row.iter().map(|(i, value)| v[i] * value).sum::<f64>() / rows;
            row.iter().for_each(|(i, value)| out[i] += along * value);
        }
    };
    let mut solution = means.ridge(product, lambda, ctx)?;
    solution.bias[0] += mean_y;
    Ok(Some(solution))
}

/// Means over rows, of the features, the target, their products, and the squares of the features.
struct Means {
    x: Vec<f64>,
    y: f64,
    xy: Vec<f64>,
    squares: Vec<f64>,
}

impl Means {
    /// Solves for the weights. `product` writes the product of the mean of `x xᵀ` with a vector.
    fn ridge(&self, product: impl Fn(&[f64], &mut [f64]), lambda: f64, ctx: &Context<'_>) -> Result<Solution> {
        let mut residual: Vec<f64> = self.xy.iter().zip(&self.x).map(|(xy, x)| xy - x * self.y).collect();
        let diagonal: Vec<f64> =
            self.squares.iter().zip(&self.x).map(|(square, x)| (square - x * x).max(0.0) + lambda).collect();
        let condition = |r: &[f64]| -> Vec<f64> { r.iter().zip(&diagonal).map(|(r, d)| r / d).collect() };
        let goal = TOLERANCE * dot(&residual, &residual).sqrt();
        let mut w = vec![0.0; residual.len()];
        let mut out = w.clone();
        let mut z = condition(&residual);
        let mut direction = z.clone();
        let mut slope = dot(&residual, &z);
        let mut steps = 0;
        while dot(&residual, &residual).sqrt() > goal {
            ctx.check()?;
            if steps == MOST_STEPS {
                let error = Error::other(format!("ridge regression has not converged after {MOST_STEPS} steps"));
                return Err(error.help("increase `ridge-lambda`"));
            }
            product(&direction, &mut out);
            let along = dot(&self.x, &direction);
            for ((out, x), d) in out.iter_mut().zip(&self.x).zip(&direction) {
                *out += lambda * d - along * x;
            }
            let step = slope / dot(&direction, &out);
            add(&mut w, step, &direction);
            add(&mut residual, -step, &out);
            z = condition(&residual);
            let next = dot(&residual, &z);
            direction.iter_mut().zip(&z).for_each(|(d, z)| *d = z + next / slope * *d);
            slope = next;
            steps += 1;
        }
        Ok(Solution { bias: vec![self.y - dot(&w, &self.x)], weight: w })
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `a += s b`.
fn add(a: &mut [f64], s: f64, b: &[f64]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += s * b);
}
