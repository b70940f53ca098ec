//! The header of encoded messages.

use std::collections::BTreeMap;

use plugin_api::{DType, Error, Message, Result, Tensor};
use serde::{Deserialize, Serialize};

use crate::config::{Method, Quantity};

/// The key of the header in [`Message::values`].
pub(crate) const KEY: &str = "compress";

/// The name of the first parameter of every encoded message, whose value is NaN. Whatever expects numbers therefore refuses a
/// message that was not restored, with an error that names this tensor.
pub(crate) const GUARD: &str = "encoded by the filter compress, which must restore it at the receiving end";

const VERSION: u64 = 1;

/// What a receiver needs to restore a message.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Header {
    version: u64,
    pub(crate) method: Method,
    pub(crate) from: Side,
    /// The number of elements per scale, if the method has scales.
    pub(crate) block_size: Option<usize>,
    /// The encoded parameters.
    pub(crate) params: BTreeMap<String, Entry>,
    /// The encoded tensors besides parameters.
    pub(crate) extra: BTreeMap<String, Entry>,
}

/// The end of the connection at which a filter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Side {
    Client,
    Server,
}

/// The original type and shape of an encoded tensor, and what was encoded.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    dtype: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) of: Quantity,
}

impl Header {
    pub(crate) fn new(method: Method, from: Side, block_size: Option<usize>) -> Self {
        Self { version: VERSION, method, from, block_size, params: BTreeMap::new(), extra: BTreeMap::new() }
    }

    /// Removes the header from an encoded message; `None` for a plain message.
    ///
    /// # Errors
    /// If the header is invalid or has another version.
    pub(crate) fn take(message: &mut Message) -> Result<Option<Self>> {
        let Some(value) = message.values.shift_remove(KEY) else { return Ok(None) };
        let version = value.get("version").and_then(serde_json::Value::as_u64);
        if version != Some(VERSION) {
            let found = version.map_or("no version".to_owned(), |version| format!("version {version}"));
            let error =
                Error::other(format!("the encoded message has {found}, but this filter reads version {VERSION}"));
            return Err(error.help("both ends must use the same release of the filter"));
        }
        let header = serde_json::from_value(value);
        header.map(Some).map_err(|e| Error::other("the header of the encoded message is invalid").because(&e))
    }

    /// Adds the header to an encoded message.
    ///
    /// # Errors
    /// Never; the serialiser's signature needs a result.
    pub(crate) fn put(&self, message: &mut Message) -> Result<()> {
        let value = serde_json::to_value(self).map_err(|e| Error::other("cannot serialise the header").because(&e))?;
        message.values.insert(KEY.to_owned(), value);
        Ok(())
    }
}

impl Entry {
    pub(crate) fn new(tensor: &Tensor, of: Quantity) -> Self {
        Self { dtype: tensor.dtype().to_string(), shape: tensor.shape().to_vec(), of }
    }

    /// The original element type.
    ///
    /// # Errors
    /// If it is not a floating-point type.
    pub(crate) fn dtype(&self) -> Result<DType> {
        let floats = [DType::F32, DType::F64, DType::F16, DType::BF16];
        let known = floats.into_iter().find(|dtype| dtype.to_string() == self.dtype);
        known.ok_or_else(|| Error::other(format!("was sent as `{}`, which is not a floating-point type", self.dtype)))
    }

    /// The number of elements.
    ///
    /// # Errors
    /// If their size in bytes overflows.
    pub(crate) fn count(&self) -> Result<usize> {
        let bytes = self.shape.iter().try_fold(self.dtype()?.size(), |all, &n| all.checked_mul(n));
        if bytes.is_none() {
            return Err(Error::other(format!("was sent with the shape {:?}, which overflows", self.shape)));
        }
        Ok(self.shape.iter().product())
    }
}
