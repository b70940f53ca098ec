//! NumPy's legacy generator, `numpy.random.RandomState`, as far as the published data preparation draws from it.
//!
//! NumPy promises that its stream never changes, so each function here gives the numbers that the NumPy call in its
//! page gives after the same calls before it. Rounding follows the C library's `log` and `pow`, as NumPy's does.

/// How many words the state has.
const WORDS: usize = 624;
/// How far apart the two words lie that are mixed into a new one.
const MIDDLE: usize = 397;

/// The Mersenne Twister MT19937 (Matsumoto and Nishimura 1998), and the normal variable that it has in store.
#[derive(Clone, Debug)]
pub(crate) struct RandomState {
    words: [u32; WORDS],
    next: usize,
    spare_gauss: Option<f64>,
}

impl RandomState {
    /// `RandomState(seed)`, or `numpy.random.seed(seed)`: the authors' `init_genrand` of 2002.
    pub(crate) fn new(seed: u32) -> Self {
        let mut words = [seed; WORDS];
        for i in 1..WORDS {
            let last = words[i - 1];
            words[i] = (last ^ (last >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { words, next: WORDS, spare_gauss: None }
    }

    /// The next 32 bits: `randint(0, 2**32, dtype=numpy.uint32)`.
    fn bits(&mut self) -> u32 {
        if self.next == WORDS {
            self.twist();
        }
        let word = self.words[self.next];
        self.next += 1;
        let word = word ^ (word >> 11);
        let word = word ^ ((word << 7) & 0x9d2c_5680);
        let word = word ^ ((word << 15) & 0xefc6_0000);
        word ^ (word >> 18)
    }

    fn twist(&mut self) {
        for i in 0..WORDS {
            let joined = (self.words[i] & 0x8000_0000) | (self.words[(i + 1) % WORDS] & 0x7fff_ffff);
            let odd = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.words[i] = self.words[(i + MIDDLE) % WORDS] ^ (joined >> 1) ^ odd;
        }
        self.next = 0;
    }

    /// `random_sample()`: uniform in [0, 1) with 53 bits, of which the first draw gives 27 and the second 26.
    fn uniform(&mut self) -> f64 {
        let (high, low) = (self.bits() >> 5, self.bits() >> 6);
        (f64::from(high) * f64::from(1 << 26) + f64::from(low)) / (1_u64 << 53) as f64
    }

    /// A whole number from 0 to `most`: draws, cut to as many bits as `most` has, until one is not larger. No draw is
    /// made where 0 is the only answer.
    fn at_most(&mut self, most: u32) -> u32 {
        let mask = u32::MAX.checked_shr(most.leading_zeros()).unwrap_or(0);
        if most == 0 {
            return 0;
        }
        loop {
            let value = self.bits() & mask;
            if value <= most {
                return value;
            }
        }
    }

    /// `permutation(count)`: the numbers below `count`, shuffled from the last place to the second.
    ///
    /// # Panics
    /// If `count` is beyond 2³²: NumPy's stream is another there.
    pub(crate) fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            let most = u32::try_from(last).expect("fewer rows than 2^32");
            numbers.swap(last, self.at_most(most) as usize);
        }
        numbers
    }

    /// `choice(below, draws)`, with replacement: whole numbers below `below`, which is not 0.
    pub(crate) fn choice(&mut self, below: u32, draws: usize) -> Vec<usize> {
        (0..draws).map(|_| self.at_most(below - 1) as usize).collect()
    }

    /// `standard_exponential()`: by the inverse of its distribution function.
    fn exponential(&mut self) -> f64 {
        -(1.0 - self.uniform()).ln()
    }

    /// `standard_normal()`: the polar method (Marsaglia and Bray 1964). Of each pair the second coordinate is given
    /// first, and the other one is kept for the next call.
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

    /// `standard_gamma(shape)`: an exponential variable for shape 1, rejection (Ahrens and Dieter 1974) below it, a
    /// squeezed cube of a normal variable (Marsaglia and Tsang 2000) above.
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

    /// `dirichlet([alpha] * count)`: gamma variables times one over their sum. Nothing where all of them underflow,
    /// which in NumPy gives values that are not numbers.
    pub(crate) fn dirichlet(&mut self, alpha: f64, count: usize) -> Option<Vec<f64>> {
        let gammas: Vec<f64> = (0..count).map(|_| self.gamma(alpha)).collect();
        let sum: f64 = gammas.iter().sum();
        let scale = 1.0 / sum;
        scale.is_finite().then(|| gammas.into_iter().map(|gamma| gamma * scale).collect())
    }
}

#[cfg(test)]
mod tests;
