//! The distributions of NumPy's legacy generator, `numpy.random.RandomState`, that the published data preparation uses.
//!
//! NumPy guarantees that the stream never changes. Each function returns the numbers of the NumPy call in its documentation,
//! after the same earlier calls. Rounding follows the C library's `log` and `pow`, as NumPy's does.

use rand_mt::Mt;

/// The Mersenne Twister MT19937 (Matsumoto and Nishimura 1998), and the second normal variable of the last pair.
#[derive(Clone, Debug)]
pub(crate) struct RandomState {
    twister: Mt,
    spare_gauss: Option<f64>,
}

impl RandomState {
    /// `RandomState(seed)`, or `numpy.random.seed(seed)`: the authors' `init_genrand` of 2002.
    pub(crate) fn new(seed: u32) -> Self {
        Self { twister: Mt::new(seed), spare_gauss: None }
    }

    /// The next 32 bits: `randint(0, 2**32, dtype=numpy.uint32)`.
    fn bits(&mut self) -> u32 {
        self.twister.next_u32()
    }

    /// `random_sample()`: uniform in [0, 1) with 53 bits, 27 from the first draw and 26 from the second.
    fn uniform(&mut self) -> f64 {
        let (high, low) = (self.bits() >> 5, self.bits() >> 6);
        (f64::from(high) * f64::from(1 << 26) + f64::from(low)) / (1_u64 << 53) as f64
    }

    /// A whole number from 0 to `max`: draws, masked to the bits of `max`, are rejected while they are larger. Nothing is
    /// drawn if `max` is 0.
    fn at_most(&mut self, max: u32) -> u32 {
        let mask = u32::MAX.checked_shr(max.leading_zeros()).unwrap_or(0);
        if max == 0 {
            return 0;
        }
        loop {
            let value = self.bits() & mask;
            if value <= max {
                return value;
            }
        }
    }

    /// `permutation(count)`: the numbers below `count`, shuffled from the last to the second.
    ///
    /// # Panics
    /// If `count` is more than 2³², where NumPy's stream differs.
    pub(crate) fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            let max = u32::try_from(last).expect("fewer rows than 2^32");
            numbers.swap(last, self.at_most(max) as usize);
        }
        numbers
    }

    /// `choice(below, draws)`, with replacement: whole numbers less than `below`, which must not be 0.
    pub(crate) fn choice(&mut self, below: u32, draws: usize) -> Vec<usize> {
        (0..draws).map(|_| self.at_most(below - 1) as usize).collect()
    }

    /// `standard_exponential()`, by inversion.
    fn exponential(&mut self) -> f64 {
        -(1.0 - self.uniform()).ln()
    }

    /// `standard_normal()`: the polar method (Marsaglia and Bray 1964). The second coordinate of each pair is returned
    /// first, and the other one by the next call.
    fn gauss(&mut self) -> f64 {
        if let Some(spare) = self.spare_gauss.take() {
            return spare;
        }
        loop {
            let x = 2.0 * self.uniform() - 1.0;
            let y = 2.0 * self.uniform() - 1.0;
            let square = x * x + y * y;
            if square < 1.0 && square != 0.0 {
                let scale = (-2.0 * square.ln() / square).sqrt();
                self.spare_gauss = Some(scale * x);
                return scale * y;
            }
        }
    }

    /// `standard_gamma(shape)`: an exponential variable for shape 1, the rejection method of Ahrens and Dieter (1974) below,
    /// that of Marsaglia and Tsang (2000) above.
    fn gamma(&mut self, shape: f64) -> f64 {
        if shape == 1.0 {
            self.exponential()
        } else if shape < 1.0 {
            self.gamma_below_one(shape)
        } else {
            self.gamma_above_one(shape)
        }
    }

    fn gamma_below_one(&mut self, shape: f64) -> f64 {
        loop {
            let (u, e) = (self.uniform(), self.exponential());
            let (x, bound) = if u <= 1.0 - shape {
                (u.powf(1.0 / shape), e)
            } else {
                let y = -((1.0 - u) / shape).ln();
                ((1.0 - shape + shape * y).powf(1.0 / shape), e + y)
            };
            if x <= bound {
                return x;
            }
        }
    }

    fn gamma_above_one(&mut self, shape: f64) -> f64 {
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.gauss();
            let root = 1.0 + c * x;
            if root <= 0.0 {
                continue;
            }
            let v = root * root * root;
            let u = self.uniform();
            let squeezed = u < 1.0 - 0.0331 * (x * x) * (x * x);
            if squeezed || u.ln() < 0.5 * x * x + d * (1.0 - v + v.ln()) {
                return d * v;
            }
        }
    }

    /// `dirichlet([alpha] * count)`: gamma variables times the reciprocal of their sum. `None` if all of them underflow,
    /// where NumPy returns NaN.
    pub(crate) fn dirichlet(&mut self, alpha: f64, count: usize) -> Option<Vec<f64>> {
        let gammas: Vec<f64> = (0..count).map(|_| self.gamma(alpha)).collect();
        let sum: f64 = gammas.iter().sum();
        let scale = 1.0 / sum;
        scale.is_finite().then(|| gammas.into_iter().map(|gamma| gamma * scale).collect())
    }
}

#[cfg(test)]
mod tests;
