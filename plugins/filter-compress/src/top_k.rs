//! Sparsification: the elements of largest magnitude of a tensor.

/// How many of `count` elements are sent: the nearest number to their fraction, and one at least.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "exact below 2^53 elements"
)]
pub(crate) fn how_many(count: usize, keep: f64) -> usize {
    ((keep * count as f64 + 0.5) as usize).clamp(1, count.max(1))
}

/// Takes the `k` elements of largest magnitude out of `owed`, in whose place stands 0 then, and gives their places and
/// values in the order of their places. Of equal magnitudes the first are taken; zeros are never.
pub(crate) fn take(owed: &mut [f32], k: usize) -> (Vec<u32>, Vec<f32>) {
    // Without the sign the bits of finite floats are in the order of their magnitudes.
    let bits = |x: f32| x.to_bits() & 0x7fff_ffff;
    let mut magnitudes: Vec<u32> = owed.iter().map(|&x| bits(x)).collect();
    let k = k.min(owed.len());
    if k == 0 {
        return (Vec::new(), Vec::new());
    }
    let (_, &mut least, above) = {
        let place = magnitudes.len() - k;
        magnitudes.select_nth_unstable(place)
    };
    let mut ties = if least == 0 { 0 } else { k - above.iter().filter(|&&x| x > least).count() };
    let (mut places, mut values) = (Vec::with_capacity(k), Vec::with_capacity(k));
    for (place, x) in (0_u32..).zip(owed.iter_mut()) {
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
        places.push(place);
        values.push(std::mem::take(x));
    }
    (places, values)
}
