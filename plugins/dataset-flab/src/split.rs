//! Which rows are for testing, and which client gets which of the others.

use fedplug_tables::{Deal, TEST_FRACTION};
use plugin_api::{Context, Error, Result, Seed};

use crate::config::{Config, Split};
use crate::reference;

/// The deal that the configuration asks for. It warns of rows that belong to nobody.
pub(crate) fn deal(rows: usize, task: &str, config: &Config, ctx: &Context<'_>) -> Result<Deal> {
    let test_fraction = config.test_fraction.unwrap_or(TEST_FRACTION);
    let deal = match config.split() {
        Split::Random => {
            let seed = config.seed.map_or_else(|| ctx.experiment_seed().of("split"), Seed::new);
            Deal::random(rows, test_fraction, config.sites(), seed.of(task))
        }
        Split::Reference => {
            let seed = config.seed.map_or(Ok(reference::SEED), u32::try_from).map_err(|_| seed_too_large())?;
            reference::deal(rows, test_fraction, config.sites(), seed)
                .map_err(|error| error.because_of(format!("task `{task}`")))?
        }
    };
    let (lost, train) = (deal.lost(), deal.train.len());
    if lost > 0 {
        ctx.warn(format_args!(
            "task `{task}`: {lost} of {train} rows to train on belong to no client, as in the published preparation"
        ));
    }
    Ok(deal)
}

/// NumPy refuses such a seed.
fn seed_too_large() -> Error {
    let error = Error::config(format!("must be at most {} for `split = \"reference\"`", u32::MAX)).at_key("seed");
    error.help("leave it out for the published preparation's")
}
