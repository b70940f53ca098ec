//! What the targets of the tasks mean for the model and for its score.

use plugin_api::component::Profile;
use plugin_api::metrics::WITH_UNIT;
use plugin_api::{Error, TaskSpec};

use crate::error::Diagnostic;
use crate::experiment::config::Experiment;

/// Checks that a model can learn the tasks.
///
/// # Errors
/// If a task has classes, and the model does not say that it learns them.
pub(crate) fn check_model(model: &Profile, tasks: &[TaskSpec]) -> plugin_api::Result<()> {
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

/// The name of a model's score for these tasks, if the model names it.
pub(crate) fn score_name(model: &Profile, tasks: &[TaskSpec]) -> Option<String> {
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
    use plugin_api::TargetKind;

    use super::*;

    #[test]
    fn a_score_is_named_by_the_kinds_of_targets() {
        let profile = |class_score: Option<&str>| -> Profile {
            serde_json::from_value(serde_json::json!({
                "kind": "model", "name": "m", "about": "", "schema": {}, "score": "-RMSE/SD", "class_score": class_score,
            }))
            .unwrap()
        };
        let number = TaskSpec::new("tm", ["x"], "y");
        let class = TaskSpec { target_kind: TargetKind::Class(vec!["no".into(), "yes".into()]), ..number.clone() };
        let both = profile(Some("-log loss"));
        let name = |tasks: &[&TaskSpec]| score_name(&both, &tasks.iter().copied().cloned().collect::<Vec<_>>());
        assert_eq!(name(&[&number, &number]).unwrap(), "-RMSE/SD");
        assert_eq!(name(&[&class]).unwrap(), "-log loss");
        assert_eq!(name(&[&class, &number]).unwrap(), "-RMSE/SD or -log loss");
        assert!(check_model(&both, &[number.clone(), class.clone()]).is_ok());
        let error = check_model(&profile(None), &[number.clone(), class]).unwrap_err();
        assert_eq!(error.message(), "cannot learn classes, which are the targets of task `tm`");
        assert!(check_model(&profile(None), &[number]).is_ok());
    }
}
