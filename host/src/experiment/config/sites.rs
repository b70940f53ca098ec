//! The table `[federation.sites]`.

use plugin_api::config::{self, Problem};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The digits of a fingerprint.
const DIGITS: usize = 64;

/// A site of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    /// The name of its client.
    pub name: String,
    /// The SHA-256 of its key, in lower-case hexadecimal digits.
    pub fingerprint: String,
    /// The app that it runs, if it is no site of fedplug.
    pub flower: Option<FlowerApp>,
}

/// How a plain Flower client names what it receives and sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FlowerApp {
    /// `@app.train()` and `@app.evaluate()`: arrays have the names of the model's parameters.
    Message,
    /// `ClientApp(client_fn=…)` with a `NumPyClient`: arrays are in the order of the model's parameters.
    Numpy,
}

impl FlowerApp {
    /// Its name in an experiment.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Numpy => "numpy",
        }
    }
}

/// A value of the table, for its schema.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "for the schema only")]
pub(super) enum Entry {
    /// The fingerprint of the key of a site that runs `fedplug join`.
    Fedplug(String),
    /// A plain Flower client.
    Flower(Flower),
}

/// A plain Flower client: a SuperNode that runs the bundle given to `fedplug serve` as `--bundle`. It describes no data,
/// applies no filters, and signs nothing.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Flower {
    /// The fingerprint of the SuperNode's key.
    key: String,
    /// How its app names what it receives and sends.
    flower: FlowerApp,
}

impl Site {
    /// Reads an entry of the table.
    ///
    /// # Errors
    /// If it is none. Paths begin at the value.
    pub(super) fn read(name: &str, value: &Value) -> Result<Self, Vec<Problem>> {
        let (key, path, flower) = match value {
            Value::String(key) => (key.clone(), None, None),
            Value::Object(_) => {
                let Flower { key, flower } = config::read(value)?;
                (key, Some("key".to_owned()), Some(flower))
            }
            _ => {
                let message = "must be the fingerprint of a site's key, or a table `{ key = \"sha256:…\", flower = \
                               \"message\" }`";
                return Err(vec![Problem { path: Vec::new(), message: message.to_owned(), known: Vec::new() }]);
            }
        };
        let digits = key.strip_prefix("sha256:").unwrap_or(&key);
        if digits.len() != DIGITS || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            let message = format!(
                "`{key}` is no fingerprint: `sha256:` and {DIGITS} hexadecimal digits, as `fedplug keys` shows"
            );
            return Err(vec![Problem { path: path.into_iter().collect(), message, known: Vec::new() }]);
        }
        Ok(Self { name: name.to_owned(), fingerprint: digits.to_ascii_lowercase(), flower })
    }
}

/// What is wrong with the table.
pub(super) fn problems(table: &Map<String, Value>) -> Vec<Problem> {
    let (mut found, mut sites) = (Vec::new(), Vec::<Site>::new());
    let place = |name: &str| ["federation", "sites", name].map(str::to_owned);
    for (name, value) in table {
        match Site::read(name, value) {
            Ok(site) => {
                if let Some(other) = sites.iter().find(|other| other.fingerprint == site.fingerprint) {
                    let message = format!("has the key of `{}`, and each site needs its own", other.name);
                    found.push(Problem { path: place(name).to_vec(), message, known: Vec::new() });
                }
                sites.push(site);
            }
            Err(problems) => found.extend(problems.into_iter().map(|problem| {
                let path = place(name).into_iter().chain(problem.path).collect();
                Problem { path, ..problem }
            })),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_both_forms_are_read_and_malformed_ones_named_by_their_keys() {
        let digits = "0123456789ABCDEF".repeat(4);
        let text = format!(
            "a = \"sha256:{digits}\"\nb = {{ key = \"{}\", flower = \"numpy\" }}\nc = \"sha256:12\"\nd = {{ key = \
             \"x\", flower = \"message\" }}\ne = {{ key = \"{digits}\", flower = \"tensor\", site = 1 }}\nf = 3\ng = \
             \"{digits}\"\nh = {{ flower = \"message\" }}\n",
            "f".repeat(64)
        );
        let table: Map<String, Value> =
            serde_json::from_value(serde_json::to_value(toml::from_str::<toml::Table>(&text).unwrap()).unwrap())
                .unwrap();
        let read = |name: &str| Site::read(name, &table[name]).unwrap();
        let site = |name: &str, fingerprint: String, flower| Site { name: name.to_owned(), fingerprint, flower };
        assert_eq!(read("a"), site("a", digits.to_lowercase(), None));
        assert_eq!(read("b"), site("b", "f".repeat(64), Some(FlowerApp::Numpy)));
        let told: Vec<String> =
            problems(&table).iter().map(|p| format!("{}: {}", p.path.join("."), p.message)).collect();
        let form = "is no fingerprint: `sha256:` and 64 hexadecimal digits, as `fedplug keys` shows";
        assert_eq!(told[0], format!("federation.sites.c: `sha256:12` {form}"));
        assert_eq!(told[1], format!("federation.sites.d.key: `x` {form}"));
        assert!(told.iter().any(|line| line.starts_with("federation.sites.e.flower: ")), "{told:?}");
        assert!(told.contains(&"federation.sites.e.site: unknown key `site`".to_owned()), "{told:?}");
        assert!(told.iter().any(|line| line.starts_with("federation.sites.f: must be the fingerprint")), "{told:?}");
        assert!(
            told.contains(&"federation.sites.g: has the key of `a`, and each site needs its own".to_owned()),
            "{told:?}"
        );
        assert!(told.contains(&"federation.sites.h: `key` is missing".to_owned()), "{told:?}");
    }
}
