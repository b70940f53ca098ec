//! Aggregation that bears with byzantine clients: some that fail, err or cheat in whatever way. A mean does not: a single
//! client can move it anywhere.
//!
//! | `method` | the next global model, of the updates `x₁ … xₙ` | holds with at most `f` byzantine | paper |
//! |---|---|---|---|
//! | `median` | the median of each coordinate; of an even number the middle of the two in the middle | `f = ⌊(n − 1) / 2⌋`, `n ≥ 3` | Yin et al. |
//! | `trimmed-mean` | of each coordinate the mean without the `f` smallest and the `f` largest values | `f = ⌊β n⌋ ≥ 1`, `β = trim < 1/2` | Yin et al. |
//! | `krum` | the `xᵢ` with the least sum of squared distances to its `n − f − 2` nearest ones | `n ≥ 2 f + 3`, `f = byzantine` | Blanchard et al. |
//! | `multi-krum` | the mean of the `m = keep` updates with the least such sums | the same, and `m ≤ n − f − 2` | Blanchard et al. |
//! | `geometric-median` | the `z` with the least `Σᵢ ‖z − xᵢ‖` | `f = ⌊(n − 1) / 2⌋`, `n ≥ 3` | Pillutla et al. |
//!
//! Yin, Chen, Ramchandran and Bartlett, *Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates*, ICML
//! 2018. Blanchard, El Mhamdi, Guerraoui and Stainer, *Machine Learning with Adversaries: Byzantine Tolerant Gradient
//! Descent*, NeurIPS 2017. Pillutla, Kakade and Harchaoui, *Robust Aggregation for Federated Learning*, IEEE Transactions
//! on Signal Processing 2022: the smoothed Weiszfeld algorithm, `z ← Σ wᵢ xᵢ / Σ wᵢ` with `wᵢ = 1 / max(ν, ‖z − xᵢ‖)`
//! and `ν = smoothing`, for a fixed number of `iterations`. It begins at the median of each coordinate. Begun at the mean
//! it would need the more iterations the farther away a byzantine update lies.
//!
//! Median and geometric median have the breakdown point 1/2: with fewer than half of the clients byzantine the result
//! stays as near to the others as these are to one another, up to a constant factor. A bound on the error of training
//! needs the assumptions of the papers too, above all that honest clients are alike: the more their data differs, the
//! more an honest update looks like an attack, and the more is lost. The paper gives no proof for multi-Krum with `m > 1`;
//! the bound on `m` is that of later work.
//!
//! Every client counts the same, however many steps or examples it says it had, since a byzantine client may say what it
//! likes. Clients that did not train send no vote: they count neither among the `n` nor otherwise.
//!
//! # Too few clients
//! A round with too few clients for the guarantee is an error at the key that asks for it: when it begins, of all that
//! shall take part, and when it ends, of those that trained and whose updates came.
//!
//! A client that sends a NaN, an infinity or another shape has failed, and the host decides what becomes of the run: set
//! `federation.on-client-failure = "leave-out"`, or one such client ends it. The round then has fewer clients. Where
//! these are too few for the guarantee, the missing ones count as byzantine: `n` and `f` are those of the whole round, and
//! of the updates that came `f` less the missing ones may be byzantine.
//!
//! `krum`, `multi-krum` and `geometric-median` also leave out an update, with a warning that names the client, that lacks a
//! parameter that most send, or has one that most do not. It counts as one of the `f`; with more of them the round fails.
//! The scalar `Robust/left_out` is how many updates are missing or left out.
//!
//! # Which parameters
//! *Median and trimmed mean* take each parameter by itself, over the clients that sent it, and hold for it with so many
//! clients as these. Too few are an error, as above: what belongs to single clients must be kept private. One exception:
//! a parameter without a global value that no more clients send than may be byzantine is left out with a warning, so that
//! a single client cannot stop the run by sending one more. A client that sends *less* lowers the numbers of the others.
//! *Krum and the geometric median* need the same parameters from all; see above. What nobody sends keeps its global value
//! where its holders are absent, and has none where they keep it to themselves, as with FedAvg.
//!
//! Only floating tensors are compared and averaged. Of an integer tensor, each client's counts as a vote: the one that
//! more than half of the clients sent is taken, and without such a one the round fails.
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
//! All methods need all updates at once: the `n` updates live until the round ends, as the buffers in which they came;
//! nothing is copied. Besides them there is the next global model (Krum: nothing, it is one of the updates), and a block
//! of 4096 coordinates of each update as f64, which is `32 KiB · n`; Krum adds `n²` distances. With `d` parameters median
//! and trimmed mean take time in `d n log n`, Krum in `d n²`, the geometric median in `iterations · d n` and a median.
//!
//! All is computed in f64 and rounded once, in the order of clients and of the first update's parameters: the same
//! updates give the same bits.
//!
//! # What it does not do
//! It keeps no memory of clients from round to round, and does not tell an honest outlier from an attack. Small changes
//! that hide among the differences of honest clients, such as backdoors, get through. It does not know which parameters
//! a client could learn: whoever has no data for a task sends that task's head as it came, and where most clients do so,
//! the median of the head hardly moves.

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

