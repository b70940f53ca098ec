//! All random numbers, drawn with ChaCha8 from the experiment's seed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

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
#[derive(Debug)]
pub struct DropoutRng {
    masks: Masks,
    /// The masks that were drawn, if they are noted.
    noted: Option<Arc<Mutex<Vec<MaskShape>>>>,
}

/// The shape of a mask, and the probability that it drops an element.
pub(crate) type MaskShape = (Vec<i64>, f64);

/// Where masks come from.
#[derive(Debug)]
enum Masks {
    None,
    Drawn(Box<ChaCha8Rng>),
    /// The next one first.
    Given(VecDeque<Tensor>),
}

impl Clone for DropoutRng {
    fn clone(&self) -> Self {
        let masks = match &self.masks {
            Masks::None => Masks::None,
            Masks::Drawn(rng) => Masks::Drawn(rng.clone()),
            Masks::Given(masks) => Masks::Given(masks.iter().map(Tensor::shallow_clone).collect()),
        };
        Self { masks, noted: self.noted.clone() }
    }
}

impl DropoutRng {
    /// Without dropout, for evaluation.
    pub fn disabled() -> Self {
        Self { masks: Masks::None, noted: None }
    }

    /// With dropout, for training.
    pub fn new(seed: Seed) -> Self {
        Self { masks: Masks::Drawn(Box::new(ChaCha8Rng::seed_from_u64(seed.value()))), noted: None }
    }

    /// With these masks, one after the other.
    pub(crate) fn given(masks: &[Tensor]) -> Self {
        Self { masks: Masks::Given(masks.iter().map(Tensor::shallow_clone).collect()), noted: None }
    }

    /// The same, with a list of what is drawn since the last [`Self::restarted`].
    pub(crate) fn noting(&self) -> (Self, Arc<Mutex<Vec<MaskShape>>>) {
        let noted = Arc::default();
        (Self { noted: Some(Arc::clone(&noted)), ..self.clone() }, noted)
    }

    /// The same numbers again, for work that may have been begun before.
    pub(crate) fn restarted(&self) -> Self {
        self.noted.iter().for_each(|noted| noted.lock().unwrap_or_else(PoisonError::into_inner).clear());
        self.clone()
    }

    /// The masks of these shapes that this would draw one after the other, on the CPU.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn draw(&self, noted: &[MaskShape]) -> Result<Vec<Tensor>, TchError> {
        let mut rng = Self { noted: None, ..self.clone() };
        noted.iter().filter_map(|(shape, p)| rng.mask(shape, *p).transpose()).collect()
    }

    /// Whether dropout with probability `p` changes anything.
    pub fn is_active(&self, p: f64) -> bool {
        !matches!(self.masks, Masks::None) && p > 0.0
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

    /// The factors of dropout for a tensor of this shape, on the CPU unless they were given. None if it changes nothing.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn mask(&mut self, shape: &[i64], p: f64) -> Result<Option<Tensor>, TchError> {
        let rng = match &mut self.masks {
            Masks::Drawn(rng) if p > 0.0 => rng,
            Masks::Given(masks) if p > 0.0 => {
                let missing = || TchError::Torch(format!("no mask of shape {shape:?} was given"));
                let mask = masks.pop_front().filter(|mask| mask.size() == shape);
                return mask.ok_or_else(missing).map(Some);
            }
            _ => return Ok(None),
        };
        if let Some(noted) = &self.noted {
            noted.lock().unwrap_or_else(PoisonError::into_inner).push((shape.to_vec(), p));
        }
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
