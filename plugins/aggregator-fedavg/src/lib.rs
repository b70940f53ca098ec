//! FedAvg: the weighted mean of the clients' parameters.
//!
//! McMahan, Moore, Ramage, Hampson and Agüera y Arcas, *Communication-Efficient Learning of Deep Networks from
//! Decentralized Data*, AISTATS 2017, Algorithm 1: the next global model is `Σ wᵢ xᵢ / Σ wᵢ` over the clients `i` of the
//! round. The paper weighs by examples; [`WeightBy`] has that, and the optimiser steps that are the default here.
//!
//! Each parameter has its own mean, over the clients that sent it, so one that a single client sends comes back as it was.
//! What nobody sends keeps its global value where its holders are absent, and has none where they keep it to themselves.
//! Clients of weight 0 count nothing. A client that sends tensors besides parameters is refused: they are of a method that
//! takes another aggregator.
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
    /// What a client's parameters are weighed by.
    #[serde(default)]
    pub weight_by: WeightBy,
}

/// Averages parameters as they come in, with one accumulator for each, however many clients there are.
#[derive(Debug)]
pub struct FedAvg {
    weight_by: WeightBy,
    global: Message,
    updates: usize,
    mean: WeightedMean,
}

impl FedAvg {
    /// An aggregator between two rounds.
    ///
    /// # Errors
    /// Never; the contract asks for a result.
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
            ctx.debug(format_args!("client `{}` did not train in this round and counts nothing", update.client));
        }
        self.mean.add(&update.message.params, weight, &update.client)
    }

    fn finish(&mut self, ctx: &Context<'_>) -> Result<Message> {
        let global = std::mem::take(&mut self.global);
        if self.updates == 0 {
            return Err(Error::other("no client sent an update"));
        }
        if self.mean.is_empty() {
            ctx.warn(format_args!("no client trained in this round: the global model stays as it was"));
            return Ok(global);
        }
        Ok(std::mem::take(&mut self.mean).finish()?.into())
    }
}

/// What this plugin offers.
pub fn component() -> Component {
    Component::aggregator("fedavg", "the weighted mean of the clients' parameters", FedAvg::new)
}

plugin_api::export_plugin!(component());

#[cfg(test)]
mod tests;
