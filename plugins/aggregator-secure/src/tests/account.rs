//! The account, compared with `noise.py`, and what is reported of it.

use super::*;
use crate::account::{Account, tau};
use crate::fixed::Grid;
use crate::noise::{Noise, Plan};
use serde_json::Value;

fn reference(key: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("noise.json")).unwrap();
    all[key].as_array().unwrap().clone()
}

fn near(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 1e-9 * expected.abs()
}

#[test]
fn the_account_is_that_of_an_independent_computation() {
    for case in reference("accounts") {
        let number = |key: &str| case[key].as_f64().unwrap();
        let whole = |key: &str| usize::try_from(case[key].as_u64().unwrap()).unwrap();
        let noise = Noise { multiplier: number("multiplier"), delta: number("delta"), colluding: whole("colluding") };
        let grid = Grid { clip: 1.0, bits: whole("bits") as u32 };
        let plan = Plan::new(noise, grid, whole("threshold"), whole("threshold")).unwrap();
        assert_eq!(plan.variance(), number("variance"), "{case}");
        assert_eq!(plan.largest_square(whole("values")), u128::from(case["square"].as_u64().unwrap()), "{case}");
        let account = Account::new(&plan, noise, whole("values"));
        let (local, honest, rounds) = (plan.variance(), plan.honest, number("rounds"));
        assert!((tau(honest, local) - number("tau")).abs() <= 1e-12 * number("tau"), "{case}");
        // If τ matters, the smaller of two bounds is taken at each order; Theorem 1 has one of them.
        let (renyi, expected) = (account.renyi(rounds), number("renyi"));
        if number("tau") < 1e-12 {
            assert!(near(renyi, expected), "{renyi} in {case}");
        } else {
            assert!(renyi <= expected * (1.0 + 1e-9) && renyi > 0.99 * expected, "{renyi} in {case}");
        }
        let continuous = account.continuous(rounds);
        match case["continuous"].as_f64() {
            Some(expected) => assert!(near(continuous, expected), "{continuous} in {case}"),
            None => assert_eq!(continuous, f64::INFINITY),
        }
        assert_eq!(account.epsilon(whole("rounds") as u64), renyi.min(continuous));
    }
}

#[test]
fn the_account_is_above_the_epsilon_that_follows_from_the_probabilities() {
    for case in reference("definitions") {
        let number = |key: &str| case[key].as_f64().unwrap();
        let clients = case["clients"].as_u64().unwrap() as usize;
        let (variance, exact) = (number("variance"), number("epsilon"));
        assert!(number("apart") <= tau(clients, variance), "{case}");
        let account = Account::of(number("norm"), (clients, variance), 1, number("delta"));
        let found = account.epsilon(1);
        assert!(found >= exact && found < 2.0 * exact, "{found} for {case}");
        for one in [account.renyi(1.0), account.continuous(1.0)] {
            assert!(one >= exact, "{one} for {case}");
        }
    }
}

#[test]
fn epsilon_grows_with_the_rounds_and_falls_with_the_noise() {
    let epsilon = |multiplier: f64, colluding, rounds| {
        let noise = Noise { multiplier, delta: 1e-5, colluding };
        let plan = Plan::new(noise, Grid { clip: 1.0, bits: 20 }, 5, 6).unwrap();
        Account::new(&plan, noise, 1000).epsilon(rounds)
    };
    assert_eq!(epsilon(1.0, 1, 0), 0.0);
    for rounds in 1..30 {
        assert!(epsilon(1.0, 1, rounds) < epsilon(1.0, 1, rounds + 1));
        assert!(epsilon(1.0, 1, rounds) < epsilon(0.9, 1, rounds));
    }
    // The other clients make up for the noise of colluding ones.
    assert!((epsilon(1.0, 0, 10) - epsilon(1.0, 3, 10)).abs() < 1e-6);
}

