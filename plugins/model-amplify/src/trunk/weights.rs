//! Weights in the form that matrix products read, such as bfloat16: made at each use, or once for several passes that read the
//! same parameters, as those of accumulated batches, of activation checkpointing and of an evaluation.

use std::cell::RefCell;

use tch::{TchError, Tensor};

use super::Trunk;

/// A weight, while it is kept.
#[derive(Debug, Default)]
pub(super) struct Kept(RefCell<Option<Tensor>>);

impl Kept {
    pub(super) fn get_or_make(&self, make: impl FnOnce() -> Result<Tensor, TchError>) -> Result<Tensor, TchError> {
        if let Some(kept) = &*self.0.borrow() {
            return Ok(kept.shallow_clone());
        }
        // A pass with a graph may follow one without.
        let made = tch::with_grad(make)?;
        *self.0.borrow_mut() = Some(made.shallow_clone());
        Ok(made)
    }

    fn release(&self) {
        *self.0.borrow_mut() = None;
    }
}

/// Keeps a trunk's weights until it is dropped. No parameter may change before the last pass that it covers.
#[derive(Debug)]
pub(crate) struct KeptWeights<'a>(&'a Trunk);

impl Trunk {
    /// Makes each weight once for all passes until the guard is dropped.
    pub(crate) fn keep_weights(&self) -> KeptWeights<'_> {
        self.keeps_weights.set(true);
        KeptWeights(self)
    }
}

impl Drop for KeptWeights<'_> {
    fn drop(&mut self) {
        let Self(trunk) = self;
        trunk.keeps_weights.set(false);
        for block in &trunk.transformer_encoder {
            let (attention, ffn) = (&block.attention, &block.ffn);
            let layers = [&attention.q, &attention.k, &attention.v, &attention.wo, &ffn.first, &ffn.second];
            layers.iter().for_each(|layer| layer.kept.release());
            attention.fused.iter().flatten().for_each(Kept::release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn a_kept_weight_is_made_once_and_has_a_derivative_each_time() {
        let weight = Tensor::ones([2, 3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let (kept, mut made) = (Kept::default(), 0);
        let mut use_it = || {
            // As in a pass that keeps no graph.
            let of = tch::no_grad(|| {
                kept.get_or_make(|| {
                    made += 1;
                    weight.f_to_kind(Kind::BFloat16)
                })
            });
            let sum = of.unwrap().sum(Kind::Float);
            Tensor::run_backward(&[sum], &[&weight], false, false).remove(0)
        };
        assert_eq!(use_it(), use_it());
        assert_eq!(made, 1);
        kept.release();
        assert!(kept.0.borrow().is_none());
    }
}
