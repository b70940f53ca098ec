//! Random numbers: everything drawn at random comes from here, and from the experiment's seed.

use plugin_api::Seed;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

/// The rows `0..count` in an order drawn from `seed`.
pub fn shuffled(count: usize, seed: Seed) -> Vec<usize> {
    let mut rows: Vec<usize> = (0..count).collect();
    rows.shuffle(&mut ChaCha8Rng::seed_from_u64(seed.value()));
    rows
}

/// Fills `out` with numbers that are uniform in `-range..range`.
pub fn uniform(out: &mut [f32], range: f64, seed: Seed) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed.value());
    let step = 2.0 * range / f64::from(1_u32 << 24);
    out.fill_with(|| (f64::from(rng.next_u32() >> 8) * step - range) as f32);
}

/// Dropout, with masks drawn on the CPU so that they are the same on every device and for every number of threads.
#[derive(Debug)]
pub struct Noise(Option<ChaCha8Rng>);

impl Noise {
    /// Dropout is off: evaluation.
    pub fn none() -> Self {
        Self(None)
    }

    /// Dropout is on: training.
    pub fn new(seed: Seed) -> Self {
        Self(Some(ChaCha8Rng::seed_from_u64(seed.value())))
    }

    /// Whether dropout with probability `p` would change anything.
    pub fn acts(&self, p: f64) -> bool {
        self.0.is_some() && p > 0.0
    }

    /// `x` with each element 0 with probability `p`, and otherwise divided by `1 - p`.
    pub fn dropout(&mut self, x: Tensor, p: f64) -> Tensor {
        let Some(rng) = self.0.as_mut().filter(|_| p > 0.0) else { return x };
        let threshold = (p * 2_f64.powi(32)) as u32;
        let kept = (1.0 / (1.0 - p)) as f32;
        let mask: Vec<f32> = (0..x.numel()).map(|_| if rng.next_u32() < threshold { 0.0 } else { kept }).collect();
        let mask = Tensor::from_slice(&mask).reshape(x.size()).to_device(x.device());
        x * mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn dropout_drops_its_share_and_keeps_the_mean() {
        let ones = Tensor::ones([100_000], (Kind::Float, tch::Device::Cpu));
        let dropped = Noise::new(Seed::new(1)).dropout(ones.shallow_clone(), 0.1);
        let share = dropped.eq(0.0).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
        assert!((share - 0.1).abs() < 0.005, "{share}");
        assert!((dropped.mean(Kind::Float).double_value(&[]) - 1.0).abs() < 0.005);
        assert_eq!(dropped, Noise::new(Seed::new(1)).dropout(ones.shallow_clone(), 0.1));
        assert_ne!(dropped, Noise::new(Seed::new(2)).dropout(ones.shallow_clone(), 0.1));
        assert_eq!(ones, Noise::none().dropout(ones.shallow_clone(), 0.1));
    }

    #[test]
    fn uniform_fills_its_range() {
        let mut drawn = vec![0.0; 10_000];
        uniform(&mut drawn, 0.5, Seed::new(3));
        let (low, high) = drawn.iter().fold((0.0_f32, 0.0_f32), |(low, high), &x| (low.min(x), high.max(x)));
        assert!((-0.5..-0.49).contains(&low) && (0.49..0.5).contains(&high), "{low} {high}");
        assert!(drawn.iter().sum::<f32>().abs() / 10_000.0 < 0.01);
    }
}
