//! Validation of what components return, before it is used. The compiler and the testkit check most of a plugin's
//! contract; the rest is validated here, so that a violation is an error message and not a wrong result.

use std::borrow::Cow;
use std::collections::BTreeMap;

use plugin_api::{
    ClientSpec, Column, DType, Error, Evaluation, Goal, Message, Params, Result, Table, Task, Tensor, Trained,
};
use serde_json::Value;

use crate::experiment::document::nearest;

/// The maximum length of a line or note that is shown, in bytes.
const LONGEST_LINE: usize = 10_000;

/// The maximum length of a scalar's tag, in bytes.
const LONGEST_TAG: usize = 200;

/// The maximum count. Aggregators use f64 weights, which cannot represent all larger counts.
const MOST: u64 = 1 << 53;

/// Checks a client's tasks against their description: names and numbers of rows.
///
/// # Errors
/// If they differ from the description.
pub(crate) fn loaded(client: &ClientSpec, tasks: Vec<Task>) -> Result<Vec<Task>> {
    let described: Vec<_> =
        client.tasks.iter().map(|task| (task.name.as_str(), task.train, task.test, task.validation)).collect();
    let count = |task: &'_ Task| {
        let validation = task.validation_rows()?.len();
        Ok((task.train.rows() - validation, task.test.rows(), validation))
    };
    let counts = tasks.iter().map(count).collect::<Result<Vec<_>>>()?;
    let came = tasks.iter().zip(counts).map(|(task, (train, test, rows))| (task.spec.name.as_str(), train, test, rows));
    let came: Vec<_> = came.collect();
    if described == came {
        return Ok(tasks);
    }
    let shown = |all: &[(&str, usize, usize, usize)]| {
        let one = |&(name, train, test, validation): &(&str, usize, usize, usize)| match validation {
            0 => format!("`{name}` {train}+{test}"),
            rows => format!("`{name}` {train}+{test} and {rows} for validation"),
        };
        if all.is_empty() { "nothing".to_owned() } else { all.iter().map(one).collect::<Vec<_>>().join(", ") }
    };
    Err(Error::data(format!("`load` returned {}, but `describe` reported {}", shown(&came), shown(&described)))
        .help("have the files changed in the meantime?"))
}

/// Checks that there is one evaluation per task, in order, without duplicate metrics. If `score` names a metric, it
/// replaces the score.
///
/// # Errors
/// If the evaluations do not match the tasks, a metric appears twice, or there is no metric for the score.
pub(crate) fn evaluations(tasks: &[Task], mut found: Vec<Evaluation>, score: Option<&str>) -> Result<Vec<Evaluation>> {
    let tasks: Vec<_> = tasks.iter().map(|task| &task.spec.name).collect();
    if !found.iter().map(|evaluation| &evaluation.task).eq(tasks.iter().copied()) {
        return Err(Error::other(format!(
            "`evaluate` did not return exactly one evaluation for each of the tasks {tasks:?}"
        )));
    }
    for Evaluation { task, metrics, .. } in &found {
        let twice = metrics.iter().enumerate().find(|(k, metric)| metrics[..*k].iter().any(|m| m.name == metric.name));
        if let Some((_, metric)) = twice {
            return Err(Error::other(format!(
                "`evaluate` returned the metric `{}` of task `{task}` twice",
                metric.name
            )));
        }
    }
    if let Some(name) = score {
        found.iter_mut().try_for_each(|evaluation| score_by(name, evaluation))?;
    }
    Ok(found)
}

/// Makes a metric the score of an evaluation.
///
/// # Errors
/// If there is no such metric.
pub(crate) fn score_by(name: &str, evaluation: &mut Evaluation) -> Result<()> {
    let Evaluation { task, metrics, score, .. } = evaluation;
    let Some(metric) = metrics.iter().find(|metric| metric.name == name) else {
        let known: Vec<&str> = metrics.iter().map(|metric| metric.name.as_str()).collect();
        let hint = match nearest(name, &known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("available: {}", known.join(", ")),
        };
        return Err(Error::config(format!("the model reports no metric `{name}` for task `{task}`")).help(hint));
    };
    *score = match metric.goal {
        Goal::Higher => metric.value,
        Goal::Lower => -metric.value,
    };
    Ok(())
}

