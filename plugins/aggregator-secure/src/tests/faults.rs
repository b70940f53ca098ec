//! What is refused: at the server, at the clients, and in transit between them.

use super::*;
use plugin_api::config::{problems, read};

fn begun(clients: usize, config: serde_json::Value) -> Result<()> {
    let ctx = Context::new(&Silent);
    let cohort = Cohort::new((0..clients).map(|k| k.to_string()).collect(), clients);
    Secure::new(serde_json::from_value(config).unwrap(), &ctx)?.begin(&Message::default(), &cohort, &ctx)
}

#[test]
fn a_table_is_checked_as_it_is_read() {
    let problems = problems::<AggregatorConfig>(&json!({ "threshold": 1, "clip": 0.0, "bits": 31, "bit": 3 }));
    let told: Vec<_> = problems.iter().map(|p| format!("{}: {}", p.path.join("."), p.message)).collect();
    for line in [
        "threshold: must be at least 2 and at most 255, not 1",
        "clip: must be at least 1e-30 and at most 1e30, not 0",
        "bits: must be at least 2 and at most 30, not 31",
        "bit: unknown key `bit`",
    ] {
        assert!(told.iter().any(|told| told == line), "{line} is not in {told:?}");
    }
    assert_eq!(told.len(), 4);
    let defaults: AggregatorConfig = read(&json!({})).unwrap();
    assert_eq!((defaults.threshold, defaults.minimum), (None, None));
    let numbers = defaults.numbers().unwrap();
    assert_eq!((numbers.clip, numbers.bits, numbers.noise), (1.0, 24, None));
    let defaults: FilterConfig = read(&json!({})).unwrap();
    assert_eq!((defaults.minimum, defaults.threshold, defaults.reproducible), (3, None, false));
}

#[test]
fn a_round_of_the_wrong_size_is_refused() {
    for (clients, config, text) in [
        (2, json!({}), "a round has 2 clients, but needs from 3 to 255"),
        (256, json!({}), "a round has 256 clients, but needs from 3 to 255"),
        (5, json!({ "threshold": 6 }), "`threshold`: 6 of 5 clients is not a valid minimum for unmasking"),
        (6, json!({ "threshold": 3 }), "`threshold`: 3 of 6 clients is not a valid minimum for unmasking"),
        (4, json!({ "bits": 30 }), "`bits`: the sum of 4 numbers of 30 bits does not fit in 32"),
    ] {
        assert_eq!(begun(clients, config).unwrap_err().to_string(), text);
    }
    assert_eq!(begun(4, json!({ "bits": 30 })).unwrap_err().hint(), Some("at most 29 fit"));
    assert_eq!(begun(6, json!({ "threshold": 3 })).unwrap_err().hint(), Some("must be from 4 to 6"));
    for (clients, config) in [(3, json!({ "bits": 30 })), (255, json!({})), (6, json!({ "threshold": 4 }))] {
        begun(clients, config).unwrap();
    }
}

/// Plays a round of five clients in which a message is modified in transit, and returns the error.
fn changed(mut change: impl FnMut(Step, &str, &mut Message)) -> String {
    let (global, updates) = model(50, 0);
    five(3).play(&global, &updates, &|_, _| false, &mut change, &Silent).err().expect("it went well").to_string()
}

/// Changes one byte of the tensor of bytes.
fn flip(message: &mut Message, at: usize) {
    let tensor = message.extra.get("bytes").unwrap();
    let mut bytes = tensor.elements::<u8>().unwrap().to_vec();
    bytes[at] ^= 1;
    message.extra.insert("bytes", Tensor::from_slice(tensor.shape(), &bytes).unwrap());
}

