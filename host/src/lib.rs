//! The fedplug host: it knows rounds, clients, devices, files and plugins, and no machine learning.
//!
//! [`config`] reads an experiment, [`plugins`] finds what it names, [`setup`] brings both together and checks all that
//! can be checked, [`federation`] runs the rounds over [`client`]s, [`tracking`] writes what they report, and
//! [`run`] lays out what a run leaves: [`predictions`] are a part of it, and [`predict`] makes more of them with its models.
//! [`new`], [`list`], [`inspect`] and [`schema`] are for those who write plugins and experiments.

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
