//! Both ends of a way: whole rounds, what is kept, what is told, and what is refused.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{ALL, QUANTIZERS, Remembering, apply, at_client, at_server, config, floats, model, numbers, of, tensor};
use filter_compress::{Compress, Config, Method, Of};
use plugin_api::config::read;
use plugin_api::context::Silent;
use plugin_api::half::f16;
use plugin_api::{Component, Context, Error, Filter, Message, WeightedMean};
use serde_json::json;

/// What three clients send from a global model, each a little further on than it.
fn trained(global: &Message, round: u64) -> Vec<Message> {
    let further = |client: u64| {
        let moved = numbers(1000, 10 * round + client);
        let new: Vec<f32> = floats(global, "w").iter().zip(&moved).map(|(x, moved)| x + 0.1 * moved).collect();
        model(vec![("w", tensor(&new)), ("bias", tensor(&[round as f32, client as f32]))])
    };
    (0..3).map(further).collect()
}

fn start() -> Message {
    model(vec![("w", tensor(&numbers(1000, 99))), ("bias", tensor(&[0.0_f32, 0.0]))])
}

fn mean(updates: &[Message]) -> Message {
    let mut mean = WeightedMean::new();
    for (client, update) in updates.iter().enumerate() {
        mean.add(&update.params, client as f64 + 1.0, &client.to_string()).unwrap();
    }
    mean.finish().unwrap().into()
}

