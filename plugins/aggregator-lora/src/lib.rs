//! The exact mean of models with LoRA: FedEx-LoRA and FLoRA.
//!
//! A client's model is `W + s Bᵢ Aᵢ`, with the same `W` everywhere. The mean of the clients' models, with weights `wᵢ` that sum
//! to 1, is `W + s Σ wᵢ Bᵢ Aᵢ`. FedAvg takes the means `Ā = Σ wᵢ Aᵢ` and `B̄ = Σ wᵢ Bᵢ`, and `W + s B̄ Ā` is another model. This
//! aggregator adds to `W` what is missing:
//!
//! | `method` | published as | next `W` | next `A`, `B` |
//! |---|---|---|---|
//! | `residual` | FedEx-LoRA (Singhal, Ponkshe and Vepakomma 2024) | `W + s (Σ wᵢ Bᵢ Aᵢ − B̄ Ā)` | `Ā`, `B̄` |
//! | `stack` | FLoRA (Wang et al. 2024) | `W + s Σ wᵢ Bᵢ Aᵢ` | `A` as it was at the start of the round, 0 |
//!
//! Both give the mean model in every round, up to the rounding of `W`. `stack` starts each round with new adapters, so a run's
//! changes may have any rank. The paper sends the stacked factors, of which each client makes the same product, and draws a new
//! `A`; here the server makes the product, and `A` stays what it was at the beginning. All other parameters, such as heads, are
//! averaged as by FedAvg.
//!
//! # What the model has to send
//! The global model has `NAME.weight`, and updates have `NAME.lora_A.weight`, (rank, inputs), and `NAME.lora_B.weight`,
//! (outputs, rank), and not `NAME.weight`; their value `lora.scale` is `s`. `amplify` does so with `moving-base = true` in
//! `[model.lora]`. The whole of `NAME.weight` then goes to the clients in each round, since it changes; only the adapters
//! come back.
//!
//! ```toml
//! [aggregator]
//! plugin = "lora"
//! method = "residual"
//! weight-by = "steps"
//! ```
//!
//! # Numbers and memory
//! Products are summed in f64 and rounded to f32, each client's once, as are `B̄ Ā` and the next `W`. Besides the adapters, the
//! aggregator holds one sum as large as the weights that have adapters, and one product while an update is added.
//!
//! A filter that changes updates, such as noise, changes the factors; the products are those of what arrives.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use plugin_api::{
    Aggregator, Cohort, Component, Context, Error, Message, Params, Result, Tensor, Update, WeightBy, WeightedMean,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Ends the name of an adapter's first factor, and of its second one.
const A: &str = "lora_A.weight";
const B: &str = "lora_B.weight";
/// The value of an update with the factor of its adapters.
const SCALE: &str = "lora.scale";

/// How the mean model is divided between weights and adapters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// FedEx-LoRA: the adapters are the means of the clients', and the weights take the rest.
    #[default]
    Residual,
    /// FLoRA: the weights take all, and the adapters begin anew.
    Stack,
}

/// The keys of the aggregator's table.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// How the mean model is divided between weights and adapters.
    #[serde(default)]
    pub method: Method,
    /// The weight of a client's parameters.
    #[serde(default)]
    pub weight_by: WeightBy,
}

/// Averages parameters and the products of adapters as they arrive.
#[derive(Debug)]
pub struct LoraMean {
    config: Config,
    global: Message,
    updates: usize,
    /// Of the parameters, and of the products by the name of the weight that they are added to.
    mean: WeightedMean,
    /// The factor of the adapters, and the client that sent it first.
    scale: Option<(f64, String)>,
}

impl LoraMean {
    /// An aggregator before its first round.
    ///
    /// # Errors
    /// Never; the constructor's signature needs a result.
    pub fn new(config: Config, _: &Context<'_>) -> Result<Self> {
        Ok(Self { config, global: Message::default(), updates: 0, mean: WeightedMean::new(), scale: None })
    }

    /// The factor of an update's adapters, if it is that of all others.
    fn scale_of(&self, update: &Update) -> Result<f64> {
        let client = &update.client;
        let scale = update.message.values.get(SCALE).and_then(serde_json::Value::as_f64).ok_or_else(|| {
            let error = Error::data(format!("client `{client}` sends adapters without the value `{SCALE}`"));
            error.help("`amplify` sends it with `moving-base = true` in `[model.lora]`")
        })?;
        match &self.scale {
            Some((other, first)) if *other != scale => Err(Error::data(format!(
                "the adapters of client `{client}` have the factor {scale}, those of client `{first}` {other}"
            ))),
            _ => Ok(scale),
        }
    }
}

impl Aggregator for LoraMean {
    fn begin(&mut self, global: &Message, _: &Cohort, _: &Context<'_>) -> Result<()> {
        self.global = global.clone();
        (self.updates, self.mean, self.scale) = (0, WeightedMean::new(), None);
        Ok(())
    }

