//! Exactly-once calls to named sites through Flower's SuperLink.
//!
//! A SuperLink (`pip install flwr`, 1.40 to 1.42) carries messages between one server and many sites. It keeps objects, knows
//! who is online, and loses things: it hands out each message once, forgets answers of sites that are offline, gives up on
//! transfers that pause, and may be killed itself. This crate speaks its protocol and makes calls of it: [`Server::call`]
//! returns a site's answer, however often it had to be asked, and the site has done the work once. It knows nothing of
//! federated learning, of plugins or of the host, and has no asynchronous runtime: threads wait.
//!
//! ```no_run
//! use std::collections::BTreeMap;
//! use std::sync::Arc;
//! use fedplug_superlink::{Connection, Content, Identity, Peer, Request, Server, ServerOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let sites = BTreeMap::from([("leeds".to_owned(), Peer::Fedplug("5f0c…".into()))]);
//! let options = ServerOptions::new(Connection::new("https://superlink.example:8000"), "title", "state", sites);
//! let server = Server::open(options, Arc::new(|event| eprintln!("{event}")))?;
//! let request = Request { kind: "train.example".into(), key: "round 1".into(), content: Content::new(), keep: false };
//! let answer = server.call("leeds", request, &|| false)?;
//! println!("{:?} {:?}", answer.content, answer.traffic);
//! server.finish(true, "1 round")?;
//! # Ok(())
//! # }
//! ```
//!
//! ```no_run
//! use std::path::Path;
//! use std::sync::Arc;
//! use std::time::Duration;
//! use fedplug_superlink::{Connection, Identity, Site, SiteOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let identity = Identity::load(Path::new("leeds.pem"))?;
//! println!("{}", identity.fingerprint());
//! let options = SiteOptions::new(Connection::new("https://superlink.example:8000"), identity, "state");
//! let site = Site::open(options, Arc::new(|event| eprintln!("{event}")))?;
//! while let Some(order) = site.next(Duration::from_secs(3600))? {
//!     let content = order.content.clone();
//!     order.answer(content)?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # The life of an order
//!
//! A call becomes an *order*. It has the server's session (128 random bits), a number that grows within the session, and a
//! nonce for each message that brings it. Session and number stand in the message's group, so a site knows an order before it
//! has fetched anything.
//!
//! | at the server | until |
//! |---|---|
//! | queued | the site is online, and other orders of the same moment are there too, to go out together |
//! | sending | all objects are pushed; what several orders share, and what the SuperLink has already, goes once |
//! | sent | an answer is there, or an error in its place |
//! | answered | the thread of the call has fetched and checked it, and has had the SuperLink delete it |
//!
//! | at the site | |
//! |---|---|
//! | waiting | pulled, not yet fetched |
//! | working | being fetched, or in the caller's hands; if the order comes again, the newer message is the one to answer |
//! | pushing | answered and stored; the answer is on its way, if need be again |
//! | done | the SuperLink has the answer; if the order comes again, it is answered from the store |
//!
//! | what happens | what is done |
//! |---|---|
//! | the SuperLink reports a message or an answer lost or expired, or the node offline (errors 3, 4, 5) | the order is sent again, after a while that grows; after error 5, once the site is seen online |
//! | the site says nothing for [`Policy::silence`] and is online | it is asked what it does (`query.fedplug_status`), and the order is sent again only if the site does not know it, or has answered and the answer is not there |
//! | no object of an answer comes for [`Policy::silence`] | the site is asked what it does; the order is sent again if the site is done |
//! | the SuperLink has given up an answer's objects | sent again |
//! | the answer is not signed by the site, or for another order | ignored with [`Event::Forged`]; sent again |
//! | the site lacks arrays that were left out | the whole order is sent |
//! | the site is away | the call waits for [`Policy::away`] |
//! | the token of the run is refused | a new run in the same session, with all open orders; if the run was stopped by its operator, all calls fail |
//! | the SuperLink has forgotten a site | it registers again |
//! | a connection breaks, or a gateway answers 502 to 504 | the exchange is repeated, for [`Connection::patience`] |
//!
//! Between ends of this crate, arrays that a site was to [keep](Request::keep) are not sent again with its next order if they are
//! the same bytes.
//!
//! # What is on disk
//!
//! Files have mode 0600 and are replaced as a whole. A folder is used by one process at a time.
//!
//! - Server, `server.json`: session, run and its token, the last number, and for each site its last order: key, digest of the
//!   content, number, messages that may be answered. A number is there before its order is sent. A server that was killed and is
//!   back within a minute continues its run, and later in a new one; a call with the key and content of a site's last order is
//!   that order and gets its answer, without new work at the site.
//! - Site, `node`: the node's id. `answers/SESSION`: the last answer of each of the last four sessions, there before it is pushed,
//!   until the next one replaces it. `push`: how far its push has come; a site that is killed in the middle resumes it.
//!
//! # What is checked
//!
//! - Connections: TLS, by the public authorities or one given; without it only to this machine, unless
//!   [`Connection::insecure`].
//! - A site is its key, P-384, named by the SHA-256 of its public PEM. Other nodes are ignored. The SuperLink itself does not keep
//!   nodes apart: who knows the id of another's order can answer it. The nonce keeps ids secret, and an answer carries an
//!   ECDSA signature over the order's message, session and number, its status and the digest of its content. The server checks it
//!   with the public key that the SuperLink gives for the node, whose fingerprint it knows. Plain Flower nodes
//!   ([`Peer::Flower`]) sign nothing, and may work on an order twice.
//! - Whatever comes from the network is bounded by [`Limits`] before memory is taken for it: bytes of an answer, fields of a message,
//!   objects, names, values, dimensions, bytes of all arrays. Every object has the hash that it is named by. A record
//!   with lists of short texts takes up to twelve times its size in memory.
//! - Not checked: who the server is, beyond the SuperLink's certificate and that it has the run's token. The SuperLink sees all
//!   content.
//!
//! # Memory
//!
//! Arrays go out from where they lie, chunk by chunk; one that comes in is one allocation, into which chunks are written in order. So
//! besides the content itself there is about one chunk (5 MiB) for each of the [`Connection::transfers`], twice while it is on
//! its way into or out of a request. [`Server::call_with`] lets the caller wait for memory before an answer is fetched.
//!
//! # Python
//!
//! [`Dialect`] has the records of Flower's own apps, for a server whose sites are plain SuperNodes ([`Peer::Flower`], with their
//! app as [`ServerOptions::bundle`]), and for a site in the run of a Python `ServerApp`, whose orders have no session and number.
//!
//! # Tests
//!
//! `tests/it` runs against a SuperLink that `make test` installs: each kind of loss, SIGKILL of every process, forged answers,
//! TLS, and Flower's own client and server. Those that wait for the SuperLink's clocks are ignored by default, together
//! six minutes: `a_site_killed_in_its_push_and_back_after_the_session` (180 s without an object end a push),
//! `a_server_killed_and_back_too_late_for_its_run` and `a_cut_of_more_than_a_minute` (60 s without a heartbeat end a run),
//! `the_claim_of_a_run_lost` (30 s), and `a_large_model`, which prints figures of 472 MB.
//! Run them with `cargo test -p fedplug-superlink --test it -- --ignored --skip process`.

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod arrays;
mod assemble;
mod bundle;
mod connection;
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

pub use self::connection::Connection;
pub use self::content::{Array, Content, DType, Record, Value};
pub use self::dialect::{Dialect, Evaluated, Task, Trained, read_task};
pub use self::error::Error;
pub use self::events::{Event, Observer};
pub use self::http::Traffic;
pub use self::identity::{Identity, fingerprint};
pub use self::limits::Limits;
pub use self::server::{Answer, CallError, Peer, Policy, Request, Server, ServerOptions, SiteStatus};
pub use self::site::{Order, Site, SiteOptions};
