//! Plans of tasks: the keys of the table resolved for each task.

use fedplug_tables::{Classes, Fold, GroupBy, Standardise, TEST_FRACTION, is_folder_name};
use plugin_api::{Error, Result, TaskSpec};

use crate::config::{Clients, Config, TaskTable};
use crate::pattern::Pattern;

/// A task with its files, columns and split.
#[derive(Clone, Debug)]
pub(crate) struct TaskPlan {
    pub(crate) name: String,
    pub(crate) files: Vec<Pattern>,
    pub(crate) texts: Vec<String>,
    pub(crate) numbers: Vec<String>,
    /// The column to predict, if there is one.
    pub(crate) target: Option<String>,
    pub(crate) classes: Classes,
    pub(crate) testing: TestRows,
    /// The key that names its files.
    pub(crate) files_key: String,
    /// The key that names its files with test rows.
    pub(crate) test_files_key: String,
    /// The path of its own keys in the dataset's table: empty, or such as `task.0.`.
    key_prefix: String,
}

/// How rows are divided into training and test rows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TestRows {
    Fraction(f64),
    Fold(Fold),
    Column(String),
    Files(Vec<Pattern>),
}

impl TestRows {
    /// Whether they are drawn at random.
    pub(crate) fn are_random(&self) -> bool {
        matches!(self, Self::Fraction(_) | Self::Fold(_))
    }
}

impl TaskPlan {
    /// What a model needs to know of the task.
    pub(crate) fn spec(&self) -> TaskSpec {
        let inputs = self.texts.iter().chain(&self.numbers).cloned().collect();
        let target = self.target.clone().unwrap_or_default();
        TaskSpec { name: self.name.clone(), inputs, target, ..TaskSpec::default() }
    }
}

/// The plans of all tasks.
///
/// # Errors
/// If a key is missing, or two keys exclude each other.
pub(crate) fn plans(config: &Config) -> Result<Vec<TaskPlan>> {
    let plans: Vec<TaskPlan> = match &config.task {
        None => vec![plan(config, None, String::new())?],
        Some(_) if config.name.is_some() => {
            return Err(Error::config("each task has its own `name`").at_key("name").help("remove it"));
        }
        Some(tasks) => {
            let numbered = tasks.iter().enumerate();
            numbered.map(|(i, task)| plan(config, Some(task), format!("task.{i}."))).collect::<Result<_>>()?
        }
    };
    for (i, plan) in plans.iter().enumerate() {
        plan.check(&plans[..i])?;
    }
    let random = plans.iter().any(|plan| plan.testing.are_random());
    let keys = [
        ("test-fraction", config.test_fraction.is_some()),
        ("folds", config.folds.is_some()),
        ("group-by", config.group_by.is_some() && config.validation_fraction.is_none()),
    ];
    for (key, given) in keys {
        if given && !random {
            let error = Error::config("has no effect, since no rows are split at random").at_key(key);
            return Err(error.help("remove it, or the key that gives the split"));
        }
    }
    let is_number = |plan: &TaskPlan| plan.target.is_some() && plan.classes == Classes::No;
    if config.standardise != Standardise::No && !plans.iter().any(is_number) {
        return Err(Error::config("has no effect, since no target is a number").at_key("standardise"));
    }
    if let (GroupBy::Identity(_), Some(plan)) = (config.group_by(), plans.iter().find(|plan| plan.texts.is_empty())) {
        let error = Error::config(format!("task `{}` has no text inputs to compare", plan.name));
        return Err(error.at_key("group-by").help("`\"sequence\"` keeps rows with the same numbers together"));
    }
    Ok(plans)
}

