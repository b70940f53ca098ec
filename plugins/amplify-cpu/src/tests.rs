//! The derivative against finite differences, by Miri too.

use super::*;

const SIZE: usize = 8;
const INNER: usize = 6;
const HEADS: usize = 2;
const VOCABULARY: usize = 7;
const POSITIONS: usize = 8;

struct Slices(Vec<Vec<f32>>);

impl ParameterStore for Slices {
    fn values(&self, index: usize) -> Result<&[f32]> {
        Ok(&self.0[index])
    }
}

/// Values between -0.5 and 0.5.
fn values(len: usize, salt: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + salt * 104_729) % 101) as f32 / 101.0 - 0.5).collect()
}

fn model() -> (Encoder, Slices) {
    let mut all = Vec::new();
    let mut weight = |rows: usize, columns: usize| {
        let index = all.len();
        // Norms start near 1.
        let offset = if rows == 1 { 1.0 } else { 0.0 };
        all.push(values(rows * columns, index).into_iter().map(|x| x + offset).collect());
        Weight { index, rows, columns }
    };
    let embedding = weight(VOCABULARY, SIZE);
    let block = |_| BlockWeights {
        q: Layer { weight: weight(SIZE, SIZE), adapter: None },
        k: Layer { weight: weight(SIZE, SIZE), adapter: None },
        v: Layer { weight: weight(SIZE, SIZE), adapter: None },
        wo: Layer { weight: weight(SIZE, SIZE), adapter: None },
        w12: Layer { weight: weight(2 * INNER, SIZE), adapter: None },
        w3: Layer { weight: weight(SIZE, INNER), adapter: None },
        attention_norm: weight(1, SIZE),
        ffn_norm: weight(1, SIZE),
    };
    let blocks = (0..2).map(block).collect();
    let pairs = SIZE / HEADS / 2;
    let angle = |i: usize| (i / pairs) as f32 / 10_f32.powi((i % pairs) as i32);
    let rope_table = (0..POSITIONS * pairs).flat_map(|i| [angle(i).cos(), angle(i).sin()]).collect();
    (
        Encoder {
            embedding,
            blocks,
            rope_table,
            heads: HEADS,
            norm_eps: 1e-5,
            pad: 0,
            is_frozen: false,
            frozen_blocks: 0,
            checkpointing: false,
        },
        Slices(all),
    )
}

/// The sum of what is read, weighted with `d_read`.
fn loss(encoder: &Encoder, store: &Slices, batch: &PackedBatch, reading: &Reading, d_read: &[f32]) -> f64 {
    let mut workspace = Workspace::default();
    let mut resources = PassResources { pool: &threads::CALLING_THREAD, workspace: &mut workspace };
    let read = encoder.forward(store, batch, reading, &mut resources, false).unwrap();
    assert_eq!(read.len(), d_read.len());
    read.iter().zip(d_read).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn compare(padded: bool, reading: &Reading) {
    let (mut encoder, mut store) = model();
    let batch = PackedBatch::new(&[&[1, 2, 3, 4], &[5, 6]], 0, 5, padded).unwrap();
    let d_read = values(2 * SIZE, 1000);
    let pool = ThreadPool::new(2).unwrap();
    let mut workspace = Workspace::default();
    let mut gradients = |encoder: &Encoder| {
        let mut gradients = vec![Vec::new(); store.0.len()];
        let mut resources = PassResources { pool: &pool, workspace: &mut workspace };
        encoder.forward(&store, &batch, reading, &mut resources, true).unwrap();
        let on_gradient = |_: &mut Slices, index: usize, gradient: &mut [f32]| {
            gradients[index] = gradient.to_vec();
            Ok(())
        };
        encoder.backward(&mut store, &batch, reading, &mut resources, &d_read, on_gradient).unwrap();
        gradients
    };
    encoder.checkpointing = true;
    let recomputed = gradients(&encoder);
    encoder.checkpointing = false;
    let gradients = gradients(&encoder);
    assert_eq!(recomputed, gradients, "with activation checkpointing");
    let step = 1e-2;
    // Miri looks at memory, not at numbers, and is slow: one element will do.
    let (parameters, stride) = if cfg!(miri) { (1, usize::MAX) } else { (gradients.len(), 3) };
    for (index, gradient) in gradients.iter().enumerate().take(parameters) {
        // The padding token's embedding, the first row, gets no gradient.
        let first = if index == encoder.embedding.index { SIZE } else { 0 };
        assert!(gradient[..first].iter().all(|&d| d == 0.0));
        for element in (first..gradient.len()).step_by(stride) {
            let original = store.0[index][element];
            let mut at = |value: f32| {
                store.0[index][element] = value;
                loss(&encoder, &store, &batch, reading, &d_read)
            };
            let expected = (at(original + step) - at(original - step)) / f64::from(2.0 * step);
            store.0[index][element] = original;
            let found = f64::from(gradient[element]);
            assert!(
                (found - expected).abs() < 1e-3 + 1e-2 * expected.abs(),
                "parameter {index}, element {element}, padded: {padded}, {reading:?}: {found} is not {expected}"
            );
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    compare(false, &Reading::Pooled);
}

#[test]
fn gradients_with_padding_agree_with_finite_differences() {
    compare(true, &Reading::Pooled);
}

#[test]
fn gradients_of_hidden_states_agree_with_finite_differences() {
    compare(false, &Reading::Tokens(vec![1, 4]));
}

#[test]
fn rows_with_padding_tokens_and_empty_rows_are_not_packed() {
    assert!(PackedBatch::new(&[&[3, 0, 4]], 0, 8, false).is_none());
    assert!(PackedBatch::new(&[&[3], &[]], 0, 8, false).is_none());
}
