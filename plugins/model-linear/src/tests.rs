//! The baselines against scikit-learn, as `tests/baselines.py` stored what it computes, and over clients against one client
//! that has all rows.

use plugin_api::context::Silent;
use plugin_api::{
    ClassWeights, Column, Context, Epoch, Model, ModelSetup, PREDICTED, Table, TargetKind, Task, TaskSpec, WeightedMean,
};
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Reference {
    positions: Vec<usize>,
    texts: Vec<String>,
    targets: Vec<f32>,
    classes: Vec<i64>,
    cases: Vec<Case>,
    mean: f64,
    shares: Vec<f32>,
}

#[derive(Deserialize)]
struct Case {
    features: String,
    lambda: f64,
    intercept: f64,
    predictions: Vec<f64>,
}

const AT: Epoch = Epoch { round: 0, epoch: 0 };

fn reference() -> Reference {
    serde_json::from_str(include_str!("../tests/baselines.json")).unwrap()
}

fn task(name: &str, texts: &[String], targets: &[f32]) -> Task {
    let table = Table::new().with("text", Column::text(texts)).unwrap().with("y", Column::f32(targets)).unwrap();
    Task { spec: TaskSpec::new(name, ["text"], "y"), train: table.clone(), test: table }
}

fn setup(tasks: &[Task]) -> ModelSetup {
    ModelSetup::new(tasks.iter().map(|task| task.spec.clone()).collect(), 1, 1)
}

fn ridge(method: Method, features: &str, positions: &[usize], ridge_lambda: f64) -> Config {
    let config = Config { method, ridge_lambda, ..Config::default() };
    match features.parse() {
        Ok(kmer) => Config { kmer, ..config },
        Err(_) => Config { features: FeatureKind::OneHot, positions: positions.to_vec(), ..config },
    }
}

/// Predictions in f64 and the intercept.
fn predicted(model: &mut Linear, task: &Task) -> (Vec<f64>, f64) {
    let solution = model.solution(&task.spec.name, &Context::new(&Silent)).unwrap();
    let of = |x: &Features| solution.bias[0] + x.iter().map(|(i, x)| solution.weight[i] * x).sum::<f64>();
    (model.features.of(&task.spec, &task.train).unwrap().iter().map(of).collect(), solution.bias[0])
}

fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn ridge_is_that_of_scikit_learn() {
    let Reference { positions, texts, targets, cases, .. } = reference();
    let ctx = Context::new(&Silent);
    let task = task("t", &texts, &targets);
    for Case { features, lambda, intercept, predictions } in cases {
        for method in [Method::Ridge, Method::PooledRidge] {
            let config = ridge(method, &features, &positions, lambda);
            let mut model = Linear::new(config, &setup(std::slice::from_ref(&task)), &ctx).unwrap();
            let trained = model.train(std::slice::from_ref(&task), AT, &ctx).unwrap();
            assert_eq!((trained.steps, trained.examples), (70, 70));
            let (found, bias) = predicted(&mut model, &task);
            let difference = largest_difference(&found, &predictions).max((bias - intercept).abs());
            assert!(difference < 1e-8, "{method:?} {features} {lambda}: {difference}");
            let table = model.predict("t", &task.test, &ctx).unwrap();
            let shown: Vec<f64> = table.f32(PREDICTED).unwrap().iter().map(|&y| f64::from(y)).collect();
            assert!(largest_difference(&shown, &predictions) < 1e-5);
        }
    }
}

#[test]
fn the_mean_is_that_of_scikit_learn() {
    let Reference { texts, targets, classes, mean, shares, .. } = reference();
    let ctx = Context::new(&Silent);
    let config = Config { method: Method::Mean, ..Config::default() };
    let numbers = task("numbers", &texts, &targets);
    let mut model = Linear::new(config.clone(), &setup(std::slice::from_ref(&numbers)), &ctx).unwrap();
    assert_eq!(model.solution("numbers", &ctx).unwrap().bias, [0.0]);
    model.train(std::slice::from_ref(&numbers), AT, &ctx).unwrap();
    assert!((model.solution("numbers", &ctx).unwrap().bias[0] - mean).abs() < 1e-12);
    let table = numbers.train.clone().with("class", Column::i64(&classes)).unwrap();
    let kind = TargetKind::Class(vec!["no".to_owned(), "yes".to_owned(), "never".to_owned()]);
    let spec = TaskSpec { target_kind: kind, ..TaskSpec::new("classes", ["text"], "class") };
    let task = Task { spec, train: table.clone(), test: table };
    let mut model = Linear::new(config, &setup(std::slice::from_ref(&task)), &ctx).unwrap();
    let first = |model: &mut Linear| {
        let table = model.predict("classes", &task.test, &ctx).unwrap();
        ["no", "yes", "never"].map(|class| table.f32(class).unwrap()[0])
    };
    assert_eq!(first(&mut model), [1.0 / 3.0; 3]);
    model.train(std::slice::from_ref(&task), AT, &ctx).unwrap();
    let found = first(&mut model);
    assert!((found[0] - shares[0]).abs() < 1e-6 && (found[1] - shares[1]).abs() < 1e-6 && found[2] == 0.0, "{found:?}");
}

