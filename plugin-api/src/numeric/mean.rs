//! The weighted mean of several clients' parameters, the basis of most aggregators.

use half::{bf16, f16};
use indexmap::IndexMap;

use super::memory::{Arena, TensorBuf};
use super::parallel;
use crate::{DType, Error, Float, Params, Result, Tensor};

/// The weighted mean of parameters. It takes one client after another, and uses one accumulator per tensor, however
/// many clients there are. Each tensor has its own mean, over the clients that sent it.
///
/// With the total weight `Wₖ = w₁ + … + wₖ`, the recurrence is `mₖ = mₖ₋₁ + (wₖ / Wₖ)(xₖ − mₖ₋₁)` with `m₁ = x₁`. So a
/// single client's tensor, and equal tensors, come back bit for bit. A step computes in f64 and rounds once to the
/// accumulator, which is f64 for f64 and f32 for all other types. Half types are rounded once more at the end. After
/// `n` clients an f32 element is at most `n · 2⁻²⁴ · max|xᵢ|` from the exact mean. Integers have no mean: they are kept
/// as long as all clients send the same values.
///
/// The first client's tensors are copied to memory for the mean, which becomes the resulting tensors. No client's tensor is
/// held, so the mean of large models takes the memory of two: the mean's own, and that of the model that is being added. Of
/// integers the first client's are held.
///
/// ```
/// use plugin_api::{Params, Tensor, WeightedMean};
///
/// let params = |x: f32| -> Params { [("w", Tensor::from_slice(&[1], &[x]).unwrap())].into_iter().collect() };
/// let mut mean = WeightedMean::new();
/// mean.add(&params(1.0), 1.0, "a")?;
/// mean.add(&params(5.0), 3.0, "b")?;
/// assert_eq!(mean.finish()?.elements::<f32>("w", &[1])?, [4.0]);
/// # Ok::<(), plugin_api::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct WeightedMean {
    tensors: IndexMap<String, Mean>,
    threads: usize,
}

impl WeightedMean {
    /// A mean to which nothing has been added.
    pub fn new() -> Self {
        Self::default()
    }

    /// Uses as many threads as the call may use, [`Context::threads`](crate::Context::threads). The default is one. The
    /// bits do not depend on the number of threads.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Checks whether what `client` sent can be added. Use this in a method with several means, to add to all of them
    /// or to none.
    ///
    /// # Errors
    /// If a tensor's shape or type differs from what others sent, or an integer tensor's values do.
    pub fn check(&self, params: &Params, client: &str) -> Result<()> {
        params.iter().try_for_each(|(name, tensor)| Mean::check(self.tensors.get(name), name, tensor, client))
    }

    /// Adds what `client` sent, with a weight. A refused update leaves no trace: all tensors are [checked](Self::check)
    /// before the first is added. A weight of 0 adds nothing and checks nothing. This does not check that values are
    /// finite, since the host refuses updates with other values before an aggregator sees them.
    ///
    /// # Errors
    /// If the weight is negative or not finite, or the update does not match what others sent.
    pub fn add(&mut self, params: &Params, weight: f64, client: &str) -> Result<()> {
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(Error::other(format!("client `{client}` has the weight {weight}")));
        }
        if weight == 0.0 {
            return Ok(());
        }
        self.check(params, client)?;
        let new = || params.iter().filter(|(name, _)| !self.tensors.contains_key(*name));
        // All of it is written before it is read. Most of a model comes with the first client.
        let sizes = new().map(|(_, tensor)| wide_bytes(tensor));
        let mut arena = if self.is_empty() { Arena::in_turns(sizes) } else { Arena::of(sizes) };
        let new: Vec<_> = new().map(|(name, tensor)| (name.to_owned(), Mean::of(tensor, client, &mut arena))).collect();
        self.tensors.extend(new);
        let means = self.tensors.iter_mut().filter_map(|(name, mean)| Some((mean, params.get(name)?)));
        parallel::each(means.collect(), params.bytes(), self.threads, |(mean, tensor)| mean.add(tensor, weight));
        Ok(())
    }

    /// Whether nothing has been added yet.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The means, in the order in which their names first appeared.
    ///
    /// # Errors
    /// Never, as long as tensors keep their shapes.
    pub fn finish(self) -> Result<Params> {
        // Consume the means one by one, so that each mean's memory is freed as its tensor is made.
        self.tensors.into_iter().map(|(name, mean)| Ok((name, mean.finish()?))).collect()
    }
}

/// The running mean of one tensor.
#[derive(Debug)]
struct Mean {
    so_far: Accumulator,
    dtype: DType,
    shape: Vec<usize>,
    weight: f64,
    first_client: String,
}

#[derive(Debug)]
enum Accumulator {
    /// All clients so far sent these integers, which have no mean and must be equal.
    Equal(Tensor),
    /// The mean.
    Mean(Wide),
}

#[derive(Debug)]
enum Wide {
    F32(TensorBuf<f32>),
    F64(TensorBuf<f64>),
}

impl Mean {
    /// Checks that a client's tensor can be added, either as the first or to the mean of those before.
    fn check(mean: Option<&Self>, name: &str, tensor: &Tensor, client: &str) -> Result<()> {
        if let Some(Self { so_far, dtype, shape, first_client: first, .. }) = mean {
            if (*dtype, shape.as_slice()) != (tensor.dtype(), tensor.shape()) {
                let message = format!("client `{client}` sends {tensor:?}, but client `{first}` sent {dtype}{shape:?}");
                return Err(
                    Error::tensor(name, message).help("parameters that differ between clients must be kept private")
                );
            }
            if let Accumulator::Equal(before) = so_far
                && before.buffer().as_slice() != tensor.buffer().as_slice()
            {
                let message = format!("client `{client}` sends other {dtype} values than client `{first}`");
                return Err(
                    Error::tensor(name, message).help("integers are not averaged: they must be equal or kept private")
                );
            }
        }
        Ok(())
    }

