//! Noise distributed over the clients.

use super::*;
use crate::fixed::Grid;
use crate::noise::{Noise, Plan};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

const VALUES: usize = 20_000;

/// A true normal sample is beyond it with a probability of 6 · 10⁻⁷.
const DEVIATIONS: f64 = 5.0;

fn noisy(clients: usize, multiplier: f64, colluding: usize) -> Bench {
    let config = json!({
        "threshold": 4, "minimum": 3, "clip-norm": 2.0, "noise-multiplier": multiplier, "delta": 1e-5,
        "colluding": colluding
    });
    Bench::new(clients, config, true)
}

/// A model and updates that are the same number everywhere, at each client.
fn same(update: f32) -> (Message, Vec<(Params, u64)>) {
    let params = |x: f32| params(&[("b", &vec![x; VALUES / 2]), ("w", &vec![x; VALUES / 2])]);
    (params(0.0).into(), (0..6).map(|_| (params(update), 1)).collect())
}

/// The sum over the clients from which the next model is computed.
fn sum(next: &Message, clients: usize) -> Vec<f64> {
    let all = ["b", "w"].into_iter().flat_map(|name| values(&next.params, name));
    all.map(|x| f64::from(x) * clients as f64).collect()
}

fn mean_and_variance(numbers: &[f64]) -> (f64, f64) {
    let count = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / count;
    (mean, numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count)
}

#[test]
fn the_noise_of_a_sum_is_at_least_what_is_stated_also_after_dropouts() {
    let (global, updates) = same(0.0);
    // Of six clients four must remain, and one may reveal its noise: three make up the stated noise.
    for lost in [&[][..], &[2], &[0, 4]] {
        let fails = |at: Step, k: usize| at == Step::Update && lost.contains(&k);
        let mut bench = noisy(6, 1.5, 1);
        bench.seed = 11 + lost.len() as u64;
        let (next, _) = bench.play(&global, &updates, &fails, &mut |_, _, _| {}, &Silent).unwrap();
        let stay = 6 - lost.len();
        let (mean, variance) = mean_and_variance(&sum(&next, stay));
        let stated = (1.5 * 2.0_f64).powi(2);
        let expected = stay as f64 / 3.0 * stated;
        assert!(
            (variance / expected - 1.0).abs() < DEVIATIONS * (2.0 / VALUES as f64).sqrt(),
            "{variance}, {expected}"
        );
        assert!(mean.abs() < DEVIATIONS * (expected / VALUES as f64).sqrt(), "{mean}");
        // Without the noise of the client that reveals its own there is enough, and at least a third more for each
        // further client.
        assert!(variance * (stay - 1) as f64 / stay as f64 > 0.95 * stated);
    }
}

#[test]
fn each_client_adds_its_part_and_the_part_is_rounded_up() {
    for (multiplier, bits, threshold, colluding) in
        [(1.0, 20, 5, 1), (0.7, 16, 7, 3), (0.01, 4, 5, 0), (3.0, 18, 200, 9)]
    {
        let noise = Noise { multiplier, delta: 1e-5, colluding };
        let plan = Plan::new(noise, Grid { clip: 3.0, bits }, threshold, threshold).unwrap();
        let stated = (multiplier * f64::from(1_u32 << (bits - 1))).powi(2);
        let honest = (threshold - colluding) as f64;
        assert!(honest * plan.variance() >= stated && (plan.variance() - 1.0) * honest < stated);
    }
}

#[test]
fn a_whole_update_is_clipped_and_rounded_without_bias() {
    // The norm is 0.5 √VALUES = 70.7, and 2 after clipping. Noise of 2 · 10⁻⁴ · 2 on the sum over at least 4 clients.
    let (global, updates) = same(0.5);
    let (next, _) = noisy(6, 2e-4, 0).play(&global, &updates, &|_, _| false, &mut |_, _, _| {}, &Silent).unwrap();
    let clipped = 2.0 / (VALUES as f64).sqrt();
    let (mean, variance) = mean_and_variance(&sum(&next, 6));
    let deviation = (6.0 / 4.0_f64).sqrt() * 2e-4 * 2.0;
    assert!((mean - 6.0 * clipped).abs() < DEVIATIONS * deviation / (VALUES as f64).sqrt(), "{mean}");
    assert!((variance.sqrt() / deviation - 1.0).abs() < 0.05, "{variance}");
    // Below the norm nothing is scaled.
    let (global, updates) = same(0.01);
    let (next, _) = noisy(6, 2e-4, 0).play(&global, &updates, &|_, _| false, &mut |_, _, _| {}, &Silent).unwrap();
    let (mean, _) = mean_and_variance(&sum(&next, 6));
    assert!((mean - 0.06).abs() < DEVIATIONS * deviation / (VALUES as f64).sqrt(), "{mean}");
}

