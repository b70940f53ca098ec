//! Sparsification: the elements of a tensor with the largest magnitudes.

/// How many of `count` elements are sent: the fraction `keep`, rounded, but at least one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "exact below 2^53 elements"
)]
pub(crate) fn kept_count(count: usize, keep: f64) -> usize {
    ((keep * count as f64 + 0.5) as usize).clamp(1, count.max(1))
}

/// Replaces the `k` elements of `owed` with the largest magnitudes by 0, and returns their ascending indices and their values.
/// Of equal magnitudes, the first are taken; zeros are never taken.
pub(crate) fn take_largest(owed: &mut [f32], k: usize) -> (Vec<u32>, Vec<f32>) {
    // Without the sign, bits of finite floats are ordered like magnitudes.
    let bits = |x: f32| x.to_bits() & 0x7fff_ffff;
    let mut magnitudes: Vec<u32> = owed.iter().map(|&x| bits(x)).collect();
    let k = k.min(owed.len());
    if k == 0 {
        return (Vec::new(), Vec::new());
    }
    let (_, &mut least, above) = {
        let rank = magnitudes.len() - k;
        magnitudes.select_nth_unstable(rank)
    };
    let mut ties = if least == 0 { 0 } else { k - above.iter().filter(|&&x| x > least).count() };
    let (mut indices, mut values) = (Vec::with_capacity(k), Vec::with_capacity(k));
    for (index, x) in (0_u32..).zip(owed.iter_mut()) {
        let magnitude = bits(*x);
        if magnitude < least {
            continue;
        }
        if magnitude == least {
            if ties == 0 {
                continue;
            }
            ties -= 1;
        }
        indices.push(index);
        values.push(std::mem::take(x));
    }
    (indices, values)
}
