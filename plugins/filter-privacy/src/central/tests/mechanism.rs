//! Clipping, the sum, and the noise.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::*;

#[test]
fn the_sum_of_clipped_updates_is_divided_by_the_expected_number() {
    let go = |server: &Server, updates: &[(&str, Option<&[f64]>)]| {
        round(&mut central(json!({ "noise-multiplier": 0.0 })).unwrap(), server, 0, &[10.0, 20.0], updates)
    };
    let near = |found: Vec<f64>, wanted: [f64; 2]| {
        // Each client's elements are rounded towards 0 by at most 2^-30.
        assert!(found.iter().zip(wanted).all(|(x, y)| (x - y).abs() < 4e-9), "{found:?}, wanted {wanted:?}");
    };
    // `a` moves by (3, 4), clipped to (0.6, 0.8); `b` by (0, -0.5), unclipped.
    let (a, b): (&[f64], &[f64]) = (&[13.0, 24.0], &[10.0, 19.5]);
    let fixed = Server::default();
    near(go(&fixed, &[("a", Some(a)), ("b", Some(b))]), [10.3, 20.15]);
    near(go(&fixed, &[("a", Some(a)), ("b", None)]), [10.3, 20.4]);
    // A quarter of four clients is one, whoever takes part.
    let poisson = Server::poisson(0.25);
    near(go(&poisson, &[("a", Some(a)), ("b", Some(b))]), [10.6, 20.3]);
    near(go(&poisson, &[]), [10.0, 20.0]);
    let doubled = json!({ "noise-multiplier": 0.0, "learning-rate": 2.0 });
    near(
        round(&mut central(doubled).unwrap(), &fixed, 0, &[10.0, 20.0], &[("a", Some(a)), ("b", Some(b))]),
        [10.6, 20.3],
    );
    assert_eq!(
        fixed.last_note(),
        "no protection, since the noise is reproducible; else clipped without noise: epsilon is infinite"
    );
}

/// The known sensitivity rests on this: whatever is sent, its integers are within the norm, by exact arithmetic.
#[test]
fn no_update_is_beyond_the_sensitivity() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    for (multiplier, clip) in [(0.0, 1.0), (1e-9, 0.1), (1.0, 1.0), (3.7, 1e-12), (1000.0, 1e9)] {
        let lattice = Lattice::new(multiplier, NoiseKind::Discrete).unwrap();
        let zero = message([("w", tensor(&[0.0; 64]))]);
        for size in 0..200 {
            let scale = 10_f64.powi(size % 40 - 20) * clip;
            let mut w: Vec<f64> = (0..64).map(|_| scale * (rng.random::<f64>() - 0.5)).collect();
            if size % 3 == 0 {
                // Exactly at the norm, in one element and in four.
                w = vec![0.0; 64];
                w[..4].fill(if size % 2 == 0 { 0.5 * clip } else { -0.5 * clip });
                if size % 9 == 0 {
                    w = vec![0.0; 64];
                    w[7] = clip;
                }
            }
            let sent = message([("w", tensor(&w))]);
            let update = Update::of(&sent, &zero).unwrap();
            let norm = update.norm().unwrap();
            let rounding = lattice.rounding(&update, norm, clip).unwrap();
            let square: u128 = w.iter().map(|&x| u128::from(rounding.integer(x).unsigned_abs()).pow(2)).sum();
            let most = u128::from(lattice.steps()).pow(2);
            assert!(square <= most, "{multiplier} {clip} {size}: {square} over {most}");
            // Rounding removes at most one step per element.
            let kept = (square as f64).sqrt() / f64::from(lattice.steps()) * clip;
            let least = norm.min(clip) - 8.0 * clip / f64::from(lattice.steps());
            assert!(kept >= least * (1.0 - 1e-12), "{multiplier} {clip} {size}: {kept} of {norm}");
        }
    }
}

