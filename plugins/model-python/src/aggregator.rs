//! Aggregators.

use plugin_api::{Aggregator, Cohort, Context, Kind, Message, Query, Reply, Result, Stage, State, Update};
use serde_json::{Value, json};

use crate::config::Config;
use crate::decode::read;
use crate::object::Object;

/// An aggregator in Python.
#[derive(Debug)]
pub(crate) struct PythonAggregator(Object);

impl PythonAggregator {
    /// Makes an object of the class.
    ///
    /// # Errors
    /// If it cannot be made.
    #[expect(clippy::needless_pass_by_value, reason = "as `Component` calls it")]
    pub(crate) fn new(config: Config, ctx: &Context<'_>) -> Result<Self> {
        Object::new(Kind::Aggregator, &config, &Value::Null, ctx).map(Self)
    }
}

impl Aggregator for PythonAggregator {
    fn begin(&mut self, global: &Message, cohort: &Cohort, ctx: &Context<'_>) -> Result<()> {
        let mut memory = self.0.memory();
        let global = memory.message(global)?;
        let args = json!({ "global": global, "clients": cohort.clients, "population": cohort.population });
        self.0.call("begin", args, memory, ctx).map(drop)
    }

    fn ask(&mut self, stage: Stage, replies: Vec<Reply>, ctx: &Context<'_>) -> Result<Vec<Query>> {
        let mut memory = self.0.memory();
        let mut one = |reply: &Reply| -> Result<Value> {
            Ok(json!({ "client": reply.client, "message": memory.message(&reply.message)? }))
        };
        let replies = replies.iter().map(&mut one).collect::<Result<Vec<_>>>()?;
        let stage = match stage {
            Stage::Opening => "opening",
            Stage::Closing => "closing",
        };
        let answer = self.0.call("ask", json!({ "stage": stage, "replies": replies }), memory, ctx)?;
        let queries: Vec<Value> = read(&answer.value, "questions")?;
        let one = |query: &Value| -> Result<Query> {
            Ok(Query { client: read(&query["client"], "a client")?, message: answer.message(&query["message"])? })
        };
        queries.iter().map(one).collect()
    }

    fn add(&mut self, update: Update, ctx: &Context<'_>) -> Result<()> {
        let mut memory = self.0.memory();
        let message = memory.message(&update.message)?;
        let Update { client, steps, examples, .. } = update;
        let args = json!({ "client": client, "message": message, "steps": steps, "examples": examples });
        self.0.call("add", args, memory, ctx).map(drop)
    }

    fn finish(&mut self, ctx: &Context<'_>) -> Result<Message> {
        let answer = self.0.call("finish", json!({}), self.0.memory(), ctx)?;
        answer.message(&answer.value)
    }

    fn state(&mut self, ctx: &Context<'_>) -> Result<State> {
        self.0.state(ctx)
    }

    fn restore(&mut self, state: &State, ctx: &Context<'_>) -> Result<()> {
        self.0.restore(state, ctx)
    }
}
