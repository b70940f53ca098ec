//! Copies between host and device, of a message's tensors together. Those of a GPU go through pinned memory.

use std::sync::{Arc, Mutex};

use plugin_api::Result;
use tch::{TchError, Tensor};

use crate::bridge::{self, torch_error};
use crate::device::DeviceContext;
use crate::native;

/// The floats of a block of host memory, 64 MiB. libtorch rounds pinned memory up to a power of two: small allocations for
/// each tensor, or a single large one, would waste up to half of it.
const BLOCK: usize = 1 << 24;
/// The floats to a multiple of which a tensor starts in its block: 64 bytes.
const ALIGNMENT: usize = 16;

/// A tensor's block and its start there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    block: usize,
    start: usize,
}

/// Puts tensors of these lengths into blocks one after the other. Gives their places, and the blocks' lengths.
fn places(lengths: impl Iterator<Item = usize>) -> (Vec<Place>, Vec<usize>) {
    let (mut places, mut blocks) = (Vec::new(), Vec::<usize>::new());
    for length in lengths {
        let start = blocks.last().map_or(0, |used| used.next_multiple_of(ALIGNMENT));
        match blocks.last_mut() {
            Some(used) if start + length <= BLOCK => {
                *used = start + length;
                places.push(Place { block: blocks.len() - 1, start });
            }
            _ => {
                blocks.push(length);
                places.push(Place { block: blocks.len() - 1, start: 0 });
            }
        }
    }
    (places, blocks)
}

fn view(block: &Tensor, Place { start, .. }: Place, shape: &[i64]) -> Result<Tensor, TchError> {
    block.f_narrow(0, start as i64, shape.iter().product())?.f_view(shape)
}

/// Copies fp32 tensors to the host. All copies start before the first is waited for; the returned tensors share blocks of
/// memory, which is pinned if they come from a GPU.
///
/// # Errors
/// If libtorch fails.
pub(crate) fn fetch<'a>(
    tensors: impl Iterator<Item = &'a Tensor>,
    context: &DeviceContext,
) -> Result<std::vec::IntoIter<plugin_api::Tensor>> {
    let _on = context.enter()?;
    let _guard = tch::no_grad_guard();
    let tensors: Vec<&Tensor> = tensors.collect();
    let (places, blocks) = places(tensors.iter().map(|tensor| tensor.numel()));
    let pinned = context.gpu().is_some();
    let blocks: Vec<Tensor> = blocks.into_iter().map(|len| native::host_memory(len, pinned)).collect::<Result<_>>()?;
    let views = tensors.iter().zip(&places).map(|(tensor, &place)| {
        let view = view(&blocks[place.block], place, &tensor.size()).map_err(torch_error)?;
        native::begin_copy(&view, tensor).map(|()| view)
    });
    let views: Vec<Tensor> = views.collect::<Result<_>>()?;
    context.wait()?;
    // tch's tensors are not `Sync`. Nobody locks these: they are only dropped.
    let owners: Vec<_> = blocks.into_iter().map(|block| Arc::new(Mutex::new(block))).collect();
    let fetched = views.iter().zip(places).map(|(view, place)| {
        // SAFETY: the copies are done, and nothing else has handles of these blocks, so nobody writes to them from here on.
        unsafe { bridge::into_contract_tensor(view, owners[place.block].clone()) }
    });
    Ok(fetched.collect::<Vec<_>>().into_iter())
}

/// Copies as many elements as each tensor has into it. A copy to a GPU may still run when this returns, unless the caller is
/// not on a stream.
///
/// # Errors
/// If libtorch fails. Some tensors may have been written then.
pub(crate) fn upload(copies: &[(&Tensor, &[f32])], context: &DeviceContext) -> Result<()> {
    let _on = context.enter()?;
    let (places, lengths) = places(copies.iter().map(|(_, elements)| elements.len()));
    let pinned = context.gpu().is_some();
    let mut copies = copies.iter().zip(places).peekable();
    for (number, length) in lengths.into_iter().enumerate() {
        // libtorch keeps pinned memory until its copies are done, and then gives it to later blocks.
        let block = native::host_memory(length, pinned)?;
        while let Some(((tensor, elements), place)) = copies.next_if(|(_, place)| place.block == number) {
            let shape = tensor.size();
            let staged = view(&block, place, &shape).map_err(torch_error)?;
            // SAFETY: the view is only read, by a copy on the host that is done when the call returns.
            let source = unsafe { bridge::view_of(elements, &shape) }.map_err(torch_error)?;
            native::begin_copy(&staged, &source)?;
            native::begin_copy(tensor, &staged)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_share_blocks_and_a_large_one_has_its_own() {
        let (places, blocks) = places([10, 20, BLOCK - 52, 4, BLOCK + 1, 3].into_iter());
        assert_eq!(blocks, [BLOCK - 4, 4, BLOCK + 1, 3]);
        let places: Vec<_> = places.into_iter().map(|place| (place.block, place.start)).collect();
        assert_eq!(places, [(0, 0), (0, 16), (0, 48), (1, 0), (2, 0), (3, 0)]);
    }

    #[test]
    fn what_was_uploaded_is_fetched() {
        let context = DeviceContext::simulated_gpu();
        let values: Vec<Vec<f32>> = [6, 0, 1, 8].iter().map(|&n| (0..n).map(|i| i as f32 + 0.5).collect()).collect();
        let shapes: [&[i64]; 4] = [&[2, 3], &[0, 4], &[], &[8]];
        let zeros = |shape: &&[i64]| Tensor::zeros(*shape, (tch::Kind::Float, tch::Device::Cpu));
        let tensors: Vec<Tensor> = shapes.iter().map(zeros).collect();
        let copies: Vec<_> = tensors.iter().zip(&values).map(|(tensor, values)| (tensor, values.as_slice())).collect();
        upload(&copies, &context).unwrap();
        let fetched: Vec<_> = fetch(tensors.iter(), &context).unwrap().collect();
        for ((found, values), shape) in fetched.iter().zip(&values).zip(shapes) {
            assert_eq!(found.elements::<f32>().unwrap(), values.as_slice());
            assert!(found.shape().iter().map(|&n| n as i64).eq(shape.iter().copied()));
        }
        // They do not change with the tensors.
        let _ = tensors[0].shallow_clone().fill_(9.0);
        assert_eq!(fetched[0].elements::<f32>().unwrap(), values[0].as_slice());
    }
}
