//! Secure aggregation by pairwise masking: the server learns the sum of the clients' updates, and no single one.
//!
//! Bonawitz, Ivanov, Kreuter, Marcedone, McMahan, Patel, Ramage, Segal and Seth, *Practical Secure Aggregation for
//! Privacy-Preserving Machine Learning*, CCS 2017, the protocol of its Figure 4 against a server that is honest but
//! curious. It takes two components of one name, which this library has both: the aggregator asks, the filters at the
//! clients answer and mask.
//!
//! ```toml
//! [aggregator]
//! plugin = "secure"
//! threshold = 5              # of 6 clients; if not given, more than two thirds of the round's clients
//! clip = 1.0                 # the largest absolute change of a value in a round
//! bits = 24                  # of a change's fixed-point number, its sign among them
//!
//! [[filter]]                 # the last at this place: what comes after it would see masked numbers
//! plugin = "secure"
//! at = "client-output"
//! reproducible = false       # true: masks from the experiment's seed, which is no protection
//! ```
//!
//! With `federation.on-client-failure = "leave-out"` a round goes on without clients that fail on the way, as long as
//! `threshold` of them stay; with `"stop"` the first failure ends the run.
//!
//! # A round
//!
//! All keys are of one round. Client `u` has a place in the list of members, which is its number in all that follows.
//!
//! 1. Each client makes two x25519 key pairs, `c` to seal shares with and `s` for masks, and tells the public keys.
//! 2. Each gets all public keys, draws the seed `bᵤ` of its own mask, and splits `bᵤ` and the secret of `sᵤ` by Shamir's
//!    scheme so that any `threshold` shares give them back. It seals each member's two shares for that member:
//!    ChaCha20-Poly1305 under HKDF-SHA256 of the agreement of the two `c`.
//! 3. Each gets the shares that are for it. A share that was changed on its way is an error.
//! 4. The clients train. Client `u` sends, modulo 2³² and with `E` the fixed-point encoding,
//!    `yᵤ = E(xᵤ − x) + PRG(bᵤ) + Σ_{v > u} PRG(sᵤᵥ) − Σ_{v < u} PRG(sᵤᵥ)` over the others `v` that dealt shares, where
//!    `x` is the round's global model, `sᵤᵥ` the agreement of the two `s` through HKDF-SHA256, and `PRG` a ChaCha20 stream.
//! 5. The server says whose updates arrived. Each of these clients answers, for each that dealt shares, its share of
//!    `bᵥ` if the update arrived, else of the secret of `sᵥ`: never both, and only once. With `threshold` answers the
//!    server takes what is left of the masks off the sum.
//!
//! Too few clients at any of these steps is an error of the round that says how many there were.
//!
//! # What comes out
//!
//! The next global model is `x + (1/n) Σ E(xᵤ − x) · step`, over the `n` clients that trained. Masks cancel exactly, so
//! the sum is that of the encoded integers bit for bit, and the model does not depend on the masks: not on
//! `reproducible`, and not on the run. It is the uniform mean, as FedAvg with `weight-by = "uniform"`: a weighted one
//! would need `Σ wᵤ xᵤ`, and a filter does not know its client's steps. A client without a step in the round counts
//! nothing, since its update is 0; if another filter adds something to it, that is in the sum.
//!
//! A value's change is clamped to `±clip`, which is counted (`Secure/clamped`, one number a client and round) and
//! warned of, and rounded to a multiple of `step = clip / 2^(bits − 1)`, so each value of the model is within `step / 2`
//! of the mean of the clamped updates, before it is rounded to the parameter's type. The defaults have a step of 1.2e-7,
//! which is the resolution of f32 at 1.
//! Sums stay below 2³¹ if `n · 2^(bits − 1)` does, which is checked when a round begins. 32 bits are enough, then, for
//! 24-bit numbers of 255 clients, and a masked update takes no more bytes than one of f32; 64 would double traffic and
//! the time that the masks take. After unmasking, a sum out of its range says that some client's part was wrong.
//!
//! All clients send the same parameters with the same shapes: private heads are taken out before, by `exclude-params`.
//! A message with extra tensors or values is refused, since they would not be masked. A filter that adds noise may stand
//! before this one; the noise of all clients is then in the sum. Masked updates are i32 tensors under the parameters'
//! names, of which other aggregators can make nothing.
//!
//! # Cost
//!
//! With `n` clients and `m` values: each client computes `n` streams of `4m` bytes, the server one for each client that
//! stays and one for each pair of a client that was lost with one that stayed. Besides the update a client sends
//! `64 + 80n + 32n` bytes and gets `64n + 80n`. Memory is one sum of `4m` bytes at the server; at a client, the masked
//! update and a few copies of its largest parameter. Nothing lives from round to round, so there is no state to save.
//!
//! # What it does not protect from
//!
//! - A server that does not keep to the protocol. Keys are not signed, so an active server could put its own in their
//!   place; the paper has a variant with signatures and one more step. The filter refuses what it can see: thresholds
//!   of half of the members or less, too few that arrived, a second question, shares that were changed.
//! - `threshold` or more clients that pool their shares with the server. Fewer than so many learn no more than the sum
//!   over all others.
//! - What the sum itself tells. The global models are known to all, a sum over few clients says much of each, and who is
//!   in one sum and not in another shows in their difference. Differential privacy is the remedy for that.
//! - Clients that lie: a poisoned update is masked like any other, so robust aggregation is not possible.
//! - What is sent beside the parameters: metrics, steps, numbers of examples and the number of clamped values are clear.
//! - In this host clients and server share one process and its memory. This shows the protocol and what it costs; it
//!   protects nobody from who runs the process.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod account;
pub mod aggregator;
mod asking;
pub mod config;
mod dealing;
pub mod filter;
mod fixed;
mod identities;
mod letters;
mod limits;
mod noise;
mod numbers;
mod round;
mod secrets;
mod shamir;
mod stream;
mod terms;

use crate::aggregator::Secure;
use crate::filter::Mask;
use plugin_api::Component;

/// The server's side.
pub fn aggregator() -> Component {
    Component::aggregator("secure", "the mean of updates of which the server sees the sum alone", Secure::new)
}

/// The clients' side.
pub fn filter() -> Component {
    Component::filter("secure", "masks updates for the aggregator of this name", Mask::new)
}

plugin_api::export_plugin!(aggregator(), filter());

#[cfg(test)]
mod tests;
