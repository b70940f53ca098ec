//! All random numbers, drawn with ChaCha8 from the experiment's seed.

use plugin_api::Seed;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{TchError, Tensor};

use crate::bridge;

/// The numbers `0..count` in random order.
pub fn shuffled(count: usize, seed: Seed) -> Vec<usize> {
    let mut rows: Vec<usize> = (0..count).collect();
    rows.shuffle(&mut ChaCha8Rng::seed_from_u64(seed.value()));
    rows
}

/// Fills `out` with values that are uniform in `-range..range`.
pub fn uniform(out: &mut [f32], range: f64, seed: Seed) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed.value());
    let step = 2.0 * range / f64::from(1_u32 << 24);
    out.fill_with(|| (f64::from(rng.next_u32() >> 8) * step - range) as f32);
}

/// Draws dropout masks. They are drawn on the CPU, so that they are the same on every device and for any number of threads.
#[derive(Clone, Debug)]
pub struct DropoutRng(Option<ChaCha8Rng>);

impl DropoutRng {
    /// Without dropout, for evaluation.
    pub fn disabled() -> Self {
        Self(None)
    }

    /// With dropout, for training.
    pub fn new(seed: Seed) -> Self {
        Self(Some(ChaCha8Rng::seed_from_u64(seed.value())))
    }

    /// Whether dropout with probability `p` changes anything.
    pub fn is_active(&self, p: f64) -> bool {
        self.0.is_some() && p > 0.0
    }

    /// Sets each element of `x` to 0 with probability `p`, and divides the others by `1 - p`.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn dropout(&mut self, x: Tensor, p: f64) -> Result<Tensor, TchError> {
        match self.mask(&x.size(), p)? {
            Some(mask) => x.f_mul(&bridge::to_device(&mask, x.device())?),
            None => Ok(x),
        }
    }

    /// The factors of dropout for a tensor of this shape, on the CPU. None if it changes nothing.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn mask(&mut self, shape: &[i64], p: f64) -> Result<Option<Tensor>, TchError> {
        let Some(rng) = self.0.as_mut().filter(|_| p > 0.0) else { return Ok(None) };
        let threshold = (p * 2_f64.powi(32)) as u32;
        let scale = (1.0 / (1.0 - p)) as f32;
        let draw = |_| if rng.next_u32() < threshold { 0.0 } else { scale };
        let mask: Vec<f32> = (0..shape.iter().product::<i64>()).map(draw).collect();
        Tensor::f_from_slice(&mask)?.f_reshape(shape).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn dropout_drops_its_share_and_keeps_the_mean() {
        let ones = Tensor::ones([100_000], (Kind::Float, tch::Device::Cpu));
        let dropout = |mut rng: DropoutRng| rng.dropout(ones.shallow_clone(), 0.1).unwrap();
        let dropped = dropout(DropoutRng::new(Seed::new(1)));
        let share = dropped.eq(0.0).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
        assert!((share - 0.1).abs() < 0.005, "{share}");
        assert!((dropped.mean(Kind::Float).double_value(&[]) - 1.0).abs() < 0.005);
        assert_eq!(dropped, dropout(DropoutRng::new(Seed::new(1))));
        assert_ne!(dropped, dropout(DropoutRng::new(Seed::new(2))));
        assert_eq!(ones, dropout(DropoutRng::disabled()));
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
