//! What the model refuses: keys, tables and devices that do not fit.

use crate::common::{Recorder, amplify, config, ctx, failure, published, setup};
use model_amplify::Amplify;
use plugin_api::{Column, Context, Model, Table};
use serde_json::{Value, json};

#[test]
fn a_row_with_another_number_of_chains_is_named() {
    let refused = |changes: Value, sequences: &[&str]| {
        let rows = Table::new().with("combined", Column::text(sequences)).unwrap();
        let mut all = json!({ "pooling": "chains" });
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        published(all).predict("tm", &rows, &ctx()).unwrap_err().to_string()
    };
    assert_eq!(refused(json!({}), &["QV|DI", "QV"]), "task `tm`: row 2 has 1 chain with letters, not 2");
    assert_eq!(refused(json!({}), &["QV|"]), "task `tm`: row 1 has 1 chain with letters, not 2");
    assert_eq!(refused(json!({ "chains": 1 }), &["QV|DI"]), "task `tm`: row 1 has 2 chains with letters, not 1");
    let error = failure(json!({ "pooling": "attention", "objective": "masked-lm" }));
    assert_eq!(error.to_string(), "`pooling`: `attention` is for heads, and `objective = \"masked-lm\"` has none");
    let error = failure(json!({ "chains": 2 }));
    assert_eq!(error.to_string(), "`chains`: is for `pooling = \"chains\"`");
}

#[test]
fn task_weights_of_unknown_tasks_are_refused() {
    let error = failure(json!({ "task-weights": { "tn": 2.0 } }));
    assert_eq!(error.to_string(), "`task-weights`: there is no task `tn`");
    assert_eq!(error.hint(), Some("there are `tm`, `binding`"));
    amplify(json!({ "task-weights": { "tm": 2.0 }, "objective": "masked-lm" }));
}

#[test]
fn frozen_layers_leave_some_to_train() {
    let error = failure(json!({ "frozen-layers": 2 }));
    assert_eq!(error.to_string(), "`frozen-layers`: must be less than 2, the number of the trunk's layers");
    let error = failure(json!({ "frozen-layers": 1, "lora": {} }));
    assert_eq!(error.to_string(), "`frozen-layers`: with `lora` none of the trunk's own weights is trained");
}

#[test]
fn tf32_is_refused_on_the_cpu() {
    let cpu = ctx().with_device("cpu");
    let error = Amplify::new(config(json!({ "precision": "tf32" })), &setup(), &cpu).unwrap_err();
    assert_eq!(error.to_string(), "`precision`: device `cpu` has no TensorFloat-32");
}

#[test]
fn bfloat16_on_the_cpu_is_warned_of() {
    let warned = |precision: &str| {
        let host = Recorder::default();
        Amplify::new(config(json!({ "precision": precision })), &setup(), &Context::new(&host).with_device("cpu"))
            .unwrap();
        host.warnings.into_inner().unwrap()
    };
    assert_eq!(warned("fp32"), [""; 0]);
    for precision in ["bf16", "bf16-residual"] {
        let warnings = warned(precision);
        assert!(
            warnings.len() == 1 && warnings[0].contains("on a CPU bfloat16 is computed by one thread"),
            "{warnings:?}"
        );
    }
}

#[test]
fn check_reports_every_problem_of_the_model_table() {
    let component = model_amplify::component();
    assert!(component.devices().unwrap().contains(&"cpu".to_owned()));
    let schema = &component.profile().schema;
    assert!(
        schema["properties"]["layer-sizes"]["description"].as_str().unwrap().contains("multiples of 8"),
        "{schema:#}"
    );
    let wrong =
        json!({ "pretrained": { "hidden-size": 16, "layers": 0, "heads": 2, "intermediate-size": 8 }, "trunk_lr": 1 });
    let problems = component.check(&wrong).unwrap();
    assert_eq!(problems.len(), 2, "{problems:?}");
    let of = |path: &[&str]| problems.iter().find(|problem| problem.path == path).unwrap();
    assert!(of(&["trunk_lr"]).known.contains(&"trunk-lr".to_owned()), "{problems:?}");
    assert!(of(&["pretrained", "layers"]).message.contains("must be at least 1"), "{problems:?}");
}