/// Checks that there is one prediction per row, in columns that can be written as text.
///
/// # Errors
/// If there are no columns, the number of rows differs, or a column cannot be written as text.
pub(crate) fn predictions(task: &str, rows: &Table, found: Table) -> Result<Table> {
    let wrong = |what: String| Err(Error::other(format!("task `{task}`: {what}")));
    if found.columns().len() == 0 {
        return wrong("`predict` returned no column".to_owned());
    }
    if found.rows() != rows.rows() {
        return wrong(format!("{} predictions for {} rows", found.rows(), rows.rows()));
    }
    if let Some((name, column)) = found.columns().find(|(_, column)| !is_written(column)) {
        return wrong(format!("the predictions' column `{name}` holds {}", column.kind()));
    }
    Ok(found)
}

/// Whether a column can be written as text.
pub(crate) fn is_written(column: &Column) -> bool {
    match column {
        Column::Nullable(column) => is_written(column.values()),
        Column::Bytes(_) | Column::List(_) => false,
        _ => true,
    }
}

/// Adds the counts of another epoch.
///
/// # Errors
/// If the sum is impossibly large, or there are steps without examples.
pub(crate) fn trained(so_far: Trained, more: Trained) -> Result<Trained> {
    if more.steps > 0 && more.examples == 0 {
        return Err(Error::other(format!("`train` reported {} steps on no examples", more.steps)));
    }
    let sum = |a: u64, b: u64| a.checked_add(b).filter(|sum| *sum <= MOST);
    match (sum(so_far.steps, more.steps), sum(so_far.examples, more.examples)) {
        (Some(steps), Some(examples)) => Ok(Trained { steps, examples }),
        _ => {
            let what = format!("`train` reported {} steps on {} examples", more.steps, more.examples);
            Err(Error::other(what))
        }
    }
}

/// Checks what a filter returns.
///
/// # Errors
/// If the message was not empty before the filter and is empty now.
pub(crate) fn filtered(was_empty: bool, message: Message) -> Result<Message> {
    if !was_empty && is_empty(&message) {
        let error = Error::other("the message is empty");
        return Err(error.help("to stop a message, a filter returns an error that says why"));
    }
    Ok(message)
}

/// Whether a message has no content.
pub(crate) fn is_empty(message: &Message) -> bool {
    message.params.is_empty() && message.extra.is_empty() && message.values.is_empty()
}

/// Data types and shapes of the model's parameters, by name. Updates and global models must match it in all rounds,
/// even if a global model lacks the parameters that clients keep private.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout(BTreeMap<String, (DType, Vec<usize>)>);

impl Layout {
    /// The layout of a complete model.
    pub(crate) fn of(params: &Params) -> Self {
        Self(params.iter().map(|(name, tensor)| (name.to_owned(), (tensor.dtype(), tensor.shape().to_vec()))).collect())
    }

    /// Reads a layout.
    ///
    /// # Errors
    /// If it is none.
    pub(crate) fn from_json(value: &Value) -> Result<Self> {
        let wrong = |e: &serde_json::Error| Error::data("the layout of the model cannot be read").because(e);
        let read: BTreeMap<String, (u8, u8, Vec<usize>)> =
            serde_json::from_value(value.clone()).map_err(|e| wrong(&e))?;
        let entry = |(name, (code, bits, shape))| {
            let dtype = DType::from_dlpack(code, bits);
            dtype.map(|dtype| (name, (dtype, shape))).ok_or_else(|| Error::data("the layout has an unknown data type"))
        };
        Ok(Self(read.into_iter().map(entry).collect::<Result<_>>()?))
    }

    /// The layout as JSON: DLPack's type code and bits, and the shape, by name.
    pub(crate) fn to_json(&self) -> Value {
        let entry = |(name, (dtype, shape)): (&String, &(DType, Vec<usize>))| {
            let (code, bits) = dtype.dlpack();
            (name.clone(), serde_json::json!([code, bits, shape]))
        };
        Value::Object(self.0.iter().map(entry).collect())
    }

