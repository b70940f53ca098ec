use super::*;
use serde_json::json;

fn told(schema: &Value, value: &Value) -> Vec<String> {
    problems(schema, value)
        .iter()
        .map(|found| format!("{}: {}", found.problem.path.join("."), found.problem.message))
        .collect()
}

#[test]
fn the_keywords_of_a_configuration_struct_are_understood() {
    let schema = json!({
        "$defs": {
            "Mode": { "oneOf": [{ "const": "fast" }, { "type": "object", "required": ["steps"], "properties": { "steps": { "type": "integer", "maximum": 9 } } }] },
            "Way": { "oneOf": [{ "type": "string", "enum": ["there"] }, { "const": "back", "description": "Home." }] },
            "Shape": { "oneOf": [
                { "type": "object", "properties": { "how": { "const": "round" }, "radius": { "type": "number", "minimum": 0 } }, "required": ["how", "radius"], "additionalProperties": false },
                { "type": "object", "properties": { "how": { "const": "square" }, "side": { "type": "number" } }, "required": ["how", "side"], "additionalProperties": false },
            ] },
        },
        "type": "object",
        "properties": {
            "rate": { "type": "number", "exclusiveMinimum": 0.0, "maximum": 1.0 },
            "size": { "type": ["integer", "null"], "format": "uint32", "minimum": 1 },
            "byte": { "type": "integer", "format": "uint8", "minimum": 0, "maximum": 255 },
            "narrow": { "type": "number", "format": "float" },
            "width": { "type": "integer", "multipleOf": 8 },
            "mode": { "$ref": "#/$defs/Mode" },
            "way": { "anyOf": [{ "$ref": "#/$defs/Way" }, { "type": "null" }] },
            "shape": { "$ref": "#/$defs/Shape" },
            "names": { "type": "array", "items": { "type": "string", "minLength": 1 }, "minItems": 1, "maxItems": 3, "uniqueItems": true },
            "pair": { "type": "array", "prefixItems": [{ "type": "boolean" }, { "type": "string" }], "minItems": 2, "maxItems": 2 },
            "word": { "type": "string", "pattern": "^[a-z]+$", "maxLength": 4 },
            "by-number": { "type": "object", "patternProperties": { "^\\d+$": { "type": "number" } }, "additionalProperties": false },
        },
        "required": ["rate"],
        "additionalProperties": false,
    });
    for valid in [
        json!({ "rate": 1 }),
        json!({ "rate": 0.5, "size": null, "mode": "fast", "names": ["b", "a"], "way": "back", "word": "abcd" }),
        json!({ "rate": 0.5, "size": 3, "mode": { "steps": 1 }, "width": 16, "by-number": { "7": 1 }, "narrow": -1e30 }),
        json!({ "rate": 1e-300, "shape": { "how": "round", "radius": 0 }, "pair": [true, "x"], "byte": 255 }),
    ] {
        assert_eq!(told(&schema, &valid), [""; 0], "{valid}");
    }
    let with = |key: &str, value: Value| json!({ "rate": 1, key: value });
    for (wrong, wanted) in [
        (json!({}), ": `rate` is missing"),
        (json!({ "rate": 0 }), "rate: must be more than 0 and at most 1, not 0"),
        (json!({ "rate": "x" }), "rate: must be a number, not the text `x`"),
        (with("size", json!(0)), "size: must be at least 1, not 0"),
        (with("size", json!(-1)), "size: must be at least 1, not -1"),
        (with("size", json!(4_294_967_296_u64)), "size: must be at least 1 and at most 4294967295, not 4294967296"),
        (with("size", json!(1.0)), "size: must be a whole number, not the number `1.0`"),
        (with("byte", json!(256)), "byte: must be at least 0 and at most 255, not 256"),
        (with("narrow", json!(1e300)), "narrow: must be at most 3.4028234663852886e38, not 1e300"),
        (with("width", json!(12)), "width: must be a multiple of 8, not 12"),
        (with("mode", json!("slow")), "mode: unknown value `slow`"),
        (with("mode", json!(7)), "mode: must be `\"fast\"` or a table, not the whole number `7`"),
        (with("mode", json!({ "steps": 10 })), "mode.steps: must be at most 9, not 10"),
        (with("way", json!("up")), "way: unknown value `up`"),
        (with("way", json!(true)), "way: must be \"there\" or \"back\", not `true`"),
        (with("shape", json!({ "how": "round", "radius": -1 })), "shape.radius: must be at least 0, not -1"),
        (with("shape", json!({ "how": "square", "side": 1, "x": 1 })), "shape.x: unknown key `x`"),
        (with("shape", json!([1])), "shape: must be a table, not a list"),
        (with("names", json!([])), "names: must not be empty"),
        (with("names", json!(["a", "b", "c", "d"])), "names: must have 1 to 3 items, not 4"),
        (with("names", json!(["a", "a"])), "names: has the text `a` twice"),
        (with("names", json!(["a", ""])), "names.1: must not be empty"),
        (with("names", json!("a")), "names: must be a list, not the text `a`"),
        (with("pair", json!([1, "x"])), "pair.0: must be true or false, not the whole number `1`"),
        (with("pair", json!([true])), "pair: must have 2 items, not 1"),
        (with("word", json!("ABC")), "word: must match `^[a-z]+$`"),
        (with("word", json!("abcde")), "word: must have at most 4 characters, not 5"),
        (with("by-number", json!({ "x": 1 })), "by-number.x: unknown key `x`"),
        (with("by-number", json!({ "1": "x" })), "by-number.1: must be a number, not the text `x`"),
        (with("more", json!(1)), "more: unknown key `more`"),
    ] {
        assert_eq!(told(&schema, &wrong), [wanted], "{wrong}");
    }
    let all = told(&schema, &json!({ "size": 0, "more": 1, "names": [7, ""] }));
    assert_eq!(all.len(), 5, "{all:?}");
}

#[test]
fn a_schema_that_contains_itself_or_leads_nowhere_comes_to_an_end() {
    let circle = json!({ "$ref": "#/$defs/A", "$defs": { "A": { "anyOf": [{ "$ref": "#/$defs/A" }] } } });
    let _ = told(&circle, &json!(1));
    let tree = json!({ "type": "object", "properties": { "left": { "$ref": "#" } }, "additionalProperties": false });
    assert_eq!(told(&tree, &json!({ "left": { "left": { "right": 1 } } })), ["left.left.right: unknown key `right`"]);
    assert_eq!(told(&json!({ "$ref": "#/$defs/B" }), &json!(1)).len(), 1);
}
