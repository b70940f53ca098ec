//! The weighted mean of several clients' parameters: what most aggregators begin with.

use half::{bf16, f16};
use indexmap::IndexMap;

use super::memory::{Arena, TensorBuf};
use super::parallel;
use crate::{DType, Error, Float, Params, Result, Tensor};

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
/// and becomes the tensor of the result. Every other client's tensors are held until the next one comes.
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
    /// The mean of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same on as many threads as the call may use, [`Context::threads`](crate::Context::threads); on one without it.
    /// Its bits do not depend on their number.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Whether what `client` sent can be added: for a method with several means, which adds to all of them or to none.
    ///
    /// # Errors
    /// If a tensor differs in shape or type from what others sent, or an integer tensor in its values.
    pub fn check(&self, params: &Params, client: &str) -> Result<()> {
        params.iter().try_for_each(|(name, tensor)| Mean::check(self.tensors.get(name), name, tensor, client))
    }

    /// Adds what `client` sent, with a weight. What is refused leaves no trace: all tensors are [checked](Self::check)
    /// before the first is added. A weight of 0 adds nothing and checks nothing. That values are finite is not checked
    /// here: the host refuses an update that holds others before an aggregator sees it.
    ///
    /// # Errors
    /// If the weight is negative or not finite, or what was sent does not fit what others sent.
    pub fn add(&mut self, params: &Params, weight: f64, client: &str) -> Result<()> {
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(Error::other(format!("client `{client}` has the weight {weight}")));
        }
        if weight == 0.0 {
            return Ok(());
        }
        self.check(params, client)?;
        // All at once, where this is the second client. All of it is written before it is read.
        let wants: Vec<usize> = params.names().filter_map(|name| self.tensors.get(name)).map(Mean::wants).collect();
        let mut arena = if wants.iter().sum::<usize>() > 0 { Arena::in_turns(wants) } else { Arena::default() };
        for (name, tensor) in params.iter() {
            match self.tensors.get_mut(name) {
                Some(mean) => mean.make_space(&mut arena),
                None => drop(self.tensors.insert(name.to_owned(), Mean::of(tensor, client))),
            }
        }
        let means = self.tensors.iter_mut().filter_map(|(name, mean)| Some((mean, params.get(name)?)));
        parallel::each(means.collect(), params.bytes(), self.threads, |(mean, tensor)| mean.add(tensor, weight));
        Ok(())
    }

    /// Whether nothing was added since the beginning.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The means, in the order in which their names came first.
    ///
    /// # Errors
    /// Never, so far as tensors keep their shapes.
    pub fn finish(self) -> Result<Params> {
        // Taken apart one by one, so that a mean's memory goes as its tensor comes.
        self.tensors.into_iter().map(|(name, mean)| Ok((name, mean.finish()?))).collect()
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
    /// The mean, and a client's tensor that waits for the next, with its share: a pass over memory serves two.
    Many(Wide, Option<(Tensor, f64)>),
}

#[derive(Debug)]
enum Wide {
    F32(TensorBuf<f32>),
    F64(TensorBuf<f64>),
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
        Ok(())
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
            (Accumulator::One(first), DType::F64) => Arena::bytes::<f64>(first.len()),
            (Accumulator::One(first), _) if first.is_float() => Arena::bytes::<f32>(first.len()),
            _ => 0,
        }
    }

    /// Makes the accumulator that the next tensor makes necessary.
    fn make_space(&mut self, arena: &mut Arena) {
        let Accumulator::One(first) = &self.so_far else { return };
        let (first, count) = (first.clone(), first.len());
        self.so_far = match self.dtype {
            DType::F64 => Accumulator::Two(first, Wide::F64(arena.alloc(count))),
            _ if first.is_float() => Accumulator::Two(first, Wide::F32(arena.alloc(count))),
            _ => return,
        };
    }

    /// Adds a tensor that [`check`](Self::check) let pass and [`make_space`](Self::make_space) was called for, if it is not
    /// the first.
    fn add(&mut self, tensor: &Tensor, weight: f64) {
        self.weight += weight;
        let share = weight / self.weight;
        let next = (tensor.clone(), share);
        self.so_far = match std::mem::replace(&mut self.so_far, Accumulator::One(tensor.clone())) {
            one @ Accumulator::One(_) => one,
            Accumulator::Two(first, mean) => Accumulator::Many(mean.moved(self.dtype, Some(&first), &[next]), None),
            Accumulator::Many(mean, None) => Accumulator::Many(mean, Some(next)),
            Accumulator::Many(mean, Some(last)) => Accumulator::Many(mean.moved(self.dtype, None, &[last, next]), None),
        };
    }

    /// The mean as a tensor of the clients' type.
    fn finish(self) -> Result<Tensor> {
        let mean = match self.so_far {
            Accumulator::One(tensor) | Accumulator::Two(tensor, _) => return Ok(tensor),
            Accumulator::Many(mean, None) => mean,
            Accumulator::Many(mean, Some(last)) => mean.moved(self.dtype, None, &[last]),
        };
        match (mean, self.dtype) {
            (Wide::F32(mean), DType::F16) => Ok(narrowed::<f16>(&self.shape, mean.as_slice())),
            (Wide::F32(mean), DType::BF16) => Ok(narrowed::<bf16>(&self.shape, mean.as_slice())),
            (Wide::F32(mean), _) => mean.freeze(&self.shape),
            (Wide::F64(mean), _) => mean.freeze(&self.shape),
        }
    }
}

