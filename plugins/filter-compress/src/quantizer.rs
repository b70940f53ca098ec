//! The methods that encode every element: a tensor is cut into blocks, and a block becomes codes, with one scale where
//! the method has scales.
//!
//! The loops are over slices and have no branch in them, so that they vectorise on any machine.

use plugin_api::half::slice::HalfFloatSliceExt as _;
use plugin_api::half::{bf16, f16};
use plugin_api::{Error, Result};

use crate::config::Method;
use crate::nf4;

/// Elements that are encoded at a time where the method has no blocks.
const CHUNK: usize = 4096;

/// Below it scales would take as much as codes.
pub(crate) const SMALLEST_BLOCK: usize = 16;

/// 1.5 · 2²³: the floats around it are the integers, so that to add it rounds to the nearest one, ties to even.
const ROUNDING: f32 = 12_582_912.0;

/// A block whose largest magnitude is below this would have a scale that is not a normal number; it is sent as zeros.
pub(crate) const INT8_SMALLEST: f32 = 127.0 * f32::MIN_POSITIVE;

/// The largest scale of which 127 times is finite.
const INT8_LARGEST: f32 = f32::from_bits((f32::MAX / 127.0).to_bits() - 1);

/// The first magnitude that fp16 rounds to infinity.
const FP16_END: f32 = 65_520.0;

/// The first magnitude that bf16 rounds to infinity.
const BF16_END: f32 = f32::from_bits(0x7f7f_8000);

/// A method that encodes every element, with its block size.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Quantizer {
    Fp16,
    Bf16,
    Int8 { block: usize },
    Nf4 { block: usize },
}

impl Quantizer {
    /// # Errors
    /// If `top-k` is asked for, or the block size cannot be.
    pub(crate) fn new(method: Method, block_size: Option<usize>) -> Result<Self> {
        let block = |default: usize| match block_size.unwrap_or(default) {
            small if small < SMALLEST_BLOCK => {
                Err(Error::config(format!("must be at least {SMALLEST_BLOCK}, not {small}")))
            }
            block => Ok(block),
        };
        match method {
            Method::Fp16 => Ok(Self::Fp16),
            Method::Bf16 => Ok(Self::Bf16),
            Method::Int8 => Ok(Self::Int8 { block: block(4096)? }),
            Method::Nf4 => match block(64)? {
                // Two codes share a byte, and a block shall begin with one.
                odd if odd % 2 == 1 => Err(Error::config(format!("must be even for `nf4`, not {odd}"))),
                block => Ok(Self::Nf4 { block }),
            },
            Method::TopK => Err(Error::config("`top-k` has no blocks")),
        }
    }

    pub(crate) fn is_half(self) -> bool {
        matches!(self, Self::Fp16 | Self::Bf16)
    }

    /// The block size, where the method has blocks.
    pub(crate) fn block_size(self) -> Option<usize> {
        match self {
            Self::Fp16 | Self::Bf16 => None,
            Self::Int8 { block } | Self::Nf4 { block } => Some(block),
        }
    }

    /// How many elements are encoded at a time.
    pub(crate) fn step(self) -> usize {
        self.block_size().unwrap_or(CHUNK)
    }

    /// How many scales `count` elements have.
    pub(crate) fn scales(self, count: usize) -> usize {
        self.block_size().map_or(0, |block| count.div_ceil(block))
    }

    /// How many bytes the codes of `count` elements take.
    pub(crate) fn code_bytes(self, count: usize) -> usize {
        match self {
            Self::Fp16 | Self::Bf16 => 2 * count,
            Self::Int8 { .. } => count,
            Self::Nf4 { .. } => count.div_ceil(2),
        }
    }

    /// Writes a block's codes and gives its scale. No element is larger than `largest` in magnitude, or not finite.
    ///
    /// # Errors
    /// If an element is too large for the method.
    pub(crate) fn encode(self, block: &[f32], largest: f32, codes: &mut [u8]) -> Result<f32> {
        match self {
            Self::Fp16 => {
                fits(largest, FP16_END, "fp16 ends at 65504", "`bf16` has the range of f32")?;
                bytemuck::cast_slice_mut::<u8, f16>(codes).convert_from_f32_slice(block);
                Ok(0.0)
            }
            Self::Bf16 => {
                fits(largest, BF16_END, "bf16 ends at 3.3895e38", "`int8` has the range of f32")?;
                let codes: &mut [u16] = bytemuck::cast_slice_mut(codes);
                for (code, x) in codes.iter_mut().zip(block) {
                    // To the nearest, ties to even: the carry of what is cut off goes where it belongs.
                    let bits = x.to_bits();
                    *code = ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
                }
                Ok(0.0)
            }
            Self::Int8 { .. } => {
                if largest < INT8_SMALLEST {
                    codes.fill(0);
                    return Ok(0.0);
                }
                let scale = (largest / 127.0).min(INT8_LARGEST);
                for (code, x) in codes.iter_mut().zip(block) {
                    *code = (x / scale + ROUNDING).to_bits().wrapping_sub(ROUNDING.to_bits()) as u8;
                }
                Ok(scale)
            }
            Self::Nf4 { .. } => {
                nf4::encode(block, largest, codes);
                Ok(largest)
            }
        }
    }

    /// Writes the elements of a block.
    pub(crate) fn decode(self, codes: &[u8], scale: f32, block: &mut [f32]) {
        match self {
            Self::Fp16 => bytemuck::cast_slice::<u8, f16>(codes).convert_to_f32_slice(block),
            Self::Bf16 => bytemuck::cast_slice::<u8, bf16>(codes).convert_to_f32_slice(block),
            Self::Int8 { .. } => {
                for (x, code) in block.iter_mut().zip(codes) {
                    *x = f32::from(code.cast_signed()) * scale;
                }
            }
            Self::Nf4 { .. } => nf4::decode(codes, scale, block),
        }
    }
}

fn fits(largest: f32, end: f32, message: &str, help: &str) -> Result<()> {
    if largest < end {
        return Ok(());
    }
    let message = format!("holds a magnitude of {largest:e}, and {message}");
    Err(Error::new(plugin_api::ErrorKind::Tensor, message).help(help))
}

/// The largest magnitude of a block; infinity or NaN if an element is.
pub(crate) fn largest(block: &[f32]) -> f32 {
    // Without the sign the bits are in the order of the magnitudes, NaN last; as signed integers they compare faster.
    let bits = |x: &f32| (x.to_bits() & 0x7fff_ffff).cast_signed();
    f32::from_bits(block.iter().map(bits).fold(0, i32::max).cast_unsigned())
}
