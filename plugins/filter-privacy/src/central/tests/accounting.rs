//! Which rounds count, and what is reported.

use fedplug_dp::Rounds;

use super::*;

fn cost(sample_rate: f64, noise_multiplier: f64, count: u64) -> f64 {
    fedplug_dp::epsilon(&[Rounds { noise_multiplier, sample_rate, count }], 1e-5)
}

fn last(server: &Server) -> f64 {
    *server.scalars("Privacy/epsilon").last().unwrap()
}

#[test]
fn where_the_draw_can_be_foreseen_the_client_that_was_there_most_counts_in_full() {
    let server = Server::default();
    let mut aggregator = central(json!({ "reproducible": false })).unwrap();
    for (number, clients) in [&["a", "b"], &["b", "c"], &["b", "d"], &["a", "c"]].into_iter().enumerate() {
        let updates: Vec<(&str, Option<&[f64]>)> = clients.iter().map(|&client| (client, None)).collect();
        round(&mut aggregator, &server, number as u64, &[0.0], &updates);
    }
    // `b` was selected three times; its failure still counts.
    assert!((last(&server) / cost(1.0, 1.0, 3) - 1.0).abs() < 1e-9, "{}", last(&server));
    let told = format!(
        "epsilon {:.4} at delta 1e-5 for the global models of 4 rounds, for all of a client's updates against none; \
         the draw is predictable, and no client was in more than 3 rounds. The server is trusted: it receives \
         unprotected updates",
        cost(1.0, 1.0, 3)
    );
    assert_eq!(server.last_note(), told);
    assert!(server.clear.lock().unwrap().is_empty());
}

#[test]
fn poisson_sampling_amplifies_and_all_rounds_count_also_empty_ones() {
    let server = Server::poisson(0.1);
    let mut aggregator = central(json!({ "noise": "gaussian" })).unwrap();
    for number in 0..20 {
        round(&mut aggregator, &server, number, &[0.0], if number == 3 { &[("a", None)] } else { &[] });
    }
    assert!((last(&server) / cost(0.1, 1.0, 20) - 1.0).abs() < 1e-9, "{}", last(&server));
    assert!(last(&server) < cost(1.0, 1.0, 2));
    let note = server.last_note();
    assert!(note.starts_with("no protection, since the noise is reproducible; else epsilon 3.5915 at"), "{note}");
    assert!(
        note.contains("against none; each client took part in each with probability 0.1, in secret. The"),
        "{note}"
    );
    assert_eq!(server.clear.lock().unwrap().last().unwrap(), "the low bits of floating-point noise");
    // The host does not report how clients are sampled: nothing is amplified.
    let silent = Server::default();
    let mut aggregator = central(json!({})).unwrap();
    round(&mut aggregator, &silent, 0, &[0.0], &[("a", None)]);
    assert!((last(&silent) / cost(1.0, 1.0, 1) - 1.0).abs() < 1e-9);
}

/// Rounds that a killed process started count as released. With Poisson sampling, each may be this round or a later one
/// with the same clients, since a draw is made once.
#[test]
fn rounds_that_are_lost_count() {
    let begun = |server: &Server, attempts: u64| *server.attempts.lock().unwrap() = Some(attempts);
    for (sampling, told) in [
        (Sampling::Fixed, cost(1.0, 1.0, 7)),
        (
            Sampling::Poisson(0.2),
            fedplug_dp::epsilon(
                &[
                    Rounds { noise_multiplier: 1.0, sample_rate: 0.2, count: 3 },
                    Rounds { noise_multiplier: 3_f64.sqrt().recip(), sample_rate: 0.2, count: 2 },
                ],
                1e-5,
            ),
        ),
    ] {
        let server = Server { sampling: Some(sampling), ..Server::default() };
        let mut aggregator = central(json!({ "reproducible": false })).unwrap();
        begun(&server, 1);
        round(&mut aggregator, &server, 0, &[0.0], &[("a", None)]);
        let state = aggregator.state(&server.ctx(0)).unwrap();
        // Rounds 1 and 2 start, and the process is killed. The next one resumes from the checkpoint after round 0.
        let mut aggregator = central(json!({ "reproducible": false })).unwrap();
        aggregator.restore(&state, &server.ctx(0)).unwrap();
        for (number, attempts) in [(1, 4), (2, 5), (3, 6), (4, 7)] {
            begun(&server, attempts);
            round(&mut aggregator, &server, number, &[0.0], &[("a", None)]);
        }
        assert!((last(&server) / told - 1.0).abs() < 1e-9, "{sampling:?}: {}, not {told}", last(&server));
        let part = "; 2 more rounds were interrupted, may have been released, and count. The server";
        assert!(server.last_note().contains(part), "{}", server.last_note());
    }
}

#[test]
fn a_restored_aggregator_goes_on_with_the_same_bits_account_and_norm() {
    let clip = json!({ "initial": 1.0, "count-noise": 2.0 });
    let server = Server::poisson(0.5);
    let go = |aggregator: &mut Central, number: u64| {
        let w = [5.0, f64::from(number as u32)];
        round(aggregator, &server, number, &[0.0, 1.0], &[("a", Some(&w))])
    };
    let mut straight = central(json!({ "clip": clip })).unwrap();
    let mut all: Vec<Vec<f64>> = (0..3).map(|number| go(&mut straight, number)).collect();
    let state = straight.state(&server.ctx(2)).unwrap();
    all.extend((3..6).map(|number| go(&mut straight, number)));
    let epsilon = last(&server);
    let mut resumed = central(json!({ "clip": clip })).unwrap();
    assert!(resumed.state(&server.ctx(0)).unwrap().is_empty());
    resumed.restore(&state, &server.ctx(2)).unwrap();
    let rest: Vec<Vec<f64>> = (3..6).map(|number| go(&mut resumed, number)).collect();
    assert_eq!(all[3..], rest);
    assert_eq!(epsilon, last(&server));
    assert_eq!(resumed.state(&server.ctx(5)).unwrap().values, straight.state(&server.ctx(5)).unwrap().values);
    // Back to the start.
    resumed.restore(&State::default(), &server.ctx(0)).unwrap();
    assert_eq!(go(&mut resumed, 0), all[0]);
    assert_eq!(resumed.account.rounds(), 1);
}

#[test]
fn noise_of_the_system_is_another_each_time() {
    let server = Server::default();
    let draw = |aggregator: &mut Central| round(aggregator, &server, 0, &[0.0; 16], &[("a", None)]);
    let make = || central(json!({ "reproducible": false })).unwrap();
    let mut one = make();
    let (first, second, other) = (draw(&mut one), draw(&mut one), draw(&mut make()));
    assert!(first != second && first != other && second != other);
    assert!(server.warnings.lock().unwrap().is_empty());
    let mut one = central(json!({})).unwrap();
    assert_eq!(draw(&mut one), draw(&mut one));
    assert_eq!(
        server.warnings.lock().unwrap()[..],
        ["the noise comes from the experiment's seed: it protects nothing"]
    );
}
