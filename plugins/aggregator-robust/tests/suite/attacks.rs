//! Clients that send garbage, opposite signs or scaled updates: the weighted mean goes wrong, the robust methods do not.

use crate::common::{aggregated, params, tensor};
use plugin_api::{Params, Seed, WeightedMean};
use serde_json::json;

const PARAMETERS: usize = 8_000;
const HONEST: usize = 8;

/// What a byzantine client sends.
type Attack<'a> = &'a dyn Fn(u64) -> Params;

/// A number between -1 and 1.
fn noise(seed: Seed) -> f32 {
    (seed.value() >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// What honest clients would send if they had all data: values between -1 and 1.
fn truth() -> Vec<f32> {
    (0..PARAMETERS as u64).map(|i| noise(Seed::new(1).at(i))).collect()
}

fn model(values: Vec<f32>) -> Params {
    let (first, second) = values.split_at(PARAMETERS / 3);
    params(vec![("a", tensor(first)), ("b", tensor(second))])
}

/// An honest client is at most 0.1 off in each coordinate.
fn honest(client: u64) -> Params {
    let off = |(i, x): (usize, &f32)| x + 0.1 * noise(Seed::new(2).at(client).at(i as u64));
    model(truth().iter().enumerate().map(off).collect())
}

/// The largest error of a coordinate, against the truth.
fn error(found: &Params) -> f32 {
    let found = found.iter().flat_map(|(_, tensor)| tensor.elements::<f32>().unwrap());
    found.zip(truth()).map(|(found, truth)| (found - truth).abs()).fold(0.0, f32::max)
}

#[test]
fn the_mean_goes_wrong_and_the_robust_methods_do_not() {
    let garbage =
        |client: u64| model((0..PARAMETERS as u64).map(|i| 1e6 * noise(Seed::new(3).at(client).at(i))).collect());
    let opposite = |_: u64| model(truth().iter().map(|x| -x).collect());
    let scaled = |_: u64| model(truth().iter().map(|x| 100.0 * x).collect());
    let shifted = |_: u64| model(truth().iter().map(|x| x + 1e30).collect());
    // With 2 of 10 clients of this kind, the mean is off by at least so much in some coordinate.
    let attacks: [(&str, Attack, f32); 4] = [
        ("garbage", &garbage, 1e5),
        ("opposite signs", &opposite, 0.35),
        ("scaled by 100", &scaled, 15.0),
        ("shifted by 1e30", &shifted, 1e29),
    ];
    for (attack, byzantine, at_least) in attacks {
        // They stand among the others, not at the end.
        let clients: Vec<Params> = (0..HONEST as u64 + 2)
            .map(|client| if client == 1 || client == 6 { byzantine(client) } else { honest(client) })
            .collect();
        let mut mean = WeightedMean::new();
        clients.iter().for_each(|client| mean.add(client, 1.0, "c").unwrap());
        let of_mean = error(&mean.finish().unwrap());
        assert!(of_mean > at_least, "{attack}: the mean is off by {of_mean}");
        for config in [
            json!({ "method": "median" }),
            json!({ "method": "trimmed-mean", "trim": 0.2 }),
            json!({ "method": "krum", "byzantine": 2 }),
            json!({ "method": "multi-krum", "byzantine": 2, "keep": 6 }),
            json!({ "method": "geometric-median" }),
        ] {
            let off = error(&aggregated(config.clone(), clients.clone()).unwrap());
            // As near as one honest client, but for the geometric median, which an attack may draw aside a little.
            let bound = if config["method"] == "geometric-median" { 0.12 } else { 0.1001 };
            assert!(off < bound, "{attack}: {config} is off by {off}");
        }
    }
}

#[test]
fn one_attacker_more_than_allowed_breaks_a_method() {
    // The bound is not only on paper: 5 of 10 that agree on a far point take the median there, or half way.
    let far = |_: u64| model(vec![1e6; PARAMETERS]);
    let clients = |byzantine: u64| (0..10).map(|c| if c < byzantine { far(c) } else { honest(c) }).collect::<Vec<_>>();
    let off = |config: serde_json::Value, byzantine: u64| error(&aggregated(config, clients(byzantine)).unwrap());
    assert!(off(json!({ "method": "median" }), 4) < 0.1001);
    assert!(off(json!({ "method": "median" }), 5) > 1e5);
    assert!(off(json!({ "method": "trimmed-mean", "trim": 0.3 }), 3) < 0.1001);
    assert!(off(json!({ "method": "trimmed-mean", "trim": 0.3 }), 4) > 1e5);
    assert!(off(json!({ "method": "geometric-median", "iterations": 30 }), 4) < 0.5);
    assert!(off(json!({ "method": "geometric-median", "iterations": 30 }), 6) > 1e5);
}