/// Aggregates all updates of a round at its end.
#[derive(Debug)]
pub struct Robust {
    method: Method,
    global: Message,
    cohort: usize,
    updates: usize,
    received: Received,
}

impl Robust {
    /// An aggregator between two rounds.
    ///
    /// # Errors
    /// If a key is missing, or one is given that the method does not use.
    pub fn new(config: Config, _: &Context<'_>) -> Result<Self> {
        let (method, global, received) = (config.method()?, Message::default(), Received::default());
        Ok(Self { method, global, cohort: 0, updates: 0, received })
    }

    /// Each parameter by itself: median and trimmed mean.
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
                    "`{name}` is left out: it has no global value, and only {} sent it",
                    whom.join(", ")
                ));
                continue;
            }
            // Whoever is missing would have sent what all know.
            let bound = self.method.bound(sent, if is_global { missing } else { 0 }).map_err(|e| {
                e.because_of(format!("`{name}` came from {sent} of {clients} clients"))
                    .help("what belongs to single clients must be kept private, by a filter such as `exclude-params`")
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

    /// All parameters together: Krum and geometric median.
    fn by_distance(&self, received: &Received, bound: Bound, ctx: &Context<'_>) -> Result<Params> {
        let (held, clients) = (&received.held, received.held.len());
        let names = received.names();
        let columns: Vec<_> =
            names.iter().map(|name| received.column(name)).filter(|column| column[0].is_float()).collect();
        let (chosen, weights) = match self.method {
            Method::GeometricMedian { iterations, smoothing } => {
                let weights = distances::weiszfeld(&columns, clients, iterations, smoothing, ctx)?;
                for (held, weight) in held.iter().zip(&weights) {
                    ctx.debug(format_args!("client `{}` counts {weight:.3e} in the geometric median", held.client));
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
            ctx.debug(format_args!("client `{}` did not train in this round and counts nothing", update.client));
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
            ctx.warn(format_args!("no client trained in this round: the global model stays as it was"));
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

/// The tensor that more than half of so many clients sent.
fn vote(name: &str, tensors: &[&Tensor], clients: usize) -> Result<Tensor> {
    let votes = |a: &Tensor| tensors.iter().filter(|b| a.buffer().as_slice() == b.buffer().as_slice()).count();
    let elected = tensors.iter().find(|tensor| 2 * votes(tensor) > clients);
    elected.map(|&tensor| tensor.clone()).ok_or_else(|| {
        Error::tensor(name, "no value was sent by more than half of the clients")
            .help("integers have no mean: they must be equal or kept private")
    })
}

/// What this plugin offers.
pub fn component() -> Component {
    Component::aggregator("robust", "median, trimmed mean, Krum, multi-Krum, geometric median", Robust::new)
}

plugin_api::export_plugin!(component());
