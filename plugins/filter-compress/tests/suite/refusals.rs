//! Errors and their messages.

use crate::common::{ALL, apply, at_client, at_server, config, model, start, tensor};
use filter_compress::{Compress, Config, Method};
use plugin_api::config::{problems, read};
use plugin_api::context::Silent;
use plugin_api::{Context, Error, Message};
use serde_json::json;

fn message_and_hint(error: &Error) -> (String, String) {
    (error.to_string(), error.hint().unwrap_or_default().to_owned())
}

#[test]
fn updates_to_the_clients_are_refused() {
    let refused = |config: Config| message_and_hint(&apply(&mut at_server(&config), &start(), &start()).unwrap_err());
    let what = "the server sends the global model itself, not an update";
    let (message, help) = refused(config(Method::Int8));
    assert_eq!(message, format!("`of`: {what}"));
    assert_eq!(help, "write `of = \"values\"` in the table for this direction");
    assert_eq!(refused(config(Method::TopK)).0, format!("`method`: {what}"));
    // A client that did not train sends the very same tensors: that is an update, of nothing.
    apply(&mut at_client(&config(Method::Int8)), &start(), &start()).unwrap();
}

#[test]
fn mismatched_ends_are_errors() {
    let sent = apply(&mut at_client(&config(Method::Int8)), &start(), &start()).unwrap();
    let (message, help) = message_and_hint(&apply(&mut at_server(&config(Method::Nf4)), &sent, &start()).unwrap_err());
    assert_eq!(message, "`method`: the message was encoded by `int8`, but the method at this end is `nf4`");
    assert!(help.contains("in one table"));
    let (message, _) = message_and_hint(&apply(&mut at_client(&config(Method::Int8)), &sent, &start()).unwrap_err());
    assert_eq!(message, "the message was already encoded at this end");
    // The block size goes with the message.
    let other = Config { block_size: Some(16), ..config(Method::Int8) };
    apply(&mut at_server(&other), &sent, &start()).unwrap();

    let base = model(vec![("w", tensor(&[0.0_f32; 999]))]);
    let refused =
        |base: &Message| message_and_hint(&apply(&mut at_server(&config(Method::Int8)), &sent, base).unwrap_err()).0;
    assert_eq!(refused(&base), "tensor `w`: is f32[1000], but f32[999] in the global model at this end");
    assert_eq!(refused(&Message::default()), "tensor `w`: is an update, but the global model at this end lacks it");
    let error = apply(&mut at_client(&config(Method::TopK)), &start(), &base).unwrap_err();
    assert_eq!(error.to_string(), "tensor `w`: is f32[1000], but f32[999] in the global model at this end");
}

#[test]
fn a_message_that_was_not_restored_is_refused_as_a_model() {
    for method in ALL {
        let sent = apply(&mut at_client(&config(method)), &start(), &start()).unwrap();
        // The marker is NaN, and the host refuses updates with NaN.
        let marker = "encoded by the filter compress, which must restore it at the receiving end";
        assert_eq!(sent.params.not_finite(1), Some(marker));
        // A model that looks for its own parameters finds bytes.
        sent.params.elements::<f32>("w", &[1000]).unwrap_err();
    }
}

#[test]
fn damaged_messages_are_refused() {
    let restored = |method, damage: &dyn Fn(&mut Message)| {
        let mut sent = apply(&mut at_client(&config(method)), &start(), &start()).unwrap();
        damage(&mut sent);
        apply(&mut at_server(&config(method)), &sent, &start()).unwrap_err().to_string()
    };
    let put = |bytes: &'static [u8]| move |message: &mut Message| drop(message.params.insert("w", tensor(bytes)));
    assert_eq!(restored(Method::Int8, &put(&[1, 2, 3])), "tensor `w`: has 3 bytes, but [1000] takes 1004");
    assert_eq!(restored(Method::TopK, &put(&[1, 2, 3])), "tensor `w`: has 3 bytes, which are not indices and values");
    let indices = "tensor `w`: has indices that are not ascending or not less than 1000";
    assert_eq!(restored(Method::TopK, &put(&[0xe8, 3, 0, 0, 0, 0, 0, 0])), indices);
    assert_eq!(restored(Method::TopK, &put(&[0; 16])), indices);
    let infinite = put(&[0, 0, 0, 0, 0, 0, 0x80, 0x7f]);
    assert_eq!(restored(Method::TopK, &infinite), "tensor `w`: has a value that is not finite");
    let other_type = |message: &mut Message| drop(message.params.insert("w", tensor(&[1.0_f32; 251])));
    assert_eq!(restored(Method::Int8, &other_type), "tensor `w`: holds f32, not u8");
    let none = |message: &mut Message| drop(message.params.remove("w"));
    assert_eq!(restored(Method::Int8, &none), "tensor `w`: was encoded, but did not arrive");
    let version = |message: &mut Message| message.values["compress"]["version"] = 2.into();
    assert_eq!(restored(Method::Int8, &version), "the encoded message has version 2, but this filter reads version 1");
    let header = |message: &mut Message| message.values["compress"]["params"] = 2.into();
    assert_eq!(restored(Method::Int8, &header), "the header of the encoded message is invalid");
    let dtype = |message: &mut Message| message.values["compress"]["params"]["w"]["dtype"] = "i64".into();
    assert_eq!(restored(Method::Fp16, &dtype), "tensor `w`: was sent as `i64`, which is not a floating-point type");
    let huge = |message: &mut Message| {
        message.values["compress"]["params"]["w"]["shape"] = json!([u64::MAX, u64::MAX]);
    };
    assert!(restored(Method::Fp16, &huge).ends_with("which overflows"));
    let block = |message: &mut Message| message.values["compress"]["block-size"] = 0.into();
    assert_eq!(restored(Method::Int8, &block), "tensor `w`: must be at least 16, not 0");
    let values = |message: &mut Message| message.values["compress"]["params"]["w"]["of"] = "values".into();
    assert_eq!(restored(Method::TopK, &values), "tensor `w`: was encoded by `top-k`, but not as an update");
}

