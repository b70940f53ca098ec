//! FedAdam, FedYogi, FedAdagrad and FedAvgM: the server treats the clients' mean as a gradient direction and steps
//! along it with its own optimiser.
//!
//! Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar and McMahan, *Adaptive Federated Optimization*, ICLR 2021,
//! Algorithm 2; for momentum Hsu, Qi and Brown, *Measuring the Effects of Non-Identical Data Distribution for Federated
//! Visual Classification*, 2019. With the global model `x`, the weighted mean `x̄` of the clients' models and the
//! pseudo-gradient `Δ = x̄ − x`, round `t = 1, 2, …` computes, for each element:
//!
//! | `optimizer` | method | first moment | second moment | next global model |
//! |---|---|---|---|---|
//! | `adam` | FedAdam | `m = β₁ m + (1 − β₁) Δ` | `v = β₂ v + (1 − β₂) Δ²` | `x + η m / (√v + τ)` |
//! | `yogi` | FedYogi | the same | `v = v − (1 − β₂) Δ² sign(v − Δ²)` | the same |
//! | `adagrad` | FedAdagrad | the same | `v = v + Δ²` | the same |
//! | `momentum` | FedAvgM | `m = β m + Δ` | none | `x + η m` |
//!
//! The first moment starts at 0, the second at `τ²`, the least that the paper allows. `sign(0)` is 0. Momentum follows
//! the formula, without Nesterov's look-ahead; with `momentum = 0` and `learning-rate = 1` it is FedAvg.
//!
//! **Bias.** The paper corrects no bias, and neither does this plugin by default: `m` starts small, so the first steps
//! are small too. With `bias-correction = true`, Adam is that of Kingma and Ba (ICLR 2015): the second moment also
//! starts at 0, and the step uses `m / (1 − β₁ᵗ)` and `v / (1 − β₂ᵗ)`. The same factors can be applied to Yogi, as is
//! common practice. Yogi's `v` does not decay at a constant rate, so for it the second factor is a convention, not an
//! exact correction.
//!
//! # Which parameters
//! Each tensor has its own moments and its own `t`. Its mean is over the clients that sent it. Only floating-point
//! tensors are optimised. Integer tensors are handled as in FedAvg: all clients must send the same values.
//! - A parameter *without a global value* in this round has no pseudo-gradient. It takes the clients' mean, and is
//!   optimised from the next round on.
//! - A parameter that *no client sent* takes no step, and its moments and its `t` do not change: its holders were not
//!   sampled, failed or did not train. If the holders keep it private, the host removes it from the global model and
//!   the aggregator drops its moments. If it comes back, it counts as new.
//! - In a round in which *no client trained*, the global model and all moments stay unchanged.
//!
//! A client that sends tensors other than parameters is refused: they belong to a method that needs another aggregator.
//!
//! # Keys
//! ```toml
//! [aggregator]
//! plugin = "fedopt"
//! optimizer = "adam"         # or "yogi", "adagrad", "momentum"
//! learning-rate = 0.01       # η; has no default, since it is what has to be tuned
//! beta1 = 0.9                # adam, yogi, adagrad (there 0 by default)
//! beta2 = 0.99               # adam, yogi
//! tau = 1e-3                 # adam, yogi, adagrad
//! bias-correction = false    # adam, yogi
//! # momentum = 0.9           # momentum
//! weight-by = "steps"        # or "examples", "uniform"
//! ```
//!
//! A key that the optimiser does not use is an error. An adaptive step moves an element by about `η`, however small the
//! clients' own changes are. `η` has the unit of the parameters, and 1, which is right for FedAvg, destroys a model.
//!
//! # Numbers and memory
//! Steps are computed in f64. Moments are stored as f32, or as f64 for f64 parameters. The new value is rounded to the
//! parameter's own type, so in half precision a step below the type's resolution is lost.
//!
//! Between rounds the moments take twice the model's size in f32 (once for `momentum`). At the end of a round, memory
//! briefly holds the old and the new moments, the mean and the next global model: for `adam` six models besides the old
//! global one. A checkpoint shares the moments' memory. A round that fails leaves the moments unchanged.
//!
//! # Limitations
//! There is no learning rate schedule, no weight decay and no clipping.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod rule;

use std::collections::BTreeMap;

use plugin_api::{Aggregator, Cohort, Component, Context, Error, Message, Params, Result, State, Update, WeightBy};
use plugin_api::{Tensor, WeightedMean};

pub use config::{Config, Optimizer};
use rule::{Moments, Rule};

/// The server's optimiser and its moments.
#[derive(Debug)]
pub struct FedOpt {
    optimizer: Optimizer,
    rule: Rule,
    weight_by: WeightBy,
    moments: BTreeMap<String, Moments>,
    global: Message,
    updates: usize,
    mean: WeightedMean,
}

