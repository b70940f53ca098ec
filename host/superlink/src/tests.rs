//! Tests of several modules together, and of the codecs against what Python writes.

mod bundles;
mod clock;
mod codecs;
mod envelopes;
mod hostile;
mod npy;

use std::collections::HashMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

use crate::error::Error;
use crate::limits::Limits;
use crate::object::ObjectId;
use crate::parallel::Abort;
use crate::unpack::{FetchError, Fetcher, Pulled, Received};

/// What `python.py` wrote.
fn python() -> serde_json::Value {
    serde_json::from_str(include_str!("tests/python.json")).unwrap()
}

fn unbase64(value: &serde_json::Value) -> Vec<u8> {
    BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap()
}

/// The bytes of objects by id.
type Objects = HashMap<ObjectId, Bytes>;

/// Fetches a message from memory.
fn fetch(objects: &Objects, message: &str, limits: &Limits) -> Result<Received, Error> {
    let pull = |id: &ObjectId, _: Abort<'_>| Ok(objects.get(id).cloned().map_or(Pulled::Gone, Pulled::Object));
    let fetcher = Fetcher { pull: &pull, prepare: &|_| (), threads: 3, limits };
    fetcher.content(message, &|| false).map_err(|error| match error {
        FetchError::Gone => Error::Stopped,
        FetchError::Failed(error) => error,
    })
}