    /// Checks that these parameters are among the model's.
    ///
    /// # Errors
    /// If one is unknown, or has another type or shape.
    pub(crate) fn holds(&self, params: &Params) -> Result<()> {
        params.iter().try_for_each(|(name, tensor)| self.check(name, tensor, false))
    }

    /// Checks that these parameters are the model's, all of them.
    ///
    /// # Errors
    /// If one is missing, unknown, or has another type or shape.
    pub(crate) fn covers(&self, params: &Params) -> Result<()> {
        self.holds(params)?;
        match self.0.keys().find(|name| params.get(name).is_none()) {
            Some(name) => Err(Error::tensor(name, "is missing")),
            None => Ok(()),
        }
    }

    /// Checks that the model has a parameter with this name, shape and, unless `any_type`, type.
    fn check(&self, name: &str, tensor: &Tensor, any_type: bool) -> Result<()> {
        match self.0.get(name) {
            None => Err(Error::tensor(name, "the model has no such parameter")),
            Some((dtype, shape)) => fits(name, tensor, (*dtype, shape), any_type),
        }
    }
}

fn fits(name: &str, tensor: &Tensor, (dtype, shape): (DType, &[usize]), any_type: bool) -> Result<()> {
    if tensor.shape() == shape && (any_type || tensor.dtype() == dtype) {
        return Ok(());
    }
    Err(Error::tensor(name, format!("is {tensor:?}, but {dtype}{shape:?} in the model")))
}

/// Checks a client's update after all filters, before the aggregator receives it. If `encoded`, the aggregator's own
/// filter may have changed the types, so they are not checked.
///
/// # Errors
/// If it has no parameters, a parameter that the model lacks or has with another shape or type, another tensor that
/// does not match the global model, or a value that is not finite.
pub(crate) fn update(layout: &Layout, global: &Message, message: &Message, encoded: bool) -> Result<()> {
    if message.params.is_empty() {
        return Err(Error::other("it has no parameters"));
    }
    let known = message.params.iter().try_for_each(|(name, tensor)| layout.check(name, tensor, encoded));
    known.map_err(|e| e.help("a filter that encodes is needed at both ends: `client-output` and `server-input`"))?;
    for (name, tensor) in message.extra.iter() {
        if let Some(before) = global.extra.get(name) {
            fits(name, tensor, (before.dtype(), before.shape()), encoded)?;
        }
    }
    let threads = threads();
    match message.params.not_finite(threads).or_else(|| message.extra.not_finite(threads)) {
        None => Ok(()),
        Some(name) => {
            let error = Error::tensor(name, "it contains a value that is not finite");
            Err(error.help("training may have diverged; try a lower learning rate"))
        }
    }
}

/// Checks the next global model.
///
/// # Errors
/// If it has no parameters, a parameter that the model lacks or has with another shape or type, or a value that is not
/// finite.
pub(crate) fn aggregated(layout: &Layout, next: Message) -> Result<Message> {
    if next.params.is_empty() && !layout.0.is_empty() {
        return Err(Error::other("`finish` returned a global model without parameters"));
    }
    let known = next.params.iter().try_for_each(|(name, tensor)| layout.check(name, tensor, false));
    known.map_err(|e| e.because_of("`finish` returned a global model that does not fit the model"))?;
    let threads = threads();
    match next.params.not_finite(threads).or_else(|| next.extra.not_finite(threads)) {
        None => Ok(next),
        Some(name) => Err(Error::tensor(name, "`finish` returned a value that is not finite")),
    }
}

/// The number of threads that search for values that are not finite. No client works at that time, so all cores are
/// free.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A line for display, truncated if it is too long.
pub(crate) fn line(line: &str) -> Cow<'_, str> {
    cut(line, LONGEST_LINE, |rest| format!("… ({rest} more bytes)"))
}

