//! A starting point for a filter: clamps the parameters of a message.

use plugin_api::{Component, Context, Error, Filter, JsonSchema, Message, Params, Result, Tensor};
use serde::Deserialize;

/// The keys of the experiment's `[[filter]]` table.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(crate = "plugin_api::schemars")]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Values are clamped to the range from -limit to limit.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub limit: f32,
}

/// Replaces values beyond the limit by the limit.
pub struct Clamp {
    limit: f32,
}

impl Clamp {
    /// A filter with this limit.
    pub fn new(config: Config, _: &Context<'_>) -> Result<Self> {
        Ok(Self {
            limit: config.limit,
        })
    }
}

impl Filter for Clamp {
    fn apply(&mut self, mut message: Message, _: &Message, ctx: &Context<'_>) -> Result<Message> {
        let mut clamped = Params::new();
        for (name, tensor) in message.params.iter() {
            if !tensor.is_finite() {
                return Err(Error::tensor(name, "contains a value that is not finite"));
            }
            let numbers = message.params.elements::<f32>(name, tensor.shape())?;
            let within = |number: &f32| number.clamp(-self.limit, self.limit);
            let numbers: Vec<f32> = numbers.iter().map(within).collect();
            clamped.insert(name, Tensor::from_slice(tensor.shape(), &numbers)?);
        }
        ctx.debug(format_args!(
            "{} tensors limited to ±{}",
            clamped.len(),
            self.limit
        ));
        message.params = clamped;
        Ok(message)
    }
}

/// The component that this library exports.
pub fn component() -> Component {
    Component::filter(
        "{{name}}",
        "clips every value of a message's parameters",
        Clamp::new,
    )
}

plugin_api::export_plugin!(component());

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::context::Silent;

    #[test]
    fn only_what_is_beyond_the_limit_is_changed() -> Result<()> {
        let ctx = Context::new(&Silent);
        let mut clamp = Clamp::new(Config { limit: 2.0 }, &ctx)?;
        let message = |numbers: &[f32]| -> Result<Message> {
            let mut params = Params::new();
            params.insert("w", Tensor::from_slice(&[numbers.len()], numbers)?);
            Ok(params.into())
        };
        let sent = clamp.apply(message(&[-3.0, 1.0, 9.0])?, &Message::default(), &ctx)?;
        assert_eq!(sent.params.elements::<f32>("w", &[3])?, [-2.0, 1.0, 2.0]);
        let error = clamp.apply(message(&[f32::NAN])?, &Message::default(), &ctx);
        assert!(error.is_err_and(|e| e.to_string().starts_with("tensor `w`: ")));
        Ok(())
    }
}
