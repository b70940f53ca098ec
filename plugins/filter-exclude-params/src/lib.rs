//! Keeps parameters from being sent, by name: each one whose name contains a given text is dropped, and with it a
//! method's other tensors of such a name.
//!
//! ```toml
//! [[filter]]
//! plugin = "exclude-params"
//! at = "client-output"
//! containing = "regressor"
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

use plugin_api::{Component, Context, Error, Filter, Message, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// The keys of the filter's table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A parameter is dropped if its name contains this text.
    pub containing: String,
}

/// Drops the parameters whose names contain a text.
#[derive(Debug)]
pub struct ExcludeParams {
    containing: String,
    told: bool,
}

impl ExcludeParams {
    /// A filter for this text.
    ///
    /// # Errors
    /// If the text is empty, since every name contains it.
    pub fn new(config: Config, _: &Context<'_>) -> Result<Self> {
        if config.containing.is_empty() {
            return Err(Error::config("an empty text would drop every parameter").at_key("containing"));
        }
        Ok(Self { containing: config.containing, told: false })
    }
}

impl Filter for ExcludeParams {
    fn apply(&mut self, mut message: Message, _: &Message, ctx: &Context<'_>) -> Result<Message> {
        let dropped: Vec<String> =
            message.params.names().filter(|name| name.contains(&self.containing)).map(str::to_owned).collect();
        if dropped.is_empty() {
            let names: Vec<_> = message.params.names().take(5).map(|name| format!("`{name}`")).collect();
            return Err(Error::config(format!("no parameter's name contains `{}`", self.containing))
                .at_key("containing")
                .help(format!("of {} parameters the first are: {}", message.params.len(), names.join(", "))));
        }
        message.params.retain(|name, _| !name.contains(&self.containing));
        // What a method sends of such a parameter, its control variate for instance, is as private.
        message.extra.retain(|name, _| !name.contains(&self.containing));
        if !std::mem::replace(&mut self.told, true) {
            ctx.debug(format_args!("not sent: {}", dropped.join(", ")));
        }
        Ok(message)
    }
}

/// What this plugin offers.
pub fn component() -> Component {
    Component::filter("exclude-params", "keeps parameters from being sent, by name", ExcludeParams::new)
}

plugin_api::export_plugin!(component());

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::{Tensor, context::Silent};

    fn filtered(containing: &str) -> Result<Vec<String>> {
        let one = || Tensor::from_slice(&[1], &[1.0_f32]).unwrap();
        let message = Message::from(
            ["trunk.a", "regressors.0.b", "trunk.c"]
                .into_iter()
                .map(|name| (name, one()))
                .collect::<plugin_api::Params>(),
        );
        let ctx = Context::new(&Silent);
        let sent = ExcludeParams::new(Config { containing: containing.into() }, &ctx)?.apply(
            message,
            &Message::default(),
            &ctx,
        )?;
        Ok(sent.params.names().map(str::to_owned).collect())
    }

    #[test]
    fn only_the_named_are_dropped_and_the_order_stays() {
        assert_eq!(filtered("regressor").unwrap(), ["trunk.a", "trunk.c"]);
        assert_eq!(filtered("trunk").unwrap(), ["regressors.0.b"]);
    }

    #[test]
    fn a_text_that_matches_nothing_or_everything_is_an_error() {
        let error = filtered("head").unwrap_err();
        assert_eq!(error.to_string(), "`containing`: no parameter's name contains `head`");
        assert_eq!(error.hint(), Some("of 3 parameters the first are: `trunk.a`, `regressors.0.b`, `trunk.c`"));
        assert_eq!(filtered("").unwrap_err().to_string(), "`containing`: an empty text would drop every parameter");
    }
}
