//! The server optimisers by hand, and what is around them.

use crate::common::{aggregated, model, params, reference, server, tensor, update, updates};
use aggregator_fedopt::{Config, FedOpt};
use plugin_api::config::{problems, read};
use plugin_api::context::Silent;
use plugin_api::half::bf16;
use plugin_api::{Aggregator, Cohort, Context, Message, Params, Result, Update};
use serde_json::{Value, json};

fn adam() -> FedOpt {
    server(json!({ "optimizer": "adam", "learning-rate": 0.1 }))
}

/// A round: each client's steps and parameters.
fn round(server: &mut FedOpt, global: &Params, clients: Vec<(u64, Params)>) -> Result<Params> {
    let updates = clients.into_iter().enumerate().map(|(k, (steps, params))| update(k, steps, 8 * steps, params));
    aggregated(server, global, updates.collect())
}

fn bits(params: &Params) -> Vec<(String, Vec<u8>)> {
    params.iter().map(|(name, tensor)| (name.to_owned(), tensor.buffer().as_slice().to_vec())).collect()
}

#[test]
fn the_first_steps_are_what_one_computes_by_hand() {
    let first = |config: Value| {
        let next = round(
            &mut server(config),
            &params(vec![("w", tensor(&[1.0_f64]))]),
            vec![(1, params(vec![("w", tensor(&[1.5_f64]))]))],
        );
        next.unwrap().elements::<f64>("w", &[1]).unwrap()[0]
    };
    let near = |got: f64, want: f64| assert!((got - want).abs() < 1e-12, "{got} {want}");
    // Δ = 0.5, m = 0.05, v = 0.99 · 0.01² + 0.01 · 0.25.
    let rate = json!({ "optimizer": "adam", "learning-rate": 0.1, "tau": 0.01 });
    near(first(rate), 1.0 + 0.1 * 0.05 / ((0.99 * 1e-4 + 0.0025_f64).sqrt() + 0.01));
    // Corrected, the first step of Adam is η Δ / (|Δ| + τ).
    let rate = json!({ "optimizer": "adam", "learning-rate": 0.1, "tau": 0.01, "bias-correction": true });
    near(first(rate), 1.0 + 0.1 * 0.5 / 0.51);
    // Yogi adds, since v < Δ².
    let rate = json!({ "optimizer": "yogi", "learning-rate": 0.1, "tau": 0.01 });
    near(first(rate), 1.0 + 0.1 * 0.05 / ((1e-4 + 0.0025_f64).sqrt() + 0.01));
    // … and rests where v = Δ²: sign(0) is 0.
    let rate = json!({ "optimizer": "yogi", "learning-rate": 0.1, "tau": 0.5 });
    near(first(rate), 1.0 + 0.1 * 0.05 / 1.0);
    let rate = json!({ "optimizer": "adagrad", "learning-rate": 0.1, "tau": 0.01 });
    near(first(rate), 1.0 + 0.1 * 0.5 / ((1e-4 + 0.25_f64).sqrt() + 0.01));
}

#[test]
fn momentum_of_nothing_with_rate_one_is_fedavg() {
    let reference = reference();
    let mut server = server(json!({ "optimizer": "momentum", "learning-rate": 1.0, "momentum": 0.0 }));
    let start = model(&reference["start"]);
    let next = aggregated(&mut server, &start, updates(&reference, 0)).unwrap();
    let mut mean = plugin_api::WeightedMean::new();
    for Update { message, steps, .. } in updates(&reference, 0) {
        mean.add(&message.params, steps as f64, "c").unwrap();
    }
    let mean = mean.finish().unwrap();
    let pair = |params: &Params| params.elements::<f64>("b", &[4]).unwrap().to_vec();
    assert!(pair(&next).iter().zip(pair(&mean)).all(|(a, b)| (a - b).abs() < 1e-15));
}

