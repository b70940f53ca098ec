//! Aggregation that tolerates byzantine clients: clients that fail, err or cheat in any way. A mean does not tolerate
//! them: a single client can move it anywhere.
//!
//! | `method` | next global model, from the updates `x₁ … xₙ` | tolerates up to `f` byzantine clients | paper |
//! |---|---|---|---|
//! | `median` | the median of each coordinate; for an even number, the midpoint of the middle two | `f = ⌊(n − 1) / 2⌋`, `n ≥ 3` | Yin et al. |
//! | `trimmed-mean` | the mean of each coordinate without the `f` smallest and the `f` largest values | `f = ⌊β n⌋ ≥ 1`, `β = trim < 1/2` | Yin et al. |
//! | `krum` | the `xᵢ` with the smallest sum of squared distances to its `n − f − 2` nearest updates | `n ≥ 2 f + 3`, `f = byzantine` | Blanchard et al. |
//! | `multi-krum` | the mean of the `m = keep` updates with the smallest such sums | as for `krum`, and `m ≤ n − f − 2` | Blanchard et al. |
//! | `geometric-median` | the `z` that minimises `Σᵢ ‖z − xᵢ‖` | `f = ⌊(n − 1) / 2⌋`, `n ≥ 3` | Pillutla et al. |
//!
//! Yin, Chen, Ramchandran and Bartlett, *Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates*,
//! ICML 2018. Blanchard, El Mhamdi, Guerraoui and Stainer, *Machine Learning with Adversaries: Byzantine Tolerant
//! Gradient Descent*, NeurIPS 2017. Pillutla, Kakade and Harchaoui, *Robust Aggregation for Federated Learning*, IEEE
//! Transactions on Signal Processing 2022: the smoothed Weiszfeld algorithm, `z ← Σ wᵢ xᵢ / Σ wᵢ` with
//! `wᵢ = 1 / max(ν, ‖z − xᵢ‖)` and `ν = smoothing`, for a fixed number of `iterations`. It starts from the
//! coordinate-wise median. If it started from the mean, it would need more iterations the farther away a byzantine
//! update is.
//!
//! Median and geometric median have the breakdown point 1/2: if fewer than half of the clients are byzantine, the
//! result is as close to the honest updates as these are to one another, up to a constant factor. A bound on the
//! training error also needs the papers' assumptions, above all that honest clients are similar. The more their data
//! differs, the more an honest update looks like an attack, and the more is lost. The paper gives no proof for
//! multi-Krum with `m > 1`; the bound on `m` comes from later work.
//!
//! All clients have the same weight, whatever number of steps or examples they report, since a byzantine client may
//! report anything. Clients that did not train are ignored and do not count towards `n`.
//!
//! # Too few clients
//! A round with too few clients for the guarantee is an error at the configuration key that requires them. The check
//! runs when the round starts, over all clients that are to take part, and when it ends, over those that trained and
//! whose updates arrived.
//!
//! A client that sends a NaN, an infinity or a wrong shape has failed, and the host decides whether the run continues:
//! set `federation.on-client-failure = "leave-out"`, or one such client ends it. The round then has fewer clients. If
//! these are too few for the guarantee, the missing ones count as byzantine: `n` and `f` are those of the whole round,
//! and `f` minus the number of missing clients may be byzantine among the updates that arrived.
//!
//! `krum`, `multi-krum` and `geometric-median` also skip an update that lacks a parameter that most clients send, or
//! has one that most do not; a warning names the client. The update counts as one of the `f`; with more of them the
//! round fails. The scalar `Robust/left_out` counts the updates that are missing or skipped.
//!
//! # Which parameters
//! *Median and trimmed mean* handle each parameter separately, over the clients that sent it, and their guarantee holds
//! for that number of clients. Too few is an error, as above: parameters that belong to single clients must be kept
//! private. There is one exception: a parameter without a global value, sent by no more clients than may be byzantine,
//! is skipped with a warning. Otherwise a single client could stop the run by sending an extra parameter. A client that
//! sends *fewer* parameters lowers the number of clients for the missing ones. *Krum and the geometric median* need the
//! same parameters from all clients; see above. A parameter that no client sends keeps its global value if its holders
//! are absent, and has none if they keep it private, as in FedAvg.
//!
//! Only floating-point tensors are compared and averaged. For an integer tensor, each client's value is a vote: the
//! value that more than half of the clients sent wins, and without a majority the round fails.
//!
//! # Keys
//! ```toml
//! [aggregator]
//! plugin = "robust"
//! method = "trimmed-mean"    # or "median", "krum", "multi-krum", "geometric-median"
//! trim = 0.2                 # trimmed-mean: the fraction β left out at either end, below 0.5
//! # byzantine = 1            # krum, multi-krum: f
//! # keep = 3                 # multi-krum: m
//! # iterations = 10          # geometric-median
//! # smoothing = 1e-6         # geometric-median: ν, a distance of whole models
//! ```
//!
//! A key that the method does not use is an error.
//!
//! # Memory and time
//! All methods need all updates at once: the `n` updates stay in memory until the round ends, in the buffers in which
//! they arrived; nothing is copied. In addition there are the next global model (none for Krum, whose result is one of
//! the updates) and a block of 4096 coordinates of each update as f64, which is `32 KiB · n`; Krum adds `n²` distances.
//! With `d` parameters, median and trimmed mean take time in `d n log n`, Krum in `d n²`, the geometric median in
//! `iterations · d n` plus one median.
//!
//! Results are computed in f64 and rounded once, in the order of clients and of the first update's parameters: the same
//! updates give the same bits.
//!
//! # Limitations
//! It keeps no memory of clients between rounds, and cannot tell an honest outlier from an attack. Small changes that
//! hide within the differences of honest clients, such as backdoors, get through. It does not know which parameters a
//! client could train: a client without data for a task sends that task's head back unchanged, and if most clients do
//! so, the median of the head hardly moves.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod blocks;
mod config;
mod coordinates;
mod distances;
mod method;
mod received;

