//! The terminal: lines, progress, signals.

pub(crate) mod console;
pub mod crash;
pub(crate) mod signals;
pub(crate) mod stdout;
