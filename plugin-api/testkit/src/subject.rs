//! The component under test, and what all checks need from it.

use std::borrow::Cow;

use serde_json::Value;

use super::configuration;
use super::verdict::{Found, Verdict, fail};
use plugin_api::boundary::crossing::crossed;
use plugin_api::{Component, Context, Seed};

/// A component behind the boundary, with its configuration.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) component: Component,
    pub(crate) config: Value,
    schema: Value,
    from_library: bool,
}

/// The seed of the experiments that components are tested in, and another one.
pub(crate) const SEED: u64 = 42;
pub(crate) const OTHER_SEED: u64 = 7;

impl Subject {
    pub(crate) fn new(component: &Component, config: &Value) -> Self {
        let from_library = component.is_loaded();
        // Discard panics from earlier drops on this thread, which are not this component's fault.
        component.mishaps();
        let component = crossed(component);
        // If a key decides which others there are, the schema is that of this configuration. If it cannot be had, the
        // check of the configuration says why.
        let schema = component.schema(config).map_or_else(|_| component.profile().schema.clone(), Cow::into_owned);
        Self { component, config: config.clone(), schema, from_library }
    }

    /// The verdict of the checks common to all kinds, with those of one kind between them.
    pub(crate) fn verdict(&self, checks: impl FnOnce(&mut Verdict)) -> Verdict {
        let _alone = super::alone();
        let mut verdict = Verdict::new(self.title());
        configuration::check(self, &mut verdict);
        checks(&mut verdict);
        let why = "the process continues after an instance is dropped, and the panic goes unnoticed";
        verdict.run("drop", why, || self.drops_well());
        verdict
    }

    /// The title of the verdict.
    pub(crate) fn title(&self) -> String {
        let way = if self.from_library { "from its library" } else { "in process" };
        format!("{:?} ({way})", self.component)
    }

    pub(crate) fn schema(&self) -> &Value {
        &self.schema
    }

    /// The configuration with this key added or replaced.
    pub(crate) fn with(&self, key: &str, value: Value) -> Value {
        let mut config = self.config.clone();
        if let Some(table) = config.as_object_mut() {
            table.insert(key.to_owned(), value);
        }
        config
    }

    /// Checks that nothing panicked while instances were dropped.
    fn drops_well(&self) -> Found {
        match self.component.mishaps().first() {
            None => Ok(()),
            Some(first) => fail("no panic while an instance is dropped", first.clone()),
        }
    }
}

/// A context in an experiment with this seed.
pub(crate) fn context<'a>(host: &'a dyn plugin_api::context::Host, seed: u64) -> Context<'a> {
    Context::new(host).with_seed(Seed::new(seed))
}
