//! One file from the hub, whole or not at all, and what to say where it does not come.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use hf_hub::api::Progress;
use hf_hub::api::sync::{ApiError, ApiRepo};
use plugin_api::{Context, Error, ErrorKind, Result};
use sha2::{Digest, Sha256};

use super::HubName;
use crate::weights::is_whole;

/// A file to bring into the cache.
pub(super) struct Download<'a> {
    pub(super) name: &'a HubName,
    /// The commit.
    pub(super) repo: &'a ApiRepo,
    pub(super) file: &'a str,
    /// Where it will stand.
    pub(super) path: &'a Path,
    pub(super) ctx: &'a Context<'a>,
}

impl Download<'_> {
    /// Downloads it unless it is there, from where an earlier attempt broke off.
    pub(super) fn run(&self) -> Result<()> {
        let mut waits = false;
        loop {
            self.ctx.check()?;
            if self.path.exists() {
                if !self.file.ends_with(".safetensors") || is_whole(self.path) {
                    return Ok(());
                }
                self.ctx.warn(format_args!("{} is damaged and is downloaded again", self.path.display()));
                self.remove();
            }
            let mut meter = Meter { file: self.file, ctx: self.ctx, size: 0, done: 0, tenths: 0 };
            match self.repo.download_with_progress(self.file, &mut meter) {
                Ok(_) => return self.verify(meter.size),
                // The lock was asked for during some seconds; whoever holds it may need minutes.
                Err(ApiError::LockAcquisition(_)) if !waits => {
                    waits = true;
                    self.ctx.info(format_args!("`{}` is being downloaded by another process", self.file));
                }
                Err(ApiError::LockAcquisition(_)) => {}
                Err(error) => return Err(self.failure(error)),
            }
        }
    }

    /// Removes what is not as the hub said: by its size, by its SHA-256 where the cache has it under that name, and by
    /// its own header.
    fn verify(&self, size: u64) -> Result<()> {
        let found = fs::metadata(self.path).map_err(|e| Error::io(self.path, &e))?.len();
        let fault = if found != size {
            Some(format!("it has {found} bytes, not {size}"))
        } else if !self.has_its_hash().map_err(|e| Error::io(self.path, &e))? {
            Some("its SHA-256 is not the one that the hub gives".to_owned())
        } else if self.file.ends_with(".safetensors") && !is_whole(self.path) {
            Some("it is no whole safetensors file".to_owned())
        } else {
            None
        };
        match fault {
            None => Ok(()),
            Some(fault) => {
                self.remove();
                let error = Error::data(format!("`{}` of `{}` arrived damaged", self.file, self.name));
                Err(error.at_key("pretrained").because_of(fault).help("it was removed; run again to download it anew"))
            }
        }
    }

    /// Large files lie in the cache under their SHA-256; small ones under a hash that Git makes, and pass.
    fn has_its_hash(&self) -> io::Result<bool> {
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

    /// Takes the file and what it links to out of the cache.
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
                let help = "run again: it goes on from what has arrived; a full disk would have to be cleared first";
                failed().at_key("pretrained").because(&cause).help(help)
            }
            ApiError::InvalidResume => {
                let help = "delete the files that end in `.part` in the cache's folder of this model, and run again";
                failed().at_key("pretrained").because(&error).help(help)
            }
            other => refusal(name, &self.repo.url(file), other),
        }
    }
}

/// What a hub that does not answer, or answers no, means for the user.
pub(super) fn refusal(name: &HubName, url: &str, error: ApiError) -> Error {
    let at_key =
        |kind, message: String| Error::new(kind, message).at_key("pretrained").because_of(format!("asked {url}"));
    let local = format!("if `{name}` is meant to be a folder: there is none of this name here");
    let error = match error {
        ApiError::RequestError(error) => *error,
        other => {
            let message = format!("the hub's answer about `{name}` makes no sense");
            return at_key(ErrorKind::Io, message).because(&other).help("does `HF_ENDPOINT` name a hub?");
        }
    };
    match error {
        ureq::Error::StatusCode(status @ (401 | 403)) => {
            let message = format!("the hub gives no access to `{name}` (status {status})");
            at_key(ErrorKind::Config, message).help(format!(
                "set `HF_TOKEN` to a token that may read it, accept its terms on the hub if it has some, and check the \
                 name, since a hub may answer so where there is nothing; {local}"
            ))
        }
        ureq::Error::StatusCode(404) => {
            let message = format!("there is no `{name}` on the hub (status 404)");
            at_key(ErrorKind::Config, message).help(format!("check the name and the revision; {local}"))
        }
        ureq::Error::StatusCode(status) => {
            let message = format!("the hub failed to give `{name}` (status {status})");
            at_key(ErrorKind::Io, message).help("run again later: what has arrived stays in the cache")
        }
        ureq::Error::Json(cause) => {
            let message = format!("the hub's answer about `{name}` makes no sense");
            at_key(ErrorKind::Io, message).because(&cause).help("does `HF_ENDPOINT` name a hub?")
        }
        other => {
            let message = format!("the hub could not be reached for `{name}`");
            at_key(ErrorKind::Io, message).because(&other).help(format!(
                "check the network, `HF_ENDPOINT` and the proxy variables; without a network, give a folder, or copy \
                 the cache of a machine that has one; {local}"
            ))
        }
    }
}

/// Tells how far a download has come: the host's progress at every piece, a line at every tenth of a large file.
struct Meter<'a> {
    file: &'a str,
    ctx: &'a Context<'a>,
    size: u64,
    done: u64,
    tenths: u64,
}

/// Below this many bytes a file gets no lines.
const LARGE: u64 = 10_000_000;

impl Progress for &mut Meter<'_> {
    fn init(&mut self, size: usize, _: &str) {
        (self.size, self.done) = (size as u64, 0);
    }

    fn update(&mut self, bytes: usize) {
        self.done += bytes as u64;
        self.ctx.progress(self.done.min(self.size), self.size);
        let tenths = if self.size < LARGE { 0 } else { self.done * 10 / self.size };
        if tenths > self.tenths {
            self.tenths = tenths;
            let megabytes = self.size as f64 / 1e6;
            self.ctx.info(format_args!("`{}`: {}% of {megabytes:.0} MB", self.file, (tenths * 10).min(100)));
        }
    }

    fn finish(&mut self) {}
}
