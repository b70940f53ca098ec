//! The optimisers' update rules, element by element.

use plugin_api::half::{bf16, f16};
use plugin_api::{DType, Error, ErrorKind, Float, Result, Tensor};

/// An optimiser with its hyperparameters; the crate's documentation has the formulas.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    Adam { rate: f64, beta1: f64, beta2: f64, tau: f64, corrected: bool },
    Yogi { rate: f64, beta1: f64, beta2: f64, tau: f64, corrected: bool },
    Adagrad { rate: f64, beta1: f64, tau: f64 },
    Momentum { rate: f64, momentum: f64 },
}

/// The moments of one tensor, in that tensor's shape.
#[derive(Clone, Debug)]
pub(crate) struct Moments {
    pub(crate) first: Tensor,
    pub(crate) second: Option<Tensor>,
    /// The number of steps taken so far.
    pub(crate) rounds: u64,
}

impl Rule {
    pub(crate) fn has_second(self) -> bool {
        !matches!(self, Self::Momentum { .. })
    }

    /// Computes a tensor's next value and moments. `old` and `mean` have the same shape and floating-point type.
    ///
    /// # Errors
    /// If the moments have another shape, or the result is not finite.
    pub(crate) fn step(self, old: &Tensor, mean: &Tensor, before: Option<&Moments>) -> Result<(Tensor, Moments)> {
        match old.dtype() {
            DType::F32 => self.step_of::<f32, f32>(old, mean, before),
            DType::F64 => self.step_of::<f64, f64>(old, mean, before),
            DType::F16 => self.step_of::<f16, f32>(old, mean, before),
            DType::BF16 => self.step_of::<bf16, f32>(old, mean, before),
            other => Err(Error::new(ErrorKind::Tensor, format!("holds {other}, not a floating-point type"))),
        }
    }

    /// [`step`](Self::step) for elements of type `X` and moments of type `M`.
    fn step_of<X: Float, M: Float>(
        self,
        old: &Tensor,
        mean: &Tensor,
        before: Option<&Moments>,
    ) -> Result<(Tensor, Moments)> {
        let shape = old.shape();
        let (x, mean) = (old.elements::<X>()?, mean.elements::<X>()?);
        let delta = |i: usize| mean[i].wide() - x[i].wide();
        let (first, second) = match before {
            None => (None, None),
            Some(before) => {
                let fits = |moment: &Tensor| moment.shape() == shape && moment.dtype() == M::DTYPE;
                if !(fits(&before.first) && before.second.as_ref().is_none_or(fits)) {
                    let message = format!("its moments are {:?}, but it is {old:?}", before.first);
                    return Err(Error::new(ErrorKind::Tensor, message));
                }
                let second = before.second.as_ref().map(Tensor::elements::<M>).transpose()?;
                (Some(before.first.elements::<M>()?), second)
            }
        };
        let rounds = before.map_or(0, |before| before.rounds) + 1;

        let first = Tensor::build(shape, |new: &mut [M]| {
            for (i, new) in new.iter_mut().enumerate() {
                *new = M::narrow(self.first(first.map_or(0.0, |first| first[i].wide()), delta(i)));
            }
        });
        let second = self.has_second().then(|| {
            Tensor::build(shape, |new: &mut [M]| {
                for (i, new) in new.iter_mut().enumerate() {
                    let before = second.map_or(self.second_at_start(), |second| second[i].wide());
                    *new = M::narrow(self.second(before, delta(i)));
                }
            })
        });
        let m = first.elements::<M>()?;
        let v = second.as_ref().map(Tensor::elements::<M>).transpose()?;
        let factors = self.factors(rounds);
        let next = Tensor::build(shape, |next: &mut [X]| {
            for (i, next) in next.iter_mut().enumerate() {
                *next = X::narrow(x[i].wide() + self.change(m[i].wide(), v.map_or(0.0, |v| v[i].wide()), factors));
            }
        });
        if !(next.is_finite() && first.is_finite() && second.as_ref().is_none_or(Tensor::is_finite)) {
            let message = "the server's step is not finite";
            return Err(Error::new(ErrorKind::Tensor, message)
                .help("the clients' mean is too far away; try a lower learning rate, theirs or the server's"));
        }
        Ok((next, Moments { first, second, rounds }))
    }

    fn first(self, before: f64, delta: f64) -> f64 {
        match self {
            Self::Adam { beta1, .. } | Self::Yogi { beta1, .. } | Self::Adagrad { beta1, .. } => {
                beta1 * before + (1.0 - beta1) * delta
            }
            Self::Momentum { momentum, .. } => momentum * before + delta,
        }
    }

    fn second_at_start(self) -> f64 {
        match self {
            Self::Adam { corrected: true, .. } | Self::Yogi { corrected: true, .. } | Self::Momentum { .. } => 0.0,
            Self::Adam { tau, .. } | Self::Yogi { tau, .. } | Self::Adagrad { tau, .. } => tau * tau,
        }
    }

    fn second(self, before: f64, delta: f64) -> f64 {
        let square = delta * delta;
        match self {
            Self::Adam { beta2, .. } => beta2 * before + (1.0 - beta2) * square,
            // Equal values give 0 here; `signum(0.0)` would be 1.
            Self::Yogi { .. } if before == square => before,
            Self::Yogi { beta2, .. } => before - (1.0 - beta2) * square * (before - square).signum(),
            Self::Adagrad { .. } => before + square,
            Self::Momentum { .. } => 0.0,
        }
    }

    /// The divisors of the two moments in step `t`, counted from 1.
    fn factors(self, t: u64) -> [f64; 2] {
        match self {
            Self::Adam { beta1, beta2, corrected: true, .. } | Self::Yogi { beta1, beta2, corrected: true, .. } => {
                // Beyond 2³¹ rounds every power is 0.
                let t = i32::try_from(t).unwrap_or(i32::MAX);
                [1.0 - beta1.powi(t), 1.0 - beta2.powi(t)]
            }
            _ => [1.0, 1.0],
        }
    }

    fn change(self, m: f64, v: f64, [first, second]: [f64; 2]) -> f64 {
        match self {
            Self::Adam { rate, tau, .. } | Self::Yogi { rate, tau, .. } | Self::Adagrad { rate, tau, .. } => {
                rate * (m / first) / ((v / second).sqrt() + tau)
            }
            Self::Momentum { rate, .. } => rate * m,
        }
    }
}