#[test]
fn a_rounded_update_keeps_the_norm_of_the_account() {
    // A coarse grid and many values: rounding adds much, and some roundings are redrawn.
    let noise = Noise { multiplier: 1.0, delta: 1e-5, colluding: 0 };
    let plan = Plan::new(noise, Grid { clip: 1.0, bits: 4 }, 3, 3).unwrap();
    let update: Vec<f64> = (0..400).map(|i| if i % 3 == 0 { 0.07 } else { -0.04 }).collect();
    let norm = update.iter().map(|x| x * x).sum::<f64>().sqrt();
    let tensor = Tensor::from_slice(&[400], &update).unwrap();
    let base = Message::from(
        [("w".to_owned(), Tensor::from_slice(&[400], &[0.0; 400]).unwrap())].into_iter().collect::<Params>(),
    );
    let ctx = Context::new(&Silent);
    let (mut rng, mut sums) = (ChaCha20Rng::seed_from_u64(5), vec![0.0; 400]);
    let scale = 8.0 / norm;
    for _ in 0..2000 {
        let rounded = plan.rounded(&[("w", &tensor)], &base, (scale, 400), &mut rng, &ctx).unwrap();
        let numbers: Vec<i64> = rounded[0].iter().map(|x| i64::from(x.cast_signed())).collect();
        let square: i64 = numbers.iter().map(|x| x * x).sum();
        assert!(square as u128 <= plan.largest_square(400), "{square}");
        for ((number, x), sum) in numbers.iter().zip(&update).zip(&mut sums) {
            assert!((*number as f64 - x * scale).abs() < 1.0);
            *sum += *number as f64;
        }
    }
    for (sum, x) in sums.iter().zip(&update) {
        // The variance of a rounding is at most a quarter. Redrawing roundings of a large norm moves the mean towards
        // 0, by less than this.
        let off = (sum / 2000.0 - x * scale).abs();
        assert!(off < DEVIATIONS * (0.25 / 2000.0_f64).sqrt() + 0.02, "{off}");
    }
    let always = (8.0 + 20.0_f64).powi(2);
    assert!((plan.largest_square(400) as f64) < always, "the bound of the conditional rounding is not the smaller one");
}

#[test]
fn who_did_not_train_counts_as_one_whose_update_is_0() {
    let (global, mut updates) = same(0.01);
    for k in [1, 4] {
        updates[k] = (global.params.clone(), 0);
    }
    let (next, _) = noisy(6, 2e-4, 0).play(&global, &updates, &|_, _| false, &mut |_, _, _| {}, &Silent).unwrap();
    let (mean, _) = mean_and_variance(&sum(&next, 6));
    assert!((mean - 0.04).abs() < 2e-4, "{mean}");
    for k in [2, 5] {
        updates[k] = (global.params.clone(), 0);
    }
    let error = noisy(6, 1.0, 0).play(&global, &updates, &|_, _| false, &mut |_, _, _| {}, &Silent).err().unwrap();
    assert!(error.to_string().starts_with("only 2 of the round's 6 clients trained"), "{error}");
}

#[test]
fn integers_get_no_noise_and_must_stay() {
    let with = |count: i64, x: f32| -> Params {
        let tensors = [("count", Tensor::from_slice(&[1], &[count])), ("w", Tensor::from_slice(&[3], &[x; 3]))];
        tensors.into_iter().map(|(name, tensor)| (name.to_owned(), tensor.unwrap())).collect()
    };
    let (global, updates) = (Message::from(with(7, 0.0)), vec![(with(7, 0.1), 1); 6]);
    let (next, _) = noisy(6, 1.0, 1).round(&global, &updates).unwrap();
    assert_eq!(next.params.elements::<i64>("count", &[1]).unwrap(), [7]);
    assert_ne!(values(&next.params, "w"), [0.1; 3]);
    let error = noisy(6, 1.0, 1).round(&global, &vec![(with(8, 0.1), 1); 6]).err().unwrap();
    assert!(error.to_string().contains("has other i64 values"), "{error}");
}

