//! The AMPLIFY encoder (Fournier et al. 2024) in libtorch, with the published names.

mod attention;
mod checkpointing;
mod cpu_encoder;
pub(crate) mod layers;
mod native;
mod pass;
mod weights;

use std::cell::Cell;

use plugin_api::Result;
use tch::{Kind, TchError, Tensor};

use crate::architecture::{Architecture, HiddenAct};
use crate::batch::Batch;
use crate::bridge;
use crate::config::{Lora, LoraTarget, Precision};
use crate::fused::Kernels;
use crate::parameters::{Handle, Init, Scope};
use crate::random::DropoutRng;
use attention::Attention;
use pass::Pass;

pub(crate) use checkpointing::Checkpoints;
pub use layers::Linear;
use layers::{Norm, Rope, Sum, swiglu};

/// SwiGLU (Shazeer 2020, equation 6), `w3(SiLU(a) · b)` with `(a, b) = w12(x)`; or `w₂(act(w₁(x)))`.
#[derive(Debug)]
struct FeedForward {
    first: Linear,
    second: Linear,
    act: HiddenAct,
    dropout: f64,
}

impl FeedForward {
    fn new(mut at: Scope<'_>, a: &Architecture, kind: Kind, lora: Option<&Lora>) -> Result<Self> {
        let (n, weight) = (a.hidden_size, Init::Uniform(a.decoder_init_range));
        let (first, second, up, down) = match a.hidden_act {
            HiddenAct::SwiGlu => ("w12", "w3", 2 * a.swiglu_size(), a.swiglu_size()),
            HiddenAct::Relu | HiddenAct::Gelu => ("0", "2", a.intermediate_size, a.intermediate_size),
        };
        let bias = a.ffn_bias.then_some(Init::Zeros);
        let mut linear = |name, inputs, outputs, target| -> Result<Linear> {
            let layer = Linear::new(at.at(name), inputs, outputs, weight, bias)?.with_kind(kind);
            layer.with_adapter(at.at(name), lora, target)
        };
        Ok(Self {
            first: linear(first, n, up, LoraTarget::W12)?,
            second: linear(second, down, n, LoraTarget::W3)?,
            act: a.hidden_act,
            dropout: a.dropout_prob,
        })
    }

    fn forward(&self, x: &Tensor, pass: &Pass<'_>, dropout: &mut DropoutRng) -> Result<Tensor, TchError> {
        let y = self.first.forward_adapted(x, pass, dropout)?;
        let y = match self.act {
            HiddenAct::SwiGlu => match pass.kernels {
                Some(kernels) => kernels.swiglu(&y)?,
                None => swiglu(&y)?,
            },
            HiddenAct::Relu => y.f_relu()?,
            HiddenAct::Gelu => y.f_gelu("none")?,
        };
        let y = self.second.forward_adapted(&y, pass, dropout)?;
        pass.dropout(y, self.dropout, dropout)
    }
}

/// `x ← x + attention(norm(x))`, then `x ← x + ffn(norm(x))`.
#[derive(Debug)]
struct Block {
    attention: Attention,
    ffn: FeedForward,
    attention_norm: Norm,
    ffn_norm: Norm,
}

impl Block {
    fn new(mut at: Scope<'_>, a: &Architecture, kind: Kind, lora: Option<&Lora>) -> Result<Self> {
        Ok(Self {
            attention: Attention::new(&mut at, a, kind, lora)?,
            ffn: FeedForward::new(at.at("ffn"), a, kind, lora)?,
            attention_norm: Norm::new(at.at("attention_norm"), a)?,
            ffn_norm: Norm::new(at.at("ffn_norm"), a)?,
        })
    }

    /// `x` and the result are the sums of the blocks' outputs.
    fn forward(&self, x: Sum, pass: &Pass<'_>, dropout: &mut DropoutRng) -> Result<Sum, TchError> {
        let kind = self.attention.input_kind(x.kind());
        let [x, y] = self.attention_norm.of_sum(x, pass, kind)?;
        let y = self.attention.forward(&y, pass, dropout)?;
        let [x, y] = self.ffn_norm.of_sum(Sum::with(x, y), pass, self.ffn.first.kind)?;
        let y = self.ffn.forward(&y, pass, dropout)?;
        Ok(Sum::with(x, y))
    }
}