fn farthest(a: &Message, b: &Message) -> f32 {
    floats(a, "w").iter().zip(floats(b, "w")).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn rounds_of_a_federation_are_the_plain_ones_within_the_methods_error() {
    for method in QUANTIZERS {
        // An update is below 0.1, a value below 1.1. The mean's error is no larger than the clients'.
        let bound = match method {
            Method::Fp16 => 1.1 * 2_f32.powi(-11),
            Method::Bf16 => 1.1 * 2_f32.powi(-8),
            Method::Int8 => 0.1 / 254.0,
            _ => 0.1 * 0.152,
        };
        let mut clients = [0; 3].map(|_| at_client(&config(method)));
        let mut server = at_server(&config(method));
        let (mut plain, mut global) = (start(), start());
        for round in 0..3 {
            plain = mean(&trained(&plain, round));
            let back = |(client, update): (&mut Compress, Message)| {
                let sent = apply(client, &update, &global).unwrap();
                apply(&mut server, &sent, &global).unwrap()
            };
            global = mean(&clients.iter_mut().zip(trained(&global, round)).map(back).collect::<Vec<_>>());
            assert_eq!(global.params.names().collect::<Vec<_>>(), ["w", "bias"]);
            assert_eq!(floats(&global, "bias"), floats(&plain, "bias"));
            let error = farthest(&global, &plain);
            assert!(error > 0.0 && error <= bound * (round + 1) as f32 + 1e-6, "{method:?} {round}: {error:e}");
        }
    }
}

#[test]
fn top_k_sends_in_the_end_what_it_owed() {
    // One update, then none: after as many rounds as it takes, the server has all of it.
    let config = Config { keep: Some(0.1), ..config(Method::TopK) };
    let (mut client, mut server) = (at_client(&config), at_server(&config));
    let (mut global, target) = (start(), trained(&start(), 0).remove(1));
    for round in 0..10 {
        let x = if round == 0 { target.clone() } else { global.clone() };
        let sent = apply(&mut client, &x, &global).unwrap();
        global = apply(&mut server, &sent, &global).unwrap();
        assert_eq!(farthest(&global, &target) < 1e-6, round == 9, "{round}");
    }
}

#[test]
fn both_ways_can_be_lossy() {
    let down = of(Method::Fp16, Of::Values);
    for up in ALL.map(config) {
        let (mut server_out, mut client_in) = (at_server(&down), at_client(&down));
        let (mut client_out, mut server_in) = (at_client(&up), at_server(&up));
        let global = start();
        let sent = apply(&mut server_out, &global, &global).unwrap();
        assert_eq!(sent.bytes(), 2 * 1000 + 4 * 2 + 4);
        // At a client's input the base is what came.
        let received = apply(&mut client_in, &sent, &sent).unwrap();
        let update = trained(&received, 1).remove(0);
        let sent = apply(&mut client_out, &update, &received).unwrap();
        let restored = apply(&mut server_in, &sent, &global).unwrap();
        if up.method == Method::TopK {
            continue;
        }
        let lost = farthest(&global, &received);
        assert!(lost > 0.0 && farthest(&restored, &update) <= lost + 0.0152 + 1e-6, "{up:?}");
    }
}

#[test]
fn what_top_k_owes_is_saved_and_restored() {
    let config = Config { keep: Some(0.01), ..config(Method::TopK) };
    let ctx = Context::new(&Silent);
    let (mut whole, mut first) = (at_client(&config), at_client(&config));
    assert!(first.state(&ctx).unwrap().is_empty());
    let (mut global, mut all) = (start(), Vec::new());
    for round in 0..6 {
        let update = trained(&global, round).remove(0);
        let sent = apply(&mut whole, &update, &global).unwrap();
        all.push((update, global.clone(), sent.clone()));
        global = apply(&mut at_server(&config), &sent, &global).unwrap();
    }
    for (round, (update, global, sent)) in all.iter().enumerate() {
        if round == 3 {
            let state = first.state(&ctx).unwrap();
            first = at_client(&config);
            first.restore(&state, &ctx).unwrap();
        }
        let again = apply(&mut first, update, global).unwrap();
        assert_eq!(again.values, sent.values);
        for ((name, a), (_, b)) in again.params.iter().zip(sent.params.iter()) {
            assert_eq!(a.buffer().as_slice(), b.buffer().as_slice(), "round {round}, {name}");
        }
    }
    let (a, b) = (first.state(&ctx).unwrap(), whole.state(&ctx).unwrap());
    assert_eq!(a.values, b.values);
    assert_eq!(a.tensors.elements::<f32>("w", &[1000]).unwrap(), b.tensors.elements::<f32>("w", &[1000]).unwrap());
    let error = at_client(&common::config(Method::Int8)).restore(&a, &ctx).unwrap_err();
    assert_eq!(error.to_string(), "`method`: the checkpoint holds what `top-k` owes, and the method is `int8`");
}

#[test]
fn a_failure_changes_nothing_that_is_owed() {
    let config = Config { keep: Some(0.1), ..config(Method::TopK) };
    let ctx = Context::new(&Silent);
    let (mut client, global) = (at_client(&config), start());
    apply(&mut client, &trained(&global, 0)[0], &global).unwrap();
    let before = client.state(&ctx).unwrap();
    let mut bad = trained(&global, 1).remove(0);
    bad.params.insert("bias", tensor(&[f32::NAN]));
    apply(&mut client, &bad, &global).unwrap_err();
    let after = client.state(&ctx).unwrap();
    assert_eq!(before.values, after.values);
    let owed = |state: &plugin_api::State| state.tensors.elements::<f32>("w", &[1000]).unwrap().to_vec();
    assert_eq!(owed(&before), owed(&after));
}

#[test]
fn a_parameter_without_a_global_value_is_sent_whole() {
    let update = trained(&start(), 0).remove(0);
    for method in ALL {
        let (mut client, mut server) = (at_client(&config(method)), at_server(&config(method)));
        apply(&mut client, &update, &start()).unwrap();
        let sent = apply(&mut client, &update, &Message::default()).unwrap();
        let restored = apply(&mut server, &sent, &Message::default()).unwrap();
        let bound = if method == Method::TopK { 0.0 } else { 1.1 * 0.152 };
        assert!(farthest(&restored, &update) <= bound, "{method:?}");
        // And nothing of it is owed any more.
        assert!(client.state(&Context::new(&Silent)).unwrap().tensors.is_empty());
    }
}

#[test]
fn saved_bytes_are_told_and_totalled_for_each_client() {
    let host = Remembering::default();
    let config = of(Method::Int8, Of::Values);
    let ctx = |client| Context::new(&host).with_client(client).with_round(4);
    let mut client = Compress::new(config.clone(), &ctx("a")).unwrap();
    client.apply(start(), &start(), &ctx("a")).unwrap();
    client.apply(start(), &start(), &ctx("a")).unwrap();
    let (before, after) = (4008.0, 1000.0 + 4.0 + 8.0 + 4.0);
    let told = |suffix: &str| {
        vec![(format!("Bytes/saved{suffix}"), 4, before - after), (format!("Bytes/ratio{suffix}"), 4, before / after)]
    };
    assert_eq!(*host.scalars.lock().unwrap(), [told(""), told("")].concat());
    let last = host.notes.lock().unwrap().pop().unwrap();
    assert_eq!(last, ("sent".into(), "2.03 kB in place of 8.02 kB, 3.94 times fewer, in 2 messages".into()));

    // The server's filter speaks to all clients, and its totals outlive a checkpoint.
    host.scalars.lock().unwrap().clear();
    let mut server = at_server(&config);
    server.apply(start(), &start(), &ctx("b")).unwrap();
    let state = server.state(&ctx("b")).unwrap();
    server = at_server(&config);
    server.restore(&state, &ctx("b")).unwrap();
    server.apply(start(), &start(), &ctx("c")).unwrap();
    server.apply(start(), &start(), &ctx("b")).unwrap();
    assert_eq!(host.scalars.lock().unwrap()[..2], told("_received"));
    let notes = host.notes.lock().unwrap();
    let counts: Vec<_> = notes.iter().skip(2).map(|(key, text)| (key.as_str(), text.ends_with("2 messages"))).collect();
    assert_eq!(counts, [("received", false), ("received", true)]);
}

fn told(error: &Error) -> (String, String) {
    (error.to_string(), error.hint().unwrap_or_default().to_owned())
}

#[test]
fn an_update_on_the_way_to_the_clients_is_refused() {
    let told = |config: Config| told(&apply(&mut at_server(&config), &start(), &start()).unwrap_err());
    let what = "what is sent to the clients is the global model itself: there is no update of it";
    let (message, help) = told(config(Method::Int8));
    assert_eq!(message, format!("`of`: {what}"));
    assert_eq!(help, "write `of = \"values\"` in the table of this way");
    assert_eq!(told(config(Method::TopK)).0, format!("`method`: {what}"));
    // A client that did not train sends the very same tensors: that is an update, of nothing.
    apply(&mut at_client(&config(Method::Int8)), &start(), &start()).unwrap();
}

#[test]
fn ends_that_do_not_match_are_told() {
    let sent = apply(&mut at_client(&config(Method::Int8)), &start(), &start()).unwrap();
    let (message, help) = told(&apply(&mut at_server(&config(Method::Nf4)), &sent, &start()).unwrap_err());
    assert_eq!(message, "`method`: the message was encoded by `int8`, and the table at this end says `nf4`");
    assert!(help.contains("in one table"));
    let (message, _) = told(&apply(&mut at_client(&config(Method::Int8)), &sent, &start()).unwrap_err());
    assert_eq!(message, "the message was encoded already at this end of its way");
    // The block size goes with the message.
    let other = Config { block_size: Some(16), ..config(Method::Int8) };
    apply(&mut at_server(&other), &sent, &start()).unwrap();

    let base = model(vec![("w", tensor(&[0.0_f32; 999]))]);
    let told = |base: &Message| told(&apply(&mut at_server(&config(Method::Int8)), &sent, base).unwrap_err()).0;
    assert_eq!(told(&base), "tensor `w`: is f32[1000], and in the global model at this end f32[999]");
    assert_eq!(told(&Message::default()), "tensor `w`: came as an update, and the global model here lacks it");
    let error = apply(&mut at_client(&config(Method::TopK)), &start(), &base).unwrap_err();
    assert_eq!(error.to_string(), "tensor `w`: is f32[1000], and in the global model at this end f32[999]");
}

#[test]
fn a_message_that_nobody_restored_is_refused_as_a_model() {
    for method in ALL {
        let sent = apply(&mut at_client(&config(method)), &start(), &start()).unwrap();
        let error = WeightedMean::new().add(&sent.params, 1.0, "a").unwrap_err().to_string();
        assert_eq!(
            error,
            "tensor `encoded by the filter `compress`, which must restore it at the receiving end`: \
             client `a` sends a value that is not finite"
        );
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
    assert_eq!(restored(Method::Int8, &put(&[1, 2, 3])), "tensor `w`: came as 3 bytes, and [1000] take 1004");
    assert_eq!(
        restored(Method::TopK, &put(&[1, 2, 3])),
        "tensor `w`: came as 3 bytes, which are not places and values"
    );
    let places = "tensor `w`: came with places that are not those of 1000 elements";
    assert_eq!(restored(Method::TopK, &put(&[0xe8, 3, 0, 0, 0, 0, 0, 0])), places);
    assert_eq!(restored(Method::TopK, &put(&[0; 16])), places);
    let infinite = put(&[0, 0, 0, 0, 0, 0, 0x80, 0x7f]);
    assert_eq!(restored(Method::TopK, &infinite), "tensor `w`: holds a value that is not finite");
    let other_type = |message: &mut Message| drop(message.params.insert("w", tensor(&[1.0_f32; 251])));
    assert_eq!(restored(Method::Int8, &other_type), "tensor `w`: holds f32, not u8");
    let none = |message: &mut Message| drop(message.params.remove("w"));
    assert_eq!(restored(Method::Int8, &none), "tensor `w`: was encoded, and did not arrive");
    let version = |message: &mut Message| message.values["compress"]["version"] = 2.into();
    assert_eq!(restored(Method::Int8, &version), "the encoded message has version 2, and this filter reads version 1");
    let header = |message: &mut Message| message.values["compress"]["params"] = 2.into();
    assert_eq!(restored(Method::Int8, &header), "the encoded message does not say how to restore it");
    let dtype = |message: &mut Message| message.values["compress"]["params"]["w"]["dtype"] = "i64".into();
    assert_eq!(restored(Method::Fp16, &dtype), "tensor `w`: was sent as `i64`, which is no floating type");
    let huge = |message: &mut Message| {
        message.values["compress"]["params"]["w"]["shape"] = json!([u64::MAX, u64::MAX]);
    };
    assert!(restored(Method::Fp16, &huge).ends_with("which overflows"));
    let block = |message: &mut Message| message.values["compress"]["block-size"] = 0.into();
    assert_eq!(restored(Method::Int8, &block), "tensor `w`: must be at least 16, not 0");
    let values = |message: &mut Message| message.values["compress"]["params"]["w"]["of"] = "values".into();
    assert_eq!(restored(Method::TopK, &values), "tensor `w`: came from `top-k`, and not as an update");
}

#[test]
fn what_is_not_finite_or_too_large_is_named() {
    let told = |method, x: Message, base: &Message| {
        let error = apply(&mut at_client(&config(method)), &x, base).unwrap_err();
        assert_eq!(*error.kind(), plugin_api::ErrorKind::Tensor);
        told(&error)
    };
    let zeros = model(vec![("w", tensor(&[0.0_f32; 100]))]);
    for method in ALL {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            // In what is encoded, in what is not, and in what has no base.
            for size in [100, 3] {
                let mut values = vec![0.0; size];
                values[size - 1] = bad;
                let base = if size == 100 { &zeros } else { &Message::default() };
                let (message, help) = told(method, model(vec![("w", tensor(&values))]), base);
                assert_eq!(message, "tensor `w`: holds a value that is not finite", "{method:?}");
                assert!(help.contains("learning rate"));
                let mut x = zeros.clone();
                x.extra.insert("variate", tensor(&values));
                assert_eq!(told(method, x, &zeros).0, "tensor `variate`: holds a value that is not finite");
            }
        }
    }
    let large = |x: f32| model(vec![("w", tensor(&[x; 16]))]);
    for method in [Method::Int8, Method::Nf4, Method::TopK] {
        let (message, _) = told(method, large(f32::MAX), &large(f32::MIN));
        assert_eq!(message, "tensor `w`: holds a value or an update that is too large for f32");
    }
    let (message, help) = told(Method::Fp16, large(-65_520.0), &zeros);
    assert_eq!(message, "tensor `w`: holds a magnitude of 6.552e4, and fp16 ends at 65504");
    assert_eq!(help, "`bf16` has the range of f32");
    assert!(told(Method::Bf16, large(f32::MAX), &zeros).0.contains("bf16 ends at"));
    let huge = model(vec![("w", tensor(&[1e300_f64; 16]))]);
    assert!(told(Method::Bf16, huge, &zeros).0.ends_with("too large for f32"));
    assert_eq!(f16::from_f32(65_519.9).to_f32(), 65_504.0);
}

#[test]
fn bad_tables_are_told_with_their_keys() {
    let table = |value: serde_json::Value| match read::<Config>(&value) {
        Err(problems) => problems.into_iter().map(|p| format!("{}: {}", p.path.join("."), p.message)).collect(),
        Ok(config) => match Compress::new(config, &Context::new(&Silent)) {
            Ok(_) => Vec::new(),
            Err(error) => vec![error.to_string()],
        },
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
        (json!({ "method": "nf4", "block-size": 15 }), "block-size: must be from 16 to 1048576, not 15"),
        (json!({ "method": "nf4", "block-size": 2_000_000 }), "block-size: must be from 16 to 1048576, not 2000000"),
        (json!({ "method": "nf4", "block-size": 65 }), "`block-size`: must be even for `nf4`, not 65"),
        (
            json!({ "method": "fp16", "block-size": 64 }),
            "`block-size`: belongs to `int8` and `nf4`, and the method is `fp16`",
        ),
        (json!({ "method": "top-k", "keep": 0.0 }), "keep: must be more than 0 and at most 1, not 0"),
        (json!({ "method": "top-k", "keep": 1.5 }), "keep: must be more than 0 and at most 1, not 1.5"),
        (json!({ "method": "int8", "keep": 0.5 }), "`keep`: belongs to `top-k`, and the method is `int8`"),
        (
            json!({ "method": "top-k", "of": "values" }),
            "`of`: `top-k` of the values would set all others to 0: it is of the update alone",
        ),
        (json!({ "method": "fp16", "blocksize": 3 }), "blocksize: unknown key `blocksize`"),
    ] {
        assert_eq!(table(value), [wanted]);
    }
}

#[test]
fn it_is_the_same_behind_the_plugin_interface() {
    let component = Component::filter("compress", "", Compress::new);
    let table = json!({ "method": "top-k", "keep": 0.1 });
    let ctx = Context::new(&Silent).with_client("a").with_round(0);
    let mut client = component.new_filter(&table, &ctx).unwrap();
    let mut server = component.new_filter(&table, &Context::new(&Silent)).unwrap();
    let (global, update) = (start(), trained(&start(), 0).remove(2));
    let sent = client.apply(update.clone(), &global, &ctx).unwrap();
    let restored = server.apply(sent, &global, &ctx).unwrap();
    let config = Config { keep: Some(0.1), ..config(Method::TopK) };
    let direct = common::there(&config, &update, &global);
    assert_eq!(floats(&restored, "w"), floats(&direct, "w"));
    assert!(farthest(&direct, &update) > 0.0);
}