/// Clients with unequal numbers of rows of two tasks: what FedAvg makes of their messages is what one client with all rows
/// has. Of `ridge` it is not.
#[test]
fn sums_over_clients_are_those_over_all_rows() {
    let Reference { positions, texts, targets, .. } = reference();
    let ctx = Context::new(&Silent);
    let rows = |name: &str, range: std::ops::Range<usize>, offset: f32| {
        let moved: Vec<f32> = targets[range.clone()].iter().map(|y| y + offset).collect();
        task(name, &texts[range], &moved)
    };
    let all = [rows("a", 0..70, 0.0), rows("b", 0..40, -5.0)];
    let parts = [
        vec![rows("a", 0..10, 0.0), rows("b", 0..35, -5.0)],
        vec![rows("a", 10..64, 0.0)],
        vec![rows("a", 64..70, 0.0), rows("b", 35..40, -5.0)],
    ];
    for (method, features) in
        [(Method::Mean, "1"), (Method::PooledRidge, "1"), (Method::PooledRidge, "2"), (Method::Ridge, "2")]
    {
        let config = ridge(method, features, &positions, 0.1);
        let new = |tasks: &[Task]| {
            let held = tasks.iter().map(|task| task.spec.name.clone()).collect();
            Linear::new(config.clone(), &setup(&all).holding(held), &ctx).unwrap()
        };
        let mut pooled = new(&all);
        pooled.train(&all, AT, &ctx).unwrap();
        let mut mean = WeightedMean::new();
        for (number, tasks) in parts.iter().enumerate() {
            let mut client = new(tasks);
            let trained = client.train(tasks, AT, &ctx).unwrap();
            assert_eq!(trained.steps, trained.examples);
            mean.add(&client.send(&ctx).unwrap().params, trained.steps as f64, &number.to_string()).unwrap();
        }
        let mut server = new(&all);
        server.receive(&mean.finish().unwrap().into(), &ctx).unwrap();
        for task in &all {
            let (found, wanted) = (predicted(&mut server, task).0, predicted(&mut pooled, task).0);
            let difference = largest_difference(&found, &wanted);
            assert_eq!(difference < 1e-9, method != Method::Ridge, "{method:?} {features}: {difference}");
        }
    }
}

#[test]
fn keys_that_do_not_fit_together_are_refused() {
    let numbers = task("t", &[], &[]).spec;
    let kind = TargetKind::Class(vec!["a".to_owned(), "b".to_owned()]);
    let classes = TaskSpec { target_kind: kind, ..numbers.clone() };
    let told = |config: Config, spec: &TaskSpec| {
        let error =
            Linear::new(config, &ModelSetup::new(vec![spec.clone()], 1, 1), &Context::new(&Silent)).unwrap_err();
        error.to_string()
    };
    let of = |method| Config { method, ..Config::default() };
    let one_hot = |positions| Config { features: FeatureKind::OneHot, positions, ..Config::default() };
    let weights = Some(ClassWeights::Balanced);
    for (config, spec, wanted) in [
        (one_hot(Vec::new()), &numbers, "`features = \"one-hot\"` needs the number of positions of each chain"),
        (Config { positions: vec![5], ..Config::default() }, &numbers, "is a key of `features = \"one-hot\"`"),
        (of(Method::Ridge), &classes, "ridge regression learns numbers, and task `t` has classes"),
        (Config { kmer: 3, ..of(Method::PooledRidge) }, &numbers, "at most 2000 features, not 19683"),
        (Config { proximal_mu: 1.0, ..of(Method::Mean) }, &numbers, "is a key of `method = \"gradient-descent\"`"),
        (
            Config { class_weights: weights, ..of(Method::Mean) },
            &classes,
            "is a key of `method = \"gradient-descent\"`",
        ),
    ] {
        let found = told(config, spec);
        assert!(found.contains(wanted), "{found}");
    }
    let problems = plugin_api::config::problems::<Config>(&serde_json::json!({ "ridge-lambda": 0, "positions": [0] }));
    assert_eq!(problems.len(), 2, "{problems:?}");
}

#[test]
fn one_hot_features_have_a_place_for_each_letter_of_each_chain() {
    let config = Config { features: FeatureKind::OneHot, positions: vec![3, 2], ..Config::default() };
    let table =
        |text: &str| Table::new().with("h", Column::text([text])).unwrap().with("l", Column::text(["CA"])).unwrap();
    let spec = TaskSpec::new("t", ["h", "l"], "y");
    let map = FeatureMap::new(&Config { method: Method::Ridge, ..config.clone() });
    let of = |text: &str| -> Vec<_> { map.of(&spec, &table(text)).unwrap()[0].iter().collect() };
    // The first chain ends early; `-` is no letter.
    assert_eq!(of("B-"), [(1, 1.0), (27 + 26, 1.0), (3 * 27 + 2, 1.0), (4 * 27, 1.0)]);
    let error = map.of(&spec, &table("ABCD")).unwrap_err();
    assert_eq!(error.to_string(), "task `t`, row 1: chain 1 has 4 letters, but 3 positions");
    let error = map.of(&spec, &table("A|B")).unwrap_err();
    assert_eq!(error.to_string(), "task `t`, row 1: chain 3 has 2 letters, but 0 positions");
    // Gradient steps read features whose squared norm is their number.
    let scaled = &FeatureMap::new(&config).of(&spec, &table("B-")).unwrap()[0];
    assert!((scaled.square() - 135.0).abs() < 1e-3, "{scaled:?}");
}