/// Reports, and the number of started rounds that a host knows of.
struct Begun(Told, u64);

impl Host for Begun {
    fn enabled(&self, level: Level) -> bool {
        self.0.enabled(level)
    }
    fn log(&self, level: Level, line: &str) {
        self.0.log(level, line);
    }
    fn scalar(&self, tag: &str, step: u64, value: f64) {
        self.0.scalar(tag, step, value);
    }
    fn progress(&self, _: u64, _: u64) {}
    fn note(&self, key: &str, text: &str) {
        self.0.note(key, text);
    }
    fn property(&self, key: &str) -> Option<Value> {
        (key == "attempts").then(|| self.1.into())
    }
    fn cancelled(&self) -> bool {
        false
    }
}

#[test]
fn rounds_count_over_interruptions_and_the_note_says_what_holds() {
    let config = json!({ "clip-norm": 1.0, "noise-multiplier": 1.0, "delta": 1e-5, "threshold": 5 });
    let (global, updates) = model(20, 0);
    let mut bench = Bench::new(6, config.clone(), false);
    let play = |bench: &mut Bench, host: &dyn Host| {
        bench.play(&global, &updates, &|_, _| false, &mut |_, _, _| {}, host).unwrap();
    };
    let epsilons: Vec<f64> = reference("accounts")[..2].iter().map(|c| c["continuous"].as_f64().unwrap()).collect();
    let told = Told::default();
    play(&mut bench, &told);
    let note = "privacy: epsilon 4.3772 at delta 1e-5 for the sums of 1 round, for a client's whole update against none, \
        towards a server that follows the protocol and any one other client";
    assert!(format!("{:.4}", epsilons[0]) == "4.3772" && told.has(note), "{:?}", told.0.lock().unwrap());
    for line in [
        "of which at least 5 trained, with noise of 1 times `clip-norm` on every value even if 1 of these clients \
         reveal theirs",
        "from any sum, but for that one's own noise, and 5 clients",
        "Secure/epsilon 0 4.37",
    ] {
        assert!(told.has(line), "{line} is not in {:?}", told.0.lock().unwrap());
    }
    // Norms and clamped values are not reported.
    assert!(!told.has("Secure/clamped") && !told.has("privacy.clear"));
    for _ in 1..19 {
        play(&mut bench, &Silent);
    }
    // A checkpoint, and new filters that continue from it.
    let ctx = Context::new(&Silent);
    let states: Vec<_> = bench.clients.iter_mut().map(|client| client.state(&ctx).unwrap()).collect();
    let mut resumed = Bench::new(6, config, false);
    resumed.clients.iter_mut().zip(&states).for_each(|(client, state)| client.restore(state, &ctx).unwrap());
    let told = Told::default();
    play(&mut resumed, &told);
    assert!(told.has(&format!("epsilon {:.4} at delta 1e-5 for the sums of 20 rounds", epsilons[1])));
    // Three more rounds started before an interruption, and their messages may have been seen.
    let begun = Begun(Told::default(), 24);
    play(&mut resumed, &begun);
    assert!(begun.0.has("for the sums of 24 rounds"), "{:?}", begun.0.0.lock().unwrap());
}

#[test]
fn reproducible_noise_is_no_protection() {
    let config = json!({ "clip-norm": 1.0, "noise-multiplier": 1.0, "delta": 1e-5 });
    let (global, updates) = model(20, 0);
    let run = |reproducible| {
        let told = Told::default();
        let mut bench = Bench::new(5, config.clone(), reproducible);
        let (next, _) = bench.play(&global, &updates, &|_, _| false, &mut |_, _, _| {}, &told).unwrap();
        (values(&next.params, "w"), told.has("privacy: no protection, since the noise is reproducible; else epsilon"))
    };
    assert_eq!(run(true), run(true));
    assert!(run(true).1 && !run(false).1);
    assert_ne!(run(false).0, run(false).0);
}
