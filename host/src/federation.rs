//! The federation: clients, rounds, queries to clients, aggregation, and the state a run keeps.

pub(crate) mod absent;
pub(crate) mod best_models;
pub(crate) mod checkpoint_entries;
pub(crate) mod clear;
pub(crate) mod client;
pub(crate) mod cross_site;
pub(crate) mod early_stopping;
pub(crate) mod evaluation;
pub(crate) mod exchange;
pub(crate) mod filters;
pub(crate) mod history;
pub(crate) mod local_client;
pub(crate) mod means;
pub(crate) mod model_store;
pub(crate) mod notes;
pub(crate) mod ordered_pool;
pub(crate) mod orders;
pub(crate) mod predictions;
pub(crate) mod resume;
pub(crate) mod rounds;
pub(crate) mod sampling;
pub(crate) mod services;
pub(crate) mod summary;
pub(crate) mod totals;
pub(crate) mod trace;
pub(crate) mod usage;
