//! The fedplug host: it manages rounds, clients, devices, files and plugins, and contains no machine learning.
//!
//! Its rooms, from top to bottom. None imports one above it.
//!
//! | room | what it holds |
//! |---|---|
//! | `commands` | the command line, a file for each command |
//! | `sites` | clients at their own sites: both sides of what crosses |
//! | `setup` | an experiment and its plugins, combined, checked, and rehearsed |
//! | `federation` | the rounds, the clients, the exchange with them, and what a run keeps |
//! | `plugins` | finding, opening, describing and validating plugins |
//! | `artefacts` | the files of a run |
//! | `experiment` | the TOML file, and what it says |
//! | `terminal`, `error` | log lines, progress, signals, last words; errors and exit codes |

#![warn(clippy::print_stderr)] // `error::write_stderr` survives a closed stderr.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod artefacts;
mod commands;
mod error;
mod experiment;
mod federation;
#[cfg(test)]
mod fuzz;
mod plugins;
mod setup;
mod sites;
mod terminal;

pub use commands::{Cli, execute};
pub use error::{CliError, Exit};
pub use terminal::crash;

/// What the benchmarks and the tests of the documentation reach into. Not an interface: it changes without notice.
#[doc(hidden)]
pub mod internals {
    use std::path::Path;

    pub use crate::artefacts::journal::NONE;
    pub use crate::artefacts::safetensors;
    pub use crate::artefacts::tracking::{Reporter, Tracker};
    pub use crate::experiment::config::{Draft, Terms};
    pub use crate::federation::filters::FilterChain;
    pub use crate::federation::notes::Notes;
    pub use crate::federation::services::{CallScope, ClientRef, HostServices};
    pub use crate::terminal::console::Console;

    /// Reads a site's file.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check_site_file(text: &str) -> Result<(), crate::CliError> {
        crate::sites::site_file::SiteFile::parse("site.toml", text, Path::new("/")).map(drop)
    }
}
