//! SCAFFOLD, server side.
//!
//! Karimireddy, Kale, Mohri, Reddi, Stich and Suresh, *SCAFFOLD: Stochastic Controlled Averaging for Federated
//! Learning*, ICML 2020, Algorithm 1, lines 16 and 17: with the updates of the clients `S` out of `N`
//!
//! ```text
//! x ← x + η_g · mean over S of (y_i − x)
//! c ← c + 1/N · sum over S of (c_i⁺ − c_i)
//! ```
//!
//! The client side is implemented by the model: set `scaffold = true` in the `[model]` table of a model that supports
//! it, such as `amplify`. Control variates travel in a message's extra tensors, named `scaffold.` plus the parameter's
//! name: `c` to the clients, `c_i⁺ − c_i` to the server. `c` starts at 0 and is part of the global model, so this
//! aggregator keeps no state between rounds.
//!
//! If `η_g` is not 1, the mean is computed in f64, and `x` is rounded once. If `η_g = 1`, the mean is that of
//! [`WeightedMean`], which rounds with each client.
//!
//! As in the paper, all clients have the same weight; only those that trained count. A parameter that no client sent
//! takes no step: the host keeps its value, unless its holders keep it private. A control variate that no client sent
//! is unchanged. Memory: one more model for the mean, twice that in f64, and one for `c`.
//!
//! ```toml
//! [aggregator]
//! plugin = "scaffold"
//! learning-rate = 1.0     # η_g
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod step;

use std::collections::BTreeMap;

use plugin_api::{
    Aggregator, Cohort, Component, Context, DType, Error, Message, Params, Result, Tensor, Update, WeightBy,
    WeightedMean,
};
use schemars::JsonSchema;
use serde::Deserialize;

/// The prefix of control variates' names.
const CONTROL: &str = "scaffold.";

/// The keys of the aggregator's table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// How far the global model moves towards the mean of the updates: 1 is all the way.
    #[serde(default = "one")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f32,
}

fn one() -> f32 {
    1.0
}

/// The mean of the updates, and the sum of the changes of the control variates.
#[derive(Debug)]
pub struct Scaffold {
    learning_rate: f32,
    global: Message,
    population: usize,
    updates: usize,
    /// The mean of the parameters in their own types, or in f64 if the learning rate is not 1.
    mean: WeightedMean,
    /// The parameters' own types.
    types: BTreeMap<String, DType>,
    change: WeightedMean,
    /// How many clients sent each change, by name, in order of first appearance.
    senders: Vec<(String, usize)>,
}

impl Scaffold {
    /// Creates an aggregator with no round in progress.
    ///
    /// # Errors
    /// Never; the plugin interface requires a `Result`.
    pub fn new(config: Config, _: &Context<'_>) -> Result<Self> {
        Ok(Self {
            learning_rate: config.learning_rate,
            global: Message::default(),
            population: 0,
            updates: 0,
            mean: WeightedMean::new(),
            types: BTreeMap::new(),
            change: WeightedMean::new(),
            senders: Vec::new(),
        })
    }
}

impl Aggregator for Scaffold {
    fn begin(&mut self, global: &Message, cohort: &Cohort, ctx: &Context<'_>) -> Result<()> {
        (self.global, self.population, self.updates) = (global.clone(), cohort.population, 0);
        self.types.clear();
        let mean = || WeightedMean::new().with_threads(ctx.threads());
        (self.mean, self.change, self.senders) = (mean(), mean(), Vec::new());
        Ok(())
    }

    fn add(&mut self, update: Update, ctx: &Context<'_>) -> Result<()> {
        let Update { client, message, .. } = &update;
        let weight = update.weight(WeightBy::Uniform);
        if weight == 0.0 {
            ctx.debug(format_args!("client `{client}` did not train in this round and is not counted"));
            self.updates += 1;
            return Ok(());
        }
        if message.extra.is_empty() {
            let error = Error::other(format!("client `{client}` sends no control variates"));
            return Err(
                error.help("the model must support SCAFFOLD: set `scaffold = true` in `[model]`, if it has the key")
            );
        }
        if let Some(name) = message.extra.names().find(|name| !name.starts_with(CONTROL)) {
            return Err(Error::tensor(name, format!("client `{client}` sends it, but SCAFFOLD does not use it")));
        }
        let widened = if self.learning_rate == 1.0 { None } else { Some(step::widened(&message.params)?) };
        let params = widened.as_ref().unwrap_or(&message.params);
        self.mean.check(params, client)?;
        self.change.check(&message.extra, client)?;
        self.mean.add(params, weight, client)?;
        self.types.extend(message.params.iter().map(|(name, tensor)| (name.to_owned(), tensor.dtype())));
        self.change.add(&message.extra, weight, client)?;
        for name in message.extra.names() {
            match self.senders.iter_mut().find(|(known, _)| known == name) {
                Some((_, count)) => *count += 1,
                None => self.senders.push((name.to_owned(), 1)),
            }
        }
        self.updates += 1;
        Ok(())
    }

    fn finish(&mut self, ctx: &Context<'_>) -> Result<Message> {
        let mut global = std::mem::take(&mut self.global);
        if self.updates == 0 {
            return Err(Error::other("no client sent an update"));
        }
        if self.mean.is_empty() {
            ctx.warn(format_args!("no client trained in this round: the global model is unchanged"));
            return Ok(global);
        }
        let mean = std::mem::take(&mut self.mean).finish()?;
        let change = std::mem::take(&mut self.change).finish()?;
        for (name, count) in std::mem::take(&mut self.senders) {
            let share = count as f32 / self.population as f32;
            let moved = moved(global.extra.get(&name), &change, &name, share)?;
            global.extra.insert(name, moved);
        }
        if self.learning_rate == 1.0 {
            global.params = mean;
            return Ok(global);
        }
        let rate = f64::from(self.learning_rate);
        let moved = |(name, mean): (&str, &Tensor)| -> Result<(String, Tensor)> {
            let dtype = self.types.get(name).copied().unwrap_or_else(|| mean.dtype());
            let moved = step::moved(global.params.get(name), mean, rate, dtype);
            Ok((name.to_owned(), moved.map_err(|e| Error::tensor(name, e.message()))?))
        };
        global.params = mean.iter().map(moved).collect::<Result<Params>>()?;
        Ok(global)
    }
}

/// `c + share · change`; `c` is 0 if it has no value yet.
fn moved(before: Option<&Tensor>, change: &Params, name: &str, share: f32) -> Result<Tensor> {
    let change = change.get(name).ok_or_else(|| Error::tensor(name, "is missing"))?;
    let new = change.elements::<f32>().map_err(|e| Error::tensor(name, e.message()))?;
    let Some(before) = before else {
        return Tensor::from_slice(change.shape(), &new.iter().map(|x| share * x).collect::<Vec<_>>());
    };
    let old = before.elements::<f32>().map_err(|e| Error::tensor(name, e.message()))?;
    Tensor::from_slice(change.shape(), &old.iter().zip(new).map(|(c, x)| c + share * x).collect::<Vec<_>>())
}

/// The components of this plugin.
pub fn component() -> Component {
    Component::aggregator("scaffold", "SCAFFOLD: the mean of the updates, and the control variate", Scaffold::new)
}

plugin_api::export_plugin!(component());

#[cfg(test)]
mod tests;
