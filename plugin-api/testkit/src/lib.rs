//! Checks whether a plugin keeps the contract, for use in its author's tests.
//!
//! The checks drive a component through the boundary, as a host does: configurations as text, tensors as wire types,
//! panics as errors. They cover what a run relies on and what unit tests easily miss: the same result for the same
//! seed, a state that resumes bit for bit, errors that name the tensor and change nothing, empty tables and messages,
//! NaN, cancellation, memory over a thousand calls, and a schema that matches what the component accepts. The result is
//! a [`Verdict`]. For each failing check it says what was expected, what happened, and why it matters.
//!
//! A plugin's test is a few lines in `tests/conformance.rs`. Keep it in its own file, so that the memory of other tests
//! is not counted:
//!
//! ```
//! use plugin_testkit::{self as testkit, Verdict};
//! use plugin_api::{Component, Context, Filter, JsonSchema, Message, Params, Result, Tensor};
//! use serde::Deserialize;
//! use serde_json::json;
//!
//! // In the plugin's lib.rs, with `plugin_api::export_plugin!(component());` below it.
//! /// The keys of the filter's table.
//! #[derive(Deserialize, JsonSchema)]
//! #[schemars(crate = "plugin_api::schemars")]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     /// What all f32 parameters are multiplied by.
//!     factor: f32,
//! }
//!
//! struct Scale(f32);
//!
//! impl Filter for Scale {
//!     fn apply(&mut self, mut message: Message, _: &Message, _: &Context<'_>) -> Result<Message> {
//!         let scaled = |(name, tensor): (&str, &Tensor)| -> Result<(String, Tensor)> {
//!             let Ok(all) = tensor.elements::<f32>() else { return Ok((name.to_owned(), tensor.clone())) };
//!             let all: Vec<f32> = all.iter().map(|x| x * self.0).collect();
//!             Ok((name.to_owned(), Tensor::from_slice(tensor.shape(), &all)?))
//!         };
//!         message.params = message.params.iter().map(scaled).collect::<Result<Params>>()?;
//!         Ok(message)
//!     }
//! }
//!
//! fn component() -> Component {
//!     Component::filter("scale", "multiplies all parameters", |config: Config, _| Ok(Scale(config.factor)))
//! }
//!
//! // The whole test, with `#[test]` before it.
//! fn conforms() {
//!     testkit::check_filter(&component(), &json!({ "factor": 0.5 })).assert();
//! }
//! # conforms();
//! ```
//!
//! This needs `fedplug-testkit = "1"` under `[dev-dependencies]`. To test the built library instead, which `cargo test`
//! puts next to the test if the crate has `crate-type = ["cdylib", "rlib"]`:
//!
//! ```no_run
//! use plugin_api::Kind;
//! use plugin_testkit as testkit;
//! use serde_json::json;
//!
//! # fn main() -> plugin_api::Result<()> {
//! let component = testkit::load(testkit::built("filter-scale"), Kind::Filter)?;
//! testkit::check_filter(&component, &json!({ "factor": 0.5 })).assert();
//! # Ok(())
//! # }
//! ```
//!
//! If the sample data does not suit, [`ModelCheck`], [`DatasetCheck`], [`AggregatorCheck`] and [`FilterCheck`] accept
//! other data. If a component fails a check on purpose, [excuse](Verdict::excuse) it and give the reason.
//!
//! # Limits
//! - A log line has at most [`LONGEST_LINE`] bytes. A call logs at most [`LINES_OF_A_CALL`] bytes and records at most
//!   [`SCALARS_OF_A_CALL`] scalars, with tags of at most [`LONGEST_TAG`] bytes and no control characters.
//! - After the host asks a call to stop, the call may ask at most [`FURTHER_STEPS`] more times.
//! - The process may grow by [`MEMORY_ALLOWANCE`] bytes in [`MEMORY_CALLS`] calls. This is measured on Linux, by
//!   resident pages, and not checked on other systems. If the first 200 calls add at most 1 MiB, no more are made. Slow
//!   components get a few seconds, and at least 30 calls.
//!
//! Checks in one process run one at a time, so that they do not measure each other's memory.

