//! Trunks on the Hugging Face hub, or the one that `HF_ENDPOINT` names.
//!
//! The cache has Hugging Face's layout: `snapshots/COMMIT/FILE` links to a blob, and `refs/REVISION` names the commit. A
//! complete commit is used without asking the hub. The crate's first page documents this and the environment variables.

mod download;
mod limits;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use plugin_api::{Context, Error, Result};
use serde_json::Value;

use crate::checkpoint::{CONFIG, SETTINGS, TOKENIZER};
use crate::weight_files::{self, is_file_name, is_whole};
use download::Download;

/// The default branch.
const MAIN: &str = "main";

/// `owner/name` or `owner/name@revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HubName {
    id: String,
    revision: Option<String>,
}

impl HubName {
    /// None for any other form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (id, revision) = match text.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (text, None),
        };
        let word = |word: &str| {
            word.starts_with(|c: char| c.is_ascii_alphanumeric())
                && word.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        let (owner, name) = id.split_once('/')?;
        // The name of a branch may contain slashes.
        let named = revision.is_none_or(|revision| revision.split('/').all(word));
        (word(owner) && word(name) && named).then(|| Self { id: id.to_owned(), revision: revision.map(str::to_owned) })
    }

    fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }

    fn repo(&self, revision: &str) -> Repo {
        Repo::with_revision(self.id.clone(), RepoType::Model, revision.to_owned())
    }
}

impl std::fmt::Display for HubName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.revision {
            Some(revision) => write!(f, "{}@{revision}", self.id),
            None => f.write_str(&self.id),
        }
    }
}

/// The folder of a checkpoint in the cache. Missing files are downloaded.
///
/// # Errors
/// If a file is missing and cannot be downloaded.
pub(crate) fn fetch(name: &HubName, ctx: &Context<'_>) -> Result<PathBuf> {
    // The clients of a run are made in parallel and need the same files. The first one downloads them.
    static DOWNLOADING: Mutex<()> = Mutex::new(());
    let _lock = DOWNLOADING.lock().unwrap_or_else(PoisonError::into_inner);
    let hub = Hub::from_env()?;
    let cached = hub.cached(name, ctx)?;
    let missing = missing_files(&cached);
    if missing.is_empty() {
        return Ok(cached);
    }
    if hub.offline {
        let files: Vec<_> = missing.iter().map(|file| format!("`{file}`")).collect();
        let message = format!("`{name}` is incomplete in the cache, and `HF_HUB_OFFLINE` is set");
        let error = Error::config(message).at_key("pretrained");
        let error = error.because_of(format!("`{}` lacks {}", cached.display(), files.join(", ")));
        return Err(error.help("run once with network access, or copy the cache of a machine that has it"));
    }
    limits::check_given_up()?;
    hub.download(name, ctx)
}

/// The hub and the cache that the environment selects.
#[derive(Debug)]
struct Hub {
    cache: Cache,
    token: Option<String>,
    endpoint: Option<String>,
    offline: bool,
}

