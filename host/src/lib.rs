//! The fedplug host: it manages rounds, clients, devices, files and plugins, and contains no machine learning.
//!
//! [`config`] reads an experiment, [`plugins`] finds the plugins it names, [`setup`] combines both and checks
//! everything that can be checked, [`federation`] runs the rounds over [`client`]s, [`tracking`] writes what they
//! report, and [`run`] writes the results of a run, including [`predictions`]. [`predict`] makes further predictions
//! with its models. [`new`], [`list`], [`inspect`] and [`schema`] help authors of plugins and experiments.

#![warn(clippy::print_stderr)] // `error::tell` survives a closed stderr.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod artefacts;
pub mod commands;
pub mod error;
pub mod experiment;
pub mod federation;
pub mod plugins;
pub mod setup;
pub mod terminal;
