use super::*;
use half::{bf16, f16};
use plugin_api::context::Silent;
use plugin_api::{Element, Params, Tensor};

fn tensor<T: Element>(elements: &[T]) -> Tensor {
    Tensor::from_slice(&[elements.len()], elements).unwrap()
}

fn update(client: &str, steps: u64, tensors: Vec<(&str, Tensor)>) -> Update {
    Update {
        client: client.into(),
        message: tensors.into_iter().collect::<Params>().into(),
        steps,
        examples: 10 * steps,
    }
}

fn averaged_by(weight_by: WeightBy, updates: Vec<Update>) -> Result<Params> {
    let ctx = Context::new(&Silent);
    let mut fedavg = FedAvg::new(Config { weight_by }, &ctx)?;
    let global = Message::from([("old", tensor(&[7.0_f32]))].into_iter().collect::<Params>());
    fedavg.begin(&global, &Cohort::default(), &ctx)?;
    for update in updates {
        fedavg.add(update, &ctx)?;
    }
    Ok(fedavg.finish(&ctx)?.params)
}

fn averaged(updates: Vec<Update>) -> Result<Params> {
    averaged_by(WeightBy::Steps, updates)
}

#[test]
fn the_mean_is_weighted() {
    let updates = || {
        vec![
            update("a", 1, vec![("w", tensor(&[1.0_f32, -2.0]))]),
            update("b", 3, vec![("w", tensor(&[5.0_f32, 2.0]))]),
        ]
    };
    assert_eq!(averaged(updates()).unwrap().elements::<f32>("w", &[2]).unwrap(), [4.0, 1.0]);
    assert_eq!(averaged_by(WeightBy::Uniform, updates()).unwrap().elements::<f32>("w", &[2]).unwrap(), [3.0, 0.0]);
    let mut by_examples = updates();
    by_examples[1].examples = 10;
    assert_eq!(averaged_by(WeightBy::Examples, by_examples).unwrap().elements::<f32>("w", &[2]).unwrap(), [3.0, 0.0]);
}

