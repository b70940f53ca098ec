//! What a component says of its configuration, against what it takes.

use serde_json::{Map, Value, json};

use super::schema::invalid;
use super::subject::Subject;
use super::verdict::{Found, Verdict, fail, skip};
use crate::{ErrorKind, Result};

/// A key that no component has.
const UNKNOWN: &str = "no-such-key";

/// Makes an instance of a subject.
pub(crate) type Make<'a> = &'a dyn Fn(Subject) -> Result<()>;

/// Makes the checks that all kinds have in common. Without `make` the component's struct alone is asked.
pub(crate) fn check(subject: &Subject, make: Option<Make<'_>>, verdict: &mut Verdict) {
    verdict
        .run("profile", "an experiment finds a component by its name, and a person by its line", || profile(subject));
    verdict.run("config-sample", "what the checks are made with must be a configuration", || {
        accepted(subject, &subject.config, "the sample configuration")
    });
    verdict.run("config-schema", "editors check experiments by the schema and would mark this one as wrong", || {
        match invalid(subject.schema(), &subject.config) {
            None => Ok(()),
            Some(wrong) => fail("a schema by which the sample configuration is valid", wrong),
        }
    });
    let why = "a mistyped key would be ignored, and the run would not be what its file says";
    verdict.run("config-unknown-key", why, || {
        let problems = subject.component.check(&subject.with(UNKNOWN, json!(1)))?;
        match problems.is_empty() {
            true => fail(
                "an unknown key to be refused: `#[serde(deny_unknown_fields)]`",
                format!("`{UNKNOWN} = 1` was taken"),
            ),
            false => Ok(()),
        }
    });
    let why = "editors and `fedplug check` tell a person which keys must be there";
    verdict.run("config-required", why, || required(subject));
    let why = "a person copies the default from the schema into the file, and changes it from there";
    verdict.run("config-defaults", why, || defaults(subject));
    let why = "editors would mark as wrong what the component takes";
    verdict.run("config-agrees", why, || agrees(subject, make));
    verdict.run("config-described", "the schema is the manual that a person reads", || described(subject));
}

fn profile(subject: &Subject) -> Found {
    let profile = subject.component.profile();
    let plain = |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if profile.name.is_empty() || !plain(&profile.name) {
        return fail("a name of small letters, digits and `-`", format!("the name is {:?}", profile.name));
    }
    if profile.about.trim().is_empty() || profile.about.contains('\n') {
        return fail("one line on what it is", format!("it is {:?}", profile.about));
    }
    match profile.schema.get("type").and_then(Value::as_str) {
        Some("object") => Ok(()),
        other => fail("a configuration that is a table", format!("the schema is of the type {other:?}")),
    }
}

fn accepted(subject: &Subject, config: &Value, what: &str) -> Found {
    let problems = subject.component.check(config)?;
    match problems.first() {
        None => Ok(()),
        Some(first) => {
            fail(format!("{what} to be taken"), format!("of `{}` it says: {}", first.path.join("."), first.message))
        }
    }
}

fn properties(subject: &Subject) -> impl Iterator<Item = (&String, &Value)> {
    subject.schema().get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn required(subject: &Subject) -> Found {
    let required: Vec<&str> = subject
        .schema()
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let given: Map<String, Value> = subject.config.as_object().cloned().unwrap_or_default();
    for key in given.keys() {
        let mut rest = given.clone();
        rest.shift_remove(key);
        let taken = subject.component.check(&rest.into())?.is_empty();
        let needed = required.contains(&key.as_str());
        if taken && needed {
            return fail(format!("a configuration without `{key}` to be refused, as the schema says"), "it was taken");
        }
        if !taken && !needed {
            let expected = format!("a configuration without `{key}` to be taken, since the schema does not require it");
            return fail(expected, "it was refused");
        }
    }
    Ok(())
}

fn defaults(subject: &Subject) -> Found {
    // TOML has no null: such a default says that the key is not there.
    let with_default = |(key, schema): (&String, &Value)| Some((key.clone(), schema.get("default")?.clone()));
    let defaults: Vec<_> = properties(subject).filter_map(with_default).filter(|(_, value)| !value.is_null()).collect();
    for (key, value) in defaults {
        let config = subject.with(&key, value.clone());
        accepted(subject, &config, &format!("`{key}` with its default {value}"))?;
        if let Some(wrong) = invalid(subject.schema(), &config) {
            return fail(format!("the default of `{key}` to be valid by the schema"), wrong);
        }
    }
    Ok(())
}

fn agrees(subject: &Subject, make: Option<Make<'_>>) -> Found {
    let candidates = [
        json!(true),
        json!(-1),
        json!(0),
        json!(1),
        json!(0.5),
        json!(1e9),
        json!("no such word"),
        json!([]),
        json!({}),
    ];
    for (key, value) in properties(subject).flat_map(|(key, _)| candidates.iter().map(move |value| (key, value))) {
        let config = subject.with(key, value.clone());
        let Some(wrong) = invalid(subject.schema(), &config) else { continue };
        if subject.component.check(&config)?.is_empty() && !refused(subject, config, make) {
            return fail(format!("`{key} = {value}` to be refused, as by the schema: {wrong}"), "it was taken");
        }
    }
    Ok(())
}

/// Whether the constructor refuses a configuration that the struct takes, and says so of the configuration.
fn refused(subject: &Subject, config: Value, make: Option<Make<'_>>) -> bool {
    let made = make.map(|make| make(subject.of(config)));
    matches!(made, Some(Err(error)) if *error.kind() == ErrorKind::Config)
}

fn described(subject: &Subject) -> Found {
    let mut keys = properties(subject).peekable();
    if keys.peek().is_none() {
        return skip("it has no key");
    }
    let bare =
        |(_, schema): &(&String, &Value)| schema.get("description").and_then(Value::as_str).is_none_or(str::is_empty);
    match keys.find(bare) {
        Some((key, _)) => {
            fail("a doc comment on every field: it becomes the key's description", format!("`{key}` has none"))
        }
        None => Ok(()),
    }
}
