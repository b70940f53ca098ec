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
    // The mean of y is (3, 1). Two of eight clients sent changes, which sum to (4, 4).
    let all_the_way = round(&mut scaffold(1.0), &global, 8, updates()).unwrap();
    assert_eq!(values(&all_the_way), (vec![3.0, 1.0], vec![1.0, 0.0]));
    let half = round(&mut scaffold(0.5), &global, 8, updates()).unwrap();
    assert_eq!(values(&half), (vec![2.0, 1.5], vec![1.0, 0.0]));
}

/// Two clients with the losses `(w − a)² / 2` and `b (w − d)² / 2`, and ten plain gradient steps a round. The global
/// optimum is where the mean of the gradients is 0; FedAvg's fixed point is elsewhere.
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
    // FedAvg's fixed point in closed form: client k shrinks its distance to its own optimum by (1 − rate · b_k)^10.
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
    assert_eq!(error.to_string(), "tensor `mask`: client `a` sends it, but SCAFFOLD does not use it");
}

#[test]
fn a_refused_update_leaves_no_trace() {
    let ctx = Context::new(&Silent);
    let (mut server, global) = (scaffold(1.0), message(&[0.0], &[0.0]));
    server.begin(&global, &Cohort::new(vec!["a".to_owned(), "b".to_owned()], 2), &ctx).unwrap();
    server.add(update("a", 1, message(&[1.0], &[1.0])), &ctx).unwrap();
    // Its parameters fit, but its control variate does not.
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
    // What happens to `b` is the host's decision: only the host knows whether its holder was absent.
    assert_eq!(after.params.names().collect::<Vec<_>>(), ["a"]);
    let control = |name: &str| after.extra.get(name).unwrap().elements::<f32>().unwrap().to_vec();
    assert_eq!((control("scaffold.a"), control("scaffold.b")), (vec![0.75], vec![0.5]));
}

/// Compared with the exact step, in integers: 24-bit numbers with one exponent, three clients, a rate of 3/8.
#[test]
fn a_step_of_another_length_is_rounded_once() {
    let seed = plugin_api::Seed::new(7);
    let whole = |k: u64, i: u64| i128::from(seed.at(k).at(i).value() % (1 << 24));
    let count = 1000;
    // Multiples of 2^-30, which f32 represents exactly.
    let as_f32 = |k: u64| (0..count).map(|i| whole(k, i) as f32 / (1_u64 << 30) as f32).collect::<Vec<f32>>();
    let zeros = vec![0.0_f32; count as usize];
    let updates = (1..=3).map(|k| update(&format!("c{k}"), 1, message(&as_f32(k), &zeros))).collect();
    let after = round(&mut scaffold(0.375), &message(&as_f32(0), &zeros), 3, updates).unwrap();
    // x + 3/8 (sum/3 − x) = (15 x + 3 sum) / 24, in units of 2^-30.
    let exact = |i: u64| {
        let sum: i128 = (1..=3).map(|k| whole(k, i)).sum();
        (15 * whole(0, i) + 3 * sum) as f64 / (24.0 * (1_u64 << 30) as f64)
    };
    let in_ulps = |(i, got): (u64, f32)| {
        let ulp = f64::from(got.next_up()) - f64::from(got);
        (f64::from(got) - exact(i)).abs() / ulp
    };
    let farthest = (0..count).zip(values(&after).0).map(in_ulps).fold(0.0, f64::max);
    assert!(farthest <= 0.5 + 1e-6, "{farthest} units in the last place");
}

#[test]
fn types_stay_what_they_are() {
    use plugin_api::half::bf16;
    let of = |x: f32| -> Message {
        let params: Params = [("w", tensor(&[bf16::from_f32(x)])), ("n", tensor(&[7_i64]))].into_iter().collect();
        let extra = [("scaffold.w", tensor(&[0.0_f32]))].into_iter().collect();
        Message { params, extra, ..Message::default() }
    };
    let after = round(&mut scaffold(0.5), &of(1.0), 1, vec![update("a", 1, of(2.0))]).unwrap();
    assert_eq!(after.params.elements::<bf16>("w", &[1]).unwrap(), [bf16::from_f32(1.5)]);
    assert_eq!(after.params.elements::<i64>("n", &[1]).unwrap(), [7]);
}
