//! Clients at their own sites: what a site decides, and what it keeps.

pub(crate) mod approvals;
pub(crate) mod computing;
pub(crate) mod refusal;
pub(crate) mod rules;
pub(crate) mod site_file;
