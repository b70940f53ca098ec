//! The keys of a component in Python: those of this plugin, and those of the class.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use plugin_api::context::Silent;
use plugin_api::{Context, Error, JsonSchema, Kind, Result};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::pool;

/// The keys of a table with `plugin = "python"`. The class has further ones.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Config {
    /// The Python file that has the class.
    #[schemars(extend("format" = "path"))]
    pub script: String,
    /// The name of the class, which derives from `Model`, `Dataset`, `Aggregator` or `Filter` of the package `fedplug`. It
    /// decides which other keys there are.
    pub class: String,
    /// The Python interpreter, 3.9 or later, with NumPy. If not given: the one that the variable `FEDPLUG_PYTHON` names, the
    /// one of the active virtual environment, or `python3`.
    #[schemars(extend("format" = "path-or-name"))]
    pub python: Option<String>,
    /// The most processes for the script. Objects share them once there are more; if a process crashes, all its objects are
    /// lost. If not given, there are as many as work at the same time, at most the number of cores.
    pub workers: Option<NonZero<usize>>,
    /// How long a call may go on after it was asked to stop, in seconds. Then its process is killed.
    #[serde(default = "grace")]
    #[schemars(range(min = 0.0, max = 86400.0))]
    pub grace: f64,
    /// Whether torch must compute the same bits in each run, or fail: `torch.use_deterministic_algorithms`. Needed on GPUs
    /// alone.
    #[serde(default)]
    pub deterministic: bool,
    /// Whether tensors and tables travel in shared memory, which is faster. Without it they go through a socket.
    #[serde(default = "shared_memory")]
    pub shared_memory: bool,
    /// The keys of the class.
    #[serde(flatten)]
    pub keys: Map<String, Value>,
}

fn grace() -> f64 {
    5.0
}

fn shared_memory() -> bool {
    cfg!(target_os = "linux")
}

/// What a process is started with: objects with the same can share it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Launch {
    pub(crate) python: PathBuf,
    pub(crate) script: String,
    pub(crate) threads: usize,
    pub(crate) deterministic: bool,
    pub(crate) shared: bool,
}

impl Config {
    /// How to start a process for these keys.
    pub(crate) fn launch(&self, threads: usize) -> Launch {
        Launch {
            python: interpreter(self.python.as_deref()),
            script: self.script.clone(),
            threads,
            deterministic: self.deterministic,
            shared: self.shared_memory && cfg!(target_os = "linux"),
        }
    }

    /// The most processes.
    pub(crate) fn limit(&self) -> usize {
        self.workers.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZero::get)
    }
}

fn interpreter(named: Option<&str>) -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    match named {
        Some(named) => named.into(),
        None => match (variable("FEDPLUG_PYTHON"), variable("VIRTUAL_ENV")) {
            (Some(python), _) => python.into(),
            (None, Some(folder)) => Path::new(&folder).join("bin/python"),
            (None, None) => "python3".into(),
        },
    }
}

/// SHA-256 of a script, in hexadecimal.
///
/// # Errors
/// If it cannot be read, or has changed since this process read it first: other objects have the old one.
pub(crate) fn digest(script: &str) -> Result<String> {
    static SEEN: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
    let bytes = std::fs::read(script)
        .map_err(|error| Error::config(format!("{script} cannot be read: {}", reason(&error))).at_key("script"))?;
    let now: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let first = seen.entry(script.to_owned()).or_insert_with(|| now.clone());
    if *first != now {
        let error = Error::config(format!("{script} has changed while it was in use")).at_key("script");
        return Err(error.help("start the program again"));
    }
    Ok(now)
}

/// The text of an error of the system, without its number.
pub(crate) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// The schema of a whole table: this plugin's keys and those of the class.
///
/// # Errors
/// If the script cannot be run, or has no such class.
pub(crate) fn schema(kind: Kind, config: &Value) -> Result<Value> {
    static KNOWN: Mutex<Vec<(Value, Value)>> = Mutex::new(Vec::new());
    let mut own = schemars::schema_for!(Config).to_value();
    // With a key of its own that is wrong, the plugin's schema says so.
    let mut rest = config.clone();
    if let Some(table) = rest.as_object_mut() {
        table.retain(|key, _| ["script", "class", "python"].contains(&key.as_str()));
    }
    let Ok(config) = serde_json::from_value::<Config>(rest.clone()) else { return Ok(own) };
    digest(&config.script)?;
    let launch = config.launch(1);
    let question = json!([kind, rest, launch.python]);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, schema)) = known.iter().find(|(of, _)| *of == question) {
        return Ok(schema.clone());
    }
    let ctx = Context::new(&Silent);
    let worker = pool::place(&launch, 1, true, &ctx)?;
    let asked = json!({ "do": "schema", "kind": kind, "script": config.script, "class": config.class });
    let mut of_class = worker.ask(asked, &ctx)?["schema"].take();
    extend(&mut own, &mut of_class).map_err(|key| {
        let what = format!("`{}` has a key that the plugin has itself: `{key}`", config.class);
        Error::config(what).at_key("class").help("give the field another name")
    })?;
    known.push((question, own.clone()));
    Ok(own)
}

/// Puts the keys of the class into the schema of the plugin's. Returns a key that both have.
fn extend(own: &mut Value, of_class: &mut Value) -> Result<(), String> {
    let mut part = |name: &str| of_class.get_mut(name).map(Value::take);
    let more = part("properties").unwrap_or_default();
    if let (Some(own), Value::Object(more)) = (own["properties"].as_object_mut(), more) {
        if let Some(twice) = more.keys().find(|key| own.contains_key(*key)) {
            return Err(twice.clone());
        }
        own.extend(more);
    }
    if let (Some(own), Some(Value::Array(more))) = (own["required"].as_array_mut(), part("required")) {
        own.extend(more);
    }
    if let Some(defined) = part("$defs") {
        own["$defs"] = defined;
    }
    own["additionalProperties"] = part("additionalProperties").unwrap_or(Value::Bool(false));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classes_keys_come_after_those_of_the_plugin_and_close_the_table() {
        let mut own = schemars::schema_for!(Config).to_value();
        let mut class = json!({
            "type": "object", "additionalProperties": false, "required": ["rate"],
            "properties": { "rate": { "type": "number" } }, "$defs": { "Inner": {} },
        });
        extend(&mut own, &mut class).unwrap();
        assert_eq!(own["properties"]["rate"], json!({ "type": "number" }));
        assert_eq!(own["required"], json!(["script", "class", "rate"]));
        assert_eq!((&own["additionalProperties"], &own["$defs"]["Inner"]), (&json!(false), &json!({})));
        let mut again = json!({ "properties": { "script": {} } });
        assert_eq!(extend(&mut own, &mut again), Err("script".to_owned()));
    }

    #[test]
    fn keys_that_are_wrong_are_told_by_the_plugins_own_schema() {
        for config in [json!({ "class": "A" }), json!({ "class": 1, "script": "a.py" })] {
            assert!(schema(Kind::Model, &config).unwrap()["properties"]["script"].is_object());
        }
        let error = schema(Kind::Model, &json!({ "class": "A", "script": "no/such.py" })).unwrap_err();
        assert_eq!(error.to_string(), "`script`: no/such.py cannot be read: no such file or directory");
    }
}
