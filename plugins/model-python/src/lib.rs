//! Components of all four kinds that are classes in Python. The class runs in a process of its own beside the program, in any
//! interpreter, so that its crash ends neither the run nor other clients' processes, and clients do not share a lock.
//!
//! ```toml
//! [model]
//! plugin = "python"
//! script = "my_model.py"
//! class = "MyModel"
//! learning-rate = 0.1        # further keys: those of the class
//! ```
//!
//! The package `fedplug` has the classes to derive from. The process gets it from this library, in the version that fits, so
//! that an interpreter needs NumPy alone. The book's page *Plugins in Python* shows how to write a class.
//!
//! # What happens where
//!
//! - `config`: the keys, and how a class adds its own to them.
//! - `pool`: which process an object is made in. A process holds objects of several clients, one call at a time.
//! - `process`: starting a process, ending it, its last words. All are started from one thread that lives as long as the
//!   library does, since Linux tells a child that its parent died when the *thread* ends that started it.
//! - `worker`, `link`: a call, with everything that may happen before its answer: lines, scalars, a request to stop, a crash.
//! - `segment`, `upload`, `frame`, `encode`, `decode`: how tensors and tables get there and back.
//! - `model`, `dataset`, `aggregator`, `filter`: the traits, each method a call.
//!
//! # Memory
//!
//! Tensors and columns travel in shared memory: anonymous files, sealed so that nobody can shrink them. New pages are what
//! costs, not copying, so that segments are used again. A *lease* is a segment for as long as its content is the same. It ends
//! when the last tensor in it is dropped here and every array over it there, which the process reports. What was sent once is
//! known by its address and not copied again: one copy of the global model serves all clients of a round, and what one
//! process returned is mapped by another as it is. A process maps what it gets privately, so that it may write into it.
//!
//! A process writes into a lease only until it has answered. A script that breaks this on purpose could change tensors
//! afterwards, as a plugin in Rust could.
//!
//! Where there are no such files, and with `shared-memory = false`, the numbers go through the connection.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod aggregator;
mod config;
mod dataset;
mod decode;
mod encode;
mod failure;
mod filter;
mod frame;
mod link;
mod model;
mod object;
mod pool;
mod process;
mod segment;
mod upload;
mod worker;

use plugin_api::{Component, Kind, metrics};

pub use config::Config;

/// The models.
pub fn model() -> Component {
    Component::model("python", "A model that is a class in Python", model::PythonModel::new)
        .scored_by(metrics::SCORE)
        .classes_scored_by(metrics::CLASS_SCORE)
        .on_devices(process::devices)
        .schema_by("class", |config| config::schema(Kind::Model, config))
}

/// The datasets.
pub fn dataset() -> Component {
    Component::dataset("python", "A dataset that is a class in Python", dataset::PythonDataset::new)
        .schema_by("class", |config| config::schema(Kind::Dataset, config))
}

/// The aggregators.
pub fn aggregator() -> Component {
    Component::aggregator("python", "An aggregator that is a class in Python", aggregator::PythonAggregator::new)
        .schema_by("class", |config| config::schema(Kind::Aggregator, config))
}

/// The filters.
pub fn filter() -> Component {
    Component::filter("python", "A filter that is a class in Python", filter::PythonFilter::new)
        .schema_by("class", |config| config::schema(Kind::Filter, config))
}

plugin_api::export_plugin!(model(), dataset(), aggregator(), filter());