impl Hub {
    fn from_env() -> Result<Self> {
        let set = |name| env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let user = || {
            let caches = set("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cache")))?;
            Some(caches.join("huggingface"))
        };
        let home = set("HF_HOME").map(PathBuf::from).or_else(user);
        let cache = set("HF_HUB_CACHE").map(PathBuf::from).or_else(|| Some(home.as_ref()?.join("hub")));
        let cache = cache.ok_or_else(|| {
            let error = Error::config("there is no folder for the hub's cache").at_key("pretrained");
            error.help("set `HF_HOME` to a folder")
        })?;
        // Links in the cache need absolute paths.
        let cache = std::path::absolute(&cache).map_err(|e| Error::io(&cache, &e))?;
        let saved = home.and_then(|home| Cache::new(home.join("hub")).token());
        let offline = set("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value));
        let endpoint = set("HF_ENDPOINT").map(|url| url.trim_end_matches('/').to_owned());
        Ok(Self { cache: Cache::new(cache), token: set("HF_TOKEN").or(saved), endpoint, offline })
    }

    /// The folder of a revision in the cache, which need not exist.
    ///
    /// # Errors
    /// If the cache does not say which of several commits the revision is, and the hub may not be asked.
    fn cached(&self, name: &HubName, ctx: &Context<'_>) -> Result<PathBuf> {
        let repo = self.cache.path().join(name.repo(MAIN).folder_name());
        let snapshots = repo.join("snapshots");
        match fs::read_to_string(repo.join("refs").join(name.revision())) {
            Ok(commit) => Ok(snapshots.join(commit.trim())),
            // The cache was copied without its references, or filled by commit.
            Err(_) if self.offline && name.revision.is_none() => only_commit(&snapshots, name, ctx),
            // The revision may be a commit, which has no reference.
            Err(_) => Ok(snapshots.join(name.revision())),
        }
    }

    fn download(&self, name: &HubName, ctx: &Context<'_>) -> Result<PathBuf> {
        let mut builder = ApiBuilder::from_cache(self.cache.clone())
            .with_token(self.token.clone())
            .with_user_agent("fedplug", VERSION);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let api =
            builder.build().map_err(|e| Error::other("the connection to the hub could not be set up").because(&e))?;
        let branch = name.repo(name.revision());
        let listed = api.repo(branch.clone());
        let (url, silence) = (listed.url(""), limits::longest_silence()?);
        let info = limits::request(&format!("`{name}`"), silence, ctx, |_| {}, move |_teller| listed.info())?;
        let info = info.map_err(|e| download::refusal(name, &url, e))?;
        if !is_file_name(&info.sha) {
            return Err(Error::data(format!("the hub returned an invalid commit of `{name}`: `{}`", info.sha)));
        }
        // All files come from one commit, even if the branch moves meanwhile.
        let folder = self.cache.repo(branch.clone()).pointer_path(&info.sha);
        ctx.info(format_args!("downloading `{name}` (commit {}) to {}", info.sha, folder.display()));
        let files = info.siblings.into_iter().map(|file| file.rfilename).filter(|file| is_file_name(file)).collect();
        let repo = Arc::new(api.repo(name.repo(&info.sha)));
        let listing = RepoFiles { name, repo, files, folder: &folder, silence };
        listing.download(ctx)?;
        // The reference comes last, so that no other run finds an incomplete commit under it.
        self.cache.repo(branch).create_ref(&info.sha).map_err(|e| Error::io(&folder, &e))?;
        Ok(folder)
    }
}

