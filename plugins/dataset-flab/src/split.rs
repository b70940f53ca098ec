//! Splits a folder's rows, and assigns training rows to clients.

use fedplug_tables::{Fold, GroupBy, Split, TEST_FRACTION};
use plugin_api::{Context, Error, Result, Seed};

use crate::config::{Config, SplitMethod, TaskPer};
use crate::raw_tables::RawTables;
use crate::reference;

/// Splits a folder's rows. With `split = "random"`, [`assign`] then assigns the training rows to clients.
///
/// # Errors
/// If the published preparation cannot split them, or the call is cancelled.
pub(crate) fn split(tables: &RawTables, folder: &str, config: &Config, ctx: &Context<'_>) -> Result<Split> {
    let test_fraction = config.test_fraction.unwrap_or(TEST_FRACTION);
    let rows = tables.rows();
    // The published split needs no groups, which take their time.
    let groups = match config.split() == SplitMethod::Random || config.validation_fraction.is_some() {
        true => config.group_by().groups(rows, |row| tables.combined(row), ctx)?,
        false => Vec::new(),
    };
    let strata = match config.task_per {
        TaskPer::Folder => vec![0; rows],
        TaskPer::File => tables.file_of_rows(),
    };
    let split = match config.split() {
        SplitMethod::Random => {
            if rows > 1 && config.group_by() != GroupBy::None && groups.iter().all(|group| *group == 0) {
                ctx.warn(format_args!(
                    "`{folder}`: all {rows} rows are one group of `group-by`, so there are no test rows"
                ));
            }
            let seed = seed(config, ctx).of(folder);
            match Fold::of_keys(config.folds, config.fold, config.test_fraction)? {
                Some(fold) => Split::fold(&groups, &strata, fold, seed),
                None => Split::random(&groups, &strata, test_fraction, seed),
            }
        }
        SplitMethod::Reference => {
            let seed = config.seed.map_or(Ok(reference::SEED), u32::try_from).map_err(|_| seed_too_large())?;
            reference::split(rows, test_fraction, config.sites(), seed)
                .map_err(|error| error.because_of(format!("task `{folder}`")))?
        }
    };
    Ok(match config.validation_fraction {
        Some(fraction) => split.with_validation(&groups, &strata, fraction, seed(config, ctx).of(folder)),
        None => split,
    })
}

/// Assigns the training rows of a task to the clients. Warns of rows that belong to no client.
pub(crate) fn assign(split: Split, task: &str, config: &Config, ctx: &Context<'_>) -> Split {
    let split = match config.split() {
        SplitMethod::Random => split.across_sites(config.sites(), seed(config, ctx).of(task)),
        SplitMethod::Reference => split,
    };
    let (lost, train) = (split.unassigned(), split.train.len());
    if lost > 0 {
        ctx.warn(format_args!(
            "task `{task}`: {lost} of {train} training rows belong to no client, as in the published preparation"
        ));
    }
    split
}

/// The key that keeps a sequence on one side, if the configuration does not.
pub(crate) fn advice(config: &Config) -> Option<&'static str> {
    match (config.split(), config.group_by()) {
        (SplitMethod::Reference, _) => Some("`split = \"random\"` keeps them apart"),
        (SplitMethod::Random, GroupBy::None) => Some("`group-by = \"sequence\"` keeps them apart"),
        (SplitMethod::Random, _) => None,
    }
}

pub(crate) fn seed(config: &Config, ctx: &Context<'_>) -> Seed {
    config.seed.map_or_else(|| ctx.experiment_seed().of("split"), Seed::new)
}

/// The error for a seed that NumPy refuses.
fn seed_too_large() -> Error {
    let error = Error::config(format!("must be at most {} for `split = \"reference\"`", u32::MAX)).at_key("seed");
    error.help("leave it out to use that of the published preparation")
}