    /// An empty mean; `client` is the first to send.
    fn of(tensor: &Tensor, client: &str, arena: &mut Arena) -> Self {
        let memory = Wide::of(tensor, arena);
        Self {
            so_far: memory.map_or_else(|| Accumulator::Equal(tensor.clone()), Accumulator::Mean),
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
            weight: 0.0,
            first_client: client.to_owned(),
        }
    }

    /// Adds a tensor that passed [`check`](Self::check).
    fn add(&mut self, tensor: &Tensor, weight: f64) {
        let is_first = self.weight == 0.0;
        self.weight += weight;
        let share = weight / self.weight;
        match &mut self.so_far {
            Accumulator::Equal(_) => {}
            Accumulator::Mean(mean) if is_first => mean.copy(self.dtype, tensor),
            Accumulator::Mean(mean) => mean.move_towards(self.dtype, tensor, share),
        }
    }

    /// The mean, as a tensor of the clients' type.
    fn finish(self) -> Result<Tensor> {
        let mean = match self.so_far {
            Accumulator::Equal(tensor) => return Ok(tensor),
            Accumulator::Mean(mean) => mean,
        };
        match (mean, self.dtype) {
            (Wide::F32(mean), DType::F16) => Ok(narrowed::<f16>(&self.shape, mean.as_slice())),
            (Wide::F32(mean), DType::BF16) => Ok(narrowed::<bf16>(&self.shape, mean.as_slice())),
            (Wide::F32(mean), _) => mean.freeze(&self.shape),
            (Wide::F64(mean), _) => mean.freeze(&self.shape),
        }
    }
}

/// The bytes of an accumulator for a tensor; 0 if it has none.
fn wide_bytes(tensor: &Tensor) -> usize {
    match tensor.dtype() {
        DType::F64 => Arena::bytes::<f64>(tensor.len()),
        _ if tensor.is_float() => Arena::bytes::<f32>(tensor.len()),
        _ => 0,
    }
}

impl Wide {
    /// Memory for a tensor's mean, if it has one.
    fn of(tensor: &Tensor, arena: &mut Arena) -> Option<Self> {
        match tensor.dtype() {
            DType::F64 => Some(Self::F64(arena.alloc(tensor.len()))),
            _ if tensor.is_float() => Some(Self::F32(arena.alloc(tensor.len()))),
            _ => None,
        }
    }

    /// Takes over a client's tensor.
    fn copy(&mut self, dtype: DType, tensor: &Tensor) {
        match (self, dtype) {
            (Self::F64(mean), _) => copy::<f64, f64>(mean, tensor),
            (Self::F32(mean), DType::F16) => copy::<f32, f16>(mean, tensor),
            (Self::F32(mean), DType::BF16) => copy::<f32, bf16>(mean, tensor),
            (Self::F32(mean), _) => copy::<f32, f32>(mean, tensor),
        }
    }

    /// Moves the mean towards a client's tensor by this share of the way.
    fn move_towards(&mut self, dtype: DType, tensor: &Tensor, share: f64) {
        match (self, dtype) {
            (Self::F64(mean), _) => wide::<f64, f64>(mean.as_mut_slice(), elements(tensor), share),
            (Self::F32(mean), DType::F16) => wide::<f32, f16>(mean.as_mut_slice(), elements(tensor), share),
            (Self::F32(mean), DType::BF16) => wide::<f32, bf16>(mean.as_mut_slice(), elements(tensor), share),
            (Self::F32(mean), _) => wide::<f32, f32>(mean.as_mut_slice(), elements(tensor), share),
        }
    }
}

fn elements<X: Float>(tensor: &Tensor) -> &[X] {
    tensor.elements().expect("the type was compared")
}

fn copy<M: Float, X: Float>(mean: &mut TensorBuf<M>, tensor: &Tensor) {
    mean.as_mut_slice().iter_mut().zip(elements::<X>(tensor)).for_each(|(mean, x)| *mean = M::narrow(x.wide()));
}

/// Runs [`pass`] with the processor's widest vectors. The steps for each element are the same.
fn wide<M: Float, X: Float>(mean: &mut [M], x: &[X], share: f64) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f")]
        fn avx512<M: Float, X: Float>(mean: &mut [M], x: &[X], share: f64) {
            pass(mean, x, share);
        }
        #[target_feature(enable = "avx2")]
        fn avx2<M: Float, X: Float>(mean: &mut [M], x: &[X], share: f64) {
            pass(mean, x, share);
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor supports it.
            return unsafe { avx512(mean, x, share) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor supports it.
            return unsafe { avx2(mean, x, share) };
        }
    }
    pass(mean, x, share);
}

#[inline(always)]
fn pass<M: Float, X: Float>(mean: &mut [M], x: &[X], share: f64) {
    let step = |before: f64, x: &X| M::narrow(before + share * (x.wide() - before));
    mean.iter_mut().zip(x).for_each(|(mean, x)| *mean = step(mean.wide(), x));
}

fn narrowed<T: Float>(shape: &[usize], mean: &[f32]) -> Tensor {
    Tensor::build(shape, |out: &mut [T]| {
        out.iter_mut().zip(mean).for_each(|(out, &mean)| *out = T::narrow(mean.wide()))
    })
}

#[cfg(test)]
mod tests;