/// The commit of a cache that holds a single one, and does not say which commit the branch is at.
fn only_commit(snapshots: &Path, name: &HubName, ctx: &Context<'_>) -> Result<PathBuf> {
    let mut commits: Vec<String> = match fs::read_dir(snapshots) {
        Ok(entries) => entries
            .filter_map(|entry| entry.ok().filter(|entry| entry.path().is_dir())?.file_name().into_string().ok())
            .collect(),
        // The cache has nothing of this model. The caller reports the missing files.
        Err(_) => Vec::new(),
    };
    commits.sort();
    match &commits[..] {
        [] => Ok(snapshots.join(MAIN)),
        [commit] => {
            ctx.info(format_args!("the cache does not say which commit `{name}` is at; using {commit}, its only one"));
            Ok(snapshots.join(commit))
        }
        [first, ..] => {
            let message = format!(
                "the cache holds {} commits of `{name}` and does not say which one to use, and `HF_HUB_OFFLINE` is set",
                commits.len()
            );
            let error = Error::config(message).at_key("pretrained");
            let error = commits.iter().fold(error, |error, commit| error.because_of(format!("it holds `{commit}`")));
            Err(error.help(format!("name a commit, such as `{name}@{first}`")))
        }
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The files of one commit on the hub.
struct RepoFiles<'a> {
    name: &'a HubName,
    repo: Arc<ApiRepo>,
    files: BTreeSet<String>,
    folder: &'a Path,
    /// How long the hub may send nothing.
    silence: Duration,
}

impl RepoFiles<'_> {
    fn download(&self, ctx: &Context<'_>) -> Result<()> {
        self.get_required(CONFIG, ctx)?;
        self.get_required(TOKENIZER, ctx)?;
        let optional = self.files.iter().filter(|file| self.is_companion(file));
        for file in optional {
            if let Err(error) = self.get(file, ctx) {
                ctx.check()?;
                ctx.warn(format_args!("exports of this model will lack `{file}`: {error}"));
            }
        }
        if self.files.contains(weight_files::SINGLE) || !self.files.contains(weight_files::INDEX) {
            return self.get_required(weight_files::SINGLE, ctx);
        }
        self.get_required(weight_files::INDEX, ctx)?;
        let shards = weight_files::shards(&self.folder.join(weight_files::INDEX))?;
        shards.iter().try_for_each(|shard| self.get_required(shard, ctx))
    }

    /// Whether exports carry a file along: the tokenizer's settings and, if the configuration names modelling code, all
    /// code, since its files import each other.
    fn is_companion(&self, file: &str) -> bool {
        SETTINGS.contains(&file) || file.ends_with(".py") && names_code(&self.folder.join(CONFIG))
    }

    fn get_required(&self, file: &str, ctx: &Context<'_>) -> Result<()> {
        if self.files.contains(file) {
            return self.get(file, ctx);
        }
        let message = format!("`{}` on the hub has no file `{file}`", self.name);
        let help = format!(
            "an AMPLIFY trunk consists of `{CONFIG}`, `{TOKENIZER}`, and `{}` or its shards",
            weight_files::SINGLE
        );
        Err(Error::config(message).at_key("pretrained").help(help))
    }

    fn get(&self, file: &str, ctx: &Context<'_>) -> Result<()> {
        let Self { name, repo, silence, .. } = self;
        Download { name, repo, file, path: &self.folder.join(file), silence: *silence, ctx }.run()
    }
}

/// The required files that a folder lacks, or has incomplete.
fn missing_files(folder: &Path) -> Vec<String> {
    let whole = |name: &str| {
        let path = folder.join(name);
        path.is_file() && (!name.ends_with(".safetensors") || is_whole(&path))
    };
    let mut required = vec![CONFIG.to_owned(), TOKENIZER.to_owned()];
    let index = folder.join(weight_files::INDEX);
    match weight_files::shards(&index) {
        Ok(shards) if !folder.join(weight_files::SINGLE).exists() => required.extend(shards),
        _ => required.push(weight_files::SINGLE.to_owned()),
    }
    required.retain(|name| !whole(name));
    required
}

fn names_code(config: &Path) -> bool {
    let config = fs::read(config).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    config.is_some_and(|config| config.get("auto_map").is_some())
}

fn is_true(value: &str) -> bool {
    ["1", "on", "true", "yes"].contains(&value.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_names_have_an_owner_and_optionally_a_revision() {
        let parsed = |text: &str| HubName::parse(text).map(|name| (name.id.clone(), name.revision().to_owned()));
        let some = |id: &str, revision: &str| Some((id.to_owned(), revision.to_owned()));
        assert_eq!(parsed("chandar-lab/AMPLIFY_120M"), some("chandar-lab/AMPLIFY_120M", "main"));
        assert_eq!(parsed("a/b.c@refs/pr/1"), some("a/b.c", "refs/pr/1"));
        assert_eq!(HubName::parse("a/b@v1").unwrap().to_string(), "a/b@v1");
        for other in
            ["", "a", "a/", "/a", "a/b/c", "./a", "../a", "a/..", "a/b@", "a/b@../c", "a/b@c d", "a b/c", "~/a"]
        {
            assert_eq!(HubName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn is_true_knows_the_usual_words() {
        assert!(["1", "ON", "Yes", "true"].into_iter().all(is_true));
        assert!(!["0", "off", "no", "false", "2"].into_iter().any(is_true));
    }
}
