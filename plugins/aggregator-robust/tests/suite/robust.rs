//! What the robust methods are computed of, and what they refuse.

use crate::common::{Noting, aggregated, name, params, robust, tensor, told, w};
use aggregator_robust::Config;
use plugin_api::config::problems;
use plugin_api::half::{bf16, f16};
use plugin_api::{Aggregator, Cohort, Context, Params, State, Tensor, Update};
use serde_json::{Value, json};

fn all_methods() -> Vec<Value> {
    vec![
        json!({ "method": "median" }),
        json!({ "method": "trimmed-mean", "trim": 0.25 }),
        json!({ "method": "krum", "byzantine": 1 }),
        json!({ "method": "multi-krum", "byzantine": 1, "keep": 2 }),
        json!({ "method": "geometric-median" }),
    ]
}

#[test]
fn the_geometric_median_of_a_triangle_is_its_fermat_point() {
    // With all angles below 120° the sides are seen from it at 120°. This triangle's lies at (1, 1/√3) by symmetry.
    let corners = [[0.0_f64, 0.0], [2.0, 0.0], [1.0, 3.0_f64]];
    let clients = corners.iter().map(|corner| params(vec![("z", tensor(corner))])).collect();
    let next = aggregated(json!({ "method": "geometric-median", "iterations": 200 }), clients).unwrap();
    let z = next.elements::<f64>("z", &[2]).unwrap();
    assert!((z[0] - 1.0).abs() < 1e-12 && (z[1] - 1.0 / 3.0_f64.sqrt()).abs() < 1e-9, "{z:?}");
}

#[test]
fn equal_updates_come_back_equal() {
    let values: Vec<f32> = (0..5000).map(|i| (i as f32 * 0.37).sin() * 10_f32.powi(i % 60 - 30)).collect();
    for config in all_methods() {
        let next = aggregated(config.clone(), vec![w(&values); 7]).unwrap();
        assert_eq!(next.elements::<f32>("w", &[5000]).unwrap(), values, "{config}");
    }
}

#[test]
fn krum_gives_an_update_itself_without_a_copy_and_the_first_of_equals() {
    let clients: Vec<Params> = [0.0, 0.1, 0.2, 9.0, 0.1].iter().map(|&x| w(&[x])).collect();
    let next = aggregated(json!({ "method": "krum", "byzantine": 1 }), clients.clone()).unwrap();
    let buffer = |params: &Params| params.get("w").unwrap().buffer().clone();
    assert!(buffer(&next).is_same(&buffer(&clients[1])));
}

#[test]
fn the_order_of_clients_does_not_matter_to_a_coordinate() {
    let of = |order: [f32; 7]| {
        let clients = order.iter().map(|&x| w(&[x, -x])).collect();
        let next = aggregated(json!({ "method": "trimmed-mean", "trim": 0.2 }), clients).unwrap();
        next.elements::<f32>("w", &[2]).unwrap().to_vec()
    };
    assert_eq!(of([0.1, 0.7, 1e9, 0.3, 0.2, -1e9, 0.5]), of([-1e9, 0.5, 0.3, 0.2, 1e9, 0.1, 0.7]));
}

#[test]
fn every_floating_type_keeps_its_type() {
    let of = |x: f32| {
        params(vec![
            ("f64", tensor(&[f64::from(x)])),
            ("f16", tensor(&[f16::from_f32(x)])),
            ("bf16", tensor(&[bf16::from_f32(x)])),
            ("empty", tensor::<f32>(&[])),
            ("scalar", Tensor::from_slice(&[], &[x]).unwrap()),
        ])
    };
    for config in all_methods() {
        let next = aggregated(config.clone(), (0..5).map(|i| of(1.0 + i as f32 / 4.0)).collect()).unwrap();
        let kinds: Vec<_> = next.iter().map(|(_, tensor)| format!("{tensor:?}")).collect();
        assert_eq!(kinds, ["f64[1]", "f16[1]", "bf16[1]", "f32[0]", "f32[]"], "{config}");
    }
    let next = aggregated(json!({ "method": "median" }), [1.0, 9.0, 2.0, 0.0].map(of).into()).unwrap();
    assert_eq!(next.elements::<f16>("f16", &[1]).unwrap(), [f16::from_f32(1.5)]);
}