/// The encoder, and the decoder that it was pretrained with.
#[derive(Debug)]
pub struct Trunk {
    encoder: Handle,
    layer_norm_1: Option<Norm>,
    transformer_encoder: Vec<Block>,
    layer_norm_2: Option<Norm>,
    decoder: Linear,
    rope: Rope,
    pad: i64,
    /// The type of the sum of the blocks' outputs.
    residual: Kind,
    keeps_weights: Cell<bool>,
    /// Where fused kernels compute parts of a block.
    kernels: Option<Kernels>,
}

impl Trunk {
    /// Its parameters have no values yet.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn new(mut at: Scope<'_>, a: &Architecture, precision: Precision, lora: Option<&Lora>) -> Result<Self> {
        let (kind, residual) = match precision {
            Precision::Fp32 | Precision::Tf32 => (Kind::Float, Kind::Float),
            Precision::Bf16 => (Kind::BFloat16, Kind::Float),
            Precision::Bf16Residual => (Kind::BFloat16, Kind::BFloat16),
        };
        let (n, vocabulary) = (a.hidden_size, a.vocab_size);
        let encoder = at.at("encoder").tensor("weight", &[vocabulary, n], Init::Uniform(a.embedding_init_range))?;
        let layer_norm_1 = a.layer_norm_after_embedding.then(|| Norm::new(at.at("layer_norm_1"), a)).transpose()?;
        let transformer_encoder = (0..a.num_hidden_layers)
            .map(|i| Block::new(at.at("transformer_encoder").at(i), a, kind, lora))
            .collect::<Result<_>>()?;
        let layer_norm_2 = a.layer_norm_before_last_layer.then(|| Norm::new(at.at("layer_norm_2"), a)).transpose()?;
        let weight = Init::Uniform(a.decoder_init_range);
        let decoder = Linear::new(at.at("decoder"), n, vocabulary, weight, Some(Init::Zeros))?;
        let rope = Rope::new(&at, a).map_err(bridge::torch_error)?;
        Ok(Self {
            encoder,
            layer_norm_1,
            transformer_encoder,
            layer_norm_2,
            decoder,
            rope,
            pad: a.pad_token_id,
            residual,
            keeps_weights: Cell::new(false),
            kernels: None,
        })
    }

    /// With one product for queries, keys and values, if `fused`.
    #[must_use]
    pub(crate) fn with_fused_qkv(mut self, fused: bool) -> Self {
        for block in &mut self.transformer_encoder {
            block.attention.fused = fused.then(Default::default);
        }
        self
    }

    /// With these kernels for what they compute of a block.
    #[must_use]
    pub(crate) fn with_kernels(self, kernels: Option<Kernels>) -> Self {
        Self { kernels, ..self }
    }

    /// The number of blocks.
    pub(crate) fn blocks(&self) -> usize {
        self.transformer_encoder.len()
    }

    /// The number of features of a hidden state.
    pub(crate) fn size(&self) -> usize {
        bridge::shape_of(&self.encoder)[1]
    }

    /// The last block's output in fp32, before the final norm: (batch, length, size), or (tokens, size) of a packed batch.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn forward(&self, batch: &Batch, dropout: &mut DropoutRng) -> Result<Tensor> {
        self.hidden(batch, dropout).map_err(bridge::torch_error)
    }

    fn hidden(&self, batch: &Batch, dropout: &mut DropoutRng) -> Result<Tensor, TchError> {
        let pass = Pass::new(self, batch)?;
        let x = Sum::new(self.embed(&pass)?);
        let x = self.transformer_encoder.iter().try_fold(x, |x, block| block.forward(x, &pass, dropout))?;
        x.resolve()?.f_to_kind(Kind::Float)
    }

    /// The first block's input.
    fn embed(&self, pass: &Pass<'_>) -> Result<Tensor, TchError> {
        // The padding token's embedding gets no gradient.
        let x = Tensor::f_embedding(&self.encoder, pass.ids(), self.pad, false, false)?;
        let x = x.f_to_kind(self.residual)?;
        self.layer_norm_1.as_ref().map_or_else(|| Ok(x.shallow_clone()), |norm| norm.forward(&x))
    }

    /// The language model's scores of each position, from the last block's output: (…, vocabulary).
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let logits = match &self.layer_norm_2 {
            Some(norm) => norm.forward(hidden).and_then(|normed| self.decoder.forward(&normed)),
            None => self.decoder.forward(hidden),
        };
        logits.map_err(bridge::torch_error)
    }
}
