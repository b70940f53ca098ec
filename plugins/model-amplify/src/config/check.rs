//! What the schema of a single key cannot say.

use plugin_api::{Error, Result, TaskSpec};

use super::{Config, Objective, Pooling};

impl Config {
    /// Checks keys against each other.
    ///
    /// # Errors
    /// If they do not fit together.
    pub(crate) fn check(&self) -> Result<()> {
        let of_heads = [
            ("frozen-trunk", self.frozen_trunk),
            ("regressors", self.regressors.is_some()),
            ("class-weights", self.class_weights.is_some()),
        ];
        if let Some((key, _)) = of_heads.iter().find(|(_, given)| *given && self.objective == Objective::MaskedLm) {
            let error = Error::config("is for heads, and `objective = \"masked-lm\"` has none");
            return Err(error.at_key(*key).help("remove it"));
        }
        if self.pooling == Pooling::Attention && self.objective == Objective::MaskedLm {
            let error = Error::config("`attention` is for heads, and `objective = \"masked-lm\"` has none");
            return Err(error.at_key("pooling"));
        }
        if self.chains.is_some() && self.pooling != Pooling::Chains {
            return Err(Error::config("is for `pooling = \"chains\"`").at_key("chains").help("remove it"));
        }
        if self.packing && self.pooling == Pooling::AllPositions {
            let error =
                Error::config("leaves out the padding that `pooling = \"all-positions\"` counts").at_key("packing");
            return Err(error.help("remove one of the two"));
        }
        if self.cuda_graphs {
            let others = [
                ("packing", self.packing),
                ("activation-checkpointing", self.activation_checkpointing),
                ("accumulate", self.accumulate > 1),
                ("frozen-trunk", self.frozen_trunk),
                ("proximal-mu", self.proximal_mu > 0.0),
                ("ditto-lambda", self.ditto_lambda.is_some()),
                ("scaffold", self.scaffold),
                ("objective", self.objective == Objective::MaskedLm),
                ("pooling", !matches!(self.pooling, Pooling::Tokens | Pooling::AllPositions)),
            ];
            if let Some((other, _)) = others.iter().find(|(_, given)| *given) {
                let error =
                    Error::config(format!("records steps that are all alike, which those with `{other}` are not"));
                return Err(error.at_key("cuda-graphs").help("remove one of the two"));
            }
        }
        if self.frozen_trunk && self.lora.is_some() {
            let error = Error::config("trains a trunk that `frozen-trunk` keeps as it is").at_key("lora");
            return Err(error.help("LoRA keeps the trunk's own weights without that key"));
        }
        if self.frozen_layers > 0 && (self.frozen_trunk || self.lora.is_some()) {
            let other = if self.frozen_trunk { "`frozen-trunk`" } else { "`lora`" };
            let error = Error::config(format!("with {other} none of the trunk's own weights is trained"));
            return Err(error.at_key("frozen-layers").help("remove it"));
        }
        if let Some(lora) = self.lora.as_ref().filter(|lora| lora.moving_base) {
            if lora.fixed_a {
                let error = Error::config("is not needed with `fixed-a`, whose mean is exact without it");
                return Err(error.at_key("lora.moving-base"));
            }
            if self.ditto_lambda.is_some() {
                let error = Error::config("does not go with `ditto-lambda`: the personal model's base would not move");
                return Err(error.at_key("lora.moving-base"));
            }
        }
        Ok(())
    }

    /// Checks the keys that count the trunk's layers.
    ///
    /// # Errors
    /// If none would be left to train.
    pub(crate) fn check_layers(&self, layers: i64) -> Result<()> {
        if self.frozen_layers == 0 || (self.frozen_layers as i64) < layers {
            return Ok(());
        }
        let error = Error::config(format!("must be less than {layers}, the number of the trunk's layers"));
        Err(error.at_key("frozen-layers").help("`frozen-trunk = true` trains the heads alone"))
    }

    /// Checks the keys that name tasks or classes.
    ///
    /// # Errors
    /// If one of them does not exist.
    pub(crate) fn check_tasks(&self, tasks: &[TaskSpec]) -> Result<()> {
        if let Some(weights) = &self.class_weights {
            weights.check(tasks).map_err(|error| error.at_key("class-weights"))?;
        }
        let is_known = |name: &String| tasks.iter().any(|task| task.name == *name);
        let Some(unknown) = self.task_weights.keys().find(|name| !is_known(name)) else { return Ok(()) };
        let known: Vec<String> = tasks.iter().map(|task| format!("`{}`", task.name)).collect();
        let error = Error::config(format!("there is no task `{unknown}`")).at_key("task-weights");
        Err(error.help(format!("there are {}", known.join(", "))))
    }
}
