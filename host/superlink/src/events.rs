//! What happens on the way, for logs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Is told what happens on the way. It is called from many threads and should return soon.
pub type Observer = Arc<dyn Fn(&Event) + Send + Sync>;

/// Something that happened on the way. [`fmt::Display`] gives a sentence.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Event {
    /// The SuperLink cannot be reached; the call is repeated.
    Unreachable { call: String, reason: String, after: Duration },
    /// It can be reached again.
    Reconnected { after: Duration },
    /// The SuperLink's version is none that this crate was tried with.
    UntriedVersion { version: String },
    /// The server has a run on the SuperLink.
    RunStarted { run: u64 },
    /// The server continues with a run that it had before.
    RunResumed { run: u64 },
    /// The SuperLink has forgotten the run, or ended it for lack of heartbeats: a new one takes its place.
    RunLost { run: u64, status: String },
    /// A site came online.
    SiteOnline { site: String },
    /// A site went offline.
    SiteAway { site: String },
    /// An order was sent.
    Sent { site: String, number: u64 },
    /// An order will be sent again.
    SendAgain { site: String, number: u64, reason: String },
    /// A site that said nothing for some time was asked what it does.
    AskedStatus { site: String, number: u64 },
    /// Its answer.
    Status { site: String, number: u64, status: String },
    /// An answer with a wrong or no signature was ignored.
    Forged { site: String, number: u64, reason: String },
    /// The site is registered and online.
    Registered { node: u64 },
    /// The SuperLink has forgotten the site; it registers again.
    NodeLost,
    /// The key is registered by the operator only, and is not, or is in use by another process.
    RegistrationRefused { reason: String },
    /// An order that was answered before came again and is answered from the store.
    AnsweredAgain { number: u64 },
    /// An answer was not accepted: its order is gone or was answered.
    AnswerNotWanted { number: Option<u64> },
    /// A push that was interrupted goes on.
    PushResumed { number: u64 },
    /// A message was dropped.
    Dropped { reason: String },
    /// Anything that failed in the background; it is tried again.
    Trouble { subject: String, reason: String },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { call, reason, after } => {
                write!(f, "cannot reach the SuperLink for {} s ({call}): {reason}", after.as_secs())
            }
            Self::Reconnected { after } => write!(f, "reached the SuperLink again after {} s", after.as_secs()),
            Self::UntriedVersion { version } => {
                write!(f, "the SuperLink is version {version}; tried with 1.40 to 1.42")
            }
            Self::RunStarted { run } => write!(f, "started run {run} on the SuperLink"),
            Self::RunResumed { run } => write!(f, "resumed run {run} on the SuperLink"),
            Self::RunLost { run, status } => write!(f, "run {run} is lost ({status}); starting another"),
            Self::SiteOnline { site } => write!(f, "site `{site}` is online"),
            Self::SiteAway { site } => write!(f, "site `{site}` is away"),
            Self::Sent { site, number } => write!(f, "sent order {number} to site `{site}`"),
            Self::SendAgain { site, number, reason } => {
                write!(f, "sending order {number} to site `{site}` again: {reason}")
            }
            Self::AskedStatus { site, number } => write!(f, "asked site `{site}` about order {number}"),
            Self::Status { site, number, status } => write!(f, "site `{site}` on order {number}: {status}"),
            Self::Forged { site, number, reason } => {
                write!(f, "ignored an answer to order {number} in the name of site `{site}`: {reason}")
            }
            Self::Registered { node } => write!(f, "registered as node {node}"),
            Self::NodeLost => f.write_str("the SuperLink has forgotten this site; registering again"),
            Self::RegistrationRefused { reason } => write!(f, "cannot register yet: {reason}"),
            Self::AnsweredAgain { number } => write!(f, "order {number} came again; answering from the store"),
            Self::AnswerNotWanted { number: Some(number) } => {
                write!(f, "the answer to order {number} was not accepted")
            }
            Self::AnswerNotWanted { number: None } => f.write_str("an answer was not accepted"),
            Self::PushResumed { number } => write!(f, "resuming the push of the answer to order {number}"),
            Self::Dropped { reason } => write!(f, "dropped a message: {reason}"),
            Self::Trouble { subject, reason } => write!(f, "{subject}: {reason}"),
        }
    }
}
