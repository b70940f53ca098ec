//! The directory that a run leaves, and the care not to lose an earlier one.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Value, json};

use crate::error::{Failure, Report};
use crate::setup::Setup;
use crate::tensors::write_text;

/// The file that tells a run's directory from any other.
const MANIFEST: &str = "manifest.json";

/// What to do where the directory exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse.
    Refuse,
    /// Remove it, if it is a run's.
    Replace,
    /// Go on from its checkpoint.
    Resume,
}

/// A run's directory.
#[derive(Clone, Debug)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// Makes `parent/name`, or takes the one that is there.
    ///
    /// # Errors
    /// If it exists and should not, or should and does not, or cannot be made.
    pub fn open(parent: &Path, name: &str, existing: Existing) -> Result<Self, Failure> {
        let path = parent.join(name);
        let shown = path.display();
        let empty = std::fs::read_dir(&path).map(|mut entries| entries.next().is_none()).unwrap_or(true);
        match existing {
            Existing::Refuse if !empty => {
                let report = Report::new(format!("{shown}: there is a run in this directory already"));
                let hint = "give this one another name with --name, go on with the old one with --resume, or replace it with --force";
                return Err(Failure::usage(report.hint(hint)));
            }
            Existing::Replace if !empty => {
                if !path.join(MANIFEST).is_file() {
                    let report = Report::new(format!("{shown}: is not the directory of a run, so it is not removed"));
                    return Err(Failure::usage(
                        report.hint("choose another place with --output or another name with --name"),
                    ));
                }
                std::fs::remove_dir_all(&path).map_err(|e| Failure::io(&path, "remove the earlier run", &e))?;
            }
            Existing::Resume if !path.join(MANIFEST).is_file() => {
                let report = Report::new(format!("{shown}: there is no run to go on with"));
                return Err(Failure::usage(report.hint("start it without --resume")));
            }
            _ => {}
        }
        std::fs::create_dir_all(&path).map_err(|e| Failure::io(&path, "make the run's directory", &e))?;
        Ok(Self(path))
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A folder within, made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn folder(&self, name: impl AsRef<Path>) -> Result<PathBuf, Failure> {
        let path = self.0.join(name);
        std::fs::create_dir_all(&path).map_err(|e| Failure::io(&path, "make the folder", &e))?;
        Ok(path)
    }

    /// Writes what the run is made of: `experiment.toml` and `manifest.json`.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn begin(&self, setup: &Setup) -> Result<(), Failure> {
        write_text(&self.0.join("experiment.toml"), &setup.experiment.resolved())?;
        self.write_json(MANIFEST, &manifest(setup))
    }

    /// The experiment as the run in this directory was begun with.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn experiment(&self) -> Result<String, Failure> {
        let path = self.0.join("experiment.toml");
        std::fs::read_to_string(&path).map_err(|e| Failure::io(&path, "read the run's experiment", &e))
    }

    /// Writes a JSON file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), Failure> {
        let path = self.0.join(name);
        let text = serde_json::to_string_pretty(value).map_err(|e| Failure::io(&path, "write", &e.into()))?;
        write_text(&path, &format!("{text}\n"))
    }
}

fn manifest(setup: &Setup) -> Value {
    let plugins: Vec<Value> = [&setup.data, &setup.model, &setup.aggregation]
        .into_iter()
        .chain(setup.filters.iter().map(|(_, used)| used))
        .map(|used| used.manifest())
        .collect();
    let clients = setup.description.clients.iter().zip(&setup.placement.devices);
    let clients: Vec<Value> =
        clients.map(|(client, device)| json!({"name": client.name, "device": device, "tasks": client.tasks})).collect();
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    json!({
        "fedplug": env!("CARGO_PKG_VERSION"),
        "interface": plugin_api::abi::root::INTERFACE,
        "name": setup.experiment.name,
        "seed": setup.experiment.seed,
        "begun": begun,
        "command": std::env::args().collect::<Vec<_>>(),
        "machine": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        "threads-per-client": setup.experiment.federation.threads_per_client,
        "plugins": plugins,
        "tasks": setup.description.tasks,
        "clients": clients,
        "scales": setup.description.scales,
        "data": setup.description.sources,
    })
}