#[test]
fn noise_of_the_told_deviation_is_on_every_element_once() {
    let count = 200_000;
    for noise in ["discrete", "gaussian"] {
        for updates in [&[] as &[(&str, Option<&[f64]>)], &[("a", None), ("b", None), ("c", None), ("d", None)]] {
            let keys = json!({ "noise-multiplier": 0.7, "clip": 3.0, "noise": noise });
            let found = round(&mut central(keys).unwrap(), &Server::poisson(0.5), 0, &vec![0.0; count], updates);
            // Two of four clients are expected.
            let unit: Vec<f64> = found.iter().map(|x| x / (0.7 * 3.0 / 2.0)).collect();
            let moment = |power: i32| unit.iter().map(|x| x.powi(power)).sum::<f64>() / count as f64;
            // Five standard errors each.
            let error = 5.0 / (count as f64).sqrt();
            assert!(moment(1).abs() < error, "{noise}: {}", moment(1));
            assert!((moment(2) - 1.0).abs() < error * 2_f64.sqrt(), "{noise}: {}", moment(2));
            assert!((moment(4) - 3.0).abs() < error * 96_f64.sqrt(), "{noise}: {}", moment(4));
        }
    }
}

/// Mironov 2012 reads the low bits of a noisy sum. With discrete noise they reveal nothing: the sum is an integer, and
/// the released value is a function of it.
#[test]
fn what_is_released_is_a_function_of_a_noisy_integer() {
    let step = 1.0 / f64::from(1 << 20);
    let w: Vec<f64> = (0..1000).map(|i| f64::from(i) * 1e-3 / 31.0).collect();
    let go = |noise: &str| {
        let keys = json!({ "noise": noise });
        round(&mut central(keys).unwrap(), &Server::default(), 0, &vec![0.0; 1000], &[("a", Some(&w))])
    };
    assert!(go("discrete").iter().all(|x| (x / step).fract() == 0.0));
    assert!(go("gaussian").iter().filter(|x| (*x / step).fract() != 0.0).count() > 990);
}

#[test]
fn what_holders_do_not_send_is_zero_and_gets_noise_too() {
    let server = Server::default();
    let global = message([("own", tensor(&[1.0; 500])), ("w", tensor(&[0.0]))]);
    let mut aggregator = central(json!({})).unwrap();
    aggregator.begin(&global, &cohort(&["a"], 2), &server.ctx(0)).unwrap();
    aggregator.add(sent("a", message([("w", tensor(&[5.0]))])), &server.ctx(0)).unwrap();
    let next = aggregator.finish(&server.ctx(0)).unwrap();
    let noise: f64 = elements(&next, "own").iter().map(|x| (x - 1.0).powi(2)).sum::<f64>() / 500.0;
    assert!((noise - 1.0).abs() < 0.3, "{noise}");
    assert_eq!(
        server.warnings.lock().unwrap()[1],
        "no client of this round sent `own`, nor 0 other parameters, which get noise nevertheless; if clients keep them \
         to themselves, `exclude-params` must also be at `server-output`"
    );
    // If every client takes part, the parameter is known to be private and is dropped.
    aggregator.begin(&global, &cohort(&["a"], 1), &server.ctx(1)).unwrap();
    aggregator.add(sent("a", message([("w", tensor(&[5.0]))])), &server.ctx(1)).unwrap();
    let next = aggregator.finish(&server.ctx(1)).unwrap();
    assert_eq!(next.params.names().collect::<Vec<_>>(), ["w"]);
    // Not if the holder failed.
    aggregator.begin(&global, &cohort(&["a", "b"], 2), &server.ctx(2)).unwrap();
    aggregator.add(sent("a", message([("w", tensor(&[5.0]))])), &server.ctx(2)).unwrap();
    assert_eq!(aggregator.finish(&server.ctx(2)).unwrap().params.len(), 2);
}

