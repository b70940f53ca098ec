//! `fedplug completions` and `fedplug man`: the command line, told to shells and to readers of manuals.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};

use super::Cli;
use crate::error::CliError;

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

impl Completions {
    /// The script for the shell.
    pub(super) fn execute(&self) -> String {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "fedplug", &mut script);
        String::from_utf8_lossy(&script).into_owned()
    }
}

#[derive(Debug, Args)]
pub(super) struct Man {
    /// The folder
    folder: PathBuf,
}

impl Man {
    /// Writes a page for each command, and returns their paths.
    ///
    /// # Errors
    /// If one cannot be written.
    pub(super) fn execute(&self) -> Result<Vec<PathBuf>, CliError> {
        let mut command = Cli::command();
        // Fills in what the commands have in common, and their full names.
        command.build();
        let mut pages = Vec::new();
        self.write(&command, &mut pages)?;
        Ok(pages)
    }

    fn write(&self, command: &clap::Command, pages: &mut Vec<PathBuf>) -> Result<(), CliError> {
        let shown = |inner: &&clap::Command| !inner.is_hide_set() && inner.get_name() != "help";
        command.get_subcommands().filter(shown).try_for_each(|inner| self.write(inner, pages))?;
        let page = clap_mangen::Man::new(command.clone());
        let path = self.folder.join(page.get_filename());
        let failed = |e| CliError::io(&path, "write the manual page", &e);
        let mut file = std::fs::File::create(&path).map_err(failed)?;
        page.render(&mut file).map_err(failed)?;
        pages.push(path);
        Ok(())
    }
}