#[test]
fn what_is_changed_on_the_way_is_found() {
    // The shares from client `b` for client `d`, in ciphertext and tag.
    for at in [80, 80 + 63, 80 + 79] {
        let error = changed(|step, client, m| {
            if (step, client) == (Step::Keep, "d") {
                flip(m, at)
            }
        });
        assert_eq!(error, "sealed shares were changed in transit");
    }
    let error = changed(|step, client, m| {
        if (step, client) == (Step::Shares, "b") {
            flip(m, 64)
        }
    });
    assert_eq!(error, "this client's keys are not among those that the aggregator sent");
    // Another key in place of client `e`'s, shown to client `a` alone: `e` cannot open what `a` sealed.
    let error = changed(|step, client, m| {
        if (step, client) == (Step::Shares, "a") {
            flip(m, 4 * 64)
        }
    });
    assert_eq!(error, "sealed shares were changed in transit");
    // Another key for masks: the masks of `a` and `e` do not cancel.
    let error = changed(|step, client, m| {
        if (step, client) == (Step::Shares, "a") {
            flip(m, 4 * 64 + 32)
        }
    });
    assert!(error.contains("the masks do not cancel"), "{error}");
    let error = changed(|step, client, m| {
        if (step, client) == (Step::Update, "c") {
            m.params.insert("b", Tensor::build(&[50], |all: &mut [i32]| all.fill(1)));
        }
    });
    assert!(error.contains("the masks do not cancel"), "{error}");
}

