//! Products in bfloat16, by libtorch's: operands are rounded, sums are fp32, and the result is rounded once more, as under
//! PyTorch's autocast. Other than with fp32 the number of threads may change the last bits.

use tch::{Device, Kind, Tensor};

use super::block::Layer;
use super::product::{Into, Rows, RowsMut};

/// Memory for the rounded operands and the result, used again from product to product.
#[derive(Debug, Default)]
pub(super) struct Scratch([Option<Tensor>; 3]);

impl Scratch {
    pub(super) fn product(&mut self, layer: Layer, mut out: RowsMut<'_>, into: Into, a: &Rows<'_>, b: &Rows<'_>) {
        let [a_memory, b_memory, out_memory] = &mut self.0;
        let round = |rows: &Rows<'_>, memory| {
            let (data, sizes, strides) = rows.layout();
            let mut rounded = like(memory, sizes);
            rounded.copy_(&view(data.cast_mut(), sizes, strides));
            rounded
        };
        let (a, b) = (round(a, a_memory), round(b, b_memory));
        let (data, sizes, strides) = out.layout();
        let product = like(out_memory, sizes);
        let _ = match layer {
            Layer::Forward => a.mm_out(&product, &b.tr()),
            Layer::Input => a.mm_out(&product, &b),
            Layer::Weight => a.tr().mm_out(&product, &b),
        };
        let mut out = view(data, sizes, strides);
        match into {
            Into::Set => out.copy_(&product),
            Into::Add => drop(out.g_add_(&product)),
        }
    }
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

/// The memory of rows as a tensor, which must not outlive them.
fn view(data: *mut f32, sizes: [i64; 2], strides: [i64; 2]) -> Tensor {
    // SAFETY: `layout` gives the start, sizes and strides of a slice that is borrowed until `product` returns, for writing
    // where it is written to; no view leaves `product`, and none is read while another is written.
    unsafe { Tensor::from_blob(data.cast(), &sizes, &strides, Kind::Float, Device::Cpu) }
}
