//! Differential privacy in two places: an aggregator for those who trust the server ([central](#the-aggregator)), and a filter
//! for what a client sends, with Gaussian noise and an account of (epsilon, delta), or by the sparse vector and percentile
//! mechanisms as NVIDIA FLARE has them. Both are named `privacy` and come in one library: they share what an update is, its
//! clipping and its noise.
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
//! A filter works on the update `u`, a message's parameters minus the global model that the client's round began with,
//! and sends that global model plus the changed update, so that an aggregator need not know of it. All floating parameters
//! of the message make one vector; the computation is in f64 and rounds once to the parameter's type.
//!
//! What would pass unprotected is an error: tensors and values besides the parameters, integers that the client changed.
//! So is a parameter without a global value, such as a private head that is sent although the global model lacks it:
//! keep it from being sent by a filter before this one in the file. (Its value could be taken for its update, which would
//! be sound. But nothing bounds its norm, so clipping would shrink all else to nothing.) At `client-input` and
//! `server-output` a message is its own base: there is no update, and this filter has no place there.
//!
//! # `gaussian`
//!
//! McMahan, Ramage, Talwar and Zhang, *Learning Differentially Private Recurrent Language Models*, ICLR 2018, with the
//! noise at the client: `u · min(1, C / ‖u‖₂) + N(0, σ² C² I)`. With `noise-multiplier = 0` it only clips, and epsilon is
//! infinite; an update that need not be clipped then passes bit for bit.
//!
//! **What is guaranteed.** The unit of privacy is one client's whole update in each round, and so all of its data. Two
//! runs are neighbours if they differ in one client's updates, which in one of them are 0: the client against one that
//! learnt nothing (adding or removing a client's data; McMahan et al. 2018). Whoever sees all messages of the client
//! after this filter, and chooses each round's global model by them, can tell the two apart by (epsilon, delta) at most.
//! For neighbours with *any* two updates (replacing a client's data) the sensitivity is `2C`, and the guarantee is that
//! of half the `noise-multiplier`.
//!
//! **The account.** It is exact but for rounding: as many rounds as this client has sent in, with multiplier σ, are one
//! Gaussian mechanism with multiplier `σ / √rounds` (Dong, Roth and Su, *Gaussian Differential Privacy*, JRSS B 2022), whose
//! epsilon at `delta` is known in closed form (Balle and Wang, *Improving the Gaussian Mechanism for Differential Privacy*,
//! ICML 2018, Theorem 8).
//!
//! A model that other clients evaluate at the end (`federation.cross-site`) is one more message and counts.
//!
//! **No amplification by sampling.** That a fraction of the clients takes part in a round makes this account no better.
//! Each client adds noise of its own and sends it under its own name, so whoever sees the messages knows when it was
//! there; and the amplified accounts of the literature hold for noise that is in every round's sum, whether or not the
//! client is. The [aggregator](#the-aggregator) adds such noise.
//!
//! **Discrete noise.** With `noise = "discrete"` the clipped update is rounded to integers and the noise is a discrete
//! Gaussian on them, as [in the aggregator](#integers). The default, `"gaussian"`, is a floating-point number added to
//! another, whose low bits are not guarded.
//!
//! Each round records `Privacy/norm`, `Privacy/clipped` (1 if the norm was over `clip`) and `Privacy/epsilon` (unless it
//! is infinite) at the round's number; the run's summary has epsilon, delta and rounds. Norm and clipping are of the
//! update *before* noise: they are the client's own business, and whoever shows them to others shows something
//! unprotected.
//!
//! # `sparse-vector`
//!
//! Li et al., *Privacy-preserving Federated Brain Tumour Segmentation*, MLMI 2019, after Shokri and Shmatikov,
//! *Privacy-Preserving Deep Learning*, CCS 2015. Of `d` updates `n = ⌈fraction · d⌉` are asked for. With `Lap(b)` noise
//! of the Laplace distribution of scale `b`, and `clip(x)` the nearest number to `x` in `[−γ, γ]`:
//!
//! 1. The threshold is `τ + Lap(γ / ε₁)`, drawn once a round.
//! 2. Update `i` is above it if `|clip(uᵢ)| + Lap(2γn / ε₂)` is. All are asked once; those below are asked again with new
//!    noise, until at least `n` are above.
//! 3. `n` of those above are drawn, with or without replacement (`replace`).
//! 4. A drawn one is shared as `clip(clip(uᵢ) + Lap(2γ / ε₃))`, once; `ε₃` is `noise-var`. All others are 0.
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
//! `epsilon-of` says what `epsilon` is. With `"selection"`, the rule of NVIDIA FLARE 2.9, it is the budget of the
//! whole selection, `ε₁ + ε₂` with `ε₂ = ε₁ (2n)^(2/3)`. With `"threshold"`, its rule before, it is `2ε₁`, and `ε₂` is
//! `ε₁ (2n)^(2/3)` besides: in the same file the noise of the selection is smaller by a factor of `(1 + (2n)^(2/3)) / 2`.
//!
//! **What this guarantees is disputed, and no (epsilon, delta) of a run is reported.** A textbook sparse vector that stops
//! at the `n`-th answer costs the selection's budget for *which* values are shared and, as each value costs `ε₃` by itself,
//! `n ε₃` for *what* they are: for each round, and far more than `epsilon` says. The summary has that sum. This mechanism
//! asks again until it has enough, which the textbook's proof does not cover, and Lyu, Su and Li, *Understanding the Sparse
//! Vector Technique for Differential Privacy*, PVLDB 2017, show for several published variants that they are not private as
//! claimed.
//!
//! Against NVIDIA FLARE: `gamma` and `tau` are of the round's whole update and not of an optimiser step (its filter
//! divides by the number of steps, which a filter does not know here: multiply both by it for the same); a value is
//! clipped also before its noise, which is as large as clipped values need; a tensor without dimensions is treated as any
//! other and does not pass unchanged.
//!
//! # `percentile`
//!
//! After Shokri and Shmatikov 2015: updates whose magnitude is below the `percentile` of all magnitudes (linear between
//! neighbours) become 0, the others are clipped to `[−γ, γ]`. There is no noise, and **no differential privacy**. The same
//! two differences to NVIDIA FLARE.
//!
//! ```toml
//! mechanism = "percentile"
//! percentile = 90
//! gamma = 0.01
//! ```
//!
//! # Randomness
//!
//! ChaCha20, with a 256-bit seed of the operating system for each instance. Two runs then differ. With `reproducible =
//! true` the noise comes from the experiment's seed, client and round: a run gives the same bits again, and whoever knows
//! the seed subtracts the noise. The summary says so.
//!
//! # What it does not protect from
//!
//! - Noise of the kind `gaussian`, and that of `sparse-vector`, is made of f64: attacks on its low bits (Mironov, *On
//!   Significance of the Least Significant Bits for Differential Privacy*, CCS 2012) are guarded against by `discrete` alone.
//! - Numbers of steps and examples, metrics, scalars, the names and shapes of parameters, whether a client failed, and how
//!   long it took leave the client by other ways.
//! - A run that is resumed repeats the rounds since its checkpoint, with new noise, and the messages of before may have been
//!   seen. So the host writes to disk that a round begins before anything of it leaves a client (the property `attempts`),
//!   and every round that a client has begun counts, also one in which it then failed: epsilon is an upper bound. Where the
//!   host does not say so, or its journal is removed, only messages that the checkpoint knows of count.
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
//! DP-FedAvg with noise at the server (McMahan et al. 2018). The next global model is `x + η (Σ uᵢ min(1, C / ‖uᵢ‖) +
//! N(0, z² C² I)) / m`, with all floating parameters of the global model as one vector. `m` is how many clients a round is
//! expected to have and does not depend on who came: the fraction of the population under Poisson sampling, the size of
//! the cohort under the fixed draw. A client that fails, and a parameter that a client does not send, count as an update of
//! 0, and noise is on every parameter in every round, also in one without clients. Clients count the same, whatever their
//! steps and examples. What cannot be protected is refused, as by the filter.
//!
//! **Whom it protects, and from whom.** Two runs are neighbours if one client's updates are 0 in one of them, in all rounds;
//! the size of the population is public. Whoever sees all global models, other clients included, can tell them apart by
//! (epsilon, delta) at most. The server sees each update as it is: it must be trusted, and so must the way to it. To replace
//! a client's data by other data is to remove and to add it: twice the epsilon, at `1 + e^ε` times the delta.
//!
//! **The account.** Under `sampling = "poisson"` it is that of the Poisson-sampled Gaussian mechanism, for all rounds of the run
//! so far, with the host's rate, and holds as long as nobody who sees the global models knows who took part. Under the
//! fixed draw, which follows from the experiment's seed, nothing is amplified: the rounds of the client that was selected
//! most count in full. Rounds that a killed run began, and that its next process repeats, count as released; with Poisson
//! sampling with the same clients, so that `k` releases are one with `1 / √k` of the noise.
//!
//! ## Integers
//!
//! With discrete noise, all that depends on clients is integers until the noise is on it. `S` of them stand for `C`, about `2²⁰ /
//! z`. A client's elements are multiplied by `S / max(C, ‖u‖)` and rounded towards 0, which makes no norm larger; that the
//! squares of its integers add up to `S²` at most is then checked in integers, and where a rounding error stands against
//! it the factor is made smaller. So the sensitivity is `S`, exactly. The integers are added up, and to each sum comes a discrete
//! Gaussian sample of the variance `⌈z² S²⌉ + 1`, drawn exactly ([`fedplug_dp::DiscreteGaussian`]). What follows is a function of
//! these noisy integers and of what is public, rounding to the parameters' type included, so its low bits say nothing.
//! Rounding costs an element of a client `C / S` at most, a millionth of the noise. The account is that of continuous noise
//! of the variance `z² S² - 9`, of which discrete noise is a function.
//!
//! How long a draw takes depends on its value, and a refused update is a failure that others can see: neither is covered.
//!
//! ## Adaptive clipping
//!
//! ```toml
//! clip = { initial = 0.1, quantile = 0.5, learning-rate = 0.2, count-noise = 5.0 }
//! ```
//!
//! Andrew, Thakkar, McMahan and Ramaswamy, *Differentially Private Learning with Adaptive Clipping*, NeurIPS 2021: after each
//! round `C ← C exp(-η_C (b - γ))`, with the noisy share `b` of the clients within `C`. Each client moves the count by a half up or
//! down, to which comes noise of the standard deviation `count-noise`. The cost is in the account: updates and count are one
//! Gaussian mechanism with the multiplier `noise-multiplier`, for which the updates' own is raised to `(z⁻² − (2
//! count-noise)⁻²)^(-1/2)`. `Privacy/clip` is the norm of a round, which this protects as well.
//!
//! ## Private parameters
//!
//! A parameter that nobody sends, in a round with everybody, stays out of the next global model. Where clients are absent by
//! a draw, that cannot be told from a holder's absence, and to treat it otherwise would tell who took part: so it stays, and gets
//! noise. Heads that clients keep to themselves then take `exclude-params` at `server-output` as well.
//!
//! # State and memory
//!
//! The aggregator takes 8 bytes for each parameter; its state is the account and the clipping norm. Of the filter:
//!
//! The number of counted rounds for each client, and how many it had begun with the last of them. `gaussian` needs the memory of
//! one more message; `percentile` another 8
//! bytes for each element, `sparse-vector` up to 32.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod central;
mod config;
mod counts;
mod gaussian;
mod lattice;
mod noise;
mod percentile;
mod sparse_vector;
mod update;

