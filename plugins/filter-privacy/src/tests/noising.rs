//! Clipping, noise, and what is reported about them.

use plugin_api::half::{bf16, f16};
use serde_json::json;

use super::*;
use crate::noise::{Draw, laplace};
use rand::SeedableRng;

#[test]
fn clipping_agrees_with_numpy_and_keeps_to_the_norm() {
    let case = reference("clipping");
    let (base, sent, clip) = (from_reference(&case["base"]), from_reference(&case["sent"]), number(&case, "clip"));
    let host = Recorder::default();
    let clipped = gaussian(clip, 0.0).apply(sent, &base, &host.ctx("tm", 4)).unwrap();
    // The JSON reader may be one bit of f64 off; the f32 values are the same.
    assert!(largest_difference(&clipped, &case["clipped"]) <= 1e-15);
    let rounded = norm(elements(&clipped).iter().zip(elements(&base)).map(|(x, base)| x - base));
    // The parameters are about 1 and f32: 80 of them, each rounded by at most 2^-24, twice that above 2.
    assert!((rounded - clip).abs() < 1e-6, "{rounded}");
    let told = host.scalars("Privacy/norm");
    assert_eq!((told[0].0, told.len()), (4, 1));
    assert!((told[0].1 / number(&case, "norm") - 1.0).abs() < 1e-14);
    assert_eq!(host.scalars("Privacy/clipped"), [(4, 1.0)]);
    assert_eq!(host.scalars("Privacy/epsilon"), []);
    assert_eq!(
        host.last_note(),
        "no protection, since the noise is reproducible; else clipped to 0.75 without noise: epsilon is infinite"
    );
}

#[test]
fn in_f64_the_clipped_norm_is_exact() {
    let sent: Vec<f64> = (0..1000).map(|i| f64::from(i * 7919 % 1009) - 500.0).collect();
    let base = message([("w", tensor(&[0.0; 1000]))]);
    for clip in [1e-9, 0.3, 1.0, 1e4] {
        let clipped = applied(&mut gaussian(clip, 0.0), &message([("w", tensor(&sent))]), &base).unwrap();
        let got = norm(elements(&clipped));
        let wanted = norm(sent.iter().copied()).min(clip);
        assert!((got / wanted - 1.0).abs() < 1e-14, "{clip}: {got}");
        // The direction is unchanged.
        let scale = wanted / norm(sent.iter().copied());
        assert!(
            elements(&clipped).iter().zip(&sent).all(|(x, old)| (x - scale * old).abs() <= 1e-14 * old.abs() * scale)
        );
    }
}

#[test]
fn what_need_not_be_clipped_keeps_its_bits_without_noise() {
    // Differences for which `base + (x - base)` would lose the last bits.
    let (big, small) = (vec![1e30_f64, -3.0, 1e-300, -0.0], vec![1e-9_f64, 0.1, 7.0, 2.0]);
    let halves: Vec<f64> = vec![0.1, -2.5, 3e-5, 0.0];
    let of = |x: &[f64]| {
        message([
            ("f64", tensor(x)),
            ("f32", tensor(&x.iter().map(|&x| x as f32).collect::<Vec<_>>())),
            ("f16", tensor(&halves.iter().map(|&x| f16::from_f64(x)).collect::<Vec<_>>())),
            ("bf16", tensor(&x.iter().map(|&x| bf16::from_f64(x)).collect::<Vec<_>>())),
            ("ids", tensor(&[1_i64, 2])),
            ("scalar", Tensor::from_slice(&[], &[x[0] as f32]).unwrap()),
            ("nothing", Tensor::from_slice(&[0, 3], &[0.0_f32; 0]).unwrap()),
        ])
    };
    let host = Recorder::default();
    let passed = gaussian(1e31, 0.0).apply(of(&small), &of(&big), &host.ctx("tm", 0)).unwrap();
    assert_eq!(host.scalars("Privacy/clipped"), [(0, 0.0)]);
    for ((name, got), (wanted_name, wanted)) in passed.params.iter().zip(of(&small).params.iter()) {
        assert_eq!((name, got.dtype(), got.shape()), (wanted_name, wanted.dtype(), wanted.shape()));
        assert_eq!(got.buffer().as_slice(), wanted.buffer().as_slice(), "{name}");
    }
}

