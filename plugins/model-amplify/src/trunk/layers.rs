//! Linear layers, norms and rotary embeddings.

use plugin_api::Result;
use tch::{Kind, TchError, Tensor};

use super::pass::Pass;
use super::weights::Kept;
use crate::architecture::Architecture;
use crate::config::{LORA_A, LORA_B, Lora, LoraTarget};
use crate::parameters::{Handle, Init, Scope};
use crate::random::DropoutRng;

/// `y = x Wᵀ + b`, or with an adapter `x Wᵀ + b + s · drop(x) Aᵀ Bᵀ`.
#[derive(Debug)]
pub struct Linear {
    pub(super) weight: Handle,
    pub(super) bias: Option<Handle>,
    /// The type of the product and the output.
    pub(super) kind: Kind,
    pub(super) adapter: Option<Adapter>,
    /// The weight in that type.
    pub(super) kept: Kept,
}

/// A low-rank addition to a weight (Hu et al. 2022, equation 3).
#[derive(Debug)]
pub(super) struct Adapter {
    /// (rank, inputs).
    pub(super) a: Handle,
    /// (outputs, rank).
    pub(super) b: Handle,
    /// `alpha / rank`.
    pub(super) scale: f64,
    pub(super) dropout: f64,
}

impl Linear {
    /// `weight` and `bias` are the initial values; without the latter there is no bias.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn new(mut at: Scope<'_>, inputs: i64, outputs: i64, weight: Init, bias: Option<Init>) -> Result<Self> {
        Ok(Self {
            weight: at.tensor("weight", &[outputs, inputs], weight)?,
            bias: bias.map(|init| at.tensor("bias", &[outputs], init)).transpose()?,
            kind: Kind::Float,
            adapter: None,
            kept: Kept::default(),
        })
    }

    pub(super) fn with_kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// With an adapter, if there are any and `target` has them. `at` is the layer's scope.
    pub(super) fn with_adapter(self, mut at: Scope<'_>, lora: Option<&Lora>, target: LoraTarget) -> Result<Self> {
        let Some(lora) = lora.filter(|lora| lora.targets.contains(&target)) else { return Ok(self) };
        let [outputs, inputs] = self.weight.size()[..] else { unreachable!("a matrix") };
        // As in PEFT: A like a linear layer's weight by PyTorch's default, B zero, so that nothing is added at the start.
        let range = Init::Uniform(1.0 / (inputs as f64).sqrt());
        let adapter = Adapter {
            a: at.tensor(LORA_A, &[lora.rank, inputs], range)?,
            b: at.tensor(LORA_B, &[outputs, lora.rank], Init::Zeros)?,
            scale: lora.scale(),
            dropout: lora.dropout,
        };
        Ok(Self { adapter: Some(adapter), ..self })
    }

    /// [`Self::forward`] in a pass, with the adapter, if there is one.
    pub(super) fn forward_adapted(
        &self,
        x: &Tensor,
        pass: &Pass<'_>,
        dropout: &mut DropoutRng,
    ) -> Result<Tensor, TchError> {
        let weight = match self.kind {
            Kind::Float => self.weight.shallow_clone(),
            kind => pass.kept(&self.kept, || self.weight.f_to_kind(kind))?,
        };
        self.adapt(self.product(x, &weight)?, x, pass, dropout)
    }

    /// Adds the adapter's part of the output for `x` to `y`, if there is an adapter.
    pub(super) fn adapt(
        &self,
        y: Tensor,
        x: &Tensor,
        pass: &Pass<'_>,
        dropout: &mut DropoutRng,
    ) -> Result<Tensor, TchError> {
        let Some(Adapter { a, b, scale, dropout: p }) = &self.adapter else { return Ok(y) };
        let x = pass.dropout(x.shallow_clone(), *p, dropout)?.f_to_kind(self.kind)?;
        let low = x.f_linear(&a.f_to_kind(self.kind)?, None::<Tensor>)?;
        y.f_add(&low.f_linear(&b.f_to_kind(self.kind)?, None::<Tensor>)?.f_mul_scalar(*scale)?)
    }

    /// `x` is (…, inputs), the result (…, outputs), without the adapter.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        self.product(x, &self.weight.f_to_kind(self.kind)?)
    }

    fn product(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor, TchError> {
        let bias = self.bias.as_ref().map(|bias| bias.f_to_kind(self.kind)).transpose()?;
        x.f_to_kind(self.kind)?.f_linear(weight, bias)
    }
}

/// RMSNorm (Zhang and Sennrich 2019, equation 4), `y = x / √(mean(x²) + ε) · w`; or LayerNorm (Ba, Kiros and Hinton 2016),
/// `y = (x - mean(x)) / √(var(x) + ε) · w + b`. Means are over the last dimension.
#[derive(Debug)]
pub(super) struct Norm {
    pub(super) weight: Handle,
    pub(super) bias: Option<Handle>,
    pub(super) size: i64,
    pub(super) eps: f64,
}

