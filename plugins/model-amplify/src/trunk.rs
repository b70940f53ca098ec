//! The AMPLIFY encoder (Fournier et al. 2024), with the published names.

use plugin_api::Result;
use tch::{Kind, Tensor};

use crate::architecture::{Architecture, HiddenAct};
use crate::batch::Batch;
use crate::bridge;
use crate::config::Precision;
use crate::cpu::{BlockWeights, Weights};
use crate::noise::Noise;
use crate::parameters::{Handle, Init, Scope};

/// `y = x Wᵀ + b`.
#[derive(Debug)]
pub struct Linear {
    weight: Handle,
    bias: Option<Handle>,
    /// What it computes in, and gives.
    kind: Kind,
}

impl Linear {
    /// `weight` and `bias` say how the two start; without the latter there is no bias.
    pub fn new(mut at: Scope<'_>, inputs: i64, outputs: i64, weight: Init, bias: Option<Init>) -> Result<Self> {
        Ok(Self {
            weight: at.tensor("weight", &[outputs, inputs], weight)?,
            bias: bias.map(|init| at.tensor("bias", &[outputs], init)).transpose()?,
            kind: Kind::Float,
        })
    }

    fn in_kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// Applies it to the last dimension.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let bias = self.bias.as_ref().map(|bias| bias.to_kind(self.kind));
        x.to_kind(self.kind).linear(&self.weight.to_kind(self.kind), bias)
    }
}

/// RMSNorm (Zhang and Sennrich 2019), `y = x / √(mean(x²) + ε) · w`; or LayerNorm (Ba, Kiros and Hinton 2016),
/// `y = (x - mean(x)) / √(var(x) + ε) · w + b`.
#[derive(Debug)]
struct Norm {
    weight: Handle,
    bias: Option<Handle>,
    size: i64,
    eps: f64,
}

impl Norm {
    fn new(mut at: Scope<'_>, a: &Architecture) -> Result<Self> {
        let size = a.hidden_size;
        let weight = at.tensor("weight", &[size], Init::Ones)?;
        let bias = if a.rms_norm { None } else { Some(at.tensor("bias", &[size], Init::Zeros)?) };
        Ok(Self { weight, bias, size, eps: a.norm_eps })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        match &self.bias {
            None => x.rms_norm(self.size, Some(&*self.weight), self.eps),
            Some(bias) => x.layer_norm(self.size, Some(&*self.weight), Some(&**bias), self.eps, true),
        }
    }
}

/// Rotary position embedding (Su et al. 2021): the pair `(x₂ᵢ, x₂ᵢ₊₁)` at position `m` turns by `m · 10000^(-2i/d)`.
#[derive(Debug)]
struct Rotary {
    /// `exp(i · angle)`: complex numbers, one for each position and pair.
    turns: Tensor,
}

impl Rotary {
    fn new(at: &Scope<'_>, a: &Architecture) -> Result<Self> {
        let d = a.head_size();
        // In fp32 and in this order, as published: at a far position the rounding of the angle shows.
        let options = (Kind::Float, at.device());
        let frequency =
            Tensor::pow_scalar(10000.0, &(Tensor::arange_start_step(0, d, 2, options) / d as f64)).reciprocal();
        let angle = Tensor::f_arange(a.max_length, options).map_err(bridge::torch)?.outer(&frequency);
        Ok(Self { turns: Tensor::polar(&angle.ones_like(), &angle) })
    }

    /// `x` is (batch, length, heads, head size).
    fn forward(&self, x: &Tensor) -> Tensor {
        let [batch, length, heads, size] = x.size()[..] else { unreachable!("four dimensions") };
        let turns = self.turns.narrow(0, 0, length).unsqueeze(1);
        let pairs = x.to_kind(Kind::Float).reshape([batch, length, heads, size / 2, 2]);
        (pairs.view_as_complex() * turns).view_as_real().flatten(3, -1).to_kind(x.kind())
    }
}

/// `wo(softmax(q kᵀ / √d) v)`, each head on its own features, padded keys left out.
#[derive(Debug)]
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    wo: Linear,
    heads: i64,
    dropout: f64,
}

