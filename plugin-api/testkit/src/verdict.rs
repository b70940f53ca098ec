//! The result of a conformance check.

use std::fmt;

use plugin_api::{Error, ErrorKind, Place, Result};

/// The results of one component's checks. [`Display`](fmt::Display) prints everything needed to fix it.
#[derive(Clone, Debug)]
#[must_use = "an unused verdict passes every test: call `assert`"]
pub struct Verdict {
    subject: String,
    checks: Vec<Check>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name, such as `same-seed`.
    pub name: &'static str,
    /// How it ended.
    pub outcome: Outcome,
}

/// The outcome of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The component keeps the contract.
    Passed,
    /// The check could not run, or does not apply; with the reason.
    Skipped(String),
    /// The component breaks the contract.
    Failed(Finding),
}

/// What a check found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What the contract requires.
    pub expected: String,
    /// What the component did.
    pub came: String,
    /// What goes wrong in an experiment unless it is fixed.
    pub why: &'static str,
}

impl Verdict {
    pub(crate) fn new(subject: String) -> Self {
        Self { subject, checks: Vec::new() }
    }

    /// All checks, in the order in which they ran.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// Whether nothing failed.
    pub fn passed(&self) -> bool {
        self.failed().next().is_none()
    }

    /// The names of the checks that failed.
    pub fn failed(&self) -> impl Iterator<Item = &'static str> {
        self.checks.iter().filter(|check| matches!(check.outcome, Outcome::Failed(_))).map(|check| check.name)
    }

    /// The check of this name, if it ran.
    pub fn check(&self, name: &str) -> Option<&Check> {
        self.checks.iter().find(|check| check.name == name)
    }

    /// Excuses the component from a check that it fails on purpose. The verdict shows the reason. An excuse for a check
    /// that does not fail is itself a failure, so that no excuse outlives its reason.
    pub fn excuse(mut self, name: &'static str, reason: &str) -> Self {
        let found = self.checks.iter_mut().find(|check| check.name == name);
        match found {
            Some(Check { outcome: outcome @ Outcome::Failed(_), .. }) => {
                *outcome = Outcome::Skipped(format!("excused: {reason}"));
            }
            _ => {
                let came = format!("`{name}` does not fail, and is excused: {reason}");
                let (expected, why) =
                    ("an excuse only for a check that fails".to_owned(), "it would hide a later failure");
                self.checks.push(Check { name, outcome: Outcome::Failed(Finding { expected, came, why }) });
            }
        }
        self
    }

    /// Fails the test with all failed checks, if there are any.
    ///
    /// # Panics
    /// If a check failed.
    #[track_caller]
    pub fn assert(&self) {
        assert!(self.passed(), "{self}");
    }

    /// Runs a check. Returns whether it passed or was skipped.
    pub(crate) fn run(&mut self, name: &'static str, why: &'static str, check: impl FnOnce() -> Found) -> bool {
        let outcome = match check() {
            Ok(()) => Outcome::Passed,
            Err(Trouble::Skipped(reason)) => Outcome::Skipped(reason),
            Err(Trouble::Failed { expected, came }) => Outcome::Failed(Finding { expected, came, why }),
        };
        let fine = !matches!(outcome, Outcome::Failed(_));
        self.checks.push(Check { name, outcome });
        fine
    }

    /// Watches the memory of up to a thousand calls, unless each of them logs too much. This is the last and longest check.
    pub(crate) fn watch(&mut self, check: impl FnOnce() -> Found) {
        if self.failed().any(|name| name == "logging") {
            return self.skip(&["memory"], "too many log lines precede it");
        }
        self.run("memory", "a run of many rounds would run out of memory", check);
    }

    /// Records checks as not run.
    pub(crate) fn skip(&mut self, names: &[&'static str], reason: &str) {
        self.checks.extend(names.iter().map(|name| Check { name, outcome: Outcome::Skipped(reason.to_owned()) }));
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |wanted: fn(&Outcome) -> bool| self.checks.iter().filter(move |check| wanted(&check.outcome));
        let passed = of(|outcome| *outcome == Outcome::Passed);
        let (failed, skipped) =
            (of(|outcome| matches!(outcome, Outcome::Failed(_))), of(|outcome| matches!(outcome, Outcome::Skipped(_))));
        let [p, e, s] = [passed.clone().count(), failed.clone().count(), skipped.clone().count()];
        write!(f, "{}: {p} checks passed, {e} failed, {s} skipped", self.subject)?;
        for Check { name, outcome } in failed {
            if let Outcome::Failed(Finding { expected, came, why }) = outcome {
                let came = came.replace('\n', "\n            ");
                write!(f, "\n\n  `{name}` failed\n  expected: {expected}\n  found:    {came}\n  why:      {why}")?;
            }
        }
        if s > 0 {
            writeln!(f)?;
        }
        for Check { name, outcome } in skipped {
            if let Outcome::Skipped(reason) = outcome {
                write!(f, "\n  `{name}` skipped: {reason}")?;
            }
        }
        let names: Vec<&str> = passed.map(|check| check.name).collect();
        if names.is_empty() { Ok(()) } else { write!(f, "\n\n  passed: {}", names.join(", ")) }
    }
}

/// The result of a check, inside this module.
pub(crate) type Found<T = ()> = Result<T, Trouble>;

/// Why a check did not pass.
#[derive(Debug)]
pub(crate) enum Trouble {
    Failed { expected: String, came: String },
    Skipped(String),
}

/// A call that must succeed failed.
impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        let expected = if *error.kind() == ErrorKind::Panic { "no panic" } else { "no error" };
        Self::Failed { expected: expected.to_owned(), came: told(&error) }
    }
}

pub(crate) fn fail<T>(expected: impl Into<String>, came: impl Into<String>) -> Found<T> {
    Err(Trouble::Failed { expected: expected.into(), came: came.into() })
}

pub(crate) fn skip<T>(reason: impl Into<String>) -> Found<T> {
    Err(Trouble::Skipped(reason.into()))
}

/// Fails if two things that must be the same differ.
pub(crate) fn same(expected: impl Into<String>, difference: Option<String>) -> Found {
    difference.map_or(Ok(()), |came| fail(expected, came))
}

/// The error of a call that must be refused.
pub(crate) fn refused<T>(expected: &str, outcome: Result<T>) -> Found<Error> {
    match outcome {
        Ok(_) => fail(expected, "it was accepted without an error"),
        Err(error) if *error.kind() == ErrorKind::Panic => fail(expected, told(&error)),
        Err(error) => Ok(error),
    }
}

/// The result of a call that may fail, but must not panic.
pub(crate) fn no_panic<T>(expected: &str, outcome: Result<T>) -> Found<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if *error.kind() == ErrorKind::Panic => fail(expected, told(&error)),
        Err(_) => Ok(None),
    }
}

/// Whether an error says which tensor it is about.
pub(crate) fn tells_of(error: &Error, tensor: &str) -> bool {
    let placed = matches!(error.place(), Some(Place::Tensor(name)) if name == tensor);
    placed
        || std::iter::once(error.message())
            .chain(error.causes().iter().map(String::as_str))
            .any(|text| text.contains(tensor))
}

/// An error with its causes, in one line.
pub(crate) fn told(error: &Error) -> String {
    let text = format!("the error `{error}`");
    error.causes().iter().fold(text, |text, cause| format!("{text}, caused by: {cause}"))
}
