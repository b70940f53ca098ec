//! Sparse vector and percentile, compared with NumPy.

use std::collections::VecDeque;

use serde_json::json;

use super::*;
use crate::noise::Draw;
use crate::percentile::percentile;
use crate::sparse_vector::{EpsilonOf, SparseVector};

/// Noise drawn by NumPy.
struct Recorded {
    laplace: VecDeque<f64>,
    below: VecDeque<f64>,
}

impl Draw for Recorded {
    fn normal(&mut self) -> f64 {
        panic!("no normal noise is asked for")
    }
    fn laplace(&mut self) -> f64 {
        self.laplace.pop_front().unwrap()
    }
    fn below(&mut self, count: usize) -> usize {
        let drawn = self.below.pop_front().unwrap() as usize;
        assert!(drawn < count);
        drawn
    }
}

fn sparse_vector(fraction: f64, gamma: f64, tau: f64, replace: bool) -> SparseVector {
    SparseVector { fraction, epsilon: 0.1, epsilon_of: EpsilonOf::Threshold, noise_var: 0.1, gamma, tau, replace }
}

#[test]
fn the_sparse_vector_agrees_with_numpy_for_the_same_noise() {
    let cases = ["sparse-vectors", "sparse-vectors-selection"].map(|name| reference(name).as_array().unwrap().clone());
    for case in &cases.concat() {
        let keys = &case["keys"];
        let mechanism = SparseVector {
            fraction: number(keys, "fraction"),
            epsilon: number(keys, "epsilon"),
            epsilon_of: serde_json::from_value(keys["epsilon-of"].clone()).unwrap_or(EpsilonOf::Threshold),
            noise_var: number(keys, "noise-var"),
            gamma: number(keys, "gamma"),
            tau: number(keys, "tau"),
            replace: keys["replace"].as_bool().unwrap(),
        };
        let mut noise = Recorded { laplace: numbers(&case["laplace"]).into(), below: numbers(&case["below"]).into() };
        let mut values = numbers(&case["values"]);
        let host = Recorder::default();
        let shared = mechanism.share(&mut values, &mut noise, &host.ctx("tm", 0)).unwrap();
        let wanted = numbers(&case["shared"]);
        let largest = values.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(largest <= 1e-17, "{keys}: {largest}");
        assert_eq!(shared, wanted.iter().filter(|x| **x != 0.0).count());
        assert!(noise.laplace.is_empty() && noise.below.is_empty());
        assert!((mechanism.textbook_epsilon(values.len()) / number(case, "textbook") - 1.0).abs() < 1e-14);
    }
}

#[test]
fn a_sparse_vector_shares_its_fraction_within_gamma() {
    let count = 10_000;
    let gamma = 1e-3;
    let mut sent = message([("w", tensor(&(0..count).map(|i| f64::from(i) * 1e-6).collect::<Vec<_>>()))]);
    sent.params.insert("scalar", Tensor::from_slice(&[], &[1.0_f64]).unwrap());
    let base = message([
        ("w", tensor(&vec![0.0_f64; count as usize])),
        ("scalar", Tensor::from_slice(&[], &[1.0_f64]).unwrap()),
    ]);
    for (replace, fewest, most) in [(false, 1001, 1001), (true, 400, 1000)] {
        let config = json!({
            "mechanism": "sparse-vector", "fraction": 0.1, "epsilon": 0.1, "noise-var": 2.0, "gamma": gamma, "tau": 1e-4,
            "epsilon-of": "threshold", "replace": replace, "reproducible": true,
        });
        let host = Recorder::default();
        let mut filter = privacy(config.clone()).unwrap();
        let shared = filter.apply(sent.clone(), &base, &host.ctx("tm", 1)).unwrap();
        let again = privacy(config.clone()).unwrap().apply(sent.clone(), &base, &host.ctx("tm", 1)).unwrap();
        assert_eq!(elements(&shared), elements(&again));
        let values = elements(&shared);
        let changed = values[..count as usize].iter().filter(|x| **x != 0.0).count();
        assert!((fewest - 1..=most).contains(&changed), "{changed}");
        assert!(values[..count as usize].iter().all(|x| x.abs() <= gamma));
        assert!((values[count as usize] - 1.0).abs() <= gamma);
        let told = host.scalars("Privacy/shared");
        assert_eq!(told[0].0, 1);
        assert!((fewest as f64..=most as f64).contains(&told[0].1), "{told:?}");
        // 0.1 + 0.1 · 2002^(2/3) + 1001 · 2.
        assert_eq!(
            host.last_note(),
            "no protection, since the noise is reproducible; else no proven guarantee after 1 round; a textbook sparse \
             vector with this noise would have epsilon 2017.9846 in each"
        );
    }
}

