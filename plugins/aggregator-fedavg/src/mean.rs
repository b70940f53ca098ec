//! The running mean of one parameter.

use half::{bf16, f16};
use plugin_api::{DType, Element, Error, Result, Tensor};

/// The mean of the tensors so far, and their weight.
///
/// With the total weight `Wₖ = w₁ + … + wₖ` it is `mₖ = mₖ₋₁ + (wₖ / Wₖ)(xₖ − mₖ₋₁)` and `m₁ = x₁`, so that one
/// client's tensor comes back bit for bit, and equal ones come back equal. A step computes in f64 and rounds once to the accumulator, which is f64 for f64
/// and f32 for all others; half types are rounded once more at the end. After `n` clients an f32 element is at most
/// `n · 2⁻²⁴ · max|xᵢ|` from the exact mean.
#[derive(Debug)]
pub(crate) struct Mean {
    so_far: Accumulator,
    dtype: DType,
    shape: Vec<usize>,
    weight: u64,
    first_client: String,
}

#[derive(Debug)]
enum Accumulator {
    F32(Vec<f32>),
    F64(Vec<f64>),
    /// Integers have no mean; they are kept as long as all clients send the same.
    Equal(Tensor),
}

/// A floating type that a client may send.
trait Real: Element {
    fn wide(self) -> f64;
    fn narrow(value: f64) -> Self;
}

macro_rules! real {
    ($($t:ty: $wide:expr, $narrow:expr;)*) => {
        $(impl Real for $t {
            fn wide(self) -> f64 {
                $wide(self)
            }
            fn narrow(value: f64) -> Self {
                $narrow(value)
            }
        })*
    };
}
real! {
    f32: f64::from, |value| value as f32;
    f64: |value| value, |value| value;
    f16: f16::to_f64, f16::from_f64;
    bf16: bf16::to_f64, bf16::from_f64;
}

impl Mean {
    /// An error unless a client's tensor can be added: to nothing yet, or to the mean of those before.
    pub(crate) fn check(mean: Option<&Self>, name: &str, tensor: &Tensor, client: &str) -> Result<()> {
        if let Some(Self { so_far, dtype, shape, first_client: first, .. }) = mean {
            if (*dtype, shape.as_slice()) != (tensor.dtype(), tensor.shape()) {
                let message = format!("client `{client}` sends {tensor:?}, and client `{first}` sent {dtype}{shape:?}");
                return Err(
                    Error::tensor(name, message).help("what differs from client to client must be kept private")
                );
            }
            if let Accumulator::Equal(before) = so_far
                && before.buffer().as_slice() != tensor.buffer().as_slice()
            {
                let message = format!("client `{client}` sends other {dtype} values than client `{first}`");
                return Err(
                    Error::tensor(name, message).help("integers have no mean: they must be equal or kept private")
                );
            }
        }
        if is_finite(tensor) {
            return Ok(());
        }
        let message = format!("client `{client}` sends a value that is not finite");
        Err(Error::tensor(name, message).help("its training may have diverged: a lower learning rate may help"))
    }

    /// The mean of one client's tensor.
    pub(crate) fn of(tensor: &Tensor, weight: u64, client: &str) -> Result<Self> {
        let so_far = match tensor.dtype() {
            DType::F32 => Accumulator::F32(tensor.elements::<f32>()?.to_vec()),
            DType::F64 => Accumulator::F64(tensor.elements::<f64>()?.to_vec()),
            DType::F16 => Accumulator::F32(tensor.elements::<f16>()?.iter().map(|x| x.to_f32()).collect()),
            DType::BF16 => Accumulator::F32(tensor.elements::<bf16>()?.iter().map(|x| x.to_f32()).collect()),
            _ => Accumulator::Equal(tensor.clone()),
        };
        Ok(Self {
            so_far,
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
            weight,
            first_client: client.to_owned(),
        })
    }

    /// Adds a tensor that [`check`](Self::check) let pass.
    pub(crate) fn add(&mut self, tensor: &Tensor, weight: u64) -> Result<()> {
        self.weight += weight;
        let share = weight as f64 / self.weight as f64;
        match (&mut self.so_far, self.dtype) {
            (Accumulator::F32(mean), DType::F16) => fold(mean, tensor.elements::<f16>()?, share),
            (Accumulator::F32(mean), DType::BF16) => fold(mean, tensor.elements::<bf16>()?, share),
            (Accumulator::F32(mean), _) => fold(mean, tensor.elements::<f32>()?, share),
            (Accumulator::F64(mean), _) => fold(mean, tensor.elements::<f64>()?, share),
            (Accumulator::Equal(_), _) => {}
        }
        Ok(())
    }

    /// The mean as a tensor of the clients' type.
    pub(crate) fn finish(self) -> Result<Tensor> {
        match (self.so_far, self.dtype) {
            (Accumulator::F32(mean), DType::F16) => Ok(narrowed::<f16>(&self.shape, &mean)),
            (Accumulator::F32(mean), DType::BF16) => Ok(narrowed::<bf16>(&self.shape, &mean)),
            (Accumulator::F32(mean), _) => Tensor::from_slice(&self.shape, &mean),
            (Accumulator::F64(mean), _) => Tensor::from_slice(&self.shape, &mean),
            (Accumulator::Equal(tensor), _) => Ok(tensor),
        }
    }
}

/// Moves each element of the mean towards `x` by `share` of the way. The compiler vectorises it: memory is the limit.
fn fold<M: Real, X: Real>(mean: &mut [M], x: &[X], share: f64) {
    for (mean, x) in mean.iter_mut().zip(x) {
        let before = mean.wide();
        *mean = M::narrow(before + share * (x.wide() - before));
    }
}

fn narrowed<T: Real>(shape: &[usize], mean: &[f32]) -> Tensor {
    Tensor::build(shape, |out: &mut [T]| {
        out.iter_mut().zip(mean).for_each(|(out, &mean)| *out = T::narrow(mean.wide()))
    })
}

fn is_finite(tensor: &Tensor) -> bool {
    fn all<T: Real>(tensor: &Tensor) -> bool {
        // Without an early exit, so that the loop vectorises; x − x is 0 for a finite x, and NaN for all others.
        tensor.elements::<T>().is_ok_and(|all| all.iter().fold(true, |finite, x| finite & (x.wide() - x.wide() == 0.0)))
    }
    match tensor.dtype() {
        DType::F32 => all::<f32>(tensor),
        DType::F64 => all::<f64>(tensor),
        DType::F16 => all::<f16>(tensor),
        DType::BF16 => all::<bf16>(tensor),
        _ => true,
    }
}
