//! Signed keys and the consistency round, with a server that cheats.

use super::identities::Keyring;
use super::*;

fn bytes(message: &Message, name: &str) -> Vec<u8> {
    message.extra.get(name).unwrap().elements::<u8>().unwrap().to_vec()
}

fn set(message: &mut Message, name: &str, bytes: &[u8]) {
    let shape = message.extra.get(name).unwrap().shape().to_vec();
    message.extra.insert(name, Tensor::from_slice(&shape, bytes).unwrap());
}

/// Plays a round of five signing clients in which the server changes something, and returns the error.
fn cheated(change: impl FnMut(Step, &str, &mut Message)) -> String {
    let mut bench = Keyring::new().bench(5, json!({ "threshold": 3, "minimum": 3 }));
    cheat(&mut bench, 0, change)
}

fn cheat(bench: &mut Bench, round: u64, mut change: impl FnMut(Step, &str, &mut Message)) -> String {
    let (global, updates) = model(20, round);
    let played = bench.play(&global, &updates, &|_, _| false, &mut change, &Silent);
    played.err().expect("it went well").to_string()
}

#[test]
fn signed_rounds_give_the_same_model_also_after_dropouts() {
    let ring = Keyring::new();
    for lost in [None, Some(Step::Keys), Some(Step::Sign), Some(Step::Shares), Some(Step::Update), Some(Step::Agree)] {
        let fails = |at: Step, k: usize| Some(at) == lost && k == 1;
        let (mut signed, mut plain) = (ring.bench(5, json!({ "threshold": 3 })), five(3));
        for round in 0..2 {
            let (global, updates) = model(200, round);
            let told = Told::default();
            let (next, heard) = signed.play(&global, &updates, &fails, &mut |_, _, _| {}, &told).unwrap();
            // A client that drops out at a step that exists only with signatures drops out one step earlier.
            let fails = |at: Step, k: usize| match lost {
                Some(Step::Sign) => (at, k) == (Step::Keys, 1),
                Some(Step::Agree) => false,
                _ => fails(at, k),
            };
            let (expected, _) = plain.play(&global, &updates, &fails, &mut |_, _, _| {}, &Silent).unwrap();
            assert_eq!(values(&next.params, "w"), values(&expected.params, "w"), "{lost:?}");
            assert_eq!(heard.answers.len(), 6);
            assert!(told.has("of which at least 3 trained; keys and lists of arrived updates are signed"));
        }
    }
}

#[test]
fn a_substituted_key_is_refused() {
    // Another key in place of client `e`'s: for `a` alone, when it signs or when it deals, and for all but `e`.
    for at in [4 * 64, 4 * 64 + 32] {
        let swap = |m: &mut Message| {
            let mut keys = bytes(m, "bytes");
            keys[at] ^= 1;
            set(m, "bytes", &keys);
        };
        let error = cheated(|step, client, m| {
            if (step, client) == (Step::Sign, "a") {
                swap(m)
            }
        });
        assert_eq!(error, "the members, keys or terms differ from those that this client signed");
        let error = cheated(|step, client, m| {
            if matches!(step, Step::Sign | Step::Shares) && client == "a" {
                swap(m)
            }
        });
        assert_eq!(error, "client `b` did not sign the members, keys and terms that this client was shown");
        let error = cheated(|step, client, m| {
            if step == Step::Sign && client != "e" {
                swap(m)
            }
        });
        assert_eq!(error, "the members, keys or terms differ from those that this client signed");
        let error = cheated(|step, _, m| {
            if step == Step::Sign {
                swap(m)
            }
        });
        assert_eq!(error, "this client's keys are not among those that the aggregator sent");
    }
}