#[test]
fn the_noise_is_normal_with_the_told_deviation() {
    let count = 400_000;
    let (clip, multiplier) = (3.0, 0.7);
    let base = message([("a", tensor(&vec![5.0_f64; count / 2])), ("b", tensor(&vec![-5.0_f64; count / 2]))]);
    let sent = applied(&mut gaussian(clip, multiplier), &base, &base).unwrap();
    let noise: Vec<f64> =
        elements(&sent).iter().zip(elements(&base)).map(|(x, base)| (x - base) / (clip * multiplier)).collect();
    let mean = noise.iter().sum::<f64>() / count as f64;
    let variance = noise.iter().map(|x| x * x).sum::<f64>() / count as f64;
    let fourth = noise.iter().map(|x| x.powi(4)).sum::<f64>() / count as f64;
    let next = noise.windows(2).map(|pair| pair[0] * pair[1]).sum::<f64>() / count as f64;
    // Four standard errors each.
    let error = 4.0 / (count as f64).sqrt();
    assert!(mean.abs() < error && next.abs() < error, "{mean} {next}");
    assert!((variance - 1.0).abs() < error * 2_f64.sqrt(), "{variance}");
    assert!((fourth - 3.0).abs() < error * 96_f64.sqrt(), "{fourth}");
    for (within, probability) in [(0.5, 0.382_925), (1.0, 0.682_689), (2.0, 0.954_500), (3.0, 0.997_300)] {
        let share = noise.iter().filter(|x| x.abs() < within).count() as f64 / count as f64;
        assert!((share - probability).abs() < error * (probability * (1.0 - probability)).sqrt(), "{within}: {share}");
    }
}

#[test]
fn the_noise_comes_on_top_of_the_clipped_update() {
    let base = message([("w", tensor(&[0.0_f64; 50_000]))]);
    let sent = message([("w", tensor(&[2.0_f64; 50_000]))]);
    let noisy = applied(&mut gaussian(10.0, 0.01), &sent, &base).unwrap();
    let zero = applied(&mut gaussian(10.0, 0.01), &base, &base).unwrap();
    let clipped = 10.0 / 50_000_f64.sqrt();
    let both = elements(&noisy).into_iter().zip(elements(&zero));
    assert!(both.map(|(a, b)| (a - b - clipped).abs()).fold(0.0, f64::max) < 1e-14);
}

#[test]
fn reproducible_noise_depends_on_client_and_round_and_is_no_protection() {
    let base = message([("w", tensor(&[0.0_f32; 64]))]);
    let drawn = |client: &str, round: u64| {
        let host = Recorder::default();
        elements(&gaussian(1.0, 1.0).apply(base.clone(), &base, &host.ctx(client, round)).unwrap())
    };
    assert_eq!(drawn("tm", 3), drawn("tm", 3));
    assert_ne!(drawn("tm", 3), drawn("tm", 4));
    assert_ne!(drawn("tm", 3), drawn("binding", 3));
    let host = Recorder::default();
    let mut filter = gaussian(1.0, 1.0);
    for round in 0..3 {
        filter.apply(base.clone(), &base, &host.ctx("tm", round)).unwrap();
    }
    assert_eq!(host.warnings(), ["the noise comes from the experiment's seed: it protects nothing"]);
    assert!(host.last_note().starts_with("no protection, since the noise is reproducible; else epsilon "));
}

#[test]
fn noise_of_the_system_is_another_for_each_instance_and_message() {
    let base = message([("w", tensor(&[0.0_f32; 64]))]);
    let make =
        || privacy(json!({ "mechanism": "gaussian", "clip": 1.0, "noise-multiplier": 1.0, "delta": 1e-5 })).unwrap();
    let host = Recorder::default();
    let mut one = make();
    let drawn = |filter: &mut Privacy| elements(&filter.apply(base.clone(), &base, &host.ctx("tm", 0)).unwrap());
    let (first, second, other) = (drawn(&mut one), drawn(&mut one), drawn(&mut make()));
    assert!(first != second && first != other && second != other);
    assert!(host.warnings().is_empty());
    assert!(host.last_note().starts_with("epsilon "));
}

#[test]
fn laplace_noise_is_laplacian_and_always_finite() {
    assert_eq!([laplace(u64::MAX), laplace(u64::MAX - 1)].map(f64::abs), [0.0, 0.0]);
    let largest = 53.0 * 2_f64.ln();
    assert!((laplace(0) - largest).abs() < 1e-14 && (laplace(1) + largest).abs() < 1e-14);
    let mut generator = rand_chacha::ChaCha20Rng::seed_from_u64(7);
    let count = 400_000;
    let drawn: Vec<f64> = (0..count).map(|_| generator.laplace()).collect();
    let moment = |power: i32| drawn.iter().map(|x| x.powi(power)).sum::<f64>() / f64::from(count);
    let error = 4.0 / f64::from(count).sqrt();
    assert!(moment(1).abs() < error * 2_f64.sqrt(), "{}", moment(1));
    assert!((moment(2) - 2.0).abs() < error * 20_f64.sqrt(), "{}", moment(2));
    for (beyond, share) in [(1.0, (-1_f64).exp()), (3.0, (-3_f64).exp())] {
        let found = drawn.iter().filter(|x| x.abs() > beyond).count() as f64 / f64::from(count);
        assert!((found - share).abs() < error * (share * (1.0 - share)).sqrt(), "{beyond}: {found}");
    }
    assert!((0..1000).map(|_| generator.below(3)).all(|number| number < 3));
}

