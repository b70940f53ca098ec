//! The minimum: how many clients in a sum must have trained, and who enforces it.

use super::*;

/// The updates of a round in which only these of five clients trained.
fn trained(who: &[usize]) -> (Message, Vec<(Params, u64)>) {
    let (global, mut updates) = model(20, 0);
    for (_, update) in updates.iter_mut().enumerate().filter(|(k, _)| !who.contains(k)) {
        *update = (global.params.clone(), 0);
    }
    (global, updates)
}

#[test]
fn a_sum_over_too_few_that_trained_stays_masked() {
    // Only one of three clients has rows: the sum would be its update.
    let (global, updates) = trained(&[1]);
    let mut asked = Vec::new();
    let mut note = |step: Step, _: &str, _: &mut Message| asked.push(step);
    let mut bench = Bench::new(3, json!({}), false);
    let error = bench.play(&global, &updates, &|_, _| false, &mut note, &Silent).err().unwrap();
    assert_eq!(error.to_string(), "only 1 of the round's 3 clients trained and sent an update, but 3 are needed");
    assert!(error.hint().unwrap().contains("`minimum`"), "{error}");
    assert!(!asked.contains(&Step::Unmask), "clients were asked for shares of a sum over one client");
    // In the next round all trained.
    let (global, updates) = model(20, 1);
    bench.round(&global, &updates).unwrap();
}

#[test]
fn the_floor_is_of_those_that_trained_and_arrived_after_dropouts() {
    for (minimum, who, lost, fits) in [
        (json!(3), &[0, 1, 2][..], None, true),
        (json!(3), &[0, 1], None, false),
        (json!(3), &[0, 1, 2], Some(1), false),
        (json!(3), &[0, 1, 2, 4], Some(1), true),
        (json!(3), &[0, 1, 2], Some(3), true),
        // Without a `minimum`, it equals the threshold.
        (json!(null), &[0, 1, 2, 3], None, true),
        (json!(null), &[0, 1, 2], None, false),
    ] {
        let (global, updates) = trained(who);
        let mut bench = Bench::new(5, json!({ "threshold": 4, "minimum": minimum }), false);
        let fails = |at: Step, k: usize| at == Step::Update && lost == Some(k);
        let played = bench.play(&global, &updates, &fails, &mut |_, _, _| {}, &Silent);
        assert_eq!(played.is_ok(), fits, "{minimum} {who:?} {lost:?}: {:?}", played.err());
    }
}

#[test]
fn a_client_holds_the_aggregator_to_its_own_bounds() {
    let (global, updates) = model(20, 0);
    for (server, filter, text) in [
        (
            json!({ "threshold": 4, "minimum": 2 }),
            json!({}),
            "`minimum`: the aggregator's `minimum` is 2, but this client requires at least 3",
        ),
        (
            json!({ "threshold": 4 }),
            json!({ "minimum": 5 }),
            "`minimum`: the aggregator's `minimum` is 4, but this client requires at least 5",
        ),
        (
            json!({ "threshold": 3 }),
            json!({ "threshold": 4 }),
            "`threshold`: the aggregator's `threshold` is 3, but this client requires at least 4",
        ),
    ] {
        let error = Bench::with(5, server, &|_| filter.clone()).round(&global, &updates).err().unwrap();
        assert_eq!(error.to_string(), text);
        assert!(error.hint().unwrap().contains("in the table `aggregator`"));
    }
    // The server alone cannot lower it: it promises 4, and sends its query when 3 updates arrived.
    let mut bench = Bench::with(5, json!({ "threshold": 3, "minimum": 3 }), &|_| json!({ "minimum": 3 }));
    let mut lie = |step: Step, client: &str, message: &mut Message| match (step, client) {
        (Step::Shares, _) => message.values["secure"]["terms"]["minimum"] = 4.into(),
        (Step::Unmask, "a") => *message = Question::Unmask { arrived: vec![0, 1] }.message().unwrap(),
        _ => {}
    };
    let error = bench.play(&global, &updates, &|_, _| false, &mut lie, &Silent).err().unwrap();
    assert_eq!(error.to_string(), "the updates of 2 clients arrived, fewer than 3");
    let mut bench = Bench::with(5, json!({ "threshold": 3, "minimum": 4 }), &|_| json!({ "minimum": 4 }));
    let mut lie = |step: Step, client: &str, message: &mut Message| {
        if (step, client) == (Step::Unmask, "a") {
            *message = Question::Unmask { arrived: vec![0, 1, 2] }.message().unwrap();
        }
    };
    let error = bench.play(&global, &updates, &|_, _| false, &mut lie, &Silent).err().unwrap();
    assert_eq!(error.to_string(), "the updates of 3 clients arrived, fewer than 4");
}

#[test]
fn the_minimum_must_be_possible() {
    let ctx = Context::new(&Silent);
    let mut bench = Bench::new(5, json!({ "minimum": 6 }), false);
    let cohort = Cohort::new(NAMES[..5].iter().map(ToString::to_string).collect(), 6);
    let error = bench.server.begin(&Message::default(), &cohort, &ctx).unwrap_err();
    assert_eq!(error.to_string(), "`minimum`: the round has only 5 clients, fewer than 6");
    assert_eq!(error.hint(), Some("must be from 2 to 5"));
}
