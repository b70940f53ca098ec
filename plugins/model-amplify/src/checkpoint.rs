//! Reading published checkpoints.

use std::path::Path;

use plugin_api::{Context, Error, Result};

use crate::architecture::Architecture;
use crate::config::Pretrained;
use crate::heads::number;
use crate::hub::{self, HubName};
use crate::impostor;
use crate::parameters::Parameters;
use crate::tokenize::Tokenizer;
use crate::weights::{self, Found, Weights};

/// The files of a checkpoint, with the weights under [`weights::SINGLE`] or [`weights::INDEX`].
pub(crate) const CONFIG: &str = "config.json";
pub(crate) const TOKENIZER: &str = "tokenizer.json";
/// What other programs want beside those, besides the published code.
pub(crate) const SETTINGS: [&str; 2] = ["special_tokens_map.json", TOKENIZER_CONFIG];
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// Before the names of the trunk's parameters, which are published without it.
const TRUNK: &str = "trunk.";
/// Where our own export puts the heads.
pub(crate) const REGRESSORS: &str = "regressors.safetensors";

/// Where a trunk comes from, opened but for its weights.
#[derive(Debug)]
pub struct Checkpoint {
    /// Sizes and switches.
    pub architecture: Architecture,
    /// The tokenizer that the trunk was trained with.
    pub tokenizer: Tokenizer,
    /// Files that other programs need beside those: the published code, the tokenizer's settings.
    pub companions: Vec<(String, Vec<u8>)>,
    weights: Option<Weights>,
}

impl Checkpoint {
    /// Reads the small files of a folder, which is fetched from the hub first if there is none of this name here; or
    /// makes what stands for them.
    ///
    /// # Errors
    /// If there is no such folder, here or on the hub, or a file is missing or damaged.
    pub fn open(pretrained: &Pretrained, ctx: &Context<'_>) -> Result<Self> {
        match pretrained {
            Pretrained::Named(name) if Path::new(name).is_dir() => Self::read(Path::new(name)),
            Pretrained::Named(name) => match HubName::parse(name) {
                Some(name) => Self::read(&hub::fetch(&name, ctx)?),
                None => {
                    let message = format!("`{name}` is neither a folder nor a name on the hub");
                    let help = format!(
                        "give a folder with `{CONFIG}`, `{}` and `{TOKENIZER}`, or `owner/name` or \
                         `owner/name@revision` of such a one on the hub",
                        weights::SINGLE
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
        let text = impostor::read(&path)?;
        let damaged = |message: String| Error::data(message).in_file(&path, None);
        let architecture: Architecture = serde_json::from_slice(&text)
            .map_err(|e| damaged("is no configuration of an AMPLIFY trunk".to_owned()).because(&e))?;
        architecture.check().map_err(damaged)?;
        let tokenizer = Tokenizer::read(&folder.join(TOKENIZER), &architecture)?;
        Ok(Self { architecture, tokenizer, companions: companions(folder)?, weights: Some(Weights::of(folder)?) })
    }

    /// Whether its weights, if there are any, are those of the trunk. Reads no more than the files' headers.
    ///
    /// # Errors
    /// If a file is damaged, or its tensors are not those of the trunk.
    pub fn fits(&self, parameters: &Parameters) -> Result<()> {
        self.weights.as_ref().map_or(Ok(()), |weights| trunk(weights, parameters).map(drop))
    }

    /// Gives the trunk's parameters that have no values yet those of the checkpoint, if there is one.
    ///
    /// # Errors
    /// As [`fits`](Self::fits), or if a file cannot be read.
    pub fn load_trunk(&self, parameters: &mut Parameters) -> Result<()> {
        let Some(weights) = &self.weights else { return Ok(()) };
        if !parameters.iter().any(|p| p.is_missing() && p.name.starts_with(TRUNK)) {
            return Ok(());
        }
        let mut found = trunk(weights, parameters)?;
        parameters
            .give(|name| name.starts_with(TRUNK), |parameter, out| found.read(&parameter.name[TRUNK.len()..], out))
    }
}

fn trunk(weights: &Weights, parameters: &Parameters) -> Result<Found> {
    let trunk = parameters.iter().filter_map(|p| Some((p.name.strip_prefix(TRUNK)?, p.shape())));
    weights.find(&trunk.collect::<Vec<_>>(), |_| false).map_err(|e| match e.hint() {
        Some(_) => e,
        None => e.help(format!("do `{CONFIG}` and the weights belong together?")),
    })
}

/// Whether a file holds the heads' weights; it may hold other tasks' heads as well.
///
/// # Errors
/// If it cannot be read, or does not.
pub(crate) fn regressors_fit(path: &Path, parameters: &Parameters, tasks: usize) -> Result<()> {
    regressors(path, parameters, tasks).map(drop)
}

/// Gives the heads' parameters that have no values yet those of such a file.
///
/// # Errors
/// As [`regressors_fit`].
pub(crate) fn load_regressors(path: &Path, parameters: &mut Parameters, tasks: usize) -> Result<()> {
    if !parameters.iter().any(|p| p.is_missing() && number(&p.name).is_some()) {
        return Ok(());
    }
    let mut found = regressors(path, parameters, tasks)?;
    parameters.give(|name| number(name).is_some(), |parameter, out| found.read(&parameter.name, out))
}

fn regressors(path: &Path, parameters: &Parameters, tasks: usize) -> Result<Found> {
    let heads: Vec<_> =
        parameters.iter().filter(|p| number(&p.name).is_some()).map(|p| (p.name.as_str(), p.shape())).collect();
    let held = |head| heads.iter().any(|(name, _)| number(name) == Some(head));
    let elsewhere = |name: &str| number(name).is_some_and(|head| head < tasks && !held(head));
    Weights::single(path.to_owned()).find(&heads, elsewhere).map_err(|e| match e.hint() {
        Some(_) => e,
        None => e.help("the file's heads must have this experiment's `layer-sizes` and its tasks in the same order"),
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
