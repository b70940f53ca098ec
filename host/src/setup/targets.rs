//! What the targets of the tasks mean for the model and for its score.

use plugin_api::component::{Profile, WithoutTargets};
use plugin_api::metrics::WITH_UNIT;
use plugin_api::{Error, TargetKind, TaskSpec};
use serde_json::Value;

use crate::error::Diagnostic;
use crate::experiment::config::Experiment;

/// Checks that a model with this table can learn the tasks.
///
/// # Errors
/// If a task has no target or has classes, and the model does not declare that it learns without or learns them.
pub(crate) fn check_model(model: &Profile, table: &Value, tasks: &[TaskSpec]) -> plugin_api::Result<()> {
    if model.score_without_targets(table).is_some() {
        return Ok(());
    }
    if let Some(task) = tasks.iter().find(|task| task.target_kind == TargetKind::None) {
        let error = Error::config(format!("cannot learn without targets, and task `{}` has none", task.name));
        let Some(WithoutTargets { when, .. }) = &model.without_targets else {
            return Err(error.help("choose another model, or name the column to predict in the dataset's table"));
        };
        let when: Vec<String> = when.iter().map(|(key, value)| format!("`{key} = {value}`")).collect();
        return Err(error.help(format!("it can with {}", when.join(" and "))));
    }
    let Some(task) = tasks.iter().find(|task| task.target_kind.classes().is_some()) else { return Ok(()) };
    if model.class_score.is_some() {
        return Ok(());
    }
    Err(Error::config(format!("cannot learn classes, which are the targets of task `{}`", task.name))
        .help("choose another model, or a dataset with numbers as targets"))
}

/// Checks that the metric that is the score has a mean over the tasks.
pub(crate) fn check_score(experiment: &Experiment, tasks: &[TaskSpec]) -> Option<Diagnostic> {
    let name = experiment.federation.score.as_deref().filter(|name| tasks.len() > 1 && WITH_UNIT.contains(name))?;
    let what =
        format!("`{name}` has the unit of the target, so it has no mean over the experiment's {} tasks", tasks.len());
    let report = Diagnostic::new(what).hint(format!("use `N{name}`, which is in standard deviations of the targets"));
    Some(experiment.document.locate(report, &["federation", "score"].map(str::to_owned)))
}

/// The name of the score of a model with this table for these tasks, if the model names it.
pub(crate) fn score_name(model: &Profile, table: &Value, tasks: &[TaskSpec]) -> Option<String> {
    if let Some(name) = model.score_without_targets(table) {
        return Some(name.to_owned());
    }
    let of = |task: &TaskSpec| match task.target_kind.classes() {
        Some(_) => model.class_score.as_deref(),
        None => model.score.as_deref(),
    };
    let mut names: Vec<&str> = tasks.iter().filter_map(of).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() { None } else { Some(names.join(" or ")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_score_is_named_by_the_kinds_of_targets() {
        let profile = |class_score: Option<&str>| -> Profile {
            serde_json::from_value(json!({
                "kind": "model", "name": "m", "about": "", "schema": {}, "score": "-RMSE/SD", "class_score": class_score,
                "without_targets": class_score.map(|_| json!({ "when": { "objective": "inputs" }, "score": "-loss" })),
            }))
            .unwrap()
        };
        let number = TaskSpec::new("tm", ["x"], "y");
        let class = TaskSpec { target_kind: TargetKind::Class(vec!["no".into(), "yes".into()]), ..number.clone() };
        let both = profile(Some("-log loss"));
        let (table, alone) = (json!({}), json!({ "objective": "inputs" }));
        let named = |table: &Value, tasks: &[&TaskSpec]| {
            score_name(&both, table, &tasks.iter().copied().cloned().collect::<Vec<_>>()).unwrap()
        };
        assert_eq!(named(&table, &[&number, &number]), "-RMSE/SD");
        assert_eq!(named(&table, &[&class]), "-log loss");
        assert_eq!(named(&table, &[&class, &number]), "-RMSE/SD or -log loss");
        assert_eq!(named(&alone, &[&class, &number]), "-loss");
        assert!(check_model(&both, &table, &[number.clone(), class.clone()]).is_ok());
        let error = check_model(&profile(None), &table, &[number.clone(), class.clone()]).unwrap_err();
        assert_eq!(error.message(), "cannot learn classes, which are the targets of task `tm`");
        assert!(check_model(&profile(None), &table, std::slice::from_ref(&number)).is_ok());

        let all = [number, class, TaskSpec::without_target("texts", ["x"])];
        assert!(check_model(&both, &alone, &all).is_ok());
        let told = |error: Error| format!("{}; {}", error.message(), error.hint().unwrap());
        let refused = "cannot learn without targets, and task `texts` has none";
        let hint = "it can with `objective = \"inputs\"`";
        assert_eq!(told(check_model(&both, &table, &all).unwrap_err()), format!("{refused}; {hint}"));
        let hint = "choose another model, or name the column to predict in the dataset's table";
        assert_eq!(told(check_model(&profile(None), &alone, &all).unwrap_err()), format!("{refused}; {hint}"));
    }
}
