//! From objects to content: fetches what a message names, a few objects at a time, and checks all of it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::arrays;
use crate::content::{Array, Content, Record};
use crate::error::Error;
use crate::limits::Limits;
use crate::object::{ObjectId, Parsed, parse};
use crate::pack::PackedContent;
use crate::pairs::Pairs;
use crate::parallel::{self, Abort, lock};
use crate::record;

/// The SuperLink's answer to a request for an object.
pub(crate) enum Pulled {
    /// The object.
    Object(Bytes),
    /// Its sender has not pushed it yet.
    NotYet,
    /// Its sender has given up, or it was never there.
    Gone,
}

/// Why content could not be fetched.
#[derive(Debug)]
pub(crate) enum FetchError {
    /// Some objects will never come: the message has to be sent again.
    Gone,
    /// Anything else.
    Failed(Error),
}

/// A message's content.
pub(crate) struct Received {
    pub(crate) content: Content,
    /// Names and ids of the records.
    pub(crate) packed: PackedContent,
    pub(crate) arrays: HashMap<ObjectId, Array>,
}

/// Fetches messages.
pub(crate) struct Fetcher<'a> {
    /// Asks for an object.
    pub(crate) pull: &'a (dyn Fn(&ObjectId, Abort<'_>) -> Result<Pulled, Error> + Sync),
    /// Called with the message's values before memory is taken for its arrays.
    pub(crate) prepare: &'a (dyn Fn(&Content) + Sync),
    pub(crate) threads: usize,
    pub(crate) limits: &'a Limits,
}

enum Fetched {
    Values(Record),
    Arrays(Vec<(String, ObjectId)>),
}

impl Fetcher<'_> {
    /// Fetches a message's content.
    pub(crate) fn content(&self, message: &str, abort: Abort<'_>) -> Result<Received, FetchError> {
        let gone = AtomicBool::new(false);
        let fetch = Fetch { fetcher: self, gone: &gone };
        fetch
            .content(message, abort)
            .map_err(|error| if gone.load(Ordering::Relaxed) { FetchError::Gone } else { FetchError::Failed(error) })
    }
}

/// One message being fetched.
pub(crate) struct Fetch<'a> {
    fetcher: &'a Fetcher<'a>,
    gone: &'a AtomicBool,
}

impl Fetch<'_> {
    pub(crate) fn limits(&self) -> &Limits {
        self.fetcher.limits
    }

    pub(crate) fn threads(&self) -> usize {
        self.fetcher.threads
    }

    fn content(&self, message: &str, abort: Abort<'_>) -> Result<Received, Error> {
        let head = self.object(ObjectId::parse(message)?, abort)?.expect("Message")?;
        let [dict] = head.children[..] else {
            return Err(Error::protocol("message", "it has no content"));
        };
        let dict = self.object(dict, abort)?.expect("RecordDict")?;
        let records = self.ids(&dict, "message")?;
        let ids = records.iter().map(|(_, id)| *id);
        let fetched = self.all(&distinct(ids), abort, |id, abort| self.record(id, abort))?;
        let values = records.iter().filter_map(|(name, id)| match fetched.get(id) {
            Some(Fetched::Values(record)) => Some((name.clone(), record.clone())),
            _ => None,
        });
        (self.fetcher.prepare)(&values.collect());
        let named = fetched.values().filter_map(|record| match record {
            Fetched::Arrays(arrays) => Some(arrays.iter().map(|(_, id)| *id)),
            Fetched::Values(_) => None,
        });
        let wanted = distinct(named.flatten());
        if wanted.len() > self.limits().objects {
            return Err(Error::protocol("message", format!("more than {} arrays", self.limits().objects)));
        }
        let arrays = arrays::fetch(self, &wanted, abort)?;
        let mut content = Content::with_capacity(records.len());
        for (name, id) in &records {
            let record = match fetched.get(id) {
                Some(Fetched::Values(record)) => record.clone(),
                Some(Fetched::Arrays(names)) => {
                    let arrays = names.iter().filter_map(|(name, id)| Some((name.clone(), arrays.get(id)?.clone())));
                    Record::Arrays(arrays.collect())
                }
                None => continue,
            };
            content.insert(name.clone(), record);
        }
        Ok(Received { content, packed: PackedContent { records }, arrays })
    }

    /// Waits for an object, checks it and takes it apart.
    pub(crate) fn object(&self, id: ObjectId, abort: Abort<'_>) -> Result<Parsed, Error> {
        let mut wait = Duration::from_millis(50);
        loop {
            if abort() {
                return Err(Error::Stopped);
            }
            match (self.fetcher.pull)(&id, abort)? {
                Pulled::Object(content) => return parse(id, &content),
                Pulled::Gone => {
                    self.gone.store(true, Ordering::Relaxed);
                    return Err(Error::protocol(format!("object {id}"), "it is gone"));
                }
                Pulled::NotYet => parallel::pause(wait, abort),
            }
            wait = (wait * 2).min(Duration::from_secs(2));
        }
    }

    /// `fetch` of each id, several at a time.
    pub(crate) fn all<T: Send>(
        &self,
        ids: &[ObjectId],
        abort: Abort<'_>,
        fetch: impl Fn(ObjectId, Abort<'_>) -> Result<T, Error> + Sync,
    ) -> Result<HashMap<ObjectId, T>, Error> {
        let results = Mutex::new(HashMap::with_capacity(ids.len()));
        parallel::for_each(ids.len(), self.threads(), abort, |index, abort| {
            let fetched = fetch(ids[index], abort)?;
            lock(&results).insert(ids[index], fetched);
            Ok(())
        })?;
        Ok(results.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn record(&self, id: ObjectId, abort: Abort<'_>) -> Result<Fetched, Error> {
        let parsed = self.object(id, abort)?;
        let values = |metrics| record::decode(&parsed.body, metrics, self.limits());
        match parsed.kind.as_str() {
            "MetricRecord" => Ok(Fetched::Values(Record::Metrics(values(true)?))),
            "ConfigRecord" => Ok(Fetched::Values(Record::Config(values(false)?))),
            _ => Ok(Fetched::Arrays(self.ids(&parsed.expect("ArrayRecord")?, "array record")?)),
        }
    }

    /// A JSON object of names and ids. All ids are children of the object.
    fn ids(&self, parsed: &Parsed, subject: &str) -> Result<Vec<(String, ObjectId)>, Error> {
        let wrong = |reason: String| Error::protocol(subject, reason);
        let Pairs(pairs) = serde_json::from_slice(&parsed.body).map_err(|error| wrong(error.to_string()))?;
        if pairs.len() > self.limits().values {
            return Err(wrong(format!("more than {} entries", self.limits().values)));
        }
        let children: HashSet<ObjectId> = parsed.children.iter().copied().collect();
        let pairs = pairs.into_iter().map(|(name, id)| {
            let id = ObjectId::parse(&id)?;
            if name.len() > self.limits().name {
                return Err(wrong(format!("a name of {} bytes", name.len())));
            }
            if !children.contains(&id) {
                return Err(wrong(format!("`{name}` is none of its children")));
            }
            Ok((name, id))
        });
        pairs.collect()
    }
}

/// Each id once, in order.
fn distinct(ids: impl Iterator<Item = ObjectId>) -> Vec<ObjectId> {
    let mut seen = HashSet::new();
    ids.filter(|id| seen.insert(*id)).collect()
}
