//! States that fit no component.

use plugin_api::{Result, State, Tensor};

/// A state that no component made.
pub(crate) fn foreign() -> Result<State> {
    let tensor = ("no such tensor", Tensor::from_slice(&[1], &[1.0_f32])?);
    let value = ("no such value".to_owned(), 1.into());
    Ok(State { tensors: [tensor].into_iter().collect(), values: [value].into_iter().collect() })
}