#[test]
fn a_state_saved_in_the_middle_gives_the_same_bits() {
    let reference = reference();
    let ctx = Context::new(&Silent);
    let cases = ["flower", "nvflare"].map(|library| reference[library].as_array().unwrap());
    for case in cases.into_iter().flatten() {
        let run = |broken_at: Option<usize>| {
            let mut aggregator = server(case["config"].clone());
            let mut global = model(&reference["start"]);
            for t in 0..6 {
                if broken_at == Some(t) {
                    let state = aggregator.state(&ctx).unwrap();
                    aggregator = server(case["config"].clone());
                    aggregator.restore(&state, &ctx).unwrap();
                }
                global = aggregated(&mut aggregator, &global, updates(&reference, t)).unwrap();
            }
            (bits(&global), bits(&aggregator.state(&ctx).unwrap().tensors))
        };
        for t in [0, 1, 3] {
            assert_eq!(run(Some(t)), run(None), "{}", case["config"]);
        }
    }
}

#[test]
fn a_state_that_does_not_fit_is_refused_and_leaves_no_trace() {
    let ctx = Context::new(&Silent);
    let (w, other) = (|x: f32| params(vec![("w", tensor(&[x]))]), params(vec![("w", tensor(&[1.0_f32, 2.0]))]));
    let mut yogi = server(json!({ "optimizer": "yogi", "learning-rate": 0.1 }));
    round(&mut yogi, &w(0.0), vec![(1, w(1.0))]).unwrap();
    let before = yogi.state(&ctx).unwrap();
    let mut lacking = before.clone();
    lacking.tensors.remove("second.w");
    assert_eq!(
        yogi.restore(&lacking, &ctx).unwrap_err().to_string(),
        "tensor `second.w`: is missing from the checkpoint"
    );
    assert_eq!(
        adam().restore(&before, &ctx).unwrap_err().to_string(),
        "`optimizer`: the checkpoint was made with `yogi`, but this is `adam`"
    );
    assert!(adam().restore(&plugin_api::State::default(), &ctx).unwrap_err().to_string().contains("`optimizer`"));
    assert_eq!(bits(&yogi.state(&ctx).unwrap().tensors), bits(&before.tensors));
    let error = round(&mut yogi, &other, vec![(1, other.clone())]).unwrap_err();
    assert_eq!(error.to_string(), "tensor `w`: its moments are f32[1], but it is f32[2]");
}

#[test]
fn new_unsent_and_integer_parameters() {
    let ctx = Context::new(&Silent);
    let mut server = adam();
    let global = params(vec![("w", tensor(&[0.0_f32])), ("head", tensor(&[5.0_f32])), ("count", tensor(&[3_i64]))]);
    let sent =
        |w: f32, new: f32| (1, params(vec![("w", tensor(&[w])), ("new", tensor(&[new])), ("count", tensor(&[4_i64]))]));
    let next = round(&mut server, &global, vec![sent(1.0, 2.0), sent(3.0, 4.0)]).unwrap();
    // The head that nobody sent has no global value any more; the new one is the mean; integers pass if they are equal.
    assert_eq!(next.names().collect::<Vec<_>>(), ["w", "new", "count"]);
    assert_eq!(next.elements::<f32>("new", &[1]).unwrap(), [3.0]);
    assert_eq!(next.elements::<i64>("count", &[1]).unwrap(), [4]);
    let moments = |server: &mut FedOpt| {
        let state = server.state(&ctx).unwrap();
        (state.tensors.names().map(str::to_owned).collect::<Vec<_>>(), state.values["rounds"].clone())
    };
    assert_eq!(moments(&mut server), (vec!["first.w".into(), "second.w".into()], json!({ "w": 1 })));
    // From now on the new one is optimised too, and starts at its own first round.
    let next = round(&mut server, &next, vec![sent(1.0, 2.0)]).unwrap();
    assert_eq!(moments(&mut server).1, json!({ "w": 2, "new": 1 }));
    // A parameter that nobody sent takes no step. It has left the global model and comes back as new as any.
    let only = |name, x: f32| (1, params(vec![(name, tensor(&[x]))]));
    let next = round(&mut server, &next, vec![only("new", 9.0)]).unwrap();
    assert_eq!(next.names().collect::<Vec<_>>(), ["new"]);
    assert_eq!(moments(&mut server).1, json!({ "w": 2, "new": 2 }));
    let next = round(&mut server, &next, vec![only("w", 9.0)]).unwrap();
    assert_eq!(next.elements::<f32>("w", &[1]).unwrap(), [9.0]);
    assert_eq!(moments(&mut server).1, json!({ "new": 2 }));
}

