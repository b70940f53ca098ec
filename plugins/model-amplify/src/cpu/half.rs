//! Products in bfloat16, by libtorch's: operands are rounded, sums are fp32, and the result is rounded once more, as under
//! PyTorch's autocast. Each piece of the result is computed by one thread, and the pieces are the same for any number of
//! threads, so that the number changes no bit.

use tch::{Device, Kind, Tensor};

use super::block::Layer;
use super::product::{Into, Rows, RowsMut};
use super::team::Team;
use crate::bridge;

/// How many rows of a product a thread computes at once: so many that what libtorch does for each product, whatever its
/// size, costs little.
const PIECE: i64 = 256;

/// Memory for the rounded operands and the result, used again from product to product.
#[derive(Debug, Default)]
pub(super) struct Scratch([Option<Tensor>; 3]);

impl Scratch {
    pub(super) fn product(
        &mut self,
        team: &Team,
        layer: Layer,
        mut out: RowsMut<'_>,
        into: Into,
        a: &Rows<'_>,
        b: &Rows<'_>,
    ) {
        let [a_memory, b_memory, out_memory] = &mut self.0;
        let round = |rows: &Rows<'_>, memory| {
            let (data, sizes, strides) = rows.layout();
            let rounded = like(memory, sizes);
            // SAFETY: `layout` describes a slice that is borrowed longer than this closure runs, and the view, which is
            // only read, is gone then.
            let exact =
                unsafe { bridge::view(data, &sizes, &strides) }.expect("libtorch has memory for a tensor's head");
            team.each(pieces([&rounded, &exact]), |[mut rounded, exact]| rounded.copy_(&exact));
            rounded
        };
        let (a, b) = (round(a, a_memory), round(b, b_memory));
        let (a, b) = match layer {
            Layer::Forward => (a, b.tr()),
            Layer::Input => (a, b),
            Layer::Weight => (a.tr(), b),
        };
        let (data, sizes, strides) = out.layout();
        let product = like(out_memory, sizes);
        // SAFETY: as above, but the slice is borrowed for writing, and nothing else reads or writes it.
        let out = unsafe { bridge::view(data, &sizes, &strides) }.expect("libtorch has memory for a tensor's head");
        let pieces = pieces([&a, &product, &out]).into_iter().map(|piece| (piece, b.shallow_clone()));
        team.each(pieces.collect(), |([a, product, mut out], b)| {
            let _ = a.mm_out(&product, &b);
            match into {
                Into::Set => out.copy_(&product),
                Into::Add => drop(out.g_add_(&product)),
            }
        });
    }
}

/// Matrices of the same number of rows, cut into pieces.
fn pieces<const N: usize>(all: [&Tensor; N]) -> Vec<[Tensor; N]> {
    let rows = all[0].size()[0];
    let piece = |first: i64| all.map(|matrix| matrix.narrow(0, first, PIECE.min(rows - first)));
    (0..rows).step_by(PIECE as usize).map(piece).collect()
}

/// A matrix of these sizes in memory that held another one.
fn like(memory: &mut Option<Tensor>, sizes: [i64; 2]) -> Tensor {
    let len = sizes[0] * sizes[1];
    if memory.as_ref().is_none_or(|memory| memory.size()[0] < len) {
        *memory = None;
    }
    let memory = memory.get_or_insert_with(|| Tensor::empty([len], (Kind::BFloat16, Device::Cpu)));
    memory.narrow(0, 0, len).view(sizes)
}
