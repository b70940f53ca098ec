//! SCAFFOLD, the server's side.
//!
//! Karimireddy, Kale, Mohri, Reddi, Stich and Suresh, *SCAFFOLD: Stochastic Controlled Averaging for Federated
//! Learning*, ICML 2020, Algorithm 1, lines 16 and 17: with the updates of the clients `S` out of `N`
//!
//! ```text
//! x ← x + η_g · mean over S of (y_i − x)
//! c ← c + 1/N · sum over S of (c_i⁺ − c_i)
//! ```
//!
//! The clients' side is the model's: `scaffold = true` in the `[model]` table of a model that has it, such as `amplify`.
//! A control variate travels among a message's extra tensors, as `scaffold.` and the parameter's name: `c` to the
//! clients, `c_i⁺ − c_i` to the server. `c` begins as 0 and is a part of the global model, so this aggregator keeps
//! nothing of its own from round to round.
//!
//! Clients count the same, as in the paper, and only those that trained. A parameter that nobody sent takes no step: the
//! host keeps its value, unless its holders keep it to themselves. A control variate that nobody sent stays as it was. The
//! memory is one more model for the mean, and one for `c`.
//!
//! ```toml
//! [aggregator]
//! plugin = "scaffold"
//! learning-rate = 1.0     # η_g
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

use plugin_api::{
    Aggregator, Cohort, Component, Context, Error, Message, Params, Result, Tensor, Update, WeightBy, WeightedMean,
};
use schemars::JsonSchema;
use serde::Deserialize;

/// What the names of control variates begin with.
const CONTROL: &str = "scaffold.";

/// The keys of the aggregator's table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// How far the global model goes towards the mean of the updates: 1 is all the way.
    #[serde(default = "one")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f32,
}

fn one() -> f32 {
    1.0
}

/// The mean of the updates, and the sum of the changes of control variates.
#[derive(Debug)]
pub struct Scaffold {
    learning_rate: f32,
    global: Message,
    population: usize,
    updates: usize,
    mean: WeightedMean,
    change: WeightedMean,
    /// How many clients sent each change, by its place in the mean.
    senders: Vec<(String, usize)>,
}

impl Scaffold {
    /// An aggregator between two rounds.
    ///
    /// # Errors
    /// Never; the contract asks for a result.
    pub fn new(config: Config, _: &Context<'_>) -> Result<Self> {
        Ok(Self {
            learning_rate: config.learning_rate,
            global: Message::default(),
            population: 0,
            updates: 0,
            mean: WeightedMean::new(),
            change: WeightedMean::new(),
            senders: Vec::new(),
        })
    }
}

impl Aggregator for Scaffold {
    fn begin(&mut self, global: &Message, cohort: &Cohort, _: &Context<'_>) -> Result<()> {
        (self.global, self.population, self.updates) = (global.clone(), cohort.population, 0);
        (self.mean, self.change, self.senders) = (WeightedMean::new(), WeightedMean::new(), Vec::new());
        Ok(())
    }

    fn add(&mut self, update: Update, ctx: &Context<'_>) -> Result<()> {
        let Update { client, message, .. } = &update;
        let weight = update.weight(WeightBy::Uniform);
        if weight == 0.0 {
            ctx.debug(format_args!("client `{client}` did not train in this round and counts nothing"));
            self.updates += 1;
            return Ok(());
        }
        if message.extra.is_empty() {
            let error = Error::other(format!("client `{client}` sends no control variates"));
            return Err(
                error.help("the model has to take part: `scaffold = true` in `[model]`, where it knows the key")
            );
        }
        if let Some(name) = message.extra.names().find(|name| !name.starts_with(CONTROL)) {
            return Err(Error::tensor(name, format!("client `{client}` sends it, and SCAFFOLD does not know it")));
        }
        self.mean.check(&message.params, client)?;
        self.change.check(&message.extra, client)?;
        self.mean.add(&message.params, weight, client)?;
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
            ctx.warn(format_args!("no client trained in this round: the global model stays as it was"));
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
        let towards = |(name, mean): (&str, &Tensor)| -> Result<(String, Tensor)> {
            let Some(before) = global.params.get(name).filter(|_| mean.is_float()) else {
                return Ok((name.to_owned(), mean.clone()));
            };
            let wrong = |e: Error| Error::tensor(name, e.message());
            let (old, new) = (before.to_f32().map_err(wrong)?, mean.to_f32().map_err(wrong)?);
            let moved: Vec<f32> = old.iter().zip(&*new).map(|(x, y)| x + self.learning_rate * (y - x)).collect();
            Ok((name.to_owned(), Tensor::from_f32(mean.dtype(), mean.shape(), &moved)?))
        };
        global.params = mean.iter().map(towards).collect::<Result<Params>>()?;
        Ok(global)
    }
}

/// `c + share · change`, with `c = 0` where there is none yet.
fn moved(before: Option<&Tensor>, change: &Params, name: &str, share: f32) -> Result<Tensor> {
    let change = change.get(name).ok_or_else(|| Error::tensor(name, "is missing"))?;
    let new = change.elements::<f32>().map_err(|e| Error::tensor(name, e.message()))?;
    let Some(before) = before else {
        return Tensor::from_slice(change.shape(), &new.iter().map(|x| share * x).collect::<Vec<_>>());
    };
    let old = before.elements::<f32>().map_err(|e| Error::tensor(name, e.message()))?;
    Tensor::from_slice(change.shape(), &old.iter().zip(new).map(|(c, x)| c + share * x).collect::<Vec<_>>())
}

/// What this plugin offers.
pub fn component() -> Component {
    Component::aggregator("scaffold", "SCAFFOLD: the mean of the updates, and the control variate", Scaffold::new)
}

plugin_api::export_plugin!(component());

#[cfg(test)]
mod tests;
