//! Seeds, and random draws from them.

/// A seed from which others can be derived, by name and by number. Every derivation is fixed: the same path gives the
/// same value on every machine and in every release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seed(u64);

impl Seed {
    /// The root seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Derives the seed for a name.
    #[must_use]
    pub fn of(self, name: &str) -> Self {
        // FNV-1a over the name, then one step of SplitMix64, whose output function is a bijection with full avalanche.
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self(mix(self.0 ^ hash.rotate_left(32)))
    }

    /// Derives the seed for a number.
    #[must_use]
    pub fn at(self, number: u64) -> Self {
        Self(mix(mix(self.0).wrapping_add(number)))
    }

    /// The value to seed a generator with.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// One draw from the uniform distribution over `0..1`. The same seed gives the same draw; for many draws, use
    /// [`at(0)`](Self::at), `at(1)` and so on.
    #[expect(clippy::cast_precision_loss, reason = "53 bits, which an f64 holds")]
    pub fn uniform(self) -> f64 {
        (mix(self.0) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// One draw from the standard normal distribution (Box and Muller 1958). The same seed gives the same draw on every
    /// machine.
    ///
    /// ```
    /// use plugin_api::Seed;
    ///
    /// let seed = Seed::new(42).of("weights");
    /// let weights: Vec<f32> = (0..4).map(|i| 0.02 * seed.at(i).normal() as f32).collect();
    /// assert_eq!(weights[3], 0.02 * seed.at(3).normal() as f32);
    /// ```
    pub fn normal(self) -> f64 {
        // Never 0, whose logarithm is not finite.
        let radius = (-2.0 * libm::log(1.0 - self.at(0).uniform())).sqrt();
        radius * libm::cos(std::f64::consts::TAU * self.at(1).uniform())
    }
}

/// One output of SplitMix64 (Steele, Lea and Flood 2014).
const fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_seeds_are_fixed_for_ever_and_distinct() {
        // Recorded once. A change here changes every experiment's bits.
        assert_eq!(Seed::new(0).at(0).value(), 0xa706_dd2f_4d19_7e6f);
        assert_eq!(Seed::new(42).of("tm").at(3).value(), 4_795_672_531_119_795_240);
        let mut all: Vec<_> = (0..100)
            .flat_map(|round| ["a", "b", "ab", "ba"].map(|client| Seed::new(1).of(client).at(round)))
            .map(Seed::value)
            .collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 400);
    }

    #[test]
    fn draws_are_fixed_for_ever_and_follow_their_distribution() {
        let draws = |draw: fn(Seed) -> f64| -> Vec<f64> { (0..10_000).map(|i| draw(Seed::new(7).at(i))).collect() };
        let moments = |draws: &[f64]| {
            let mean = draws.iter().sum::<f64>() / draws.len() as f64;
            (mean, draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / draws.len() as f64)
        };
        let (uniform, normal) = (draws(Seed::uniform), draws(Seed::normal));
        assert!(uniform.iter().all(|x| (0.0..1.0).contains(x)));
        let (mean, variance) = moments(&uniform);
        assert!((mean - 0.5).abs() < 0.01 && (variance - 1.0 / 12.0).abs() < 0.003, "{mean} {variance}");
        let (mean, variance) = moments(&normal);
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        // Within one, two and three standard deviations.
        for (width, share) in [(1.0, 0.6827), (2.0, 0.9545), (3.0, 0.9973)] {
            let within = normal.iter().filter(|x| x.abs() < width).count() as f64 / normal.len() as f64;
            assert!((within - share).abs() < 0.015, "{width}: {within}");
        }
        assert!(normal.iter().all(|x| x.is_finite()));
    }
}
