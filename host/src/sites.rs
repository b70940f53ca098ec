//! Clients at their own sites: what the server and a site say to one another, and each side of it.
//!
//! `protocol` is plain data and `transport` says how it travels. On the server, a `remote_client` stands for each site.
//! At a site, the `desk` does what the server asks, with a client in its own process (`site_run`).

pub(crate) mod agreement;
pub(crate) mod desk;
pub(crate) mod protocol;
pub(crate) mod remote_client;
mod report;
mod site_run;
pub(crate) mod transport;
