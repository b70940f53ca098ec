//! A starting point for an aggregator: the weighted mean of the clients' parameters.

use plugin_api::{
    Aggregator, Cohort, Component, Context, JsonSchema, Message, Result, Update, WeightBy,
    WeightedMean,
};
use serde::Deserialize;

/// The keys of the experiment's `[aggregator]` table.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(crate = "plugin_api::schemars")]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// What determines the weight of a client's parameters.
    #[serde(default)]
    pub weight_by: WeightBy,
}

/// The running mean of a round, and the model that the round started with.
pub struct Mean {
    config: Config,
    global: Message,
    mean: WeightedMean,
}

impl Mean {
    /// An aggregator before its first round.
    pub fn new(config: Config, _: &Context<'_>) -> Result<Self> {
        Ok(Self {
            config,
            global: Message::default(),
            mean: WeightedMean::new(),
        })
    }
}

impl Aggregator for Mean {
    fn begin(&mut self, global: &Message, _: &Cohort, ctx: &Context<'_>) -> Result<()> {
        self.global = global.clone();
        self.mean = WeightedMean::new().with_threads(ctx.threads());
        Ok(())
    }

    fn add(&mut self, update: Update, _: &Context<'_>) -> Result<()> {
        let weight = update.weight(self.config.weight_by);
        self.mean
            .add(&update.message.params, weight, &update.client)
    }

    fn finish(&mut self, ctx: &Context<'_>) -> Result<Message> {
        if self.mean.is_empty() {
            ctx.warn(format_args!(
                "no client trained in this round: the model is unchanged"
            ));
            return Ok(self.global.clone());
        }
        Ok(std::mem::take(&mut self.mean).finish()?.into())
    }
}

/// The component that this library exports.
pub fn component() -> Component {
    Component::aggregator(
        "{{name}}",
        "the weighted mean of the clients' parameters",
        Mean::new,
    )
}

plugin_api::export_plugin!(component());

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::{Params, Tensor, context::Silent};

    #[test]
    fn a_client_with_more_steps_counts_more() -> Result<()> {
        let ctx = Context::new(&Silent);
        let mut mean = Mean::new(
            Config {
                weight_by: WeightBy::Steps,
            },
            &ctx,
        )?;
        mean.begin(&Message::default(), &Cohort::default(), &ctx)?;
        for (client, value, steps) in [("a", 1.0_f32, 1), ("b", 5.0, 3)] {
            let mut params = Params::new();
            params.insert("w", Tensor::from_slice(&[1], &[value])?);
            let message = params.into();
            mean.add(
                Update {
                    client: client.into(),
                    message,
                    steps,
                    examples: 1,
                },
                &ctx,
            )?;
        }
        assert_eq!(mean.finish(&ctx)?.params.elements::<f32>("w", &[1])?, [4.0]);
        Ok(())
    }
}
