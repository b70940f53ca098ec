//! Reading published checkpoints.

use std::path::Path;

use plugin_api::{Context, Error, Result};

use crate::architecture::Architecture;
use crate::config::Pretrained;
use crate::heads::head_number;
use crate::hub::{self, HubName};
use crate::parameters::{Parameter, Parameters, TRUNK, is_of_base};
use crate::placeholder;
use crate::tokenize::Tokenizer;
use crate::weight_files::{self, LocatedTensors, WeightFiles};

/// The files of a checkpoint, beside its weights in [`weight_files::SINGLE`] or [`weight_files::INDEX`].
pub(crate) const CONFIG: &str = "config.json";
pub(crate) const TOKENIZER: &str = "tokenizer.json";
/// Optional files that other programs read.
pub(crate) const SETTINGS: [&str; 2] = ["special_tokens_map.json", TOKENIZER_CONFIG];
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// The heads in an export.
pub(crate) const REGRESSORS: &str = "regressors.safetensors";

/// A pretrained trunk, or the description of a random one. The weights are not read yet.
#[derive(Debug)]
pub struct Checkpoint {
    /// The contents of `config.json`.
    pub architecture: Architecture,
    /// The trunk's tokenizer.
    pub tokenizer: Tokenizer,
    /// Names and contents of files that an export carries along: modelling code and the tokenizer's settings.
    pub companions: Vec<(String, Vec<u8>)>,
    /// None for a random trunk.
    weights: Option<WeightFiles>,
}

impl Checkpoint {
    /// Reads the small files of a folder, which is downloaded from the hub if it does not exist.
    ///
    /// # Errors
    /// If there is no such folder or model on the hub, or a file is missing or damaged.
    pub fn open(pretrained: &Pretrained, ctx: &Context<'_>) -> Result<Self> {
        match pretrained {
            Pretrained::Named(name) if Path::new(name).is_dir() => Self::read(Path::new(name)),
            Pretrained::Named(name) => match HubName::parse(name) {
                Some(name) => Self::read(&hub::fetch(&name, ctx)?),
                None => {
                    let message = format!("`{name}` is neither a folder nor the name of a model on the hub");
                    let help = format!(
                        "give a folder with `{CONFIG}`, `{}` and `{TOKENIZER}`, or a model on the hub, `owner/name` or \
                         `owner/name@revision`",
                        weight_files::SINGLE
                    );
                    Err(Error::config(message).at_key("pretrained").help(help))
                }
            },
            Pretrained::Random(trunk) => {
                let architecture = trunk.architecture();
                let tokenizer = Tokenizer::published(&architecture)?;
                Ok(Self { architecture, tokenizer, companions: Vec::new(), weights: None })
            }
        }
    }

    fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(CONFIG);
        let text = placeholder::read(&path)?;
        let damaged = |message: String| Error::data(message).in_file(&path, None);
        let architecture: Architecture = serde_json::from_slice(&text)
            .map_err(|e| damaged("is not the configuration of an AMPLIFY trunk".to_owned()).because(&e))?;
        architecture.check().map_err(damaged)?;
        let tokenizer = Tokenizer::read(&folder.join(TOKENIZER), &architecture)?;
        let weights = Some(WeightFiles::in_folder(folder)?);
        Ok(Self { architecture, tokenizer, companions: companions(folder)?, weights })
    }

    /// Checks that the weights, if there are any, are those of the trunk. Reads only the files' headers.
    ///
    /// # Errors
    /// If a file is damaged, or its tensors are not the trunk's.
    pub fn check_weights(&self, parameters: &Parameters) -> Result<()> {
        self.weights.as_ref().map_or(Ok(()), |weights| locate_trunk(weights, parameters).map(drop))
    }

    /// Reads the weights, if there are any, into the trunk's parameters without values.
    ///
    /// # Errors
    /// Those of [`check_weights`](Self::check_weights), or if a file cannot be read.
    pub fn load_trunk(&self, parameters: &mut Parameters) -> Result<()> {
        let Some(weights) = &self.weights else { return Ok(()) };
        if !parameters.iter().any(|p| p.is_missing() && is_of_base(&p.name)) {
            return Ok(());
        }
        let mut located = locate_trunk(weights, parameters)?;
        let read = |parameter: &Parameter, out: &mut [f32]| located.read(&parameter.name[TRUNK.len()..], out);
        parameters.fill_missing(is_of_base, read)
    }
}

fn locate_trunk(weights: &WeightFiles, parameters: &Parameters) -> Result<LocatedTensors> {
    let trunk = parameters.iter().filter(|p| is_of_base(&p.name)).map(|p| (&p.name[TRUNK.len()..], p.shape()));
    weights.locate(&trunk.collect::<Vec<_>>(), |_| false).map_err(|e| match e.hint() {
        Some(_) => e,
        None => e.help(format!("check that `{CONFIG}` and the weights are of the same checkpoint")),
    })
}

/// Checks that a file holds the heads' weights. It may hold heads of other tasks too.
///
/// # Errors
/// If it cannot be read, or a head is missing or has another shape.
pub(crate) fn check_regressors(path: &Path, parameters: &Parameters, tasks: usize) -> Result<()> {
    locate_regressors(path, parameters, tasks).map(drop)
}

/// Reads a file's weights into the heads' parameters without values.
///
/// # Errors
/// Those of [`check_regressors`].
pub(crate) fn load_regressors(path: &Path, parameters: &mut Parameters, tasks: usize) -> Result<()> {
    if !parameters.iter().any(|p| p.is_missing() && head_number(&p.name).is_some()) {
        return Ok(());
    }
    let mut located = locate_regressors(path, parameters, tasks)?;
    parameters.fill_missing(|name| head_number(name).is_some(), |parameter, out| located.read(&parameter.name, out))
}

fn locate_regressors(path: &Path, parameters: &Parameters, tasks: usize) -> Result<LocatedTensors> {
    let heads: Vec<_> =
        parameters.iter().filter(|p| head_number(&p.name).is_some()).map(|p| (p.name.as_str(), p.shape())).collect();
    let held = |head| heads.iter().any(|(name, _)| head_number(name) == Some(head));
    let of_other_tasks = |name: &str| head_number(name).is_some_and(|head| head < tasks && !held(head));
    WeightFiles::single(path.to_owned()).locate(&heads, of_other_tasks).map_err(|e| match e.hint() {
        Some(_) => e,
        None => e.help("the file's heads must have this experiment's `layer-sizes`, and its tasks in the same order"),
    })
}

fn companions(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, &e))? {
        let path = entry.map_err(|e| Error::io(folder, &e))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let code = path.extension().is_some_and(|extension| extension == "py");
        if path.is_file() && (code || SETTINGS.contains(&name)) {
            files.push((name.to_owned(), std::fs::read(&path).map_err(|e| Error::io(&path, &e))?));
        }
    }
    files.sort();
    Ok(files)
}
