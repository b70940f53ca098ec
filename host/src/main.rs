//! The binary `fedplug`: arguments in, an exit code out.

use std::process::ExitCode;

use clap::Parser as _;
use fedplug::{Cli, Exit, crash, execute};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers and go to stdout with code 0; the rest is a wrong command.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Success }.into();
        }
    };
    let exit = match crash::watch().and_then(|_watch| execute(cli)) {
        Ok(()) => Exit::Success,
        Err(error) => {
            error.print();
            error.exit()
        }
    };
    crash::finished();
    exit.into()
}
