//! The root module: the few functions that a plugin's library exports.

use abi_stable::StableAbi;
use abi_stable::library::RootModule;
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::{RStr, RString, RVec};

use crate::{AggregatorBox, DatasetBox, FilterBox, ModelBox, WireContext, WireMessage, Wired};

/// The symbol under which a library has 32 plain bytes with the version of plugin-api that it was built with, zeros behind
/// it, whatever else changes.
pub const STAMP_SYMBOL: &str = "fedplug_plugin_api_version";

/// What a plugin's library exports: interface 1.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginV1_Ref)))]
pub struct PluginV1 {
    /// What the plugin says of itself and its components, in JSON.
    pub describe: extern "C" fn() -> Wired<RString>,
    /// What is wrong with a configuration (JSON) for a component: a JSON list.
    pub check: extern "C" fn(kind: RStr<'_>, name: RStr<'_>, config: RStr<'_>) -> Wired<RString>,
    /// The devices that a model finds.
    pub devices: extern "C" fn(name: RStr<'_>) -> Wired<RVec<RString>>,
    /// Makes a model of a configuration and a setup, both JSON.
    pub model:
        extern "C" fn(name: RStr<'_>, config: RStr<'_>, setup: RStr<'_>, ctx: &WireContext<'_>) -> Wired<ModelBox>,
    /// Makes a dataset.
    pub dataset: extern "C" fn(name: RStr<'_>, config: RStr<'_>, ctx: &WireContext<'_>) -> Wired<DatasetBox>,
    /// Makes an aggregator.
    pub aggregator: extern "C" fn(name: RStr<'_>, config: RStr<'_>, ctx: &WireContext<'_>) -> Wired<AggregatorBox>,
    /// Makes a filter.
    pub filter: extern "C" fn(name: RStr<'_>, config: RStr<'_>, ctx: &WireContext<'_>) -> Wired<FilterBox>,
    /// A call to the library, and to no component of it, that interface 1 does not name.
    #[sabi(last_prefix_field)]
    pub extension: extern "C" fn(name: RStr<'_>, input: WireMessage) -> Wired<WireMessage>,
}

impl RootModule for PluginV1_Ref {
    abi_stable::declare_root_module_statics! {PluginV1_Ref}
    const BASE_NAME: &'static str = "fedplug_plugin";
    const NAME: &'static str = "fedplug_plugin";
    // Of the interface, not of this crate: the layout decides, and every interface has its own type.
    const VERSION_STRINGS: VersionStrings = VersionStrings::new("1.0.0");
}
