//! The contract between the fedplug host and its plugins: what a plugin author reads first.
//!
//! A plugin is a shared library that offers components of four kinds: a [`Model`] that clients train, a [`Dataset`]
//! that says which clients there are and what data they have, an [`Aggregator`] that makes one global model of many
//! updates, a [`Filter`] that changes messages on their way. An author implements one of these traits in ordinary Rust
//! and writes one line, [`export_plugin!`]. This is a whole plugin:
//!
//! ```standalone_crate
//! //! The mean of the updates, of which the server goes a part of the way.
//! use plugin_api::*;
//!
//! /// The keys of the experiment's `[aggregator]` table.
//! #[derive(serde::Deserialize, JsonSchema)]
//! #[schemars(crate = "plugin_api::schemars")]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     /// How far the global model goes towards the mean: 1 is all the way.
//!     rate: f32,
//! }
//! struct Cautious { rate: f32, global: Message, mean: WeightedMean }
//!
//! fn cautious(config: Config, _: &Context<'_>) -> Result<Cautious> {
//!     Ok(Cautious { rate: config.rate, global: Message::default(), mean: WeightedMean::new() })
//! }
//!
//! impl Aggregator for Cautious {
//!     fn begin(&mut self, global: &Message, _: &Cohort, _: &Context<'_>) -> Result<()> {
//!         (self.global, self.mean) = (global.clone(), WeightedMean::new());
//!         Ok(())
//!     }
//!     fn add(&mut self, update: Update, _: &Context<'_>) -> Result<()> {
//!         self.mean.add(&update.message.params, update.weight(WeightBy::Steps), &update.client)
//!     }
//!     fn finish(&mut self, _: &Context<'_>) -> Result<Message> {
//!         let mean = std::mem::take(&mut self.mean).finish()?;
//!         let moved = |(name, mean): (&str, &Tensor)| -> Result<(String, Tensor)> {
//!             let old = self.global.params.elements::<f32>(name, mean.shape())?;
//!             let new: Vec<f32> = old.iter().zip(&*mean.to_f32()?).map(|(x, m)| x + self.rate * (m - x)).collect();
//!             Ok((name.to_owned(), Tensor::from_slice(mean.shape(), &new)?))
//!         };
//!         Ok(mean.iter().map(moved).collect::<Result<Params>>()?.into())
//!     }
//! }
//!
//! plugin_api::export_plugin!(Component::aggregator("cautious", "A part of the way to the mean", cautious));
//! # fn main() {
//! #     let component = Component::aggregator("cautious", "A part of the way to the mean", cautious);
//! #     plugin_testkit::check_aggregator(&component, &serde_json::json!({ "rate": 0.5 })).assert();
//! # }
//! ```
//!
//! with a `Cargo.toml` that says
//!
//! ```toml
//! [package]
//! name = "aggregator-cautious"   # <kind>-<name>: so the host finds the library by the component's name
//! edition = "2024"
//!
//! [lib]
//! crate-type = ["cdylib"]
//!
//! [dependencies]
//! fedplug-plugin-api = "1"   # its library is `plugin_api`
//! serde = { version = "1", features = ["derive"] }
//! ```
//!
//! After `cargo build --release` an experiment names it: `plugin = "cautious"` in its `[aggregator]` table,
//! with `fedplug run FILE --plugin-dir target/release`. `fedplug plugin new aggregator cautious` writes such a crate, with a
//! test and an experiment. The pages of [`Model`], [`Dataset`] and [`Filter`] have a
//! whole one of their kind. In the project's `plugins` folder, `model-linear` is the model to copy, `filter-exclude-params`
//! the filter, `aggregator-fedavg` the aggregator, `dataset-flab` the dataset.
//!
//! # Whether it is right
//!
//! The package `fedplug-testkit` has checks for a plugin's own tests: they drive a component through the boundary, in process
//! or as a built library, and say what it breaks of this contract, what came instead, and why it matters. The example above
//! passes them. In `tests/conformance.rs`, with `fedplug-testkit = "1"` under `[dev-dependencies]`, `crate-type = ["cdylib", "rlib"]`, and a `pub fn component()` that `export_plugin!` calls too:
//!
//! ```no_run
//! # mod aggregator_cautious { pub fn component() -> plugin_api::Component { unimplemented!() } }
//! #[test]
//! fn conforms() {
//!     plugin_testkit::check_aggregator(&aggregator_cautious::component(), &serde_json::json!({ "rate": 0.5 })).assert();
//! }
//! ```
//!
//! # What is called when
//!
//! The host makes a component by its constructor, with the component's table of the experiment read into its `Config`;
//! it calls an instance from one thread at a time, not always the same, and drops it at the end of the run. Each trait's
//! page says in which order. Whatever happens between two calls of an instance is the instance's own: there are no globals
//! and no callbacks to wait for. There is one instance of
//!
//! | kind | for | on |
//! |---|---|---|
//! | dataset | the experiment | the main thread |
//! | model | each client, and the server (whose parameters are the first global model) | the threads of the clients |
//! | aggregator | the experiment | the main thread |
//! | filter | each client at `client-input` and `client-output`; all clients at `server-input` and `server-output` | the clients' threads; the main thread |
//!
//! In a round: the aggregator `begin`s and may `ask`; for each client the filters `apply` on the way out and in, the model
//! `receive`s and `evaluate`s, then for each local epoch `train`s and `evaluate`s, and `send`s; the filters `apply` on the
//! way back; the aggregator `add`s one update after the other, may `ask` again, and `finish`es. Between rounds `state` is
//! taken for a checkpoint, and `restore` goes back to one in a fresh instance.
//!
//! Every call gets a [`Context`]: log lines, scalars for TensorBoard, progress, whether to stop, the device, and a
//! [`Seed`]. A plugin takes all randomness from that seed, so that an experiment gives the same bits on every run.
//!
//! `docs/authors.md` of this crate says how to debug, benchmark, ship and version a plugin, and what to know of threads,
//! GPUs and memory; `docs/abi.md` what crosses the boundary and what stays compatible.
//!
//! # What may fail, and how
//!
//! Every call returns [`Result`]; an [`Error`] says what is wrong, where, why and what to do. A panic does no harm beyond
//! its component: it arrives at the host as an error, and the instance is not called again. A process-wide abort cannot
//! be contained: a plugin is native code in the host's process.
//!
//! # Memory
//!
//! [`Params`], [`Table`]s and [`Message`]s share their memory: to clone one, or to send it across the boundary to a
//! thousand clients, copies nothing. It is immutable; who changes a tensor makes a new one, as a [`TensorBuf`] until it is
//! written.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod aggregator;
#[doc(hidden)]
pub mod boundary;
pub mod buffer;
pub mod component;
pub mod config;
pub mod context;
pub mod data;
pub mod dataset;
pub mod error;
#[doc(hidden)]
pub mod export;
pub mod filter;
pub mod message;
pub mod metrics;
pub mod model;
pub mod numeric;
pub mod params;
pub mod seed;
pub mod tensor;

pub use aggregator::{Aggregator, Cohort, Query, Reply, Stage, Update, WeightBy};
pub use buffer::Buffer;
pub use component::{Component, Kind, Plugin};
pub use context::{Context, Level, Sampling};
pub use data::{BytesColumn, Column, DEVIATION, ListColumn, NullableColumn, PREDICTED, Table, TextColumn};
pub use dataset::{
    ClientSpec, ClientTask, Dataset, Description, ORIGIN, Scale, Source, TargetKind, Task, TaskSpec, cell_column,
    cell_name,
};
pub use error::{Error, ErrorKind, Place, Result};
pub use filter::Filter;
pub use half;
pub use message::{Message, State};
pub use model::{Epoch, Evaluation, Goal, Metric, Model, ModelSetup, Received, Trained};
pub use numeric::{Arena, TensorBuf, WeightedMean};
pub use params::Params;
pub use schemars::{self, JsonSchema};
pub use seed::Seed;
pub use tensor::{DType, Element, Float, Tensor};
