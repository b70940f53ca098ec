//! Invalid keys.

use super::*;

#[test]
fn conflicting_keys_are_errors_at_their_paths() {
    let root = folder(&[("a.csv", &numbered(0..5))]);
    for (keys, wanted) in [
        (json!({}), "`files` is missing"),
        (json!({ "files": "x", "inputs": [] }), "`inputs` is missing"),
        (json!({ "files": "x", "task": [{ "name": "a", "inputs": [] }] }), "`task.0`: `inputs` is missing"),
        (json!({ "files": "x", "name": "b", "task": [{ "name": "a" }] }), "`name`: each task has its own `name`"),
        (json!({ "files": "x", "task": [{ "name": "a" }, { "name": "a" }] }), "`task.1.name`: two tasks are named `a`"),
        (json!({ "files": "x", "name": "a/b" }), "`name`: `a/b` cannot be the name of the task's folder"),
        (json!({ "files": "x", "inputs": ["y"] }), "`target`: `y` is an input of the model"),
        (json!({ "files": "x", "inputs": ["seq", "seq"] }), "`inputs`: `seq` is listed twice"),
        (
            json!({ "files": "x", "task": [{ "name": "a" }, { "name": "b", "inputs": [], "number-inputs": ["seq"] }] }),
            "`task.1.inputs`: `seq` is text for one task and a number for another",
        ),
        (
            json!({ "files": "x", "test-files": "y", "test-column": "set" }),
            "`test-column`: both `test-column` and `test-files` give the split",
        ),
        (
            json!({ "files": "x", "test-column": "set", "test-fraction": 0.5 }),
            "`test-fraction`: has no effect, since no rows are split at random",
        ),
    ] {
        let mut keys = keys;
        keys["clients"] = "by-task".into();
        assert_eq!(try_csv(&root, &keys).err().unwrap().to_string(), wanted);
    }
    for (keys, wanted) in [
        (json!({ "files": "ROOT/b*.csv" }), "`files`: `ROOT/b*.csv` matches no file"),
        (json!({ "files": "ROOT/a.csv", "test-files": "ROOT/b.csv" }), "`test-files`: `ROOT/b.csv` matches no file"),
        (
            json!({ "files": "ROOT/a.csv", "task": [{ "name": "t", "files": ["ROOT/a.csv", "ROOT/b"] }] }),
            "`task.0.files`: `ROOT/b` matches no file",
        ),
        (
            json!({ "files": "ROOT/a.csv", "test-files": "ROOT/*.csv" }),
            "`test-files`: ROOT/a.csv is also one of `files`, whose rows are for training",
        ),
        (
            json!({ "clients": { "pattern": "ROOT/{client}/*.csv" } }),
            "`clients.pattern`: `ROOT/{client}/*.csv` matches no file",
        ),
    ] {
        let mut keys = keys;
        keys.as_object_mut().unwrap().entry("clients").or_insert("by-task".into());
        let error = csv(&root, keys).describe(&ctx()).unwrap_err().to_string();
        assert_eq!(error.replace(root.path().to_str().unwrap(), "ROOT"), wanted);
    }
}

#[test]
fn invalid_values_are_reported_with_their_keys() {
    let problems = |mut more: Value| -> Vec<String> {
        more.as_object_mut().unwrap().entry("clients").or_insert("by-task".into());
        let problems = config::problems::<Config>(&more);
        problems.iter().map(|p| format!("{}: {}", p.path.join("."), p.message)).collect()
    };
    let forms = "`\"by-task\"`, `{ column = \"hospital\" }`, `{ pattern = \"data/{client}/*.csv\" }` or \
                `{ count = 6, alpha = 1.0 }`";
    for (keys, wanted) in [
        (json!({ "clients": {} }), format!("clients: must be one of {forms}")),
        (json!({ "clients": { "column": "a", "count": 2 } }), format!("clients: must be one of {forms}")),
        (json!({ "clients": 3 }), "clients: must be `\"by-task\"` or a table, not the whole number `3`".into()),
        (json!({ "clients": "by-tusk" }), "clients: unknown value `by-tusk`".into()),
        (json!({ "clients": { "columm": "a" } }), "clients.columm: unknown key `columm`".into()),
        (json!({ "clients": { "count": 2 } }), "clients: `alpha` is missing".into()),
        (
            json!({ "clients": { "count": 2, "alpha": 0 } }),
            "clients.alpha: must be at least 1e-6 and at most 1000000, not 0".into(),
        ),
        (
            json!({ "clients": { "pattern": "data/*.csv" } }),
            "clients: `data/*.csv` lacks `{client}`, the place of a client's name".into(),
        ),
        (
            json!({ "files": "{client}.csv" }),
            "files: `{client}.csv`: `{client}` is allowed only in `clients = { pattern = \"{client}.csv\" }`".into(),
        ),
        (
            json!({ "files": ["a.csv", "b/**"] }),
            "files.1: `b/**`: `**` is not supported; `*` matches names in one folder".into(),
        ),
        (json!({ "files": [] }), "files: must not be empty".into()),
        (json!({ "task": [] }), "task: an experiment needs at least one task".into()),
        (json!({ "task": [{ "nam": "x", "name": "y" }] }), "task.0.nam: unknown key `nam`".into()),
        (json!({ "delimiter": ";;" }), "delimiter: must have 1 character, not 2".into()),
        (json!({ "test-fraction": 1 }), "test-fraction: must be more than 0 and less than 1, not 1".into()),
    ] {
        assert_eq!(problems(keys)[0], wanted);
    }
}