#[test]
fn too_few_clients_are_refused_when_the_round_begins_and_when_it_ends() {
    for (config, least, key) in [
        (json!({ "method": "median" }), 3, "`method`"),
        (json!({ "method": "geometric-median" }), 3, "`method`"),
        (json!({ "method": "trimmed-mean", "trim": 0.25 }), 4, "`trim`"),
        (json!({ "method": "krum", "byzantine": 2 }), 7, "`byzantine`"),
        (json!({ "method": "multi-krum", "byzantine": 1, "keep": 3 }), 6, "`keep`"),
    ] {
        let host = Noting::default();
        let ctx = Context::new(&host);
        let mut aggregator = robust(config.clone()).unwrap();
        let mut begin = |clients: usize| {
            aggregator.begin(&w(&[7.0]).into(), &Cohort::new((0..clients).map(name).collect(), 9), &ctx)
        };
        assert!(begin(least - 1).unwrap_err().to_string().starts_with(key), "{config}");
        begin(least).unwrap();
        let mut add = |place: usize, steps: u64| {
            let message = w(&[place as f32]).into();
            aggregator.add(Update { client: name(place), message, steps, examples: steps }, &ctx).unwrap();
        };
        (0..least - 1).for_each(|place| add(place, 1));
        // One of them does not train.
        add(least, 0);
        assert!(aggregator.finish(&ctx).unwrap_err().to_string().starts_with(key), "{config}");
    }
}

#[test]
fn who_did_not_train_sends_no_vote() {
    let host = Noting::default();
    let ctx = Context::new(&host);
    let mut median = robust(json!({ "method": "median" })).unwrap();
    let mut round = |updates: &[(u64, f32)]| {
        median.begin(&w(&[7.0]).into(), &Cohort::new((0..6).map(name).collect(), 6), &ctx).unwrap();
        for (place, &(steps, x)) in updates.iter().enumerate() {
            let update = Update { client: name(place), message: w(&[x]).into(), steps, examples: steps };
            median.add(update, &ctx).unwrap();
        }
        Ok::<_, plugin_api::Error>(median.finish(&ctx)?.params.elements::<f32>("w", &[1])?[0])
    };
    assert_eq!(round(&[(1, 1.0), (0, 50.0), (2, 2.0), (9, 3.0), (0, f32::NAN)]).unwrap(), 2.0);
    assert_eq!(round(&[(0, 1.0), (0, f32::NAN)]).unwrap(), 7.0);
    assert_eq!(round(&[]).unwrap_err().to_string(), "no client sent an update");
}

/// A round of a cohort of which only some updates come.
fn with_missing(config: &Value, cohort: usize, came: &[f32]) -> (plugin_api::Result<f32>, Vec<String>) {
    let host = Noting::default();
    let ctx = Context::new(&host);
    let mut aggregator = robust(config.clone()).unwrap();
    aggregator.begin(&w(&[0.0]).into(), &Cohort::new((0..cohort).map(name).collect(), cohort), &ctx).unwrap();
    for (place, &x) in came.iter().enumerate() {
        let update = Update { client: name(place), message: w(&[x]).into(), steps: 1, examples: 1 };
        aggregator.add(update, &ctx).unwrap();
    }
    let next = aggregator.finish(&ctx).map(|next| next.params.elements::<f32>("w", &[1]).unwrap()[0]);
    (next, host.lines())
}