use plugin_api::{Aggregator, Cohort, Component, Context, Error, Message, Params, Result, Tensor, Update, WeightBy};

pub use config::Config;
use method::{Bound, Method};
use received::{Held, Received};

/// Collects the updates of a round and aggregates them at its end.
#[derive(Debug)]
pub struct Robust {
    method: Method,
    global: Message,
    cohort: usize,
    updates: usize,
    received: Received,
}

impl Robust {
    /// Creates an aggregator with no round in progress.
    ///
    /// # Errors
    /// If a key is missing, or a key is set that the method does not use.
    pub fn new(config: Config, _: &Context<'_>) -> Result<Self> {
        let (method, global, received) = (config.method()?, Message::default(), Received::default());
        Ok(Self { method, global, cohort: 0, updates: 0, received })
    }

    /// Aggregates each parameter separately: median and trimmed mean.
    fn by_coordinate(
        &self,
        received: &Received,
        global: &Params,
        Bound { f, missing, .. }: Bound,
        ctx: &Context<'_>,
    ) -> Result<Params> {
        let clients = received.clients();
        let mut next = Params::new();
        for name in received.names() {
            ctx.check()?;
            let (column, is_global) = (received.column(&name), global.get(&name).is_some());
            let sent = column.len();
            if !is_global && sent <= f {
                let whom = received.held.iter().filter(|held| held.params.get(&name).is_some());
                let whom: Vec<_> = whom.map(|held| format!("`{}`", held.client)).collect();
                ctx.warn(format_args!(
                    "`{name}` is skipped: it has no global value, and only {} sent it",
                    whom.join(", ")
                ));
                continue;
            }
            // Missing clients would have sent the parameters that everyone has.
            let bound = self.method.bound(sent, if is_global { missing } else { 0 }).map_err(|e| {
                e.because_of(format!("`{name}` came from {sent} of {clients} clients"))
                    .help("parameters of single clients must be kept private, by a filter such as `exclude-params`")
            })?;
            let tensor = match self.method {
                _ if !column[0].is_float() => vote(&name, &column, bound.n)?,
                Method::TrimmedMean { .. } => coordinates::trimmed_mean(&column, bound.among_those_that_came())?,
                _ => coordinates::median(&column)?,
            };
            next.insert(name, tensor);
        }
        Ok(next)
    }