/// A tag for writing: not empty, not too long, and without control characters.
pub(crate) fn tag(tag: &str) -> Cow<'_, str> {
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
    use plugin_api::{ClientTask, TaskSpec, VALIDATION};

    use super::*;

    #[test]
    fn lines_and_tags_are_cut_between_characters() {
        assert!(matches!(line("short"), Cow::Borrowed("short")));
        let long = "ä".repeat(6000);
        let shown = line(&long);
        assert!(shown.starts_with("ää") && shown.ends_with("ä… (2000 more bytes)"), "{}", &shown[9990..]);
        assert_eq!(tag("Loss/train"), "Loss/train");
        assert_eq!((tag(""), tag("a\nb\u{1b}c")), ("untagged".into(), "a_b_c".into()));
        assert_eq!(tag(&"x".repeat(300)).chars().count(), 201);
    }

    #[test]
    fn loaded_rows_are_those_of_the_description_also_for_validation() {
        let marks = Column::bool(&[false, true, false]);
        let train =
            Table::new().with("y", Column::f32(&[1.0, 2.0, 3.0])).and_then(|t| t.with(VALIDATION, marks)).unwrap();
        let task = Task { spec: TaskSpec::new("t", ["x"], "y"), train, test: Table::new() };
        let described = |train, validation| {
            let tasks = vec![ClientTask { name: "t".to_owned(), train, test: 0, validation }];
            loaded(&ClientSpec { name: "c".to_owned(), tasks }, vec![task.clone()]).map(drop)
        };
        assert_eq!(described(2, 1), Ok(()));
        let error = described(3, 0).unwrap_err();
        assert_eq!(error.message(), "`load` returned `t` 2+0 and 1 for validation, but `describe` reported `t` 3+0");
    }

    #[test]
    fn counts_that_nobody_can_have_trained_are_refused() {
        let count = |steps, examples| Trained { steps, examples };
        assert_eq!(trained(count(1, 10), count(2, 20)), Ok(count(3, 30)));
        for more in [count(u64::MAX, 1), count(1, u64::MAX), count(MOST, 1), count(1, 0)] {
            assert!(trained(count(1, 10), more).unwrap_err().message().starts_with("`train` reported"));
        }
    }

    #[test]
    fn an_update_fits_the_model_and_is_finite() {
        let f32s = |values: &[f32]| Tensor::from_slice(&[values.len()], values).unwrap();
        let params = |all: &[(&str, Tensor)]| all.iter().cloned().collect::<Params>();
        let layout = Layout::of(&params(&[("w", f32s(&[0.0, 0.0])), ("head", f32s(&[0.0]))]));
        let control = params(&[("c", f32s(&[0.0]))]);
        // The global model lacks the head, and the first update has no control variate to match yet.
        let global =
            Message { params: params(&[("w", f32s(&[0.0, 0.0]))]), extra: control.clone(), ..Message::default() };
        let whole = params(&[("w", f32s(&[1.0, 2.0])), ("head", f32s(&[3.0]))]);
        let sent = |params: Params, extra: Params| Message { params, extra, ..Message::default() };
        let told = |message: &Message, encoded: bool| {
            update(&layout, &global, message, encoded).map_or_else(|e| e.to_string(), |()| String::new())
        };
        assert_eq!(told(&sent(whole.clone(), control), false), "");
        assert_eq!(told(&sent(whole.clone(), params(&[("other", f32s(&[1.0; 9]))])), false), "");
        let masked = Tensor::from_slice(&[2], &[1_i32, 2]).unwrap();
        assert_eq!(told(&params(&[("w", masked.clone())]).into(), true), "");
        for (bad, text) in [
            (params(&[("w", masked)]).into(), "tensor `w`: is i32[2], but f32[2] in the model"),
            (params(&[("w", f32s(&[1.0]))]).into(), "tensor `w`: is f32[1], but f32[2] in the model"),
            (params(&[("head", f32s(&[1.0, 2.0]))]).into(), "tensor `head`: is f32[2], but f32[1] in the model"),
            (params(&[("v", f32s(&[1.0]))]).into(), "tensor `v`: the model has no such parameter"),
            (params(&[("w", f32s(&[0.0, f32::NAN]))]).into(), "tensor `w`: it contains a value that is not finite"),
            (Message::default(), "it has no parameters"),
            (
                sent(whole.clone(), params(&[("c", f32s(&[1.0, 2.0]))])),
                "tensor `c`: is f32[2], but f32[1] in the model",
            ),
            (
                sent(whole, params(&[("d", f32s(&[f32::INFINITY]))])),
                "tensor `d`: it contains a value that is not finite",
            ),
        ] {
            assert_eq!(told(&bad, false), text);
        }
    }
}
