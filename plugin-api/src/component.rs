//! The components that a plugin offers: four kinds, each with a constructor.

mod profile;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use profile::{About, Kind, Profile, WithoutTargets};

use crate::config::{self, Problem};
use crate::{Aggregator, Context, Dataset, Error, Filter, Model, ModelSetup, Result};

pub(crate) type SchemaFor = dyn Fn(&Value) -> Result<Value> + Send + Sync;
type Check = dyn Fn(&Value) -> Result<Vec<Problem>> + Send + Sync;
type Mishaps = dyn Fn() -> Vec<String> + Send + Sync;
type Devices = dyn Fn() -> Result<Vec<String>> + Send + Sync;
type MakeModel = dyn Fn(&Value, &ModelSetup, &Context<'_>) -> Result<Box<dyn Model>> + Send + Sync;
pub(crate) type Make<T> = dyn Fn(&Value, &Context<'_>) -> Result<Box<T>> + Send + Sync;

#[derive(Clone)]
pub(crate) enum Maker {
    Model(Arc<MakeModel>, Arc<Devices>),
    Dataset(Arc<Make<dyn Dataset>>),
    Aggregator(Arc<Make<dyn Aggregator>>),
    Filter(Arc<Make<dyn Filter>>),
}

/// A component: its profile and its constructor. Built-in and loaded components have the same type, so callers need not
/// know which one they hold.
#[derive(Clone)]
pub struct Component {
    pub(crate) profile: Profile,
    /// Set if the schema depends on the configuration.
    pub(crate) schema_for: Option<Arc<SchemaFor>>,
    pub(crate) check: Arc<Check>,
    pub(crate) maker: Maker,
    /// For a loaded component: how to ask its library for panics in drops.
    pub(crate) library: Option<Arc<Mishaps>>,
}

impl Component {
    fn of<C: DeserializeOwned + JsonSchema>(kind: Kind, name: &str, about: &str, maker: Maker) -> Self {
        let schema = schemars::schema_for!(C).to_value();
        let (name, about) = (name.to_owned(), about.to_owned());
        let profile = Profile {
            kind,
            name,
            about,
            schema,
            schema_by: None,
            score: None,
            class_score: None,
            without_targets: None,
            extendable: None,
            empty_rounds: false,
        };
        let check = Arc::new(|value: &Value| Ok(config::read::<C>(value).err().unwrap_or_default()));
        Self { profile, schema_for: None, check, maker, library: None }
    }

    /// A model, from its constructor.
    pub fn model<C, M>(name: &str, about: &str, new: fn(C, &ModelSetup, &Context<'_>) -> Result<M>) -> Self
    where
        C: DeserializeOwned + JsonSchema + 'static,
        M: Model + 'static,
    {
        let make = move |config: &Value, setup: &ModelSetup, ctx: &Context<'_>| -> Result<Box<dyn Model>> {
            Ok(Box::new(new(typed(config)?, setup, ctx)?))
        };
        Self::of::<C>(Kind::Model, name, about, Maker::Model(Arc::new(make), Arc::new(|| Ok(vec!["cpu".to_owned()]))))
    }

    /// A dataset, from its constructor.
    pub fn dataset<C, D>(name: &str, about: &str, new: fn(C, &Context<'_>) -> Result<D>) -> Self
    where
        C: DeserializeOwned + JsonSchema + 'static,
        D: Dataset + 'static,
    {
        let make = move |config: &Value, ctx: &Context<'_>| -> Result<Box<dyn Dataset>> {
            Ok(Box::new(new(typed(config)?, ctx)?))
        };
        Self::of::<C>(Kind::Dataset, name, about, Maker::Dataset(Arc::new(make)))
    }

    /// An aggregator, from its constructor.
    pub fn aggregator<C, A>(name: &str, about: &str, new: fn(C, &Context<'_>) -> Result<A>) -> Self
    where
        C: DeserializeOwned + JsonSchema + 'static,
        A: Aggregator + 'static,
    {
        let make = move |config: &Value, ctx: &Context<'_>| -> Result<Box<dyn Aggregator>> {
            Ok(Box::new(new(typed(config)?, ctx)?))
        };
        Self::of::<C>(Kind::Aggregator, name, about, Maker::Aggregator(Arc::new(make)))
    }

    /// A filter, from its constructor.
    pub fn filter<C, F>(name: &str, about: &str, new: fn(C, &Context<'_>) -> Result<F>) -> Self
    where
        C: DeserializeOwned + JsonSchema + 'static,
        F: Filter + 'static,
    {
        let make = move |config: &Value, ctx: &Context<'_>| -> Result<Box<dyn Filter>> {
            Ok(Box::new(new(typed(config)?, ctx)?))
        };
        Self::of::<C>(Kind::Filter, name, about, Maker::Filter(Arc::new(make)))
    }

    /// For a model that can compute on devices other than the CPU: sets the function that finds the devices of this
    /// machine, including `cpu`.
    #[must_use]
    pub fn on_devices(mut self, devices: fn() -> Vec<String>) -> Self {
        if let Maker::Model(_, found) = &mut self.maker {
            *found = Arc::new(move || Ok(devices()));
        }
        self
    }

    /// For a model: names what the [score](crate::Evaluation::score) of its evaluations measures, in a few words:
    /// `-RMSE`.
    #[must_use]
    pub fn scored_by(mut self, score: &str) -> Self {
        self.profile.score = Some(score.to_owned());
        self
    }

    /// For a model: declares that it learns [classes](crate::TargetKind::Class), and names what the score of their
    /// evaluations measures: [`metrics::CLASS_SCORE`](crate::metrics::CLASS_SCORE). Without it, the host refuses
    /// experiments with such tasks before they start.
    #[must_use]
    pub fn classes_scored_by(mut self, score: &str) -> Self {
        self.profile.class_score = Some(score.to_owned());
        self
    }

    /// For a model: declares that it learns from the inputs alone if these keys of its table have these values, for example
    /// `[("objective", "masked-lm")]`, and names what the score of its evaluations measures then. Targets are then ignored,
    /// and tasks need none. Without it, the host refuses experiments with tasks [without a target](crate::TargetKind::None)
    /// before they start.
    #[must_use]
    pub fn learns_without_targets<V: Into<Value>>(
        mut self,
        when: impl IntoIterator<Item = (&'static str, V)>,
        score: &str,
    ) -> Self {
        let when = when.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
        self.profile.without_targets = Some(WithoutTargets { when, score: score.to_owned() });
        self
    }

    /// For a model: declares that what it has learnt after a round does not depend on the number of
    /// [rounds](ModelSetup::rounds) in the run, provided these keys of its table have these values, for example
    /// `[("schedule", "constant")]`. Without keys, this holds for every configuration.
    #[must_use]
    pub fn extendable<V: Into<Value>>(mut self, when: impl IntoIterator<Item = (&'static str, V)>) -> Self {
        let when = when.into_iter().map(|(key, value)| (key.to_owned(), value.into()));
        self.profile.extendable = Some(when.collect());
        self
    }

    /// For an aggregator: declares that a round without updates counts. If the draw of a round selects no client, or
    /// all clients fail, the host calls [`begin`](Aggregator::begin) and [`finish`](Aggregator::finish) with no updates
    /// in between.
    #[must_use]
    pub fn empty_rounds(mut self) -> Self {
        self.profile.empty_rounds = true;
        self
    }

    /// For a component that hosts other code, such as a Python class: declares that the value of `key` decides which
    /// other keys its table may have. `schema` returns the JSON Schema of the whole table. It is called with a table
    /// that has the key but may otherwise be invalid. The configuration struct takes the remaining keys with
    /// `#[serde(flatten)]`.
    #[must_use]
    pub fn schema_by(mut self, key: &str, schema: fn(&Value) -> Result<Value>) -> Self {
        self.profile.schema_by = Some(key.to_owned());
        self.schema_for = Some(Arc::new(schema));
        self
    }

    /// The JSON Schema for this configuration: the profile's schema, unless a key decides.
    ///
    /// # Errors
    /// If the plugin cannot tell, since the key's value names nothing that it knows.
    pub fn schema(&self, config: &Value) -> Result<Cow<'_, Value>> {
        match (&self.profile.schema_by, &self.schema_for) {
            (Some(key), Some(schema)) if config.get(key).is_some() => Ok(Cow::Owned(schema(config)?)),
            _ => Ok(Cow::Borrowed(&self.profile.schema)),
        }
    }

    /// Its profile.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Everything that its schema and its struct find wrong with a configuration. See [`config::check`].
    ///
    /// # Errors
    /// If the plugin fails to answer.
    pub fn check(&self, config: &Value) -> Result<Vec<Problem>> {
        config::check(&*self.schema(config)?, config, |rest| (self.check)(rest))
    }

    /// Whether it was loaded from a library.
    pub fn is_loaded(&self) -> bool {
        self.library.is_some()
    }

    /// Messages of panics on this thread while instances from the component's library were dropped, since the last
    /// call. No other call can report these.
    pub fn mishaps(&self) -> Vec<String> {
        self.library.as_ref().map_or_else(crate::boundary::guard::mishaps, |ask| ask())
    }

    /// The devices that the model finds on this machine.
    ///
    /// # Errors
    /// If the component is not a model, or fails to answer.
    pub fn devices(&self) -> Result<Vec<String>> {
        match &self.maker {
            Maker::Model(_, devices) => devices(),
            _ => Err(self.is_no(Kind::Model)),
        }
    }

    /// Creates a model.
    ///
    /// # Errors
    /// If the component is of another kind, or its constructor fails with this configuration.
    pub fn new_model(&self, config: &Value, setup: &ModelSetup, ctx: &Context<'_>) -> Result<Box<dyn Model>> {
        config::fit(&*self.schema(config)?, config)?;
        match &self.maker {
            Maker::Model(make, _) => make(config, setup, ctx),
            _ => Err(self.is_no(Kind::Model)),
        }
    }

    /// Creates a dataset.
    ///
    /// # Errors
    /// If the component is of another kind, or its constructor fails with this configuration.
    pub fn new_dataset(&self, config: &Value, ctx: &Context<'_>) -> Result<Box<dyn Dataset>> {
        config::fit(&*self.schema(config)?, config)?;
        match &self.maker {
            Maker::Dataset(make) => make(config, ctx),
            _ => Err(self.is_no(Kind::Dataset)),
        }
    }

    /// Creates an aggregator.
    ///
    /// # Errors
    /// If the component is of another kind, or its constructor fails with this configuration.
    pub fn new_aggregator(&self, config: &Value, ctx: &Context<'_>) -> Result<Box<dyn Aggregator>> {
        config::fit(&*self.schema(config)?, config)?;
        match &self.maker {
            Maker::Aggregator(make) => make(config, ctx),
            _ => Err(self.is_no(Kind::Aggregator)),
        }
    }

    /// Creates a filter.
    ///
    /// # Errors
    /// If the component is of another kind, or its constructor fails with this configuration.
    pub fn new_filter(&self, config: &Value, ctx: &Context<'_>) -> Result<Box<dyn Filter>> {
        config::fit(&*self.schema(config)?, config)?;
        match &self.maker {
            Maker::Filter(make) => make(config, ctx),
            _ => Err(self.is_no(Kind::Filter)),
        }
    }

    fn is_no(&self, wanted: Kind) -> Error {
        Error::unsupported(format!("`{}` is a {}, not a {wanted}", self.profile.name, self.profile.kind))
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.profile.kind, self.profile.name)
    }
}

fn typed<C: DeserializeOwned>(config: &Value) -> Result<C> {
    config::read(config).map_err(|problems| {
        problems.into_iter().next().map_or_else(|| Error::config("cannot be read"), config::refusal)
    })
}

/// A plugin: its description and its components.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// Its description.
    pub about: About,
    /// Its components.
    pub components: Vec<Component>,
}

impl Plugin {
    /// The component of this kind and name, or without a name, the only component of its kind.
    pub fn find(&self, kind: Kind, name: Option<&str>) -> Option<&Component> {
        let mut found =
            self.components.iter().filter(|c| c.profile.kind == kind && name.is_none_or(|n| n == c.profile.name));
        let first = found.next()?;
        if name.is_none() && found.next().is_some() { None } else { Some(first) }
    }
}