/// Two clients with a head each take turns, and the host keeps the absent one's head in the global model. Its moments go
/// on where they were: the steps are those of rounds in which nobody was absent.
#[test]
fn an_absent_holder_costs_no_moments() {
    let head = |name: &'static str, x: f32| params(vec![(name, tensor(&[x]))]);
    let both = |a: f32, b: f32| params(vec![("a", tensor(&[a])), ("b", tensor(&[b]))]);
    let value = |params: &Params, name: &str| params.elements::<f32>(name, &[1]).unwrap()[0];
    let (mut turns, mut together) = (adam(), adam());
    let (mut global, mut wanted) = (both(0.0, 0.0), both(0.0, 0.0));
    for _ in 0..4 {
        let (a, b) = (value(&global, "a"), value(&global, "b"));
        let next = round(&mut turns, &global, vec![(1, head("a", a + 1.0))]).unwrap();
        let between = both(value(&next, "a"), b);
        let next = round(&mut turns, &between, vec![(1, head("b", b + 1.0))]).unwrap();
        global = both(value(&between, "a"), value(&next, "b"));
        let (a, b) = (value(&wanted, "a"), value(&wanted, "b"));
        wanted = round(&mut together, &wanted, vec![(1, both(a + 1.0, b + 1.0))]).unwrap();
    }
    assert_eq!(bits(&global), bits(&wanted));
}

#[test]
fn a_round_without_training_changes_nothing() {
    let ctx = Context::new(&Silent);
    let w = |x: f32| params(vec![("w", tensor(&[x]))]);
    let mut server = adam();
    let global = round(&mut server, &w(0.0), vec![(1, w(1.0))]).unwrap();
    let before = server.state(&ctx).unwrap();
    let stayed = round(&mut server, &global, vec![(0, w(7.0)), (0, w(f32::NAN))]).unwrap();
    assert_eq!(bits(&stayed), bits(&global));
    let after = server.state(&ctx).unwrap();
    assert_eq!((bits(&before.tensors), before.values), (bits(&after.tensors), after.values));
    assert_eq!(round(&mut server, &global, vec![]).unwrap_err().to_string(), "no client sent an update");
}

#[test]
fn half_types_keep_their_type_and_empty_tensors_pass() {
    let of = |x: f32| params(vec![("h", tensor(&[bf16::from_f32(x)])), ("e", tensor::<f32>(&[]))]);
    let mut server = server(json!({ "optimizer": "momentum", "learning-rate": 0.5 }));
    let next = round(&mut server, &of(1.0), vec![(1, of(3.0))]).unwrap();
    assert_eq!(next.elements::<bf16>("h", &[1]).unwrap(), [bf16::from_f32(2.0)]);
    assert_eq!(next.elements::<f32>("e", &[0]).unwrap(), [0.0_f32; 0]);
    let state = server.state(&Context::new(&Silent)).unwrap();
    assert_eq!(state.tensors.elements::<f32>("first.h", &[1]).unwrap(), [2.0]);
}

