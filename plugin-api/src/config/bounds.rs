//! The bounds that a schema sets on a number and on a length.

use serde_json::{Map, Value};

use super::words;

/// The problem with a number, if any.
pub(super) fn number(schema: &Map<String, Value>, value: &Value) -> Option<String> {
    let bound = |key: &str| schema.get(key).filter(|bound| bound.is_number());
    let exclusive = |bound: Option<&Value>, beyond: fn(f64, f64) -> bool| {
        let (bound, value) = (bound.and_then(Value::as_f64), value.as_f64());
        bound.zip(value).is_some_and(|(bound, value)| value == bound || beyond(value, bound))
    };
    let below = bound("minimum").is_some_and(|low| less(value, low));
    let above = bound("maximum").is_some_and(|high| less(high, value));
    let at_low = exclusive(bound("exclusiveMinimum"), |value, low| value < low);
    let at_high = exclusive(bound("exclusiveMaximum"), |value, high| value > high);
    // The limits of the key's type apply only if the schema has no bound of its own.
    let [least, most] = schema.get("format").and_then(Value::as_str).map_or([None, None], limits);
    let (small, large) =
        (least.as_ref().filter(|low| less(value, low)), most.as_ref().filter(|high| less(high, value)));
    if below || above || at_low || at_high || small.is_some() || large.is_some() {
        let part = |bound: Option<&Value>, word: &str| bound.map(|bound| format!("{word} {}", words::number(bound)));
        let low = part(bound("exclusiveMinimum"), "more than").or_else(|| part(bound("minimum").or(small), "at least"));
        let high = part(bound("exclusiveMaximum"), "less than").or_else(|| part(bound("maximum").or(large), "at most"));
        let range: Vec<String> = [low, high].into_iter().flatten().collect();
        return Some(format!("must be {}, not {}", range.join(" and "), words::number(value)));
    }
    if let (Some(step), Some(x)) = (bound("multipleOf"), value.as_f64())
        && step.as_f64().is_some_and(|step| step > 0.0 && (x / step).fract() != 0.0)
    {
        return Some(format!("must be a multiple of {}, not {}", words::number(step), words::number(value)));
    }
    None
}

/// The problem with the length of a text, list or table, if any.
pub(super) fn size(schema: &Map<String, Value>, [least, most]: [&str; 2], size: usize, what: &str) -> Option<String> {
    let bound = |key: &str| schema.get(key).and_then(Value::as_u64);
    let (least, most, size) = (bound(least), bound(most), size as u64);
    let counted = |count: u64| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    if size == 0 && least.is_some_and(|least| least > 0) {
        return Some("must not be empty".to_owned());
    }
    if least.is_some_and(|least| size < least) || most.is_some_and(|most| size > most) {
        let range = match (least, most) {
            (Some(least), Some(most)) if least == most => counted(least),
            (Some(least), Some(most)) => format!("{least} to {}", counted(most)),
            (Some(least), None) => format!("at least {}", counted(least)),
            (None, most) => format!("at most {}", counted(most.unwrap_or_default())),
        };
        return Some(format!("must have {range}, not {size}"));
    }
    None
}

fn less(a: &Value, b: &Value) -> bool {
    let whole = |value: &Value| value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => a < b,
        _ => a.as_f64() < b.as_f64(),
    }
}

/// The limits of the type that a format names.
fn limits(format: &str) -> [Option<Value>; 2] {
    let limits = |least: i64, most: u64| [Some(least.into()), Some(most.into())];
    match format {
        "int8" => limits(i8::MIN.into(), i8::MAX as u64),
        "int16" => limits(i16::MIN.into(), i16::MAX as u64),
        "int32" => limits(i32::MIN.into(), i32::MAX as u64),
        "uint8" => limits(0, u8::MAX.into()),
        "uint16" => limits(0, u16::MAX.into()),
        "uint32" => limits(0, u32::MAX.into()),
        "uint" | "uint64" | "uint128" => [Some(0.into()), None],
        "float" => [Some(f32::MIN.into()), Some(f32::MAX.into())],
        _ => [None, None],
    }
}
