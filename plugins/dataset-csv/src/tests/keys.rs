//! Keys that are wrong.

use super::*;

#[test]
fn keys_that_do_not_go_together_are_told_with_their_place() {
    let root = folder(&[("a.csv", &numbered(0..5))]);
    for (keys, wanted) in [
        (json!({}), "`files` is missing"),
        (json!({ "files": "x", "inputs": [] }), "`inputs` is missing"),
        (json!({ "files": "x", "task": [{ "name": "a", "inputs": [] }] }), "`task.0`: `inputs` is missing"),
        (json!({ "files": "x", "name": "b", "task": [{ "name": "a" }] }), "`name`: each task has a name of its own"),
        (json!({ "files": "x", "task": [{ "name": "a" }, { "name": "a" }] }), "`task.1.name`: two tasks are named `a`"),
        (json!({ "files": "x", "name": "a/b" }), "`name`: `a/b` cannot name the task's folder"),
        (json!({ "files": "x", "inputs": ["y"] }), "`target`: `y` is what the model reads"),
        (json!({ "files": "x", "inputs": ["seq", "seq"] }), "`inputs`: `seq` stands here twice"),
        (
            json!({ "files": "x", "task": [{ "name": "a" }, { "name": "b", "inputs": [], "number-inputs": ["seq"] }] }),
            "`task.1.inputs`: `seq` is text for one task and a number for another",
        ),
        (
            json!({ "files": "x", "test-files": "y", "test-column": "set" }),
            "`test-column`: both `test-column` and `test-files` say which rows are to be tested on",
        ),
        (
            json!({ "files": "x", "test-column": "set", "test-fraction": 0.5 }),
            "`test-fraction`: no row is split at random, so there is no influence of it",
        ),
    ] {
        let mut keys = keys;
        keys["clients"] = "by-task".into();
        assert_eq!(try_csv(&root, &keys).err().unwrap().to_string(), wanted);
    }
    for (keys, wanted) in [
        (json!({ "files": "ROOT/b*.csv" }), "`files`: `ROOT/b*.csv` names no file"),
        (json!({ "files": "ROOT/a.csv", "test-files": "ROOT/b.csv" }), "`test-files`: `ROOT/b.csv` names no file"),
        (
            json!({ "files": "ROOT/a.csv", "task": [{ "name": "t", "files": ["ROOT/a.csv", "ROOT/b"] }] }),
            "`task.0.files`: `ROOT/b` names no file",
        ),
        (
            json!({ "files": "ROOT/a.csv", "test-files": "ROOT/*.csv" }),
            "`test-files`: ROOT/a.csv is also one of `files`, whose rows are trained on",
        ),
        (
            json!({ "clients": { "pattern": "ROOT/{client}/*.csv" } }),
            "`clients.pattern`: `ROOT/{client}/*.csv` names no file",
        ),
    ] {
        let mut keys = keys;
        keys.as_object_mut().unwrap().entry("clients").or_insert("by-task".into());
        let told = csv(&root, keys).describe(&ctx()).unwrap_err().to_string();
        assert_eq!(told.replace(root.path().to_str().unwrap(), "ROOT"), wanted);
    }
}

#[test]
fn keys_are_checked_while_they_are_read() {
    let told = |mut more: Value| -> Vec<String> {
        more.as_object_mut().unwrap().entry("clients").or_insert("by-task".into());
        let problems = config::problems::<Config>(&more);
        problems.iter().map(|p| format!("{}: {}", p.path.join("."), p.message)).collect()
    };
    let ways = "`\"by-task\"`, `{ column = \"hospital\" }`, `{ pattern = \"data/{client}/*.csv\" }` or \
                `{ count = 6, alpha = 1.0 }`";
    for (keys, wanted) in [
        (json!({ "clients": {} }), format!("clients: must be one of {ways}")),
        (json!({ "clients": { "column": "a", "count": 2 } }), format!("clients: must be one of {ways}")),
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
            "clients: `data/*.csv` does not say with `{client}` where a client's name stands".into(),
        ),
        (
            json!({ "files": "{client}.csv" }),
            "files: `{client}.csv`: `{client}` has its place in `clients = { pattern = \"{client}.csv\" }`".into(),
        ),
        (
            json!({ "files": ["a.csv", "b/**"] }),
            "files.1: `b/**`: `**` has no meaning here; a `*` stands for names in one folder".into(),
        ),
        (json!({ "files": [] }), "files: must not be empty".into()),
        (json!({ "task": [] }), "task: an experiment needs at least one task".into()),
        (json!({ "task": [{ "nam": "x", "name": "y" }] }), "task.0.nam: unknown key `nam`".into()),
        (json!({ "delimiter": ";;" }), "delimiter: must have 1 character, not 2".into()),
        (json!({ "test-fraction": 1 }), "test-fraction: must be more than 0 and less than 1, not 1".into()),
    ] {
        assert_eq!(told(keys)[0], wanted);
    }
}
