//! The same trunk for [`fedplug_amplify_cpu`].

use fedplug_amplify_cpu::{BlockWeights, Encoder, Layer, Weight};
use tch::Kind;

use super::attention::Attention;
use super::layers::{Adapter, Linear, Norm};
use super::{Block, Trunk};
use crate::architecture::HiddenAct;
use crate::bridge;
use crate::parameters::Handle;

impl Trunk {
    /// The encoder of [`fedplug_amplify_cpu`], if it supports this trunk: of the published arrangement, in fp32, on the CPU.
    /// `frozen_blocks` are not trained.
    pub(crate) fn cpu_encoder(&self, frozen_blocks: usize, checkpointing: bool) -> Option<Encoder> {
        let (on_cpu, blocks) = (self.encoder.device() == tch::Device::Cpu, &self.transformer_encoder);
        let (true, None, Some(first)) = (on_cpu, &self.layer_norm_1, blocks.first()) else { return None };
        Some(Encoder {
            embedding: weight(&self.encoder)?,
            blocks: blocks.iter().map(Block::cpu_weights).collect::<Option<_>>()?,
            rope_table: bridge::to_vec(&self.rope.table.f_view_as_real().ok()?).ok()?,
            heads: usize::try_from(first.attention.heads).ok()?,
            norm_eps: first.attention_norm.eps as f32,
            pad: u32::try_from(self.pad).ok()?,
            is_frozen: blocks.iter().any(Block::has_adapters),
            frozen_blocks,
            checkpointing,
        })
    }
}

/// A parameter of one or two dimensions as the weight of [`fedplug_amplify_cpu`].
fn weight(handle: &Handle) -> Option<Weight> {
    let (rows, columns) = match handle.size()[..] {
        [columns] => (1, columns),
        [rows, columns] => (rows, columns),
        _ => return None,
    };
    Some(Weight { index: handle.index, rows: usize::try_from(rows).ok()?, columns: usize::try_from(columns).ok()? })
}

impl Block {
    fn has_adapters(&self) -> bool {
        let Self { attention: Attention { q, k, v, wo, .. }, ffn, .. } = self;
        [q, k, v, wo, &ffn.first, &ffn.second].iter().any(|linear| linear.adapter.is_some())
    }

    /// The weights, if [`fedplug_amplify_cpu`] supports this arrangement.
    fn cpu_weights(&self) -> Option<BlockWeights> {
        let Self { attention, ffn, attention_norm, ffn_norm } = self;
        let linear = |linear: &Linear| {
            if linear.bias.is_some() || linear.kind != Kind::Float {
                return None;
            }
            let adapter = match &linear.adapter {
                Some(adapter) if adapter.dropout > 0.0 => return None,
                Some(Adapter { a, b, scale, .. }) => {
                    Some(fedplug_amplify_cpu::Adapter { a: weight(a)?, b: weight(b)?, scale: *scale as f32 })
                }
                None => None,
            };
            Some(Layer { weight: weight(&linear.weight)?, adapter })
        };
        let norm = |norm: &Norm| norm.bias.is_none().then(|| weight(&norm.weight)).flatten();
        if ffn.act != HiddenAct::SwiGlu || attention.dropout > 0.0 || ffn.dropout > 0.0 {
            return None;
        }
        Some(BlockWeights {
            q: linear(&attention.q)?,
            k: linear(&attention.k)?,
            v: linear(&attention.v)?,
            wo: linear(&attention.wo)?,
            w12: linear(&ffn.first)?,
            w3: linear(&ffn.second)?,
            attention_norm: norm(attention_norm)?,
            ffn_norm: norm(ffn_norm)?,
        })
    }
}

#[cfg(test)]
mod tests;
