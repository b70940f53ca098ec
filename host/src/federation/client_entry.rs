//! A client's state in a checkpoint.

use plugin_api::State;
use serde::{Deserialize, Serialize};

use crate::artefacts::checkpoint::{Reader, Writer};
use crate::error::CliError;
use crate::federation::client::{ClientState, Failed, Progress};
use crate::federation::component_error::ComponentError;
use crate::federation::filters::FilterStates;
use crate::federation::trace::Trace;

/// What a checkpoint's index holds of a client.
#[derive(Serialize, Deserialize)]
pub(crate) struct ClientEntry {
    /// Its name.
    pub name: String,
    position: u64,
    /// The numbers of states of the filters on incoming and on outgoing messages.
    filters: [usize; 2],
    /// Whether the client's model has changed. Only then does the checkpoint hold its state.
    changed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Whether the model has made its message of this round.
    #[serde(default)]
    sent: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<Failed>,
    /// The last round in which this client's update was aggregated into the global model.
    #[serde(rename = "taken", default, skip_serializing_if = "Option::is_none")]
    last_aggregated: Option<u64>,
    /// For a client at another site: after how many rounds it last trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trained_at_site: Option<u64>,
}

impl ClientEntry {
    /// What the index holds of a client's state. The trace is in a file of its own.
    pub(crate) fn new(name: String, saved: ClientState) -> Self {
        Self {
            name,
            position: saved.position,
            filters: [saved.filters.input.len(), saved.filters.output.len()],
            changed: saved.model.is_some(),
            progress: saved.progress.map(|progress| Progress { trace: Trace::default(), ..progress }),
            sent: saved.sent.is_some(),
            failed: saved.failed,
            last_aggregated: saved.last_aggregated,
            trained_at_site: saved.trained_at_site,
        }
    }
}

/// The error if a component's state cannot be saved.
pub(crate) fn not_saved(fault: ComponentError) -> CliError {
    CliError::run(fault.report("checkpoint"))
}

/// The error if a component cannot be restored.
pub(crate) fn not_restored(fault: ComponentError) -> CliError {
    CliError::run(fault.report("resuming from the checkpoint"))
}

/// The error if a client's scalars cannot be saved or restored.
fn of_trace(error: plugin_api::Error) -> ComponentError {
    ComponentError::new("metrics".to_owned(), error)
}

/// The name in the checkpoint of a part of a client.
fn client_part(index: usize, part: &str) -> String {
    format!("client.{index}.{part}")
}

/// Writes what the index does not hold of a client's state.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn put_client(writer: &mut Writer, index: usize, saved: &ClientState) -> Result<(), CliError> {
    if let Some(state) = &saved.model {
        writer.state(&client_part(index, "model"), state)?;
    }
    put_filters(writer, &format!("client.{index}"), &saved.filters)?;
    if let Some(progress) = &saved.progress {
        let trace = progress.trace.state().map_err(|e| not_saved(of_trace(e)))?;
        writer.state(&client_part(index, "trace"), &trace)?;
    }
    if let Some(message) = &saved.sent {
        writer.message(&client_part(index, "sent"), message)?;
    }
    Ok(())
}

/// Reads a client's state.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn get_client(reader: &Reader, index: usize, entry: ClientEntry) -> Result<ClientState, CliError> {
    let ClientEntry {
        position,
        filters: [inputs, outputs],
        changed,
        progress,
        sent,
        failed,
        last_aggregated,
        trained_at_site,
        ..
    } = entry;
    let trace = || {
        let state = reader.state(&client_part(index, "trace"))?;
        Trace::read(&state).map_err(|e| not_restored(of_trace(e)))
    };
    Ok(ClientState {
        model: changed.then(|| reader.state(&client_part(index, "model"))).transpose()?,
        filters: FilterStates {
            input: get_states(reader, &client_part(index, "0"), inputs)?,
            output: get_states(reader, &client_part(index, "1"), outputs)?,
        },
        position,
        progress: progress.map(|progress| Ok::<_, CliError>(Progress { trace: trace()?, ..progress })).transpose()?,
        sent: sent.then(|| reader.message(&client_part(index, "sent"))).transpose()?,
        failed,
        last_aggregated,
        trained_at_site,
    })
}

/// Writes the states of the filters at one end.
///
/// # Errors
/// If they cannot be written.
pub(crate) fn put_filters(writer: &mut Writer, name: &str, filters: &FilterStates) -> Result<(), CliError> {
    for (side, states) in [&filters.input, &filters.output].into_iter().enumerate() {
        for (index, state) in states.iter().enumerate() {
            writer.state(&format!("{name}.{side}.{index}"), state)?;
        }
    }
    Ok(())
}

/// Reads the states of a chain of filters.
///
/// # Errors
/// If they cannot be read.
pub(crate) fn get_states(reader: &Reader, name: &str, count: usize) -> Result<Vec<State>, CliError> {
    (0..count).map(|index| reader.state(&format!("{name}.{index}"))).collect()
}