    fn add(&mut self, update: Update, ctx: &Context<'_>) -> Result<()> {
        update.expect_only_parameters()?;
        let layers = layers(&update.message.params);
        let scale = if layers.is_empty() { None } else { Some(self.scale_of(&update)?) };
        let mut params = update.message.params.clone();
        for layer in layers {
            ctx.check()?;
            let name = format!("{layer}weight");
            if params.get(&name).is_some() {
                return Err(Error::tensor(name, "the client sends a weight and its adapter"));
            }
            let Some(weight) = self.global.params.get(&name) else {
                return Err(Error::tensor(name, "has an adapter, but is not in the global model"));
            };
            let product = product(&params, &layer)?;
            if product.shape() != weight.shape() {
                let text = format!("its adapter is for {:?}, not for {:?}", product.shape(), weight.shape());
                return Err(Error::tensor(name, text));
            }
            params.insert(name, product);
        }
        let weight = update.weight(self.config.weight_by);
        if weight == 0.0 {
            ctx.debug(format_args!("client `{}` did not train in this round and is not counted", update.client));
        }
        self.mean.add(&params, weight, &update.client)?;
        self.updates += 1;
        if let (Some(scale), None) = (scale, &self.scale) {
            self.scale = Some((scale, update.client));
        }
        Ok(())
    }

    fn finish(&mut self, ctx: &Context<'_>) -> Result<Message> {
        let global = std::mem::take(&mut self.global);
        if self.updates == 0 {
            return Err(Error::other("no client sent an update"));
        }
        let scale = self.scale.take().map_or_else(
            || {
                ctx.warn(format_args!("no update has adapters of LoRA, so this is the mean of FedAvg"));
                0.0
            },
            |(scale, _)| scale,
        );
        if self.mean.is_empty() {
            ctx.warn(format_args!("no client trained in this round: the global model is unchanged"));
            return Ok(global);
        }
        let mut next = std::mem::take(&mut self.mean).finish()?;
        for layer in layers(&next) {
            let (weight, a, b) = (format!("{layer}weight"), format!("{layer}{A}"), format!("{layer}{B}"));
            let old = tensor(&global.params, &weight)?;
            let mut added = tensor(&next, &weight)?.elements::<f32>()?.to_vec();
            match self.config.method {
                Method::Residual => {
                    let of_means = product(&next, &layer)?;
                    added.iter_mut().zip(of_means.elements::<f32>()?).for_each(|(all, kept)| *all -= kept);
                }
                Method::Stack => {
                    let zeros = vec![0.0_f32; tensor(&next, &b)?.elements::<f32>()?.len()];
                    let zeros = Tensor::from_slice(tensor(&next, &b)?.shape(), &zeros)?;
                    next.insert(b, zeros);
                    next.insert(a.clone(), tensor(&global.params, &a)?.clone());
                }
            }
            let sum = |(&old, &added): (&f32, &f32)| (f64::from(old) + scale * f64::from(added)) as f32;
            let sums: Vec<f32> = old.elements::<f32>()?.iter().zip(&added).map(sum).collect();
            next.insert(weight, Tensor::from_slice(old.shape(), &sums)?);
        }
        Ok(next.into())
    }
}

/// The prefixes of the adapters' names.
fn layers(params: &Params) -> Vec<String> {
    let layer = |name: &str| Some(name.strip_suffix(A).or_else(|| name.strip_suffix(B))?.to_owned());
    let mut layers: Vec<String> = params.names().filter_map(layer).collect();
    layers.sort_unstable();
    layers.dedup();
    layers
}

fn tensor<'p>(params: &'p Params, name: &str) -> Result<&'p Tensor> {
    params.get(name).ok_or_else(|| Error::tensor(name, "is missing"))
}

/// `B A`, each element's sum in f64.
fn product(params: &Params, layer: &str) -> Result<Tensor> {
    let (a, b) = (tensor(params, &format!("{layer}{A}"))?, tensor(params, &format!("{layer}{B}"))?);
    let (&[rank, inputs], &[outputs, columns]) = (a.shape(), b.shape()) else {
        return Err(Error::tensor(format!("{layer}{A}"), "it or its other factor is not a matrix"));
    };
    if rank != columns || rank == 0 {
        return Err(Error::tensor(format!("{layer}{B}"), format!("has {columns} columns, and {A} {rank} rows")));
    }
    let (a, b) = (a.elements::<f32>()?, b.elements::<f32>()?);
    let (mut row, mut product) = (vec![0.0; inputs], Vec::with_capacity(outputs * inputs));
    for b in b.chunks_exact(rank) {
        row.fill(0.0);
        for (a, &b) in a.chunks_exact(inputs.max(1)).zip(b) {
            row.iter_mut().zip(a).for_each(|(sum, &a)| *sum += f64::from(b) * f64::from(a));
        }
        product.extend(row.iter().map(|&sum| sum as f32));
    }
    Tensor::from_slice(&[outputs, inputs], &product)
}

/// The component of this plugin.
pub fn component() -> Component {
    Component::aggregator("lora", "the exact mean of models with LoRA (FedEx-LoRA, FLoRA)", LoraMean::new)
}

plugin_api::export_plugin!(component());

#[cfg(test)]
mod tests;
