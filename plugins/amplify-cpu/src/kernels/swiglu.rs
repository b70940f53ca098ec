//! SwiGLU (Shazeer 2020, equation 6): `SiLU(a) · b`, where a row of the first linear layer's output is `(a, b)`.

use super::{exp, vectorised};

/// `out ← SiLU(a) · b`. `out` is (rows, width), `gate_up` is (rows, 2 · width).
pub(crate) fn swiglu(out: &mut [f32], gate_up: &[f32], width: usize) {
    vectorised!(for row in 0..out.len() / width {
        let (a, b) = gate_up[2 * row * width..2 * (row + 1) * width].split_at(width);
        let out = &mut out[row * width..(row + 1) * width];
        for i in 0..width {
            out[i] = a[i] / (1.0 + exp(-a[i])) * b[i];
        }
    });
}

/// The derivative of [`swiglu`], in place: `gate_up` becomes the derivatives with respect to `(a, b)`, and `out`, which holds
/// the derivative with respect to the output, becomes the output.
pub(crate) fn swiglu_backward(gate_up: &mut [f32], out: &mut [f32], width: usize) {
    vectorised!(for row in 0..out.len() / width {
        let (a, b) = gate_up[2 * row * width..2 * (row + 1) * width].split_at_mut(width);
        let out = &mut out[row * width..(row + 1) * width];
        for i in 0..width {
            let sigmoid = 1.0 / (1.0 + exp(-a[i]));
            let (silu, d_out, up) = (a[i] * sigmoid, out[i], b[i]);
            out[i] = silu * up;
            a[i] = d_out * up * (sigmoid + silu * (1.0 - sigmoid));
            b[i] = d_out * silu;
        }
    });
}
