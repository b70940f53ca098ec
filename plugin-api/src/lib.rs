//! The contract between the fedplug host and its plugins. Plugin authors should start here.
//!
//! A plugin is a shared library that offers components of four kinds: a [`Model`] that clients train, a [`Dataset`]
//! that provides the clients and their data, an [`Aggregator`] that combines many updates into one global model, and a
//! [`Filter`] that changes messages in transit. An author implements one of these traits in ordinary Rust and writes
//! one line, [`export_plugin!`]. This is a complete plugin:
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
//! Its `Cargo.toml`:
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
//! After `cargo build --release`, an experiment names it with `plugin = "cautious"` in its `[aggregator]` table and
//! runs with `fedplug run FILE --plugin-dir target/release`. `fedplug plugin new aggregator cautious` generates such a
//! crate, with a test and an experiment. The pages of [`Model`], [`Dataset`] and [`Filter`] each have a complete plugin
//! of their kind. In the project's `plugins` folder, start from `model-linear` for a model, `filter-exclude-params` for
//! a filter, `aggregator-fedavg` for an aggregator, and `dataset-flab` for a dataset.
//!
//! # Testing
//!
//! The package `fedplug-testkit` has checks for a plugin's own tests. They drive a component through the boundary, in
//! process or as a built library, and report where it breaks this contract: what was expected, what happened instead,
//! and why it matters. The example above passes them. It needs `fedplug-testkit = "1"` under `[dev-dependencies]`,
//! `crate-type = ["cdylib", "rlib"]`, and a `pub fn component()` that `export_plugin!` calls too. In
//! `tests/conformance.rs`:
//!
//! ```no_run
//! # mod aggregator_cautious { pub fn component() -> plugin_api::Component { unimplemented!() } }
//! #[test]
//! fn conforms() {
//!     plugin_testkit::check_aggregator(&aggregator_cautious::component(), &serde_json::json!({ "rate": 0.5 })).assert();
//! }
//! ```
//!
//! # Instances and call order
//!
//! The host creates a component with its constructor, and deserialises the component's table of the experiment into its
//! `Config`. It calls an instance from one thread at a time, though not always the same thread, and drops it at the end
//! of the run. Each trait's page gives the call order. An instance keeps its own state between calls; there are no
//! globals, and no callbacks to wait for. The instances are:
//! | kind | for | on |
//! | kind | one for | called on |
//! | dataset | the experiment | the main thread |
//! | model | each client, and the server (whose parameters are the first global model) | the clients' threads |
//! | aggregator | the experiment | the main thread |
//! | filter | each client at `client-input` and `client-output`; all clients at `server-input` and `server-output` | the clients' threads; the main thread |
//!
//! In a round, the aggregator `begin`s and may `ask`. For each client, the filters `apply` on the way out and in. The
//! model `receive`s and `evaluate`s, then for each local epoch `train`s and `evaluate`s, and finally `send`s. The
//! filters `apply` on the way back. The aggregator `add`s one update after another, may `ask` again, and `finish`es.
//! Between rounds the host calls `state` for a checkpoint; `restore` loads one into a fresh instance.
//!
//! Every call gets a [`Context`]: log lines, scalars for TensorBoard, progress, cancellation, the device, and a
//! [`Seed`]. A plugin takes all randomness from that seed, so that an experiment gives the same bits on every run.
//!
//! The project's book has a page each on debugging, on benchmarking, on threads, on GPUs and memory, on shipping and on
//! versioning a plugin (`docs/src/plugins` in its repository). `docs/abi.md` in this crate explains what crosses the
//! boundary and what stays compatible.
//!
//! # Errors and panics
//!
//! Every call returns [`Result`]. An [`Error`] says what is wrong, where, why and what to do. A panic affects only its
//! component: the host gets an error and does not call the instance again. A process-wide abort cannot be contained,
//! since a plugin is native code in the host's process.
//!
//! # Memory
//!
//! [`Params`], [`Table`]s and [`Message`]s share their memory. Cloning one, or sending it across the boundary to a
//! thousand clients, copies nothing. The memory is immutable: to change a tensor, write a new one in a [`TensorBuf`]
//! and freeze it.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod aggregator;
#[doc(hidden)]
pub mod boundary;
pub mod buffer;
pub mod class_weights;
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
pub use class_weights::ClassWeights;
pub use component::{Component, Kind, Plugin};
pub use context::{Context, Level, Sampling};
pub use data::{BytesColumn, Column, DEVIATION, ListColumn, NullableColumn, PREDICTED, Table, TextColumn};
pub use dataset::{
    ClientSpec, ClientTask, Dataset, Description, ORIGIN, Scale, Source, TargetKind, Task, TaskSpec, VALIDATION,
    cell_column, cell_name,
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
