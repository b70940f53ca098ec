//! A host that records what a component reports.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use plugin_api::Level;
use plugin_api::context::Host;

/// Records warnings, errors and notes in order of arrival; a note as `note KEY: TEXT`.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<Vec<String>>);

impl Recorder {
    /// The recorded lines.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The recorded lines, with paths below this folder made relative to it.
    pub fn lines_below(&self, folder: &Path) -> Vec<String> {
        self.lines().iter().map(|line| line.replace(&format!("{}/", folder.display()), "")).collect()
    }

    fn push(&self, line: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

impl Host for Recorder {
    fn enabled(&self, level: Level) -> bool {
        level <= Level::Warn
    }
    fn log(&self, _: Level, line: &str) {
        self.push(line.to_owned());
    }
    fn scalar(&self, _: &str, _: u64, _: f64) {}
    fn progress(&self, _: u64, _: u64) {}
    fn note(&self, key: &str, text: &str) {
        self.push(format!("note {key}: {text}"));
    }
    fn cancelled(&self) -> bool {
        false
    }
}