/// The plan of one task: its own keys, with those of the dataset's table as defaults.
fn plan(config: &Config, task: Option<&TaskTable>, key_prefix: String) -> Result<TaskPlan> {
    let missing = |key: &str, help: &str| {
        let error = Error::config(format!("`{key}` is missing")).help(help);
        Err(if task.is_some() { error.at_key(key_prefix.trim_end_matches('.')) } else { error })
    };
    let target = task.and_then(|task| task.target.as_ref()).or(config.target.as_ref());
    let Some(name) = task.map(|task| &task.name).or(config.name.as_ref()).or(target) else {
        return missing("target", "it is the column to predict; a task without one needs a `name`");
    };
    let texts = task.and_then(|task| task.inputs.as_ref()).unwrap_or(&config.inputs);
    let numbers = task.and_then(|task| task.number_inputs.as_ref()).unwrap_or(&config.number_inputs);
    if texts.is_empty() && numbers.is_empty() {
        return missing(
            "inputs",
            "it lists the text columns that a model reads, and `number-inputs` the number columns",
        );
    }
    let files = match (task.and_then(|task| task.files.as_ref()).or(config.files.as_ref()), &config.clients) {
        (Some(files), _) => files.0.clone(),
        (None, Clients::Pattern(pattern)) => vec![pattern.clone()],
        (None, _) => return missing("files", "it is a path, a pattern such as `data/*.csv`, or a list of them"),
    };
    let test_files = task.and_then(|task| task.test_files.as_ref()).or(config.test_files.as_ref());
    let testing = match (test_files, &config.test_column) {
        (Some(_), Some(_)) => {
            let error = Error::config("both `test-column` and `test-files` give the split");
            return Err(error.at_key("test-column").help("remove one of them"));
        }
        (Some(files), None) => TestRows::Files(files.0.clone()),
        (None, Some(column)) => TestRows::Column(column.clone()),
        (None, None) => match Fold::of_keys(config.folds, config.fold, config.test_fraction)? {
            Some(fold) => TestRows::Fold(fold),
            None => TestRows::Fraction(config.test_fraction.unwrap_or(TEST_FRACTION)),
        },
    };
    let (name, target, texts, numbers) = (name.clone(), target.cloned(), texts.clone(), numbers.clone());
    let key = |own: bool, key: &str| if own { format!("{key_prefix}{key}") } else { key.to_owned() };
    let files_key = key(task.is_some_and(|task| task.files.is_some()), "files");
    let test_files_key = key(task.is_some_and(|task| task.test_files.is_some()), "test-files");
    let classes = task.and_then(|task| task.classes.as_ref()).unwrap_or(&config.classes).clone();
    Ok(TaskPlan { name, files, texts, numbers, target, classes, testing, files_key, test_files_key, key_prefix })
}

impl TaskPlan {
    /// Checks the plan, also against earlier ones.
    ///
    /// # Errors
    /// If names or columns conflict.
    fn check(&self, before: &[TaskPlan]) -> Result<()> {
        let error = |key: &str, message: String| Error::config(message).at_key(format!("{}{key}", self.key_prefix));
        if !is_folder_name(&self.name) {
            let error = error("name", format!("`{}` cannot be the name of the task's folder", self.name));
            return Err(error.help("set `name` to a name without `/` and `\\` that does not begin with `.`"));
        }
        if before.iter().any(|other| other.name == self.name) {
            return Err(error("name", format!("two tasks are named `{}`", self.name)));
        }
        let inputs = self.spec().inputs;
        match &self.target {
            Some(target) if inputs.contains(target) => {
                return Err(error("target", format!("`{target}` is an input of the model")));
            }
            None if self.classes != Classes::No => {
                return Err(error("classes", "has no effect without `target`".to_owned()));
            }
            _ => {}
        }
        if let Some((_, name)) = inputs.iter().enumerate().find(|(i, name)| inputs[..*i].contains(name)) {
            return Err(error("inputs", format!("`{name}` is listed twice")));
        }
        let also_number = |name: &&String| before.iter().any(|other| other.numbers.contains(name));
        let also_text = |name: &&String| before.iter().any(|other| other.texts.contains(name));
        let both = self.texts.iter().find(also_number).or_else(|| self.numbers.iter().find(also_text));
        match both {
            Some(name) => Err(error("inputs", format!("`{name}` is text for one task and a number for another"))),
            None => Ok(()),
        }
    }
}