#[test]
fn each_round_is_told_and_counted() {
    let host = Recorder::default();
    let config = json!({ "mechanism": "gaussian", "clip": 2.0, "noise-multiplier": 1.0, "delta": 1e-5 });
    let mut filter = privacy(config).unwrap();
    let base = message([("w", tensor(&[0.0_f32, 0.0]))]);
    for (round, x) in [(0, 3.0_f32), (1, 0.3), (5, 0.3)] {
        filter.apply(message([("w", tensor(&[x, 4.0 * x / 3.0]))]), &base, &host.ctx("tm", round)).unwrap();
    }
    let norms: Vec<f64> = host.scalars("Privacy/norm").iter().map(|scalar| scalar.1).collect();
    assert!(norms.iter().zip([5.0, 0.5, 0.5]).all(|(norm, wanted)| (norm - wanted).abs() < 1e-6), "{norms:?}");
    assert_eq!(host.scalars("Privacy/clipped"), [(0, 1.0), (1, 0.0), (5, 0.0)]);
    let epsilons = host.scalars("Privacy/epsilon");
    // One round: `exact` of `tests/reference.py`.
    assert!((epsilons[0].1 - 4.377_178_096).abs() < 1e-8 && epsilons[1].1 > epsilons[0].1, "{epsilons:?}");
    let notes = host.notes.lock().unwrap();
    let notes: Vec<_> = notes.iter().filter(|(key, _)| key == "privacy").collect();
    assert_eq!(
        notes[0].1,
        "epsilon 4.3772 at delta 1e-5 for the parameters sent in 1 round, for a client's whole update against none"
    );
    assert!(notes[2].1.contains("sent in 3 rounds, for"), "{}", notes[2].1);
    let lines = host.lines.lock().unwrap();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0].0, Level::Debug);
    assert!(
        lines[0].1.starts_with("round 1: the update's norm of 5.0000e0 was clipped; epsilon 4.3772 at"),
        "{lines:?}"
    );
}

#[test]
fn a_restored_filter_goes_on_with_the_same_bits_and_account() {
    let base = message([("w", tensor(&[1.0_f32; 16]))]);
    let go = |filter: &mut Privacy, rounds: std::ops::Range<u64>, host: &Recorder| -> Vec<Vec<f64>> {
        let mut sent = Vec::new();
        for round in rounds {
            for client in ["tm", "binding"] {
                // The second client is not in every round, as with a fraction of the clients.
                if client == "tm" || round % 2 == 0 {
                    sent.push(elements(&filter.apply(base.clone(), &base, &host.ctx(client, round)).unwrap()));
                }
            }
        }
        sent
    };
    let (whole, halves) = (Recorder::default(), Recorder::default());
    let uninterrupted = go(&mut gaussian(1.0, 1.0), 0..6, &whole);
    let mut first = gaussian(1.0, 1.0);
    let mut sent = go(&mut first, 0..3, &halves);
    let state = first.state(&halves.ctx("tm", 2)).unwrap();
    let counted = ["binding", "tm"].map(|client| state.values["rounds"][client]["rounds"].clone());
    assert_eq!(counted, [json!(2), json!(3)]);
    let mut second = gaussian(1.0, 1.0);
    second.restore(&state, &halves.ctx("tm", 2)).unwrap();
    sent.extend(go(&mut second, 3..6, &halves));
    assert_eq!(sent, uninterrupted);
    assert_eq!(halves.scalars("Privacy/epsilon"), whole.scalars("Privacy/epsilon"));
    assert_eq!(*halves.notes.lock().unwrap(), *whole.notes.lock().unwrap());
    let mut fresh = gaussian(1.0, 1.0);
    let nothing = fresh.state(&halves.ctx("tm", 0)).unwrap();
    assert!(nothing.is_empty());
    fresh.restore(&nothing, &halves.ctx("tm", 0)).unwrap();
    let mut wrong = State::default();
    wrong.values.insert("rounds".to_owned(), json!("many"));
    let told = fresh.restore(&wrong, &halves.ctx("tm", 0)).unwrap_err().to_string();
    assert_eq!(told, "the checkpoint's value `rounds` cannot be used");
}