#[test]
fn tensors_with_values_not_finite_or_too_large_are_named() {
    let refused = |method, x: Message, base: &Message| {
        let error = apply(&mut at_client(&config(method)), &x, base).unwrap_err();
        assert_eq!(*error.kind(), plugin_api::ErrorKind::Tensor);
        message_and_hint(&error)
    };
    let zeros = model(vec![("w", tensor(&[0.0_f32; 100]))]);
    for method in ALL {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            // In tensors that are encoded, that are too small, and that have no base.
            for size in [100, 3] {
                let mut values = vec![0.0; size];
                values[size - 1] = bad;
                let base = if size == 100 { &zeros } else { &Message::default() };
                let (message, help) = refused(method, model(vec![("w", tensor(&values))]), base);
                assert_eq!(message, "tensor `w`: has a value that is not finite", "{method:?}");
                assert!(help.contains("learning rate"));
                let mut x = zeros.clone();
                x.extra.insert("variate", tensor(&values));
                assert_eq!(refused(method, x, &zeros).0, "tensor `variate`: has a value that is not finite");
            }
        }
    }
    let large = |x: f32| model(vec![("w", tensor(&[x; 16]))]);
    for method in [Method::Int8, Method::Nf4, Method::TopK] {
        let (message, _) = refused(method, large(f32::MAX), &large(f32::MIN));
        assert_eq!(message, "tensor `w`: has a value or an update that is too large for f32");
    }
    let (message, help) = refused(Method::Fp16, large(-65_520.0), &zeros);
    assert_eq!(message, "tensor `w`: has a magnitude of 6.552e4, but fp16 ends at 65504");
    assert_eq!(help, "`bf16` has the range of f32");
    assert!(refused(Method::Bf16, large(f32::MAX), &zeros).0.contains("bf16 ends at"));
    let huge = model(vec![("w", tensor(&[1e300_f64; 16]))]);
    assert!(refused(Method::Bf16, huge, &zeros).0.ends_with("too large for f32"));
}

#[test]
fn invalid_tables_are_reported_with_their_keys() {
    let table = |value: serde_json::Value| -> Vec<String> {
        let problems = problems::<Config>(&value);
        if !problems.is_empty() {
            return problems.into_iter().map(|p| format!("{}: {}", p.path.join("."), p.message)).collect();
        }
        let made = Compress::new(read(&value).unwrap(), &Context::new(&Silent));
        made.err().into_iter().map(|error| error.to_string()).collect()
    };
    let good = [
        json!({ "method": "fp16" }),
        json!({ "method": "bf16", "of": "update" }),
        json!({ "method": "int8", "block-size": 17, "of": "values" }),
        json!({ "method": "nf4", "block-size": 16 }),
        json!({ "method": "top-k", "keep": 1 }),
    ];
    for value in good {
        assert_eq!(table(value), [""; 0]);
    }
    for (value, wanted) in [
        (json!({}), ": `method` is missing"),
        (json!({ "method": "int4" }), "method: unknown value `int4`"),
        (json!({ "method": "nf4", "block-size": 15 }), "block-size: must be at least 16 and at most 1048576, not 15"),
        (
            json!({ "method": "nf4", "block-size": 2_000_000 }),
            "block-size: must be at least 16 and at most 1048576, not 2000000",
        ),
        (json!({ "method": "nf4", "block-size": 65 }), "`block-size`: must be even for `nf4`, not 65"),
        (
            json!({ "method": "fp16", "block-size": 64 }),
            "`block-size`: is only for `int8` and `nf4`, but the method is `fp16`",
        ),
        (json!({ "method": "top-k", "keep": 0.0 }), "keep: must be more than 0 and at most 1, not 0"),
        (json!({ "method": "top-k", "keep": 1.5 }), "keep: must be more than 0 and at most 1, not 1.5"),
        (json!({ "method": "int8", "keep": 0.5 }), "`keep`: is only for `top-k`, but the method is `int8`"),
        (
            json!({ "method": "top-k", "of": "values" }),
            "`of`: `top-k` encodes only updates: of values, it would set all others to 0",
        ),
        (json!({ "method": "fp16", "blocksize": 3 }), "blocksize: unknown key `blocksize`"),
    ] {
        assert_eq!(table(value), [wanted]);
    }
}
