//! What secure aggregation does not protect against, reported where users see it: in the summary and by `inspect`.

use plugin_api::Context;

use crate::letters::NO_PROTECTION;
use crate::noise::Noise;
use crate::round::Round;

/// What the clients reported about a round's keys.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    pub(crate) reproducible: bool,
    pub(crate) signed: bool,
}

/// Reports in the summary the terms of the round, and what it does not protect against.
pub(crate) fn note(round: &Round, told: Told, ctx: &Context<'_>) {
    if told.reproducible {
        ctx.note("secure aggregation", format_args!("{NO_PROTECTION}"));
        return;
    }
    let noise = match round.terms.noise {
        None => String::new(),
        Some(Noise { multiplier, colluding, .. }) => format!(
            ", with noise of {multiplier} times `clip-norm` on every value even if {colluding} of these clients \
             reveal theirs"
        ),
    };
    let (threshold, minimum, cohort) = (round.terms.threshold, round.terms.minimum, round.cohort.len());
    let server = match told.signed {
        true => "keys and lists of arrived updates are signed",
        false => "keys are not signed, so this holds only for a server that follows the protocol",
    };
    ctx.note(
        "secure aggregation",
        format_args!(
            "the server sees single updates masked, and the sum of those of at least {threshold} of a round's {cohort} \
             clients, of which at least {minimum} trained{noise}; {server}"
        ),
    );
    let (with_noise, clamped) = match round.terms.noise {
        None => ("", " and of clamped values"),
        Some(_) => (", but for that one's own noise", ""),
    };
    let trained = if told.signed { ", also to the clients, who trained" } else { "" };
    ctx.note(
        "limits",
        format_args!(
            "all other clients together learn the last one's update from any sum{with_noise}, and {threshold} clients that \
             pool their shares with the server learn any; the global models reveal what the sums reveal; metrics, steps and \
             numbers of examples{clamped} are in clear{trained}; here all run in one process, whose owner can see everything"
        ),
    );
}

/// Reports in the summary the privacy loss of a client over `rounds` rounds of noisy sums, and towards whom it holds.
pub(crate) fn note_account(
    (epsilon, rounds): (f64, u64),
    noise: Noise,
    (reproducible, signed): (bool, bool),
    ctx: &Context<'_>,
) {
    let Noise { delta, colluding, .. } = noise;
    let plural = if rounds == 1 { "" } else { "s" };
    let server = if signed { "a server" } else { "a server that follows the protocol" };
    let towards = match colluding {
        0 => format!("{server} alone and no client, which knows its own noise"),
        1 => format!("{server} and any one other client"),
        some => format!("{server} and any {some} other clients"),
    };
    let protection = if reproducible { "no protection, since the noise is reproducible; else " } else { "" };
    ctx.note(
        "privacy",
        format_args!(
            "{protection}epsilon {epsilon:.4} at delta {delta:e} for the sums of {rounds} round{plural}, for a client's whole \
             update against none, towards {towards}"
        ),
    );
}
