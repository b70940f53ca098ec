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

/// The length of a vector, which plots need. Without it the program would take the one of glibc 2.35 and not start where
/// glibc is 2.34. In f64 the squares are exact and nothing overflows. As in C, infinity wins over NaN.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[unsafe(no_mangle)]
extern "C" fn hypotf(x: f32, y: f32) -> f32 {
    if x.is_infinite() || y.is_infinite() {
        return f32::INFINITY;
    }
    let (x, y) = (f64::from(x), f64::from(y));
    (x * x + y * y).sqrt() as f32
}
