//! A checkpoint's `config.json`.

use plugin_api::JsonSchema;
use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

/// The largest size that a trunk may have anywhere.
pub(crate) const MAX_SIZE: i64 = 1 << 20;

/// The most blocks: the published trunks have 24 and 32.
pub(crate) const MAX_LAYERS: i64 = 1000;

/// The most weights of a trunk, 64 GiB of them: a file that asks for more is damaged.
const MAX_WEIGHTS: i128 = 1 << 34;

/// The keys of `config.json`, with their published names. The four sizes are required; the other defaults are those of the
/// published configuration class.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Architecture {
    /// Features per position.
    pub hidden_size: i64,
    /// Transformer blocks.
    pub num_hidden_layers: i64,
    /// Attention heads.
    pub num_attention_heads: i64,
    /// Nominal width of the feed-forward layer.
    pub intermediate_size: i64,
    /// The feed-forward layer's activation.
    #[serde(default, deserialize_with = "any_case", serialize_with = "published_case")]
    pub hidden_act: HiddenAct,
    /// Whether norms are RMSNorm, not LayerNorm.
    #[serde(default = "enabled")]
    pub rms_norm: bool,
    /// Whether a norm, `layer_norm_1`, follows the embedding.
    #[serde(default)]
    pub layer_norm_after_embedding: bool,
    /// Whether a norm, `layer_norm_2`, precedes the decoder.
    #[serde(default = "enabled")]
    pub layer_norm_before_last_layer: bool,
    /// Whether `q`, `k`, `v` and `wo` have biases.
    #[serde(default)]
    pub att_bias: bool,
    /// Whether the feed-forward layer has biases.
    #[serde(default)]
    pub ffn_bias: bool,
    /// The ε that norms add to the variance.
    #[serde(default = "norm_eps")]
    pub norm_eps: f64,
    /// The dropout probability in the blocks.
    #[serde(default)]
    pub dropout_prob: f64,
    /// The embedding's initial weights are uniform within this distance of 0.
    #[serde(default = "init_range")]
    pub embedding_init_range: f64,
    /// The linear layers' initial weights are uniform within this distance of 0.
    #[serde(default = "init_range")]
    pub decoder_init_range: f64,
    /// Tokens in the vocabulary.
    #[serde(default = "vocab_size")]
    pub vocab_size: i64,
    /// The padding token.
    #[serde(default)]
    pub pad_token_id: i64,
    /// The maximum number of tokens of a sequence.
    #[serde(default = "max_length")]
    pub max_length: i64,
    /// All other keys, which an export keeps.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// The feed-forward layer's activation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HiddenAct {
    /// SwiGLU (Shazeer 2020).
    #[default]
    SwiGlu,
    /// ReLU between two linear layers.
    Relu,
    /// The exact GELU between two linear layers.
    Gelu,
}

impl Architecture {
    /// That of AMPLIFY 120M, the smaller published trunk.
    pub fn published() -> Self {
        let others = json!({
            "model_type": "AMPLIFY", "architectures": ["AMPLIFY"],
            "unk_token_id": 1, "mask_token_id": 2, "bos_token_id": 3, "eos_token_id": 4,
        });
        Self {
            hidden_size: 640,
            num_hidden_layers: 24,
            num_attention_heads: 10,
            intermediate_size: 2560,
            hidden_act: HiddenAct::SwiGlu,
            rms_norm: true,
            layer_norm_after_embedding: false,
            layer_norm_before_last_layer: true,
            att_bias: false,
            ffn_bias: false,
            norm_eps: norm_eps(),
            dropout_prob: 0.0,
            embedding_init_range: init_range(),
            decoder_init_range: init_range(),
            vocab_size: vocab_size(),
            pad_token_id: 0,
            max_length: max_length(),
            others: others.as_object().cloned().unwrap_or_default(),
        }
    }

    /// About how many weights such a trunk has: those of its matrices.
    fn weights(&self) -> i128 {
        let [width, inner, layers, words] =
            [self.hidden_size, self.intermediate_size, self.num_hidden_layers, self.vocab_size].map(i128::from);
        layers * (4 * width * width + 2 * width * inner) + 2 * words * width
    }

