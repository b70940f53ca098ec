//! The services that the host lends to every call.

use abi_stable::StableAbi;
use abi_stable::sabi_trait;
use abi_stable::sabi_types::RRef;
use abi_stable::std_types::{ROption, RStr, RString};

use crate::{WireMessage, Wired};

/// The host as a plugin sees it during a call.
#[sabi_trait]
pub trait WireHost: Sync {
    /// Whether a line of this level would be shown: 1 error, 2 warn, 3 info, 4 debug, 5 trace.
    fn enabled(&self, level: u8) -> bool;
    /// Logs a line.
    fn log(&self, level: u8, line: RStr<'_>);
    /// Records a number under a tag at a step.
    fn scalar(&self, tag: RStr<'_>, step: u64, value: f64);
    /// Reports progress: `done` of `total`.
    fn progress(&self, done: u64, total: u64);
    /// Stores a sentence for the run's summary.
    fn note(&self, key: RStr<'_>, text: RStr<'_>);
    /// The value of a key, as JSON, if the host knows the key.
    fn property(&self, key: RStr<'_>) -> ROption<RString>;
    /// Whether the call should stop.
    fn cancelled(&self) -> bool;
    /// A call that interface 1 does not define.
    #[sabi(last_prefix_field)]
    fn extension(&self, name: RStr<'_>, input: WireMessage) -> Wired<WireMessage>;
}

/// A borrowed host.
pub type HostRef<'a> = WireHost_TO<'a, RRef<'a, ()>>;

/// The host, and what a call is for: client, round, device, threads and seed.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireContext<'a> {
    pub host: HostRef<'a>,
    pub client: ROption<RStr<'a>>,
    pub round: ROption<u64>,
    pub device: RStr<'a>,
    pub threads: u64,
    pub seed: u64,
}
