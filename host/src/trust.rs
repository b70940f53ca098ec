//! What components give, looked at before it is used. Who writes a plugin is held to the contract by the compiler and by
//! the testkit; what slips through both ends here, with a sentence, and not in a file of results.

use std::borrow::Cow;

use plugin_api::{ClientSpec, Error, Evaluation, Message, Result, Table, Task, Trained};

/// The longest line and note that is shown, in bytes.
const LONGEST_LINE: usize = 10_000;

/// The longest tag of a scalar, in bytes.
const LONGEST_TAG: usize = 200;

/// Above it aggregators could not tell counts apart, since they weigh by f64.
const MOST: u64 = 1 << 53;

/// The name and the number of rows of each task that a client was said to have.
///
/// # Errors
/// If it got others.
pub fn loaded(client: &ClientSpec, tasks: Vec<Task>) -> Result<Vec<Task>> {
    let described = client.tasks.iter().map(|task| (task.name.as_str(), task.train, task.test));
    let came = tasks.iter().map(|task| (task.spec.name.as_str(), task.train.rows(), task.test.rows()));
    if described.clone().eq(came.clone()) {
        return Ok(tasks);
    }
    let shown = |all: &[(&str, usize, usize)]| {
        let one = |(name, train, test): &(&str, usize, usize)| format!("`{name}` {train}+{test}");
        if all.is_empty() { "nothing".to_owned() } else { all.iter().map(one).collect::<Vec<_>>().join(", ") }
    };
    let (described, came): (Vec<_>, Vec<_>) = (described.collect(), came.collect());
    Err(Error::data(format!("`load` gives {}, and `describe` says {}", shown(&came), shown(&described)))
        .help("did the files change in between?"))
}

/// An answer for each task, in order, with each metric once.
///
/// # Errors
/// If they are others.
pub fn evaluations(tasks: &[Task], found: Vec<Evaluation>) -> Result<Vec<Evaluation>> {
    let tasks: Vec<_> = tasks.iter().map(|task| &task.spec.name).collect();
    if !found.iter().map(|evaluation| &evaluation.task).eq(tasks.iter().copied()) {
        return Err(Error::other(format!("`evaluate` did not answer for each of the tasks {tasks:?} once")));
    }
    for Evaluation { task, metrics, .. } in &found {
        let twice = metrics.iter().enumerate().find(|(k, metric)| metrics[..*k].iter().any(|m| m.name == metric.name));
        if let Some((_, metric)) = twice {
            return Err(Error::other(format!("`evaluate` gives the metric `{}` of task `{task}` twice", metric.name)));
        }
    }
    Ok(found)
}

/// A prediction for each row.
///
/// # Errors
/// If there are more or fewer.
pub fn predictions(task: &str, rows: &Table, found: Vec<f32>) -> Result<Vec<f32>> {
    if found.len() == rows.rows() {
        return Ok(found);
    }
    Err(Error::other(format!("task `{task}`: {} predictions for {} rows", found.len(), rows.rows())))
}

/// What was trained so far and in one more epoch.
///
/// # Errors
/// If it is more than anybody can have trained.
pub fn trained(so_far: Trained, more: Trained) -> Result<Trained> {
    let sum = |a: u64, b: u64| a.checked_add(b).filter(|sum| *sum <= MOST);
    match (sum(so_far.steps, more.steps), sum(so_far.examples, more.examples)) {
        (Some(steps), Some(examples)) => Ok(Trained { steps, examples }),
        _ => {
            let what = format!("`train` says that it took {} steps on {} examples", more.steps, more.examples);
            Err(Error::other(what))
        }
    }
}

/// What a filter left of a message.
///
/// # Errors
/// If there was something, and nothing is left.
pub fn filtered(was_empty: bool, message: Message) -> Result<Message> {
    if !was_empty && is_empty(&message) {
        let error = Error::other("nothing is left of the message");
        return Err(error.help("a filter that means to stop a message returns an error that says why"));
    }
    Ok(message)
}

/// Whether a message says nothing at all.
pub fn is_empty(message: &Message) -> bool {
    message.params.is_empty() && message.extra.is_empty() && message.values.is_empty()
}

/// The next global model.
///
/// # Errors
/// If all of the one before is gone, or a value is not finite.
pub fn aggregated(before: &Message, next: Message) -> Result<Message> {
    if next.params.is_empty() && !before.params.is_empty() {
        return Err(Error::other("`finish` gives a global model without parameters"));
    }
    if let Some((name, _)) = next.params.iter().chain(next.extra.iter()).find(|(_, tensor)| !tensor.is_finite()) {
        return Err(Error::tensor(name, "`finish` gives a value that is not finite"));
    }
    Ok(next)
}

/// A line as it is shown: cut if it is too long to be read.
pub fn line(line: &str) -> Cow<'_, str> {
    cut(line, LONGEST_LINE, |rest| format!("… (cut, {rest} bytes more)"))
}

/// A tag as it is written: something, of moderate length, without control characters.
pub fn tag(tag: &str) -> Cow<'_, str> {
    if tag.is_empty() {
        return "untagged".into();
    }
    let tag = cut(tag, LONGEST_TAG, |_| "…".to_owned());
    if tag.contains(char::is_control) { tag.replace(char::is_control, "_").into() } else { tag }
}

fn cut(text: &str, longest: usize, mark: impl FnOnce(usize) -> String) -> Cow<'_, str> {
    if text.len() <= longest {
        return text.into();
    }
    let end = (0..=longest).rev().find(|&end| text.is_char_boundary(end)).unwrap_or_default();
    format!("{}{}", &text[..end], mark(text.len() - end)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_tags_are_cut_between_characters() {
        assert!(matches!(line("short"), Cow::Borrowed("short")));
        let long = "ä".repeat(6000);
        let shown = line(&long);
        assert!(shown.starts_with("ää") && shown.ends_with("ä… (cut, 2000 bytes more)"), "{}", &shown[9990..]);
        assert_eq!(tag("Loss/train"), "Loss/train");
        assert_eq!((tag(""), tag("a\nb\u{1b}c")), ("untagged".into(), "a_b_c".into()));
        assert_eq!(tag(&"x".repeat(300)).chars().count(), 201);
    }

    #[test]
    fn counts_that_nobody_can_have_trained_are_refused() {
        let count = |steps, examples| Trained { steps, examples };
        assert_eq!(trained(count(1, 10), count(2, 20)), Ok(count(3, 30)));
        for more in [count(u64::MAX, 1), count(1, u64::MAX), count(MOST, 1)] {
            assert!(trained(count(1, 10), more).unwrap_err().message().starts_with("`train` says that it took"));
        }
    }
}
