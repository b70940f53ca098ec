//! The fedplug host: it knows rounds, clients, devices, files and plugins, and no machine learning.
//!
//! [`config`] reads an experiment, [`plugins`] finds what it names, [`setup`] brings both together and checks all that
//! can be checked, [`federation`] runs the rounds over [`client`]s, [`tracking`] writes what they report, and
//! [`run`] lays out what a run leaves: [`predictions`] are a part of it, and [`predict`] makes more of them with its models.
//! [`new`], [`list`], [`inspect`] and [`schema`] are for those who write plugins and experiments.

#![warn(clippy::print_stderr)] // `error::tell` survives a closed stderr.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod best;
pub mod bytes;
pub mod changes;
pub mod checkpoint;
pub mod chosen;
pub mod cli;
pub mod client;
pub mod compare;
pub mod config;
pub mod console;
pub mod cross_site;
pub mod dialogue;
pub mod document;
pub mod error;
pub mod events;
pub mod federation;
pub mod filters;
pub mod idle;
pub mod inspect;
pub mod keys;
pub mod link;
pub mod list;
pub mod lock;
pub mod means;
pub mod new;
pub mod notes;
pub mod orders;
pub mod participation;
pub mod placement;
pub mod plot;
pub mod plugins;
pub mod predict;
pub mod predictions;
pub mod prepare;
pub mod rehearsal;
pub mod replaced;
pub mod report;
pub mod resume;
pub mod round_state;
pub mod run;
pub mod run_dir;
pub mod schema;
pub mod setup;
pub mod signals;
pub mod stopping;
pub mod summary;
pub mod tensors;
pub mod totals;
pub mod tracking;
pub mod trust;
pub mod workers;
