//! POSTs one protobuf message and gets one; repeats what was lost on the way; keeps the SuperLink's time.

use std::io::{Cursor, Read};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use ureq::tls::TlsConfig;

use crate::connection::Connection;
use crate::error::Error;
use crate::events::{Event, Observer};
use crate::limits::Limits;
use crate::parallel::{self, Abort, lock};

const PROTOBUF: &str = "application/protobuf";

/// Bytes on the wire: bodies of requests and answers, without heads and encryption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
}

/// Traffic that several threads add to.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Counter {
    pub(crate) fn add(&self, traffic: Traffic) {
        self.sent.fetch_add(traffic.sent, Ordering::Relaxed);
        self.received.fetch_add(traffic.received, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Traffic {
        Traffic { sent: self.sent.load(Ordering::Relaxed), received: self.received.load(Ordering::Relaxed) }
    }
}

/// What one call did.
pub(crate) struct Answer {
    pub(crate) body: Bytes,
    pub(crate) traffic: Traffic,
    /// It was sent more than once, so the SuperLink may have seen it more than once.
    pub(crate) repeated: bool,
}

impl Answer {
    pub(crate) fn decode<T: Message + Default>(self, call: &str) -> Result<T, Error> {
        T::decode(self.body).map_err(|error| Error::protocol(call, error.to_string()))
    }
}

/// A client of one SuperLink, for many threads.
pub(crate) struct Http {
    agent: ureq::Agent,
    base: String,
    patience: Option<Duration>,
    /// The SuperLink's clock minus ours, in milliseconds.
    skew: AtomicI64,
    /// Since when the SuperLink cannot be reached, and when that was last reported.
    outage: Mutex<Option<(Instant, Instant)>>,
    pub(crate) traffic: Counter,
    observer: Observer,
    pub(crate) limits: Limits,
    pub(crate) transfers: usize,
}

/// Headers of a call, made anew for each try, from the present time at the SuperLink.
pub(crate) type Headers<'a> = &'a (dyn Fn(SystemTime) -> Result<Vec<(&'static str, String)>, Error> + Sync);

impl Http {
    pub(crate) fn new(connection: &Connection, observer: Observer) -> Result<Arc<Self>, Error> {
        let base = connection.url.trim_end_matches('/').to_owned();
        let local = connection.check()?;
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(10).min(connection.timeout)))
            .timeout_per_read(Some(connection.timeout))
            .timeout_per_write(Some(connection.timeout))
            // Uvicorn closes connections that were idle for 5 s.
            .max_idle_age(Duration::from_secs(4))
            .user_agent(concat!("fedplug/", env!("CARGO_PKG_VERSION")));
        if local {
            config = config.proxy(None);
        }
        if let Some(roots) = connection.roots()? {
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        Ok(Arc::new(Self {
            agent: config.build().new_agent(),
            base,
            patience: connection.patience,
            skew: AtomicI64::new(0),
            outage: Mutex::new(None),
            traffic: Counter::default(),
            observer,
            limits: connection.limits,
            transfers: connection.transfers.max(1),
        }))
    }

    /// The time at the SuperLink, in seconds since 1970.
    pub(crate) fn now(&self) -> f64 {
        self.time().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
    }

    fn time(&self) -> SystemTime {
        let skew = self.skew.load(Ordering::Relaxed);
        let by = Duration::from_millis(skew.unsigned_abs());
        let now = SystemTime::now();
        (if skew < 0 { now.checked_sub(by) } else { now.checked_add(by) }).unwrap_or(now)
    }

    /// Takes the SuperLink's time after it has refused ours. Whether that changes anything.
    fn learn(&self, date: &str) -> bool {
        let Ok(date) = OffsetDateTime::parse(date, &Rfc2822) else { return false };
        let now = OffsetDateTime::from(SystemTime::now());
        let skew = i64::try_from((date - now).whole_milliseconds()).unwrap_or(0);
        // Whole seconds, and late by the way that the answer took.
        let changed = (skew - self.skew.load(Ordering::Relaxed)).abs() > 2000;
        if changed {
            self.skew.store(skew, Ordering::Relaxed);
        }
        changed
    }

    /// Sends a message, and reads one of up to `limit` bytes.
    pub(crate) fn post(
        &self,
        call: &str,
        body: &[&[u8]],
        headers: Headers<'_>,
        limit: u64,
        abort: Abort<'_>,
    ) -> Result<Answer, Error> {
        let start = Instant::now();
        let (mut wait, mut repeated) = (Duration::from_millis(200), false);
        loop {
            if abort() {
                return Err(Error::Stopped);
            }
            let failure = match self.try_once(call, body, headers, limit) {
                Ok(Reply { status: 200, body: answer, .. }) => {
                    let sent = body.iter().map(|part| part.len() as u64).sum();
                    let traffic = Traffic { sent, received: answer.len() as u64 };
                    self.traffic.add(traffic);
                    if let Some((since, _)) = lock(&self.outage).take() {
                        (self.observer)(&Event::Reconnected { after: since.elapsed() });
                    }
                    return Ok(Answer { body: answer, traffic, repeated });
                }
                // A clock that is wrong; `learn` has corrected it.
                Ok(Reply { status: 401, corrected: true, .. }) => continue,
                Ok(Reply { status: status @ (502..=504), .. }) => format!("HTTP {status}"),
                Ok(reply) => return Err(reply.refusal(call)),
                Err(Failure::Lost(reason)) => reason,
                Err(Failure::Final(error)) => return Err(error),
            };
            repeated = true;
            let after = start.elapsed();
            if self.patience.is_some_and(|patience| after > patience) {
                return Err(Error::Unreachable { url: self.base.clone(), reason: failure, after });
            }
            if wait > Duration::from_millis(800) {
                self.report(start, call, failure);
            }
            parallel::pause(wait, abort);
            wait = (wait * 2).min(Duration::from_secs(5));
        }
    }

    /// Reports an outage: once for all threads, and again each minute.
    fn report(&self, start: Instant, call: &str, reason: String) {
        let mut outage = lock(&self.outage);
        let now = Instant::now();
        let (since, told) = outage.unwrap_or((start, now));
        let again = now.duration_since(told) > Duration::from_secs(60);
        if outage.is_none() || again {
            *outage = Some((since, now));
            drop(outage);
            (self.observer)(&Event::Unreachable { call: call.to_owned(), reason, after: since.elapsed() });
        }
    }

    fn try_once(&self, call: &str, body: &[&[u8]], headers: Headers<'_>, limit: u64) -> Result<Reply, Failure> {
        let length: usize = body.iter().map(|part| part.len()).sum();
        let mut request = self
            .agent
            .post(format!("{}/v1/{call}", self.base))
            .header("content-type", PROTOBUF)
            .header("accept", PROTOBUF)
            .header("content-length", length.to_string());
        for (name, value) in headers(self.time()).map_err(Failure::Final)? {
            request = request.header(name, value);
        }
        let mut reader: Box<dyn Read + '_> = Box::new(std::io::empty());
        for part in body.iter().rev() {
            reader = Box::new(Cursor::new(*part).chain(reader));
        }
        let mut answer = request.send(ureq::SendBody::from_reader(&mut reader)).map_err(Failure::from)?;
        let status = answer.status().as_u16();
        let date = answer.headers().get("date").and_then(|date| date.to_str().ok());
        // Only then, since answers may be old when they come.
        let corrected = status == 401 && date.is_some_and(|date| self.learn(date));
        let limit = if status == 200 { limit } else { 1 << 16 };
        let body = answer.body_mut().with_config().limit(limit).read_to_vec();
        match body {
            Ok(body) => Ok(Reply { status, corrected, body: body.into() }),
            Err(ureq::Error::BodyExceedsLimit(limit)) => {
                Err(Failure::Final(Error::protocol(call, format!("an answer of more than {limit} bytes"))))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The SuperLink's version, from its page for programs; `None` if a proxy hides it.
    pub(crate) fn version(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Page {
            info: Info,
        }
        #[derive(Deserialize)]
        struct Info {
            version: String,
        }
        let mut answer = self.agent.get(format!("{}/openapi.json", self.base)).call().ok()?;
        let page = answer.body_mut().with_config().limit(8 << 20).read_to_vec().ok()?;
        serde_json::from_slice::<Page>(&page).ok().map(|page| page.info.version)
    }
}

struct Reply {
    status: u16,
    corrected: bool,
    body: Bytes,
}

impl Reply {
    fn refusal(self, call: &str) -> Error {
        #[derive(Deserialize)]
        struct Refusal {
            code: Option<i64>,
            detail: String,
        }
        let (code, detail) = match serde_json::from_slice::<Refusal>(&self.body) {
            Ok(refusal) => (refusal.code, refusal.detail),
            Err(_) => (None, String::from_utf8_lossy(&self.body).chars().take(300).collect()),
        };
        Error::Refused { call: call.to_owned(), status: self.status, code, detail }
    }
}

enum Failure {
    /// The connection was lost, or never was.
    Lost(String),
    Final(Error),
}

impl From<ureq::Error> for Failure {
    fn from(error: ureq::Error) -> Self {
        use ureq::Error as E;
        let text = error.to_string();
        match error {
            // A certificate does not become valid by asking again.
            E::Tls(_) | E::Pem(_) | E::Rustls(_) => Self::Final(Error::protocol("TLS", text)),
            E::Io(error) if error.to_string().contains("certificate") => Self::Final(Error::protocol("TLS", text)),
            E::BadUri(_) | E::Http(_) | E::InvalidProxyUrl => Self::Final(Error::protocol("address", text)),
            _ => Self::Lost(text),
        }
    }
}
