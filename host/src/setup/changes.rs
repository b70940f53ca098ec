//! Checking that a resumed run is unchanged: compares everything its results depend on.

use std::collections::BTreeMap;

use plugin_api::component::Profile;
use serde_json::Value;

use crate::error::{CliError, Diagnostic};
use crate::experiment::document::Document;
use crate::setup::Shared;

/// Keys that do not affect results. Devices are compared by type, client by client.
const FREE: [&str; 11] = [
    "name",
    "folder",
    "plugin-path",
    "federation.threads",
    "federation.devices",
    "federation.clients-per-device",
    "federation.checkpoint-every",
    "federation.checkpoint-after",
    "federation.idle-memory",
    "federation.progress-timeout",
    "federation.scalars-every",
];

/// The key that a model may allow to change.
const ROUNDS: &str = "federation.rounds";

/// The maximum number of differences of one sort that are listed.
const NAMED: usize = 10;

/// The model of a run.
#[derive(Clone, Copy)]
struct Model<'m> {
    profile: &'m Profile,
    config: &'m Value,
}

/// Compares the experiment and the manifest that a run was started with to those it would be resumed with.
///
/// # Errors
/// If the results would differ from those of an uninterrupted run; lists all differences.
pub(crate) fn check(experiment: &str, then: &Value, shared: &Shared, now: &Value) -> Result<(), CliError> {
    let before = Document::parse("experiment.toml".to_owned(), experiment)?;
    let after = Document::parse("experiment.toml".to_owned(), &shared.recorded()?)?;
    let model = shared.plugins.model.as_ref();
    let model = model.map(|model| Model { profile: model.component.profile(), config: &model.plugin_ref.config });
    let mut found = keys(before.value(), after.value(), model);
    found.extend(data(&then["data"], &now["data"]));
    found.extend(plugins(then, now));
    found.extend(clients(&then["clients"], &now["clients"]));
    if then["tasks"] != now["tasks"] {
        found.push("the tasks, their inputs or their targets".to_owned());
    }
    if found.is_empty() {
        return Ok(());
    }
    let report = Diagnostic::new("the run was started with something else, so its results would be a mixture");
    let report = found.into_iter().fold(report, Diagnostic::cause);
    Err(CliError::usage(report.hint("undo the changes to resume it, or start over with --force")))
}

/// The keys of two experiments that differ and that results depend on, where no model can say that they do not.
pub(crate) fn keys_that_matter(then: &Value, now: &Value) -> Vec<String> {
    keys(then, now, None)
}

/// The keys of the experiments whose values differ and affect results.
fn keys(then: &Value, now: &Value, model: Option<Model<'_>>) -> Vec<String> {
    let mut found = Vec::new();
    differences("", Some(then), Some(now), &mut found);
    let described = |(key, then, now): (String, Option<&Value>, Option<&Value>)| {
        let change = format!("`{key}`: {} then, {} now", shown(then), shown(now));
        match &*key {
            ROUNDS => depends_on_rounds(model).map(|why| format!("{change}: {why}")),
            key if FREE.contains(&key) => None,
            _ => Some(change),
        }
    };
    some(found.into_iter().filter_map(described).collect(), "keys")
}

type Difference<'v> = (String, Option<&'v Value>, Option<&'v Value>);

/// Collects the leaves that differ, with their keys.
fn differences<'v>(key: &str, then: Option<&'v Value>, now: Option<&'v Value>, found: &mut Vec<Difference<'v>>) {
    let within = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
    if FREE.contains(&key) {
        return;
    }
    match (then, now) {
        (Some(Value::Object(then)), Some(Value::Object(now))) => {
            let names = then.keys().chain(now.keys().filter(|name| !then.contains_key(*name)));
            names.for_each(|name| differences(&within(name), then.get(name), now.get(name), found));
        }
        (Some(Value::Array(then)), Some(Value::Array(now))) if then.iter().chain(now).all(Value::is_object) => {
            (0..then.len().max(now.len()))
                .for_each(|index| differences(&within(&index.to_string()), then.get(index), now.get(index), found));
        }
        // 1 and 1.0 are the same number.
        (Some(Value::Number(a)), Some(Value::Number(b))) if a.as_f64() == b.as_f64() => {}
        _ if then != now => found.push((key.to_owned(), then, now)),
        _ => {}
    }
}