impl Attention {
    /// Its linear layers stand directly in the block's scope.
    fn new(at: &mut Scope<'_>, a: &Architecture, kind: Kind) -> Result<Self> {
        let (n, weight) = (a.hidden_size, Init::Uniform(a.decoder_init_range));
        let bias = a.att_bias.then_some(Init::Zeros);
        let mut linear = |name| -> Result<Linear> { Ok(Linear::new(at.at(name), n, n, weight, bias)?.in_kind(kind)) };
        Ok(Self {
            q: linear("q")?,
            k: linear("k")?,
            v: linear("v")?,
            wo: linear("wo")?,
            heads: a.num_attention_heads,
            dropout: a.dropout_prob,
        })
    }

    fn forward(&self, x: &Tensor, batch: &Batch, rotary: &Rotary, noise: &mut Noise) -> Tensor {
        let [rows, length, size] = x.size()[..] else { unreachable!("three dimensions") };
        let split = |y: Tensor| y.view([rows, length, self.heads, size / self.heads]);
        let q = rotary.forward(&split(self.q.forward(x))).transpose(1, 2);
        let k = rotary.forward(&split(self.k.forward(x))).transpose(1, 2);
        let v = split(self.v.forward(x)).transpose(1, 2);
        let attended = if noise.acts(self.dropout) {
            let mut scores = q.matmul(&k.transpose(-2, -1)) / ((size / self.heads) as f64).sqrt();
            if let Some(keys) = &batch.keys {
                scores = scores.masked_fill(&keys.logical_not(), f64::NEG_INFINITY);
            }
            noise.dropout(scores.softmax(-1, Kind::Float), self.dropout).to_kind(v.kind()).matmul(&v)
        } else {
            Tensor::scaled_dot_product_attention(&q, &k, &v, batch.keys.as_ref(), 0.0, false, None, false)
        };
        noise.dropout(self.wo.forward(&attended.transpose(1, 2).reshape([rows, length, size])), self.dropout)
    }
}

/// SwiGLU (Shazeer 2020), `w3(SiLU(a) · b)` with `(a, b) = w12(x)`; or `w₂(act(w₁(x)))`.
#[derive(Debug)]
struct FeedForward {
    first: Linear,
    second: Linear,
    act: HiddenAct,
    dropout: f64,
}

impl FeedForward {
    fn new(mut at: Scope<'_>, a: &Architecture, kind: Kind) -> Result<Self> {
        let (n, weight) = (a.hidden_size, Init::Uniform(a.decoder_init_range));
        let (first, second, up, down) = match a.hidden_act {
            HiddenAct::SwiGlu => ("w12", "w3", 2 * a.swiglu_size(), a.swiglu_size()),
            HiddenAct::Relu | HiddenAct::Gelu => ("0", "2", a.intermediate_size, a.intermediate_size),
        };
        let bias = a.ffn_bias.then_some(Init::Zeros);
        Ok(Self {
            first: Linear::new(at.at(first), n, up, weight, bias)?.in_kind(kind),
            second: Linear::new(at.at(second), down, n, weight, bias)?.in_kind(kind),
            act: a.hidden_act,
            dropout: a.dropout_prob,
        })
    }

