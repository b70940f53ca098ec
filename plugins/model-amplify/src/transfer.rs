//! Copies between host and device, of a message's tensors together. Those of a GPU go through pinned memory, tensors that lie
//! one after the other in one copy.

use std::sync::{Arc, Mutex};

use plugin_api::Result;
use tch::{TchError, Tensor};

use crate::bridge::{self, torch_error};
use crate::device::DeviceContext;
use crate::flat::{self, ALIGNMENT};
use crate::native;

mod pages;

pub(crate) use pages::DeviceModel;
use pages::{LAST, Staged};

/// The floats of a block of host memory, 64 MiB. libtorch rounds pinned memory up to a power of two: small allocations for
/// each tensor, or a single large one, would waste up to half of it.
const BLOCK: usize = 1 << 24;
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

/// Begins copies between blocks and the tensors of a device that have these places, of neighbours together. `copy` gets the
/// part of the block, and the tensors' memory.
fn copy_runs(
    tensors: &[&Tensor],
    places: &[Place],
    blocks: &[Tensor],
    copy: impl Fn(&Tensor, &Tensor) -> Result<()>,
) -> Result<()> {
    let is_next = |number: usize| {
        places[number].block == places[number - 1].block && flat::follows(tensors[number - 1], tensors[number])
    };
    for run in flat::runs(tensors.len(), is_next) {
        let place = places[run.start];
        let joined = flat::joined(&tensors[run]).map_err(torch_error)?;
        let part = view(&blocks[place.block], place, &joined.size()).map_err(torch_error)?;
        copy(&part, &joined)?;
    }
    Ok(())
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
    copy_runs(&tensors, &places, &blocks, native::begin_copy)?;
    context.wait()?;
    let views = tensors.iter().zip(&places).map(|(tensor, &place)| view(&blocks[place.block], place, &tensor.size()));
    let views: Vec<Tensor> = views.collect::<Result<_, _>>().map_err(torch_error)?;
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
    let (tensors, elements): (Vec<&Tensor>, Vec<&[f32]>) = copies.iter().copied().unzip();
    let _on = context.enter()?;
    send(&tensors, &Staged::new(&elements, context.gpu().is_some())?)
}

/// [`upload`] of a message's tensors, whose pinned copy other clients of the process use too.
///
/// # Errors
/// As that, and if a tensor is not fp32.
pub(crate) fn upload_message(copies: &[(&Tensor, &plugin_api::Tensor)], context: &DeviceContext) -> Result<()> {
    let (tensors, sources): (Vec<&Tensor>, Vec<&plugin_api::Tensor>) = copies.iter().copied().unzip();
    let _on = context.enter()?;
    send(&tensors, &LAST.stage(&sources, context.gpu().is_some())?)
}

fn send(tensors: &[&Tensor], Staged { places, blocks }: &Staged) -> Result<()> {
    let _guard = tch::no_grad_guard();
    // libtorch keeps pinned memory until its copies are done, and then gives it to later blocks.
    copy_runs(tensors, places, blocks, |part, tensor| native::begin_copy(tensor, part))
}

/// New fp32 tensors on the device with the values of others, each with one of ours of its shape: in one buffer, unless in host
/// memory. A copy to a GPU may still run when this returns.
///
/// # Errors
/// If libtorch fails.
pub(crate) fn fresh(sources: &[(&plugin_api::Tensor, &Tensor)], context: &DeviceContext) -> Result<Vec<Tensor>> {
    if context.on_host {
        let copy = |(source, ours): &(&plugin_api::Tensor, &Tensor)| {
            // SAFETY: the view is only read, by a copy that is done when the call returns.
            let view = unsafe { bridge::view_of(source.elements()?, &ours.size()) };
            view.and_then(|view| view.f_detach_copy()).map_err(torch_error)
        };
        return sources.iter().map(copy).collect();
    }
    let shapes: Vec<_> = sources.iter().map(|(_, ours)| ours.size()).collect();
    let fresh = flat::zeros(&shapes, context.device).map_err(torch_error)?;
    let copies: Vec<_> = fresh.iter().zip(sources.iter().map(|(source, _)| *source)).collect();
    upload_message(&copies, context)?;
    Ok(fresh)
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