impl Norm {
    pub(super) fn new(mut at: Scope<'_>, a: &Architecture) -> Result<Self> {
        let size = a.hidden_size;
        let weight = at.tensor("weight", &[size], Init::Ones)?;
        let bias = if a.rms_norm { None } else { Some(at.tensor("bias", &[size], Init::Zeros)?) };
        Ok(Self { weight, bias, size, eps: a.norm_eps })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let Some(bias) = &self.bias else { return rms_norm(x, &self.weight, self.size, self.eps) };
        let (weight, bias) = (self.weight.f_to_kind(x.kind())?, bias.f_to_kind(x.kind())?);
        x.f_layer_norm(self.size, Some(weight), Some(bias), self.eps, true)
    }

    /// The sum `x`, and its norm for layers that read the type `kind`.
    pub(super) fn of_sum(&self, x: Sum, pass: &Pass<'_>, kind: Kind) -> Result<[Tensor; 2], TchError> {
        match pass.kernels.filter(|_| self.bias.is_none()) {
            Some(kernels) => {
                let addend = x.addend_in_kind()?;
                kernels.add_norm(&x.sum, addend.as_ref(), &self.weight, self.eps, kind)
            }
            None => {
                let x = x.resolve()?;
                let y = self.forward(&x)?;
                Ok([x, y])
            }
        }
    }
}

/// RMSNorm of the rows of `size` columns. The weight is fp32.
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, size: i64, eps: f64) -> Result<Tensor, TchError> {
    // libtorch's fused kernels take a weight of the type of `x`.
    x.f_rms_norm(size, Some(weight.f_to_kind(x.kind())?), eps)
}

/// The sum of the blocks' outputs, with the last addend not yet added.
#[derive(Debug)]
pub(super) struct Sum {
    sum: Tensor,
    addend: Option<Tensor>,
}

impl Sum {
    pub(super) fn new(sum: Tensor) -> Self {
        Self { sum, addend: None }
    }

    pub(super) fn with(sum: Tensor, addend: Tensor) -> Self {
        Self { sum, addend: Some(addend) }
    }

    /// Its type.
    pub(super) fn kind(&self) -> Kind {
        self.sum.kind()
    }

    pub(super) fn resolve(self) -> Result<Tensor, TchError> {
        match self.addend_in_kind()? {
            Some(addend) => self.sum.f_add(&addend),
            None => Ok(self.sum),
        }
    }

    /// The addend. That of a sum in bfloat16 is too; dropout multiplies in fp32.
    fn addend_in_kind(&self) -> Result<Option<Tensor>, TchError> {
        let to_kind = |addend: &Tensor| match self.sum.kind() {
            Kind::BFloat16 => addend.f_to_kind(Kind::BFloat16),
            _ => Ok(addend.shallow_clone()),
        };
        self.addend.as_ref().map(to_kind).transpose()
    }
}

/// `SiLU(a) · b` of (…, 2 n), with `a` in the first half and `b` in the second.
pub(crate) fn swiglu(ab: &Tensor) -> Result<Tensor, TchError> {
    let n = ab.size().last().map_or(0, |width| width / 2);
    ab.f_narrow(-1, 0, n)?.f_silu()?.f_mul(&ab.f_narrow(-1, n, n)?)
}

/// Rotary position embedding (Su et al. 2021): rotates the pair `(x₂ᵢ, x₂ᵢ₊₁)` at position `m` by `m · 10000^(-2i/d)`.
#[derive(Debug)]
pub(super) struct Rope {
    /// `exp(i · angle)`, complex, (positions, d / 2).
    pub(super) table: Tensor,
}

impl Rope {
    pub(super) fn new(at: &Scope<'_>, a: &Architecture) -> Result<Self, TchError> {
        let d = a.head_size();
        // In fp32 and in the published order: the rounding of the angles shows at distant positions.
        let options = (Kind::Float, at.device());
        let exponent = Tensor::f_arange_start_step(0, d, 2, options)?.f_div_scalar(d as f64)?;
        let frequency = Tensor::f_pow_scalar(10000.0, &exponent)?.f_reciprocal()?;
        let angle = Tensor::f_arange(a.max_length, options)?.f_outer(&frequency)?;
        Ok(Self { table: Tensor::f_polar(&angle.f_ones_like()?, &angle)? })
    }
}

/// Rotates `x`, (…, heads, head size), by the angles of its positions: (…, 1, head size / 2).
pub(crate) fn rotate(x: &Tensor, angles: &Tensor) -> Result<Tensor, TchError> {
    let mut pairs = x.size();
    let size = pairs.pop().unwrap_or_default();
    pairs.extend([size / 2, 2]);
    let pairs = x.f_to_kind(Kind::Float)?.f_reshape(pairs)?;
    pairs.f_view_as_complex()?.f_mul(angles)?.f_view_as_real()?.f_flatten(-2, -1)?.f_to_kind(x.kind())
}