/// Both rules use the same file except for `epsilon-of`; NVIDIA FLARE 2.9.0 and 2.7 differ by this factor.
#[test]
fn the_rule_before_spends_far_more_on_the_selection_than_its_key_says() {
    let selection = |epsilon_of| {
        let mechanism = SparseVector { epsilon_of, ..sparse_vector(1.0, 1e-3, 0.0, false) };
        mechanism.textbook_epsilon(5_952) - 5_952.0 * 0.1
    };
    let ratio = 1.0 + (2.0_f64 * 5_952.0).powf(2.0 / 3.0);
    assert!((selection(EpsilonOf::Threshold) / selection(EpsilonOf::Selection) / ratio - 1.0).abs() < 1e-12);
}

#[test]
fn a_threshold_out_of_reach_is_an_error_of_its_key() {
    let host = Recorder::default();
    let mechanism = SparseVector { epsilon: 1e6, ..sparse_vector(0.5, 1.0, 100.0, true) };
    let mut generator: rand_chacha::ChaCha20Rng = rand::SeedableRng::seed_from_u64(1);
    let error = mechanism.share(&mut [0.0; 8], &mut generator, &host.ctx("tm", 0)).unwrap_err();
    let told = error.to_string();
    assert!(told.starts_with("`tau`: after 1000 passes only 0 of 4 values were above the threshold of 1"), "{told}");
    assert_eq!(error.hint(), Some("`tau` is of the size of `gamma` at most"));
}

#[test]
fn percentiles_agree_with_numpy() {
    for case in reference("percentiles").as_array().unwrap() {
        let (base, sent) = (from_reference(&case["base"]), from_reference(&case["sent"]));
        let mut magnitudes: Vec<f64> =
            elements(&sent).iter().zip(elements(&base)).map(|(x, base)| (x - base).abs()).collect();
        let cutoff = percentile(&mut magnitudes, number(case, "percentile"));
        assert!((cutoff - number(case, "cutoff")).abs() <= 1e-16, "{cutoff}");
        let config = json!({ "mechanism": "percentile", "percentile": case["percentile"], "gamma": case["gamma"] });
        let host = Recorder::default();
        let got = privacy(config).unwrap().apply(sent, &base, &host.ctx("tm", 2)).unwrap();
        // The JSON reader may be one bit of f64 off; the f32 values are the same.
        assert!(largest_difference(&got, &case["changed"]) <= 1e-15, "{}", case["percentile"]);
        let changed = elements(&got).iter().zip(elements(&base)).filter(|(x, base)| *x != base).count();
        assert_eq!(host.scalars("Privacy/shared"), [(2, changed as f64)]);
        assert_eq!(host.last_note(), "the largest updates are sent without noise: no differential privacy");
    }
}

#[test]
fn a_percentile_lies_between_its_neighbours() {
    let of = |values: &[f64], q: f64| percentile(&mut values.to_vec(), q);
    assert_eq!([0.0, 25.0, 50.0, 100.0].map(|q| of(&[3.0, 1.0, 2.0], q)), [1.0, 1.5, 2.0, 3.0]);
    assert_eq!(of(&[7.0], 30.0), 7.0);
    assert_eq!(of(&[1.0, 1.0, 1.0, 5.0], 50.0), 1.0);
}

#[test]
fn ties_at_the_percentile_are_shared_and_nothing_is_kept_in_a_state() {
    let base = message([("w", tensor(&[0.0_f32; 4]))]);
    let sent = message([("w", tensor(&[0.5_f32, -0.5, 0.25, 0.5]))]);
    let host = Recorder::default();
    let mut filter = privacy(json!({ "mechanism": "percentile", "percentile": 60, "gamma": 9.0 })).unwrap();
    let got = filter.apply(sent, &base, &host.ctx("tm", 0)).unwrap();
    assert_eq!(elements(&got), [0.5, -0.5, 0.0, 0.5]);
    assert!(filter.state(&host.ctx("tm", 0)).unwrap().is_empty());
}