#[test]
fn errors_name_the_tensor_and_leave_no_trace() {
    let ctx = Context::new(&Silent);
    let (v, w) = (("v", tensor(&[0.0_f32])), |x: f32| ("w", tensor(&[x])));
    let global = params(vec![v.clone(), w(0.0)]);
    let mut server = adam();
    round(&mut server, &global, vec![(1, params(vec![v.clone(), w(1.0)]))]).unwrap();
    let before = server.state(&ctx).unwrap();
    // Its square does not fit into the second moment.
    let sent = params(vec![("v", tensor(&[1.0_f32])), w(1e30)]);
    let error = round(&mut server, &global, vec![(1, sent)]).unwrap_err();
    assert_eq!(error.to_string(), "tensor `w`: the server's step is not finite");
    let after = server.state(&ctx).unwrap();
    assert_eq!((bits(&before.tensors), &before.values), (bits(&after.tensors), &after.values));
}

#[test]
fn bad_keys_are_told_with_their_names() {
    let told = |config: Value| {
        problems::<Config>(&config).into_iter().map(|p| (p.path.join("."), p.message)).collect::<Vec<_>>()
    };
    let found = told(json!({
        "optimizer": "sgd", "learning-rate": 0.0, "beta1": 1.0, "beta2": -0.1, "tau": 0, "momentum": 1.5, "eta": 1,
        "weight-by": "size",
    }));
    for (key, part) in [
        ("optimizer", "unknown value `sgd`"),
        ("learning-rate", "more than 0, not 0"),
        ("beta1", "less than 1, not 1"),
        ("beta2", "at least 0 and less than 1, not -0.1"),
        ("tau", "more than 0, not 0"),
        ("momentum", "less than 1, not 1.5"),
        ("eta", "unknown key"),
        ("weight-by", "unknown value `size`"),
    ] {
        assert!(found.iter().any(|(k, m)| k == key && m.contains(part)), "{key}: {part} in {found:#?}");
    }
    assert_eq!(told(json!({ "optimizer": "adam" }))[0].1, "`learning-rate` is missing");
}

#[test]
fn a_key_that_the_optimizer_does_not_use_is_refused() {
    for (optimizer, key, value) in [
        ("adam", "momentum", json!(0.9)),
        ("yogi", "momentum", json!(0.9)),
        ("adagrad", "beta2", json!(0.9)),
        ("adagrad", "bias-correction", json!(true)),
        ("momentum", "beta1", json!(0.9)),
        ("momentum", "tau", json!(0.1)),
        ("momentum", "bias-correction", json!(false)),
    ] {
        let config = json!({ "optimizer": optimizer, "learning-rate": 1.0, key: value });
        let config = read::<Config>(&config).unwrap();
        let error = FedOpt::new(config, &Context::new(&Silent)).unwrap_err();
        assert_eq!(error.to_string(), format!("`{key}`: the optimizer `{optimizer}` does not use it"));
        assert!(error.hint().unwrap().starts_with(&format!("`{optimizer}` uses `")));
    }
}

#[test]
fn the_weights_are_those_that_the_file_names() {
    let w = |x: f64| params(vec![("w", tensor(&[x]))]);
    let next = |by: &str| {
        let config = json!({ "optimizer": "momentum", "learning-rate": 1.0, "weight-by": by });
        let next = round(&mut server(config), &w(0.0), vec![(1, w(1.0)), (3, w(5.0))]).unwrap();
        next.elements::<f64>("w", &[1]).unwrap()[0]
    };
    assert_eq!([next("steps"), next("examples"), next("uniform")], [4.0, 4.0, 3.0]);
}

#[test]
fn what_would_be_lost_is_refused() {
    let ctx = Context::new(&Silent);
    let w = params(vec![("w", tensor(&[1.0_f32]))]);
    let mut server = adam();
    server.begin(&w.clone().into(), &Cohort::default(), &ctx).unwrap();
    let message = Message { params: w.clone(), extra: w, ..Message::default() };
    let error = server.add(Update { client: "a".into(), message, steps: 1, examples: 1 }, &ctx).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tensor `w`: client `a` sends it besides its parameters, but this aggregator does not use it"
    );
}
