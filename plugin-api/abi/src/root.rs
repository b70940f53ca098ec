//! The root module: the few functions that a plugin's library exports.

use abi_stable::StableAbi;
use abi_stable::library::RootModule;
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::{RStr, RString, RVec};

use crate::{AggregatorBox, DatasetBox, FilterBox, ModelBox, WireContext, WireMessage, Wired};

/// The symbol of 32 plain bytes that hold the version of plugin-api a library was built with, padded with zeros. It
/// never changes, whatever else does.
pub const STAMP_SYMBOL: &str = "fedplug_plugin_api_version";

/// The root module that a plugin's library exports: interface 1.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginV1_Ref)))]
pub struct PluginV1 {
    /// Describes the plugin and its components, in JSON.
    pub describe: extern "C" fn() -> Wired<RString>,
    /// Checks a component's configuration (JSON). Returns a JSON list of problems.
    pub check: extern "C" fn(kind: RStr<'_>, name: RStr<'_>, config: RStr<'_>) -> Wired<RString>,
    /// The devices that a model finds.
    pub devices: extern "C" fn(name: RStr<'_>) -> Wired<RVec<RString>>,
    /// Creates a model from a configuration and a setup, both JSON.
    pub model:
        extern "C" fn(name: RStr<'_>, config: RStr<'_>, setup: RStr<'_>, ctx: &WireContext<'_>) -> Wired<ModelBox>,
    /// Creates a dataset.
    pub dataset: extern "C" fn(name: RStr<'_>, config: RStr<'_>, ctx: &WireContext<'_>) -> Wired<DatasetBox>,
    /// Creates an aggregator.
    pub aggregator: extern "C" fn(name: RStr<'_>, config: RStr<'_>, ctx: &WireContext<'_>) -> Wired<AggregatorBox>,
    /// Creates a filter.
    pub filter: extern "C" fn(name: RStr<'_>, config: RStr<'_>, ctx: &WireContext<'_>) -> Wired<FilterBox>,
    /// A call to the library itself, not to a component, that interface 1 does not define.
    #[sabi(last_prefix_field)]
    pub extension: extern "C" fn(name: RStr<'_>, input: WireMessage) -> Wired<WireMessage>,
}

impl RootModule for PluginV1_Ref {
    abi_stable::declare_root_module_statics! {PluginV1_Ref}
    const BASE_NAME: &'static str = "fedplug_plugin";
    const NAME: &'static str = "fedplug_plugin";
    // The version of the interface, not of this crate. Compatibility depends on the layout, and every interface has its
    // own type.
    const VERSION_STRINGS: VersionStrings = VersionStrings::new("1.0.0");
}