impl FedOpt {
    /// Creates an optimiser that has taken no step.
    ///
    /// # Errors
    /// If a key is given that the optimiser does not use.
    pub fn new(config: Config, _: &Context<'_>) -> Result<Self> {
        Ok(Self {
            optimizer: config.optimizer,
            rule: config.rule()?,
            weight_by: config.weight_by,
            moments: BTreeMap::new(),
            global: Message::default(),
            updates: 0,
            mean: WeightedMean::new(),
        })
    }

    /// Returns a parameter's next value, and its moments if it is optimised.
    fn next(&self, name: &str, old: Option<&Tensor>, mean: &Tensor) -> Result<(Tensor, Option<Moments>)> {
        let Some(old) = old else { return Ok((mean.clone(), None)) };
        if !old.is_float() {
            return Ok((mean.clone(), None));
        }
        let named = |e: Error| if e.place().is_none() { e.at_tensor(name) } else { e };
        let (next, moments) = self.rule.step(old, mean, self.moments.get(name)).map_err(named)?;
        Ok((next, Some(moments)))
    }
}

impl Aggregator for FedOpt {
    fn begin(&mut self, global: &Message, _: &Cohort, ctx: &Context<'_>) -> Result<()> {
        // Parameters that have become private no longer have moments.
        self.moments.retain(|name, _| global.params.get(name).is_some());
        self.global = global.clone();
        self.updates = 0;
        self.mean = WeightedMean::new().with_threads(ctx.threads());
        Ok(())
    }

    fn add(&mut self, update: Update, ctx: &Context<'_>) -> Result<()> {
        update.expect_only_parameters()?;
        self.updates += 1;
        let weight = update.weight(self.weight_by);
        if weight == 0.0 {
            ctx.debug(format_args!("client `{}` did not train in this round and is not counted", update.client));
        }
        self.mean.add(&update.message.params, weight, &update.client)
    }

    fn finish(&mut self, ctx: &Context<'_>) -> Result<Message> {
        let global = std::mem::take(&mut self.global);
        if self.updates == 0 {
            return Err(Error::other("no client sent an update"));
        }
        if self.mean.is_empty() {
            ctx.warn(format_args!("no client trained in this round: the global model is unchanged"));
            return Ok(global);
        }
        let mean = std::mem::take(&mut self.mean).finish()?;
        let (mut next, mut moments) = (Params::new(), Vec::new());
        for (name, mean) in mean.iter() {
            ctx.check()?;
            let old = global.params.get(name);
            if old.is_none() {
                ctx.debug(format_args!("`{name}` has no global value yet and gets the clients' mean"));
            }
            let (tensor, moment) = self.next(name, old, mean)?;
            next.insert(name, tensor);
            moments.extend(moment.map(|moment| (name.to_owned(), moment)));
        }
        self.moments.extend(moments);
        Ok(next.into())
    }

    fn state(&mut self, _: &Context<'_>) -> Result<State> {
        let mut state = State::default();
        let mut rounds = serde_json::Map::new();
        for (name, moments) in &self.moments {
            state.tensors.insert(format!("first.{name}"), moments.first.clone());
            if let Some(second) = &moments.second {
                state.tensors.insert(format!("second.{name}"), second.clone());
            }
            rounds.insert(name.clone(), moments.rounds.into());
        }
        state.values.insert("optimizer".to_owned(), self.optimizer.name().into());
        state.values.insert("rounds".to_owned(), rounds.into());
        Ok(state)
    }

    fn restore(&mut self, state: &State, _: &Context<'_>) -> Result<()> {
        let optimizer: String = state.value("optimizer")?;
        if optimizer != self.optimizer.name() {
            let message =
                format!("the checkpoint was made with `{optimizer}`, but this is `{}`", self.optimizer.name());
            return Err(Error::config(message).at_key("optimizer"));
        }
        let get = |name: String| {
            let tensor = state.tensors.get(&name);
            tensor.cloned().ok_or_else(|| Error::tensor(name, "is missing from the checkpoint"))
        };
        let mut moments = BTreeMap::new();
        for (name, rounds) in state.value::<BTreeMap<String, u64>>("rounds")? {
            let first = get(format!("first.{name}"))?;
            let second = if self.rule.has_second() { Some(get(format!("second.{name}"))?) } else { None };
            moments.insert(name, Moments { first, second, rounds });
        }
        self.moments = moments;
        Ok(())
    }
}

/// The components of this plugin.
pub fn component() -> Component {
    let about = "an optimiser at the server: FedAdam, FedYogi, FedAdagrad, FedAvgM";
    Component::aggregator("fedopt", about, FedOpt::new)
}

plugin_api::export_plugin!(component());
