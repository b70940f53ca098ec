//! Both ends of a connection: whole rounds, state, and records.

use crate::common::{
    self, ALL, QUANTIZERS, Remembering, apply, at_client, at_server, config, farthest, floats, of, start, tensor,
    trained,
};
use filter_compress::{Compress, Config, Method, Quantity};
use plugin_api::context::Silent;
use plugin_api::{Component, Context, Filter, Message, WeightedMean};
use serde_json::json;

fn mean(updates: &[Message]) -> Message {
    let mut mean = WeightedMean::new();
    for (client, update) in updates.iter().enumerate() {
        mean.add(&update.params, client as f64 + 1.0, &client.to_string()).unwrap();
    }
    mean.finish().unwrap().into()
}

#[test]
fn compressed_rounds_equal_plain_ones_within_the_error_of_the_method() {
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
fn top_k_sends_residuals_in_later_rounds() {
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
fn both_directions_can_be_lossy() {
    let down = of(Method::Fp16, Quantity::Values);
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
fn residuals_of_top_k_are_saved_and_restored() {
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
    assert_eq!(error.to_string(), "`method`: the checkpoint has residuals of `top-k`, but the method is `int8`");
}

#[test]
fn an_error_does_not_change_residuals() {
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
fn a_parameter_without_a_global_value_is_sent_as_values() {
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
fn saved_bytes_are_recorded_and_totalled_for_each_client() {
    let host = Remembering::default();
    let config = of(Method::Int8, Quantity::Values);
    let ctx = |client| Context::new(&host).with_client(client).with_round(4);
    let mut client = Compress::new(config.clone(), &ctx("a")).unwrap();
    client.apply(start(), &start(), &ctx("a")).unwrap();
    client.apply(start(), &start(), &ctx("a")).unwrap();
    let (before, after) = (4008.0, 1000.0 + 4.0 + 8.0 + 4.0);
    let scalars = |suffix: &str| {
        vec![(format!("Bytes/saved{suffix}"), 4, before - after), (format!("Bytes/ratio{suffix}"), 4, before / after)]
    };
    assert_eq!(*host.scalars.lock().unwrap(), [scalars(""), scalars("")].concat());
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
    assert_eq!(host.scalars.lock().unwrap()[..2], scalars("_received"));
    let notes = host.notes.lock().unwrap();
    let counts: Vec<_> = notes.iter().skip(2).map(|(key, text)| (key.as_str(), text.ends_with("2 messages"))).collect();
    assert_eq!(counts, [("received", false), ("received", true)]);
}

#[test]
fn results_are_the_same_across_the_plugin_boundary() {
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
