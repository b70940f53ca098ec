//! The filter's table. Values keep to their bounds in the schema; what one key asks of another is checked in
//! [`Config::plan`].

use plugin_api::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantizer::{Quantizer, SMALLEST_BLOCK};

/// The keys of the filter's table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// How tensors are encoded. The tables of both ends must say the same.
    pub method: Method,
    /// What is encoded. The default is `values` for `fp16` and `bf16`, and `update` for the others. `top-k` has nothing
    /// but `update`; on the way to the clients there is nothing but `values`.
    #[serde(default)]
    pub of: Option<Of>,
    /// Of `int8` and `nf4`: how many elements share a scale, from 16 to 1048576, and for `nf4` an even number. The
    /// default is 4096 for `int8` and 64 for `nf4`.
    #[serde(default)]
    #[schemars(range(min = SMALLEST_BLOCK, max = 1_048_576))]
    pub block_size: Option<usize>,
    /// Of `top-k`: the fraction of each tensor's elements that is sent, more than 0 and at most 1. The default is 0.01.
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
    /// 8 bits, with one scale a block.
    Int8,
    /// 4-bit NormalFloat, with one scale a block.
    Nf4,
    /// The elements of largest magnitude, with error feedback.
    TopK,
}

impl Method {
    /// The word that stands for it in the table and in messages.
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
pub enum Of {
    /// The difference to the global model of the round.
    Update,
    /// The tensors themselves.
    Values,
}

/// What a table asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Plan {
    Quantize(Quantizer, Of),
    TopK { keep: f64 },
}

impl Plan {
    pub(crate) fn of(self) -> Of {
        match self {
            Self::Quantize(_, of) => of,
            Self::TopK { .. } => Of::Update,
        }
    }
}

impl Config {
    /// What the table asks for.
    ///
    /// # Errors
    /// If a key does not go with the method; the error names it.
    pub(crate) fn plan(&self) -> Result<Plan> {
        let name = self.method.as_str();
        if self.keep.is_some() && self.method != Method::TopK {
            return Err(Error::config(format!("belongs to `top-k`, and the method is `{name}`")).at_key("keep"));
        }
        if self.block_size.is_some() && !matches!(self.method, Method::Int8 | Method::Nf4) {
            let message = format!("belongs to `int8` and `nf4`, and the method is `{name}`");
            return Err(Error::config(message).at_key("block-size"));
        }
        if self.method == Method::TopK {
            if self.of == Some(Of::Values) {
                let error = Error::config("`top-k` of the values would set all others to 0: it is of the update alone");
                return Err(error.at_key("of"));
            }
            return Ok(Plan::TopK { keep: self.keep.unwrap_or(0.01) });
        }
        let quantizer = Quantizer::new(self.method, self.block_size).map_err(|e| e.at_key("block-size"))?;
        let default = if quantizer.is_half() { Of::Values } else { Of::Update };
        Ok(Plan::Quantize(quantizer, self.of.unwrap_or(default)))
    }
}
