//! The federation: clients, rounds, queries to clients, aggregation, and the state a run keeps.

pub mod absent;
pub mod best_models;
pub mod checkpoint_entries;
pub mod clear;
pub mod client;
pub mod cross_site;
pub mod early_stopping;
pub mod evaluation;
pub mod exchange;
pub mod filters;
pub mod history;
pub mod local_client;
pub mod means;
pub mod model_store;
pub mod notes;
pub mod ordered_pool;
pub mod orders;
pub mod predictions;
pub mod resume;
pub mod rounds;
pub mod sampling;
pub mod services;
pub mod summary;
pub mod totals;
pub mod trace;
pub mod usage;
