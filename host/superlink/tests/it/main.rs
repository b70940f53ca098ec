//! Calls over a real SuperLink, and what gets lost on the way.
//!
//! `make test` installs flwr; `FEDPLUG_FLOWER=FOLDER` names another one (`pip install --target FOLDER flwr==1.40.0`). The modules: [`calls`] without faults, [`losses`] and [`kills`] with them, [`security`] against others,
//! [`interop`] with Flower's own programs. Tests that take minutes are ignored: `cargo test -p fedplug-superlink -- --ignored
//! --skip process`.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod calls;
mod interop;
mod kills;
mod losses;
mod process;
mod security;
mod superlink;
mod support;

use test_support::proxy;
