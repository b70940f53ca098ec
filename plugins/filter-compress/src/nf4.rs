//! 4-bit NormalFloat.
//!
//! Dettmers, Pagnoni, Holtzman and Zettlemoyer, *QLoRA: Efficient Finetuning of Quantized LLMs*, NeurIPS 2023, section 3
//! and appendix E: 16 levels from −1 to 1, which are quantiles of the normal distribution and include 0.

/// The levels of the paper's appendix E.
pub(crate) const LEVELS: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// The midpoints between levels: an element above one is rounded up, all others down.
const BOUNDS: [f32; 15] = {
    let (mut bounds, mut i) = ([0.0; 15], 0);
    while i < 15 {
        bounds[i] = (LEVELS[i] + LEVELS[i + 1]) / 2.0;
        i += 1;
    }
    bounds
};

/// How many elements are encoded at a time.
const RUN: usize = 64;

/// Writes the index of the level nearest to `x / largest` for each element, the lower of two equally near. Two elements share
/// a byte, the first one in its lower four bits.
pub(crate) fn encode(block: &[f32], largest: f32, codes: &mut [u8]) {
    let divisor = if largest > 0.0 { largest } else { 1.0 };
    let mut levels = [0_i32; RUN];
    for (x, codes) in block.chunks(RUN).zip(codes.chunks_mut(RUN / 2)) {
        for (level, x) in levels.iter_mut().zip(x) {
            let x = x / divisor;
            *level = BOUNDS.iter().map(|&bound| i32::from(x > bound)).sum();
        }
        // With an odd number of elements, the last byte would contain a level of an earlier run.
        levels[x.len()..].fill(0);
        for (code, pair) in codes.iter_mut().zip(levels.as_chunks::<2>().0) {
            *code = (pair[0] | pair[1] << 4) as u8;
        }
    }
}

/// Writes the elements: each level times `largest`, the block's largest magnitude.
pub(crate) fn decode(codes: &[u8], largest: f32, block: &mut [f32]) {
    let levels = LEVELS.map(|level| level * largest);
    let level = |code: u8| levels[usize::from(code & 15)];
    let (pairs, last) = block.as_chunks_mut::<2>();
    for (pair, &code) in pairs.iter_mut().zip(codes) {
        *pair = [level(code), level(code >> 4)];
    }
    if let ([last], Some(&code)) = (last, codes.last()) {
        *last = level(code);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_levels_are_quantiles_of_the_normal_distribution() {
        let reference: serde_json::Value = serde_json::from_str(include_str!("../tests/reference.json")).unwrap();
        let computed = reference["nf4"].as_array().unwrap();
        assert_eq!(computed.len(), 16);
        for (level, computed) in LEVELS.iter().zip(computed) {
            // The paper's table was computed in f32: 2.0e-7 is the largest difference.
            assert!((f64::from(*level) - computed.as_f64().unwrap()).abs() < 2.5e-7, "{level} {computed}");
        }
    }

    #[test]
    fn levels_are_restored_for_any_length_and_midpoints_are_rounded_down() {
        for count in (1..200).chain([1024]) {
            let block: Vec<f32> = (0..count).map(|i| LEVELS[(i * 7 + count) % 16] * 3.0).collect();
            let mut codes = vec![0xff; block.len().div_ceil(2)];
            encode(&block, 3.0, &mut codes);
            let mut back = vec![f32::NAN; block.len()];
            decode(&codes, 3.0, &mut back);
            assert_eq!(back, block);
            assert!(count % 2 == 0 || codes[count / 2] < 16, "the last half byte must be 0");
        }
        let mut codes = [0; 8];
        encode(&[BOUNDS.as_slice(), &[1.0]].concat(), 1.0, &mut codes);
        assert_eq!(codes, [0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe]);
    }
}