fn shown(value: Option<&Value>) -> String {
    let Some(value) = value else { return "not given".to_owned() };
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Why results up to a round depend on the total number of rounds; `None` if the model states that they do not.
fn depends_on_rounds(model: Option<Model<'_>>) -> Option<String> {
    let Some(Model { profile: model, config }) = model else {
        return Some("results may depend on the number of rounds".to_owned());
    };
    let name = &model.name;
    let Some(conditions) = &model.extendable else {
        return Some(format!(
            "model `{name}` does not declare that its results are independent of the number of rounds"
        ));
    };
    model.first_unmet(conditions, config).map(|(key, value, now)| {
        let now = shown(Some(now));
        format!("with `model.{key}` = {now}, model `{name}` depends on the number of rounds; with {value} it would not")
    })
}

/// The data files that differ.
fn data(then: &Value, now: &Value) -> Vec<String> {
    let files = |sources: &Value| -> Vec<(String, String)> {
        let text = |source: &Value, key: &str| source[key].as_str().unwrap_or_default().to_owned();
        let all = sources.as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().map(|source| (text(source, "path"), text(source, "sha256"))).collect()
    };
    let (then, now) = (files(then), files(now));
    if then.iter().map(|(_, sum)| sum).eq(now.iter().map(|(_, sum)| sum)) {
        return Vec::new(); // The same files, wherever they are seen from.
    }
    let (then, now): (BTreeMap<_, _>, BTreeMap<_, _>) = (then.into_iter().collect(), now.into_iter().collect());
    let change = |path: &String| match (then.get(path), now.get(path)) {
        (Some(a), Some(b)) if a == b => None,
        (Some(_), Some(_)) => Some(format!("{path}: has changed")),
        (Some(_), None) => Some(format!("{path}: is no longer part of the data")),
        _ => Some(format!("{path}: was not part of the data")),
    };
    let paths = then.keys().chain(now.keys().filter(|path| !then.contains_key(*path)));
    some(paths.filter_map(change).collect(), "files")
}

/// The plugins that differ, including fedplug itself.
fn plugins(then: &Value, now: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if then["fedplug"] != now["fedplug"] {
        found.push(format!(
            "fedplug: version {} then, {} now",
            shown(Some(&then["fedplug"])),
            shown(Some(&now["fedplug"]))
        ));
    }
    let list = |manifest: &Value| manifest["plugins"].as_array().cloned().unwrap_or_default();
    for (then, now) in list(then).iter().zip(&list(now)) {
        let name =
            format!("{} `{}`", now["kind"].as_str().unwrap_or_default(), now["name"].as_str().unwrap_or_default());
        let version = |plugin: &Value| plugin["about"]["version"].as_str().unwrap_or("unknown").to_owned();
        let sum = |plugin: &Value| {
            plugin["sha256"].as_str().map_or_else(|| "unknown".to_owned(), |s| s.chars().take(12).collect())
        };
        if then["sha256"] != now["sha256"] {
            let was = format!("version {} (SHA-256 {}…) then", version(then), sum(then));
            found.push(format!("the library of {name}: {was}, {} ({}…) now", version(now), sum(now)));
        }
    }
    found.dedup();
    found
}

/// The clients whose data or type of device differ.
fn clients(then: &Value, now: &Value) -> Vec<String> {
    let list = |clients: &Value| clients.as_array().cloned().unwrap_or_default();
    let (then, now) = (list(then), list(now));
    let names = |all: &[Value]| all.iter().map(|client| client["name"].clone()).collect::<Vec<_>>();
    if names(&then) != names(&now) {
        return vec![format!("the clients: {} then, {} now", then.len(), now.len())];
    }
    let kind =
        |client: &Value| client["device"].as_str().unwrap_or_default().split(':').next().unwrap_or_default().to_owned();
    let change = |(then, now): (&Value, &Value)| {
        let name = now["name"].as_str().unwrap_or_default();
        if kind(then) != kind(now) {
            return Some(format!(
                "client `{name}` computes on another kind of device: {} then, {} now",
                kind(then),
                kind(now)
            ));
        }
        (then["tasks"] != now["tasks"]).then(|| format!("client `{name}` has different rows"))
    };
    some(then.iter().zip(&now).filter_map(change).collect(), "clients")
}

/// The first `NAMED` items, and the number of the remaining ones.
fn some(mut all: Vec<String>, what: &str) -> Vec<String> {
    if all.len() > NAMED {
        let more = all.len() - NAMED;
        all.truncate(NAMED);
        all.push(format!("and {more} {what} more"));
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn model(extendable: Option<Value>) -> Profile {
        let schema = json!({"properties": {"schedule": {"default": "linear"}}});
        let extendable = extendable.map(|value| value.as_object().unwrap().clone());
        Profile {
            kind: plugin_api::Kind::Model,
            name: "m".to_owned(),
            about: String::new(),
            schema,
            schema_by: None,
            score: None,
            class_score: None,
            without_targets: None,
            extendable,
            empty_rounds: false,
        }
    }

    #[test]
    fn keys_are_compared_one_by_one_and_those_that_change_nothing_are_free() {
        let then = json!({"name": "a", "seed": 1, "federation": {"rounds": 2, "threads": 1, "devices": ["cpu"]},
            "model": {"lr": 1, "sizes": [1, 2]}, "filter": [{"plugin": "a", "at": "x"}]});
        let mut now = then.clone();
        now["name"] = "b".into();
        now["federation"] =
            json!({"threads": 4, "devices": ["cuda:1"], "clients-per-device": 2, "idle-memory": "1 GiB", "rounds": 2});
        now["model"]["lr"] = json!(1.0);
        let compared =
            |then: &Value, now: &Value| keys(then, now, Some(Model { profile: &model(None), config: &Value::Null }));
        assert!(compared(&then, &now).is_empty());
        now["seed"] = 2.into();
        now["model"]["sizes"] = json!([1, 3]);
        now["filter"] = json!([{"plugin": "a", "at": "y"}, {"plugin": "b"}]);
        let found = compared(&then, &now);
        let wanted = [
            "`seed`: 1 then, 2 now",
            "`model.sizes`: [1,2] then, [1,3] now",
            "`filter.0.at`: \"x\" then, \"y\" now",
            "`filter.1`: not given then, {\"plugin\":\"b\"} now",
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn rounds_may_change_where_the_model_says_so() {
        let [then, now] = [2, 3].map(|rounds| json!({"federation": {"rounds": rounds}}));
        let found = |model: &Profile, config: Value| {
            keys(&then, &now, Some(Model { profile: model, config: &config })).pop().unwrap_or_default()
        };
        assert!(found(&model(None), json!({})).contains("model `m` does not declare"));
        let on_condition = model(Some(json!({"schedule": "constant"})));
        let text = found(&on_condition, json!({}));
        assert!(
            text.ends_with(
                "with `model.schedule` = \"linear\", model `m` depends on the number of rounds; with \
                 \"constant\" it would not"
            ),
            "{text}"
        );
        assert_eq!(found(&on_condition, json!({"schedule": "constant"})), "");
        assert_eq!(found(&model(Some(json!({}))), json!({})), "");
    }

    #[test]
    fn data_plugins_and_clients_are_named() {
        let source = |path: &str, sum: &str| json!({"path": path, "sha256": sum});
        let found = data(
            &json!([source("a", "1"), source("b", "2"), source("c", "3")]),
            &json!([source("a", "9"), source("c", "3"), source("d", "4")]),
        );
        assert_eq!(found, ["a: has changed", "b: is no longer part of the data", "d: was not part of the data"]);
        let renamed = |sums: [&str; 2]| {
            data(&json!([source("a", "1"), source("b", "2")]), &json!([source("c", sums[0]), source("d", sums[1])]))
        };
        assert!(renamed(["1", "2"]).is_empty());
        assert_eq!(renamed(["2", "1"]).len(), 4);
        let plugin = |sum: Value| json!({"fedplug": "1", "plugins": [{"kind": "model", "name": "m", "about": {"version": "2"}, "sha256": sum}]});
        assert!(plugins(&plugin("0123456789abcdef".into()), &plugin("0123456789abcdef".into())).is_empty());
        let text = plugins(&plugin(Value::Null), &plugin("0123456789abcdef".into())).concat();
        assert_eq!(text, "the library of model `m`: version 2 (SHA-256 unknown…) then, 2 (0123456789ab…) now");
        let client = |name: &str, device: &str| json!({"name": name, "device": device, "tasks": []});
        assert!(clients(&json!([client("a", "cuda:0")]), &json!([client("a", "cuda:1")])).is_empty());
        let text = clients(&json!([client("a", "cuda:0")]), &json!([client("a", "cpu")])).concat();
        assert_eq!(text, "client `a` computes on another kind of device: cuda then, cpu now");
    }
}
