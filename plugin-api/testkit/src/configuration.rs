//! Checks a component's schema against the configurations it accepts.

use serde_json::{Map, Value, json};

use super::subject::Subject;
use super::verdict::{Found, Verdict, fail, skip};

/// A key that no component has.
const UNKNOWN: &str = "no-such-key";

/// Runs the checks common to all kinds. Schema and struct are checked together, as a host does.
pub(crate) fn check(subject: &Subject, verdict: &mut Verdict) {
    verdict.run("profile", "an experiment finds a component by its name, and a user by its line", || profile(subject));
    verdict.run("config-sample", "the checks use this configuration, so it must be valid", || {
        accepted(subject, &subject.config, "the sample configuration")
    });
    let why = "a mistyped key would be ignored, and the run would not match its file";
    verdict.run("config-unknown-key", why, || {
        let problems = subject.component.check(&subject.with(UNKNOWN, json!(1)))?;
        match problems.is_empty() {
            true => fail(
                "an unknown key to be refused: `#[serde(deny_unknown_fields)]`",
                format!("`{UNKNOWN} = 1` was accepted"),
            ),
            false => Ok(()),
        }
    });
    let why = "editors and `fedplug check` tell users which keys are required";
    verdict.run("config-required", why, || required(subject));
    let why = "users copy the default from the schema into the file, and change it there";
    verdict.run("config-defaults", why, || defaults(subject));
    verdict.run("config-described", "the schema is the manual that users read", || described(subject));
}

fn profile(subject: &Subject) -> Found {
    let profile = subject.component.profile();
    let plain = |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if profile.name.is_empty() || !plain(&profile.name) {
        return fail("a name of lowercase letters, digits and `-`", format!("the name is {:?}", profile.name));
    }
    if profile.about.trim().is_empty() || profile.about.contains('\n') {
        return fail("a description of one line", format!("it is {:?}", profile.about));
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
            fail(format!("{what} to be accepted"), format!("of `{}` it says: {}", first.path.join("."), first.message))
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
            return fail(
                format!("a configuration without `{key}` to be refused, as the schema says"),
                "it was accepted",
            );
        }
        if !taken && !needed {
            let expected =
                format!("a configuration without `{key}` to be accepted, since the schema does not require it");
            return fail(expected, "it was refused");
        }
    }
    Ok(())
}

fn defaults(subject: &Subject) -> Found {
    // TOML has no null, so such a default means that the key is absent.
    let default = |schema: &Value| schema.get("default").filter(|value| !value.is_null()).cloned();
    for (key, schema) in properties(subject) {
        if let Some(value) = default(schema) {
            let config = subject.with(key, value.clone());
            accepted(subject, &config, &format!("`{key}` with its default {value}"))?;
        }
    }
    let mut tables = vec![(String::new(), subject.schema())];
    let mut next = 0;
    while let Some((path, table)) = tables.get(next).cloned() {
        next += 1;
        for (name, schema) in table.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let key = format!("{path}{name}");
            if !requires(table, name) && default(schema).is_none() && !takes_null(subject, schema) {
                let expected =
                    format!("the default of `{key}` in the schema, or `Option` for a key that may be absent");
                return fail(expected, "the schema has neither; serde writes a default whose type is `Serialize`");
            }
            for form in forms(subject, schema) {
                // A table that contains itself is looked at once.
                if !tables.iter().any(|(_, seen)| std::ptr::eq(*seen, form)) {
                    tables.push((format!("{key}."), form));
                }
            }
        }
    }
    Ok(())
}

fn requires(table: &Value, key: &str) -> bool {
    table.get("required").and_then(Value::as_array).is_some_and(|keys| keys.iter().any(|required| required == key))
}

/// A schema, or the schemas that it refers to or offers as alternatives, one level deep.
fn forms<'s>(subject: &'s Subject, schema: &'s Value) -> impl Iterator<Item = &'s Value> {
    let resolve = |schema: &'s Value| {
        let target = schema.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#'));
        target.and_then(|pointer| subject.schema().pointer(pointer)).unwrap_or(schema)
    };
    let schema = resolve(schema);
    let offered = ["anyOf", "oneOf"].into_iter().filter_map(|key| schema.get(key)?.as_array()).flatten();
    std::iter::once(schema).chain(offered.map(resolve))
}

/// Whether null is among the types, as it is for an `Option`.
fn takes_null(subject: &Subject, schema: &Value) -> bool {
    forms(subject, schema).any(|form| match form.get("type") {
        Some(Value::Array(types)) => types.iter().any(|name| name == "null"),
        other => other.is_some_and(|name| name == "null"),
    })
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
