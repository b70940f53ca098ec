//! The client's side of SCAFFOLD, and FedProx, against NVFlare's own code, and where they differ. The numbers are from
//! `reference.py` of `aggregator-scaffold`.

use serde_json::Value;
use tch::Tensor;

use super::*;

fn reference() -> Value {
    serde_json::from_str(include_str!("reference.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn named(name: &str, values: &[f32]) -> Params {
    [(name, plugin_api::Tensor::from_slice(&[values.len()], values).unwrap())].into_iter().collect()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor).unwrap()
}

fn far(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// A client of the reference, which takes plain gradient steps.
struct Client {
    number: usize,
    w: Tensor,
    drift: GradientCorrection,
}

impl Client {
    fn new(number: usize) -> Self {
        let w = Tensor::from_slice(&numbers(&reference()["start"]));
        let drift = GradientCorrection::new([("w", &w)].into_iter(), 0.0, true);
        Self { number, w, drift }
    }

    /// A round from this global model and control variate: the parameters and the change of the own variate after it.
    fn train(&mut self, x: &[f32], control: Option<&[f32]>) -> (Vec<f32>, Vec<f32>) {
        let _guard = tch::no_grad_guard();
        let reference = reference();
        let [a, d] = ["a", "d"].map(|of| Tensor::from_slice(&numbers(&reference[of][self.number])));
        let extra = control.map(|control| named("scaffold.w", control)).unwrap_or_default();
        self.drift
            .receive(&Message { params: named("w", x), extra, ..Message::default() }, None, &DeviceContext::cpu())
            .unwrap();
        self.w.copy_(&Tensor::from_slice(x));
        for _ in 0..reference["steps"].as_u64().unwrap() {
            let mut gradient = &a * (&self.w - &d);
            self.drift.correct(0, &mut gradient).unwrap();
            let _ = self.w.g_sub_(&(gradient * reference["rate"].as_f64().unwrap()));
        }
        let sent = self.drift.send(&DeviceContext::cpu(), None).unwrap();
        (values(&self.w), sent.elements::<f32>("scaffold.w", &[3]).unwrap().to_vec())
    }
}

#[test]
fn with_plain_gradient_steps_parameters_and_variates_are_nvflares() {
    let reference = reference();
    let mut clients: Vec<Client> = (0..3).map(Client::new).collect();
    let (mut x, mut control) = (numbers(&reference["start"]), None);
    let rounds = reference["sgd"].as_array().unwrap();
    assert_eq!(rounds.len(), 4);
    for round in rounds {
        for (client, sent) in clients.iter_mut().zip(round["sent"].as_array().unwrap()) {
            let (w, change) = client.train(&x, control.as_deref());
            // NVFlare's variate is a difference of parameters over K η = 0.5, with their rounding.
            assert!(far(&w, &numbers(&sent["w"])) < 1e-6);
            assert!(far(&change, &numbers(&sent["change"])) < 3e-6, "{change:?} {}", sent["change"]);
        }
        (x, control) = (numbers(&round["w"]), Some(numbers(&round["control"])));
    }
}

/// AdamW without weight decay, as PyTorch has it by default.
#[derive(Default)]
struct AdamW {
    first: [f64; 3],
    second: [f64; 3],
    steps: i32,
}

impl AdamW {
    fn step(&mut self, w: &mut [f64; 3], gradient: &[f32]) {
        self.steps += 1;
        for i in 0..3 {
            let g = f64::from(gradient[i]);
            self.first[i] = 0.9 * self.first[i] + 0.1 * g;
            self.second[i] = 0.999 * self.second[i] + 0.001 * g * g;
            let [m, v] =
                [(self.first[i], 0.9_f64), (self.second[i], 0.999)].map(|(m, b)| m / (1.0 - b.powi(self.steps)));
            w[i] -= 0.1 * m / (v.sqrt() + 1e-8);
        }
    }
}

/// Under AdamW the distance that parameters moved is about K η whatever the gradients are, and so is NVFlare's variate.
/// NVFlare corrects the parameters after the optimiser's step, and this one the gradient before it.
#[test]
fn under_adamw_the_rules_differ() {
    let reference = reference();
    let sent = |round: usize| &reference["adamw"][round]["sent"][1];
    let [a, d] = ["a", "d"].map(|of| numbers(&reference[of][1]));
    let mut optimizer = AdamW::default();
    let widen = |values: &[f32]| -> [f64; 3] { [0, 1, 2].map(|i| f64::from(values[i])) };
    let gradient = |w: &[f64; 3]| -> Vec<f32> { (0..3).map(|i| a[i] * (w[i] as f32 - d[i])).collect() };
    let narrow = |w: &[f64; 3]| w.map(|x| x as f32);
    let tensor = Tensor::from_slice(&[0.0_f32; 3]);
    let mut drift = GradientCorrection::new([("w", &tensor)].into_iter(), 0.0, true);

    // The first round, without a correction, is the same; the variate is not.
    let start = numbers(&reference["start"]);
    drift.receive(&named("w", &start).into(), None, &DeviceContext::cpu()).unwrap();
    let mut w = widen(&start);
    for _ in 0..5 {
        let gradient = gradient(&w);
        drift.correct(0, &mut Tensor::from_slice(&gradient)).unwrap();
        optimizer.step(&mut w, &gradient);
    }
    assert!(far(&narrow(&w), &numbers(&sent(0)["w"])) < 1e-6);
    let change = drift.send(&DeviceContext::cpu(), None).unwrap().elements::<f32>("scaffold.w", &[3]).unwrap().to_vec();
    let nvflares = numbers(&sent(0)["change"]);
    assert!(far(&nvflares, &[-0.944, 0.991, 0.984]) < 1e-3, "{nvflares:?}");
    assert!(far(&change, &[-0.911, 1.301, 0.200]) < 1e-3, "{change:?}");

    // The second, with NVFlare's variates on both sides.
    let (x, control) = (numbers(&reference["adamw"][0]["w"]), numbers(&reference["adamw"][0]["control"]));
    drift.slots[0].next = Some(Tensor::from_slice(&nvflares));
    drift
        .receive(&Message { extra: named("scaffold.w", &control), ..Message::default() }, None, &DeviceContext::cpu())
        .unwrap();
    let (mut ours, mut theirs) = (widen(&x), widen(&x));
    let mut other = AdamW { ..optimizer }; // of arrays, so this is a copy
    for _ in 0..5 {
        let mut corrected = Tensor::from_slice(&gradient(&ours));
        drift.correct(0, &mut corrected).unwrap();
        optimizer.step(&mut ours, &values(&corrected));
        let uncorrected = gradient(&theirs);
        other.step(&mut theirs, &uncorrected);
        (0..3).for_each(|i| theirs[i] -= 0.1 * f64::from(control[i] - nvflares[i]));
    }
    assert!(far(&narrow(&theirs), &numbers(&sent(1)["w"])) < 2e-6);
    let apart = far(&narrow(&ours), &narrow(&theirs));
    assert!((apart - 0.534).abs() < 1e-3, "{apart}");
}

#[test]
fn the_proximal_term_is_the_gradient_of_nvflares_loss() {
    for case in reference()["proximal"].as_array().unwrap() {
        let w = Tensor::from_slice(&numbers(&case["w"]));
        let mut drift = GradientCorrection::new([("w", &w)].into_iter(), case["mu"].as_f64().unwrap(), false);
        drift.receive(&named("w", &numbers(&case["received"])).into(), None, &DeviceContext::cpu()).unwrap();
        let mut gradient = Tensor::from_slice(&[0.0_f32; 3]);
        drift.correct(0, &mut gradient).unwrap();
        assert!(far(&values(&gradient), &numbers(&case["gradient"])) < 1e-6, "{case}");
    }
}
