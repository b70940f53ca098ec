//! The experiment: the TOML file and what it says.

pub mod byte_size;
pub mod config;
pub mod document;
