//! The bundle that a run is started with.

use std::io::{Cursor, Write as _};

use sha2::{Digest as _, Sha256};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::error::Error;
use crate::hex;

/// Raised by whoever unpacks and runs the bundle. The run then ends with this sentence.
const EXPLANATION: &str = "raise ImportError(\"this run is served by a process of its own: start flower-superlink with --isolation process\")\n";

/// A bundle (FAB) that holds no more than the SuperLink asks for. A random number makes its hash this run's own, so that
/// no other server gets its task.
pub(crate) fn make(title: &str) -> Result<Vec<u8>, Error> {
    let name: String =
        title.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let name = name.trim_matches('-');
    let name = if name.is_empty() { "experiment" } else { &name[..name.len().min(60)] };
    let project = format!(
        "[project]\nname = \"{name}\"\nversion = \"{version}\"\n\n[tool.flwr.app]\npublisher = \"fedplug\"\n\n\
         [tool.flwr.app.components]\nserverapp = \"served_elsewhere:app\"\nclientapp = \"served_elsewhere:app\"\n\n\
         [tool.flwr.app.config]\nrun = \"{random}\"\n",
        version = env!("CARGO_PKG_VERSION"),
        random = hex::random()?,
    );
    let files = [("pyproject.toml", project.as_str()), ("served_elsewhere.py", EXPLANATION)];
    let list = files.map(|(path, text)| format!("{path},{},{}", hex::encode(&Sha256::digest(text)), text.len() * 8));
    let list = list.join("\n");
    let write = || {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for (path, text) in files.into_iter().chain([(".info/CONTENT", list.as_str())]) {
            zip.start_file(path, options)?;
            zip.write_all(text.as_bytes())?;
        }
        zip.finish()
    };
    let cursor = write().map_err(|error| Error::protocol("bundle", error.to_string()))?;
    Ok(cursor.into_inner())
}
