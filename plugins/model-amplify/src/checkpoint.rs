//! Reading published checkpoints.

use std::path::{Path, PathBuf};

use plugin_api::{Error, Result};
use safetensors::{Dtype, SafeTensors};
use tch::{Kind, Tensor};

use crate::architecture::Architecture;
use crate::bridge;
use crate::config::Pretrained;
use crate::parameters::Parameters;
use crate::tokenize::Tokenizer;

/// The files of a checkpoint.
pub(crate) const CONFIG: &str = "config.json";
pub(crate) const WEIGHTS: &str = "model.safetensors";
pub(crate) const TOKENIZER: &str = "tokenizer.json";
/// Where our own export puts the heads.
pub(crate) const REGRESSORS: &str = "regressors.safetensors";

/// Where a trunk comes from, opened but for its weights.
#[derive(Debug)]
pub struct Checkpoint {
    /// Sizes and switches.
    pub architecture: Architecture,
    /// The tokenizer that the trunk was trained with.
    pub tokenizer: Tokenizer,
    /// Files that other programs need beside those three: the published code, the tokenizer's settings.
    pub companions: Vec<(String, Vec<u8>)>,
    weights: Option<PathBuf>,
}

impl Checkpoint {
    /// Reads the small files of a folder, or makes what stands for them.
    ///
    /// # Errors
    /// If there is no such folder, or a file is missing or damaged.
    pub fn open(pretrained: &Pretrained) -> Result<Self> {
        match pretrained {
            Pretrained::Folder(folder) => Self::read(folder),
            Pretrained::Random(trunk) => {
                let architecture = trunk.architecture();
                let tokenizer = Tokenizer::published(&architecture)?;
                Ok(Self { architecture, tokenizer, companions: Vec::new(), weights: None })
            }
        }
    }

    fn read(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            let message = format!("`{}` is not a folder", folder.display());
            let help = format!(
                "give a folder with `{CONFIG}`, `{WEIGHTS}` and `{TOKENIZER}`; one on a hub has to be downloaded first"
            );
            return Err(Error::config(message).at_key("pretrained").help(help));
        }
        let path = folder.join(CONFIG);
        let text = std::fs::read(&path).map_err(|e| Error::io(&path, &e))?;
        let damaged = |message: String| Error::data(message).in_file(&path, None);
        let architecture: Architecture = serde_json::from_slice(&text)
            .map_err(|e| damaged("is no configuration of an AMPLIFY trunk".to_owned()).because(&e))?;
        architecture.check().map_err(damaged)?;
        let tokenizer = Tokenizer::read(&folder.join(TOKENIZER), &architecture)?;
        Ok(Self { architecture, tokenizer, companions: companions(folder)?, weights: Some(folder.join(WEIGHTS)) })
    }

    /// Gives the trunk the checkpoint's weights; false if there are none and it has to start at random.
    ///
    /// # Errors
    /// If the file is damaged, or its tensors are not those of the trunk.
    pub fn load_trunk(&self, parameters: &Parameters) -> Result<bool> {
        let Some(path) = &self.weights else { return Ok(false) };
        let trunk = parameters.iter().filter_map(|p| Some((p.name.strip_prefix("trunk.")?, &p.tensor)));
        load(path, &trunk.collect::<Vec<_>>(), |_| false).map_err(|e| {
            if e.hint().is_some() { e } else { e.help(format!("do `{CONFIG}` and `{WEIGHTS}` belong together?")) }
        })?;
        Ok(true)
    }
}

/// Gives the heads the weights of a file, which may hold other tasks' heads as well.
pub(crate) fn load_regressors(path: &Path, parameters: &Parameters, tasks: usize) -> Result<()> {
    let heads: Vec<_> =
        parameters.iter().filter(|p| p.name.starts_with("regressors.")).map(|p| (p.name.as_str(), &p.tensor)).collect();
    let held = |head| heads.iter().any(|(name, _)| number(name) == Some(head));
    let elsewhere = |name: &str| number(name).is_some_and(|head| head < tasks && !held(head));
    load(path, &heads, elsewhere).map_err(|e| {
        e.help("the file's heads must have this experiment's `layer-sizes` and its tasks in the same order")
    })
}

/// The `T` of `regressors.T.K.weight`.
fn number(name: &str) -> Option<usize> {
    name.strip_prefix("regressors.")?.split('.').next()?.parse().ok()
}

/// Copies a file's tensors into `wanted`. All that is missing, unexpected or of another shape is one error, and then
/// nothing was copied.
fn load(path: &Path, wanted: &[(&str, &Tensor)], elsewhere: impl Fn(&str) -> bool) -> Result<()> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, &e))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| Error::data("is damaged, or no safetensors file").because(&e).in_file(path, None))?;
    let mut problems = Vec::new();
    for (name, ours) in wanted {
        match file.tensor(name) {
            Err(_) => problems.push(format!("`{name}` is missing")),
            Ok(theirs) if theirs.shape() != bridge::shape_of(ours) => {
                problems.push(format!("`{name}` has shape {:?}, not {:?}", theirs.shape(), bridge::shape_of(ours)));
            }
            Ok(theirs) if kind(theirs.dtype()).is_none() => {
                problems.push(format!("`{name}` holds {:?}, which is no float", theirs.dtype()))
            }
            Ok(_) => {}
        }
    }
    let mut names = file.names();
    names.sort_unstable();
    let unexpected = names.into_iter().filter(|name| !elsewhere(name) && wanted.iter().all(|(known, _)| known != name));
    problems.extend(unexpected.map(|name| format!("`{name}` is unexpected")));
    if !problems.is_empty() {
        let error = Error::data(format!("{} of its tensors do not fit the model", problems.len())).in_file(path, None);
        return Err(problems.into_iter().fold(error, Error::because_of));
    }
    let _guard = tch::no_grad_guard();
    for (name, ours) in wanted {
        let copied = file.tensor(name).ok().and_then(|theirs| Some((theirs.data(), kind(theirs.dtype())?))).map(
            |(data, kind)| {
                Tensor::f_from_data_size(data, &ours.size(), kind)
                    .and_then(|theirs| ours.shallow_clone().f_copy_(&theirs))
            },
        );
        copied.transpose().map_err(|e| Error::tensor(*name, "could not be copied").because(&e))?;
    }
    Ok(())
}

/// libtorch's name of a float type; anything else cannot be a weight.
fn kind(dtype: Dtype) -> Option<Kind> {
    match dtype {
        Dtype::F64 => Some(Kind::Double),
        Dtype::F32 => Some(Kind::Float),
        Dtype::F16 => Some(Kind::Half),
        Dtype::BF16 => Some(Kind::BFloat16),
        _ => None,
    }
}

fn companions(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, &e))? {
        let path = entry.map_err(|e| Error::io(folder, &e))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let code = path.extension().is_some_and(|extension| extension == "py");
        if path.is_file() && (code || ["tokenizer_config.json", "special_tokens_map.json"].contains(&name)) {
            files.push((name.to_owned(), std::fs::read(&path).map_err(|e| Error::io(&path, &e))?));
        }
    }
    files.sort();
    Ok(files)
}
