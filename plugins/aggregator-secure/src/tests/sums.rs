//! The result is the sum of the encoded updates, whatever the masks; a single masked update looks like noise.

use super::*;

/// The result from the plain sum of some clients' encoded updates, by the formula in the crate's documentation.
fn plain(global: &Message, updates: &[&Params], name: &str, trained: usize, clip: f64, bits: i32) -> Vec<f32> {
    let step = clip / 2_f64.powi(bits - 1);
    let base = values(&global.params, name);
    let mut sums = vec![0_i64; base.len()];
    for params in updates {
        for ((sum, x), base) in sums.iter_mut().zip(values(params, name)).zip(&base) {
            *sum += ((f64::from(x) - f64::from(*base)).clamp(-clip, clip) / step).round_ties_even() as i64;
        }
    }
    base.iter().zip(&sums).map(|(x, sum)| (f64::from(*x) + *sum as f64 * step / trained as f64) as f32).collect()
}

#[test]
fn the_mean_is_that_of_the_encoded_updates_bit_for_bit_and_near_the_true_one() {
    for (bits, clip) in [(24, 1.0), (16, 0.3), (4, 0.01)] {
        let mut bench = Bench::new(5, json!({ "bits": bits, "clip": clip }), false);
        for round in 0..3 {
            let (global, updates) = model(3000, round);
            let (next, _) = bench.round(&global, &updates).unwrap();
            assert_eq!(next.params.names().collect::<Vec<_>>(), ["w", "b"]);
            let sent: Vec<&Params> = updates[..5].iter().map(|(params, _)| params).collect();
            for name in ["w", "b"] {
                let got = values(&next.params, name);
                let expected = plain(&global, &sent, name, 5, clip, bits);
                assert!(got.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()), "{name} in round {round}");
                let half_step = clip / 2_f64.powi(bits);
                let base = values(&global.params, name);
                for (i, got) in got.iter().enumerate() {
                    let update = |params: &&Params| f64::from(values_at(params, name, i)) - f64::from(base[i]);
                    let mean = sent.iter().map(|p| update(p).clamp(-clip, clip)).sum::<f64>() / 5.0;
                    // Half a grid step, plus the rounding to f32 of values below 2.
                    let distance = (f64::from(*got) - f64::from(base[i]) - mean).abs();
                    assert!(distance <= half_step * (1.0 + 1e-12) + 2_f64.powi(-24), "{distance} at {i}");
                }
            }
        }
    }
}

fn values_at(params: &Params, name: &str, i: usize) -> f32 {
    params.get(name).unwrap().elements::<f32>().unwrap()[i]
}

#[test]
fn the_model_does_not_depend_on_the_masks() {
    let (global, updates) = model(200, 0);
    let run = |reproducible, seed| {
        let mut bench = Bench::new(5, json!({}), reproducible);
        bench.seed = seed;
        let (next, heard) = bench.round(&global, &updates).unwrap();
        let masked = heard.updates[0].message.params.get("w").unwrap().elements::<i32>().unwrap().to_vec();
        (["w", "b"].map(|name| values(&next.params, name)), masked)
    };
    let runs = [run(true, 1), run(true, 1), run(true, 2), run(false, 1), run(false, 1)];
    assert!(runs.iter().all(|(next, _)| *next == runs[0].0));
    assert_eq!(runs[0].1, runs[1].1);
    for (i, j) in [(0, 2), (0, 3), (3, 4)] {
        assert_ne!(runs[i].1, runs[j].1, "the masks of runs {i} and {j} are the same");
    }
}

#[test]
fn a_masked_update_looks_like_noise() {
    let n = 20_000;
    let (global, mut updates) = model(n, 0);
    // All clients send the unchanged model: every number is 0 before it is masked.
    updates.iter_mut().for_each(|(params, _)| *params = global.params.clone());
    let mut bench = Bench::new(5, json!({}), false);
    let mut seen: Vec<Vec<u32>> = Vec::new();
    for _ in 0..2 {
        let (next, heard) = bench.round(&global, &updates).unwrap();
        assert_eq!(values(&next.params, "w"), values(&global.params, "w"));
        for update in heard.updates {
            let all = update.message.params.iter().flat_map(|(_, tensor)| tensor.elements::<i32>().unwrap());
            seen.push(all.map(|x| x.cast_unsigned()).collect());
        }
    }
    let count = 2.0 * n as f64;
    for (i, masked) in seen.iter().enumerate() {
        for bit in 0..32 {
            let ones = masked.iter().filter(|x| *x >> bit & 1 == 1).count() as f64;
            // A fair coin, five standard deviations: 1 in 1.7 million, of 320 bits.
            assert!((ones - count / 2.0).abs() < 5.0 * (count / 4.0).sqrt(), "bit {bit} of update {i}: {ones}");
        }
        let neighbours = masked.windows(2).filter(|pair| (pair[0] ^ pair[1]) >> 31 == 0).count() as f64;
        assert!((neighbours - count / 2.0).abs() < 5.0 * (count / 4.0).sqrt(), "neighbours of update {i}");
        for other in &seen[..i] {
            let same = masked.iter().zip(other).filter(|(a, b)| a == b).count();
            assert!(same <= 3, "{same} numbers of two masked updates are the same");
        }
    }
}

