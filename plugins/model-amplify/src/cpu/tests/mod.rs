//! The encoder as a whole.

mod derivative;
#[cfg(not(miri))]
mod libtorch;
