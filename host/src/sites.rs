//! Clients at their own sites: what the server and a site say to one another, each side of it, and what a site decides.
//!
//! `protocol` is plain data and `transport` says how it travels; `superlink` is the one that exists. On the server,
//! a `remote_client` stands for each site, and the `agreement` comes before the first round. At a site, the `desk` does
//! what the server asks, with a client in its own process (`site_run`), as far as the `site_file` allows it (`rules`).
//!
//! The other end can be a Python app of Flower's: on the server, a `flower_client` stands for each SuperNode; at a site,
//! `flower_site` takes the orders of a `ServerApp`. Both use the arrays of `flower`.

pub(crate) mod agreement;
pub(crate) mod approvals;
pub(crate) mod computing;
pub(crate) mod desk;
pub(crate) mod exposure;
pub(crate) mod flower;
pub(crate) mod flower_client;
pub(crate) mod flower_site;
mod limits;
pub(crate) mod protocol;
pub(crate) mod refusal;
pub(crate) mod remote_client;
mod report;
pub(crate) mod rules;
mod site_client;
pub(crate) mod site_file;
mod site_run;
pub(crate) mod superlink;
pub(crate) mod transport;
