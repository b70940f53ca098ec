//! Calls over Flower's SuperLink.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fedplug_superlink::{
    Array, CallError, Connection, Content, DType as Wire, Error, Event, Peer, Policy, Record, Request, Server,
    ServerOptions, Value,
};
use indexmap::IndexMap;
use plugin_api::{Buffer, DType, Level, Params, Tensor};

use crate::error::{CliError, Diagnostic};
use crate::sites::flower_client::{FlowerTransport, PlainOrder};
use crate::sites::protocol::Payload;
use crate::sites::transport::{Parcel, Transport, TransportError};

/// The record with the JSON part of a call or a reply.
const BODY: &str = "fedplug";
/// The record with a message's parameters.
const PARAMS: &str = "arrays";
/// The record with a message's other tensors.
const EXTRA: &str = "extra";
/// A longer JSON part travels as an array, in pieces.
const MOST_TEXT: usize = 1 << 20;

const TYPES: [(DType, Wire); 8] = [
    (DType::F32, Wire::F32),
    (DType::F64, Wire::F64),
    (DType::F16, Wire::F16),
    (DType::BF16, Wire::BF16),
    (DType::I64, Wire::I64),
    (DType::I32, Wire::I32),
    (DType::I8, Wire::I8),
    (DType::U8, Wire::U8),
];

/// A tensor's memory, which is sent without a copy.
struct Shared(Buffer);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

/// The records of a call or a reply.
///
/// # Errors
/// If a tensor has a type that cannot travel.
pub(crate) fn pack(payload: &Payload) -> Result<Content, String> {
    let mut content = Content::new();
    let text = payload.body.to_string();
    if text.len() <= MOST_TEXT {
        content.insert(BODY.to_owned(), Record::Config([("body".to_owned(), Value::Text(text))].into_iter().collect()));
    } else {
        let shape = vec![text.len() as u64];
        let array = Array::new(Wire::U8, shape, Bytes::from(text)).map_err(|e| e.to_string())?;
        content.insert(BODY.to_owned(), Record::Arrays([("body".to_owned(), array)].into_iter().collect()));
    }
    for (name, params) in [(PARAMS, &payload.params), (EXTRA, &payload.extra)] {
        if !params.is_empty() {
            content.insert(name.to_owned(), Record::Arrays(arrays(params)?));
        }
    }
    Ok(content)
}

/// Parameters as arrays.
///
/// # Errors
/// If a tensor has a type that cannot travel.
pub(super) fn arrays(params: &Params) -> Result<IndexMap<String, Array>, String> {
    let array = |(name, tensor): (&str, &Tensor)| {
        let wire = TYPES.iter().find(|(dtype, _)| *dtype == tensor.dtype()).map(|(_, wire)| *wire);
        let wire = wire.ok_or_else(|| format!("tensor `{name}`: {} cannot travel", tensor.dtype()))?;
        let shape = tensor.shape().iter().map(|&side| side as u64).collect();
        let data = Bytes::from_owner(Shared(tensor.buffer().clone()));
        Array::new(wire, shape, data).map(|array| (name.to_owned(), array)).map_err(|e| format!("tensor `{name}`: {e}"))
    };
    params.iter().map(array).collect()
}

/// Reads the records of a call or a reply.
///
/// # Errors
/// If they are none.
pub(crate) fn unpack(mut content: Content) -> Result<Payload, String> {
    let malformed = || "a message between server and site is malformed".to_owned();
    let body = match content.shift_remove(BODY) {
        Some(Record::Config(values)) => values.get("body").and_then(Value::as_text).map(serde_json::from_str),
        Some(Record::Arrays(arrays)) => arrays.get("body").map(|array| serde_json::from_slice(array.data())),
        _ => None,
    };
    let body = body.and_then(Result::ok).ok_or_else(malformed)?;
    let mut tensors = |name: &str| match content.shift_remove(name) {
        None => Ok(Params::new()),
        Some(Record::Arrays(arrays)) => arrays.into_iter().map(|(name, array)| tensor(name, array)).collect(),
        Some(_) => Err(malformed()),
    };
    Ok(Payload { body, params: tensors(PARAMS)?, extra: tensors(EXTRA)? })
}

