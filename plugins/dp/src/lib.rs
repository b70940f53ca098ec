//! Differential privacy: accountants and exact samplers.
//!
//! This is an ordinary library, not a plugin. Plugins whose mechanisms add noise link to it; it does not depend on any
//! of them, and none of its types cross the boundary to the host.
//!
//! - [`epsilon`] bounds the epsilon of rounds of the Gaussian mechanism, Poisson-sampled or not.
//! - [`DiscreteGaussian`] is noise on the integers, sampled exactly.
//! - [`audit`] measures a lower bound of epsilon.
//! - [`renyi`] has the Rényi divergences behind such bounds, for your own mechanisms.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod accountant;
pub mod audit;
pub mod discrete;

pub use accountant::{Rounds, epsilon, gaussian_epsilon, renyi};
pub use discrete::DiscreteGaussian;
