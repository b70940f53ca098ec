//! Differential privacy, in two components named `privacy`. The [aggregator](#the-aggregator) is for clients that trust
//! the server (central). The filter protects what a client sends, with Gaussian noise and an account of (epsilon,
//! delta), or by the sparse vector and percentile mechanisms of NVIDIA FLARE. One library holds both, since they share
//! the update, its clipping and its noise.
//!
//! # The filter
//!
//! ```toml
//! [[filter]]
//! plugin = "privacy"
//! at = "client-output"        # or "server-input", where the server is trusted and those that it sends to are not
//! mechanism = "gaussian"
//! clip = 1.0                  # C, the largest L2 norm of a client's whole update
//! noise-multiplier = 1.0      # σ: the noise on every element has the standard deviation σ C
//! delta = 1e-5
//! ```
//!
//! A filter works on the update `u`: a message's parameters minus the global model from which the client's round
//! started. It sends that global model plus the changed update, so that an aggregator need not know about it. All
//! floating-point parameters of the message form one vector; the computation is in f64 and rounds once to the
//! parameter's type.
//!
//! Anything that would pass unprotected is an error: tensors and values besides the parameters, and integers that the
//! client changed. So is a parameter without a global value, such as a private head that is sent although the global
//! model lacks it: remove it with a filter earlier in the file. (Its value could be taken for its update, which would
//! be sound. But nothing bounds its norm, so clipping would shrink everything else to nothing.) At `client-input` and
//! `server-output` a message is its own base: there is no update, so the filter is refused there.
//!
//! # `gaussian`
//!
//! McMahan, Ramage, Talwar and Zhang, *Learning Differentially Private Recurrent Language Models*, ICLR 2018, with the
//! noise at the client: `u · min(1, C / ‖u‖₂) + N(0, σ² C² I)`. With `noise-multiplier = 0` it only clips, and epsilon
//! is infinite; an update that needs no clipping then passes bit for bit.
//!
//! **Guarantee.** The unit of privacy is one client's whole update in each round, and so all of its data. Two runs are
//! neighbours if they differ in one client's updates, which are 0 in one of them: the client compared with one that
//! learnt nothing (adding or removing a client's data; McMahan et al. 2018). An observer who sees all messages of the
//! client after this filter, and chooses each round's global model based on them, can distinguish the two by at most
//! (epsilon, delta). For neighbours with *any* two updates (replacing a client's data) the sensitivity is `2C`, and the
//! guarantee is that of half the `noise-multiplier`.
//!
//! **Accounting.** The account is exact up to rounding: with multiplier σ, the rounds in which this client sent a
//! message are one Gaussian mechanism with multiplier `σ / √rounds` (Dong, Roth and Su, *Gaussian Differential
//! Privacy*, JRSS B 2022), whose epsilon at `delta` is known in closed form (Balle and Wang, *Improving the Gaussian
//! Mechanism for Differential Privacy*, ICML 2018, Theorem 8).
//!
//! A model that other clients evaluate at the end (`federation.cross-site`) is one more message and counts.
//!
//! **No amplification by sampling.** Training only a fraction of the clients in a round does not improve this account.
//! Each client adds its own noise and sends it under its own name, so whoever sees the messages knows which rounds it
//! was in. The amplified accounts in the literature hold for noise that is in every round's sum, whether or not the
//! client takes part. The [aggregator](#the-aggregator) adds such noise.
//!
//! **Discrete noise.** With `noise = "discrete"` the clipped update is rounded to integers and the noise is a discrete
//! Gaussian on them, as [in the aggregator](#integers). The default, `"gaussian"`, adds one floating-point number to
//! another, and does not protect the low bits.
//!
//! **Budget.** With `budget = { epsilon = 8.0 }` the filter refuses to send a message after which the account would
//! exceed this epsilon; the client then fails, and `on-client-failure` says what follows. With a `ledger` the budget is
//! for all runs together, and for all clients that use this file:
//!
//! ```toml
//! budget = { epsilon = 8.0, delta = 1e-5, ledger = "privacy.json" }
//! ```
//!
//! The ledger has the number of messages for each `noise-multiplier`. A message is in it, and forced to the disk, before
//! it leaves the filter, so it also counts what was never received. The lifetime's account is as exact as that of a run:
//! messages with multipliers `σᵢ` are one mechanism with `(Σ σᵢ⁻²)^(-1/2)`, and this also holds if whoever receives them
//! chooses each round by the earlier ones (Smith and Thakurta, *Fully Adaptive Composition for Gaussian Differential
//! Privacy*, 2022). A damaged ledger is an error; one that is removed is forgotten. The summary says what is spent.
//!
//! Each round records `Privacy/norm`, `Privacy/clipped` (1 if the norm was over `clip`) and `Privacy/epsilon` (unless
//! it is infinite) at the round's number; the run's summary has epsilon, delta and rounds. Norm and clipping describe
//! the update *before* noise. They belong to the client alone: showing them to others reveals something unprotected.
//!
//! # `sparse-vector`
//!
//! Li et al., *Privacy-preserving Federated Brain Tumour Segmentation*, MLMI 2019, after Shokri and Shmatikov,
//! *Privacy-Preserving Deep Learning*, CCS 2015. Of `d` updates, `n = ⌈fraction · d⌉` are requested. With `Lap(b)`
//! noise from the Laplace distribution of scale `b`, and `clip(x)` the nearest number to `x` in `[−γ, γ]`:
//!
//! 1. The threshold is `τ + Lap(γ / ε₁)`, drawn once per round.
//! 2. Update `i` is above it if `|clip(uᵢ)| + Lap(2γn / ε₂)` is. All are tested once; those below are tested again with
//!    new noise, until at least `n` are above.
//! 3. `n` of those above are drawn, with or without replacement (`replace`).
//! 4. A drawn update is shared once, as `clip(clip(uᵢ) + Lap(2γ / ε₃))`; `ε₃` is `noise-var`. All others are 0.
//!
//! ```toml
//! mechanism = "sparse-vector"
//! fraction = 0.1
//! epsilon = 0.1
//! noise-var = 0.1
//! gamma = 1e-3
//! tau = 1e-4
//! ```
//!
//! `epsilon-of` defines the meaning of `epsilon`. With `"selection"`, the rule of NVIDIA FLARE 2.9, it is the budget of
//! the whole selection, `ε₁ + ε₂` with `ε₂ = ε₁ (2n)^(2/3)`. With `"threshold"`, its earlier rule, it is `2ε₁`, and
//! `ε₂` is an additional `ε₁ (2n)^(2/3)`: in the same file the noise of the selection is smaller by a factor of
//! `(1 + (2n)^(2/3)) / 2`.
//!
//! **The guarantee is disputed, and no (epsilon, delta) of a run is reported.** A textbook sparse vector that stops at
//! the `n`-th answer costs, in each round, the selection's budget for *which* values are shared, plus `n ε₃` for *what*
//! they are, since each value costs `ε₃` by itself. That is far more than `epsilon` says; the summary has the sum. This
//! mechanism tests again until it has enough values, which the textbook's proof does not cover, and Lyu, Su and Li,
//! *Understanding the Sparse Vector Technique for Differential Privacy*, PVLDB 2017, show for several published
//! variants that they are not private as claimed.
//!
//! Differences from NVIDIA FLARE: `gamma` and `tau` apply to the round's whole update, not to an optimiser step (its
//! filter divides by the number of steps, which a filter does not know here: multiply both by it for the same result);
//! a value is also clipped before its noise, whose scale assumes clipped values; a tensor without dimensions is treated
//! like any other and does not pass unchanged.
//!
//! # `percentile`
//!
//! After Shokri and Shmatikov 2015: updates whose magnitude is below the `percentile` of all magnitudes (interpolated
//! linearly between neighbours) become 0; the others are clipped to `[−γ, γ]`. There is no noise, and **no differential
//! privacy**. The two differences from NVIDIA FLARE are the same.
//!
//! ```toml
//! mechanism = "percentile"
//! percentile = 90
//! gamma = 0.01
//! ```
//!
//! # Randomness
//!
//! ChaCha20, with a 256-bit seed from the operating system for each instance, so two runs differ. With
//! `reproducible = true` the noise comes from the experiment's seed, client and round: a run gives the same bits again,
//! and whoever knows the seed can subtract the noise. The summary says so.
//!
//! # What it does not protect against
//!
//! - Noise of the kind `gaussian`, and that of `sparse-vector`, is made of f64. Only `discrete` protects against
//!   attacks on its low bits (Mironov, *On Significance of the Least Significant Bits for Differential Privacy*, CCS
//!   2012).
//! - Numbers of steps and examples, metrics, scalars, the names and shapes of parameters, whether a client failed, and
//!   how long it took are not protected.
//! - A resumed run repeats the rounds since its checkpoint with new noise, and the earlier messages may have been seen.
//!   So before anything of a round leaves a client, the host writes to disk that the round starts (the property
//!   `attempts`). Every round that a client has started counts, including one in which it then failed: epsilon is an
//!   upper bound. If the host does not provide the property, or its journal is removed, only messages recorded in the
//!   checkpoint count.
//!
//! # The aggregator
//!
//! ```toml
//! [aggregator]
//! plugin = "privacy"
//! clip = 1.0                  # C, the largest L2 norm of a client's whole update
//! noise-multiplier = 1.5      # z: the noise on every element of the sum has the standard deviation z C
//! delta = 1e-5
//! noise = "discrete"          # or "gaussian"
//! learning-rate = 1.0
//!
//! [federation]
//! sampling = "poisson"        # for an account that counts that clients are absent by chance
//! fraction = 0.3
//! ```
//!
//! DP-FedAvg with noise at the server (McMahan et al. 2018). The next global model is
//! `x + η (Σ uᵢ min(1, C / ‖uᵢ‖) + N(0, z² C² I)) / m`, with all floating-point parameters of the global model as one
//! vector. `m` is the expected number of clients in a round and does not depend on who took part: the fraction of the
//! population under Poisson sampling, the size of the cohort under the fixed draw. A client that fails, and a parameter
//! that a client does not send, count as an update of 0. Noise is added to every parameter in every round, even in a
//! round without clients. All clients have the same weight, whatever their steps and examples. As in the filter,
//! anything that cannot be protected is refused.
//!
//! **Whom it protects, and from whom.** Two runs are neighbours if one client's updates are 0 in one of them, in all
//! rounds; the size of the population is public. An observer who sees all global models, such as another client, can
//! distinguish them by at most (epsilon, delta). The server sees each update unprotected: both the server and the
//! connection to it must be trusted. Replacing a client's data means removing and adding it: twice the epsilon, at
//! `1 + e^ε` times the delta.
//!
//! **Accounting.** Under `sampling = "poisson"` the account is that of the Poisson-sampled Gaussian mechanism, for all
//! rounds of the run so far, with the host's rate. It holds as long as nobody who sees the global models knows who took
//! part. Under the fixed draw, which follows from the experiment's seed, nothing is amplified: the rounds of the client
//! selected most often count in full. Rounds that a killed run started, and that the next process repeats, count as
//! released. With Poisson sampling they have the same clients, so that `k` releases are one with `1 / √k` of the noise.
//!
//! ## Integers
//!
//! With discrete noise, everything that depends on clients is an integer until the noise is added. `S` steps represent
//! `C`, with `S` about `2²⁰ / z`. A client's elements are multiplied by `S / max(C, ‖u‖)` and rounded towards 0, which
//! makes no norm larger. Integer arithmetic then checks that the squares of its integers sum to at most `S²`; if a
//! rounding error prevents this, the factor is reduced. So the sensitivity is `S`, exactly. The integers are summed,
//! and each sum gets a discrete Gaussian sample of the variance `⌈z² S²⌉ + 1`, drawn exactly
//! ([`fedplug_dp::DiscreteGaussian`]). All later steps, rounding to the parameters' type included, depend only on these
//! noisy integers and on public data, so their low bits reveal nothing. Rounding costs an element of a client at most
//! `C / S`, a millionth of the noise. The account is that of continuous noise of the variance `z² S² - 9`, of which
//! discrete noise is a function.
//!
//! Not covered: the time of a draw depends on its value, and a refused update is a failure that others can see.
//!
//! ## Adaptive clipping
//!
//! ```toml
//! clip = { initial = 0.1, quantile = 0.5, learning-rate = 0.2, count-noise = 5.0 }
//! ```
//!
//! Andrew, Thakkar, McMahan and Ramaswamy, *Differentially Private Learning with Adaptive Clipping*, NeurIPS 2021:
//! after each round `C ← C exp(-η_C (b - γ))`, with the noisy fraction `b` of the clients within `C`. Each client moves
//! the count up or down by a half, and noise of the standard deviation `count-noise` is added to the count. The account
//! includes this cost: updates and count are one Gaussian mechanism with the multiplier `noise-multiplier`, for which
//! the updates' own multiplier is raised to `(z⁻² − (2 count-noise)⁻²)^(-1/2)`. `Privacy/clip` is the norm of a round;
//! it is protected as well.
//!
//! ## Private parameters
//!
//! A parameter that no client sends, in a round in which every client takes part, is dropped from the next global
//! model. If some clients are not drawn, this cannot be distinguished from a holder's absence, and treating it
//! differently would reveal who took part. So the parameter stays, and gets noise. Private heads therefore also need
//! `exclude-params` at `server-output`.
//!
//! # State and memory
//!
//! The aggregator takes 8 bytes for each parameter; its state is the account and the clipping norm.
//!
//! The filter's state is the number of counted rounds for each client, and how many the client had started at the last
//! of them. `gaussian` needs the memory of one more message, `percentile` another 8 bytes for each element, and
//! `sparse-vector` up to 32.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod budget;
mod central;
mod config;
mod counts;
mod gaussian;
mod lattice;
mod noise;
mod percentile;
mod privacy;
mod sparse_vector;
mod update;

use plugin_api::Component;

pub use crate::budget::Budget;
pub use crate::central::{AdaptiveClip, Central, CentralConfig, Clip};
pub use crate::config::{Config, Mechanism};
pub use crate::lattice::NoiseKind;
pub use crate::privacy::Privacy;

/// The server side, for clients that trust it.
pub fn aggregator() -> Component {
    let about = "central differential privacy: noise once, on the sum of clipped updates, with an account";
    Component::aggregator("privacy", about, Central::new).empty_rounds()
}

/// The client side.
pub fn component() -> Component {
    let about = "differential privacy for a client's update: gaussian noise with an account, sparse vector, percentile";
    Component::filter("privacy", about, Privacy::new)
}

plugin_api::export_plugin!(component(), aggregator());

#[cfg(test)]
mod tests;
