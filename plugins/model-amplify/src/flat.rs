//! Tensors that lie one after the other in one buffer of a device, so that one call treats all of them.

use std::ops::Range;

use tch::{Device, Kind, TchError, Tensor};

use crate::native;

/// The floats to a multiple of which a tensor starts in its buffer: 64 bytes. What is between two tensors is 0, until a copy from
/// the host brings what lay between them there.
pub(crate) const ALIGNMENT: usize = 16;

/// A buffer of zeros with a tensor of each shape, in this order.
///
/// # Errors
/// If libtorch cannot allocate it.
pub(crate) fn zeros(shapes: &[Vec<i64>], device: Device) -> Result<Vec<Tensor>, TchError> {
    let mut end = 0_i64;
    let place = |shape: &Vec<i64>| {
        let (start, length) = ((end as usize).next_multiple_of(ALIGNMENT) as i64, shape.iter().product::<i64>());
        end = start + length;
        (start, length)
    };
    let places: Vec<(i64, i64)> = shapes.iter().map(place).collect();
    let buffer = Tensor::f_zeros([end], (Kind::Float, device))?;
    let view =
        |(shape, (start, length)): (&Vec<i64>, (i64, i64))| buffer.f_narrow(0, start, length)?.f_view(&shape[..]);
    shapes.iter().zip(places).map(view).collect()
}

/// Whether a tensor is the next one in the buffer of another.
pub(crate) fn follows(before: &Tensor, next: &Tensor) -> bool {
    native::distance(before, next) == Some(before.numel().next_multiple_of(ALIGNMENT))
}

/// Splits `0..count` into ranges in each of which `is_next` holds for each number but the first.
pub(crate) fn runs(count: usize, is_next: impl Fn(usize) -> bool) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for number in 0..count {
        match runs.last_mut() {
            Some(run) if is_next(number) => run.end = number + 1,
            _ => runs.push(number..number + 1),
        }
    }
    runs
}

/// Tensors that lie one after the other as one, (elements), with what is between them; a single one as it is.
///
/// # Errors
/// If they are not in one buffer, or libtorch fails.
pub(crate) fn joined(tensors: &[&Tensor]) -> Result<Tensor, TchError> {
    match tensors {
        [] => Ok(Tensor::new()),
        [one] => Ok(one.shallow_clone()),
        [first, .., last] => {
            let apart = || TchError::Torch("tensors to join are not in one buffer".to_owned());
            let start = native::distance(first, last).ok_or_else(apart)?;
            first.f_detach()?.f_as_strided([(start + last.numel()) as i64], [1], None)
        }
    }
}

/// The same memory as few tensors as possible.
///
/// # Errors
/// If libtorch fails.
pub(crate) fn join_all(tensors: &[&Tensor]) -> Result<Vec<Tensor>, TchError> {
    let runs = runs(tensors.len(), |number| follows(tensors[number - 1], tensors[number]));
    runs.into_iter().map(|run| joined(&tensors[run])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_of_one_buffer_are_joined_and_others_are_not() {
        let shapes = [vec![3, 5], vec![0, 2], vec![16], vec![], vec![7]];
        let all = zeros(&shapes, Device::Cpu).unwrap();
        for (number, tensor) in all.iter().enumerate() {
            let _ = tensor.shallow_clone().fill_(number as f64 + 1.0);
        }
        assert!(all.iter().zip(&shapes).all(|(tensor, shape)| tensor.size() == *shape));
        let join = |tensors: &[&Tensor]| -> Vec<Vec<f32>> {
            let joined = join_all(tensors).unwrap();
            joined.iter().map(|tensor| Vec::try_from(tensor.reshape([-1])).unwrap()).collect()
        };
        let every: Vec<&Tensor> = all.iter().collect();
        let whole = [vec![1.0; 15], vec![0.0], vec![3.0; 16], vec![4.0], vec![0.0; 15], vec![5.0; 7]].concat();
        assert_eq!(join(&every), [whole]);
        // One is missing, another is not whole, and one is elsewhere.
        let (part, other) = (all[4].narrow(0, 1, 5), Tensor::zeros([2], (Kind::Float, Device::Cpu)));
        let found = join(&[&all[0], &all[3], &part, &other]);
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [15, 1, 5, 2]);
        let across = all[0].transpose(0, 1);
        assert_eq!(join(&[&across, &all[2]]).len(), 2);
    }
}
