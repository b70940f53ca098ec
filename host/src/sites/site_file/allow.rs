//! The table `[allow]`.

use plugin_api::Kind;
use plugin_api::config::Problem;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use semver::VersionReq;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::version;

/// The table `[allow]`: what an experiment may ask for. What is not limited here is allowed.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Allow {
    /// The plugins that may run, by name, or as tables `{ name, kind, version, sha256 }`; by default all that are installed
    /// at the site. An experiment can never name the path of a library.
    pub(crate) plugins: Option<Vec<AllowedPlugin>>,
    /// The largest number of rounds.
    #[schemars(range(min = 1))]
    pub(crate) rounds: Option<u64>,
    /// The largest number of epochs in a round.
    #[schemars(range(min = 1))]
    pub(crate) local_epochs: Option<u64>,
    /// The most hours of computing for one experiment, over all its runs and restarts.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub(crate) hours: Option<f64>,
    /// Whether a person must approve each new experiment. True by default.
    pub(crate) confirm: Option<bool>,
    /// Whether metrics, scores and predictions may leave the site; if not, an experiment must have
    /// `federation.report = "none"`. Default: true, and false with a table `[privacy]`, since metrics are sent without
    /// noise.
    pub(crate) metrics: Option<bool>,
    /// Filters of an experiment that may come after the site's own if they are its last: those that mask what the site's
    /// own let through, such as `secure`.
    #[serde(default)]
    pub(crate) last_filters: Vec<String>,
}

/// A plugin that may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AllowedPlugin {
    /// Its name.
    pub(crate) name: String,
    /// Its kind; any if it is missing.
    pub(crate) kind: Option<Kind>,
    /// The versions of its package.
    pub(crate) version: Option<VersionReq>,
    /// The SHA-256 of its library.
    pub(crate) sha256: Option<String>,
}

/// A plugin as a table.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Table {
    /// The plugin's name.
    name: String,
    /// Its kind: `model`, `dataset` or `filter`; any by default.
    #[serde(default)]
    #[schemars(with = "Option<KindName>")]
    kind: Option<Kind>,
    /// The versions of its package that may run, such as `">=0.1, <0.3"`; any by default.
    #[serde(default, deserialize_with = "version")]
    #[schemars(with = "Option<String>")]
    version: Option<VersionReq>,
    /// The SHA-256 of its library, in hexadecimal digits; any by default. It is checked before the library is opened.
    #[serde(default)]
    #[schemars(extend("pattern" = "^[0-9a-fA-F]{64}$"))]
    sha256: Option<String>,
}

/// The kinds of plugins that run at a site.
#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "for the schema only")]
enum KindName {
    Model,
    Dataset,
    Filter,
}

impl Allow {
    /// Whether a person must approve each new experiment.
    pub(crate) fn confirm(&self) -> bool {
        self.confirm.unwrap_or(true)
    }

    /// Whether metrics may leave the site.
    pub(crate) fn metrics(&self) -> bool {
        self.metrics.unwrap_or(true)
    }

    /// The entries for a plugin; `None` if the plugin may not run. An empty list if every plugin may.
    pub(crate) fn entries(&self, kind: Kind, name: &str) -> Option<Vec<&AllowedPlugin>> {
        let Some(plugins) = &self.plugins else { return Some(Vec::new()) };
        let fits = |plugin: &&AllowedPlugin| plugin.name == name && plugin.kind.is_none_or(|wanted| wanted == kind);
        let found: Vec<_> = plugins.iter().filter(fits).collect();
        (!found.is_empty()).then_some(found)
    }

    /// Problems that the schema does not see.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let is_path = |name: &str| name.contains(['/', '\\']) || name.is_empty();
        let plugins = self.plugins.iter().flatten().enumerate().filter(|(_, plugin)| is_path(&plugin.name));
        plugins
            .map(|(index, plugin)| Problem {
                path: ["allow", "plugins", &index.to_string()].map(str::to_owned).to_vec(),
                message: format!("`{}` is no plugin's name; `plugin-path` says where plugins are", plugin.name),
                known: Vec::new(),
            })
            .collect()
    }
}

impl From<String> for AllowedPlugin {
    fn from(name: String) -> Self {
        Self { name, kind: None, version: None, sha256: None }
    }
}

// Not derived: an untagged enum would only say that nothing matched, and not which key is wrong.
impl<'de> Deserialize<'de> for AllowedPlugin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = AllowedPlugin;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a plugin's name or a table `{ name = \"amplify\", sha256 = \"...\" }`")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<AllowedPlugin, E> {
                Ok(name.to_owned().into())
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<AllowedPlugin, A::Error> {
                let Table { name, kind, version, sha256 } = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(AllowedPlugin { name, kind, version, sha256: sha256.map(|digits| digits.to_lowercase()) })
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for AllowedPlugin {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AllowedPlugin".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "oneOf": [
                { "type": "string", "description": "The plugin's name." },
                generator.subschema_for::<Table>(),
            ]
        })
    }
}
