//! What crosses to Python and back: columns of all kinds, tensors that are kept, states, evaluations.
#![allow(clippy::unwrap_used)]

use plugin_api::context::Silent;
use plugin_api::{
    Buffer, Column, Component, Context, Epoch, ListColumn, Message, Model, ModelSetup, Params, Table, TargetKind, Task,
    TaskSpec, Tensor,
};
use serde_json::{Value, json};
use test_support::python;

fn config(python: &str, class: &str, shared: bool) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts/echo.py");
    json!({ "script": script, "class": class, "python": python, "workers": 1, "shared-memory": shared })
}

fn model(component: &Component, config: &Value, spec: &TaskSpec) -> Box<dyn Model> {
    let setup = ModelSetup::new(vec![spec.clone()], 1, 1);
    component.new_model(config, &setup, &Context::new(&Silent)).unwrap()
}

fn text<'t>(table: &'t Table, name: &str) -> Vec<&'t str> {
    table.text(name).unwrap().iter().collect()
}

#[test]
fn columns_of_all_kinds_cross_both_ways() {
    let Some(python) = python() else { return };
    let ctx = Context::new(&Silent);
    for shared in [true, false] {
        let mut dataset = model_python::dataset().new_dataset(&config(&python, "Columns", shared), &ctx).unwrap();
        let described = dataset.describe(&ctx).unwrap();
        assert_eq!(described.tasks[1].target_kind, TargetKind::Class(vec!["no".to_owned(), "yes".to_owned()]));
        assert_eq!((described.clients[0].tasks[0].train, described.clients[0].tasks[0].test), (3, 0));
        let tasks = dataset.load("a", &ctx).unwrap();
        let table = &tasks[0].train;
        // The target of a task of numbers is of f32, whatever the class returns.
        assert!(table.column("y").unwrap().is_equal(&Column::f32(&[1.0, f32::NAN, -0.0])));
        assert!(table.column("z").unwrap().is_equal(&Column::i64(&[0, 1, 0])));
        assert!(table.column("f4").unwrap().is_equal(&Column::f32(&[1.0, 2.0, 3.0])));
        assert!(table.column("bool").unwrap().is_equal(&Column::bool(&[true, false, true])));
        assert!(table.column("bytes").unwrap().is_equal(&Column::bytes([&[0, 255][..], &[], b"a"])));
        let lists = ListColumn::new([1, 0, 2], Column::f64(&[0.5, 1.5, 2.5])).unwrap();
        assert!(table.column("list").unwrap().is_equal(&Column::List(lists)));
        let texts = Column::text(["ä", "", ""]).with_nulls(Buffer::copy_of(&[1_u8, 1, 0])).unwrap();
        assert!(table.column("x").unwrap().is_equal(&texts));
        assert!(dataset.load("b", &ctx).unwrap_err().message().contains("there is no client `b`"));

        let spec = TaskSpec::new("t", ["x"], "y");
        let mut echo = model(&model_python::model(), &config(&python, "Echo", shared), &spec);
        let numbers = Column::i64(&[5, 6, 7]).with_nulls(Buffer::copy_of(&[1_u8, 0, 1])).unwrap();
        let rows = table.without("y").without("f4").without("none").with("missing", numbers).unwrap();
        let seen = echo.predict("t", &rows, &ctx).unwrap();
        let wanted = [
            "['ä', 0, True, b'\\x00\\xff', array([0.5]), 5.0]",
            "['', 1, False, b'', array([], dtype=float64), nan]",
            "[None, 0, True, b'a', array([1.5, 2.5]), 7.0]",
        ];
        assert_eq!(text(&seen, "seen"), wanted);
        assert_eq!(seen.i64("predicted").unwrap(), [0, 1, 2]);
    }
}

fn message(fill: f32) -> Message {
    let w = Tensor::from_slice(&[2, 3], &[fill; 6]).unwrap();
    let params: Params = [("w", w), ("n", Tensor::from_slice(&[], &[1_i64]).unwrap())].into_iter().collect();
    params.into()
}

