//! Wraps a component of this library in the boundary, as a host sees it. For tests and benchmarks.

use std::sync::Arc;

use fedplug_abi::{WireContext, Wired};
use serde_json::Value;

use super::context::{borrow, lend};
use super::wire::{from_json, to_json};
use super::{aggregator, dataset, filter, guard, model};
use crate::component::{Make, Maker, SchemaFor};
use crate::{Component, Context, ModelSetup, Result};

/// The same component, with every call crossing the boundary both ways: configurations and setups as text, tensors and
/// tables as wire types, panics as errors. A component loaded from a library already does this.
pub fn crossed(component: &Component) -> Component {
    if component.library.is_some() {
        return component.clone();
    }
    guard::install_hook();
    let maker = match &component.maker {
        Maker::Model(make, devices) => {
            let (make, devices) = (make.clone(), devices.clone());
            let make = move |config: &Value, setup: &ModelSetup, ctx: &Context<'_>| {
                let (config, setup) = (to_json(config), to_json(setup));
                let made = lend(ctx, |ctx| {
                    guard::answer("new", || {
                        let (config, setup): (Value, ModelSetup) = (from_json(&config)?, from_json(&setup)?);
                        Ok(model::export(borrow(ctx, |ctx| make(&config, &setup, ctx))?))
                    })
                });
                Ok(model::import(made.into_result()?))
            };
            Maker::Model(Arc::new(make), Arc::new(move || guard::run("devices", || devices())))
        }
        Maker::Dataset(make) => Maker::Dataset(made(make, dataset::export, dataset::import)),
        Maker::Aggregator(make) => Maker::Aggregator(made(make, aggregator::export, aggregator::import)),
        Maker::Filter(make) => Maker::Filter(made(make, filter::export, filter::import)),
    };
    let check = component.check.clone();
    let check = move |config: &Value| guard::run("check", || check(&from_json(&to_json(config))?));
    let schema_for = component.schema_for.clone().map(|schema| -> Arc<SchemaFor> {
        Arc::new(move |config: &Value| guard::run("schema", || schema(&from_json(&to_json(config))?)))
    });
    Component { profile: component.profile.clone(), schema_for, check: Arc::new(check), maker, library: None }
}

fn made<T: ?Sized + 'static, W: 'static>(
    make: &Arc<Make<T>>,
    export: fn(Box<T>) -> W,
    import: fn(W) -> Box<T>,
) -> Arc<Make<T>> {
    let make = make.clone();
    Arc::new(move |config: &Value, ctx: &Context<'_>| -> Result<Box<T>> {
        let config = to_json(config);
        let answer = |ctx: &WireContext<'_>| -> Wired<W> {
            guard::answer("new", || Ok(export(borrow(ctx, |ctx| make(&from_json(&config)?, ctx))?)))
        };
        Ok(import(lend(ctx, answer).into_result()?))
    })
}
