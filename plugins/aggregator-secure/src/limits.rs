//! What secure aggregation does not protect from, where users read: in the summary and by `inspect`.

use plugin_api::Context;

use crate::letters::NO_PROTECTION;
use crate::round::Round;

/// What is told of a round's keys.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    pub(crate) reproducible: bool,
    pub(crate) signed: bool,
}

/// Says in the summary what the round keeps to, and what it does not protect from.
pub(crate) fn note(round: &Round, told: Told, ctx: &Context<'_>) {
    if told.reproducible {
        ctx.note("secure aggregation", format_args!("{NO_PROTECTION}"));
        return;
    }
    let (threshold, minimum, cohort) = (round.terms.threshold, round.terms.minimum, round.cohort.len());
    let server = match told.signed {
        true => "keys and lists of arrived updates are signed",
        false => "keys are not signed, so this holds only for a server that follows the protocol",
    };
    ctx.note(
        "secure aggregation",
        format_args!(
            "the server sees single updates masked, and the sum of those of at least {threshold} of a round's {cohort} \
             clients, of which at least {minimum} trained; {server}"
        ),
    );
    ctx.note(
        "limits",
        format_args!(
            "all other clients together learn the last one's update from any sum, and {threshold} clients that pool their \
             shares with the server learn any; the global models tell what the sums tell; metrics, steps, examples and \
             counts of clamped values are in clear; here all run in one process, whose owner can see everything"
        ),
    );
}
