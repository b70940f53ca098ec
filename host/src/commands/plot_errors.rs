//! User-facing messages for plotting errors.

use fedplug_plot::{Error, Problem};

use crate::error::{CliError, Diagnostic};
use crate::experiment::document::nearest;

/// Converts a plotting error to the error of a command.
pub(crate) fn failure(error: Error) -> CliError {
    let report = Diagnostic::new(error.to_string());
    match error {
        Error::Request(problems) => CliError::usage(problems.into_iter().map(of_problem).collect::<Vec<_>>()),
        Error::NoSuchClient { name, known } => CliError::usage(report.hint(match nearest(&name, &known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("available: {}", known.join(", ")),
        })),
        Error::Io { source, .. } => CliError::run(report.cause(source)),
        Error::Draw { cause, .. } => CliError::run(report.cause(cause)),
    }
}

fn of_problem(Problem { message, cause, hint }: Problem) -> Diagnostic {
    let report = cause.into_iter().fold(Diagnostic::new(message), Diagnostic::cause);
    hint.into_iter().fold(report, Diagnostic::hint)
}
