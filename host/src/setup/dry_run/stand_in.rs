//! A stand-in for a model, which only receives and sends messages.

use std::sync::Arc;

use plugin_api::half::{bf16, f16};
use plugin_api::{
    Context, DType, Element, Epoch, Error, Evaluation, Message, Model, Params, Received, Result, Table, Task, Tensor,
    Trained,
};

/// The simulated change of a value by training: about the size of a step.
const STEP: f32 = 1.0 / 1024.0;

/// Sends the message of a model with certain tasks, one step away from the parameters it received.
pub(super) struct StandIn {
    /// The message that the model sends before training.
    part: Arc<Message>,
    /// The maximum number of elements of a tensor that is changed; larger ones are sent unchanged and share their
    /// memory.
    most: usize,
    received: Params,
}

impl StandIn {
    pub(super) fn new(part: Arc<Message>, most: usize) -> Self {
        Self { part, most, received: Params::new() }
    }
}

impl Model for StandIn {
    fn parameters(&mut self, _: &Context<'_>) -> Result<Params> {
        Ok(self.part.params.clone())
    }

    fn receive(&mut self, global: &Message, _: &Context<'_>) -> Result<Received> {
        let own = |name: &str| self.part.params.get(name);
        let arrived = global.params.iter().filter(|(name, _)| own(name).is_some());
        let params: Params = arrived.map(|(name, tensor)| (name, tensor.clone())).collect();
        if params.is_empty() && !global.params.is_empty() {
            return Err(Error::other("none of the tensors that arrive is a parameter of the model"));
        }
        let help = "a filter that encodes is needed at both ends: `server-output` and `client-input`";
        for (name, tensor) in params.iter() {
            if own(name).is_some_and(|own| (own.dtype(), own.shape()) != (tensor.dtype(), tensor.shape())) {
                let message = format!("arrives as {tensor:?}, which does not fit the model");
                return Err(Error::tensor(name, message).help(help));
            }
        }
        if let Some(name) = params.not_finite(1) {
            return Err(Error::tensor(name, "arrives with a value that is not finite"));
        }
        self.received = params;
        Ok(Received::default())
    }

    fn train(&mut self, _: &[Task], _: Epoch, _: &Context<'_>) -> Result<Trained> {
        Err(Error::unsupported("nothing is trained in a rehearsal"))
    }

    fn evaluate(&mut self, _: &[Task], _: &Context<'_>) -> Result<Vec<Evaluation>> {
        Ok(Vec::new())
    }

    fn send(&mut self, _: &Context<'_>) -> Result<Message> {
        let step = |(name, own): (&str, &Tensor)| -> Result<(String, Tensor)> {
            let from = self.received.get(name).unwrap_or(own);
            let small = from.is_float() && from.len() <= self.most;
            Ok((name.to_owned(), if small { moved(from)? } else { from.clone() }))
        };
        let params = self.part.params.iter().map(step).collect::<Result<Params>>()?;
        Ok(Message { params, ..(*self.part).clone() })
    }

    fn predict(&mut self, _: &str, _: &Table, _: &Context<'_>) -> Result<Table> {
        Err(Error::unsupported("nothing is predicted in a rehearsal"))
    }
}

/// Increases every other value of a tensor by `STEP` and decreases the others.
fn moved(tensor: &Tensor) -> Result<Tensor> {
    let step = |(index, x): (usize, &f32)| if index % 2 == 0 { x + STEP } else { x - STEP };
    let values: Vec<f32> = tensor.to_f32()?.iter().enumerate().map(step).collect();
    Tensor::from_f32(tensor.dtype(), tensor.shape(), &values)
}

/// Cuts tensors of more than `most` elements to their first rows.
pub(super) fn cut(params: &Params, most: usize) -> Result<Params> {
    params.iter().map(|(name, tensor)| Ok((name.to_owned(), first_rows(tensor, most)?))).collect()
}

fn first_rows(tensor: &Tensor, most: usize) -> Result<Tensor> {
    if tensor.len() <= most {
        return Ok(tensor.clone());
    }
    let mut shape = tensor.shape().to_vec();
    for axis in 0..shape.len() {
        let row: usize = shape[axis + 1..].iter().product();
        shape[axis] = shape[axis].min((most / row).max(1));
    }
    fn first<T: Element>(tensor: &Tensor, shape: &[usize]) -> Result<Tensor> {
        Tensor::from_slice(shape, &tensor.elements::<T>()?[..shape.iter().product()])
    }
    let of_type = match tensor.dtype() {
        DType::F32 => first::<f32>,
        DType::F64 => first::<f64>,
        DType::F16 => first::<f16>,
        DType::BF16 => first::<bf16>,
        DType::I64 => first::<i64>,
        DType::I32 => first::<i32>,
        DType::I8 => first::<i8>,
        DType::U8 => first::<u8>,
        other => return Err(Error::unsupported(format!("a tensor of {other}"))),
    };
    of_type(tensor, &shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_tensors_are_cut_to_their_first_rows() {
        let numbers: Vec<i64> = (0..24).collect();
        for (shape, most, wanted) in [
            (&[24][..], 24, &[24][..]),
            (&[24], 10, &[10]),
            (&[4, 6], 13, &[2, 6]),
            (&[4, 6], 5, &[1, 5]),
            (&[2, 3, 4], 7, &[1, 1, 4]),
            (&[2, 3, 4], 1, &[1, 1, 1]),
        ] {
            let small = first_rows(&Tensor::from_slice(shape, &numbers).unwrap(), most).unwrap();
            assert_eq!(small.shape(), wanted);
            assert_eq!(small.elements::<i64>().unwrap(), &numbers[..small.len()]);
        }
    }
}
