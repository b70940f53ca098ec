//! A whole round, compared with `reference.py`, which computes it from the cipher specifications alone. Everything is
//! exact.

use super::*;
use serde_json::Value;

fn hex(message: &Message) -> String {
    let bytes = message.extra.get("bytes").unwrap().elements::<u8>().unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn numbers(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(|x| x.as_i64().unwrap()).collect()
}

#[test]
fn a_round_is_that_of_an_independent_computation() {
    let expected: Value = serde_json::from_str(include_str!("reference.json")).unwrap();
    let config = json!({ "threshold": expected["threshold"], "clip": expected["clip"], "bits": expected["bits"] });
    // One of three drops out, so the sum is of two: fewer than these clients accept by default.
    let mut bench = Bench::with(3, config, &|_| json!({ "reproducible": true, "minimum": 2 }));
    (bench.seed, bench.round) = (expected["seed"].as_u64().unwrap(), expected["round"].as_u64().unwrap());
    let unit = 2_f64.powi(-23);
    let model = |add: Option<&Value>| -> Params {
        let values = |name: &str| {
            let base = numbers(&expected["base"][name]);
            let added = add.map_or_else(|| vec![0; base.len()], |add| numbers(&add[name]));
            base.iter().zip(added).map(|(x, y)| (x + y) as f64 * unit).collect::<Vec<f64>>()
        };
        let w: Vec<f32> = values("w").iter().map(|&x| x as f32).collect();
        let tensors = [("w", Tensor::from_slice(&[70], &w)), ("head", Tensor::from_slice(&[2, 2], &values("head")))];
        tensors.into_iter().map(|(name, tensor)| (name, tensor.unwrap())).collect()
    };
    let updates: Vec<_> = (0..3).map(|k| (model(Some(&expected["updates"][k])), 1)).collect();
    let lost = expected["lost"].as_u64().unwrap() as usize;
    let fails = |at: Step, k: usize| at == Step::Update && k == lost;
    let global = Message::from(model(None));
    let (next, heard) = bench.play(&global, &updates, &fails, &mut |_, _, _| {}, &Silent).unwrap();

    for (what, answers) in [("keys", &heard.answers[0]), ("sealed", &heard.answers[1])] {
        for (k, letter) in answers.iter().enumerate() {
            assert_eq!(hex(&letter.message), expected[what][k], "{what} of client {k}");
        }
    }
    let stay: Vec<usize> = (0..3).filter(|k| *k != lost).collect();
    for ((k, update), answer) in stay.iter().zip(&heard.updates).zip(&heard.answers[3]) {
        let sent = &update.message.params;
        assert_eq!(sent.names().collect::<Vec<_>>(), ["head", "w"]);
        let sent = sent.iter().flat_map(|(_, tensor)| tensor.elements::<i32>().unwrap()).map(|&x| i64::from(x));
        assert_eq!(sent.collect::<Vec<_>>(), numbers(&expected["masked"][k]), "client {k}");
        assert_eq!(hex(&answer.message), expected["given"][k], "client {k}");
    }
    let bits = expected["result"].as_array().unwrap().iter().map(|x| x.as_u64().unwrap());
    let head = next.params.elements::<f64>("head", &[2, 2]).unwrap().iter().map(|x| x.to_bits());
    let w = next.params.elements::<f32>("w", &[70]).unwrap().iter().map(|x| u64::from(x.to_bits()));
    assert!(head.chain(w).eq(bits));
    assert_eq!(next.params.names().collect::<Vec<_>>(), ["w", "head"]);
}
