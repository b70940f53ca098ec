//! Secure aggregation by pairwise masking: a server that follows the protocol learns the sum of the clients' updates,
//! and no single update. If the clients add noise, the sums have a differential privacy guarantee.
//!
//! Bonawitz, Ivanov, Kreuter, Marcedone, McMahan, Patel, Ramage, Segal and Seth, *Practical Secure Aggregation for
//! Privacy-Preserving Machine Learning*, CCS 2017, the protocol of its Figure 4: as given there for an honest but
//! curious server and, with long-term keys, including the underlined parts for a malicious server. The protocol needs
//! two components of the same name, both in this library: the aggregator sends queries; the filters at the clients
//! answer and mask.
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
//! With `federation.on-client-failure = "leave-out"` a round continues without clients that fail during it, as long as
//! `threshold` of them remain; with `"stop"` the first failure ends the run.
//!
//! # A round
//!
//! All keys except those of `identities` are used for one round only. Client `u` has a position in the list of members;
//! `u` below stands for this position. The steps in parentheses apply to clients with `identities`.
//!
//! 1. Each client generates two x25519 key pairs, `c` to seal shares and `s` for masks, and sends the public keys.
//! 2. (Each client receives all public keys, the names and the round's terms. It signs a digest of these and the
//!    round's number with its long-term ed25519 key.)
//! 3. Each client receives all public keys (and signatures; it refuses the round if a signature does not cover what it
//!    was shown, and clients that did not sign take no part). It draws the seed `bᵤ` of its own mask, and splits `bᵤ`
//!    and the secret key of `sᵤ` by Shamir's scheme so that any `threshold` shares recover them. It seals each member's
//!    two shares for that member: ChaCha20-Poly1305 under HKDF-SHA256 of the shared secret of the two `c`.
//! 4. Each client receives the shares addressed to it. A share modified in transit is an error.
//! 5. The clients train. Client `u` sends, modulo 2³² and with `E` the fixed-point encoding,
//!    `yᵤ = E(xᵤ − x) + PRG(bᵤ) + Σ_{v > u} PRG(sᵤᵥ) − Σ_{v < u} PRG(sᵤᵥ)` over the other clients `v` that dealt
//!    shares. Here `x` is the round's global model, `sᵤᵥ` the shared secret of the two `s` through HKDF-SHA256, and
//!    `PRG` a ChaCha20 stream.
//! 6. (The server announces whose updates arrived. Each of these clients signs the list, the global model that it
//!    started from, and whether it trained.)
//! 7. The server announces whose updates arrived (with the signatures). Each of these clients answers, for each client
//!    `v` that dealt shares, its share of `bᵥ` if the update arrived, otherwise its share of the secret key of `sᵥ`:
//!    never both, and only once. With `threshold` answers the server removes the remaining masks from the sum.
//!
//! Too few clients at any of these steps is an error of the round; the message says how many there were.
//!
//! A signature from an earlier round, run or attempt is not valid: the signed data contains all clients' keys of the
//! round, and each client checks that its own fresh keys are among them. Since it contains all members and terms, a
//! server cannot show different ones to different clients.
//!
//! # Who enforces what
//!
//! | | by the server | by each client | by each client with `identities` |
//! |---|---|---|---|
//! | `threshold` is more than half of the members, and at least the client's | yes | yes | yes, and all see the same |
//! | at least `threshold` updates arrived, and at least the client's `minimum` | yes | withholds its shares | yes, and that many sign it |
//! | at least `minimum` of these clients trained | yes, by their steps | – | yes, by what they sign |
//! | the members are who they claim to be, and none is invented | – | – | yes |
//! | all clients see the same list of arrived updates, and started from the same global model | – | – | yes |
//!
//! For itself, a client trained if some value of its update is not 0; an earlier filter that adds noise makes this
//! true. The server goes by the number of steps. If fewer than `minimum` trained, the round is an error;
//! `fedplug check` reports it in advance if the numbers of rows already show it. If none trained, the global model
//! stays unchanged and the sum stays masked.
//!
//! # Result
//!
//! The next global model is `x + (1/n) Σ E(xᵤ − x) · step`, over the `n` clients that trained. Masks cancel exactly, so
//! the sum equals that of the encoded integers bit for bit, and the model does not depend on the masks: neither on
//! `reproducible` nor on the run. It is the uniform mean, like FedAvg with `weight-by = "uniform"`: a weighted mean
//! would need `Σ wᵤ xᵤ`, and a filter does not know its client's steps. A client that took no step in the round does
//! not count, since its update is 0; if another filter adds something to it, the sum includes that.
//!
//! Each change of a value is clamped to `±clip` and rounded to a multiple of `step = clip / 2^(bits − 1)`. Clamped
//! values are counted (`Secure/clamped`, one number per client and round) and reported in a warning. Each value of the
//! model is therefore within `step / 2` of the mean of the clamped updates, before it is rounded to the parameter's
//! type. The defaults have a step of 1.2e-7, which is the resolution of f32 at 1. Sums stay below 2³¹ if
//! `n · 2^(bits − 1)` does, which is checked when a round starts. So 32 bits are enough for 24-bit numbers of 255
//! clients, and a masked update is no larger than one in f32; 64 bits would double the traffic and the time for the
//! masks. A sum out of range after unmasking shows that some client's data was wrong.
//!
//! All clients must send the same parameters with the same shapes: remove private heads first with `exclude-params`. A
//! message with extra tensors or values is refused, since these would not be masked. Masked updates are i32 tensors
//! under the parameters' names, which other aggregators cannot use.
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
//! The distributed discrete Gaussian mechanism (Kairouz, Liu and Steinke, *The Distributed Discrete Gaussian Mechanism
//! for Federated Learning with Secure Aggregation*, ICML 2021), without its rotation, which 32 bits make unnecessary.
//! The grid's unit is `γ = C / 2^(bits − 1)`, with 20 bits by default. For `d` floating-point values, each client
//!
//! 1. scales its whole update by `min(1, C / ‖u‖₂)`;
//! 2. rounds each value to one of its two neighbours on the grid, at random and without bias, and redraws all of them
//!    until `‖ũ‖² ≤ Δ² = min{C² + γ²d/4 + γ (C + γ√d/2), (C + γ√d)²}` (β = e^(−1/2)), compared in integers;
//! 3. adds to each an integer from the discrete Gaussian distribution of variance
//!    `⌈(σC/γ)² / (threshold − colluding)⌉`, sampled exactly;
//! 4. masks the result as above.
//!
//! A sum is unmasked only if it contains at least `threshold` updates. At least `threshold − colluding` of their noises
//! are therefore unknown to the server and the clients that collude with it, and these alone have the stated variance.
//! Every further client that remains adds as much again. Only integers leave the client, so the attack of Mironov, *On
//! Significance of the Least Significant Bits for Differential Privacy*, CCS 2012, on f64 noise does not apply. The
//! mean is over all clients whose updates arrived, trained or not: the number that trained would reveal something about
//! the data. Norms and clipping are not reported.
//!
//! Twice `threshold` must exceed the number of the round's clients plus `colluding`, as in Bonawitz et al. for clients
//! that collude with the server. When a round starts, the number of bits is checked: some value of a sum leaves the
//! 32-bit ring with a probability of at most 2⁻⁴⁰ per round, bounded by the norm of the updates and the tails of the
//! noise over all values. Leaving it would spoil the model, not the privacy.
//!
//! **Guarantee.** The unit is one client's updates in all rounds. Two runs are neighbours if in one of them all updates
//! of one client are 0. An observer who sees the sums and global models of all rounds, knows the noise of `colluding`
//! other clients, and cannot break the ciphers, can distinguish the two by at most (epsilon, delta). For *any* two
//! updates (replacing a client's data) the guarantee is that of half the `noise-multiplier`.
//!
//! **Accounting.** Each client counts the rounds in which it sent an update, including those repeated after an
//! interruption. Epsilon is the smaller of two bounds, each of which holds on its own:
//!
//! - Theorem 1 of the paper: each round has a Rényi divergence of at most `α ε²/2` at every order `α`, with
//!   `ε = Δ / (√n s) + τ√d`, `n = threshold − colluding`, `s` a client's standard deviation and
//!   `τ = 10 Σ_{k=1}^{n−1} exp(−2π² (s/γ)² k / (k + 1))`: a sum of discrete Gaussians is not one, but close to one. The
//!   best order is used (Canonne, Kamath and Steinke 2020, Proposition 12).
//! - The exact accounting of continuous noise (Balle and Wang 2018) of the variance `n (s/γ)² − 9`, from which a
//!   discrete Gaussian can be generated without further access to the data, at `δ e^(−τdT)` and with `2τdT` more, for
//!   `T` rounds.
//!
//! With σ = 1, δ = 1e-5, and 421 values the first gives 4.73 after one round and 30.11 after 20, the second 4.38 and
//! 28.37. There is no amplification by sampling. `Secure/epsilon` and the summary report epsilon for each client.
//!
//! # Long-term keys
//!
//! ```sh
//! openssl genpkey -algorithm ed25519 -out tm.pem        # the client's own; nobody else reads it
//! openssl pkey -in tm.pem -pubout                       # for `identities` at all clients, by another way than the server
//! ```
//!
//! Keys are read when a run starts. Either all clients of a round have `identities`, or none has.
//!
//! # Cost
//!
//! With `n` clients and `m` values: each client computes `n` streams of `4m` bytes; the server computes one for each
//! client that remains, and one for each pair of a dropped client and a remaining one. Besides the update a client
//! sends `64 + 80n + 32n` bytes and receives `64n + 80n`; with `identities`, 129 more and `64n + 64n + 65n`. Memory is
//! one sum of `4m` bytes at the server; at a client, the masked update and a few copies of its largest parameter, and
//! with noise another `4m` bytes. Only the number of noisy rounds is kept between rounds.
//!
//! # What it does not protect against
//!
//! - All other clients together: they know their own updates, and learn the last one's from any sum. With noise they
//!   learn it up to that client's own part of the noise.
//! - `threshold` or more clients that pool their shares with the server: they can unmask any client's update, protected
//!   only by that client's own part of the noise.
//! - Without `identities`, a server that deviates from the protocol. It could replace clients' keys with its own,
//!   invent clients, tell each client of different arrived updates, or give all but one a global model on which nothing
//!   is learnt. The filter refuses what it can detect: terms below its own, too few arrived updates, a second query,
//!   modified shares.
//! - With `identities`, a server that colludes with `k` clients, if twice `threshold` is not more than `k` plus the
//!   number of the round's clients; and any server that ends a round without a sum, leaves clients out of it, or gives
//!   all of them a global model crafted to reveal more.
//! - What the sum itself reveals, without noise. The global models are known to all, a sum over few clients says much
//!   about each, and the difference between two sums reveals a client that is only in one of them.
//! - Clients that lie: a poisoned update is masked like any other, so robust aggregation is not possible. A client that
//!   adds no noise is one of those that `colluding` covers.
//! - Data sent beside the parameters: metrics, steps and numbers of examples are in clear, and so are the numbers of
//!   clamped values without noise, and with `identities` whether a client trained.
//! - In this host, clients and server share one process and its memory. This demonstrates the protocol and its cost; it
//!   protects nobody from whoever runs the process.

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

/// The server side.
pub fn aggregator() -> Component {
    Component::aggregator(
        "secure",
        "secure aggregation: a server that follows the protocol sees the sum of the updates, with noise if asked for, and no \
         single one; all other clients together still learn the last one's",
        Secure::new,
    )
}

/// The client side.
pub fn filter() -> Component {
    let about = "masks updates for the aggregator of this name, and holds it to terms; in this host all run in one process, \
        whose owner can see everything";
    Component::filter("secure", about, Mask::new)
}

plugin_api::export_plugin!(aggregator(), filter());

#[cfg(test)]
mod tests;
