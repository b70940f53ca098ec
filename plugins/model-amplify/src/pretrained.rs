//! The key `pretrained`.

use std::fmt;

use plugin_api::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use crate::architecture::{self, Architecture, HiddenAct};

/// The source of the trunk.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub enum Pretrained {
    /// A folder in the published format, or a model on the hub.
    Named(#[schemars(length(min = 1), extend("format" = "path-or-name"))] String),
    /// A trunk with random weights.
    Random(RandomTrunk),
}

/// The sizes and switches of a trunk with random weights. Defaults are those of the published checkpoints.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RandomTrunk {
    /// Features per position.
    #[schemars(range(min = 1, max = architecture::MAX_SIZE))]
    hidden_size: i64,
    /// Transformer blocks.
    #[schemars(range(min = 1, max = architecture::MAX_LAYERS))]
    layers: i64,
    /// Attention heads. `hidden-size / heads` must be an even whole number.
    #[schemars(range(min = 1, max = architecture::MAX_SIZE))]
    heads: i64,
    /// Nominal width of the feed-forward layer; SwiGLU uses two thirds of it.
    #[schemars(range(min = 1, max = architecture::MAX_SIZE))]
    intermediate_size: i64,
    /// The feed-forward layer's activation.
    #[serde(default)]
    hidden_act: HiddenAct,
    /// Whether norms are RMSNorm, not LayerNorm.
    #[serde(default = "architecture::enabled")]
    rms_norm: bool,
    /// Whether a norm follows the embedding.
    #[serde(default)]
    layer_norm_after_embedding: bool,
    /// Whether a norm precedes the decoder.
    #[serde(default = "architecture::enabled")]
    layer_norm_before_last_layer: bool,
    /// Whether the attention's linear layers have biases.
    #[serde(default)]
    att_bias: bool,
    /// Whether the feed-forward layer has biases.
    #[serde(default)]
    ffn_bias: bool,
    /// The ε that norms add to the variance.
    #[serde(default = "architecture::norm_eps")]
    #[schemars(range(min = 0.0))]
    norm_eps: f64,
    /// The maximum number of tokens of a sequence, with `<bos>` and `<eos>`.
    #[serde(default = "architecture::max_length")]
    #[schemars(range(min = 3, max = architecture::MAX_SIZE))]
    max_length: i64,
    /// The dropout probability in the trunk.
    #[serde(default)]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    dropout_prob: f64,
    /// The embedding's initial weights are uniform within this distance of 0.
    #[serde(default = "architecture::init_range")]
    #[schemars(range(min = 0.0))]
    embedding_init_range: f64,
    /// The linear layers' initial weights are uniform within this distance of 0.
    #[serde(default = "architecture::init_range")]
    #[schemars(range(min = 0.0))]
    decoder_init_range: f64,
}

impl RandomTrunk {
    pub(crate) fn architecture(&self) -> Architecture {
        Architecture {
            hidden_size: self.hidden_size,
            num_hidden_layers: self.layers,
            num_attention_heads: self.heads,
            intermediate_size: self.intermediate_size,
            hidden_act: self.hidden_act,
            rms_norm: self.rms_norm,
            layer_norm_after_embedding: self.layer_norm_after_embedding,
            layer_norm_before_last_layer: self.layer_norm_before_last_layer,
            att_bias: self.att_bias,
            ffn_bias: self.ffn_bias,
            norm_eps: self.norm_eps,
            max_length: self.max_length,
            dropout_prob: self.dropout_prob,
            embedding_init_range: self.embedding_init_range,
            decoder_init_range: self.decoder_init_range,
            ..Architecture::published()
        }
    }
}

/// By hand, since serde's errors for untagged enums say only that nothing matched.
impl<'de> Deserialize<'de> for Pretrained {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PretrainedVisitor;
        impl<'de> Visitor<'de> for PretrainedVisitor {
            type Value = Pretrained;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a folder, a model on the hub, or a table with `hidden-size`, `layers`, `heads` and `intermediate-size`",
                )
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Pretrained, E> {
                if name.is_empty() {
                    return Err(E::invalid_value(Unexpected::Str(name), &self));
                }
                Ok(Pretrained::Named(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Pretrained, A::Error> {
                let trunk = RandomTrunk::deserialize(MapAccessDeserializer::new(map))?;
                trunk.architecture().check().map_err(A::Error::custom)?;
                Ok(Pretrained::Random(trunk))
            }
        }
        deserializer.deserialize_any(PretrainedVisitor)
    }
}