    /// Checks that such a trunk can be built.
    ///
    /// # Errors
    /// One line that says why it cannot.
    pub fn check(&self) -> Result<(), String> {
        for (name, size) in [
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("vocab_size", self.vocab_size),
        ] {
            let most = if name == "num_hidden_layers" { MAX_LAYERS } else { MAX_SIZE };
            if !(1..=most).contains(&size) {
                return Err(format!("`{name}` must be between 1 and {most}, not {size}"));
            }
        }
        let weights = self.weights();
        if weights > MAX_WEIGHTS {
            return Err(format!(
                "the sizes are those of a trunk with {weights} weights; at most {MAX_WEIGHTS} are allowed"
            ));
        }
        if !(3..=MAX_SIZE).contains(&self.max_length) {
            return Err(format!("`max_length` must be between 3 and {}, not {}", MAX_SIZE, self.max_length));
        }
        if self.hidden_size % self.num_attention_heads != 0 || self.head_size() % 2 != 0 {
            return Err(format!(
                "`num_attention_heads` must divide `hidden_size` into parts of an even size; {} does not divide {} so",
                self.num_attention_heads, self.hidden_size
            ));
        }
        if !(0..self.vocab_size).contains(&self.pad_token_id) {
            return Err(format!("`pad_token_id` must be below `vocab_size`; {} is not", self.pad_token_id));
        }
        if !(0.0..1.0).contains(&self.dropout_prob) {
            return Err(format!("`dropout_prob` must be at least 0 and below 1, not {}", self.dropout_prob));
        }
        for (name, value) in [
            ("norm_eps", self.norm_eps),
            ("embedding_init_range", self.embedding_init_range),
            ("decoder_init_range", self.decoder_init_range),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(format!("`{name}` must be a finite number of at least 0, not {value}"));
            }
        }
        Ok(())
    }

    /// Features per attention head.
    pub fn head_size(&self) -> i64 {
        self.hidden_size / self.num_attention_heads
    }

    /// The width of SwiGLU: two thirds of the nominal width, rounded up to a multiple of 8. Its three matrices have as many
    /// weights as the two of a layer without gate.
    pub fn swiglu_size(&self) -> i64 {
        (2 * self.intermediate_size / 3 + 7) / 8 * 8
    }
}

pub(crate) fn enabled() -> bool {
    true
}
pub(crate) fn norm_eps() -> f64 {
    1e-5
}
pub(crate) fn init_range() -> f64 {
    0.02
}
fn vocab_size() -> i64 {
    27
}
pub(crate) fn max_length() -> i64 {
    2048
}

/// Reads any case, as the published code does.
fn any_case<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HiddenAct, D::Error> {
    let name = String::deserialize(deserializer)?;
    match name.to_lowercase().as_str() {
        "swiglu" => Ok(HiddenAct::SwiGlu),
        "relu" => Ok(HiddenAct::Relu),
        "gelu" => Ok(HiddenAct::Gelu),
        _ => Err(Error::invalid_value(Unexpected::Str(&name), &"`SwiGLU`, `relu` or `gelu`")),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn published_case<S: serde::Serializer>(act: &HiddenAct, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match act {
        HiddenAct::SwiGlu => "SwiGLU",
        HiddenAct::Relu => "relu",
        HiddenAct::Gelu => "gelu",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_config_is_unchanged_by_reading_and_writing() {
        let file = json!({
            "hidden_size": 640, "num_hidden_layers": 24, "num_attention_heads": 10, "intermediate_size": 2560,
            "hidden_act": "SwiGLU", "auto_map": { "AutoModel": "amplify.AMPLIFY" }, "norm_eps": 1e-5,
        });
        let read: Architecture = serde_json::from_value(file.clone()).unwrap();
        assert_eq!((read.check(), read.swiglu_size(), read.head_size()), (Ok(()), 1712, 64));
        let written = serde_json::to_value(&read).unwrap();
        for (key, value) in file.as_object().unwrap() {
            assert_eq!(&written[key], value, "{key}");
        }
        assert_eq!(serde_json::from_value::<Architecture>(written).unwrap(), read);
    }

    #[test]
    fn sizes_that_nobody_has_memory_for_are_refused() {
        let check = |layers: i64, width: i64| {
            let sizes = Architecture { num_hidden_layers: layers, hidden_size: width, ..Architecture::published() };
            sizes.check().unwrap_err()
        };
        assert!(check(1_000_000, 640).contains("`num_hidden_layers` must be between 1 and 1000"));
        assert!(check(100, 10_240).contains("weights; at most 17179869184 are allowed"), "{}", check(100, 10_240));
    }

    #[test]
    fn the_sizes_are_required() {
        let error = serde_json::from_value::<Architecture>(json!({ "hidden_size": 640 })).unwrap_err();
        assert!(error.to_string().contains("num_hidden_layers"));
    }
}
