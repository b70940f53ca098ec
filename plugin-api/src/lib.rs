//! The contract between the fedplug host and its plugins.

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
pub mod message;
pub mod model;
pub mod params;

pub use abi::Buffer;
pub use aggregator::{Aggregator, Update};
pub use component::{Component, Kind, Plugin};
pub use context::{Context, Level, Seed};
pub use data::{Column, Table, TextColumn};
pub use dataset::{ClientSpec, ClientTask, Dataset, Description, Source, Task, TaskSpec};
pub use error::{Error, ErrorKind, Place, Result};
pub use filter::Filter;
pub use message::{Message, State};
pub use model::{Epoch, Evaluation, Goal, Metric, Model, ModelSetup, Received, Trained};
pub use params::{DType, Element, Params, Tensor};
pub use half;
pub use schemars::JsonSchema;
