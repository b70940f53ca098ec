//! The sampler, compared with exact probabilities.

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::*;

/// `exp(-x² / (2σ²))`, normalised over the integers.
fn probabilities(a: u64, b: u64) -> impl Fn(i64) -> f64 {
    let variance = a as f64 / b as f64;
    let density = move |x: i64| (-(x as f64).powi(2) / (2.0 * variance)).exp();
    let reach = (40.0 * variance.sqrt()) as i64 + 2;
    let sum: f64 = (-reach..=reach).map(density).sum();
    move |x| density(x) / sum
}

/// How many standard normal deviations a chi-square statistic is above its mean (Wilson and Hilferty 1931), for samples
/// in cells of `width` integers. All cells with fewer than 20 expected samples are merged into one.
fn excess(samples: &[i64], probability: impl Fn(i64) -> f64, width: i64, reach: i64) -> f64 {
    let cells = (-reach..=reach).map(|cell| cell * width..(cell + 1) * width);
    let (mut statistic, mut degrees, mut rest, mut rest_count) = (0.0, 0.0, 1.0, samples.len());
    let mut counts = std::collections::BTreeMap::<i64, usize>::new();
    for x in samples {
        *counts.entry(x.div_euclid(width)).or_default() += 1;
    }
    for cell in cells {
        let place = cell.start.div_euclid(width);
        let chance: f64 = cell.map(&probability).sum();
        let expected = chance * samples.len() as f64;
        if expected >= 20.0 {
            let count = counts.get(&place).copied().unwrap_or_default();
            statistic += (count as f64 - expected).powi(2) / expected;
            (degrees, rest, rest_count) = (degrees + 1.0, rest - chance, rest_count - count);
        }
    }
    let expected = (rest * samples.len() as f64).max(1.0);
    statistic += (rest_count as f64 - expected).powi(2) / expected;
    let spread = 2.0 / (9.0 * degrees);
    ((statistic / degrees).cbrt() - (1.0 - spread)) / f64::sqrt(spread)
}

/// A true sampler exceeds this with a probability of about 10⁻⁶ for each test.
const LEVEL: f64 = 4.75;

#[test]
fn samples_have_the_exact_probabilities() {
    for (a, b, count, width) in [
        (1, 4, 300_000, 1),
        (1, 1, 1_000_000, 1),
        (10, 3, 1_000_000, 1),
        (1000, 1, 1_000_000, 3),
        (1 << 41, 1, 300_000, 1 << 16),
    ] {
        let mut rng = ChaCha20Rng::seed_from_u64(a ^ b);
        let noise = DiscreteGaussian::new(a, b).unwrap();
        let samples: Vec<i64> = (0..count).map(|_| noise.sample(&mut rng)).collect();
        let sigma = noise.variance().sqrt();
        let mean = samples.iter().map(|&x| x as f64 / sigma).sum::<f64>() / f64::from(count);
        assert!(mean.abs() < LEVEL / f64::from(count).sqrt(), "{a}/{b}: {mean}");
        if sigma > 1.0 {
            let variance = samples.iter().map(|&x| (x as f64 / sigma).powi(2)).sum::<f64>() / f64::from(count);
            assert!((variance - 1.0).abs() < LEVEL * (2.0 / f64::from(count)).sqrt(), "{a}/{b}: {variance}");
        }
        // A cell of many integers has the probability of its middle, which is close enough for this many samples.
        let found = if width < 1000 {
            excess(&samples, probabilities(a, b), width, 200)
        } else {
            let probability = probabilities(a / (width as u64).pow(2), b);
            let shifted: Vec<i64> = samples.iter().map(|x| (x + width / 2).div_euclid(width)).collect();
            excess(&shifted, probability, 1, 200)
        };
        assert!(found < LEVEL, "{a}/{b}: {found}");
    }
}

/// Rounded normal samples have almost these probabilities. The test detects them, so it can fail.
#[test]
fn a_rounded_normal_sample_is_told_from_an_exact_one() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let normal = |rng: &mut ChaCha20Rng| {
        let (u, v): (f64, f64) = (rng.random(), rng.random());
        (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    };
    let samples: Vec<i64> = (0..1_000_000).map(|_| normal(&mut rng).round() as i64).collect();
    assert!(excess(&samples, probabilities(1, 1), 1, 200) > 20.0);
}

#[test]
fn a_chance_of_exp_has_its_share() {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let count = 400_000;
    for (n, d) in [(0, 1), (1, 3), (1, 1), (7, 3), (1 << 87, (1 << 88) - 1)] {
        let chance = (-(n as f64) / d as f64).exp();
        let share = (0..count).filter(|_| bernoulli_exp(n, d, &mut rng)).count() as f64 / f64::from(count);
        let error = (chance * (1.0 - chance) / f64::from(count)).sqrt();
        assert!((share - chance).abs() <= LEVEL * error, "{n}/{d}: {share}");
    }
}

/// Fixed random words.
struct Digits<I>(I);

impl<I: Iterator<Item = u32>> rand::TryRng for Digits<I> {
    type Error = std::convert::Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(self.0.next().unwrap())
    }
    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        unreachable!()
    }
    fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), Self::Error> {
        unreachable!()
    }
}

#[test]
fn a_digit_that_decides_nothing_is_followed_by_another() {
    // 1/3 is 0.5555 5555 5555 5555… in base 16.
    let told = |digits: &[u32]| {
        let mut digits = Digits(digits.iter().copied());
        let told = bernoulli(1, 3, &mut digits);
        assert!(digits.0.next().is_none(), "it takes no digit more");
        told
    };
    let same = 0x5555_5555;
    assert!(told(&[same - 1]) && !told(&[same + 1]));
    assert!(told(&[same, same, 0]) && !told(&[same, same, same + 1]));
    let mut none = Digits(vec![0, u32::MAX].into_iter());
    assert!(!bernoulli(0, 1, &mut none) && bernoulli(1, 1, &mut none));
}

#[test]
fn what_does_not_fit_is_refused() {
    let fits = |a, b| DiscreteGaussian::new(a, b).is_some();
    assert!(fits(1, 1) && fits((1 << 42) - 1, 1) && fits(1, 1 << 42));
    assert!(!fits(0, 1) && !fits(1, 0) && !fits(1 << 43, 1) && !fits(u64::MAX, 1) && !fits(1, u64::MAX));
    let continuous = |a| DiscreteGaussian::new(a, 1).unwrap().continuous();
    assert_eq!([continuous(9), continuous(25)], [None, Some(4.0)]);
}
