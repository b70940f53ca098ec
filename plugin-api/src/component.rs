//! What a plugin offers: components of four kinds, each with a constructor.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::{self, Problem};
use crate::{Aggregator, Context, Dataset, Error, Filter, Model, ModelSetup, Result};

/// What sort of work a component does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A [`Model`].
    Model,
    /// A [`Dataset`].
    Dataset,
    /// An [`Aggregator`].
    Aggregator,
    /// A [`Filter`].
    Filter,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Dataset => "dataset",
            Self::Aggregator => "aggregator",
            Self::Filter => "filter",
        })
    }
}

/// What is told of a component without making one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// What it does.
    pub kind: Kind,
    /// The name that an experiment calls it by.
    pub name: String,
    /// One line on what it is.
    pub about: String,
    /// The JSON Schema of its configuration.
    pub schema: Value,
    /// The key of its table, if there is one, whose value decides what other keys there are: see
    /// [`Component::schema_by`].
    #[serde(default)]
    pub schema_by: Option<String>,
    /// Of a model: what the [score](crate::Evaluation::score) of its evaluations is, as tables and logs name it.
    #[serde(default)]
    pub score: Option<String>,
    /// Of a model: the keys of its table, with the values, under which what it has learnt after a round does not depend
    /// on how many [rounds](ModelSetup::rounds) the run has; none where it always does. Then an interrupted run may be
    /// resumed with more rounds.
    #[serde(default)]
    pub extendable: Option<Map<String, Value>>,
    /// Of an aggregator: whether a round without updates still counts, as one does in which noise is added whoever took
    /// part. Only then does a host begin and finish a round in which the draw selected nobody; otherwise the global model
    /// stays as it is.
    #[serde(default)]
    pub empty_rounds: bool,
}

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

/// A component: its profile and its constructor. The same type stands for one of this library and for one that was
/// loaded, so whoever uses it need not know.
#[derive(Clone)]
pub struct Component {
    pub(crate) profile: Profile,
    /// Where the schema depends on the configuration.
    pub(crate) schema_for: Option<Arc<SchemaFor>>,
    pub(crate) check: Arc<Check>,
    pub(crate) maker: Maker,
    /// Of a component that was loaded: how its library is asked for its mishaps.
    pub(crate) library: Option<Arc<Mishaps>>,
}

impl Component {
    fn of<C: DeserializeOwned + JsonSchema>(kind: Kind, name: &str, about: &str, maker: Maker) -> Self {
        let schema = schemars::schema_for!(C).to_value();
        let (name, about) = (name.to_owned(), about.to_owned());
        let profile =
            Profile { kind, name, about, schema, schema_by: None, score: None, extendable: None, empty_rounds: false };
        let check = Arc::new(|value: &Value| Ok(config::read::<C>(value).err().unwrap_or_default()));
        Self { profile, schema_for: None, check, maker, library: None }
    }

    /// A model, by its constructor.
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

    /// A dataset, by its constructor.
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

    /// An aggregator, by its constructor.
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

    /// A filter, by its constructor.
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

    /// For a model that computes on more than the CPU: which devices it finds on this machine, `cpu` among them.
    #[must_use]
    pub fn on_devices(mut self, devices: fn() -> Vec<String>) -> Self {
        if let Maker::Model(_, found) = &mut self.maker {
            *found = Arc::new(move || Ok(devices()));
        }
        self
    }

    /// For a model: what the [score](crate::Evaluation::score) of its evaluations is, in a few words: `-RMSE`.
    #[must_use]
    pub fn scored_by(mut self, score: &str) -> Self {
        self.profile.score = Some(score.to_owned());
        self
    }