mod aggregator;
mod compare;
mod configuration;
mod dataset;
mod filter;
mod folder;
mod memory;
mod model;
mod sample;
mod states;
mod subject;
mod verdict;
mod watcher;

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

pub use aggregator::AggregatorCheck;
pub use dataset::DatasetCheck;
pub use filter::FilterCheck;
pub use memory::{ALLOWANCE as MEMORY_ALLOWANCE, CALLS as MEMORY_CALLS};
pub use model::ModelCheck;
pub use sample::{message, tasks};
pub use verdict::{Check, Finding, Outcome, Verdict};
pub use watcher::{FURTHER_STEPS, LINES_OF_A_CALL, LONGEST_LINE, LONGEST_TAG, SCALARS_OF_A_CALL};

use plugin_api::boundary::root;
use plugin_api::{Component, Error, Kind, Result, Task};

/// Checks a model with this configuration on these tasks: [`tasks`], or a few rows of your own.
pub fn check_model(component: &Component, config: &Value, tasks: &[Task]) -> Verdict {
    ModelCheck::new(component, config, tasks).check()
}

/// Checks a dataset with this configuration, which must refer to data.
pub fn check_dataset(component: &Component, config: &Value) -> Verdict {
    DatasetCheck::new(component, config).check()
}

/// Checks an aggregator with this configuration and six clients that send small f32 tensors.
pub fn check_aggregator(component: &Component, config: &Value) -> Verdict {
    AggregatorCheck::new(component, config).check()
}

/// Checks a filter with this configuration, at a client that sends the parameters of [`message`].
pub fn check_filter(component: &Component, config: &Value) -> Verdict {
    FilterCheck::new(component, config).check()
}

/// Checks the configuration of a component of any kind, without creating the component.
pub fn check_configuration(component: &Component, config: &Value) -> Verdict {
    let subject = subject::Subject::new(component, config);
    let mut verdict = Verdict::new(subject.title());
    configuration::check(&subject, &mut verdict);
    verdict
}

/// Loads the only component of this kind from a plugin's library.
///
/// # Errors
/// If the library cannot be opened, is not a plugin for this interface, or has no component of the kind or several.
pub fn load(library: impl AsRef<Path>, kind: Kind) -> Result<Component> {
    find(library.as_ref(), kind, None)
}

/// Loads the component of this kind and name from a plugin's library.
///
/// # Errors
/// If the library cannot be opened, is not a plugin for this interface, or has no such component.
pub fn load_named(library: impl AsRef<Path>, kind: Kind, name: &str) -> Result<Component> {
    find(library.as_ref(), kind, Some(name))
}

fn find(library: &Path, kind: Kind, name: Option<&str>) -> Result<Component> {
    let wrong = |what: String| Error::other(what).in_file(library, None);
    // For a bare file name, the dynamic loader would search its own list of folders.
    let path = library.canonicalize().map_err(|e| Error::io(library, &e))?;
    // SAFETY: the caller asked to test this plugin.
    let plugin = unsafe { root::load(&path) }.map_err(|error| wrong(error.to_string()))?;
    plugin.find(kind, name).cloned().ok_or_else(|| {
        let which = name.map_or_else(|| format!("not one {kind}"), |name| format!("no {kind} `{name}`"));
        wrong(format!("the library has {which}")).help(format!("it has: {:?}", plugin.components))
    })
}

/// The path where `cargo test` puts the library of the package whose integration test is running: next to the test. The
/// package must have `crate-type = ["cdylib", "rlib"]`, and no different `name` under `[lib]`.
pub fn built(package: &str) -> PathBuf {
    let folder = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned)).unwrap_or_default();
    folder.join(format!("{DLL_PREFIX}{}{DLL_SUFFIX}", package.replace('-', "_")))
}

/// Blocks all other checks in the process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
