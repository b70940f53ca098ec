//! The built binary and real shared libraries, driven as a user drives them.
//!
//! - `support`: builds the plugins once, makes folders, runs the binary.
//! - `runs`: what a run leaves, and that it is the same each time.
//! - `resume`: interrupted runs go on with the same bits, and are what they were; one process a directory.
//! - `control`: which clients take part, when a run stops, what crosses, and every model on every client's data.
//! - `participation`: draws of clients, and what stays of those that are absent.
//! - `judges`: by which clients models are compared, and runs without reports.
//! - `secure`: secure aggregation, and clients that are lost in it.
//! - `privacy`: what leaves a client passes its filters, is counted, and is named where nothing protects it.
//! - `central`: noise at the server, its account, and clients that are absent by chance.
//! - `best`: which models are the best, and that numbers of different units are not mixed.
//! - `bounds`: what a schema says of a plugin's keys holds, and what `--set` says to write.
//! - `faults`: what a person reads when a file, a plugin, data or a client is at fault.
//! - `rehearsal`: what does not go together is found before training.
//! - `interfaces`: plugins of this interface in a later host, and the other way round.
//! - `authoring`: what `plugin new` writes builds, passes its tests and runs.
//! - `search`: where plugins are looked for, which of several is used, and what `plugin list` says of it.
//! - `schema`: what plugins tell of their configuration, to people and to a JSON Schema validator.
//! - `containment`: what plugins that misbehave can do to a run, and what they cannot.
//! - `streams`: stdout and stderr that are closed, full, or that nobody reads any more.
//! - `plots`: pictures of curves, prepared data and the clients' sizes.
//! - `splits`: what a person is told of rows that make scores mean less than they seem to.
//! - `predictions`: rows in, predictions out.
//! - `data`: files as people bring them.
//! - `docs`: every command, file and link of the documentation.
//! - `readers`: other programs read what a run leaves.
//! - `algorithms`: every experiment of `configs/algorithms`.
//! - `amplify`: the main job with the AMPLIFY model: the sample and the real data.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod algorithms;
mod amplify;
mod authoring;
mod best;
mod bounds;
mod central;
mod containment;
mod control;
mod data;
mod docs;
mod faults;
mod interfaces;
mod judges;
mod participation;
mod plots;
mod predictions;
mod privacy;
mod promise;
mod readers;
mod rehearsal;
mod resume;
mod runs;
mod schema;
mod search;
mod secure;
mod splits;
mod streams;
mod support;
