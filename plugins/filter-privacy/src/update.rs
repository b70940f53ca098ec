//! A message as an update: its difference from the global model that its round started from.

use plugin_api::half::{bf16, f16};
use plugin_api::{Context, DType, Error, Float, Message, Params, Result, Tensor};

/// Runs `$body` with `$t` as the floating-point type of `$dtype`; runs `$other` for an integer type.
macro_rules! with_float {
    ($dtype:expr, $t:ident => $body:expr, else $other:expr) => {
        match $dtype {
            DType::F32 => {
                type $t = f32;
                $body
            }
            DType::F64 => {
                type $t = f64;
                $body
            }
            DType::F16 => {
                type $t = f16;
                $body
            }
            DType::BF16 => {
                type $t = bf16;
                $body
            }
            _ => $other,
        }
    };
}

/// A parameter's sent value and its global value.
pub(crate) struct Pair<'m> {
    name: &'m str,
    sent: &'m Tensor,
    base: &'m Tensor,
}

/// A message's parameters minus the global ones, in the message's order. The difference is never in memory as a whole.
pub(crate) struct Update<'m>(Vec<Pair<'m>>);

impl<'m> Update<'m> {
    /// The update in a message, if only its floating-point parameters depend on the client's data.
    ///
    /// # Errors
    /// If the message holds anything else, a parameter has no global value of its shape and type, a value is not
    /// finite, or there is no element.
    pub(crate) fn of(message: &'m Message, base: &'m Message) -> Result<Self> {
        if let Some(name) = message.extra.names().next() {
            return Err(Error::tensor(name, "is not a parameter and would be sent unprotected").help(
                "only parameters are protected: use a method that sends no other tensors, or filter them out first",
            ));
        }
        if let Some(name) = message.values.keys().next() {
            return Err(Error::other(format!("the message's value `{name}` would be sent unprotected"))
                .help("only parameters are protected: use a method that sends no other values"));
        }
        let pairs = message.params.iter().map(|(name, sent)| Pair::new(name, sent, &base.params));
        let update = Self(pairs.collect::<Result<_>>()?);
        if update.len() == 0 {
            return Err(Error::config(
                "the message contains no floating-point parameter, so there is nothing to protect",
            ));
        }
        Ok(update)
    }

    /// The number of elements.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().filter(|pair| pair.is_float()).map(Pair::len).sum()
    }

    /// The update's tensors.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = &Pair<'m>> {
        self.0.iter()
    }

    /// The L2 norm over all parameters together, in f64: a sum for each tensor, then the sum of these.
    ///
    /// # Errors
    /// If it overflows.
    pub(crate) fn norm(&self) -> Result<f64> {
        let mut squares = 0.0;
        for pair in &self.0 {
            let mut here = 0.0;
            pair.each(|update| here += update * update)?;
            squares += here;
        }
        let norm = squares.sqrt();
        if norm.is_finite() { Ok(norm) } else { Err(Error::data("the norm of the update overflows")) }
    }

    /// All elements.
    ///
    /// # Errors
    /// Never, as long as tensors keep their types.
    pub(crate) fn values(&self) -> Result<Vec<f64>> {
        let mut values = Vec::with_capacity(self.len());
        self.0.iter().try_for_each(|pair| pair.each(|update| values.push(update)))?;
        Ok(values)
    }

    /// Returns the parameters with each element `u` of the update, in order, replaced by `change(u)`: the global value
    /// plus this, rounded once. Unchanged elements keep their bits.
    ///
    /// # Errors
    /// If the call is cancelled, or a result does not fit its type.
    pub(crate) fn changed(&self, ctx: &Context<'_>, mut change: impl FnMut(f64) -> f64) -> Result<Params> {
        let mut params = Params::new();
        for pair in &self.0 {
            ctx.check()?;
            params.insert(pair.name, pair.changed(&mut change)?);
        }
        Ok(params)
    }
}

impl<'m> Pair<'m> {
    fn new(name: &'m str, sent: &'m Tensor, global: &'m Params) -> Result<Self> {
        let base = global.get(name).ok_or_else(|| {
            Error::tensor(name, "has no global value, so there is no update to protect")
                .help("keep a private parameter from being sent: a filter `exclude-params` before this one")
        })?;
        if (sent.dtype(), sent.shape()) != (base.dtype(), base.shape()) {
            return Err(Error::tensor(name, format!("is {sent:?}, but its global value is {base:?}"))
                .help("put filters that change shapes or types after this one"));
        }
        if !sent.is_float() && sent.buffer().as_slice() != base.buffer().as_slice() {
            return Err(Error::tensor(name, format!("holds {} values that the client has changed", sent.dtype()))
                .help("only floating-point parameters can be protected: keep this one from being sent"));
        }
        for (tensor, whose) in [(sent, "value"), (base, "global value")] {
            if !tensor.is_finite() {
                return Err(Error::tensor(name, format!("holds a {whose} that is not finite"))
                    .help("training may have diverged; try a lower learning rate"));
            }
        }
        Ok(Self { name, sent, base })
    }

    pub(crate) fn name(&self) -> &'m str {
        self.name
    }

    pub(crate) fn len(&self) -> usize {
        self.sent.len()
    }

    pub(crate) fn is_float(&self) -> bool {
        self.sent.is_float()
    }

    /// Calls `see` for each element of the update; never for an integer tensor.
    pub(crate) fn each(&self, mut see: impl FnMut(f64)) -> Result<()> {
        with_float!(self.sent.dtype(), T => {
            let (sent, base) = (self.sent.elements::<T>()?, self.base.elements::<T>()?);
            sent.iter().zip(base).for_each(|(x, base)| see(x.wide() - base.wide()));
        }, else {});
        Ok(())
    }

    fn changed(&self, change: &mut impl FnMut(f64) -> f64) -> Result<Tensor> {
        let tensor = with_float!(self.sent.dtype(), T => {
            let (sent, base) = (self.sent.elements::<T>()?, self.base.elements::<T>()?);
            Tensor::build::<T>(self.sent.shape(), |new| {
                for ((new, x), base) in new.iter_mut().zip(sent).zip(base) {
                    let update = x.wide() - base.wide();
                    let changed = change(update);
                    *new = if changed == update { *x } else { T::narrow(base.wide() + changed) };
                }
            })
        }, else self.sent.clone());
        if tensor.is_finite() {
            Ok(tensor)
        } else {
            Err(Error::tensor(self.name, format!("no longer fits {} after the change", tensor.dtype()))
                .help("less noise, or parameters of a wider type"))
        }
    }
}