    fn forward(&self, x: &Tensor, noise: &mut Noise) -> Tensor {
        let y = self.first.forward(x);
        let y = match self.act {
            HiddenAct::SwiGlu => {
                let half = y.size()[2] / 2;
                y.narrow(-1, 0, half).silu() * y.narrow(-1, half, half)
            }
            HiddenAct::Relu => y.relu(),
            HiddenAct::Gelu => y.gelu("none"),
        };
        noise.dropout(self.second.forward(&y), self.dropout)
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
    fn new(mut at: Scope<'_>, a: &Architecture, kind: Kind) -> Result<Self> {
        Ok(Self {
            attention: Attention::new(&mut at, a, kind)?,
            ffn: FeedForward::new(at.at("ffn"), a, kind)?,
            attention_norm: Norm::new(at.at("attention_norm"), a)?,
            ffn_norm: Norm::new(at.at("ffn_norm"), a)?,
        })
    }

    fn forward(&self, x: &Tensor, batch: &Batch, rotary: &Rotary, noise: &mut Noise) -> Tensor {
        let x = x + self.attention.forward(&self.attention_norm.forward(x), batch, rotary, noise);
        let y = self.ffn.forward(&self.ffn_norm.forward(&x), noise);
        x + y
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
    rotary: Rotary,
    pad: i64,
}

impl Trunk {
    /// Without values yet.
    pub fn new(mut at: Scope<'_>, a: &Architecture, precision: Precision) -> Result<Self> {
        let kind = if precision == Precision::Bf16 { Kind::BFloat16 } else { Kind::Float };
        let (n, vocabulary) = (a.hidden_size, a.vocab_size);
        let encoder = at.at("encoder").tensor("weight", &[vocabulary, n], Init::Uniform(a.embedding_init_range))?;
        let layer_norm_1 = a.layer_norm_after_embedding.then(|| Norm::new(at.at("layer_norm_1"), a)).transpose()?;
        let transformer_encoder = (0..a.num_hidden_layers)
            .map(|i| Block::new(at.at("transformer_encoder").at(i), a, kind))
            .collect::<Result<_>>()?;
        let layer_norm_2 = a.layer_norm_before_last_layer.then(|| Norm::new(at.at("layer_norm_2"), a)).transpose()?;
        let weight = Init::Uniform(a.decoder_init_range);
        let decoder = Linear::new(at.at("decoder"), n, vocabulary, weight, Some(Init::Zeros))?;
        let rotary = Rotary::new(&at, a)?;
        Ok(Self { encoder, layer_norm_1, transformer_encoder, layer_norm_2, decoder, rotary, pad: a.pad_token_id })
    }

    /// The last block's output, before the final norm: (batch, length, hidden size).
    pub fn forward(&self, batch: &Batch, noise: &mut Noise) -> Tensor {
        // The padding token's embedding gets no gradient.
        let mut x = Tensor::embedding(&self.encoder, &batch.ids, self.pad, false, false);
        if let Some(norm) = &self.layer_norm_1 {
            x = norm.forward(&x);
        }
        for block in &self.transformer_encoder {
            x = block.forward(&x, batch, &self.rotary, noise);
        }
        x
    }

    /// The weights, if the trunk is of the arrangement that [`crate::cpu`] computes, and on the CPU.
    pub(crate) fn weights(&self) -> Option<Weights> {
        let plain = |linear: &Linear| linear.bias.is_none().then(|| linear.weight.again());
        let norm = |norm: &Norm| norm.bias.is_none().then(|| norm.weight.again());
        let block = |block: &Block| {
            let Block { attention, ffn, attention_norm, ffn_norm } = block;
            let published = ffn.act == HiddenAct::SwiGlu && attention.dropout == 0.0 && ffn.dropout == 0.0;
            published.then_some(())?;
            Some(BlockWeights {
                q: plain(&attention.q)?,
                k: plain(&attention.k)?,
                v: plain(&attention.v)?,
                wo: plain(&attention.wo)?,
                w12: plain(&ffn.first)?,
                w3: plain(&ffn.second)?,
                attention_norm: norm(attention_norm)?,
                ffn_norm: norm(ffn_norm)?,
            })
        };
        let on_cpu = self.encoder.device() == tch::Device::Cpu;
        let (true, None, Some(first)) = (on_cpu, &self.layer_norm_1, self.transformer_encoder.first()) else {
            return None;
        };
        Some(Weights {
            embedding: self.encoder.again(),
            blocks: self.transformer_encoder.iter().map(block).collect::<Option<_>>()?,
            turns: bridge::numbers(&self.rotary.turns.view_as_real()).ok()?,
            heads: usize::try_from(first.attention.heads).ok()?,
            half: first.attention.q.kind == Kind::BFloat16,
            eps: first.attention_norm.eps as f32,
            pad: u32::try_from(self.pad).ok()?,
        })
    }

    /// What the language model says of each position, from the last block's output: (batch, length, vocabulary).
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        match &self.layer_norm_2 {
            Some(norm) => self.decoder.forward(&norm.forward(hidden)),
            None => self.decoder.forward(hidden),
        }
    }
}