#[test]
fn a_wrong_share_is_found() {
    let (global, updates) = model(50, 0);
    // Shares of client `b`, which dropped out, and of client `c`, with one answer more than needed and with none.
    for (threshold, row, text) in [
        (3, 1, "client `b`: the shares are not of one secret"),
        (3, 2, "client `c`: the shares are not of one secret"),
        (4, 1, "client `b`: the shares are not of the secret of its public key"),
        (4, 2, "the masks do not cancel"),
    ] {
        let fails = |at: Step, k: usize| (at, k) == (Step::Update, 1);
        let mut change = |step: Step, client: &str, message: &mut Message| {
            if (step, client) == (Step::Given, "d") {
                flip(message, 32 * row);
            }
        };
        let error = five(threshold).play(&global, &updates, &fails, &mut change, &Silent).err().unwrap();
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn a_client_gives_its_shares_once_and_never_both_kinds() {
    let (global, updates) = model(10, 0);
    let ctx = Context::new(&Silent).with_round(0).with_client("a");
    let arrived = |places: &[usize]| Question::Unmask { arrived: places.to_vec() }.message().unwrap();
    for (places, text) in [
        (&[0, 1][..], "the updates of 2 clients arrived, fewer than 3"),
        (
            &[1, 2, 3],
            "the list of updates that arrived is out of order, lacks this client or names clients that dealt no shares",
        ),
        (
            &[0, 1, 2, 7],
            "the list of updates that arrived is out of order, lacks this client or names clients that dealt no shares",
        ),
        (
            &[0, 2, 1],
            "the list of updates that arrived is out of order, lacks this client or names clients that dealt no shares",
        ),
    ] {
        let error = changed(|step, client, message| {
            if (step, client) == (Step::Unmask, "a") {
                *message = arrived(places);
            }
        });
        assert_eq!(error, text);
    }
    let mut bench = five(3);
    bench.round(&global, &updates).unwrap();
    let error = bench.clients[0].answer(&arrived(&[0, 1, 2]), &ctx).unwrap_err();
    assert_eq!(error.to_string(), "the aggregator sent a query that is not due in this round");
}

#[test]
fn terms_that_would_not_protect_are_refused_by_the_client() {
    for (threshold, bits, text) in [
        (2, 24, "2 of 5 clients is not a valid minimum for unmasking"),
        (6, 24, "6 of 5 clients is not a valid minimum for unmasking"),
        (3, 30, "numbers of 30 bits do not suit 5 clients"),
        (3, 40, "numbers of 40 bits do not suit 5 clients"),
    ] {
        let error = changed(|step, client, message| {
            if (step, client) == (Step::Shares, "a") {
                let terms = &mut message.values["secure"]["terms"];
                (terms["threshold"], terms["bits"]) = (threshold.into(), bits.into());
            }
        });
        assert_eq!(error, text);
    }
}

#[test]
fn only_parameters_that_all_share_can_be_sent() {
    let round = |change: &dyn Fn(usize, &mut Params)| {
        let (global, mut updates) = model(5, 0);
        updates.iter_mut().enumerate().for_each(|(k, (params, _))| change(k, params));
        five(3).round(&global, &updates).err().expect("it went well")
    };
    let vector = |values: &[f32]| Tensor::from_slice(&[values.len()], values).unwrap();
    let error = round(&|_, params| drop(params.insert("head", vector(&[1.0]))));
    assert_eq!(error.to_string(), "tensor `head`: is not a parameter of the global model");
    assert!(error.hint().unwrap().contains("exclude-params"));
    let error = round(&|k, params| drop((k == 2).then(|| params.remove("b"))));
    assert_eq!(error.to_string(), "client `c` sends other parameters than client `a`");
    let error = round(&|_, params| drop(params.insert("w", vector(&[1.0; 4]))));
    assert_eq!(error.to_string(), "tensor `w`: is f32[4], but f32[5] in the global model");
    for value in [f32::NAN, f32::INFINITY] {
        let error =
            round(&|k, params| drop((k == 1).then(|| params.insert("w", vector(&[0.0, 0.0, 0.0, 0.0, value])))));
        assert_eq!(error.to_string(), "tensor `w`: its update contains a value that is not finite");
    }
}

#[test]
fn what_cannot_be_masked_is_not_sent() {
    let ctx = Context::new(&Silent).with_client("a");
    let (global, updates) = model(5, 0);
    let mut alone = Mask::new(serde_json::from_value(json!({})).unwrap(), &ctx).unwrap();
    let error = alone.apply(updates[0].0.clone().into(), &global, &ctx).unwrap_err();
    assert_eq!(error.to_string(), "nobody asked this client to agree on masks");
    assert!(alone.answer(&Message::default(), &ctx).unwrap().is_none());
    let mut strange = Message::default();
    strange.values.insert("secure".into(), json!({ "step": "tell-all" }));
    assert!(alone.answer(&strange, &ctx).unwrap_err().message().contains("this version"));

    let mut bench = five(3);
    let mut variate = Message::from(updates[0].0.clone());
    variate.extra.insert("variate", updates[0].0.get("w").unwrap().clone());
    variate.values.insert("norm".into(), 1.into());
    let opened = |bench: &mut Bench| {
        let at = Context::new(&Silent);
        let cohort = Cohort::new(NAMES[..5].iter().map(ToString::to_string).collect(), 5);
        bench.server.begin(&global, &cohort, &at).unwrap();
        let mut answers = Vec::new();
        loop {
            let questions = bench.server.ask(Stage::Opening, answers, &at).unwrap();
            if questions.is_empty() {
                return;
            }
            let answer = |(k, query): (usize, Query)| {
                let message =
                    bench.clients[k].answer(&query.message, &at.clone().with_client(NAMES[k])).unwrap().unwrap();
                Reply { client: query.client, message }
            };
            answers = questions.into_iter().enumerate().map(answer).collect();
        }
    };
    opened(&mut bench);
    let error = bench.clients[0].apply(variate, &global, &ctx).unwrap_err();
    assert_eq!(error.to_string(), "only parameters can be masked, not `variate`, `norm`");
    // After a failure the round is over; a second message of a round would be masked like the first.
    let error = bench.clients[0].apply(updates[0].0.clone().into(), &global, &ctx).unwrap_err();
    assert_eq!(error.to_string(), "nobody asked this client to agree on masks");
    let again = ctx.clone().with_client("b");
    bench.clients[1].apply(updates[1].0.clone().into(), &global, &again).unwrap();
    assert!(bench.clients[1].apply(updates[1].0.clone().into(), &global, &again).is_err());
}

#[test]
fn the_server_takes_masked_updates_of_the_round_alone() {
    let (global, updates) = model(5, 0);
    let clear = changed(|step, _, message| {
        if step == Step::Update {
            message.params = updates[0].0.clone();
        }
    });
    assert!(clear.contains("client `a` sends f32[5], which is not masked"), "{clear}");
    let ctx = Context::new(&Silent);
    let mut bench = five(3);
    let (_, heard) = bench.round(&global, &updates).unwrap();
    assert!(bench.server.add(heard.updates[0].clone(), &ctx).is_err());
    assert!(bench.server.finish(&ctx).unwrap_err().message().contains("not taken off"));
    assert!(bench.server.ask(Stage::Closing, Vec::new(), &ctx).is_err());
    assert!(bench.server.state(&ctx).unwrap().is_empty() && bench.clients[0].state(&ctx).unwrap().is_empty());
}
