//! One end of the SuperLink's API: the server's (`runtime`) or a node's (`fleet`), which move messages in the same way.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use bytes::Bytes;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::error::Error;
use crate::http::{Counter, Http};
use crate::identity::Identity;
use crate::object::{Object, ObjectId};
use crate::pack::Pack;
use crate::parallel::{self, Abort, lock};
use crate::record;
use crate::unpack::Pulled;
use crate::wire::{Node, ObjectName, ObjectPulled, ObjectStored, PushObject};

/// The longest answer without an object or a message.
const SHORT: u64 = 1 << 20;

/// Who is calling.
pub(crate) enum Caller {
    /// Anybody.
    Operator,
    /// Whoever has a run's token.
    Server { token: RwLock<String> },
    /// A node with its key.
    Site { identity: Identity },
}

/// Calls in the name of a [`Caller`].
pub(crate) struct Endpoint {
    pub(crate) http: Arc<Http>,
    pub(crate) caller: Caller,
}

/// What happened to a call's transfers.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) abort: Abort<'a>,
    pub(crate) counter: &'a Counter,
}

impl Endpoint {
    fn prefix(&self) -> &'static str {
        match self.caller {
            Caller::Operator => "control",
            Caller::Server { .. } => "runtime",
            Caller::Site { .. } => "fleet",
        }
    }

    fn headers(&self, now: SystemTime) -> Result<Vec<(&'static str, String)>, Error> {
        match &self.caller {
            Caller::Operator => Ok(Vec::new()),
            Caller::Server { token } => {
                let token = token.read().unwrap_or_else(PoisonError::into_inner).clone();
                Ok(if token.is_empty() { Vec::new() } else { vec![("flwr-task-token", token)] })
            }
            Caller::Site { identity } => identity.headers(timestamp(now)?),
        }
    }

    /// Sends a message and reads the answer, and whether it was sent more than once.
    pub(crate) fn exchange<A: Message + Default>(
        &self,
        name: &str,
        request: &impl Message,
        scope: Scope<'_>,
    ) -> Result<(A, bool), Error> {
        let limit = if name == "pull-messages" || name == "push-messages" { self.http.limits.answer() } else { SHORT };
        self.send(name, &[&request.encode_to_vec()], limit, scope)
    }

    /// Sends a message and reads the answer.
    pub(crate) fn call<A: Message + Default>(
        &self,
        name: &str,
        request: &impl Message,
        scope: Scope<'_>,
    ) -> Result<A, Error> {
        self.exchange(name, request, scope).map(|(answer, _)| answer)
    }

    fn send<A: Message + Default>(
        &self,
        name: &str,
        body: &[&[u8]],
        limit: u64,
        scope: Scope<'_>,
    ) -> Result<(A, bool), Error> {
        let call = format!("{}/{name}", self.prefix());
        let answer = self.http.post(&call, body, &|now| self.headers(now), limit, scope.abort)?;
        scope.counter.add(answer.traffic);
        // A message of two bytes may take hundreds in memory.
        if record::count(&answer.body).is_none_or(|fields| fields > self.http.limits.objects + 16) {
            return Err(Error::protocol(call, "the answer is no protobuf message, or has too many fields"));
        }
        let repeated = answer.repeated;
        Ok((answer.decode(&call)?, repeated))
    }

    /// Pushes objects, several at a time. Returns those that the SuperLink did not take: it has them already, or the push
    /// session is over.
    pub(crate) fn push_objects(
        &self,
        to: &Push<'_>,
        pack: &Pack,
        wanted: &[String],
        scope: Scope<'_>,
    ) -> Result<Vec<String>, Error> {
        let refused = Mutex::new(Vec::new());
        parallel::for_each(wanted.len(), self.http.transfers, scope.abort, |index, abort| {
            let id = ObjectId::parse(&wanted[index])?;
            let object = pack.object(&id);
            let object =
                object.ok_or_else(|| Error::protocol("push-messages", format!("object {id} is none of ours")))?;
            if !self.push_object(to, id, object, Scope { abort, ..scope })? {
                lock(&refused).push(wanted[index].clone());
            }
            Ok(())
        })?;
        Ok(refused.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn push_object(&self, to: &Push<'_>, id: ObjectId, object: &Object, scope: Scope<'_>) -> Result<bool, Error> {
        let request = PushObject {
            node: Some(Node { node_id: to.node }),
            run_id: to.run,
            object_id: id.to_string(),
            session: to.session.to_owned(),
        };
        let mut start = request.encode_to_vec();
        encode_key(4, WireType::LengthDelimited, &mut start);
        encode_varint(object.len() as u64, &mut start);
        start.extend(&object.head);
        let (stored, _) = self.send::<ObjectStored>("push-object", &[&start, &object.data], SHORT, scope)?;
        Ok(stored.stored)
    }

    /// Asks for an object.
    pub(crate) fn pull_object(&self, node: u64, run: u64, id: &ObjectId, scope: Scope<'_>) -> Result<Pulled, Error> {
        let request = ObjectName { node: Some(Node { node_id: node }), run_id: run, object_id: id.to_string() };
        let limit = self.http.limits.object as u64 + 1024;
        let (pulled, _) = self.send::<ObjectPulled>("pull-object", &[&request.encode_to_vec()], limit, scope)?;
        Ok(match pulled {
            ObjectPulled { found: false, .. } => Pulled::Gone,
            ObjectPulled { available: false, .. } => Pulled::NotYet,
            ObjectPulled { content, .. } => Pulled::Object(content),
        })
    }

    /// Says that a message has been received, so that its objects are deleted.
    pub(crate) fn confirm(&self, node: u64, run: u64, message: &str, scope: Scope<'_>) -> Result<(), Error> {
        let request = ObjectName { node: Some(Node { node_id: node }), run_id: run, object_id: message.to_owned() };
        self.call::<crate::wire::Nothing>("confirm-message-received", &request, scope).map(drop)
    }
}

/// Where objects are pushed.
pub(crate) struct Push<'a> {
    pub(crate) node: u64,
    pub(crate) run: u64,
    pub(crate) session: &'a str,
}

/// `2026-11-26T00:00:00.123456+00:00`, the form that Python reads.
fn timestamp(now: SystemTime) -> Result<String, Error> {
    let format = time::format_description::parse_borrowed::<2>(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]+00:00",
    );
    let wrong = |reason: String| Error::protocol("the time", reason);
    let format = format.map_err(|error| wrong(error.to_string()))?;
    time::OffsetDateTime::from(now).format(&format).map_err(|error| wrong(error.to_string()))
}

/// The bytes of a public key as they are sent.
pub(crate) fn public_key(identity: &Identity) -> Bytes {
    Bytes::copy_from_slice(identity.public_pem().as_bytes())
}
