//! A client's update as fixed-point numbers.

use plugin_api::{Error, Message, Result, Tensor};

use crate::fixed::{Grid, wide};

/// Counts of encoded values.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    pub(crate) all: usize,
    /// Values beyond the grid.
    pub(crate) clamped: usize,
    /// Values that were not 0 before rounding; a client without any has not trained.
    pub(crate) moved: usize,
}

/// A parameter's change since the round started; `None` for integers, which must not change.
///
/// # Errors
/// If the global model has no such parameter, or the change is not finite.
pub(crate) fn change(name: &str, tensor: &Tensor, base: &Message) -> Result<Option<Vec<f64>>> {
    let Some(before) = base.params.get(name) else {
        return Err(Error::tensor(name, "is not a parameter of the global model").help(
            "parameters that are private to a client must be removed by a filter before this one, such as \
             `exclude-params`",
        ));
    };
    if (before.dtype(), before.shape()) != (tensor.dtype(), tensor.shape()) {
        return Err(Error::tensor(name, format!("is {tensor:?}, but {before:?} in the global model")));
    }
    let (Some(mut change), Some(earlier)) = (wide(tensor)?, wide(before)?) else {
        return match before.buffer().as_slice() == tensor.buffer().as_slice() {
            true => Ok(None),
            false => Err(Error::tensor(name, format!("has other {} values than the global model", tensor.dtype()))
                .help("integers are not averaged: they must be unchanged or kept private")),
        };
    };
    change.iter_mut().zip(&earlier).for_each(|(after, earlier)| *after -= earlier);
    if change.iter().any(|x| !x.is_finite()) {
        return Err(Error::tensor(name, "its update contains a value that is not finite")
            .help("its training may have diverged; try a lower learning rate"));
    }
    Ok(Some(change))
}

/// A parameter's update in fixed point, modulo 2³².
pub(crate) fn encoded(name: &str, tensor: &Tensor, base: &Message, grid: Grid, count: &mut Count) -> Result<Vec<u32>> {
    count.all += tensor.len();
    let Some(change) = change(name, tensor, base)? else { return Ok(vec![0; tensor.len()]) };
    let number = |&change: &f64| {
        let (number, beyond) = grid.encode(change);
        count.clamped += usize::from(beyond);
        count.moved += usize::from(change != 0.0);
        number.cast_unsigned()
    };
    Ok(change.iter().map(number).collect())
}
