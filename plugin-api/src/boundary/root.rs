//! The root module: the few functions that a plugin's library exports, and their conversion back to a [`Plugin`].

use std::path::Path;
use std::sync::Arc;

use fedplug_abi::library::{LibraryError, lib_header_from_path};
use fedplug_abi::{
    AggregatorBox, DatasetBox, FilterBox, ModelBox, PluginV1_Ref, RStr, RString, RVec, WireContext, WireMessage, Wired,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::context::{borrow, lend};
use super::wire::*;
use super::{aggregator, dataset, filter, guard, logger, model};
use crate::component::{About, Maker, Profile, SchemaFor};
use crate::{Component, Context, Error, Kind, Message, ModelSetup, Plugin, Result};

/// The result of [`describe`].
#[derive(Serialize, Deserialize)]
struct Described {
    about: About,
    components: Vec<Profile>,
    /// Panics on this thread while instances were dropped, since the last call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    mishaps: Vec<String>,
}

/// The version of this crate that a plugin is built with.
pub const INTERFACE: &str = env!("CARGO_PKG_VERSION");

pub use fedplug_abi::STAMP_SYMBOL;

/// [`INTERFACE`] as plain bytes, padded with zeros. Readable without knowing the interface.
pub const STAMP: [u8; 32] = {
    let (mut stamp, version) = ([0; 32], INTERFACE.as_bytes());
    let mut i = 0;
    while i < version.len() {
        stamp[i] = version[i];
        i += 1;
    }
    stamp
};

// ---- the plugin's side: `export_plugin!` builds functions from these ----------------------------------------------

/// How the exported functions reach the plugin. A function, so that the first call creates the plugin inside the guard.
pub type Source = fn() -> &'static Plugin;

pub fn describe(plugin: Source) -> Wired<RString> {
    guard::install_hook();
    logger::install();
    guard::answer("describe", || {
        let plugin = plugin();
        let components = plugin.components.iter().map(|c| c.profile.clone()).collect();
        Ok(to_json(&Described { about: plugin.about.clone(), components, mishaps: guard::mishaps() }))
    })
}

pub fn check(plugin: Source, kind: RStr<'_>, name: RStr<'_>, config: RStr<'_>) -> Wired<RString> {
    guard::answer("check", || {
        let kind: Kind = serde_json::from_value(kind.as_str().into()).map_err(|e| unreadable(&e))?;
        // Checks against the struct alone; the caller checks the schema.
        Ok(to_json(&(find(plugin, kind, name)?.check)(&parsed(config)?)?))
    })
}

pub fn devices(plugin: Source, name: RStr<'_>) -> Wired<RVec<RString>> {
    guard::answer("devices", || Ok(export_strings(find(plugin, Kind::Model, name)?.devices()?)))
}

pub fn new_model(
    plugin: Source,
    name: RStr<'_>,
    config: RStr<'_>,
    setup: RStr<'_>,
    ctx: &WireContext<'_>,
) -> Wired<ModelBox> {
    guard::answer("new", || {
        let setup: ModelSetup = from_json(setup.as_str())?;
        let component = find(plugin, Kind::Model, name)?;
        Ok(model::export(borrow(ctx, |ctx| component.new_model(&parsed(config)?, &setup, ctx))?))
    })
}

pub fn new_dataset(plugin: Source, name: RStr<'_>, config: RStr<'_>, ctx: &WireContext<'_>) -> Wired<DatasetBox> {
    guard::answer("new", || {
        let component = find(plugin, Kind::Dataset, name)?;
        Ok(dataset::export(borrow(ctx, |ctx| component.new_dataset(&parsed(config)?, ctx))?))
    })
}

pub fn new_aggregator(plugin: Source, name: RStr<'_>, config: RStr<'_>, ctx: &WireContext<'_>) -> Wired<AggregatorBox> {
    guard::answer("new", || {
        let component = find(plugin, Kind::Aggregator, name)?;
        Ok(aggregator::export(borrow(ctx, |ctx| component.new_aggregator(&parsed(config)?, ctx))?))
    })
}

pub fn new_filter(plugin: Source, name: RStr<'_>, config: RStr<'_>, ctx: &WireContext<'_>) -> Wired<FilterBox> {
    guard::answer("new", || {
        let component = find(plugin, Kind::Filter, name)?;
        Ok(filter::export(borrow(ctx, |ctx| component.new_filter(&parsed(config)?, ctx))?))
    })
}

/// A call of this name to the library itself. `schema` returns a component's schema for its configuration.
pub fn extension(plugin: Source, name: RStr<'_>, input: WireMessage) -> Wired<WireMessage> {
    guard::answer("extension", || {
        if name.as_str() != SCHEMA {
            return Err(Error::unsupported(format!("this plugin does not know the extension `{name}`")));
        }
        let asked = import_message(input)?.values;
        let text = |key: &str| asked.get(key).and_then(Value::as_str).unwrap_or_default();
        let kind: Kind = serde_json::from_value(text("kind").into()).map_err(|e| unreadable(&e))?;
        let component = find(plugin, kind, text("name").into())?;
        let schema = component.schema(asked.get("config").unwrap_or(&Value::Null))?.into_owned();
        let values = [(SCHEMA.to_owned(), schema)].into_iter().collect();
        Ok(export_message(&Message { values, ..Message::default() }))
    })
}

const SCHEMA: &str = "schema";

fn find(plugin: Source, kind: Kind, name: RStr<'_>) -> Result<&'static Component> {
    plugin()
        .find(kind, Some(name.as_str()))
        .ok_or_else(|| Error::unsupported(format!("this plugin has no {kind} `{name}`")))
}

fn parsed(config: RStr<'_>) -> Result<Value> {
    serde_json::from_str(config.as_str()).map_err(|e| unreadable(&e))
}

fn unreadable(cause: &serde_json::Error) -> Error {
    Error::other("the host sent something unreadable").because(cause)
}

// ---- the host's side ---------------------------------------------------------------------------------------------

/// Why this host cannot use a library as a plugin.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It has no root module, so it is some other library.
    #[error("it is a library, but not a fedplug plugin")]
    NotAPlugin,
    /// It was built against an interface that this host does not know.
    #[error("it was built for another interface than plugin-api {INTERFACE}, which this host uses")]
    Interface,
    /// It could not be opened.
    #[error("it cannot be opened")]
    Open(String),
    /// It failed to start.
    #[error("it failed to initialise: {0}")]
    Failed(Error),
}

/// Builds a [`Plugin`] from a library, which stays loaded until the process ends.
///
/// The caller first opens the library itself, with the flags it wants. This function then finds the library by its
/// path.
///
/// # Safety
/// The library is native code that runs here with all rights of this process, so it must be one that the user chose to
/// run. What it exports under abi_stable's name must have been written by [`export_plugin!`](crate::export_plugin).
///
/// # Errors
/// If it is not a plugin, or not a plugin for this interface.
pub unsafe fn load(path: &Path) -> Result<Plugin, LoadError> {
    let root =
        lib_header_from_path(path).and_then(|header| header.init_root_module::<PluginV1_Ref>()).map_err(|error| {
            match error {
                LibraryError::OpenError { err, .. } => LoadError::Open(err.to_string()),
                LibraryError::GetSymbolError { .. } => LoadError::NotAPlugin,
                LibraryError::RootModule { err, .. } => {
                    LoadError::Failed(Error::other(err.to_string().trim().to_owned()))
                }
                _ => LoadError::Interface,
            }
        })?;
    let described = root.describe()().into_result().map_err(|error| LoadError::Failed(error.into()))?;
    let Described { about, components, .. } = from_json(&described).map_err(LoadError::Failed)?;
    Ok(Plugin { about, components: components.into_iter().map(|profile| component(root, profile)).collect() })
}

/// A component of a library, as the host calls it.
fn component(root: PluginV1_Ref, profile: Profile) -> Component {
    let name: Arc<str> = profile.name.as_str().into();
    let schema_for = profile.schema_by.is_some().then(|| schema_for(root, profile.kind, name.clone()));
    let maker = maker(root, profile.kind, name.clone());
    let kind = profile.kind.to_string();
    let check = move |config: &Value| {
        let problems = root.check()(kind.as_str().into(), name.as_ref().into(), to_json(config).as_rstr());
        from_json(&problems.into_result()?)
    };
    let mishaps = move || -> Vec<String> {
        let described = root.describe()().into_result().map_err(Error::from);
        described.and_then(|json| from_json::<Described>(&json)).map(|now| now.mishaps).unwrap_or_default()
    };
    Component { profile, schema_for, check: Arc::new(check), maker, library: Some(Arc::new(mishaps)) }
}

fn maker(root: PluginV1_Ref, kind: Kind, name: Arc<str>) -> Maker {
    match kind {
        Kind::Model => {
            let devices = {
                let name = name.clone();
                move || Ok(import_strings(root.devices()(name.as_ref().into()).into_result()?))
            };
            let new = move |config: &Value, setup: &ModelSetup, ctx: &Context<'_>| {
                let (config, setup) = (to_json(config), to_json(setup));
                let made = lend(ctx, |ctx| root.model()(name.as_ref().into(), config.as_rstr(), setup.as_rstr(), ctx));
                Ok(model::import(made.into_result()?))
            };
            Maker::Model(Arc::new(new), Arc::new(devices))
        }
        Kind::Dataset => Maker::Dataset(Arc::new(move |config, ctx| {
            let made = lend(ctx, |ctx| root.dataset()(name.as_ref().into(), to_json(config).as_rstr(), ctx));
            Ok(dataset::import(made.into_result()?))
        })),
        Kind::Aggregator => Maker::Aggregator(Arc::new(move |config, ctx| {
            let made = lend(ctx, |ctx| root.aggregator()(name.as_ref().into(), to_json(config).as_rstr(), ctx));
            Ok(aggregator::import(made.into_result()?))
        })),
        Kind::Filter => Maker::Filter(Arc::new(move |config, ctx| {
            let made = lend(ctx, |ctx| root.filter()(name.as_ref().into(), to_json(config).as_rstr(), ctx));
            Ok(filter::import(made.into_result()?))
        })),
    }
}

/// Asks the library for the schema of one configuration.
fn schema_for(root: PluginV1_Ref, kind: Kind, name: Arc<str>) -> Arc<SchemaFor> {
    Arc::new(move |config: &Value| {
        let question = [("kind", kind.to_string().into()), ("name", name.as_ref().into()), ("config", config.clone())];
        let values = question.into_iter().map(|(key, value): (_, Value)| (key.to_owned(), value)).collect();
        let input = export_message(&Message { values, ..Message::default() });
        let mut answer = import_message(root.extension()(SCHEMA.into(), input).into_result()?)?.values;
        answer.remove(SCHEMA).ok_or_else(|| Error::other("the plugin provides no schema"))
    })
}
