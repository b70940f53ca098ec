//! AdamW (Loshchilov and Hutter 2019, Algorithm 2) in the form that PyTorch documents for `torch.optim.AdamW`.

use super::vectorised;

/// The factors of a step `t` at a learning rate `lr` with weight decay `λ`.
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    /// `1 − β₁` and `1 − β₂`.
    pub new: [f32; 2],
    /// `1 − lr λ`.
    pub decay: f32,
    /// `ε √c₂`, with `c₂ = 1 − β₂ᵗ`.
    pub eps: f32,
    /// `−c₁ / (lr √c₂)`, with `c₁ = 1 − β₁ᵗ`; none if `lr` is 0, where only the moments change.
    pub divisor: Option<f32>,
}

/// `m ← m + (1 − β₁)(g − m)`, `v ← v + (1 − β₂)(g² − v)`, `p ← p (1 − lr λ) − lr (m / c₁) / (√(v / c₂) + ε)`.
///
/// All slices have the length of `p`.
pub fn adamw(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], step: AdamWStep) {
    let AdamWStep { new: [new1, new2], decay, eps, divisor } = step;
    let n = p.len();
    let (m, v, g) = (&mut m[..n], &mut v[..n], &g[..n]);
    vectorised!({
        for i in 0..n {
            m[i] += new1 * (g[i] - m[i]);
            v[i] += new2 * (g[i] * g[i] - v[i]);
            if let Some(divisor) = divisor {
                p[i] = p[i] * decay + m[i] / ((v[i].sqrt() + eps) * divisor);
            }
        }
    });
}
