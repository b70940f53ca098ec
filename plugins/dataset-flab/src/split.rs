//! Which rows are for testing, and which client gets which of the others.

use fedplug_tables::{GroupBy, Split, TEST_FRACTION};
use plugin_api::{Context, Error, Result, Seed};

use crate::config::{Config, SplitMethod, TaskPer};
use crate::raw_tables::RawTables;
use crate::reference;

/// The split of a folder's rows. With `split = "random"` no row has a client yet: see [`share`].
pub(crate) fn split(sheets: &RawTables, folder: &str, config: &Config, ctx: &Context<'_>) -> Result<Split> {
    let test_fraction = config.test_fraction.unwrap_or(TEST_FRACTION);
    let rows = sheets.rows();
    match config.split() {
        SplitMethod::Random => {
            let groups = config.group_by().groups(rows, |row| sheets.combined(row), ctx)?;
            if rows > 1 && config.group_by() != GroupBy::None && groups.iter().all(|group| *group == 0) {
                ctx.warn(format_args!(
                    "`{folder}`: all {rows} rows are one group of `group-by`, so all are trained on"
                ));
            }
            let strata = match config.task_per {
                TaskPer::Folder => vec![0; rows],
                TaskPer::File => sheets.files(),
            };
            Ok(Split::random(&groups, &strata, test_fraction, seed(config, ctx).of(folder)))
        }
        SplitMethod::Reference => {
            let seed = config.seed.map_or(Ok(reference::SEED), u32::try_from).map_err(|_| seed_too_large())?;
            reference::split(rows, test_fraction, config.sites(), seed)
                .map_err(|error| error.because_of(format!("task `{folder}`")))
        }
    }
}

/// Gives the rows of a task to the clients. It warns of rows that belong to nobody.
pub(crate) fn share(split: Split, task: &str, config: &Config, ctx: &Context<'_>) -> Split {
    let split = match config.split() {
        SplitMethod::Random => split.across_sites(config.sites(), seed(config, ctx).of(task)),
        SplitMethod::Reference => split,
    };
    let (lost, train) = (split.unassigned(), split.train.len());
    if lost > 0 {
        ctx.warn(format_args!(
            "task `{task}`: {lost} of {train} rows to train on belong to no client, as in the published preparation"
        ));
    }
    split
}

/// What keeps a sequence from standing on both sides, where it may.
pub(crate) fn advice(config: &Config) -> Option<&'static str> {
    match (config.split(), config.group_by()) {
        (SplitMethod::Reference, _) => Some("`split = \"random\"` keeps them apart"),
        (SplitMethod::Random, GroupBy::None) => Some("`group-by = \"sequence\"` keeps them apart"),
        (SplitMethod::Random, _) => None,
    }
}

fn seed(config: &Config, ctx: &Context<'_>) -> Seed {
    config.seed.map_or_else(|| ctx.experiment_seed().of("split"), Seed::new)
}

/// NumPy refuses such a seed.
fn seed_too_large() -> Error {
    let error = Error::config(format!("must be at most {} for `split = \"reference\"`", u32::MAX)).at_key("seed");
    error.help("leave it out for the published preparation's")
}
