//! FedAvg: the weighted mean of the clients' parameters.
//!
//! McMahan, Moore, Ramage, Hampson and Agüera y Arcas, *Communication-Efficient Learning of Deep Networks from
//! Decentralized Data*, AISTATS 2017, Algorithm 1: the next global model is `Σ wᵢ xᵢ / Σ wᵢ` over the clients `i` of the
//! round. The paper weights by examples, which [`WeightBy`] offers; the default here is optimiser steps.
//!
//! Each parameter is averaged over the clients that sent it, so one that a single client sends keeps its value. One that nobody
//! sends keeps its global value if its holders are absent, and has none if they keep it private. Clients with weight 0 are ignored.
//! An update with tensors besides parameters is an error, since they belong to a method with an aggregator of its own.
//!
//! ```toml
//! [aggregator]
//! plugin = "fedavg"
//! weight-by = "steps"
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

use plugin_api::{Aggregator, Cohort, Component, Context, Error, Message, Result, Update, WeightBy, WeightedMean};
use schemars::JsonSchema;
use serde::Deserialize;

/// The keys of the aggregator's table.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The weight of a client's parameters.
    #[serde(default)]
    pub weight_by: WeightBy,
}

/// Averages parameters as they arrive, with one accumulator per parameter for any number of clients.
#[derive(Debug)]
pub struct FedAvg {
    weight_by: WeightBy,
    global: Message,
    updates: usize,
    mean: WeightedMean,
}

impl FedAvg {
    /// An aggregator before its first round.
    ///
    /// # Errors
    /// Never; the constructor's signature needs a result.
    pub fn new(config: Config, _: &Context<'_>) -> Result<Self> {
        Ok(Self { weight_by: config.weight_by, global: Message::default(), updates: 0, mean: WeightedMean::new() })
    }
}

impl Aggregator for FedAvg {
    fn begin(&mut self, global: &Message, _: &Cohort, _: &Context<'_>) -> Result<()> {
        self.global = global.clone();
        self.updates = 0;
        self.mean = WeightedMean::new();
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
        Ok(std::mem::take(&mut self.mean).finish()?.into())
    }
}

/// The component of this plugin.
pub fn component() -> Component {
    Component::aggregator("fedavg", "the weighted mean of the clients' parameters", FedAvg::new)
}

plugin_api::export_plugin!(component());

#[cfg(test)]
mod tests;
