//! Writing a model in the published formats, so that other programs, and `pretrained` itself, can read it.
//!
//! The trunk is in `config.json`, `model.safetensors`, `tokenizer.json` and `tokenizer_config.json`, under its published
//! names. Hugging Face's `AutoModel` also needs the modelling code that `auto_map` in `config.json` names. That code is not
//! ours to give: where the trunk came with it, it is carried along, and `AutoModel.from_pretrained(folder,
//! trust_remote_code=True)` loads the folder; a trunk that started at random has no `auto_map`, and its tensors are
//! loaded by the code of one's choice.
//!
//! The heads stand in `regressors.safetensors`, and `fedplug.json` says what each of them predicts. A head that holds
//! nothing but its first random values is not among them (`heads.rs` says when); without any, both files are left out.
//!
//! `README.md` says the same to whoever finds the folder.

mod readme;

use std::fs;
use std::path::Path;

use plugin_api::{Error, ModelSetup, Params, Result};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::architecture::Architecture;
use crate::checkpoint::{CONFIG, REGRESSORS, TOKENIZER, TOKENIZER_CONFIG};
use crate::config::Config;
use crate::heads::Heads;
use crate::tokenize::Tokenizer;
use crate::weights;

/// What the heads are: the file beside them that says what `regressors.T` predicts.
const HEADS: &str = "fedplug.json";

const README: &str = "README.md";

/// Whether a file is modelling code.
fn is_code(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "py")
}

/// A folder that is being filled.
pub(crate) struct Folder<'a> {
    path: &'a Path,
    written: Vec<String>,
}

impl<'a> Folder<'a> {
    pub(crate) fn new(path: &'a Path) -> Self {
        Self { path, written: Vec::new() }
    }

    /// The files' names.
    pub(crate) fn finish(self) -> Vec<String> {
        self.written
    }

    /// The trunk under its published names, with its configuration and tokenizer.
    pub(crate) fn trunk(
        &mut self,
        params: &Params,
        architecture: &Architecture,
        tokenizer: &Tokenizer,
        companions: &[(String, Vec<u8>)],
    ) -> Result<()> {
        let mut architecture = architecture.clone();
        // The file may say that its weights were halves; ours are not.
        for key in ["torch_dtype", "dtype"] {
            architecture.others.entry(key).and_modify(|dtype| *dtype = "float32".into());
        }
        self.json(CONFIG, &json!(architecture))?;
        self.tensors(weights::SINGLE, params, "trunk.")?;
        self.bytes(TOKENIZER, tokenizer.json())?;
        companions.iter().try_for_each(|(name, bytes)| self.bytes(name, bytes))?;
        let came_with_it = companions.iter().any(|(name, _)| name == TOKENIZER_CONFIG);
        match tokenizer.settings().filter(|_| !came_with_it) {
            Some(settings) => self.json(TOKENIZER_CONFIG, &settings),
            None => Ok(()),
        }
    }

    /// A word on the folder for whoever finds it.
    pub(crate) fn readme(&mut self, architecture: &Architecture) -> Result<()> {
        let has = |name: &str| self.written.iter().any(|written| written == name);
        let code = architecture.others.contains_key("auto_map") && self.written.iter().any(|name| is_code(name));
        self.bytes(README, readme::text(has(REGRESSORS), code).as_bytes())
    }

    /// The heads that are known, and what each predicts.
    pub(crate) fn regressors(
        &mut self,
        params: &Params,
        heads: &Heads,
        config: &Config,
        setup: &ModelSetup,
    ) -> Result<()> {
        if params.is_empty() {
            return Ok(());
        }
        self.tensors(REGRESSORS, params, "")?;
        let held = setup.tasks.iter().enumerate().filter(|(number, _)| heads.known(*number));
        let tasks: Vec<Value> = held
            .map(|(number, task)| {
                json!({ "regressor": number, "name": task.name, "inputs": task.inputs, "target": task.target })
            })
            .collect();
        self.json(HEADS, &json!({ "layer-sizes": config.layer_sizes, "pooling": config.pooling, "tasks": tasks }))
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
        // Other programs refuse a file that does not say which framework's layout it has.
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        safetensors::serialize_to_file(views, Some(metadata), &path).map_err(failed)?;
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
