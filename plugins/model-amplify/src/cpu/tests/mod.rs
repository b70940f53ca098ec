//! The encoder as a whole.

mod derivative;
mod libtorch;
