//! The methods that encode every element. A tensor is divided into blocks; a block becomes codes and, for some methods, a
//! scale.
//!
//! The loops over slices have no branches, so that the compiler vectorises them.

use plugin_api::half::slice::HalfFloatSliceExt as _;
use plugin_api::half::{bf16, f16};
use plugin_api::{Error, Result};

use crate::config::Method;
use crate::nf4;

/// How many elements are encoded at a time if the method has no blocks.
const CHUNK: usize = 4096;

/// The smallest block size: in smaller blocks, scales would take as many bytes as codes.
pub(crate) const SMALLEST_BLOCK: usize = 16;

/// 1.5 · 2²³. Floats of this magnitude are integers, so adding it rounds to the nearest integer, ties to even.
const ROUNDING: f32 = 12_582_912.0;

/// A block with a smaller largest magnitude is sent as zeros, since its scale would be subnormal.
pub(crate) const INT8_SMALLEST: f32 = 127.0 * f32::MIN_POSITIVE;

/// The largest scale for which 127 times the scale is finite.
const INT8_LARGEST: f32 = f32::from_bits((f32::MAX / 127.0).to_bits() - 1);

/// The smallest magnitude that fp16 rounds to infinity.
const FP16_END: f32 = 65_520.0;

/// The smallest magnitude that bf16 rounds to infinity.
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
    /// If the method is `top-k`, or the block size is invalid.
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
                // Two codes share a byte, and each block begins with a new byte.
                odd if odd % 2 == 1 => Err(Error::config(format!("must be even for `nf4`, not {odd}"))),
                block => Ok(Self::Nf4 { block }),
            },
            Method::TopK => Err(Error::config("`top-k` has no blocks")),
        }
    }

    pub(crate) fn is_half(self) -> bool {
        matches!(self, Self::Fp16 | Self::Bf16)
    }

    /// The block size, if the method has blocks.
    pub(crate) fn block_size(self) -> Option<usize> {
        match self {
            Self::Fp16 | Self::Bf16 => None,
            Self::Int8 { block } | Self::Nf4 { block } => Some(block),
        }
    }

    /// How many elements are encoded at a time.
    pub(crate) fn chunk_len(self) -> usize {
        self.block_size().unwrap_or(CHUNK)
    }

    /// The number of scales of `count` elements.
    pub(crate) fn scale_count(self, count: usize) -> usize {
        self.block_size().map_or(0, |block| count.div_ceil(block))
    }

    /// The number of bytes of the codes of `count` elements.
    pub(crate) fn code_bytes(self, count: usize) -> usize {
        match self {
            Self::Fp16 | Self::Bf16 => 2 * count,
            Self::Int8 { .. } => count,
            Self::Nf4 { .. } => count.div_ceil(2),
        }
    }

    /// Writes a block's codes and returns its scale, 0 if the method has none. `largest` is the largest magnitude of the
    /// block, which must be finite.
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
                    // Rounds to the nearest, ties to even; a carry into the exponent is correct too.
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

    /// Writes the elements of a block, given its codes and scale.
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
    let message = format!("has a magnitude of {largest:e}, but {message}");
    Err(Error::new(plugin_api::ErrorKind::Tensor, message).help(help))
}

/// The largest magnitude of a block; not finite if an element is not finite.
pub(crate) fn largest(block: &[f32]) -> f32 {
    // Without the sign, bits are ordered like magnitudes, with NaN last; signed integers compare faster.
    let bits = |x: &f32| (x.to_bits() & 0x7fff_ffff).cast_signed();
    f32::from_bits(block.iter().map(bits).fold(0, i32::max).cast_unsigned())
}
