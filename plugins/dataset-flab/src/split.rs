//! Which rows are for testing, and which client gets which of the others.

use fedplug_tables::{Deal, GroupBy, TEST_FRACTION};
use plugin_api::{Context, Error, Result, Seed};

use crate::config::{Config, Split, TaskPer};
use crate::reference;
use crate::sheets::Sheets;

/// The deal of a folder's rows. With `split = "random"` no row has a client yet: see [`share`].
pub(crate) fn deal(sheets: &Sheets, folder: &str, config: &Config, ctx: &Context<'_>) -> Result<Deal> {
    let test_fraction = config.test_fraction.unwrap_or(TEST_FRACTION);
    let rows = sheets.rows();
    match config.split() {
        Split::Random => {
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
            Ok(Deal::random(&groups, &strata, test_fraction, seed(config, ctx).of(folder)))
        }
        Split::Reference => {
            let seed = config.seed.map_or(Ok(reference::SEED), u32::try_from).map_err(|_| seed_too_large())?;
            reference::deal(rows, test_fraction, config.sites(), seed)
                .map_err(|error| error.because_of(format!("task `{folder}`")))
        }
    }
}

/// Gives the rows of a task to the clients. It warns of rows that belong to nobody.
pub(crate) fn share(deal: Deal, task: &str, config: &Config, ctx: &Context<'_>) -> Deal {
    let deal = match config.split() {
        Split::Random => deal.shared(config.sites(), seed(config, ctx).of(task)),
        Split::Reference => deal,
    };
    let (lost, train) = (deal.lost(), deal.train.len());
    if lost > 0 {
        ctx.warn(format_args!(
            "task `{task}`: {lost} of {train} rows to train on belong to no client, as in the published preparation"
        ));
    }
    deal
}

/// What keeps a sequence from standing on both sides, where it may.
pub(crate) fn advice(config: &Config) -> Option<&'static str> {
    match (config.split(), config.group_by()) {
        (Split::Reference, _) => Some("`split = \"random\"` keeps them apart"),
        (Split::Random, GroupBy::None) => Some("`group-by = \"sequence\"` keeps them apart"),
        (Split::Random, _) => None,
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
