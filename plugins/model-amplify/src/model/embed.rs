//! The extension `embed`: the trunk's vectors of sequences.

use plugin_api::{Column, Context, Error, Message, Params, Result, Table, Tensor};
use serde_json::Value;

use super::Amplify;
use crate::bridge;
use crate::config::Pooling;
use crate::parameters::is_of_trunk;

/// The extension's name.
pub(super) const EMBED: &str = "embed";

impl Amplify {
    /// The pooled vector of each row: the values `task`, and `columns`, an object with the texts of each of the task's
    /// inputs, to the tensor `vectors`, (rows, size). If `missing` names a tensor of a trunk that is trained, the trunk is
    /// not the one that the message means.
    pub(super) fn embed(&mut self, request: &Message, ctx: &Context<'_>) -> Result<Message> {
        let texts = |value: &Value| serde_json::from_value::<Vec<String>>(value.clone()).ok();
        let value = |name: &str| request.values.get(name).ok_or_else(|| unusable(name));
        let task = value("task")?.as_str().ok_or_else(|| unusable("task"))?;
        let missing = request.values.get("missing").map(texts).unwrap_or_default().unwrap_or_default();
        if let Some(name) = missing.iter().find(|name| is_of_trunk(name) && !self.config.frozen_trunk) {
            return Err(Error::tensor(name, "is private to the clients, so this trunk is not whole")
                .help("choose a client's own model with --client"));
        }
        let pooling = self.config.pooling;
        if pooling == Pooling::Attention {
            return Err(Error::unsupported(
                "`pooling = \"attention\"` gives each head its own vector of a sequence, and none to write",
            )
            .help("use another pooling"));
        }
        let mut table = Table::new();
        for (name, column) in value("columns")?.as_object().ok_or_else(|| unusable("columns"))? {
            table = table.with(name, Column::text(texts(column).ok_or_else(|| unusable(name))?))?;
        }
        let _on = self.prepare_to_compute()?;
        let spec = self.setup.tasks[self.setup.number(task)?].clone();
        let rows = self.rows(&spec, &table, ctx)?;
        self.check_chains(&spec, &rows)?;
        let size =
            usize::try_from(self.checkpoint.architecture.hidden_size).unwrap_or_default() * self.config.vectors();
        let vectors = self.in_batches(&rows, size, ctx, |network, _, batch, resources| {
            bridge::to_vec(&network.pooled(batch, pooling, resources)?)
        })?;
        let vectors = Tensor::from_slice(&[rows.len(), size], &vectors)?;
        Ok(Params::from_iter([("vectors", vectors)]).into())
    }
}

fn unusable(name: &str) -> Error {
    Error::data(format!("the request's `{name}` is missing, or of another type"))
}