#[test]
fn one_client_keeps_its_bits_and_equal_clients_keep_their_values() {
    let values: Vec<f32> = (0..1000)
        .map(|i| (i as f32 * 0.37).sin() * 10_f32.powi(i % 60 - 30))
        .chain([-0.0, f32::MAX, f32::MIN_POSITIVE])
        .collect();
    for clients in [1, 2, 7] {
        let updates = (0..clients).map(|i| update("c", 3 * i + 1, vec![("w", tensor(&values))])).collect();
        let mean = averaged(updates).unwrap();
        let got = mean.elements::<f32>("w", &[values.len()]).unwrap();
        assert_eq!(got, values);
        // Several times −0 gives +0, which is equal as a number.
        assert!(clients > 1 || got.iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

#[test]
fn the_error_is_within_the_documented_bound() {
    let clients = 50;
    let value = |i: u64, j: u64| ((i * 7919 + j * 104_729) % 1009) as f32 / 1009.0 - 0.5;
    let updates = (0..clients)
        .map(|i| update("c", i + 1, vec![("w", tensor(&(0..100).map(|j| value(i, j)).collect::<Vec<_>>()))]))
        .collect();
    let mean = averaged(updates).unwrap();
    let total: u64 = (1..=clients).sum();
    for (j, &got) in mean.elements::<f32>("w", &[100]).unwrap().iter().enumerate() {
        let exact: f64 =
            (0..clients).map(|i| (i + 1) as f64 * f64::from(value(i, j as u64))).sum::<f64>() / total as f64;
        assert!((f64::from(got) - exact).abs() <= clients as f64 * 2_f64.powi(-24) * 0.5);
    }
}

#[test]
fn extremes_of_opposite_sign_do_not_overflow() {
    let mean = averaged(vec![
        update("a", 1, vec![("w", tensor(&[f32::MAX]))]),
        update("b", 1, vec![("w", tensor(&[f32::MIN]))]),
    ])
    .unwrap();
    assert_eq!(mean.elements::<f32>("w", &[1]).unwrap(), [0.0]);
}

#[test]
fn every_floating_type_keeps_its_type_and_halves_are_rounded_once() {
    let send = |client, x: f32| {
        let tensors = vec![
            ("f64", tensor(&[f64::from(x)])),
            ("f16", tensor(&[f16::from_f32(x)])),
            ("bf16", tensor(&[bf16::from_f32(x)])),
        ];
        update(client, 1, tensors)
    };
    let mean = averaged(vec![send("a", 1.0), send("b", 2.0), send("c", 4.0)]).unwrap();
    assert!((mean.elements::<f64>("f64", &[1]).unwrap()[0] - 7.0 / 3.0).abs() < 1e-15);
    assert_eq!(mean.elements::<f16>("f16", &[1]).unwrap(), [f16::from_f64(7.0 / 3.0)]);
    assert_eq!(mean.elements::<bf16>("bf16", &[1]).unwrap(), [bf16::from_f64(7.0 / 3.0)]);
}

#[test]
fn a_parameter_is_averaged_over_those_that_sent_it_and_nothing_else_is_kept() {
    let a = update("a", 1, vec![("trunk", tensor(&[0.0_f32])), ("head.a", tensor(&[5.0_f32]))]);
    let b = update("b", 1, vec![("trunk", tensor(&[2.0_f32])), ("shared", tensor(&[1.0_f32]))]);
    let c = update("c", 2, vec![("shared", tensor(&[4.0_f32])), ("trunk", tensor(&[3.0_f32]))]);
    let mean = averaged(vec![a, b, c]).unwrap();
    assert_eq!(mean.names().collect::<Vec<_>>(), ["trunk", "head.a", "shared"]);
    let one = |name| mean.elements::<f32>(name, &[1]).unwrap()[0];
    assert_eq!([one("trunk"), one("head.a"), one("shared")], [2.0, 5.0, 3.0]);
}

#[test]
fn clients_that_did_not_train_are_ignored() {
    let idle = |client| update(client, 0, vec![("w", tensor(&[f32::NAN]))]);
    for weight_by in [WeightBy::Steps, WeightBy::Examples, WeightBy::Uniform] {
        let mean = averaged_by(weight_by, vec![idle("a"), update("b", 2, vec![("w", tensor(&[3.0_f32]))])]).unwrap();
        assert_eq!(mean.elements::<f32>("w", &[1]).unwrap(), [3.0]);
        let stayed = averaged_by(weight_by, vec![idle("a"), idle("b")]).unwrap();
        assert_eq!(stayed.elements::<f32>("old", &[1]).unwrap(), [7.0]);
    }
    assert_eq!(averaged(vec![]).unwrap_err().to_string(), "no client sent an update");
}

#[test]
fn mismatches_name_tensor_and_client() {
    let refused = |first: Tensor, second: Tensor| {
        averaged(vec![update("a", 1, vec![("w", first)]), update("b", 1, vec![("w", second)])]).unwrap_err().to_string()
    };
    let two = tensor(&[1.0_f32, 2.0]);
    assert_eq!(
        refused(two.clone(), tensor(&[1.0_f32])),
        "tensor `w`: client `b` sends f32[1], but client `a` sent f32[2]"
    );
    assert_eq!(
        refused(two.clone(), tensor(&[1.0_f64, 2.0])),
        "tensor `w`: client `b` sends f64[2], but client `a` sent f32[2]"
    );
    let message = refused(tensor(&[1_i64]), tensor(&[2_i64]));
    assert_eq!(message, "tensor `w`: client `b` sends other i64 values than client `a`");
}

#[test]
fn tensors_besides_parameters_are_refused() {
    let mut sent = update("a", 1, vec![("w", tensor(&[1.0_f32]))]);
    sent.message.extra.insert("scaffold.w", tensor(&[1.0_f32]));
    let error = averaged(vec![sent]).unwrap_err();
    let text = "tensor `scaffold.w`: client `a` sends it besides its parameters, but this aggregator does not use it";
    assert_eq!(error.to_string(), text);
}

#[test]
fn equal_integers_are_kept() {
    let send = |client| update(client, 1, vec![("ids", tensor(&[1_i64, 2]))]);
    assert_eq!(averaged(vec![send("a"), send("b")]).unwrap().elements::<i64>("ids", &[2]).unwrap(), [1, 2]);
}

#[test]
fn a_refused_update_does_not_change_the_mean() {
    let ctx = Context::new(&Silent);
    let mut fedavg = FedAvg::new(Config::default(), &ctx).unwrap();
    fedavg.begin(&Message::default(), &Cohort::default(), &ctx).unwrap();
    fedavg.add(update("a", 1, vec![("v", tensor(&[1.0_f32])), ("w", tensor(&[1.0_f32]))]), &ctx).unwrap();
    fedavg.add(update("b", 1, vec![("v", tensor(&[9.0_f32])), ("w", tensor(&[1.0_f64]))]), &ctx).unwrap_err();
    fedavg.add(update("c", 1, vec![("v", tensor(&[3.0_f32])), ("w", tensor(&[5.0_f32]))]), &ctx).unwrap();
    let mean = fedavg.finish(&ctx).unwrap().params;
    assert_eq!(
        (mean.elements::<f32>("v", &[1]).unwrap(), mean.elements::<f32>("w", &[1]).unwrap()),
        (&[2.0_f32][..], &[3.0_f32][..])
    );
}
