//! The contract between the fedplug host and its plugins: what a plugin author reads first.
//!
//! A plugin is a shared library that offers components of four kinds: a [`Model`] that clients train, a [`Dataset`]
//! that says which clients there are and what data they have, an [`Aggregator`] that makes one global model of many
//! updates, a [`Filter`] that changes messages on their way. An author implements one of these traits in ordinary Rust
//! and writes one line, [`export_plugin!`]. This is a whole plugin:
//!
//! ```no_run
//! //! The mean of the updates, each of equal weight.
//! use plugin_api::{Aggregator, Cohort, Component, Context, Error, JsonSchema, Message, Params, Result, Tensor, Update};
//! use serde::Deserialize;
//!
//! /// The keys of the experiment's `[aggregator]` table.
//! #[derive(Deserialize, JsonSchema)]
//! #[schemars(crate = "plugin_api::schemars")]
//! #[serde(deny_unknown_fields)]
//! struct Config {}
//!
//! struct Mean {
//!     sum: Params,
//!     clients: u32,
//! }
//!
//! impl Mean {
//!     fn new(_: Config, _: &Context<'_>) -> Result<Self> {
//!         Ok(Self { sum: Params::new(), clients: 0 })
//!     }
//! }
//!
//! impl Aggregator for Mean {
//!     fn begin(&mut self, _: &Message, _: &Cohort, ctx: &Context<'_>) -> Result<()> {
//!         *self = Self::new(Config {}, ctx)?;
//!         Ok(())
//!     }
//!     fn add(&mut self, update: Update, _: &Context<'_>) -> Result<()> {
//!         for (name, tensor) in update.message.params.iter() {
//!             let new = tensor.elements::<f32>()?;
//!             let sum = match self.sum.get(name) {
//!                 None => tensor.clone(),
//!                 Some(_) => {
//!                     let old = self.sum.elements::<f32>(name, tensor.shape())?;
//!                     Tensor::build(tensor.shape(), |sum| (0..new.len()).for_each(|i| sum[i] = old[i] + new[i]))
//!                 }
//!             };
//!             self.sum.insert(name, sum);
//!         }
//!         self.clients += 1;
//!         Ok(())
//!     }
//!     fn finish(&mut self, ctx: &Context<'_>) -> Result<Message> {
//!         ctx.info(format_args!("mean of {} updates", self.clients));
//!         let mean = |(name, sum): (&str, &Tensor)| -> Result<(String, Tensor)> {
//!             let mean: Vec<f32> = sum.elements::<f32>()?.iter().map(|x| x / self.clients as f32).collect();
//!             Ok((name.to_owned(), Tensor::from_slice(sum.shape(), &mean)?))
//!         };
//!         Ok(self.sum.iter().map(mean).collect::<Result<Params>>()?.into())
//!     }
//! }
//!
//! plugin_api::export_plugin!(Component::aggregator("mean", "The mean of all updates", Mean::new));
//! # fn main() {}
//! ```
//!
//! with a `Cargo.toml` that says
//!
//! ```toml
//! [package]
//! name = "aggregator-mean"       # <kind>-<name>: so the host finds the library by the component's name
//! edition = "2024"
//!
//! [lib]
//! crate-type = ["cdylib"]
//!
//! [dependencies]
//! plugin-api = "0.1"
//! serde = { version = "1", features = ["derive"] }
//! ```
//!
//! After `cargo build --release` an experiment names it: `plugin = "mean"` in its `[aggregator]` table, with
//! `fedplug run FILE --plugin-dir target/release`. In the project's `plugins` folder, `model-linear` is the model to
//! copy, `filter-exclude-params` the filter, `aggregator-fedavg` the aggregator, `dataset-flab` the dataset.
//!
//! # What is called when
//!
//! The host makes a component by its constructor, with the component's table of the experiment read into its `Config`;
//! it calls an instance from one thread at a time, not always the same. Each trait's page says in which order. Whatever
//! happens between two calls of an instance is the instance's own: there are no globals and no callbacks to wait for.
//!
//! Every call gets a [`Context`]: log lines, scalars for TensorBoard, progress, whether to stop, the device, and a
//! [`Seed`]. A plugin takes all randomness from that seed, so that an experiment gives the same bits on every run.
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
//! thousand clients, copies nothing. It is immutable; who changes a tensor makes a new one.

#![cfg_attr(test, allow(clippy::unwrap_used))]

#[doc(hidden)]
pub mod abi;
pub mod aggregator;
pub mod component;
pub mod config;
pub mod context;
pub mod data;
pub mod dataset;
pub mod error;
#[doc(hidden)]
pub mod export;
pub mod filter;
pub mod mean;
pub mod message;
pub mod model;
pub mod params;
#[cfg(feature = "testkit")]
pub mod testkit;

pub use abi::Buffer;
pub use aggregator::{Aggregator, Cohort, Letter, Stage, Update, WeightBy};
pub use component::{Component, Kind, Plugin};
pub use context::{Context, Level, Seed};
pub use data::{Column, Table, TextColumn};
pub use dataset::{ClientSpec, ClientTask, Dataset, Description, Source, Task, TaskSpec};
pub use error::{Error, ErrorKind, Place, Result};
pub use filter::Filter;
pub use half;
pub use mean::WeightedMean;
pub use message::{Message, State};
pub use model::{Epoch, Evaluation, Goal, Metric, Model, ModelSetup, Received, Trained};
pub use params::{DType, Element, Float, Params, Tensor};
pub use schemars::{self, JsonSchema};