#[test]
fn clients_that_are_missing_count_as_byzantine_where_the_others_are_too_few() {
    for (config, cohort, guarantee) in [
        (
            json!({ "method": "trimmed-mean", "trim": 0.25 }),
            4,
            "trimmed mean of 4 clients, of which 1 may be byzantine",
        ),
        (json!({ "method": "krum", "byzantine": 1 }), 5, "Krum of 5 clients, of which 1 may be byzantine"),
        (json!({ "method": "median" }), 3, "median of 3 clients, of which 1 may be byzantine"),
    ] {
        let values = [1.0, 2.0, 2.0, 3.0];
        let (next, lines) = with_missing(&config, cohort, &values[..cohort - 1]);
        assert!((1.0..=3.0).contains(&next.unwrap()), "{config}");
        assert_eq!(lines, ["Robust/left_out 1".to_owned(), format!("guarantee: {guarantee}")]);
        let (next, _) = with_missing(&config, cohort, &values[..cohort - 2]);
        assert!(next.is_err(), "{config}");
    }
    // Enough came: the guarantee is of those.
    let (next, lines) = with_missing(&json!({ "method": "krum", "byzantine": 1 }), 7, &[1.0, 1.5, 2.0, 2.5, 900.0]);
    assert!(next.unwrap() < 3.0);
    assert_eq!(lines[1], "guarantee: Krum of 5 clients, of which 1 may be byzantine");
}

#[test]
fn a_parameter_is_aggregated_over_those_that_sent_it() {
    let both = |x: f32, y: f32| params(vec![("w", tensor(&[x])), ("head", tensor(&[y]))]);
    let global = both(0.0, 0.0);
    let clients = vec![both(1.0, 10.0), w(&[2.0]), both(3.0, 30.0), w(&[4.0]), both(5.0, 50.0)];
    let next = told(json!({ "method": "median" }), &global, clients).0.unwrap();
    assert_eq!(next.elements::<f32>("w", &[1]).unwrap(), [3.0]);
    assert_eq!(next.elements::<f32>("head", &[1]).unwrap(), [30.0]);
    // Two are too few for a median.
    let clients = || vec![both(1.0, 10.0), w(&[2.0]), both(3.0, 30.0), w(&[4.0]), w(&[5.0])];
    let error = told(json!({ "method": "median" }), &global, clients()).0.unwrap_err();
    assert_eq!(error.to_string(), "`method`: the median of 2 clients tolerates no byzantine client");
    assert_eq!(error.causes(), ["`head` came from 2 of 5 clients"]);
    assert!(error.hint().unwrap().contains("kept private"));
    // Without a global value it may be what two byzantine clients made up.
    let (next, lines) = told(json!({ "method": "median" }), &w(&[0.0]), clients());
    assert_eq!(next.unwrap().names().collect::<Vec<_>>(), ["w"]);
    assert_eq!(lines[0], "`head` is skipped: it has no global value, and only `c0`, `c2` sent it");
    // What nobody sends has no global value any more.
    let next = told(json!({ "method": "median" }), &global, vec![w(&[1.0]); 3]).0.unwrap();
    assert_eq!(next.names().collect::<Vec<_>>(), ["w"]);
}

#[test]
fn krum_and_the_geometric_median_need_the_same_from_all() {
    let more = |x: f32| params(vec![("w", tensor(&[x])), ("head", tensor(&[x]))]);
    for config in [json!({ "method": "krum", "byzantine": 1 }), json!({ "method": "geometric-median" })] {
        // One that differs may be byzantine, whether it sends more or less. The order of names does not matter.
        let turned = params(vec![("head", tensor(&[2.0_f32])), ("w", tensor(&[2.0_f32]))]);
        for (odd, usual, why) in [
            (more(9.0), [1.0, 2.0, 3.0, 2.5].map(|x| w(&[x])), "it sends `head`, which most do not"),
            (w(&[9.0]), [more(1.0), turned, more(3.0), more(2.5)], "it does not send `head`, which most send"),
        ] {
            let clients = [vec![odd], usual.to_vec()].concat();
            let (next, lines) = told(config.clone(), &Params::new(), clients);
            assert!((1.0..=3.0).contains(&next.unwrap().elements::<f32>("w", &[1]).unwrap()[0]));
            assert_eq!(lines[0], format!("client `c0` is excluded from this round: {why}"));
        }
        let heads =
            ["a", "b", "c", "d", "e"].map(|name| params(vec![("w", tensor(&[1.0_f32])), (name, tensor(&[1.0_f32]))]));
        let error = aggregated(config, heads.into()).unwrap_err();
        assert!(error.to_string().starts_with("tensor `b`: 1 of 5 clients send it, but"), "{error}");
        assert!(error.to_string().ends_with("needs the same parameters from all"), "{error}");
    }
}

