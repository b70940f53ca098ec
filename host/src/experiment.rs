//! The experiment: the TOML file and what it says.

pub(crate) mod byte_size;
pub(crate) mod config;
pub(crate) mod document;
pub(crate) mod paths;
