//! Clients that fail at each step, at the threshold and below it.

use super::*;

/// The mean of these clients, from a separate round in which no client fails.
fn expected(global: &Message, updates: &[(Params, u64)], stay: &[usize]) -> Vec<f32> {
    let base = values(&global.params, "w");
    let step = 2_f64.powi(-23);
    let number = |k: usize, i: usize| {
        let x = updates[k].0.get("w").unwrap().elements::<f32>().unwrap()[i];
        ((f64::from(x) - f64::from(base[i])) / step).round_ties_even() as i64
    };
    let mean = |i: usize| stay.iter().map(|&k| number(k, i)).sum::<i64>() as f64 * step / stay.len() as f64;
    base.iter().enumerate().map(|(i, x)| (f64::from(*x) + mean(i)) as f32).collect()
}

#[test]
fn up_to_the_threshold_clients_may_fail_at_any_step() {
    for step in [Step::Keys, Step::Shares, Step::Keep, Step::Update, Step::Unmask] {
        for lost in [&[][..], &[2], &[0, 3], &[3, 4]] {
            let mut bench = five(3);
            // Other clients in the second round, and all in the third: no state of a round remains in the next.
            for round in 0..3 {
                let (global, updates) = model(600, round);
                let lost: Vec<usize> = match round {
                    0 => lost.to_vec(),
                    1 => lost.iter().map(|k| (k + 1) % 5).collect(),
                    _ => Vec::new(),
                };
                let fails = |at: Step, k: usize| at == step && lost.contains(&k);
                let (next, heard) = bench.play(&global, &updates, &fails, &mut |_, _, _| {}, &Silent).unwrap();
                // A client that failed after its update was added is in the sum.
                let stay: Vec<usize> = (0..5).filter(|k| step == Step::Unmask || !lost.contains(k)).collect();
                assert_eq!(heard.updates.len(), stay.len());
                let (got, expected) = (values(&next.params, "w"), expected(&global, &updates, &stay));
                assert_eq!(got, expected, "{step:?}, without {lost:?}, round {round}");
            }
        }
    }
}

#[test]
fn clients_may_fail_at_several_steps_of_a_round() {
    let (global, updates) = model(100, 0);
    let mut bench = Bench::new(6, json!({ "threshold": 4 }), false);
    let fails = |at: Step, k: usize| matches!((at, k), (Step::Shares, 4) | (Step::Update, 1));
    let (next, _) = bench.play(&global, &updates, &fails, &mut |_, _, _| {}, &Silent).unwrap();
    assert_eq!(values(&next.params, "w"), expected(&global, &updates, &[0, 2, 3, 5]));
    let fails = |at: Step, k: usize| matches!((at, k), (Step::Keep, 0) | (Step::Unmask, 5));
    let (next, _) = bench.play(&global, &updates, &fails, &mut |_, _, _| {}, &Silent).unwrap();
    assert_eq!(values(&next.params, "w"), expected(&global, &updates, &[1, 2, 3, 4, 5]));
}

#[test]
fn below_the_threshold_the_round_fails_and_says_so_and_the_next_goes_on() {
    let (global, updates) = model(20, 0);
    for (step, did) in [
        (Step::Keys, "sent their keys"),
        (Step::Shares, "dealt shares"),
        (Step::Keep, "got their shares"),
        (Step::Update, "sent an update"),
        (Step::Unmask, "sent what is needed to unmask"),
    ] {
        let mut bench = five(3);
        let fails = |at: Step, k: usize| at == step && [0, 2, 3].contains(&k);
        let error = bench.play(&global, &updates, &fails, &mut |_, _, _| {}, &Silent).err().unwrap();
        assert_eq!(error.to_string(), format!("only 2 of the round's 5 clients {did}, but 3 are needed"));
        assert!(error.hint().unwrap().contains("`threshold`"));
        let (next, _) = bench.round(&global, &updates).unwrap();
        assert_eq!(values(&next.params, "w"), expected(&global, &updates, &[0, 1, 2, 3, 4]));
    }
}

#[test]
fn without_the_key_more_than_two_thirds_have_to_stay() {
    let (global, updates) = model(10, 0);
    for (clients, most) in [(3, 0), (4, 1), (5, 1), (6, 1)] {
        for lost in 0..=most + 1 {
            let mut bench = Bench::new(clients, json!({}), false);
            let fails = |at: Step, k: usize| at == Step::Update && k < lost;
            let played = bench.play(&global, &updates, &fails, &mut |_, _, _| {}, &Silent);
            assert_eq!(played.is_ok(), lost <= most, "{lost} of {clients}");
        }
    }
}
