//! Exports in the published formats, which other programs and the key `pretrained` read.
//!
//! The trunk is in `config.json`, `model.safetensors`, `tokenizer.json` and `tokenizer_config.json`, with its published names.
//! Hugging Face's `AutoModel` also needs the modelling code that `auto_map` in `config.json` names. We may not distribute that
//! code, so an export has it only if the trunk came with it; then `AutoModel.from_pretrained(folder, trust_remote_code=True)`
//! loads the folder.
//!
//! The heads are in `regressors.safetensors`, and `fedplug.json` says what each predicts. Heads with random values are left out
//! (`heads.rs`); without any other, both files are.
//!
//! `README.md` explains the folder to its readers.

mod readme;

use std::fs;
use std::path::Path;

use plugin_api::{Error, ModelSetup, Params, Result};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::architecture::Architecture;
use crate::checkpoint::{CONFIG, REGRESSORS, TOKENIZER, TOKENIZER_CONFIG};
use crate::config::{Config, Lora, Pooling, Pretrained};
use crate::heads::KnownHeads;
use crate::parameters::TRUNK;
use crate::tokenize::Tokenizer;
use crate::weight_files;

/// The file that says what each `regressors.T` predicts.
const HEADS: &str = "fedplug.json";

const README: &str = "README.md";

/// The files of the adapters, in a folder of their own.
const ADAPTER: &str = "adapter";
const ADAPTER_CONFIG: &str = "adapter/adapter_config.json";

/// Whether a file is modelling code.
fn is_code(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "py")
}

/// An export that is being written.
pub(crate) struct ExportFolder<'a> {
    path: &'a Path,
    written: Vec<String>,
}

impl<'a> ExportFolder<'a> {
    pub(crate) fn new(path: &'a Path) -> Self {
        Self { path, written: Vec::new() }
    }

    /// The names of the files.
    pub(crate) fn finish(self) -> Vec<String> {
        self.written
    }

    /// Writes the trunk, its configuration, its tokenizer, and the files that came with it.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(crate) fn trunk(
        &mut self,
        params: &Params,
        architecture: &Architecture,
        tokenizer: &Tokenizer,
        companions: &[(String, Vec<u8>)],
    ) -> Result<()> {
        let mut architecture = architecture.clone();
        // The checkpoint's weights may have been of another type.
        for key in ["torch_dtype", "dtype"] {
            architecture.others.entry(key).and_modify(|dtype| *dtype = "float32".into());
        }
        self.json(CONFIG, &json!(architecture))?;
        self.tensors(weight_files::SINGLE, params, TRUNK)?;
        self.bytes(TOKENIZER, tokenizer.json())?;
        companions.iter().try_for_each(|(name, bytes)| self.bytes(name, bytes))?;
        let has_settings = companions.iter().any(|(name, _)| name == TOKENIZER_CONFIG);
        match tokenizer.settings().filter(|_| !has_settings) {
            Some(settings) => self.json(TOKENIZER_CONFIG, &settings),
            None => Ok(()),
        }
    }

    /// Writes the adapters as PEFT stores them, to a folder of their own: beside a trunk, `AutoModel` would take them for
    /// additions to it.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(crate) fn adapter(
        &mut self,
        adapters: &Params,
        lora: &Lora,
        pretrained: &Pretrained,
        architecture: &Architecture,
    ) -> Result<()> {
        let folder = self.path.join(ADAPTER);
        fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, &e))?;
        self.tensors(&format!("{ADAPTER}/adapter_model.safetensors"), adapters, "")?;
        let base = match pretrained {
            Pretrained::Named(name) => json!(name),
            Pretrained::Random(_) => Value::Null,
        };
        let targets: Vec<&str> = lora.targets.iter().map(|target| target.module(architecture.hidden_act)).collect();
        self.json(
            ADAPTER_CONFIG,
            &json!({
                "peft_type": "LORA", "base_model_name_or_path": base, "r": lora.rank, "lora_alpha": lora.alpha,
                "lora_dropout": lora.dropout, "target_modules": targets, "bias": "none", "fan_in_fan_out": false,
                "inference_mode": true, "task_type": null, "use_rslora": false, "use_dora": false,
            }),
        )
    }

    /// Writes `README.md`, after all other files.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn readme(&mut self, architecture: &Architecture) -> Result<()> {
        let has = |name: &str| self.written.iter().any(|written| written == name);
        let code = architecture.others.contains_key("auto_map") && self.written.iter().any(|name| is_code(name));
        self.bytes(README, readme::text(has(REGRESSORS), has(ADAPTER_CONFIG), code).as_bytes())
    }

    /// Writes the known heads, and what each predicts.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(crate) fn regressors(
        &mut self,
        params: &Params,
        heads: &KnownHeads,
        config: &Config,
        setup: &ModelSetup,
    ) -> Result<()> {
        if params.is_empty() {
            return Ok(());
        }
        self.tensors(REGRESSORS, params, "")?;
        let held = setup.tasks.iter().enumerate().filter(|(number, _)| heads.contains(*number));
        let tasks: Vec<Value> = held
            .map(|(number, task)| {
                let mut entry =
                    json!({ "regressor": number, "name": task.name, "inputs": task.inputs, "target": task.target });
                if let Some(classes) = task.target_kind.classes() {
                    entry["classes"] = json!(classes);
                }
                entry
            })
            .collect();
        let mut heads = json!({ "layer-sizes": config.layer_sizes, "pooling": config.pooling, "tasks": tasks });
        if config.pooling == Pooling::Chains {
            heads["chains"] = config.vectors().into();
        }
        self.json(HEADS, &heads)
    }

    fn tensors(&mut self, name: &str, params: &Params, prefix: &str) -> Result<()> {
        let path = self.path.join(name);
        let failed = |e: safetensors::SafeTensorError| {
            Error::new(plugin_api::ErrorKind::Io, "could not be written").because(&e).in_file(&path, None)
        };
        let mut views = Vec::with_capacity(params.len());
        for (name, tensor) in params.iter() {
            let view =
                TensorView::new(Dtype::F32, tensor.shape().to_vec(), tensor.buffer().as_slice()).map_err(failed)?;
            views.push((name.strip_prefix(prefix).unwrap_or(name), view));
        }
        // Hugging Face's `transformers` refuses a file without `format`.
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        // It writes a file that only its owner may read, and puts it in the place of this one.
        let permissions = fs::File::create(&path).and_then(|file| file.metadata()).map(|found| found.permissions());
        safetensors::serialize_to_file(views, Some(metadata), &path).map_err(failed)?;
        permissions.and_then(|mode| fs::set_permissions(&path, mode)).map_err(|e| Error::io(&path, &e))?;
        self.written.push(name.to_owned());
        Ok(())
    }

    fn json(&mut self, name: &str, value: &Value) -> Result<()> {
        self.bytes(name, format!("{value:#}\n").as_bytes())
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        fs::write(&path, bytes).map_err(|e| Error::io(&path, &e))?;
        self.written.push(name.to_owned());
        Ok(())
    }
}
