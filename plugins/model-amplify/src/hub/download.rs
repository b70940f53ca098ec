//! The download of one file, which leaves a complete file or none, and its errors.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hf_hub::api::sync::{ApiError, ApiRepo};
use plugin_api::{Context, Error, ErrorKind, Result};
use sha2::{Digest, Sha256};

use super::HubName;
use super::limits::{self, News};
use crate::weight_files::is_whole;

/// A file to download into the cache.
pub(super) struct Download<'a> {
    pub(super) name: &'a HubName,
    /// The hub's repository at the commit.
    pub(super) repo: &'a Arc<ApiRepo>,
    pub(super) file: &'a str,
    /// Its path in the cache.
    pub(super) path: &'a Path,
    /// How long the hub may send nothing.
    pub(super) silence: Duration,
    pub(super) ctx: &'a Context<'a>,
}

impl Download<'_> {
    /// Downloads the file unless the cache has it. Resumes an interrupted download.
    pub(super) fn run(&self) -> Result<()> {
        let mut waiting = false;
        loop {
            self.ctx.check()?;
            if self.path.exists() {
                if !self.file.ends_with(".safetensors") || is_whole(self.path) {
                    return Ok(());
                }
                self.ctx.warn(format_args!("{} is damaged; downloading it again", self.path.display()));
                self.remove();
            }
            let mut progress = ProgressReporter { file: self.file, ctx: self.ctx, size: 0, done: 0, tenths: 0 };
            let (repo, file) = (self.repo.clone(), self.file.to_owned());
            let what = format!("`{file}` of `{}`", self.name);
            let download = move |teller| repo.download_with_progress(&file, teller);
            match limits::request(&what, self.silence, self.ctx, |news| progress.take(news), download)? {
                Ok(_) => return self.verify(progress.size),
                // hf-hub waits a few seconds for the lock; a download in another process may take minutes.
                Err(ApiError::LockAcquisition(_)) if !waiting => {
                    waiting = true;
                    self.ctx.info(format_args!("another process is downloading `{}`; waiting", self.file));
                }
                Err(ApiError::LockAcquisition(_)) => {}
                Err(error) => return Err(self.failure(error)),
            }
        }
    }

    /// Checks the size and the SHA-256 that the hub gave, and a safetensors file's header. Removes a file that fails.
    fn verify(&self, size: u64) -> Result<()> {
        let found = fs::metadata(self.path).map_err(|e| Error::io(self.path, &e))?.len();
        let fault = if found != size {
            Some(format!("it has {found} bytes instead of {size}"))
        } else if !self.has_expected_hash().map_err(|e| Error::io(self.path, &e))? {
            Some("its SHA-256 differs from the hub's".to_owned())
        } else if self.file.ends_with(".safetensors") && !is_whole(self.path) {
            Some("it is not a complete safetensors file".to_owned())
        } else {
            None
        };
        match fault {
            None => Ok(()),
            Some(fault) => {
                self.remove();
                let error = Error::data(format!("the download of `{}` of `{}` is damaged", self.file, self.name));
                Err(error
                    .at_key("pretrained")
                    .because_of(fault)
                    .help("the file was removed; run again to download it again"))
            }
        }
    }

    /// The cache names the blobs of large files by their SHA-256, and those of small files by Git's hash, which is not checked.
    fn has_expected_hash(&self) -> io::Result<bool> {
        let blob = fs::canonicalize(self.path)?;
        let name = blob.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.len() != 64 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(true);
        }
        let (mut file, mut hash, mut piece) = (File::open(&blob)?, Sha256::new(), vec![0; 1 << 20]);
        loop {
            match file.read(&mut piece)? {
                0 => break,
                read => hash.update(&piece[..read]),
            }
        }
        let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(hex.eq_ignore_ascii_case(name))
    }

    /// Removes the file and the blob that it links to.
    fn remove(&self) {
        if let Ok(blob) = fs::canonicalize(self.path) {
            let _ = fs::remove_file(blob);
        }
        let _ = fs::remove_file(self.path);
    }

    fn failure(&self, error: ApiError) -> Error {
        let (name, file) = (self.name, self.file);
        let failed = || Error::new(ErrorKind::Io, format!("`{file}` of `{name}` could not be downloaded"));
        match error {
            ApiError::IoError(cause) => {
                let help = "run again to resume the download; if the disk is full, free some space first";
                failed().at_key("pretrained").because(&cause).help(help)
            }
            ApiError::InvalidResume => {
                let help = "delete the `.part` files in this model's folder of the cache, and run again";
                failed().at_key("pretrained").because(&error).help(help)
            }
            other => refusal(name, &self.repo.url(file), other),
        }
    }
}

/// The error for a hub that refuses or does not answer, with what the user can do.
pub(super) fn refusal(name: &HubName, url: &str, error: ApiError) -> Error {
    let at_key =
        |kind, message: String| Error::new(kind, message).at_key("pretrained").because_of(format!("requested {url}"));
    let local = format!("if `{name}` is a local folder: it does not exist");
    let error = match error {
        ApiError::RequestError(error) => *error,
        other => {
            let message = format!("the hub sent an invalid response for `{name}`");
            return at_key(ErrorKind::Io, message)
                .because(&other)
                .help("check that `HF_ENDPOINT` is the address of a hub");
        }
    };
    match error {
        ureq::Error::StatusCode(status @ (401 | 403)) => {
            let message = format!("the hub refuses access to `{name}` (status {status})");
            at_key(ErrorKind::Config, message).help(format!(
                "set `HF_TOKEN` to a token with access, accept the model's terms on the hub if it has any, and check the \
                 name, since a hub may answer like this for a model that does not exist; {local}"
            ))
        }
        ureq::Error::StatusCode(404) => {
            let message = format!("there is no `{name}` on the hub (status 404)");
            at_key(ErrorKind::Config, message).help(format!("check the name and the revision; {local}"))
        }
        ureq::Error::StatusCode(status) => {
            let message = format!("the hub failed to serve `{name}` (status {status})");
            at_key(ErrorKind::Io, message).help("run again later; the cache keeps what has been downloaded")
        }
        ureq::Error::Json(cause) => {
            let message = format!("the hub sent an invalid response for `{name}`");
            at_key(ErrorKind::Io, message).because(&cause).help("check that `HF_ENDPOINT` is the address of a hub")
        }
        other => {
            let message = format!("the hub could not be reached for `{name}`");
            at_key(ErrorKind::Io, message).because(&other).help(format!(
                "check the network, `HF_ENDPOINT` and the proxy variables; without network access, give a folder, or \
                 copy the cache of another machine; {local}"
            ))
        }
    }
}

/// Reports a download: progress to the host, and a line for each tenth of a large file.
struct ProgressReporter<'a> {
    file: &'a str,
    ctx: &'a Context<'a>,
    size: u64,
    done: u64,
    tenths: u64,
}

/// Smaller files, in bytes, get no lines.
const LARGE: u64 = 10_000_000;

impl ProgressReporter<'_> {
    fn take(&mut self, news: News) {
        match news {
            News::Size(size) => return (self.size, self.done) = (size, 0),
            News::Bytes(bytes) => self.done += bytes,
        }
        self.ctx.progress(self.done.min(self.size), self.size);
        let tenths = if self.size < LARGE { 0 } else { self.done * 10 / self.size };
        if tenths > self.tenths {
            self.tenths = tenths;
            let megabytes = self.size as f64 / 1e6;
            self.ctx.info(format_args!("`{}`: {}% of {megabytes:.0} MB", self.file, (tenths * 10).min(100)));
        }
    }
}
