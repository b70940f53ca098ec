//! The host's own keys of an experiment.

use std::path::PathBuf;

use plugin_api::config::{self, PathFormat, Problem};
use serde_json::Value;

use super::{Federation, Raw, Repeats, Sweep, check_name, schemas};
use crate::error::Diagnostic;
use crate::experiment::document::Document;
use crate::experiment::paths;

/// The host's own keys of a file, with their errors.
pub(super) struct HostKeys {
    pub(super) values: HostValues,
    pub(super) problems: Vec<Problem>,
    pub(super) reports: Vec<Diagnostic>,
}

/// The values of the host's own keys.
pub(super) struct HostValues {
    pub(super) name: String,
    pub(super) seed: u32,
    pub(super) plugin_path: Vec<PathBuf>,
    pub(super) repeats: Repeats,
    pub(super) sweep: Sweep,
    pub(super) federation: Federation,
}

impl HostKeys {
    /// Reads the keys; those with errors have their defaults.
    pub(super) fn read(document: &Document) -> Self {
        let (mut raw, mut reports) = (None, Vec::new());
        let (schema, _) = schemas();
        let (value, mut unresolved) = match paths::resolved(document, &[], document.value(), &host_paths(document)) {
            Ok(value) => (value, Vec::new()),
            Err(problems) => (document.value().clone(), problems),
        };
        let own = |rest: &Value| {
            Ok(config::read::<Raw>(rest).map_or_else(
                |problems| problems,
                |read| {
                    let problems = [
                        check_name(&read.name),
                        read.repeats.problems(),
                        read.sweep.problems(),
                        read.federation.problems(),
                    ]
                    .concat();
                    raw = Some(read);
                    problems
                },
            ))
        };
        let mut problems = config::check(&schema, &value, own).unwrap_or_else(|error| {
            reports.push(Diagnostic::from(error));
            Vec::new()
        });
        problems.append(&mut unresolved);
        let values = match raw {
            Some(Raw { name, seed, plugin_path, repeats, sweep, federation, .. }) => {
                HostValues { name, seed, plugin_path, repeats, sweep, federation }
            }
            None => HostValues::readable(&value),
        };
        Self { values, problems, reports }
    }
}

impl HostValues {
    /// Those values that can be read in spite of errors in others, and defaults in place of the rest.
    fn readable(value: &Value) -> Self {
        let plugin_path = value.get("plugin-path").and_then(|paths| config::read(paths).ok());
        let federation = value.get("federation").and_then(|table| config::read(table).ok());
        Self {
            name: String::new(),
            seed: 0,
            plugin_path: plugin_path.unwrap_or_default(),
            repeats: Repeats::default(),
            sweep: Sweep::default(),
            federation: federation.unwrap_or_else(Federation::of_one_round),
        }
    }
}

/// Those of the host's own keys that are paths.
pub(crate) fn host_paths(document: &Document) -> Vec<(Vec<String>, PathFormat)> {
    config::paths(&schemas().0, document.value())
}
