//! What another implementation computed, in a folder's `expected.json`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

#[derive(Deserialize)]
pub(crate) struct Expected {
    pub(crate) layer_sizes: Vec<i64>,
    pub(crate) num_targets: usize,
    pub(crate) dropout: f64,
    #[serde(default = "default_decay")]
    pub(crate) weight_decay: f64,
    pub(crate) forward: Vec<Forward>,
    pub(crate) train: Vec<Step>,
    pub(crate) lr_decay_total_steps: u64,
    pub(crate) final_parameter_sums: BTreeMap<String, f64>,
    pub(crate) final_parameter_norms: BTreeMap<String, f64>,
    /// Of the first forward case: a row per sequence, a column per task.
    #[serde(default)]
    pub(crate) final_predictions: Vec<Vec<f64>>,
    #[serde(default)]
    pub(crate) mistakes: BTreeMap<String, Mistake>,
}

fn default_decay() -> f64 {
    0.01
}

#[derive(Deserialize)]
pub(crate) struct Forward {
    pub(crate) sequences: Vec<String>,
    pub(crate) input_ids: Vec<Vec<u32>>,
    pub(crate) logits_row0: Vec<Vec<f32>>,
    pub(crate) hidden_first_tokens: Vec<Vec<Vec<f32>>>,
    pub(crate) pooled_mean_over_all_positions: Vec<Vec<f32>>,
    pub(crate) pooled_mean_over_tokens: Vec<Vec<f32>>,
    pub(crate) prediction_mean_over_all_positions: Vec<Vec<f32>>,
    pub(crate) prediction_mean_over_tokens: Vec<Vec<f32>>,
}

#[derive(Clone, Deserialize)]
pub(crate) struct Step {
    pub(crate) round: u64,
    pub(crate) task: usize,
    pub(crate) sequences: Vec<String>,
    pub(crate) labels: Vec<f32>,
    pub(crate) loss: f64,
    pub(crate) grad_norm: f64,
    pub(crate) lr_trunk: f64,
    pub(crate) lr_regressor: f64,
}

/// The results of training with a mistake.
#[derive(Deserialize)]
pub(crate) struct Mistake {
    pub(crate) losses: Vec<f64>,
    pub(crate) grad_norms: Vec<f64>,
    pub(crate) final_predictions: Vec<Vec<f64>>,
}

/// Reads a folder's `expected.json`.
pub(crate) fn read(folder: &Path) -> Expected {
    serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap()
}