use plugin_api::{Component, Context, Error, Filter, Message, Result, State};

pub use crate::central::{AdaptiveClip, Central, CentralConfig, Clip};
use crate::config::Plan;
pub use crate::config::{Config, Mechanism};
use crate::counts::Counts;
pub use crate::lattice::NoiseKind;
use crate::noise::Noise;
use crate::update::Update;

/// Changes what a client's update tells of its data.
pub struct Privacy {
    plan: Plan,
    noise: Noise,
    counts: Counts,
}

impl Privacy {
    /// A filter before the first round.
    ///
    /// # Errors
    /// If the keys do not fit the mechanism, the filter is where no client's update passes, or the operating system has no
    /// entropy.
    pub fn new(config: Config, ctx: &Context<'_>) -> Result<Self> {
        let position: Option<String> = ctx.property("filter.position")?;
        if let Some(position) = position.filter(|at| !["client-output", "server-input"].contains(&at.as_str())) {
            let error = Error::config(format!("protects nothing at `{position}`, where no client's update passes"));
            return Err(error
                .at_key("at")
                .help("place it at `client-output`, or at `server-input` of a trusted server"));
        }
        let noise = Noise::new(config.reproducible.unwrap_or(false))?;
        Ok(Self { plan: config.plan()?, noise, counts: Counts::default() })
    }

