//! Keeps parameters private by name: drops each parameter whose name contains a given text, and other tensors of the message
//! with such names.
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
    /// Whether the dropped names have been logged.
    logged: bool,
}

impl ExcludeParams {
    /// Creates the filter.
    ///
    /// # Errors
    /// If the text is empty, since every name contains it.
    pub fn new(config: Config, _: &Context<'_>) -> Result<Self> {
        if config.containing.is_empty() {
            return Err(Error::config("an empty text would drop every parameter").at_key("containing"));
        }
        Ok(Self { containing: config.containing, logged: false })
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
                .help(format!("the first of {} parameters: {}", message.params.len(), names.join(", "))));
        }
        message.params.retain(|name, _| !name.contains(&self.containing));
        // What a method sends along with such a parameter, such as its control variate, is private too.
        message.extra.retain(|name, _| !name.contains(&self.containing));
        if !std::mem::replace(&mut self.logged, true) {
            ctx.debug(format_args!("not sent: {}", dropped.join(", ")));
        }
        Ok(message)
    }
}

/// The component of this plugin.
pub fn component() -> Component {
    Component::filter("exclude-params", "keeps parameters private, by name", ExcludeParams::new)
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
    fn matching_parameters_are_dropped_and_the_order_is_kept() {
        assert_eq!(filtered("regressor").unwrap(), ["trunk.a", "trunk.c"]);
        assert_eq!(filtered("trunk").unwrap(), ["regressors.0.b"]);
    }

    #[test]
    fn texts_that_match_nothing_or_everything_are_errors() {
        let error = filtered("head").unwrap_err();
        assert_eq!(error.to_string(), "`containing`: no parameter's name contains `head`");
        assert_eq!(error.hint(), Some("the first of 3 parameters: `trunk.a`, `regressors.0.b`, `trunk.c`"));
        assert_eq!(filtered("").unwrap_err().to_string(), "`containing`: an empty text would drop every parameter");
    }
}
