//! The weighted mean of several clients' parameters: what most aggregators begin with.

use half::{bf16, f16};
use indexmap::IndexMap;

use crate::memory::{Draft, Room};
use crate::{DType, Error, Float, Params, Result, Tensor, parallel};

/// The weighted mean of parameters, taken in one client after the other with one accumulator for each tensor, however
/// many clients there are. Each tensor has its own mean, over the clients that sent it.
///
/// With the total weight `Wₖ = w₁ + … + wₖ` it is `mₖ = mₖ₋₁ + (wₖ / Wₖ)(xₖ − mₖ₋₁)` and `m₁ = x₁`, so that one
/// client's tensor comes back bit for bit, and equal ones come back equal. A step computes in f64 and rounds once to the
/// accumulator, which is f64 for f64 and f32 for all others; half types are rounded once more at the end. After `n`
/// clients an f32 element is at most `n · 2⁻²⁴ · max|xᵢ|` from the exact mean. Integers have no mean: they are kept as
/// long as all clients send the same.
///
/// The first client's tensors are kept as they are, shared and not copied; memory for the mean is taken with the second,
/// and becomes the tensor of the result.
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
pub struct WeightedMean(IndexMap<String, Mean>);

impl WeightedMean {
    /// The mean of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what `client` sent, with a weight. What is refused leaves no trace: all tensors are checked before the first
    /// is added. A weight of 0 adds nothing and checks nothing.
    ///
    /// # Errors
    /// If the weight is negative or not finite, or a tensor differs in shape or type from what others sent, or holds a
    /// value that is not finite.
    pub fn add(&mut self, params: &Params, weight: f64, client: &str) -> Result<()> {
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(Error::other(format!("client `{client}` has the weight {weight}")));
        }
        if weight == 0.0 {
            return Ok(());
        }
        let bytes = params.bytes();
        parallel::check(params.iter(), bytes, |(name, tensor)| Mean::check(self.0.get(name), name, tensor, client))?;
        // All at once, where this is the second client.
        let mut room = Room::of(params.names().filter_map(|name| self.0.get(name)).map(Mean::wants));
        for (name, tensor) in params.iter() {
            match self.0.get_mut(name) {
                Some(mean) => mean.make_room(&mut room),
                None => drop(self.0.insert(name.to_owned(), Mean::of(tensor, client))),
            }
        }
        let means = self.0.iter_mut().filter_map(|(name, mean)| Some((mean, params.get(name)?)));
        parallel::each(means.collect(), bytes, |(mean, tensor)| mean.add(tensor, weight));
        Ok(())
    }

    /// Whether nothing was added since the beginning.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The means, in the order in which their names came first.
    ///
    /// # Errors
    /// Never, so far as tensors keep their shapes.
    pub fn finish(self) -> Result<Params> {
        // Taken apart one by one, so that a mean's memory goes as its tensor comes.
        self.0.into_iter().map(|(name, mean)| Ok((name, mean.finish()?))).collect()
    }
}

/// The mean of one tensor so far.
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
    /// All clients so far sent this: one client, or integers, which have no mean and must be equal.
    One(Tensor),
    /// One client sent this, and there is memory for the mean of it and the next.
    Two(Tensor, Wide),
    /// The mean.
    Many(Wide),
}

#[derive(Debug)]
enum Wide {
    F32(Draft<f32>),
    F64(Draft<f64>),
}

impl Mean {
    /// An error unless a client's tensor can be added: to nothing yet, or to the mean of those before.
    fn check(mean: Option<&Self>, name: &str, tensor: &Tensor, client: &str) -> Result<()> {
        if let Some(Self { so_far, dtype, shape, first_client: first, .. }) = mean {
            if (*dtype, shape.as_slice()) != (tensor.dtype(), tensor.shape()) {
                let message = format!("client `{client}` sends {tensor:?}, and client `{first}` sent {dtype}{shape:?}");
                return Err(
                    Error::tensor(name, message).help("what differs from client to client must be kept private")
                );
            }
            if let Accumulator::One(before) = so_far
                && !tensor.is_float()
                && before.buffer().as_slice() != tensor.buffer().as_slice()
            {
                let message = format!("client `{client}` sends other {dtype} values than client `{first}`");
                return Err(
                    Error::tensor(name, message).help("integers have no mean: they must be equal or kept private")
                );
            }
        }
        if tensor.is_finite() {
            return Ok(());
        }
        let message = format!("client `{client}` sends a value that is not finite");
        Err(Error::tensor(name, message).help("its training may have diverged: a lower learning rate may help"))
    }

    /// Of no client yet; `client` is the first.
    fn of(tensor: &Tensor, client: &str) -> Self {
        Self {
            so_far: Accumulator::One(tensor.clone()),
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
            weight: 0.0,
            first_client: client.to_owned(),
        }
    }

    /// Bytes that an accumulator takes which the next tensor makes necessary.
    fn wants(&self) -> usize {
        match (&self.so_far, self.dtype) {
            (Accumulator::One(first), DType::F64) => Room::bytes::<f64>(first.len()),
            (Accumulator::One(first), _) if first.is_float() => Room::bytes::<f32>(first.len()),
            _ => 0,
        }
    }