#[test]
fn a_missing_or_forged_signature_is_refused() {
    let without = |places: &'static [usize]| {
        cheated(move |step, client, m| {
            if (step, client) == (Step::Shares, "a") {
                let mut rows = bytes(m, "signatures");
                places.iter().for_each(|place| rows[64 * place..64 * (place + 1)].fill(0));
                set(m, "signatures", &rows);
            }
        })
    };
    // Without enough signatures there is no round; without one signature there is no round with that client.
    assert_eq!(without(&[1, 2, 3]), "only 2 of the members signed their keys, but 3 are needed");
    assert_eq!(without(&[1]), "client `b` has not signed its keys");
    assert_eq!(without(&[0]), "this client's own signature is not among those that the aggregator sent");
    let error = cheated(|step, client, m| {
        if (step, client) == (Step::Shares, "a") {
            let mut rows = bytes(m, "signatures");
            rows[64] ^= 1;
            set(m, "signatures", &rows);
        }
    });
    assert_eq!(error, "client `b` did not sign the members, keys and terms that this client was shown");
    let error = cheated(|step, client, m| {
        if (step, client) == (Step::Shares, "a") {
            m.extra.remove("signatures");
        }
    });
    assert_eq!(error, "the members' signatures do not come with their keys");
    // No signatures are requested.
    let error = cheated(|step, client, m| {
        if (step, client) == (Step::Sign, "a") {
            m.values["secure"]["step"] = "shares".into();
        }
    });
    assert_eq!(error, "the aggregator asks for shares before the members signed their keys");
}

#[test]
fn replayed_keys_are_refused() {
    // Client `b` took part in the first round; the second shows its old keys and its old signature.
    let mut bench = Keyring::new().bench(5, json!({ "threshold": 3 }));
    let (global, updates) = model(20, 0);
    let mut old = (Vec::new(), Vec::new());
    let mut listen = |step: Step, _: &str, m: &mut Message| {
        if step == Step::Shares {
            old = (bytes(m, "bytes")[64..128].to_vec(), bytes(m, "signatures")[64..128].to_vec());
        }
    };
    bench.play(&global, &updates, &|_, _| false, &mut listen, &Silent).unwrap();
    let replay = |step: Step, client: &str, m: &mut Message| {
        if !matches!(step, Step::Sign | Step::Shares) || client == "b" {
            return;
        }
        for (name, row) in [("bytes", &old.0), ("signatures", &old.1)] {
            if m.extra.get(name).is_some() {
                let mut rows = bytes(m, name);
                rows[64..128].copy_from_slice(row);
                set(m, name, &rows);
            }
        }
    };
    // In another round, and in the same round again, as after a resume.
    for round in [1, 0] {
        bench.round = round;
        let error = cheat(&mut bench, round, replay);
        assert_eq!(error, "client `b` did not sign the members, keys and terms that this client was shown");
    }
}

#[test]
fn different_sets_for_different_clients_are_refused() {
    // `a` sees a different set from the others, of enough clients: it signs that set, and the other signatures do not
    // match.
    let set_of = |places: &[usize]| json!(places);
    let error = cheated(|step, client, m| {
        if (step, client) == (Step::Agree, "a") {
            m.values["secure"]["arrived"] = set_of(&[0, 1, 2]);
        }
    });
    assert_eq!(error, "the list of updates that arrived differs from the one that this client signed");
    let split = |step: Step, client: &str, m: &mut Message| {
        if matches!(step, Step::Agree | Step::Unmask) && client == "a" {
            m.values["secure"]["arrived"] = set_of(&[0, 1, 2]);
        }
        if step == Step::Unmask && client == "a" {
            let rows = bytes(m, "signatures")[..3 * 65].to_vec();
            m.extra.insert("signatures", Tensor::from_slice(&[3, 65], &rows).unwrap());
        }
    };
    assert_eq!(cheated(split), "client `b` did not sign the same list of updates and the same global model");
    // The other clients' signatures are missing: too few remain.
    let error = cheated(|step, client, m| {
        split(step, client, m);
        if (step, client) == (Step::Unmask, "a") {
            let mut rows = bytes(m, "signatures");
            rows[65..].fill(0);
            set(m, "signatures", &rows);
        }
    });
    assert_eq!(error, "only 1 of the members signed the same list of updates, but 3 are needed");
    // No client is asked to sign whose updates arrived.
    let error = cheated(|step, client, m| {
        if (step, client) == (Step::Agree, "a") {
            m.values["secure"]["step"] = "unmask".into();
        }
    });
    assert_eq!(error, "the aggregator sent a query that is not due in this round");
}

#[test]
fn different_global_models_for_different_clients_are_refused() {
    let ring = Keyring::new();
    let (global, updates) = model(20, 0);
    let mut other = global.clone();
    let mut w = values(&global.params, "w");
    w[19] += 1e-3;
    other.params.insert("w", Tensor::from_slice(&[20], &w).unwrap());
    for misled in [0, 3] {
        let mut bench = ring.bench(5, json!({ "threshold": 3 }));
        bench.misled = Some((misled, other.clone()));
        let error = bench.round(&global, &updates).err().expect("it went well").to_string();
        let who = if misled == 0 { "b" } else { "d" };
        assert_eq!(error, format!("client `{who}` did not sign the same list of updates and the same global model"));
    }
}

