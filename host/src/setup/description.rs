//! Checks of a dataset's description.

use plugin_api::{ClientSpec, Description, TaskSpec};

/// The longest name of a client or task, in bytes: with what is added to it, it must be that of a file.
const LONGEST_NAME: usize = 200;

/// The start of a name that is too long to be shown.
fn start(name: &str) -> String {
    name.chars().take(40).collect()
}

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
    // They appear in log lines, and most in paths.
    let names = description.clients.iter().map(|client| ("client", &client.name));
    for (what, name) in names.chain(description.tasks.iter().map(|task| ("task", &task.name))) {
        if name.contains(char::is_control) {
            return wrong(format!("{what} {name:?}: the name contains a control character"));
        }
        if name.len() > LONGEST_NAME {
            let what = format!("{what} `{}…`: the name has {} bytes", start(name), name.len());
            return Err(plugin_api::Error::data(what).help(format!("at most {LONGEST_NAME}")));
        }
    }
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

#[cfg(test)]
mod tests {
    use plugin_api::ClientTask;

    use super::*;

    #[test]
    fn names_can_be_shown_and_be_those_of_files() {
        let check = |client: &str, task: &str| {
            let tasks = vec![ClientTask { name: task.to_owned(), train: 1, validation: 0, test: 1 }];
            let spec = TaskSpec { name: task.to_owned(), ..TaskSpec::default() };
            let client = ClientSpec { name: client.to_owned(), tasks };
            super::check(&Description::new(vec![spec], vec![client], Vec::new()))
        };
        check(&"ä".repeat(100), "a task of one: any/name").unwrap();
        for (client, task, told) in [
            ("a\u{1b}[2Jb", "t", "client \"a\\u{1b}[2Jb\": the name contains a control character"),
            ("a", "t\r", "task \"t\\r\": the name contains a control character"),
            (&"ä".repeat(101), "t", "the name has 202 bytes"),
        ] {
            let error = check(client, task).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
