//! What an encoded message says of itself.

use std::collections::BTreeMap;

use plugin_api::{DType, Error, Message, Result, Tensor};
use serde::{Deserialize, Serialize};

use crate::config::{Method, Of};

/// Where it stands in [`Message::values`].
pub(crate) const KEY: &str = "compress";

/// The first parameter of every encoded message is NaN, under this name. A message that nobody restored is so refused by
/// whatever expects numbers, and the refusal, which names the tensor, says why.
pub(crate) const GUARD: &str = "encoded by the filter compress, which must restore it at the receiving end";

const VERSION: u64 = 1;

/// What is needed to restore a message.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Header {
    version: u64,
    pub(crate) method: Method,
    pub(crate) from: Side,
    /// Elements to a scale, where the method has scales.
    pub(crate) block_size: Option<usize>,
    /// The encoded ones of the parameters.
    pub(crate) params: BTreeMap<String, Entry>,
    /// The encoded ones of the other tensors.
    pub(crate) extra: BTreeMap<String, Entry>,
}

/// Which end of the way a filter stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Side {
    Client,
    Server,
}

/// What an encoded tensor was.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    dtype: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) of: Of,
}

impl Header {
    pub(crate) fn new(method: Method, from: Side, block_size: Option<usize>) -> Self {
        Self { version: VERSION, method, from, block_size, params: BTreeMap::new(), extra: BTreeMap::new() }
    }

    /// Takes the header out of an encoded message; a plain message has none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn take(message: &mut Message) -> Result<Option<Self>> {
        let Some(value) = message.values.shift_remove(KEY) else { return Ok(None) };
        let version = value.get("version").and_then(serde_json::Value::as_u64);
        if version != Some(VERSION) {
            let told = version.map_or("no version".to_owned(), |version| format!("version {version}"));
            let error =
                Error::other(format!("the encoded message has {told}, and this filter reads version {VERSION}"));
            return Err(error.help("both ends must use the same release of the filter"));
        }
        let header = serde_json::from_value(value);
        header.map(Some).map_err(|e| Error::other("the encoded message does not say how to restore it").because(&e))
    }

    /// Puts the header into an encoded message.
    ///
    /// # Errors
    /// Never; the serialiser asks for a result.
    pub(crate) fn put(&self, message: &mut Message) -> Result<()> {
        let value = serde_json::to_value(self).map_err(|e| Error::other("the header cannot be written").because(&e))?;
        message.values.insert(KEY.to_owned(), value);
        Ok(())
    }
}

impl Entry {
    pub(crate) fn new(tensor: &Tensor, of: Of) -> Self {
        Self { dtype: tensor.dtype().to_string(), shape: tensor.shape().to_vec(), of }
    }

    /// The type of the elements.
    ///
    /// # Errors
    /// If it is not a floating one.
    pub(crate) fn dtype(&self) -> Result<DType> {
        let floats = [DType::F32, DType::F64, DType::F16, DType::BF16];
        let known = floats.into_iter().find(|dtype| dtype.to_string() == self.dtype);
        known.ok_or_else(|| Error::other(format!("was sent as `{}`, which is no floating type", self.dtype)))
    }

    /// How many elements it has.
    ///
    /// # Errors
    /// If they are more than there is memory for.
    pub(crate) fn count(&self) -> Result<usize> {
        let bytes = self.shape.iter().try_fold(self.dtype()?.size(), |all, &n| all.checked_mul(n));
        if bytes.is_none() {
            return Err(Error::other(format!("was sent with the shape {:?}, which overflows", self.shape)));
        }
        Ok(self.shape.iter().product())
    }
}
