//! The keys of the filter's table. The schema bounds values; [`Config::plan`] checks combinations of keys.

use plugin_api::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantizer::{Quantizer, SMALLEST_BLOCK};

/// The keys of the filter's table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// How tensors are encoded. Both ends must use the same method.
    pub method: Method,
    /// What is encoded. The default is `values` for `fp16` and `bf16`, and `update` for the others. `top-k` encodes only
    /// updates; messages to the clients have only values.
    #[serde(default)]
    pub of: Option<Quantity>,
    /// For `int8` and `nf4`: how many elements share a scale, from 16 to 1048576; even for `nf4`. The default is 4096 for
    /// `int8` and 64 for `nf4`.
    #[serde(default)]
    #[schemars(range(min = SMALLEST_BLOCK, max = 1_048_576))]
    pub block_size: Option<usize>,
    /// For `top-k`: the fraction of each tensor's elements to send, more than 0 and at most 1. The default is 0.01.
    #[serde(default)]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub keep: Option<f64>,
}

impl Config {
    /// The defaults of a method.
    pub fn new(method: Method) -> Self {
        Self { method, of: None, block_size: None, keep: None }
    }
}

/// How tensors are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// IEEE 754 binary16.
    Fp16,
    /// bfloat16.
    Bf16,
    /// 8-bit integers, with one scale per block.
    Int8,
    /// 4-bit NormalFloat, with one scale per block.
    Nf4,
    /// The elements with the largest magnitudes, with error feedback.
    TopK,
}

impl Method {
    /// The method's name in tables and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fp16 => "fp16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Nf4 => "nf4",
            Self::TopK => "top-k",
        }
    }
}

/// What is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Quantity {
    /// The difference from the global model of the round.
    Update,
    /// The tensors themselves.
    Values,
}

/// A checked configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Plan {
    Quantize(Quantizer, Quantity),
    TopK { keep: f64 },
}

impl Plan {
    pub(crate) fn of(self) -> Quantity {
        match self {
            Self::Quantize(_, of) => of,
            Self::TopK { .. } => Quantity::Update,
        }
    }
}

impl Config {
    /// Checks the configuration and resolves its defaults.
    ///
    /// # Errors
    /// If a key does not belong to the method; the error names it.
    pub(crate) fn plan(&self) -> Result<Plan> {
        let name = self.method.as_str();
        if self.keep.is_some() && self.method != Method::TopK {
            return Err(Error::config(format!("is only for `top-k`, but the method is `{name}`")).at_key("keep"));
        }
        if self.block_size.is_some() && !matches!(self.method, Method::Int8 | Method::Nf4) {
            let message = format!("is only for `int8` and `nf4`, but the method is `{name}`");
            return Err(Error::config(message).at_key("block-size"));
        }
        if self.method == Method::TopK {
            if self.of == Some(Quantity::Values) {
                let error = Error::config("`top-k` encodes only updates: of values, it would set all others to 0");
                return Err(error.at_key("of"));
            }
            return Ok(Plan::TopK { keep: self.keep.unwrap_or(0.01) });
        }
        let quantizer = Quantizer::new(self.method, self.block_size).map_err(|e| e.at_key("block-size"))?;
        let default = if quantizer.is_half() { Quantity::Values } else { Quantity::Update };
        Ok(Plan::Quantize(quantizer, self.of.unwrap_or(default)))
    }
}
