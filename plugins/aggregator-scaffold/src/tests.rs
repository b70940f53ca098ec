use plugin_api::Element;
use plugin_api::context::Silent;

use super::*;

fn tensor<T: Element>(elements: &[T]) -> Tensor {
    Tensor::from_slice(&[elements.len()], elements).unwrap()
}

fn message(w: &[f32], control: &[f32]) -> Message {
    let params = [("w", tensor(w))].into_iter().collect();
    let extra =
        if control.is_empty() { Params::new() } else { [("scaffold.w", tensor(control))].into_iter().collect() };
    Message { params, extra, ..Message::default() }
}

fn update(client: &str, steps: u64, message: Message) -> Update {
    Update { client: client.to_owned(), message, steps, examples: steps }
}

fn scaffold(learning_rate: f32) -> Scaffold {
    Scaffold::new(Config { learning_rate }, &Context::new(&Silent)).unwrap()
}

fn round(server: &mut Scaffold, global: &Message, population: usize, updates: Vec<Update>) -> Result<Message> {
    let ctx = Context::new(&Silent);
    let names = updates.iter().map(|update| update.client.clone()).collect();
    server.begin(global, &Cohort::new(names, population), &ctx)?;
    updates.into_iter().try_for_each(|update| server.add(update, &ctx))?;
    server.finish(&ctx)
}

fn values(message: &Message) -> (Vec<f32>, Vec<f32>) {
    let of = |params: &Params, name: &str| params.get(name).unwrap().elements::<f32>().unwrap().to_vec();
    (of(&message.params, "w"), of(&message.extra, "scaffold.w"))
}

#[test]
fn one_round_is_lines_16_and_17_of_the_algorithm() {
    let global = message(&[1.0, 2.0], &[0.5, -0.5]);
    let updates = || {
        vec![
            update("a", 9, message(&[2.0, 2.0], &[1.0, 0.0])),
            update("b", 1, message(&[4.0, 0.0], &[3.0, 4.0])),
            update("idle", 0, message(&[99.0, 99.0], &[])),
        ]
    };
    // The mean of y is (3, 1); of eight clients two sent changes that sum to (4, 4).
    let all_the_way = round(&mut scaffold(1.0), &global, 8, updates()).unwrap();
    assert_eq!(values(&all_the_way), (vec![3.0, 1.0], vec![1.0, 0.0]));
    let half = round(&mut scaffold(0.5), &global, 8, updates()).unwrap();
    assert_eq!(values(&half), (vec![2.0, 1.5], vec![1.0, 0.0]));
}

/// Two clients with the losses `(w − a)² / 2` and `b (w − d)² / 2`, ten plain gradient steps a round. The global optimum
/// is where the gradients' mean is 0, and FedAvg's fixed point is another.
#[test]
fn it_finds_the_optimum_that_fedavg_misses() {
    let (a, b, d) = (-1.0_f32, 9.0_f32, 1.0_f32);
    let gradients: [&dyn Fn(f32) -> f32; 2] = [&|w| w - a, &|w| b * (w - d)];
    let optimum = (a + b * d) / (1.0 + b);
    let run = |with_control: bool| {
        let (rate, steps) = (0.1, 10);
        let mut server = scaffold(1.0);
        let mut global = message(&[0.0], &[0.0]);
        let mut own = [0.0_f32; 2];
        for _ in 0..300 {
            let (x, c) = values(&global);
            let updates = gradients.iter().zip(&mut own).enumerate().map(|(k, (gradient, own))| {
                let mut y = x[0];
                for _ in 0..steps {
                    let correction = if with_control { c[0] - *own } else { 0.0 };
                    y -= rate * (gradient(y) + correction);
                }
                // The paper's option II.
                let next = *own - c[0] + (x[0] - y) / (steps as f32 * rate);
                let change = if with_control { next - *own } else { 0.0 };
                *own += change;
                update(["a", "b"][k], 1, message(&[y], &[change]))
            });
            let updates = updates.collect();
            global = round(&mut server, &global, 2, updates).unwrap();
        }
        values(&global).0[0]
    };
    assert!((run(true) - optimum).abs() < 1e-4, "{} is not {optimum}", run(true));
    // The fixed point of FedAvg in closed form: client k shrinks its distance to its own optimum by (1 − rate · b_k)^10.
    let shrink = |b: f32| (1.0 - 0.1 * b).powi(10);
    let (p, q) = (1.0 - shrink(1.0), 1.0 - shrink(b));
    assert!((run(false) - (p * a + q * d) / (p + q)).abs() < 1e-4);
    assert!((run(false) - optimum).abs() > 0.1);
}

#[test]
fn a_model_that_takes_no_part_is_an_error() {
    let error = round(&mut scaffold(1.0), &message(&[1.0], &[]), 1, vec![update("a", 1, message(&[1.0], &[]))]);
    let error = error.unwrap_err();
    assert_eq!(error.to_string(), "client `a` sends no control variates");
    assert!(error.hint().unwrap().contains("`scaffold = true`"));
    let mut foreign = message(&[1.0], &[]);
    foreign.extra.insert("mask", tensor(&[1.0_f32]));
    let error = round(&mut scaffold(1.0), &message(&[1.0], &[]), 1, vec![update("a", 1, foreign)]).unwrap_err();
    assert_eq!(error.to_string(), "tensor `mask`: client `a` sends it, and SCAFFOLD does not know it");
}

#[test]
fn a_refused_update_leaves_no_trace() {
    let ctx = Context::new(&Silent);
    let (mut server, global) = (scaffold(1.0), message(&[0.0], &[0.0]));
    server.begin(&global, &Cohort::new(vec!["a".to_owned(), "b".to_owned()], 2), &ctx).unwrap();
    server.add(update("a", 1, message(&[1.0], &[1.0])), &ctx).unwrap();
    // Its parameters fit, and its control variate does not.
    let error = server.add(update("b", 1, message(&[9.0], &[1.0, 2.0])), &ctx).unwrap_err();
    assert!(error.to_string().starts_with("tensor `scaffold.w`: client `b` sends f32[2]"), "{error}");
    assert_eq!(values(&server.finish(&ctx).unwrap()), (vec![1.0], vec![0.5]));
    assert_eq!(round(&mut server, &global, 1, vec![]).unwrap_err().to_string(), "no client sent an update");
}

#[test]
fn a_round_without_training_changes_nothing() {
    let global = message(&[1.0], &[2.0]);
    let after = round(&mut scaffold(1.0), &global, 1, vec![update("a", 0, message(&[5.0], &[]))]).unwrap();
    assert_eq!(values(&after), values(&global));
}

#[test]
fn the_control_variate_of_an_absent_holder_stays() {
    let heads = |names: &[&str]| -> Message {
        let params = names.iter().map(|&name| (name, tensor(&[2.0_f32]))).collect();
        let extra = names.iter().map(|name| (format!("scaffold.{name}"), tensor(&[0.5_f32]))).collect();
        Message { params, extra, ..Message::default() }
    };
    let after = round(&mut scaffold(1.0), &heads(&["a", "b"]), 2, vec![update("a", 1, heads(&["a"]))]).unwrap();
    // What becomes of `b` itself is the host's decision: it alone knows whether its holder was absent.
    assert_eq!(after.params.names().collect::<Vec<_>>(), ["a"]);
    let control = |name: &str| after.extra.get(name).unwrap().elements::<f32>().unwrap().to_vec();
    assert_eq!((control("scaffold.a"), control("scaffold.b")), (vec![0.75], vec![0.5]));
}