#[test]
fn what_a_class_keeps_stays_as_it_was_and_what_it_writes_is_its_own() {
    let Some(python) = python() else { return };
    let (ctx, spec) = (Context::new(&Silent), TaskSpec::new("t", ["x"], "y"));
    for shared in [true, false] {
        let component = model_python::model();
        let [mut first, mut second] = [(); 2].map(|()| model(&component, &config(&python, "Echo", shared), &spec));
        for round in 0..20 {
            let sent = message(round as f32);
            first.receive(&sent, &ctx).unwrap();
            // Another object of the same process gets the same memory, in which the first has written once.
            second.receive(&sent, &ctx).unwrap();
            assert_eq!(sent.params.elements::<f32>("w", &[2, 3]).unwrap(), [round as f32; 6]);
            // Answers and other messages use segments again.
            let own = second.parameters(&ctx).unwrap();
            let wanted = if round == 1 { 100.0 } else { round as f32 };
            assert_eq!(own.elements::<f32>("w", &[2, 3]).unwrap()[0], wanted, "{round}");
            first.send(&ctx).unwrap();
        }
        let rows = Table::new().with("x", Column::text(["a"])).unwrap();
        let kept: Vec<f64> = (0..20).map(|round| if round == 1 { 100.0 } else { f64::from(round) }).collect();
        let seen = first.predict("t", &rows, &ctx).unwrap();
        assert_eq!(text(&seen, "kept"), [format!("{kept:?}")]);
    }
}

#[test]
fn a_state_has_what_is_persistent_and_no_other_state_is_taken() {
    let Some(python) = python() else { return };
    let (ctx, spec) = (Context::new(&Silent), TaskSpec::new("t", ["x"], "y"));
    let (component, config) = (model_python::model(), config(&python, "Echo", true));
    let mut echo = model(&component, &config, &spec);
    let table = Table::new().with("x", Column::text(["a"; 40])).unwrap().with("y", Column::f32(&[1.0; 40])).unwrap();
    let task = Task { spec: spec.clone(), train: table.clone(), test: table };
    let trained = echo.train(&[task], Epoch { round: 0, epoch: 0 }, &ctx).unwrap();
    assert_eq!((trained.steps, trained.examples), (2, 40));
    let state = echo.state(&ctx).unwrap();
    assert_eq!(state.tensors.names().collect::<Vec<_>>(), ["w", "n", "persistent.moment"]);
    assert_eq!(state.tensors.elements::<f64>("persistent.moment", &[2]).unwrap(), [2.0, 2.0]);
    assert_eq!((&state.values["persistent"]["name"], &state.values["steps"]), (&json!("t"), &json!(2)));
    let mut other = model(&component, &config, &spec);
    other.restore(&state, &ctx).unwrap();
    assert_eq!(other.state(&ctx).unwrap().values, state.values);
    for (change, told) in [("script", "has changed since the checkpoint"), ("steps", "`steps`")] {
        let mut changed = state.clone();
        changed.values[change] = json!("0");
        if change == "steps" {
            changed.values.insert("more".to_owned(), json!(1));
        }
        let error = other.restore(&changed, &ctx).unwrap_err().to_string();
        assert!(error.contains(told) || error.contains("`more`"), "{error}");
    }
}

#[test]
fn a_class_may_measure_itself_and_probabilities_are_checked() {
    let Some(python) = python() else { return };
    let ctx = Context::new(&Silent);
    let classes = TargetKind::Class(vec!["no".to_owned(), "yes".to_owned()]);
    let spec = TaskSpec { target_kind: classes, ..TaskSpec::new("c", ["x"], "z") };
    let mut measured = model(&model_python::model(), &config(&python, "Measured", true), &spec);
    let rows = |count: usize| {
        let table = Table::new().with("x", Column::text(vec!["a"; count])).unwrap();
        table.with("z", Column::i64(&vec![1; count])).unwrap()
    };
    let predicted = measured.predict("c", &rows(2), &ctx).unwrap();
    assert_eq!((predicted.f32("no").unwrap(), predicted.f32("yes").unwrap()), (&[0.25; 2][..], &[0.75; 2][..]));
    let error = measured.predict("c", &rows(3), &ctx).unwrap_err();
    assert!(error.message().contains("are no probabilities: see `fedplug.softmax`"), "{error:?}");
    let task = Task { spec, train: rows(1), test: rows(2) };
    let found = measured.evaluate(&[task], &ctx).unwrap().remove(0);
    assert_eq!((found.loss, found.score, found.examples), (f64::INFINITY, -1.5, 2));
    assert!(found.metrics[0].name == "odd" && found.metrics[0].value.is_nan());
}
