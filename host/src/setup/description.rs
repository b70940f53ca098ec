//! Checks of a dataset's description.

use plugin_api::{ClientSpec, Description, TaskSpec};

/// Checks what the host relies on: names that are unique and valid as folder names.
///
/// # Errors
/// If the dataset's description is invalid.
pub(crate) fn check(description: &Description) -> plugin_api::Result<()> {
    let wrong = |what: String| Err(plugin_api::Error::data(what));
    if description.clients.is_empty() {
        return wrong("there is no client".to_owned());
    }
    let plain = |name: &str| !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0']);
    // If there are several tasks, each has a folder for its best model.
    if let Some(task) = description.tasks.iter().find(|task| description.tasks.len() > 1 && !plain(&task.name)) {
        return wrong(format!("task `{}`: the name cannot be that of a folder", task.name));
    }
    let mut seen = std::collections::BTreeSet::new();
    for client in &description.clients {
        let name = &client.name;
        if !plain(name) || name == crate::artefacts::tracking::SERVER {
            return wrong(format!("client `{name}`: the name cannot be that of a folder"));
        }
        if !seen.insert(name) {
            return wrong(format!("two clients are named `{name}`"));
        }
        let known = |task: &str| description.tasks.iter().any(|spec| spec.name == task);
        if let Some(task) = client.tasks.iter().find(|task| !known(&task.name)) {
            return wrong(format!("client `{name}` has a task `{}`, which the dataset does not have", task.name));
        }
    }
    Ok(())
}

/// Warns of clients without training rows for any task: they take part in rounds but never train.
pub(super) fn warn_of_untrained(description: &Description, ctx: &plugin_api::Context<'_>) {
    const SHOWN: usize = 5;
    let untrained: Vec<&ClientSpec> =
        description.clients.iter().filter(|client| client.tasks.iter().all(|task| task.train == 0)).collect();
    if untrained.is_empty() {
        return;
    }
    let names: Vec<_> = untrained.iter().take(SHOWN).map(|client| format!("`{}`", client.name)).collect();
    let more = match untrained.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    ctx.warn(format_args!("clients without training rows never train: {}{more}", names.join(", ")));
}

/// Warns of tasks without test rows at some clients or at all of them, because their scores would be missing silently.
pub(super) fn warn_of_untested(description: &Description, ctx: &plugin_api::Context<'_>) {
    const SHOWN: usize = 5;
    for TaskSpec { name, .. } in &description.tasks {
        let of_task = |client: &ClientSpec| client.tasks.iter().find(|task| task.name == *name).map(|task| task.test);
        let with_it = description.clients.iter().filter_map(|client| Some((&client.name, of_task(client)?)));
        let (without, with): (Vec<_>, Vec<_>) = with_it.partition(|(_, test)| *test == 0);
        if without.is_empty() {
            continue;
        }
        let names = without.iter().take(SHOWN).map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let more = without.len().saturating_sub(SHOWN);
        let clients = match (with.is_empty(), more) {
            (true, _) => "anywhere".to_owned(),
            (false, 0) => format!("at {names}"),
            (false, more) => format!("at {names} and {more} more clients"),
        };
        ctx.warn(format_args!("task `{name}` has no test rows {clients}"));
    }
}