    /// For a model: what it has learnt after a round does not depend on how many [rounds](ModelSetup::rounds) the run has,
    /// where these keys of its table have these values: `[("schedule", "constant")]`. Without keys it never does.
    #[must_use]
    pub fn extendable<V: Into<Value>>(mut self, when: impl IntoIterator<Item = (&'static str, V)>) -> Self {
        let when = when.into_iter().map(|(key, value)| (key.to_owned(), value.into()));
        self.profile.extendable = Some(when.collect());
        self
    }

    /// For an aggregator: a round without updates still counts. Where the draw of a round selects nobody, or all of them
    /// fail, [`begin`](Aggregator::begin) and [`finish`](Aggregator::finish) are called with nothing added in between.
    #[must_use]
    pub fn empty_rounds(mut self) -> Self {
        self.profile.empty_rounds = true;
        self
    }

    /// For a component that hosts code of others, such as a class of Python: what other keys its table may have depends on
    /// the value of this one. `schema` gives the JSON Schema of the whole table, asked with a table that has the key and may
    /// be wrong otherwise. The configuration's struct takes the rest with `#[serde(flatten)]`.
    #[must_use]
    pub fn schema_by(mut self, key: &str, schema: fn(&Value) -> Result<Value>) -> Self {
        self.profile.schema_by = Some(key.to_owned());
        self.schema_for = Some(Arc::new(schema));
        self
    }

    /// The JSON Schema that this configuration has to follow: that of the profile, unless a key decides.
    ///
    /// # Errors
    /// If the plugin cannot tell, since the key's value names nothing that it knows.
    pub fn schema(&self, config: &Value) -> Result<Cow<'_, Value>> {
        match (&self.profile.schema_by, &self.schema_for) {
            (Some(key), Some(schema)) if config.get(key).is_some() => Ok(Cow::Owned(schema(config)?)),
            _ => Ok(Cow::Borrowed(&self.profile.schema)),
        }
    }

    /// What it is.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// What is wrong with a configuration for it, so far as its schema and its struct can tell: see [`config::check`].
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

    /// What went wrong in the component's library where no call could report it: panics while instances were dropped on
    /// this thread, in words, since they were asked for last.
    pub fn mishaps(&self) -> Vec<String> {
        self.library.as_ref().map_or_else(crate::boundary::guard::mishaps, |ask| ask())
    }

    /// The devices that the model finds on this machine.
    ///
    /// # Errors
    /// If it is no model, or fails to answer.
    pub fn devices(&self) -> Result<Vec<String>> {
        match &self.maker {
            Maker::Model(_, devices) => devices(),
            _ => Err(self.is_no(Kind::Model)),
        }
    }

    /// Makes a model.
    ///
    /// # Errors
    /// If it is none, or cannot be made of this configuration.
    pub fn new_model(&self, config: &Value, setup: &ModelSetup, ctx: &Context<'_>) -> Result<Box<dyn Model>> {
        config::fit(&*self.schema(config)?, config)?;
        match &self.maker {
            Maker::Model(make, _) => make(config, setup, ctx),
            _ => Err(self.is_no(Kind::Model)),
        }
    }

    /// Makes a dataset.
    ///
    /// # Errors
    /// If it is none, or cannot be made of this configuration.
    pub fn new_dataset(&self, config: &Value, ctx: &Context<'_>) -> Result<Box<dyn Dataset>> {
        config::fit(&*self.schema(config)?, config)?;
        match &self.maker {
            Maker::Dataset(make) => make(config, ctx),
            _ => Err(self.is_no(Kind::Dataset)),
        }
    }

    /// Makes an aggregator.
    ///
    /// # Errors
    /// If it is none, or cannot be made of this configuration.
    pub fn new_aggregator(&self, config: &Value, ctx: &Context<'_>) -> Result<Box<dyn Aggregator>> {
        config::fit(&*self.schema(config)?, config)?;
        match &self.maker {
            Maker::Aggregator(make) => make(config, ctx),
            _ => Err(self.is_no(Kind::Aggregator)),
        }
    }

    /// Makes a filter.
    ///
    /// # Errors
    /// If it is none, or cannot be made of this configuration.
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

/// What is told of a plugin's library.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The package's name.
    pub package: String,
    /// The package's version.
    pub version: String,
    /// Its authors.
    pub authors: String,
    /// Its licence.
    pub license: String,
    /// The version of plugin-api that it was built with.
    pub interface: String,
    /// How it was built: `debug` or `release`, and for which machine.
    pub build: String,
}

/// A plugin: what it says of itself, and its components.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// What it says of itself.
    pub about: About,
    /// What it offers.
    pub components: Vec<Component>,
}

impl Plugin {
    /// The component of this kind and name; without a name, the only one of its kind.
    pub fn find(&self, kind: Kind, name: Option<&str>) -> Option<&Component> {
        let mut found =
            self.components.iter().filter(|c| c.profile.kind == kind && name.is_none_or(|n| n == c.profile.name));
        let first = found.next()?;
        if name.is_none() && found.next().is_some() { None } else { Some(first) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plugin that was built before the flag existed does not send it.
    #[test]
    fn a_round_without_updates_counts_only_where_the_aggregator_says_so() {
        let told = |profile: Value| serde_json::from_value::<Profile>(profile).unwrap().empty_rounds;
        let mut profile = serde_json::json!({"kind": "aggregator", "name": "a", "about": "", "schema": {}});
        assert!(!told(profile.clone()));
        profile["empty_rounds"] = true.into();
        assert!(told(profile));
    }
}
