//! The terminal: lines, progress, signals.

pub mod console;
pub mod signals;