    /// Aggregates all parameters together: Krum and geometric median.
    fn by_distance(&self, received: &Received, bound: Bound, ctx: &Context<'_>) -> Result<Params> {
        let (held, clients) = (&received.held, received.held.len());
        let names = received.names();
        let columns: Vec<_> =
            names.iter().map(|name| received.column(name)).filter(|column| column[0].is_float()).collect();
        let (chosen, weights) = match self.method {
            Method::GeometricMedian { iterations, smoothing } => {
                let weights = distances::weiszfeld(&columns, clients, iterations, smoothing, ctx)?;
                for (held, weight) in held.iter().zip(&weights) {
                    ctx.debug(format_args!(
                        "client `{}` has the weight {weight:.3e} in the geometric median",
                        held.client
                    ));
                }
                ((0..clients).collect(), weights)
            }
            Method::Krum { keep, .. } => {
                let neighbours = bound.n - bound.f - 2;
                let kept = distances::krum(&columns, clients, neighbours, keep, ctx)?;
                let whom: Vec<_> = kept.iter().map(|&i| format!("`{}`", held[i].client)).collect();
                ctx.debug(format_args!("{} keeps {}", self.method.name(), whom.join(", ")));
                (kept, vec![1.0 / keep as f64; keep])
            }
            _ => return Err(Error::other("not a method of distances")),
        };
        let next = |name: String| -> Result<(String, Tensor)> {
            ctx.check()?;
            let column = received.column(&name);
            let tensor = if !column[0].is_float() {
                vote(&name, &column, bound.n)?
            } else if let [only] = chosen[..] {
                column[only].clone()
            } else {
                distances::weighted_mean(&chosen.iter().map(|&i: &usize| column[i]).collect(), &weights)?
            };
            Ok((name, tensor))
        };
        names.into_iter().map(next).collect()
    }
}

impl Aggregator for Robust {
    fn begin(&mut self, global: &Message, cohort: &Cohort, _: &Context<'_>) -> Result<()> {
        self.method.tolerates(cohort.clients.len())?;
        self.global = global.clone();
        (self.cohort, self.updates) = (cohort.clients.len(), 0);
        self.received = Received::default();
        Ok(())
    }

    fn add(&mut self, update: Update, ctx: &Context<'_>) -> Result<()> {
        update.expect_only_parameters()?;
        self.updates += 1;
        if update.weight(WeightBy::Uniform) == 0.0 {
            ctx.debug(format_args!("client `{}` did not train in this round and is not counted", update.client));
        } else {
            self.received.held.push(Held { client: update.client, params: update.message.params });
        }
        Ok(())
    }

    fn finish(&mut self, ctx: &Context<'_>) -> Result<Message> {
        let (global, mut received) = (std::mem::take(&mut self.global), std::mem::take(&mut self.received));
        if self.updates == 0 {
            return Err(Error::other("no client sent an update"));
        }
        let clients = received.clients();
        if clients == 0 {
            ctx.warn(format_args!("no client trained in this round: the global model is unchanged"));
            return Ok(global);
        }
        let bound = self.method.bound(clients, self.cohort.saturating_sub(self.updates))?;
        let method = self.method.name();
        let next = match self.method {
            Method::Median | Method::TrimmedMean { .. } => self.by_coordinate(&received, &global.params, bound, ctx)?,
            Method::Krum { .. } | Method::GeometricMedian { .. } => {
                received.settle_names(bound.among_those_that_came(), method, ctx)?;
                self.by_distance(&received, bound, ctx)?
            }
        };
        let missing = self.cohort.saturating_sub(self.updates) + received.left_out;
        ctx.scalar("Robust/left_out", ctx.round().unwrap_or_default(), missing as f64);
        let Bound { n, f, .. } = bound;
        ctx.note("guarantee", format_args!("{method} of {n} clients, of which {f} may be byzantine"));
        Ok(next.into())
    }
}

/// The tensor that more than half of the clients sent.
fn vote(name: &str, tensors: &[&Tensor], clients: usize) -> Result<Tensor> {
    let votes = |a: &Tensor| tensors.iter().filter(|b| a.buffer().as_slice() == b.buffer().as_slice()).count();
    let elected = tensors.iter().find(|tensor| 2 * votes(tensor) > clients);
    elected.map(|&tensor| tensor.clone()).ok_or_else(|| {
        Error::tensor(name, "no value was sent by more than half of the clients")
            .help("integers are not averaged: they must be equal or kept private")
    })
}

/// The components of this plugin.
pub fn component() -> Component {
    Component::aggregator("robust", "median, trimmed mean, Krum, multi-Krum, geometric median", Robust::new)
}

plugin_api::export_plugin!(component());
