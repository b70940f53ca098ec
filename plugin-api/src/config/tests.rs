use super::*;
use serde_json::json;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[expect(dead_code, reason = "only its reading is tested")]
struct Config {
    rounds: u32,
    #[serde(default)]
    inner: Inner,
    mode: Option<Mode>,
}
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its reading is tested")]
struct Inner {
    #[serde(default)]
    size: u8,
}
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    Fast,
}

fn told(value: &Value) -> Vec<(String, String)> {
    read::<Config>(value).unwrap_err().into_iter().map(|p| (p.path.join("."), p.message)).collect()
}

#[test]
fn all_problems_are_told_at_once() {
    let found = told(&json!({"rounds": "ten", "inner": {"size": 300, "sise": 1}, "mode": "fats", "round": 1}));
    let paths: Vec<_> = found.iter().map(|(path, _)| path.as_str()).collect();
    for path in ["rounds", "inner.size", "inner.sise", "mode", "round"] {
        assert!(paths.contains(&path), "{path} is not in {found:?}");
    }
    assert_eq!(paths.len(), 5, "{found:?}");
}

#[test]
fn a_bad_key_that_must_be_there_does_not_hide_what_comes_after_it() {
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its reading is tested")]
    struct Outer {
        inner: Needed,
        number: u8,
    }
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its reading is tested")]
    struct Needed {
        alpha: u8,
    }
    let found = read::<Outer>(&json!({"inner": {"alpha": "x"}, "number": "y"})).unwrap_err();
    assert_eq!(found.iter().map(|p| p.path.join(".")).collect::<Vec<_>>(), ["inner.alpha", "number"]);
}

#[test]
fn a_missing_key_is_told_and_an_unknown_one_lists_the_known() {
    assert_eq!(told(&json!({})), [(String::new(), "`rounds` is missing".into())]);
    let problems = read::<Config>(&json!({"rounds": 1, "modee": 1})).unwrap_err();
    assert_eq!(problems[0].known, ["rounds", "inner", "mode"]);
    assert!(problems[0].is_of_the_name());
    let problems = read::<Config>(&json!({"rounds": 1, "mode": "fats"})).unwrap_err();
    assert!(!problems[0].is_of_the_name());
}

#[test]
fn schema_and_struct_are_heard_together_and_nothing_is_told_twice() {
    #[derive(Debug, Deserialize, schemars::JsonSchema)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    #[expect(dead_code, reason = "only its reading is tested")]
    struct Bounded {
        #[schemars(range(min = 1, max = 9))]
        size: u32,
        #[serde(deserialize_with = "even")]
        even: u32,
        #[serde(deserialize_with = "even")]
        #[schemars(extend("pattern" = "x"))]
        other: u32,
        list: Vec<u8>,
    }
    fn even<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<u32, D::Error> {
        let value = u32::deserialize(deserializer)?;
        if value % 2 == 0 { Ok(value) } else { Err(serde::de::Error::custom("must be even")) }
    }
    let told = |value: Value| {
        let problems = problems::<Bounded>(&value);
        problems.iter().map(|p| format!("{}: {}", p.path.join("."), p.message)).collect::<Vec<_>>()
    };
    assert_eq!(told(json!({ "size": 9, "even": 2, "other": 2, "list": [] })), [""; 0]);
    assert_eq!(told(json!({ "even": 2, "other": 2, "list": [], "size": 0, "more": 1 })).len(), 2);
    // Problems from the schema, and the struct's problems with what the schema accepts. A number that no u8 holds
    // appears once.
    let all = told(json!({ "size": 10, "even": 3, "list": [1, 300], "more": 1 }));
    let wanted = [
        ": `other` is missing",
        "size: must be at least 1 and at most 9, not 10",
        "list.1: must be at least 0 and at most 255, not 300",
        "more: unknown key `more`",
        "even: must be even",
    ];
    assert_eq!(
        all.iter().collect::<std::collections::BTreeSet<_>>(),
        wanted.map(str::to_owned).iter().collect(),
        "{all:?}"
    );
    assert_eq!(all.len(), wanted.len(), "{all:?}");
}

#[test]
fn messages_of_serde_speak_of_tables_and_lists() {
    for (message, wanted) in [
        ("invalid type: sequence, expected a map", "must be a table, not a list"),
        ("invalid type: string \"x\", expected u64", "must be a whole number from 0, not the text `x`"),
        ("invalid value: integer `-1`, expected u8", "must be a whole number from 0 to 255, not the whole number `-1`"),
        (
            "invalid value: integer `0`, expected a nonzero usize",
            "must be a whole number from 1, not the whole number `0`",
        ),
        ("invalid type: floating point `1.5`, expected i64", "must be a whole number, not the number `1.5`"),
        ("invalid type: boolean `true`, expected a string", "must be text, not `true`"),
        ("invalid type: map, expected struct Config", "must be a table, not a table"),
        ("must be even", "must be even"),
    ] {
        assert_eq!(words::plain(message), wanted);
    }
}

#[test]
fn thousands_of_unknown_keys_take_no_longer_than_each_its_share() {
    let mut table: Map<String, Value> = (0..20_000).map(|i| (format!("key-{i}"), json!(1))).collect();
    table.insert("rounds".to_owned(), json!(1));
    let begun = std::time::Instant::now();
    assert_eq!(read::<Config>(&table.into()).unwrap_err().len(), 20_000);
    // With one pass over the table for each key, this took minutes.
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn a_table_that_lacks_a_key_is_not_said_to_be_missing_itself() {
    #[derive(Debug, Deserialize, schemars::JsonSchema)]
    #[expect(dead_code, reason = "only its reading is tested")]
    struct Outer {
        inner: Needed,
    }
    #[derive(Debug, Deserialize, schemars::JsonSchema)]
    #[expect(dead_code, reason = "only its reading is tested")]
    struct Needed {
        alpha: u8,
    }
    let told = problems::<Outer>(&json!({ "inner": {} }));
    assert_eq!(told.iter().map(|p| p.message.as_str()).collect::<Vec<_>>(), ["`alpha` is missing"]);
}
