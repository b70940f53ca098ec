//! The tasks as the keys say them: each with all that is needed to read it.

use fedplug_tables::{GroupBy, TEST_FRACTION, is_folder_name};
use plugin_api::{Error, Result, TaskSpec};

use crate::config::{Clients, Config, TaskTable};
use crate::pattern::Pattern;

/// A task, its files and its columns.
#[derive(Clone, Debug)]
pub(crate) struct TaskPlan {
    pub(crate) name: String,
    pub(crate) files: Vec<Pattern>,
    pub(crate) texts: Vec<String>,
    pub(crate) numbers: Vec<String>,
    pub(crate) target: String,
    pub(crate) testing: TestRows,
    /// The key that names its files.
    pub(crate) files_key: String,
    /// The key that names its files with the rows to test on.
    pub(crate) test_files_key: String,
    /// Where its own keys stand in the dataset's table: nothing, or `task.0.`.
    key_prefix: String,
}

/// How rows are told apart for training and testing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TestRows {
    Fraction(f64),
    Column(String),
    Files(Vec<Pattern>),
}

impl TaskPlan {
    /// What a model is told of it.
    pub(crate) fn spec(&self) -> TaskSpec {
        let inputs = self.texts.iter().chain(&self.numbers).cloned().collect();
        TaskSpec { name: self.name.clone(), inputs, target: self.target.clone() }
    }
}

/// The tasks that the keys describe.
///
/// # Errors
/// If a key is missing, or two of them do not go together.
pub(crate) fn plans(config: &Config) -> Result<Vec<TaskPlan>> {
    let plans: Vec<TaskPlan> = match &config.task {
        None => vec![plan(config, None, String::new())?],
        Some(_) if config.name.is_some() => {
            return Err(Error::config("each task has a name of its own").at_key("name").help("take it out"));
        }
        Some(tasks) => {
            let numbered = tasks.iter().enumerate();
            numbered.map(|(i, task)| plan(config, Some(task), format!("task.{i}."))).collect::<Result<_>>()?
        }
    };
    for (i, plan) in plans.iter().enumerate() {
        plan.check(&plans[..i])?;
    }
    let random = plans.iter().any(|plan| matches!(plan.testing, TestRows::Fraction(_)));
    for (key, given) in [("test-fraction", config.test_fraction.is_some()), ("group-by", config.group_by.is_some())] {
        if given && !random {
            let error = Error::config("no row is split at random, so there is no influence of it").at_key(key);
            return Err(error.help("take it out, or what says which rows are to be tested on"));
        }
    }
    if let (GroupBy::Identity(_), Some(plan)) = (config.group_by(), plans.iter().find(|plan| plan.texts.is_empty())) {
        let error = Error::config(format!("task `{}` has no text that could be similar", plan.name));
        return Err(error.at_key("group-by").help("`\"sequence\"` keeps rows of the same numbers together"));
    }
    Ok(plans)
}

/// One task: what its own table says, else what is said for all.
fn plan(config: &Config, task: Option<&TaskTable>, key_prefix: String) -> Result<TaskPlan> {
    let missing = |key: &str, help: &str| {
        let error = Error::config(format!("`{key}` is missing")).help(help);
        Err(if task.is_some() { error.at_key(key_prefix.trim_end_matches('.')) } else { error })
    };
    let Some(target) = task.and_then(|task| task.target.as_ref()).or(config.target.as_ref()) else {
        return missing("target", "it names the column of numbers that is predicted");
    };
    let texts = task.and_then(|task| task.inputs.as_ref()).unwrap_or(&config.inputs);
    let numbers = task.and_then(|task| task.number_inputs.as_ref()).unwrap_or(&config.number_inputs);
    if texts.is_empty() && numbers.is_empty() {
        return missing("inputs", "it lists the columns of text that a model reads; `number-inputs` those of numbers");
    }
    let files = match (task.and_then(|task| task.files.as_ref()).or(config.files.as_ref()), &config.clients) {
        (Some(files), _) => files.0.clone(),
        (None, Clients::Pattern(pattern)) => vec![pattern.clone()],
        (None, _) => return missing("files", "it is a path, a pattern such as `data/*.csv`, or a list of them"),
    };
    let test_files = task.and_then(|task| task.test_files.as_ref()).or(config.test_files.as_ref());
    let testing = match (test_files, &config.test_column) {
        (Some(_), Some(_)) => {
            let error = Error::config("both `test-column` and `test-files` say which rows are to be tested on");
            return Err(error.at_key("test-column").help("take one of them out"));
        }
        (Some(files), None) => TestRows::Files(files.0.clone()),
        (None, Some(column)) => TestRows::Column(column.clone()),
        (None, None) => TestRows::Fraction(config.test_fraction.unwrap_or(TEST_FRACTION)),
    };
    let name = task.map(|task| &task.name).or(config.name.as_ref()).unwrap_or(target);
    let (name, target, texts, numbers) = (name.clone(), target.clone(), texts.clone(), numbers.clone());
    let key = |own: bool, key: &str| if own { format!("{key_prefix}{key}") } else { key.to_owned() };
    let files_key = key(task.is_some_and(|task| task.files.is_some()), "files");
    let test_files_key = key(task.is_some_and(|task| task.test_files.is_some()), "test-files");
    Ok(TaskPlan { name, files, texts, numbers, target, testing, files_key, test_files_key, key_prefix })
}

impl TaskPlan {
    /// Whether it is right in itself and beside those before it.
    fn check(&self, before: &[TaskPlan]) -> Result<()> {
        let error = |key: &str, message: String| Error::config(message).at_key(format!("{}{key}", self.key_prefix));
        if !is_folder_name(&self.name) {
            let error = error("name", format!("`{}` cannot name the task's folder", self.name));
            return Err(
                error.help("`name` can be another than the column's; without `/` and `\\`, not beginning with `.`")
            );
        }
        if before.iter().any(|other| other.name == self.name) {
            return Err(error("name", format!("two tasks are named `{}`", self.name)));
        }
        let inputs = self.spec().inputs;
        if inputs.contains(&self.target) {
            return Err(error("target", format!("`{}` is what the model reads", self.target)));
        }
        if let Some((_, name)) = inputs.iter().enumerate().find(|(i, name)| inputs[..*i].contains(name)) {
            return Err(error("inputs", format!("`{name}` stands here twice")));
        }
        let other_way = |name: &&String| before.iter().any(|other| other.numbers.contains(name));
        let also_text = |name: &&String| before.iter().any(|other| other.texts.contains(name));
        let both = self.texts.iter().find(other_way).or_else(|| self.numbers.iter().find(also_text));
        match both {
            Some(name) => Err(error("inputs", format!("`{name}` is text for one task and a number for another"))),
            None => Ok(()),
        }
    }
}