impl Wide {
    /// The mean, or what the `first` client sent, moved by a share of the way towards one client's tensor after the other.
    fn moved(self, dtype: DType, first: Option<&Tensor>, towards: &[(Tensor, f64)]) -> Self {
        match (self, dtype) {
            (Self::F64(mean), _) => Self::F64(moved::<f64, f64>(mean, first, towards)),
            (Self::F32(mean), DType::F16) => Self::F32(moved::<f32, f16>(mean, first, towards)),
            (Self::F32(mean), DType::BF16) => Self::F32(moved::<f32, bf16>(mean, first, towards)),
            (Self::F32(mean), _) => Self::F32(moved::<f32, f32>(mean, first, towards)),
        }
    }
}

fn moved<M: Float, X: Float>(
    mut mean: TensorBuf<M>,
    first: Option<&Tensor>,
    towards: &[(Tensor, f64)],
) -> TensorBuf<M> {
    fn elements<X: Float>(tensor: &Tensor) -> &[X] {
        tensor.elements().expect("the type was compared")
    }
    let out = mean.as_mut_slice();
    match (first, towards) {
        (Some(first), [(x, share)]) => wide(out, Way::FromFirst(elements::<X>(first), elements(x), *share)),
        (None, [(x, share)]) => wide(out, Way::One(elements::<X>(x), *share)),
        (None, [(x, share), (y, next)]) => wide(out, Way::Two(elements::<X>(x), *share, elements(y), *next)),
        _ => unreachable!("`add` and `finish` ask for no other"),
    }
    mean
}

/// What a pass over the mean does: from where towards whom, and which share of the way. Two clients in one pass take two
/// steps with a rounding between them, as in two passes.
#[derive(Clone, Copy)]
enum Way<'a, X> {
    FromFirst(&'a [X], &'a [X], f64),
    One(&'a [X], f64),
    Two(&'a [X], f64, &'a [X], f64),
}

/// Runs [`pass`] with the widest vectors that the processor has. Each element is computed in the same steps.
fn wide<M: Float, X: Float>(mean: &mut [M], way: Way<'_, X>) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f")]
        fn avx512<M: Float, X: Float>(mean: &mut [M], way: Way<'_, X>) {
            pass(mean, way);
        }
        #[target_feature(enable = "avx2")]
        fn avx2<M: Float, X: Float>(mean: &mut [M], way: Way<'_, X>) {
            pass(mean, way);
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has it.
            return unsafe { avx512(mean, way) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has it.
            return unsafe { avx2(mean, way) };
        }
    }
    pass(mean, way);
}

#[inline(always)]
fn pass<M: Float, X: Float>(mean: &mut [M], way: Way<'_, X>) {
    let step = |before: f64, x: &X, share: f64| M::narrow(before + share * (x.wide() - before));
    match way {
        Way::FromFirst(first, x, share) => {
            mean.iter_mut().zip(first).zip(x).for_each(|((mean, first), x)| *mean = step(first.wide(), x, share));
        }
        Way::One(x, share) => mean.iter_mut().zip(x).for_each(|(mean, x)| *mean = step(mean.wide(), x, share)),
        Way::Two(x, share, y, next) => mean
            .iter_mut()
            .zip(x)
            .zip(y)
            .for_each(|((mean, x), y)| *mean = step(step(mean.wide(), x, share).wide(), y, next)),
    }
}