#[test]
fn who_did_not_train_counts_nothing() {
    let (global, mut updates) = model(50, 0);
    updates[1] = (global.params.clone(), 0);
    updates[3] = (global.params.clone(), 0);
    let (next, _) = five(3).round(&global, &updates).unwrap();
    let sent: Vec<&Params> = [0, 2, 4].map(|k| &updates[k].0).to_vec();
    assert_eq!(values(&next.params, "w"), plain(&global, &sent, "w", 3, 1.0, 24));
    updates.iter_mut().for_each(|update| *update = (global.params.clone(), 0));
    let (next, _) = five(3).round(&global, &updates).unwrap();
    assert_eq!(values(&next.params, "b"), values(&global.params, "b"));
}

#[test]
fn what_is_beyond_the_clip_is_clamped_counted_and_told() {
    let global = Message::from(params(&[("w", &[1.0, 1.0, 1.0])]));
    let update = |x: [f32; 3]| (params(&[("w", &x)]), 1);
    let updates = [update([5.0, 1.0, 1.5]), update([-5.0, 1.25, 1.5]), update([5.0, 1.0, 2.0])];
    let told = Told::default();
    let mut bench = Bench::new(3, json!({ "clip": 0.5 }), true);
    let (next, _) = bench.play(&global, &updates, &|_, _| false, &mut |_, _, _| {}, &told).unwrap();
    // (0.5 - 0.5 + 0.5) / 3, 0.25 / 3, (0.5 + 0.5 + 0.5) / 3
    let got = values(&next.params, "w");
    for (got, expected) in got.iter().zip([1.0 + 0.5 / 3.0, 1.0 + 0.25 / 3.0, 1.5]) {
        assert!((f64::from(*got) - expected).abs() < 1.2e-7, "{got} is not {expected}");
    }
    for line in [
        "Secure/clamped 0 1",
        "Secure/clamped 0 2",
        "Secure/dropped 0 0",
        "1 of 3 values changed by more than `clip`, 0.5, and were clamped",
    ] {
        assert!(told.has(line), "{line} is not in {:?}", told.0.lock().unwrap());
    }
}

#[test]
fn what_is_promised_depends_on_where_the_masks_come_from() {
    let (global, updates) = model(5, 0);
    let promise = "secure aggregation: the server sees single updates masked, and the sum of those of at least 4 of a \
        round's 5 clients, of which at least 4 trained; keys are not signed, so this holds only for a server that follows \
        the protocol";
    let limits =
        "all other clients together learn the last one's update from any sum, and 4 clients that pool their shares";
    let warning = "no protection: the masks come from the experiment's seed (`reproducible = true`)";
    for reproducible in [false, true] {
        let told = Told::default();
        let mut bench = Bench::new(5, json!({}), reproducible);
        bench.play(&global, &updates, &|_, _| false, &mut |_, _, _| {}, &told).unwrap();
        assert_eq!(
            (told.has(promise), told.has(limits), told.has(warning)),
            (!reproducible, !reproducible, reproducible)
        );
    }
}

#[test]
fn every_floating_type_keeps_its_type_and_integers_stay() {
    use plugin_api::half::{bf16, f16};
    let tensors = |x: f32, count: i64| -> Params {
        let tensors = [
            ("f64", Tensor::from_slice(&[1], &[f64::from(x)])),
            ("f16", Tensor::from_slice(&[1, 1], &[f16::from_f32(x)])),
            ("bf16", Tensor::from_slice(&[1], &[bf16::from_f32(x)])),
            ("scalar", Tensor::from_slice(&[], &[x])),
            ("empty", Tensor::from_slice::<f32>(&[0], &[])),
            ("count", Tensor::from_slice(&[2], &[count, -1])),
        ];
        tensors.into_iter().map(|(name, tensor)| (name, tensor.unwrap())).collect()
    };
    let global = Message::from(tensors(1.0, 5));
    let updates: Vec<_> = [1.25, 1.5, 1.0].map(|x| (tensors(x, 5), 1)).to_vec();
    let (next, _) = Bench::new(3, json!({}), false).round(&global, &updates).unwrap();
    for ((name, next), (_, before)) in next.params.iter().zip(global.params.iter()) {
        assert_eq!((next.dtype(), next.shape()), (before.dtype(), before.shape()), "{name}");
    }
    let next = next.params;
    assert_eq!(next.elements::<f64>("f64", &[1]).unwrap(), [1.25]);
    assert_eq!(next.elements::<f16>("f16", &[1, 1]).unwrap(), [f16::from_f64(1.25)]);
    assert_eq!(next.elements::<bf16>("bf16", &[1]).unwrap(), [bf16::from_f64(1.25)]);
    assert_eq!(next.elements::<f32>("scalar", &[]).unwrap(), [1.25]);
    assert_eq!(next.elements::<i64>("count", &[2]).unwrap(), [5, -1]);
    let mut changed = updates;
    changed[2].0 = tensors(1.0, 6);
    let error = Bench::new(3, json!({}), false).round(&global, &changed).err().unwrap();
    assert_eq!(error.to_string(), "tensor `count`: has other i64 values than the global model");
}