#[test]
fn integers_are_voted_on() {
    let of = |x: f32, ids: i64| params(vec![("w", tensor(&[x])), ("ids", tensor(&[ids]))]);
    for config in all_methods() {
        let sent = |ids: [i64; 5]| ids.iter().enumerate().map(|(i, &id)| of(i as f32, id)).collect::<Vec<_>>();
        let next = aggregated(config.clone(), sent([8, 3, 3, 3, 9])).unwrap();
        assert_eq!(next.elements::<i64>("ids", &[1]).unwrap(), [3], "{config}");
        let error = aggregated(config, sent([8, 3, 3, 8, 9])).unwrap_err();
        assert_eq!(error.to_string(), "tensor `ids`: no value was sent by more than half of the clients");
    }
}

#[test]
fn a_failed_round_leaves_no_trace_and_nothing_is_saved() {
    let host = Noting::default();
    let ctx = Context::new(&host);
    let mut median = robust(json!({ "method": "median" })).unwrap();
    let mut round = |values: &[f32]| {
        median.begin(&w(&[0.0]).into(), &Cohort::new((0..3).map(name).collect(), 3), &ctx).unwrap();
        for (place, &x) in values.iter().enumerate() {
            let update = Update { client: name(place), message: w(&[x]).into(), steps: 1, examples: 1 };
            median.add(update, &ctx).unwrap();
        }
        median.finish(&ctx).map(|next| next.params.elements::<f32>("w", &[1]).unwrap()[0])
    };
    round(&[1.0]).unwrap_err();
    assert_eq!(round(&[1.0, 2.0, 3.0]).unwrap(), 2.0);
    assert!(median.state(&ctx).unwrap().is_empty());
    median.restore(&State::default(), &ctx).unwrap();
}

#[test]
fn bad_keys_are_told_with_their_names() {
    let found = problems::<Config>(&json!({
        "method": "mean", "trim": 0.5, "byzantine": 0, "keep": 0, "iterations": 0, "smoothing": 0.0, "weight-by": "steps",
    }));
    let found: Vec<_> = found.into_iter().map(|p| (p.path.join("."), p.message)).collect();
    for (key, part) in [
        ("method", "unknown value `mean`"),
        ("trim", "more than 0 and less than 0.5, not 0.5"),
        ("byzantine", "at least 1, not 0"),
        ("keep", "at least 1, not 0"),
        ("iterations", "at least 1, not 0"),
        ("smoothing", "more than 0, not 0"),
        ("weight-by", "unknown key"),
    ] {
        assert!(found.iter().any(|(k, m)| k == key && m.contains(part)), "{key}: {part} in {found:#?}");
    }
}

#[test]
fn a_key_that_the_method_lacks_or_does_not_use_is_refused() {
    for (config, told) in [
        (json!({ "method": "median", "trim": 0.1 }), "`trim`: the method `median` does not use it"),
        (json!({ "method": "krum", "byzantine": 1, "keep": 2 }), "`keep`: the method `krum` does not use it"),
        (
            json!({ "method": "geometric-median", "byzantine": 1 }),
            "`byzantine`: the method `geometric-median` does not use it",
        ),
        (json!({ "method": "krum", "byzantine": 1, "smoothing": 1 }), "`smoothing`: the method `krum` does not use it"),
        (json!({ "method": "trimmed-mean" }), "`trim`: the method `trimmed-mean` needs it"),
        (json!({ "method": "krum" }), "`byzantine`: the method `krum` needs it"),
        (json!({ "method": "multi-krum", "byzantine": 1 }), "`keep`: the method `multi-krum` needs it"),
    ] {
        assert_eq!(robust(config).unwrap_err().to_string(), told);
    }
}
