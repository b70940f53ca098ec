//! Secure aggregation by pairwise masking: a server that follows the protocol learns the sum of the clients' updates, and
//! no single one. With noise that the clients share out among them, the sums have an account of differential privacy.
//!
//! Bonawitz, Ivanov, Kreuter, Marcedone, McMahan, Patel, Ramage, Segal and Seth, *Practical Secure Aggregation for
//! Privacy-Preserving Machine Learning*, CCS 2017, the protocol of its Figure 4: as it stands there for a server that is
//! honest but curious, and with long-term keys also what is underlined there, against one that is not. It takes two
//! components of one name, which this library has both: the aggregator asks, the filters at the clients answer and mask.
//!
//! ```toml
//! [aggregator]
//! plugin = "secure"
//! threshold = 5              # of 6 clients; if not given, more than two thirds of the round's clients
//! minimum = 5                # clients that trained in a sum; if not given, as `threshold`
//! clip = 1.0                 # the largest absolute change of a value in a round
//! bits = 24                  # of a change's fixed-point number, its sign among them
//!
//! [[filter]]                 # the last at this place: what comes after it would see masked numbers
//! plugin = "secure"
//! at = "client-output"
//! minimum = 3                # the lowest terms that the client accepts
//! threshold = 4
//! key-file = "keys/{client}.pem"
//! identities = { tm = "MCowBQYDK2VwAyEA…", … }
//! ```
//!
//! With `federation.on-client-failure = "leave-out"` a round goes on without clients that fail on the way, as long as
//! `threshold` of them stay; with `"stop"` the first failure ends the run.
//!
//! # A round
//!
//! All keys but those of `identities` are of one round. Client `u` has a place in the list of members, which is its number
//! in all that follows. The steps in brackets are those of clients with `identities`.
//!
//! 1. Each client makes two x25519 key pairs, `c` to seal shares with and `s` for masks, and tells the public keys.
//! 2. (Each gets all public keys, names and the round's terms, and signs a digest of these and the round's number by its
//!    long-term ed25519 key.)
//! 3. Each gets all public keys (and signatures, and refuses the round if one is of something else than it was shown; who
//!    did not sign takes no part). It draws the seed `bᵤ` of its own mask, and splits `bᵤ` and the secret of `sᵤ` by Shamir's
//!    scheme so that any `threshold` shares give them back. It seals each member's two shares for that member:
//!    ChaCha20-Poly1305 under HKDF-SHA256 of the agreement of the two `c`.
//! 4. Each gets the shares that are for it. A share that was changed on its way is an error.
//! 5. The clients train. Client `u` sends, modulo 2³² and with `E` the fixed-point encoding,
//!    `yᵤ = E(xᵤ − x) + PRG(bᵤ) + Σ_{v > u} PRG(sᵤᵥ) − Σ_{v < u} PRG(sᵤᵥ)` over the others `v` that dealt shares, where
//!    `x` is the round's global model, `sᵤᵥ` the agreement of the two `s` through HKDF-SHA256, and `PRG` a ChaCha20 stream.
//! 6. (The server says whose updates arrived. Each of these clients signs the list, the global model that it began with, and
//!    whether it trained.)
//! 7. The server says whose updates arrived (with the signatures). Each of these clients answers, for each that dealt
//!    shares, its share of `bᵥ` if the update arrived, else of the secret of `sᵥ`: never both, and only once. With
//!    `threshold` answers the server takes what is left of the masks off the sum.
//!
//! Too few clients at any of these steps is an error of the round that says how many there were.
//!
//! A signature cannot be of an earlier round, run or attempt: what is signed has all clients' keys of the round in it, and
//! each client sees that its own, which are new, are among them. Since it has all members and terms, nobody can be shown
//! others than the rest.
//!
//! # Who enforces what
//!
//! | | by the server | by each client | by each client with `identities` |
//! |---|---|---|---|
//! | `threshold` is more than half of the members, and at least the client's | yes | yes | yes, and all see the same |
//! | at least `threshold` updates arrived, and at least the client's `minimum` | yes | keeps its shares back | yes, and so many sign it |
//! | at least `minimum` of these clients trained | yes, by their steps | – | yes, by what they sign |
//! | the members are who they say, and none is made up | – | – | yes |
//! | all clients are told of the same arrived updates, and began with the same global model | – | – | yes |
//!
//! A client counts as one that trained, for itself, if some value of its update is not 0. A filter before this one that adds
//! noise makes it one; the server goes by the steps. With fewer than `minimum` that trained the round is an error, and
//! `fedplug check` finds that if it is clear from the numbers of rows. If none trained, the global model stays as it was and
//! the sum stays masked.
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
//! A message with extra tensors or values is refused, since they would not be masked. Masked updates are i32 tensors under
//! the parameters' names, of which other aggregators can make nothing.
//!
//! # Noise
//!
//! ```toml
//! [aggregator]
//! plugin = "secure"
//! clip-norm = 1.0            # C, the largest L2 norm of a client's whole update
//! noise-multiplier = 1.0     # σ: the noise on every value of a sum has at least the standard deviation σ C
//! delta = 1e-5
//! colluding = 1              # clients whose noise does not count
//!
//! [[filter]]
//! plugin = "secure"
//! at = "client-output"
//! noise-multiplier = 1.0     # the least that this client accepts
//! ```
//!
//! The distributed discrete Gaussian mechanism (Kairouz, Liu and Steinke, *The Distributed Discrete Gaussian Mechanism for
//! Federated Learning with Secure Aggregation*, ICML 2021), without its rotation, which 32 bits do not need. The grid's
//! unit is `γ = C / 2^(bits − 1)`, of 20 bits if not given. Of `d` floating values, each client
//!
//! 1. scales its whole update by `min(1, C / ‖u‖₂)`;
//! 2. rounds each value to one of its two neighbours on the grid, at random and without bias, and draws all again until
//!    `‖ũ‖² ≤ Δ² = min{C² + γ²d/4 + γ (C + γ√d/2), (C + γ√d)²}` (β = e^(−1/2)), which is compared in integers;
//! 3. adds an integer of the discrete Gaussian distribution to each, of variance `⌈(σC/γ)² / (threshold − colluding)⌉`,
//!    sampled exactly;
//! 4. masks the result as above.
//!
//! At least `threshold` updates are in a sum that is unmasked, so at least `threshold − colluding` of their noises are
//! unknown to the server and its helpers, and these alone have the stated variance. Every further client that stays adds
//! as much again. All that leaves the client is integers: what Mironov, *On Significance of the Least Significant Bits for
//! Differential Privacy*, CCS 2012, does with f64 noise has nothing to work on. The mean is over all clients whose updates
//! arrived, trained or not: the number that trained says something of the data. Norms and clipping are not reported.
//!
//! Twice `threshold` has to be more than the round's clients and `colluding` together, as Bonawitz et al. have it for
//! clients on the server's side. When a round begins, the numbers of bits are checked: some value of a sum leaves the ring
//! of 32 bits with a chance of at most 2⁻⁴⁰ a round, by the norm of the updates and the tails of the noise over all values.
//! That would spoil the model, and not the privacy.
//!
//! **What is guaranteed.** The unit is one client's whole update in every round. Two runs are neighbours if in one of
//! them all updates of one client are 0. Whoever sees the sums and global models of all rounds, knows the noise of
//! `colluding` other clients, and cannot break the ciphers, can tell the two apart by (epsilon, delta) at most. For *any*
//! two updates (replacing a client's data) it is that of half the `noise-multiplier`.
//!
//! **The account.** Each client counts the rounds in which it sent an update, those repeated after an interruption as
//! well. Epsilon is the smaller of two bounds, each of which holds by itself:
//!
//! - Theorem 1 of the paper: each round has a Rényi divergence of at most `α ε²/2` at every order `α`, with
//!   `ε = Δ / (√n s) + τ√d`, `n = threshold − colluding`, `s` a client's standard deviation and
//!   `τ = 10 Σ_{k=1}^{n−1} exp(−2π² (s/γ)² k / (k + 1))`: a sum of discrete Gaussians is none, but close to one. The best order
//!   counts (Canonne, Kamath and Steinke 2020, Proposition 12).
//! - The exact account of continuous noise (Balle and Wang 2018) of the variance `n (s/γ)² − 9`, of which a discrete
//!   Gaussian can be made without another look at the data, at `δ e^(−τdT)` and with `2τdT` more, for `T` rounds.
//!
//! With σ = 1, δ = 1e-5, and 421 values the first gives 4.73 after one round and 30.11 after 20, the second 4.38 and 28.37.
//! There is no amplification by sampling. `Secure/epsilon` and the summary have it for each client.
//!
//! # Long-term keys
//!
//! ```sh
//! openssl genpkey -algorithm ed25519 -out tm.pem        # the client's own; nobody else reads it
//! openssl pkey -in tm.pem -pubout                       # for `identities` at all clients, by another way than the server
//! ```
//!
//! Keys are read when a run begins. Either all clients of a round have `identities` or none.
//!
//! # Cost
//!
//! With `n` clients and `m` values: each client computes `n` streams of `4m` bytes, the server one for each client that
//! stays and one for each pair of a client that was lost with one that stayed. Besides the update a client sends
//! `64 + 80n + 32n` bytes and gets `64n + 80n`; with `identities`, 129 more and `64n + 64n + 65n`. Memory is one sum of
//! `4m` bytes at the server; at a client, the masked update and a few copies of its largest parameter, with noise another
//! `4m` bytes. Nothing but the number of noisy rounds lives from round to round.
//!
//! # What it does not protect from
//!
//! - All other clients together: they know their own updates, and learn the last one's from any sum. With noise they
//!   learn it up to that client's own part of it.
//! - `threshold` or more clients that pool their shares with the server: they unmask any client's update, without noise
//!   but for that client's own part.
//! - Without `identities`, a server that does not keep to the protocol. It could put its own keys in the place of others,
//!   make up clients, tell each client of other arrived updates, or give all but one a global model on which nothing is
//!   learnt. The filter refuses what it can see: terms below its own, too few that arrived, a second question, shares that
//!   were changed.
//! - With `identities`, a server that has `k` clients on its side, if twice `threshold` is not more than `k` and the round's
//!   clients together; and any server that ends a round without a sum, leaves clients out of it, or gives all of them a
//!   global model that is made to tell more.
//! - What the sum itself tells, without noise. The global models are known to all, a sum over few clients says much of
//!   each, and who is in one sum and not in another shows in their difference.
//! - Clients that lie: a poisoned update is masked like any other, so robust aggregation is not possible. A client that
//!   adds no noise is one of those that `colluding` is for.
//! - What is sent beside the parameters: metrics, steps and numbers of examples are in clear, and so are the numbers of
//!   clamped values without noise, and with `identities` whether a client trained.
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
    Component::aggregator(
        "secure",
        "secure aggregation: a server that follows the protocol sees the sum of the updates, with noise if asked for, and no \
         single one; all other clients together still learn the last one's",
        Secure::new,
    )
}

/// The clients' side.
pub fn filter() -> Component {
    let about = "masks updates for the aggregator of this name, and holds it to terms; in this host all run in one process, \
        whose owner can see everything";
    Component::filter("secure", about, Mask::new)
}

plugin_api::export_plugin!(aggregator(), filter());

#[cfg(test)]
mod tests;
