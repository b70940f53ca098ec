//! The manifest of a run, `manifest.json` in its directory.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::artefacts::checkpoint::sha256;
use crate::error::CliError;
use crate::setup::Setup;
use crate::setup::selection::LoadedPlugin;

/// Everything that the results of a run may depend on, and what distinguishes the run from others.
///
/// # Errors
/// If a plugin's library cannot be read.
pub(crate) fn manifest(setup: &Setup) -> Result<Value, CliError> {
    let used = [&setup.data, &setup.model, &setup.aggregation].into_iter();
    let plugins = used.chain(setup.filters.iter().map(|(_, used)| used)).map(plugin).collect::<Result<Vec<_>, _>>()?;
    let clients = setup.description.clients.iter().zip(&setup.placement.devices);
    let clients: Vec<Value> =
        clients.map(|(client, device)| json!({"name": client.name, "device": device, "tasks": client.tasks})).collect();
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Ok(json!({
        "fedplug": env!("CARGO_PKG_VERSION"),
        "interface": plugin_api::boundary::root::INTERFACE,
        "name": setup.experiment.name,
        "seed": setup.experiment.seed,
        "begun": begun,
        "command": command_line(),
        "machine": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        "threads-per-client": setup.experiment.federation.threads_per_client,
        "plugins": plugins,
        "tasks": setup.description.tasks,
        "clients": clients,
        "scales": setup.description.scales,
        "data": setup.description.sources,
    }))
}

/// The arguments of this process.
pub(crate) fn command_line() -> Vec<String> {
    std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect()
}

/// A plugin's entry in the manifest, with the SHA-256 of its library.
fn plugin(used: &LoadedPlugin) -> Result<Value, CliError> {
    let path = &used.library.path;
    let sum = sha256(path).map_err(|e| CliError::io(path, "read the plugin's library", &e))?;
    let mut plugin = used.manifest();
    plugin["sha256"] = sum.into();
    Ok(plugin)
}
