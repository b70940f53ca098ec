//! Filters.

use plugin_api::{Context, Filter, Kind, Message, Result, State};
use serde_json::{Value, json};

use crate::config::Config;
use crate::object::Object;

/// A filter in Python.
#[derive(Debug)]
pub(crate) struct PythonFilter(Object);

impl PythonFilter {
    /// Makes an object of the class.
    ///
    /// # Errors
    /// If it cannot be made.
    #[expect(clippy::needless_pass_by_value, reason = "as `Component` calls it")]
    pub(crate) fn new(config: Config, ctx: &Context<'_>) -> Result<Self> {
        Object::new(Kind::Filter, &config, &Value::Null, ctx).map(Self)
    }
}

impl Filter for PythonFilter {
    fn apply(&mut self, message: Message, base: &Message, ctx: &Context<'_>) -> Result<Message> {
        let mut memory = self.0.memory();
        let args = json!({ "message": memory.message(&message)?, "base": memory.message(base)? });
        let answer = self.0.call("apply", args, memory, ctx)?;
        answer.message(&answer.value)
    }

    fn answer(&mut self, question: &Message, ctx: &Context<'_>) -> Result<Option<Message>> {
        let mut memory = self.0.memory();
        let args = json!({ "question": memory.message(question)? });
        let answer = self.0.call("answer", args, memory, ctx)?;
        if answer.value.is_null() { Ok(None) } else { answer.message(&answer.value).map(Some) }
    }

    fn state(&mut self, ctx: &Context<'_>) -> Result<State> {
        self.0.state(ctx)
    }

    fn restore(&mut self, state: &State, ctx: &Context<'_>) -> Result<()> {
        self.0.restore(state, ctx)
    }
}
