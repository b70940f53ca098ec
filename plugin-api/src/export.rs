//! `export_plugin!`: the one line that makes a library a plugin.

/// Exports these [`Component`](crate::Component)s from the library, which makes it a fedplug plugin.
///
/// ```no_run
/// # use plugin_api::{Component, Context, Filter, Message, Result};
/// # #[derive(serde::Deserialize, plugin_api::JsonSchema)]
/// # struct Config {}
/// # struct Pass;
/// # impl Pass { fn new(_: Config, _: &Context<'_>) -> Result<Self> { Ok(Self) } }
/// # impl Filter for Pass { fn apply(&mut self, m: Message, _: &Message, _: &Context<'_>) -> Result<Message> { Ok(m) } }
/// plugin_api::export_plugin!(Component::filter("pass", "Changes nothing", Pass::new));
/// # fn main() {}
/// ```
///
/// A panic in a plugin becomes an error of the call, so a plugin must be built with unwinding. It does not compile with
/// `panic = "abort"` in its profile.
#[macro_export]
macro_rules! export_plugin {
    ($($component:expr),+ $(,)?) => {
        #[cfg(panic = "abort")]
        ::std::compile_error!(
            "a plugin cannot be built with `panic = \"abort\"`: the host could not survive its panics; remove that line \
             from the profile in the workspace's Cargo.toml, or `-C panic=abort` from RUSTFLAGS"
        );

        const _: () = {
            fn __fedplug_plugin() -> &'static $crate::Plugin {
                static PLUGIN: ::std::sync::LazyLock<$crate::Plugin> = ::std::sync::LazyLock::new(|| $crate::Plugin {
                    about: $crate::component::About {
                        package: env!("CARGO_PKG_NAME").to_owned(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                        authors: env!("CARGO_PKG_AUTHORS").to_owned(),
                        license: env!("CARGO_PKG_LICENSE").to_owned(),
                        interface: $crate::boundary::root::INTERFACE.to_owned(),
                        build: $crate::export::build(cfg!(debug_assertions)),
                    },
                    components: ::std::vec![$($component),+],
                });
                &PLUGIN
            }

            // A separate scope, so that these names do not shadow any that the component expressions use.
            const _: () = {
                use $crate::boundary::fedplug_abi as abi;
                use $crate::boundary::fedplug_abi::abi_stable::library as abi_library;
                use $crate::boundary::fedplug_abi::abi_stable::std_types::{RStr, RString, RVec};
                use $crate::boundary::fedplug_abi::{WireContext, Wired};
                use $crate::boundary::root;

                extern "C" fn describe() -> Wired<RString> {
                    root::describe(__fedplug_plugin)
                }
                extern "C" fn check(kind: RStr<'_>, name: RStr<'_>, config: RStr<'_>) -> Wired<RString> {
                    root::check(__fedplug_plugin, kind, name, config)
                }
                extern "C" fn devices(name: RStr<'_>) -> Wired<RVec<RString>> {
                    root::devices(__fedplug_plugin, name)
                }
                extern "C" fn model(
                    name: RStr<'_>,
                    config: RStr<'_>,
                    setup: RStr<'_>,
                    ctx: &WireContext<'_>,
                ) -> Wired<abi::ModelBox> {
                    root::new_model(__fedplug_plugin, name, config, setup, ctx)
                }
                extern "C" fn dataset(
                    name: RStr<'_>,
                    config: RStr<'_>,
                    ctx: &WireContext<'_>,
                ) -> Wired<abi::DatasetBox> {
                    root::new_dataset(__fedplug_plugin, name, config, ctx)
                }
                extern "C" fn aggregator(
                    name: RStr<'_>,
                    config: RStr<'_>,
                    ctx: &WireContext<'_>,
                ) -> Wired<abi::AggregatorBox> {
                    root::new_aggregator(__fedplug_plugin, name, config, ctx)
                }
                extern "C" fn filter(
                    name: RStr<'_>,
                    config: RStr<'_>,
                    ctx: &WireContext<'_>,
                ) -> Wired<abi::FilterBox> {
                    root::new_filter(__fedplug_plugin, name, config, ctx)
                }
                extern "C" fn extension(name: RStr<'_>, input: abi::WireMessage) -> Wired<abi::WireMessage> {
                    root::extension(__fedplug_plugin, name, input)
                }
                fn module() -> abi::PluginV1_Ref {
                    use abi::abi_stable::prefix_type::PrefixTypeTrait as _;
                    abi::PluginV1 { describe, check, devices, model, dataset, aggregator, filter, extension }
                        .leak_into_prefix()
                }
                extern "C" fn erased() -> abi_library::RootModuleResult {
                    abi_library::__call_root_module_loader(module)
                }

                // SAFETY: the name is specific to this project, and the static contains no pointers.
                #[unsafe(export_name = "fedplug_plugin_api_version")]
                static STAMP: [u8; 32] = root::STAMP;

                // What `#[export_root_module]` would generate, with paths that do not require the plugin to depend on
                // abi_stable.
                // SAFETY: abi_stable reserves the name for exactly this static, and `erased` returns the module of this
                // type.
                #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
                static HEADER: abi_library::LibHeader = unsafe {
                    abi_library::LibHeader::from_constructor::<abi::PluginV1_Ref>(
                        erased,
                        abi_library::CheckTypeLayout::Yes,
                    )
                };
            };
        };
    };
}

/// How the plugin was built, for [`About::build`](crate::component::About::build).
#[doc(hidden)]
pub fn build(debug: bool) -> String {
    let profile = if debug { "debug" } else { "release" };
    format!("{profile}, {}-{}", std::env::consts::ARCH, std::env::consts::OS)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_symbols_have_the_names_that_a_host_looks_for() {
        let name = fedplug_abi::abi_stable::library::ROOT_MODULE_LOADER_NAME;
        for name in [name, crate::boundary::root::STAMP_SYMBOL] {
            assert!(include_str!("export.rs").contains(&format!("export_name = \"{name}\"")), "{name}");
        }
    }
}
