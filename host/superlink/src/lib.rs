//! Exactly-once calls to named sites through Flower's SuperLink.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod arrays;
mod assemble;
mod content;
mod dialect;
mod endpoint;
mod envelope;
mod error;
mod events;
mod fab;
mod files;
mod hex;
mod http;
mod identity;
mod limits;
mod npy;
mod object;
mod pack;
mod pairs;
mod parallel;
mod record;
mod server;
mod site;
#[cfg(test)]
mod tests;
mod unpack;
mod wire;

pub use self::content::{Array, Content, DType, Record, Value};
pub use self::dialect::{Dialect, Evaluated, Task, Trained, read_task};
pub use self::error::Error;
pub use self::events::{Event, Observer};
pub use self::http::{Connection, Traffic};
pub use self::identity::{Identity, fingerprint};
pub use self::limits::Limits;
pub use self::server::{Answer, CallError, Peer, Policy, Request, Server, ServerOptions, SiteStatus};
pub use self::site::{Order, Site, SiteOptions};
