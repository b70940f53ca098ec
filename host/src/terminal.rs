//! The terminal: lines, progress, signals.

pub mod console;
pub mod crash;
pub mod signals;
