//! About what a training step takes of a GPU, so that a run says so before the GPU runs out of memory.

use bytesize::ByteSize;

use crate::architecture::{Architecture, HiddenAct};
use crate::config::{Config, Precision};

/// About the bytes that libtorch takes for a training step on `rows` sequences, padded to `length` tokens: what each block
/// keeps for the backward pass, and as much as two blocks for what is in work. Heads take little.
pub(crate) fn activation_bytes(a: &Architecture, config: &Config, rows: usize, length: usize) -> u64 {
    let [size, inner, intermediate, heads, layers] =
        [a.hidden_size, a.swiglu_size(), a.intermediate_size, a.num_attention_heads, a.num_hidden_layers]
            .map(|n| n.max(0) as u64);
    let (tokens, frozen) = (rows as u64 * length as u64, config.frozen_layers as u64);
    if config.frozen_trunk {
        return 0;
    }
    let element = if matches!(config.precision, Precision::Bf16 | Precision::Bf16Residual) { 2 } else { 4 };
    let ffn = match a.hidden_act {
        // What SiLU and its product with the other half read, and what `w3` reads.
        HiddenAct::SwiGlu => 4 * inner,
        HiddenAct::Relu | HiddenAct::Gelu => 2 * intermediate,
    };
    // What both norms read and what they scale, in fp32. What `q`, `k` and `v` read; attention's three inputs and its output;
    // what `wo` and the feed-forward layer read.
    let mut block = 4 * 4 * size + element * (7 * size + ffn);
    if a.dropout_prob > 0.0 {
        // The probabilities, their mask and their product; the masks of both outputs.
        block += 4 * (3 * heads * length as u64 + 2 * size);
    }
    let (blocks, at_work) = (layers.saturating_sub(frozen), 2);
    if config.activation_checkpointing {
        // Each block's input, and a block that is computed again.
        return tokens * (blocks * 4 * size + (at_work + 1) * block);
    }
    tokens * (blocks + at_work) * block
}

/// A sentence if a step needs more than is free.
pub(crate) fn shortage(device: &str, rows: usize, length: usize, needed: u64, free: u64) -> Option<String> {
    let [needs, has] = [needed, free].map(|bytes| ByteSize(bytes).display().iec());
    (needed > free).then(|| {
        format!(
            "device `{device}`: a step on {rows} sequences of up to {length} tokens takes about {needs}, and {has} are \
             free; lower `batch-size` in `[model]`, or `clients-per-device` in `[federation]`"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn needed(changes: &Value, rows: usize) -> f64 {
        let mut config = json!({ "pretrained": "x" });
        config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let config: Config = serde_json::from_value(config).unwrap();
        activation_bytes(&Architecture::published(), &config, rows, 240) as f64 / 2_f64.powi(30)
    }

    /// 13,888 numbers a token and block. On a CPU, a process took 613 MiB more for 36 rows than for 4 with a trunk of 12 layers
    /// and 64 features, where this gives 577.
    #[test]
    fn a_batch_of_120m_takes_what_its_saved_tensors_add_up_to() {
        let expected = 64.0 * 240.0 * 26.0 * 13_888.0 * 4.0 / 2_f64.powi(30);
        assert!((needed(&json!({}), 64) - expected).abs() < 1e-6, "{}", needed(&json!({}), 64));
        assert!((20.0..21.0).contains(&expected), "{expected}");
        assert!((needed(&json!({ "frozen-layers": 12 }), 64) - expected * 14.0 / 26.0).abs() < 1e-6);
        let half = needed(&json!({ "precision": "bf16" }), 64) / expected;
        assert!((0.5..0.6).contains(&half), "{half}");
        assert_eq!(needed(&json!({ "frozen-trunk": true }), 64), 0.0);
        let inputs = 64.0 * 240.0 * (24.0 * 640.0 + 3.0 * 13_888.0) * 4.0 / 2_f64.powi(30);
        assert!((needed(&json!({ "activation-checkpointing": true }), 64) - inputs).abs() < 1e-6);
    }

    #[test]
    fn a_shortage_names_the_keys_that_help() {
        assert_eq!(shortage("cuda:0", 64, 240, 5, 5), None);
        let sentence = shortage("cuda:0", 64, 240, 3 << 30, 1 << 30).unwrap();
        assert_eq!(
            sentence,
            "device `cuda:0`: a step on 64 sequences of up to 240 tokens takes about 3.0 GiB, and 1.0 GiB are free; lower \
             `batch-size` in `[model]`, or `clients-per-device` in `[federation]`"
        );
    }
}