#[test]
fn what_does_not_fit_is_refused_before_the_round() {
    let ctx = Context::new(&Silent);
    let cohort = Cohort::new((0..20).map(|k| k.to_string()).collect(), 20);
    let (global, _) = same(0.0);
    let begin = |config: serde_json::Value| {
        let mut table = json!({ "clip-norm": 1.0, "noise-multiplier": 1.0, "delta": 1e-5 });
        table.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        Secure::new(serde_json::from_value(table).unwrap(), &ctx)?.begin(&global, &cohort, &ctx)
    };
    begin(json!({})).unwrap();
    for (config, text, hint) in [
        (json!({ "bits": 26 }), "`bits`: noise of 1 times `clip-norm` is too wide for 26 bits", "at most 24 fit"),
        (
            json!({ "bits": 28, "noise-multiplier": 0.01 }),
            "`bits`: a sum of 20 numbers of 28 bits with their noise may not fit in 32",
            "27 are safe",
        ),
        (
            json!({ "colluding": 8 }),
            "`colluding`: 8 of 20 clients on the server's side are too many",
            "a `threshold` of 14 allows at most 7: raise it, or lower `colluding`",
        ),
        (
            json!({ "clip": 1.0 }),
            "`clip`: cannot be used with `clip-norm`",
            "with noise a client's whole update is clipped to `clip-norm`",
        ),
    ] {
        let error = begin(config).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.hint()), (text, Some(hint)));
    }
    for (config, text) in [
        (json!({ "clip-norm": 1.0 }), "`clip-norm`: asks for noise, and `noise-multiplier` is missing"),
        (json!({ "noise-multiplier": 1.0, "clip-norm": 1.0 }), "`clip-norm`: asks for noise, and `delta` is missing"),
        (json!({ "delta": 0.1 }), "`delta`: asks for noise, and `clip-norm` is missing"),
        (json!({ "colluding": 1 }), "`colluding`: asks for noise, and `clip-norm` is missing"),
    ] {
        let error = Secure::new(serde_json::from_value(config).unwrap(), &ctx).err().unwrap();
        assert_eq!(error.to_string(), text);
    }
    let table = serde_json::from_value(json!({ "colluding": 1 })).unwrap();
    assert_eq!(
        Mask::new(table, &ctx).err().unwrap().to_string(),
        "`colluding`: goes with `noise-multiplier`, which is missing"
    );
}

#[test]
fn a_client_takes_part_only_with_the_noise_that_it_asks_for() {
    let (global, updates) = model(20, 0);
    let noise = json!({ "clip-norm": 1.0, "noise-multiplier": 1.0, "delta": 1e-5, "colluding": 1 });
    for (server, filter, text) in [
        (
            json!({}),
            json!({ "noise-multiplier": 0.5 }),
            "`noise-multiplier`: the aggregator asks for no noise, but this client requires at least 0.5",
        ),
        (
            noise.clone(),
            json!({ "noise-multiplier": 1.1 }),
            "`noise-multiplier`: the aggregator's is 1, but this client requires at least 1.1",
        ),
        (
            noise.clone(),
            json!({ "noise-multiplier": 1.0, "colluding": 2 }),
            "`colluding`: the aggregator assumes 1, but this client assumes 2",
        ),
    ] {
        let error = Bench::with(5, server, &|_| filter.clone()).round(&global, &updates).err().unwrap();
        assert_eq!(error.to_string(), text);
    }
    // Terms that no aggregator of this library sends.
    for (key, value, text) in [
        ("multiplier", json!(-1.0), "noise of -1 times `clip-norm` protects nothing at delta 0.00001"),
        ("delta", json!(1.0), "noise of 1 times `clip-norm` protects nothing at delta 1"),
        (
            "colluding",
            json!(u64::MAX),
            "`colluding`: 18446744073709551615 of 5 clients on the server's side are too many",
        ),
    ] {
        let mut lie = |step: Step, _: &str, message: &mut Message| {
            if step == Step::Shares {
                message.values["secure"]["terms"]["noise"][key] = value.clone();
            }
        };
        let mut bench = Bench::new(5, noise.clone(), false);
        let error = bench.play(&global, &updates, &|_, _| false, &mut lie, &Silent).err().unwrap();
        assert_eq!(error.to_string(), text);
    }
    let filter = json!({ "noise-multiplier": 1.0, "colluding": 1 });
    Bench::with(5, noise, &|_| filter.clone()).round(&global, &updates).unwrap();
}
