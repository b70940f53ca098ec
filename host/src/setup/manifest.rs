//! The manifest of a run, `manifest.json` in its directory.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::artefacts::checkpoint::sha256;
use crate::error::CliError;
use crate::setup::Shared;
use crate::setup::plugins::LoadedPlugin;

/// Everything that the results of a run may depend on, and what distinguishes the run from others. `devices` are those
/// of the clients.
///
/// # Errors
/// If a plugin's library cannot be read.
pub(crate) fn manifest(shared: &Shared, devices: &[String]) -> Result<Value, CliError> {
    let Shared { experiment, plugins, description, .. } = shared;
    let plugins = plugins.iter().map(plugin).collect::<Result<Vec<_>, _>>()?;
    let clients = description.clients.iter().zip(devices);
    let clients: Vec<Value> =
        clients.map(|(client, device)| json!({"name": client.name, "device": device, "tasks": client.tasks})).collect();
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Ok(json!({
        "fedplug": env!("CARGO_PKG_VERSION"),
        "interface": plugin_api::boundary::root::INTERFACE,
        "name": experiment.name,
        "seed": experiment.seed,
        "begun": begun,
        "command": command_line(),
        "machine": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        "threads-per-client": experiment.federation.threads_per_client,
        "plugins": plugins,
        "tasks": description.tasks,
        "clients": clients,
        "scales": description.scales,
        "data": description.sources,
    }))
}

/// The arguments of this process.
pub(crate) fn command_line() -> Vec<String> {
    std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect()
}

/// A plugin's entry in the manifest, with the SHA-256 of its library.
pub(crate) fn plugin(used: &LoadedPlugin) -> Result<Value, CliError> {
    let path = &used.library.path;
    let sum = sha256(path).map_err(|e| CliError::io(path, "read the plugin's library", &e))?;
    let mut plugin = used.manifest();
    plugin["sha256"] = sum.into();
    Ok(plugin)
}