/// An array as a tensor, without a copy.
///
/// # Errors
/// If no tensor has its type or shape.
pub(super) fn tensor(name: String, array: Array) -> Result<(String, Tensor), String> {
    let (wire, shape, data) = array.into_parts();
    let dtype = TYPES.iter().find(|(_, known)| *known == wire).map(|(dtype, _)| *dtype);
    let dtype = dtype.ok_or_else(|| format!("tensor `{name}`: {} is no type of a tensor", wire.name()))?;
    let shape = shape.iter().map(|&side| usize::try_from(side)).collect::<Result<Vec<_>, _>>();
    let shape = shape.map_err(|_| format!("tensor `{name}`: its shape is too large"))?;
    // SAFETY: the bytes are initialised, are not written to, and do not move while `data` lives.
    let buffer = unsafe { Buffer::from_owner(data.as_ptr(), data.len(), data) };
    let tensor = Tensor::new(dtype, &shape, buffer).map_err(|e| format!("tensor `{name}`: {e}"))?;
    Ok((name, tensor))
}

/// How to reach a SuperLink.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// Its address.
    pub url: String,
    /// The certificate authority to trust.
    pub ca: Option<PathBuf>,
    /// Whether to send in the clear to another machine.
    pub insecure: bool,
}

impl Link {
    /// The connection.
    pub(crate) fn connection(&self) -> Connection {
        Connection { ca: self.ca.clone(), insecure: self.insecure, ..Connection::new(&self.url) }
    }
}

/// An error of the SuperLink as a report.
pub(crate) fn report(error: &Error) -> Diagnostic {
    let text = error.to_string();
    let mut lines = text.split("\nhint: ");
    let report = Diagnostic::new(lines.next().unwrap_or_default());
    lines.fold(report, Diagnostic::hint)
}

/// How important an event is for a log.
pub(crate) fn level(event: &Event) -> Level {
    match event {
        Event::Forged { .. } | Event::Unreachable { .. } | Event::RunLost { .. } | Event::NodeLost => Level::Warn,
        Event::UntriedVersion { .. } | Event::RegistrationRefused { .. } | Event::Dropped { .. } => Level::Warn,
        Event::SiteOnline { .. } | Event::SiteAway { .. } | Event::Reconnected { .. } => Level::Info,
        Event::RunResumed { .. } | Event::Registered { .. } | Event::SendAgain { .. } => Level::Info,
        _ => Level::Debug,
    }
}

/// Calls sites over a SuperLink.
pub(crate) struct SuperLink {
    server: Server,
}

/// What a run on the SuperLink needs.
pub(crate) struct RunOptions {
    /// How to reach the SuperLink.
    pub link: Link,
    /// The run's name.
    pub title: String,
    /// A folder for what must survive this process.
    pub state: PathBuf,
    /// What runs at each site, with the fingerprint of its key.
    pub sites: BTreeMap<String, Peer>,
    /// The bundle with the app of plain Flower clients.
    pub bundle: Option<Vec<u8>>,
    /// How long to wait for a site that is away.
    pub away: Option<Duration>,
    /// The secret of the SuperLink, if it has one.
    pub secret: Option<Vec<u8>>,
}

impl SuperLink {
    /// Makes a run on the SuperLink, or continues the one of the state folder.
    ///
    /// # Errors
    /// If the SuperLink cannot be reached or refuses.
    pub(crate) fn open(
        options: RunOptions,
        log: impl Fn(Level, &str) + Send + Sync + 'static,
    ) -> Result<Self, CliError> {
        let RunOptions { link, title, state, sites, bundle, away, secret } = options;
        let mut options = ServerOptions::new(link.connection(), title, state, sites);
        options.policy = Policy { away, ..Policy::default() };
        options.secret = secret;
        options.bundle = bundle;
        let observer = Arc::new(move |event: &Event| log(level(event), &event.to_string()));
        let server = Server::open(options, observer).map_err(|error| CliError::run(report(&error)))?;
        Ok(Self { server })
    }