    /// Makes the accumulator that the next tensor makes necessary.
    fn make_room(&mut self, room: &mut Room) {
        let Accumulator::One(first) = &self.so_far else { return };
        let (first, count) = (first.clone(), first.len());
        self.so_far = match self.dtype {
            DType::F64 => Accumulator::Two(first, Wide::F64(room.draft(count))),
            _ if first.is_float() => Accumulator::Two(first, Wide::F32(room.draft(count))),
            _ => return,
        };
    }

    /// Adds a tensor that [`check`](Self::check) let pass and [`make_room`](Self::make_room) was called for, if it is not
    /// the first.
    fn add(&mut self, tensor: &Tensor, weight: f64) {
        self.weight += weight;
        let share = weight / self.weight;
        self.so_far = match (std::mem::replace(&mut self.so_far, Accumulator::One(tensor.clone())), self.dtype) {
            (one @ Accumulator::One(_), _) => one,
            (Accumulator::Two(first, Wide::F64(mean)), _) => {
                Accumulator::Many(Wide::F64(moved::<f64, f64>(mean, Some(&first), tensor, share)))
            }
            (Accumulator::Many(Wide::F64(mean)), _) => {
                Accumulator::Many(Wide::F64(moved::<f64, f64>(mean, None, tensor, share)))
            }
            (Accumulator::Two(first, Wide::F32(mean)), dtype) => {
                Accumulator::Many(Wide::F32(of_type(dtype, mean, Some(&first), tensor, share)))
            }
            (Accumulator::Many(Wide::F32(mean)), dtype) => {
                Accumulator::Many(Wide::F32(of_type(dtype, mean, None, tensor, share)))
            }
        };
    }

    /// The mean as a tensor of the clients' type.
    fn finish(self) -> Result<Tensor> {
        match (self.so_far, self.dtype) {
            (Accumulator::One(tensor) | Accumulator::Two(tensor, _), _) => Ok(tensor),
            (Accumulator::Many(Wide::F32(mean)), DType::F16) => Ok(narrowed::<f16>(&self.shape, mean.as_slice())),
            (Accumulator::Many(Wide::F32(mean)), DType::BF16) => Ok(narrowed::<bf16>(&self.shape, mean.as_slice())),
            (Accumulator::Many(Wide::F32(mean)), _) => mean.freeze(&self.shape),
            (Accumulator::Many(Wide::F64(mean)), _) => mean.freeze(&self.shape),
        }
    }
}

/// [`moved`] for the types whose mean is f32.
fn of_type(dtype: DType, mean: Draft<f32>, first: Option<&Tensor>, x: &Tensor, share: f64) -> Draft<f32> {
    match dtype {
        DType::F16 => moved::<f32, f16>(mean, first, x, share),
        DType::BF16 => moved::<f32, bf16>(mean, first, x, share),
        _ => moved::<f32, f32>(mean, first, x, share),
    }
}

/// The mean, or what the `first` client sent, moved towards `x` by `share` of the way.
fn moved<M: Float, X: Float>(mut mean: Draft<M>, first: Option<&Tensor>, x: &Tensor, share: f64) -> Draft<M> {
    let elements = |tensor| Tensor::elements::<X>(tensor).expect("the type was compared");
    let (first, x) = (first.map(elements), elements(x));
    wide(mean.as_mut_slice(), first, x, share);
    mean
}

/// Runs [`fold`] with the widest vectors that the processor has. Each element is computed in the same steps.
fn wide<M: Float, X: Float>(mean: &mut [M], first: Option<&[X]>, x: &[X], share: f64) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f")]
        fn avx512<M: Float, X: Float>(mean: &mut [M], first: Option<&[X]>, x: &[X], share: f64) {
            fold(mean, first, x, share);
        }
        #[target_feature(enable = "avx2")]
        fn avx2<M: Float, X: Float>(mean: &mut [M], first: Option<&[X]>, x: &[X], share: f64) {
            fold(mean, first, x, share);
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has it.
            return unsafe { avx512(mean, first, x, share) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has it.
            return unsafe { avx2(mean, first, x, share) };
        }
    }
    fold(mean, first, x, share);
}

#[inline(always)]
fn fold<M: Float, X: Float>(mean: &mut [M], first: Option<&[X]>, x: &[X], share: f64) {
    let moved = |before: f64, x: f64| M::narrow(before + share * (x - before));
    match first {
        Some(first) => {
            mean.iter_mut().zip(first).zip(x).for_each(|((mean, first), x)| *mean = moved(first.wide(), x.wide()));
        }
        None => mean.iter_mut().zip(x).for_each(|(mean, x)| *mean = moved(mean.wide(), x.wide())),
    }
}

fn narrowed<T: Float>(shape: &[usize], mean: &[f32]) -> Tensor {
    Tensor::build(shape, |out: &mut [T]| {
        out.iter_mut().zip(mean).for_each(|(out, &mean)| *out = T::narrow(mean.wide()))
    })
}
