use super::*;
use plugin_api::context::Silent;
use serde_json::{Value, json};

const LAYER: &str = "trunk.0.q.";

fn reference() -> Value {
    serde_json::from_str(include_str!("../tests/reference.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// A tensor of the reference, in f32.
fn read(of: &Value, name: &str) -> Tensor {
    let sizes: Vec<usize> = numbers(&reference()["sizes"]).into_iter().map(|x| x as usize).collect();
    let shape = match name {
        "a" => [sizes[2], sizes[1]],
        "b" => [sizes[0], sizes[2]],
        _ => [sizes[0], sizes[1]],
    };
    let values: Vec<f32> = numbers(&of[name]).into_iter().map(|x| x as f32).collect();
    Tensor::from_slice(&shape, &values).unwrap()
}

fn adapter(of: &Value) -> Params {
    Params::from_iter([(format!("{LAYER}{A}"), read(of, "a")), (format!("{LAYER}{B}"), read(of, "b"))])
}

fn update(client: &str, steps: u64, params: Params, scale: f64) -> Update {
    let values = [(SCALE.to_owned(), json!(scale))].into_iter().collect();
    let message = Message { params, values, ..Message::default() };
    Update { client: client.to_owned(), message, steps, examples: steps }
}

fn begun(method: Method) -> LoraMean {
    let ctx = Context::new(&Silent);
    let mut mean = LoraMean::new(Config { method, ..Config::default() }, &ctx).unwrap();
    let start = &reference()["start"];
    let mut global = adapter(start);
    global.insert(format!("{LAYER}weight"), read(start, "weight"));
    global.insert("head.weight", Tensor::from_slice(&[1], &[0.0_f32]).unwrap());
    mean.begin(&global.into(), &Cohort::default(), &ctx).unwrap();
    mean
}

/// The global model after the reference's round, in which a head is averaged too.
fn aggregated(method: Method) -> Params {
    let (reference, ctx, mut mean) = (reference(), Context::new(&Silent), begun(method));
    let clients = reference["clients"].as_array().unwrap().iter().zip(numbers(&reference["steps"]));
    for (number, (client, steps)) in clients.enumerate() {
        let mut params = adapter(client);
        params.insert("head.weight", Tensor::from_slice(&[1], &[number as f32]).unwrap());
        let update = update(&format!("c{number}"), steps as u64, params, reference["scale"].as_f64().unwrap());
        mean.add(update, &ctx).unwrap();
    }
    mean.finish(&ctx).unwrap().params
}

fn distance(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(&x, y)| (f64::from(x) - y).abs()).fold(0.0, f64::max)
}

#[test]
fn both_methods_compute_what_numpy_does() {
    let reference = reference();
    for (method, name) in [(Method::Residual, "residual"), (Method::Stack, "stack")] {
        let (found, expected) = (aggregated(method), &reference["results"][name]);
        for (tensor, key) in
            [(format!("{LAYER}weight"), "weight"), (format!("{LAYER}{A}"), "a"), (format!("{LAYER}{B}"), "b")]
        {
            let distance = distance(found.get(&tensor).unwrap().elements().unwrap(), &numbers(&expected[key]));
            assert!(distance < 2e-6, "{name}, {key}: {distance}");
        }
        assert_eq!(found.elements::<f32>("head.weight", &[1]).unwrap(), [1.5]);
    }
}

#[test]
fn both_methods_give_the_mean_of_the_clients_models_and_fedavg_does_not() {
    let reference = reference();
    let (exact, scale) = (numbers(&reference["exact"]), reference["scale"].as_f64().unwrap());
    let model = |params: &Params, weight: &Tensor| -> Vec<f32> {
        let product = product(params, LAYER).unwrap();
        let pairs = weight.elements::<f32>().unwrap().iter().zip(product.elements::<f32>().unwrap());
        pairs.map(|(&w, &p)| (f64::from(w) + scale * f64::from(p)) as f32).collect()
    };
    for method in [Method::Residual, Method::Stack] {
        let found = aggregated(method);
        let distance = distance(&model(&found, found.get(&format!("{LAYER}weight")).unwrap()), &exact);
        assert!(distance < 4e-6, "{method:?}: {distance}");
    }
    let means = aggregated(Method::Residual);
    assert!(distance(&model(&means, &read(&reference["start"], "weight")), &exact) > 0.1);
}

#[test]
fn what_does_not_fit_is_refused_and_leaves_no_trace() {
    let (reference, ctx) = (reference(), Context::new(&Silent));
    let client = &reference["clients"][0];
    let refused = |change: &dyn Fn(&mut Update)| {
        let mut mean = begun(Method::Residual);
        mean.add(update("first", 1, adapter(client), 1.5), &ctx).unwrap();
        let mut second = update("second", 1, adapter(client), 1.5);
        change(&mut second);
        let error = mean.add(second, &ctx).unwrap_err().to_string();
        let left = mean.finish(&ctx).unwrap().params;
        assert!(distance(left.get(&format!("{LAYER}{A}")).unwrap().elements().unwrap(), &numbers(&client["a"])) == 0.0);
        error
    };
    let text = refused(&|update| update.message.values.clear());
    assert_eq!(text, "client `second` sends adapters without the value `lora.scale`");
    let text = refused(&|update| drop(update.message.values.insert(SCALE.to_owned(), json!(2.0))));
    assert_eq!(text, "the adapters of client `second` have the factor 2, those of client `first` 1.5");
    let text = refused(&|update| drop(update.message.params.remove(&format!("{LAYER}{A}"))));
    assert_eq!(text, "tensor `trunk.0.q.lora_A.weight`: is missing");
    let text = refused(&|update| drop(update.message.params.insert(format!("{LAYER}weight"), read(client, "a"))));
    assert_eq!(text, "tensor `trunk.0.q.weight`: the client sends a weight and its adapter");
    let text = refused(&|update| {
        update.message.params = [("other.lora_A.weight".to_owned(), read(client, "a"))].into_iter().collect()
    });
    assert_eq!(text, "tensor `other.weight`: has an adapter, but is not in the global model");
    let text = refused(&|update| drop(update.message.params.insert(format!("{LAYER}{B}"), read(client, "a"))));
    assert_eq!(text, "tensor `trunk.0.q.lora_B.weight`: has 4 columns, and lora_A.weight 2 rows");
}