    /// The names of the sites that are not online.
    ///
    /// # Errors
    /// If the SuperLink cannot be asked.
    pub(crate) fn missing(&self) -> Result<Vec<String>, CliError> {
        let sites = self.server.sites().map_err(|error| CliError::run(report(&error)))?;
        Ok(sites.into_iter().filter(|site| !site.online).map(|site| site.name).collect())
    }

    /// Ends the run, for all to see.
    ///
    /// # Errors
    /// If the SuperLink cannot be reached.
    pub(crate) fn finish(self, completed: bool, details: &str) -> Result<(), CliError> {
        self.server.finish(completed, details).map_err(|error| CliError::run(report(&error)))
    }
}

impl Transport for SuperLink {
    fn call(
        &self,
        parcel: Parcel<'_>,
        cancelled: &(dyn Fn() -> bool + Sync),
        admit: &dyn Fn(),
    ) -> Result<Payload, TransportError> {
        let Parcel { site, what, key, payload } = parcel;
        let content = pack(&payload).map_err(TransportError::Failed)?;
        drop(payload);
        let kind = match what {
            "train" => "train.fedplug".to_owned(),
            "evaluate" | "evaluate_other" | "finish" => format!("evaluate.fedplug_{what}"),
            _ => format!("query.fedplug_{what}"),
        };
        // What a site keeps of these is freed before the next one is fetched.
        let keep = matches!(what, "train" | "evaluate" | "finish");
        let request = Request { kind, key, content, keep };
        let answer = self.server.call_with(site, request, cancelled, admit)?;
        unpack(answer.content).map_err(TransportError::Failed)
    }
}

impl FlowerTransport for SuperLink {
    fn order(
        &self,
        order: PlainOrder<'_>,
        cancelled: &(dyn Fn() -> bool + Sync),
        admit: &dyn Fn(),
    ) -> Result<Content, TransportError> {
        let PlainOrder { site, kind, group, content } = order;
        let request = Request { kind: kind.to_owned(), key: group, content, keep: false };
        Ok(self.server.call_with(site, request, cancelled, admit)?.content)
    }
}

impl From<CallError> for TransportError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Cancelled => Self::Cancelled,
            CallError::Away { time, .. } => Self::Away(time),
            CallError::Refused { reason, .. } => Self::Refused(reason),
            CallError::Failed { reason, .. } | CallError::Protocol { reason, .. } => Self::Failed(reason),
            other => Self::Failed(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_of_every_type_and_a_long_text_come_back() {
        let long = "x".repeat(MOST_TEXT + 1);
        for body in [serde_json::json!({"a": 1}), serde_json::json!({ "a": long })] {
            let tensor = |dtype: DType| Tensor::new(dtype, &[2, 1], Buffer::copy_of(&vec![7_u8; 2 * dtype.size()]));
            let params: Params = TYPES.iter().map(|(dtype, _)| (dtype.to_string(), tensor(*dtype).unwrap())).collect();
            let scalar = Tensor::from_slice(&[], &[1.5_f32]).unwrap();
            let extra: Params = [("scalar", scalar)].into_iter().collect();
            let payload = Payload { body, params, extra };
            let back = unpack(pack(&payload).unwrap()).unwrap();
            assert_eq!(back.body, payload.body);
            for (there, here) in [(&back.params, &payload.params), (&back.extra, &payload.extra)] {
                assert_eq!(format!("{there:?}"), format!("{here:?}"));
                for ((name, tensor), (_, other)) in there.iter().zip(here.iter()) {
                    assert_eq!(tensor.buffer().as_slice(), other.buffer().as_slice(), "{name}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_call_is_an_error() {
        assert!(unpack(Content::new()).is_err());
        let body = |text: &str| {
            let values = [("body".to_owned(), Value::Text(text.to_owned()))].into_iter().collect();
            let mut content: Content = [(BODY.to_owned(), Record::Config(values))].into_iter().collect();
            content.insert(PARAMS.to_owned(), Record::Metrics(IndexMap::new()));
            content
        };
        assert!(unpack(body("{")).is_err());
        assert!(unpack(body("{}")).is_err());
    }
}
