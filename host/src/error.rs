//! Errors as the user reads them, and exit codes.
//!
//! An `error:` line, lowercase and without a final period, starts with the file or component it is about. An excerpt of the
//! file, the causes and `hint:` lines follow.

use std::fmt::{Display, Write as _};
use std::io::{IsTerminal as _, Write as _};
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Arc;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// How many diagnostics are printed at most.
const SHOWN: usize = 100;

/// The exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Success = 0,
    /// The run failed.
    Failure = 1,
    /// The command or the file is wrong.
    Usage = 2,
    /// The run was asked to stop and can be resumed.
    Stopped = 130,
    /// The reader of stdout closed it: the code that a shell reports for SIGPIPE.
    ClosedPipe = 141,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An excerpt of a text file in a [`Diagnostic`].
#[derive(Clone, Debug)]
pub struct Excerpt {
    /// The file, as the user named it.
    pub path: String,
    /// Its whole text.
    pub text: Arc<str>,
    /// The line in which the span starts, from 1.
    pub line: usize,
    /// The bytes to point at.
    pub span: Range<usize>,
}

/// One thing that went wrong.
#[derive(Clone, Debug, Default)]
pub struct Diagnostic {
    message: String,
    excerpt: Option<Box<Excerpt>>,
    causes: Vec<String>,
    hints: Vec<String>,
}

impl Diagnostic {
    /// A diagnostic that is one line so far.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    /// Adds an excerpt of a file.
    #[must_use]
    pub fn excerpt(mut self, excerpt: Option<Excerpt>) -> Self {
        self.excerpt = excerpt.map(Box::new);
        self
    }

    /// Adds a cause.
    #[must_use]
    pub fn cause(mut self, cause: impl ToString) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    /// Adds what the user can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Prefixes the message with where it happened.
    #[must_use]
    pub fn within(mut self, context: &str) -> Self {
        if !context.is_empty() {
            self.message = format!("{context}: {}", self.message);
        }
        self
    }

    /// Appends the causes and hints of another diagnostic.
    #[must_use]
    pub fn with_details_of(mut self, other: Self) -> Self {
        self.causes.extend(other.causes);
        self.hints.extend(other.hints);
        self
    }

    /// The message without causes and hints.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Message, causes and hints in one line, for a table.
    pub fn line(&self) -> String {
        let parts = [&self.message].into_iter().chain(&self.causes).map(|part| part.trim().replace('\n', " "));
        let parts: Vec<String> = parts.collect();
        self.hints.iter().fold(parts.join(": "), |line, hint| format!("{line}; {hint}"))
    }

    fn render(&self, renderer: &Renderer) -> String {
        let mut text = match self.excerpt.as_deref() {
            None => renderer.render(&[Group::with_title(Level::ERROR.primary_title(&self.message))]),
            Some(Excerpt { path, text, line, span }) => {
                // Only the lines of the span: the renderer walks through everything it is given.
                let begin = text[..span.start].rfind('\n').map_or(0, |at| at + 1);
                let end = text[span.end..].find('\n').map_or(text.len(), |at| span.end + at);
                let span = span.start - begin..span.end - begin;
                let snippet = Snippet::source(&text[begin..end])
                    .line_start(*line)
                    .path(path)
                    .annotation(AnnotationKind::Primary.span(span));
                renderer.render(&[Level::ERROR.primary_title(&self.message).element(snippet)])
            }
        };
        for cause in &self.causes {
            let _ = write!(text, "\n  caused by: {}", cause.replace('\n', "\n    "));
        }
        for hint in &self.hints {
            let _ = write!(text, "\nhint: {hint}");
        }
        text
    }
}

impl From<plugin_api::Error> for Diagnostic {
    fn from(error: plugin_api::Error) -> Self {
        let report = Self { causes: error.causes().to_vec(), ..Self::new(error.to_string()) };
        match error.hint() {
            Some(hint) => report.hint(hint),
            None => report,
        }
    }
}

/// Why a command failed: everything known to be wrong, and the exit code.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", self.to_text(false))]
pub struct CliError {
    exit: Exit,
    /// Whether the host could not read or write: a run may be resumed once the disk is in order.
    of_host: bool,
    reports: Vec<Diagnostic>,
}

impl CliError {
    /// The command or the file is wrong.
    pub fn usage(reports: impl Into<Vec<Diagnostic>>) -> Self {
        Self { exit: Exit::Usage, of_host: false, reports: reports.into() }
    }

    /// The run failed.
    pub fn run(report: impl Into<Diagnostic>) -> Self {
        Self { exit: Exit::Failure, of_host: false, reports: vec![report.into()] }
    }

    /// The run was asked to stop.
    pub fn stopped(report: Diagnostic) -> Self {
        Self { exit: Exit::Stopped, of_host: false, reports: vec![report] }
    }

    /// Adds a last hint.
    #[must_use]
    pub fn hint(mut self, hint: &str) -> Self {
        if let Some(report) = self.reports.pop() {
            self.reports.push(report.hint(hint));
        }
        self
    }

    /// A file or folder that the run needs cannot be read or written.
    pub fn io(path: &std::path::Path, doing: &str, cause: &std::io::Error) -> Self {
        Self::of_host(Diagnostic::new(format!("{}: cannot {doing}", path.display())).cause(cause))
    }

    /// The host could not read or write.
    pub(crate) fn of_host(report: Diagnostic) -> Self {
        Self { of_host: true, ..Self::run(report) }
    }

    /// Whether the host could not read or write. No component is to blame, and the run is not over.
    pub(crate) fn is_of_host(&self) -> bool {
        self.of_host
    }

    /// The reader of stdout closed it. That is no error, so nothing is printed.
    pub fn closed_pipe() -> Self {
        Self { exit: Exit::ClosedPipe, of_host: false, reports: Vec::new() }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The first error, with all others as its causes.
    pub(crate) fn into_report(self) -> Diagnostic {
        let mut reports = self.reports.into_iter();
        let first = reports.next().unwrap_or_else(|| Diagnostic::new("failed"));
        reports.fold(first, |first, other| first.cause(other.line()))
    }

    /// Everything known to be wrong.
    pub fn reports(&self) -> &[Diagnostic] {
        &self.reports
    }

    /// The text that is printed.
    pub fn to_text(&self, colours: bool) -> String {
        let renderer = if colours { Renderer::styled() } else { Renderer::plain() }.decor_style(DecorStyle::Ascii);
        let mut texts: Vec<String> = self.reports.iter().take(SHOWN).map(|report| report.render(&renderer)).collect();
        if self.reports.len() > SHOWN {
            texts.push(
                Diagnostic::new(format!("{} more errors are not shown", self.reports.len() - SHOWN)).render(&renderer),
            );
        }
        texts.join("\n\n")
    }

    /// Prints it to stderr, in colour on a terminal unless `NO_COLOR` is set.
    pub fn print(&self) {
        if self.reports.is_empty() {
            return;
        }
        let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        write_stderr(self.to_text(colours));
    }
}

/// Prints a line to stderr. A closed or full stderr is ignored, where `eprintln!` would panic.
pub(crate) fn write_stderr(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

impl From<Diagnostic> for Vec<Diagnostic> {
    fn from(report: Diagnostic) -> Self {
        vec![report]
    }
}