#[test]
fn who_trained_is_signed() {
    // The server claims that all trained, to itself and to the clients; but two say that they did not.
    let ring = Keyring::new();
    let (global, mut updates) = model(20, 0);
    for k in [1, 3] {
        updates[k] = (global.params.clone(), 5);
    }
    let play = |config: serde_json::Value, change: Change<'_>| {
        ring.bench(5, config).play(&global, &updates, &|_, _| false, change, &Silent)
    };
    play(json!({ "threshold": 3, "minimum": 3 }), &mut |_, _, _| {}).unwrap();
    let error = play(json!({ "threshold": 4 }), &mut |_, _, _| {}).err().unwrap();
    assert_eq!(error.to_string(), "only 3 of the members signed that they trained, but 4 are needed");
    assert!(error.hint().unwrap().contains("stays masked"));
    let error = play(json!({ "threshold": 4 }), &mut |step, client, m| {
        if (step, client) == (Step::Unmask, "a") {
            let mut rows = bytes(m, "signatures");
            rows[65 + 64] = 1;
            set(m, "signatures", &rows);
        }
    });
    assert_eq!(
        error.err().unwrap().to_string(),
        "client `b` did not sign the same list of updates and the same global model"
    );
}

#[test]
fn other_terms_and_second_questions_are_refused() {
    let lower = |m: &mut Message| m.values["secure"]["terms"]["threshold"] = 3.into();
    let ring = Keyring::new();
    let bench = || ring.bench(5, json!({ "threshold": 4 }));
    let error = cheat(&mut bench(), 0, |step, client, m| {
        if matches!(step, Step::Sign | Step::Shares) && client == "a" {
            lower(m);
        }
    });
    assert_eq!(error, "client `b` did not sign the members, keys and terms that this client was shown");
    let bounded = |_| {
        let mut table = ring.table();
        table["threshold"] = 4.into();
        table
    };
    let mut bounded = Bench::with(5, json!({ "threshold": 4 }), &bounded);
    let error = cheat(&mut bounded, 0, |step, _, m| {
        if step == Step::Sign {
            lower(m)
        }
    });
    assert_eq!(error, "`threshold`: the aggregator's `threshold` is 3, but this client requires at least 4");
    // A client listed twice, the second time with the server's keys.
    let error = cheat(&mut bench(), 0, |step, _, m| {
        if step == Step::Sign {
            m.values["secure"]["members"][4] = "a".into();
        }
    });
    assert_eq!(error, "client `a` is listed twice, also as number 4");

    let (global, updates) = model(20, 0);
    let ctx = Context::new(&Silent).with_round(0).with_client("a");
    for step in [Step::Sign, Step::Agree, Step::Unmask] {
        let mut bench = bench();
        let mut asked = None;
        let mut listen = |at: Step, client: &str, m: &mut Message| {
            if (at, client) == (step, "a") {
                asked = Some(m.clone());
            }
        };
        bench.play(&global, &updates, &|_, _| false, &mut listen, &Silent).unwrap();
        let error = bench.clients[0].answer(&asked.unwrap(), &ctx).unwrap_err();
        assert_eq!(error.to_string(), "the aggregator sent a query that is not due in this round");
    }
}

#[test]
fn all_sign_or_none_and_only_those_that_are_known() {
    let ring = Keyring::new();
    let (global, updates) = model(20, 0);
    let mut table = ring.table();
    let mut bench = Bench::with(5, json!({}), &|k| if k == 2 { json!({}) } else { ring.table() });
    let error = bench.round(&global, &updates).err().unwrap();
    assert_eq!(error.to_string(), "other clients sign their keys, but this one has no `identities`");
    table["identities"].as_object_mut().unwrap().remove("d");
    let mut bench = Bench::with(5, json!({}), &|k| if k == 2 { table.clone() } else { ring.table() });
    let error = bench.round(&global, &updates).err().unwrap();
    assert_eq!(error.to_string(), "client `d` is not among this client's `identities`");
}