    /// Keeps a sentence for the summary, and says with it that reproducible noise is none.
    fn note(&self, text: &str, ctx: &Context<'_>) {
        if self.noise.reproducible() {
            ctx.note("privacy", format_args!("no protection, since the noise is reproducible; else {text}"));
        } else {
            ctx.note("privacy", format_args!("{text}"));
        }
    }
}

impl Filter for Privacy {
    fn apply(&mut self, message: Message, base: &Message, ctx: &Context<'_>) -> Result<Message> {
        let (Some(client), Some(round)) = (ctx.client(), ctx.round()) else {
            return Err(Error::unsupported("protects the update of a client in a round, and there is none"));
        };
        let update = Update::of(&message, base)?;
        let share = |shared: usize| {
            let count = update.len();
            ctx.debug(format_args!("round {}: {shared} of {count} updates are shared", round + 1));
            #[expect(clippy::cast_precision_loss, reason = "a number of elements that lie in memory")]
            ctx.scalar("Privacy/shared", round, shared as f64);
            count
        };
        let params = match &self.plan {
            Plan::Gaussian(gaussian) => {
                let (params, norm) = gaussian.apply(&update, self.noise.generator(ctx), ctx)?;
                let clipped = gaussian.clips(norm);
                let count = self.counts.add(client, ctx)?;
                let epsilon = gaussian.epsilon(count.rounds);
                ctx.scalar("Privacy/norm", round, norm);
                ctx.scalar("Privacy/clipped", round, f64::from(u8::from(clipped)));
                if epsilon.is_finite() {
                    ctx.scalar("Privacy/epsilon", round, epsilon);
                }
                let text = gaussian.guarantee(count.rounds) + &count.explained();
                let was = if clipped { "clipped" } else { "not clipped" };
                ctx.debug(format_args!("round {}: the update's norm of {norm:.4e} was {was}; {text}", round + 1));
                self.note(&text, ctx);
                ctx.note("privacy.clear", format_args!("norms of updates before noise, and whether they were clipped"));
                params
            }
            Plan::SparseVector(sparse_vector) => {
                let (params, shared) = sparse_vector.apply(&update, self.noise.generator(ctx), ctx)?;
                let count = self.counts.add(client, ctx)?;
                let epsilon = sparse_vector.textbook_epsilon(share(shared));
                let (rounds, plural) = (count.rounds, if count.rounds == 1 { "" } else { "s" });
                let text = format!(
                    "no proven guarantee after {rounds} round{plural}; a textbook sparse vector with this noise would have \
                     epsilon {epsilon:.4} in each{}",
                    count.explained()
                );
                self.note(&text, ctx);
                params
            }
            Plan::Percentile(percentile) => {
                let (params, shared) = percentile.apply(&update, ctx)?;
                share(shared);
                self.note("the largest updates are sent without noise: no differential privacy", ctx);
                params
            }
        };
        Ok(Message { params, ..message })
    }

    fn state(&mut self, _: &Context<'_>) -> Result<State> {
        self.counts.state()
    }

    fn restore(&mut self, state: &State, _: &Context<'_>) -> Result<()> {
        self.counts = Counts::of(state)?;
        Ok(())
    }
}

/// The server's side, for those who trust it.
pub fn aggregator() -> Component {
    let about = "central differential privacy: noise once, on the sum of clipped updates, with an account";
    Component::aggregator("privacy", about, Central::new).empty_rounds()
}

/// The clients' side.
pub fn component() -> Component {
    let about = "differential privacy for a client's update: gaussian noise with an account, sparse vector, percentile";
    Component::filter("privacy", about, Privacy::new)
}

plugin_api::export_plugin!(component(), aggregator());

#[cfg(test)]
mod tests;