#[test]
fn integers_and_types_stay() {
    let server = Server::default();
    let global = message([("ids", tensor(&[1_i64, 2])), ("f32", tensor(&[1.0_f32; 3]))]);
    let mut aggregator = central(json!({})).unwrap();
    aggregator.begin(&global, &cohort(&["a"], 1), &server.ctx(0)).unwrap();
    aggregator.add(sent("a", global.clone()), &server.ctx(0)).unwrap();
    let next = aggregator.finish(&server.ctx(0)).unwrap();
    assert_eq!(next.params.elements::<i64>("ids", &[2]).unwrap(), [1, 2]);
    assert_ne!(next.params.elements::<f32>("f32", &[3]).unwrap(), [1.0; 3]);
}

/// Andrew et al. 2021, Algorithm 1: the norm moves by `exp(-η (b - γ))`, and towards the quantile.
#[test]
fn an_adaptive_norm_follows_the_quantile() {
    let clip = json!({ "initial": 1.0, "quantile": 0.75, "learning-rate": 0.2, "count-noise": 1.0 });
    let server = Server::default();
    let mut aggregator = central(json!({ "clip": clip, "noise-multiplier": 0.0 })).unwrap();
    let updates: [(&str, Option<&[f64]>); 4] =
        [("a", Some(&[1.0])), ("b", Some(&[2.0])), ("c", Some(&[3.0])), ("d", Some(&[40.0]))];
    round(&mut aggregator, &server, 0, &[0.0], &updates);
    // One of four is within the norm of 1.
    assert!((aggregator.clipping.norm - (-0.2 * (0.25 - 0.75_f64)).exp()).abs() < 1e-12);
    for number in 1..100 {
        round(&mut aggregator, &server, number, &[0.0], &updates);
    }
    assert!((2.7..3.4).contains(&aggregator.clipping.norm), "{}", aggregator.clipping.norm);
    assert_eq!(server.scalars("Privacy/clip")[0], 1.0);
    assert_eq!(server.scalars("Privacy/clip").len(), 100);
    // If a client fails, the others' fraction is relative to the expected number.
    let mut aggregator = central(json!({ "clip": clip, "noise-multiplier": 0.0 })).unwrap();
    round(&mut aggregator, &server, 0, &[0.0], &[("a", Some(&[1.0])), ("b", None)]);
    assert!((aggregator.clipping.norm - 1.0).abs() < 1e-12);
}

#[test]
fn the_count_of_an_adaptive_norm_is_noisy_and_within_the_account() {
    let clip = json!({ "initial": 1.0, "count-noise": 2.0 });
    let keys = json!({ "clip": clip, "noise-multiplier": 1.5, "reproducible": false });
    let mut aggregator = central(keys).unwrap();
    // (1.5⁻² − 4⁻²)^(-1/2)
    let updates = aggregator.lattice.multiplier();
    assert!((updates - 1.618_079_7).abs() < 1e-6, "{updates}");
    assert!((aggregator.clipping.joint(&aggregator.lattice) - 1.5).abs() < 1e-9);
    // The fraction is 1/2 + N(0, 2²) / 4, for two clients on each side, clamped to [0, 1].
    let server = Server::default();
    let updates: [(&str, Option<&[f64]>); 4] =
        [("a", Some(&[0.1])), ("b", Some(&[0.2])), ("c", Some(&[30.0])), ("d", Some(&[40.0]))];
    let shares: Vec<f64> = (0..400)
        .map(|number| {
            aggregator.clipping.norm = 1.0;
            round(&mut aggregator, &server, number, &[0.0], &updates);
            0.5 - aggregator.clipping.norm.ln() / 0.2
        })
        .collect();
    let mean = shares.iter().sum::<f64>() / 400.0;
    assert!((mean - 0.5).abs() < 0.09, "{mean}");
    // Half a client's worth of noise is one standard deviation, so 32 % are clamped.
    let cut = shares.iter().filter(|share| !(1e-9..1.0 - 1e-9).contains(*share)).count();
    assert!((80..180).contains(&cut), "{cut}");
}