fn narrowed<T: Float>(shape: &[usize], mean: &[f32]) -> Tensor {
    Tensor::build(shape, |out: &mut [T]| {
        out.iter_mut().zip(mean).for_each(|(out, &mean)| *out = T::narrow(mean.wide()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, one step after the other.
    fn plainly<M: Float, X: Float>(sent: &[(Vec<X>, f64)]) -> Vec<M> {
        let mut weight = sent[0].1;
        let mut mean: Vec<M> = sent[0].0.iter().map(|x| M::narrow(x.wide())).collect();
        for (x, own) in &sent[1..] {
            weight += own;
            mean =
                mean.iter().zip(x).map(|(m, x)| M::narrow(m.wide() + own / weight * (x.wide() - m.wide()))).collect();
        }
        mean
    }

    fn agrees<M: Float, X: Float>(len: usize, narrow: impl Fn(Vec<M>) -> Vec<X>) {
        let value = |client: usize, i: usize| X::narrow(((i * 7919 + client * 104_729) % 2003) as f64 / 1000.0 - 1.0);
        let sent = |client| ((0..len).map(|i| value(client, i)).collect::<Vec<X>>(), 1.0 + client as f64 / 3.0);
        let sent: Vec<_> = (0..6).map(sent).collect();
        for clients in 1..=sent.len() {
            let mut mean = WeightedMean::new().with_threads(clients);
            for (x, weight) in &sent[..clients] {
                let params: Params = [("x", Tensor::from_slice(&[len], x).unwrap())].into_iter().collect();
                mean.add(&params, *weight, "client").unwrap();
            }
            let mean = mean.finish().unwrap();
            let expected = narrow(plainly::<M, X>(&sent[..clients]));
            let expected = Tensor::from_slice(&[len], &expected).unwrap();
            let same = mean.get("x").unwrap().buffer().as_slice() == expected.buffer().as_slice();
            assert!(same, "{clients} clients, {}[{len}]", X::DTYPE);
        }
    }

    #[test]
    fn the_mean_has_the_bits_of_its_definition_however_it_is_computed() {
        agrees::<f32, f32>(37, |mean| mean);
        agrees::<f64, f64>(37, |mean| mean);
        agrees::<f32, f16>(37, |mean| mean.into_iter().map(|x| f16::narrow(x.wide())).collect());
        agrees::<f32, bf16>(37, |mean| mean.into_iter().map(|x| bf16::narrow(x.wide())).collect());
        // So large that several threads compute it, in memory from the system.
        agrees::<f32, f32>((9 << 20) / 4, |mean| mean);
    }

    /// Memory that begins `offset` elements after a multiple of 64 bytes, as a mapped file's tensors do.
    fn begins_at<X: Float>(offset: usize, elements: &[X]) -> Tensor {
        let mut padded = vec![X::default(); offset];
        padded.extend_from_slice(elements);
        let memory = TensorBuf::copy_of(&padded).into_buffer();
        let (data, bytes) = (memory.as_slice()[offset * size_of::<X>()..].as_ptr(), size_of_val(elements));
        // SAFETY: the bytes are the buffer's, which the tensor keeps.
        let buffer = unsafe { crate::Buffer::from_owner(data, bytes, memory) };
        Tensor::new(X::DTYPE, &[elements.len()], buffer).unwrap()
    }

    #[test]
    fn tensors_may_begin_anywhere() {
        fn at<X: Float>() {
            let value =
                |client: usize, i: usize| X::narrow(((i * 7919 + client * 104_729) % 2003) as f64 / 1000.0 - 1.0);
            let mean_of = |offset: usize| {
                let mut mean = WeightedMean::new();
                for client in 0..4 {
                    // Each another way off, for passes that read two.
                    let elements: Vec<X> = (0..67).map(|i| value(client, i)).collect();
                    let tensor = begins_at(offset + client * usize::from(offset > 0), &elements);
                    assert!(tensor.is_finite());
                    mean.add(&[("x", tensor)].into_iter().collect(), 1.0 + client as f64, "client").unwrap();
                }
                mean.finish().unwrap().get("x").unwrap().buffer().as_slice().to_vec()
            };
            let aligned = mean_of(0);
            (1..64 / size_of::<X>()).for_each(|offset| assert!(mean_of(offset) == aligned, "{} {offset}", X::DTYPE));
        }
        at::<f32>();
        at::<f64>();
        at::<f16>();
        at::<bf16>();
        // Not between elements.
        let memory = TensorBuf::copy_of(&[0_u8; 9]).into_buffer();
        // SAFETY: the bytes are the buffer's, which the owner keeps.
        let odd = unsafe { crate::Buffer::from_owner(memory.as_slice()[1..].as_ptr(), 8, memory.clone()) };
        let error = Tensor::new(DType::F32, &[2], odd.clone()).unwrap_err();
        assert!(error.message().ends_with("and its f32 elements need a multiple of 4"), "{error}");
        assert!(Tensor::new(DType::U8, &[8], odd).is_ok());
    }
}
