use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use fedplug_superlink::{Array, DType, Record};
use plugin_api::{Params, Tensor};

use super::*;
use crate::artefacts::tracking::Reporter;
use crate::experiment::config::Draft;
use crate::experiment::document::Document;
use crate::federation::notes::Notes;
use crate::terminal::console::Console;

/// Kind, group and content of each order.
type Orders = Vec<(String, String, Content)>;

/// Answers orders from a list of replies, and keeps the orders.
#[derive(Default)]
struct Scripted {
    replies: Mutex<Vec<Result<Content, TransportError>>>,
    orders: Mutex<Orders>,
}

impl FlowerTransport for Scripted {
    fn order(
        &self,
        order: PlainOrder<'_>,
        _: &(dyn Fn() -> bool + Sync),
        admit: &dyn Fn(),
    ) -> Result<Content, TransportError> {
        admit();
        self.orders.lock().unwrap().push((order.kind.to_owned(), order.group, order.content));
        self.replies.lock().unwrap().remove(0)
    }
}

fn draft(sites: &str, more: &str) -> Draft {
    let text = format!(
        "name = \"x\"\n[federation]\nrounds = 2\n{sites}\n[dataset]\nplugin = \"d\"\n[model]\nplugin = \
         \"m\"\n[aggregator]\nplugin = \"a\"\n{more}"
    );
    Draft::of(Document::parse("x.toml".into(), &text).unwrap())
}

/// Gives a client these replies, and returns what it did, the orders, and the scalars.
fn with_client<T>(
    (task, report): (Option<&str>, &str),
    replies: Vec<Result<Content, TransportError>>,
    act: impl FnOnce(&mut FlowerClient, &HostServices<'_>) -> T,
) -> (T, Orders, Vec<(String, f64)>) {
    let transport = Arc::new(Scripted { replies: Mutex::new(replies), ..Scripted::default() });
    let common = FlowerClients {
        transport: transport.clone(),
        admission: Arc::default(),
        model: FlowerModel::of(&global().params),
        task: task.map(str::to_owned),
    };
    let mut client = FlowerClient::new("b".to_owned(), 1, Dialect::Message, Arc::new(common));
    let (console, notes, stop) = (Console::new(Level::Error), Notes::default(), AtomicBool::new(false));
    let experiment = draft(&format!("report = \"{report}\""), "").whole().unwrap();
    let (reporter, collected) = Reporter::collecting();
    let mut services = HostServices::new(&console, &notes, &stop, &experiment, 1);
    services.reporter = reporter;
    let done = act(&mut client, &services);
    drop(services);
    let scalars = collected.into_iter().map(|(scalar, _)| (scalar.tag, scalar.value)).collect();
    let orders = std::mem::take(&mut *transport.orders.lock().unwrap());
    (done, orders, scalars)
}

fn global() -> Message {
    let params: Params = [("w", Tensor::from_slice(&[2], &[1f32, 2.0]).unwrap())].into_iter().collect();
    params.into()
}

fn order(round: u64) -> Order {
    Order { round, epochs: 3, global: global() }
}

fn evaluated(examples: u64) -> Content {
    let metrics = [("Accuracy", 0.5), ("log_loss", 0.75)].map(|(name, value)| (name.to_owned(), Value::Float(value)));
    Dialect::Message.evaluated(&Evaluated { loss: Some(1.5), examples, metrics: metrics.into() })
}

fn trained(metrics: &[(&str, Value)]) -> Content {
    let doubles = [3f64, 0.1].iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let array = Array::new(DType::F64, vec![2], doubles.into()).unwrap();
    let metrics = metrics.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let arrays = [("w".to_owned(), array)].into();
    Dialect::Message.trained(&fedplug_superlink::Trained { arrays, examples: 20, metrics })
}

#[test]
fn a_round_is_an_evaluation_and_training() {
    let train = trained(&[("steps", Value::Int(5)), ("drift", Value::Float(0.25)), ("list", Value::Floats(vec![1.0]))]);
    let (outcome, orders, scalars) =
        with_client(("t".into(), "full"), vec![Ok(evaluated(4)), Ok(train)], |client, services| {
            client.round(&order(2), &Pause::never(), services).unwrap().unwrap()
        });
    assert_eq!((outcome.steps, outcome.examples), (5, 20));
    assert_eq!(outcome.message.params.elements::<f32>("w", &[2]).unwrap(), [3.0, 0.1]);
    assert_eq!(outcome.traffic, Traffic { received: 8, sent: 8 });
    let [Evaluation { task, examples: 4, loss: 1.5, score, metrics }] = &outcome.global.test[..] else { panic!() };
    assert!(task == "t" && score.is_nan() && outcome.local.is_empty());
    let goals: Vec<_> = metrics.iter().map(|metric| (metric.name.as_str(), metric.goal)).collect();
    assert_eq!(goals, [("Accuracy", Goal::Higher), ("log_loss", Goal::Lower)]);
    // The evaluated model has seen two rounds; the one to train is the third.
    let [(evaluate, two, _), (train, three, content)] = &orders[..] else { panic!("{orders:?}") };
    assert_eq!([evaluate, two, train, three], ["evaluate", "2", "train", "3"]);
    let Record::Config(config) = &content["config"] else { panic!("{content:?}") };
    assert_eq!((&config["server-round"], &config["local-epochs"]), (&Value::Int(3), &Value::Int(3)));
    let tags: Vec<&str> = scalars.iter().map(|(tag, _)| tag.as_str()).collect();
    let wanted = [
        "Loss/global_test",
        "Accuracy/global_test",
        "log_loss/global_test",
        "drift/train",
        "Bytes/received",
        "Bytes/sent",
    ];
    assert_eq!(tags, wanted);
}

#[test]
fn without_steps_examples_count_and_without_reports_nothing_is_evaluated() {
    let (outcome, orders, scalars) = with_client(("t".into(), "none"), vec![Ok(trained(&[]))], |client, services| {
        let outcome = client.round(&order(0), &Pause::never(), services).unwrap().unwrap();
        assert!(client.finish(&order(2), services).unwrap().evaluation.test.is_empty());
        outcome
    });
    assert_eq!((outcome.steps, outcome.global.test.len(), orders.len(), scalars.len()), (20, 0, 1, 0));
    // With several tasks nobody could say which one the app evaluates.
    let (found, orders, _) =
        with_client((None, "full"), Vec::new(), |client, services| client.evaluate_idle(&order(0), services).unwrap());
    assert!(found.global.test.is_empty() && orders.is_empty());
}

#[test]
fn an_evaluation_of_nothing_is_undefined() {
    let (found, _, _) = with_client(("t".into(), "full"), vec![Ok(evaluated(0))], |client, services| {
        client.finish(&order(2), services).unwrap().evaluation.test
    });
    assert!(found[0].loss.is_nan() && found[0].metrics.iter().all(|metric| metric.value.is_nan()));
}

#[test]
fn what_a_plain_client_cannot_do_is_said() {
    let failed = || Err(TransportError::Failed("error 2: no third round".to_owned()));
    let replies = vec![failed(), Ok(evaluated(1))];
    let ((), orders, _) = with_client((None, "full"), replies, |client, services| {
        let told = |fault: ComponentError| (fault.is_unsupported(), fault.report("").line());
        let (unsupported, text) = told(client.answer(&Message::default(), 0, services).unwrap_err());
        assert!(
            unsupported && text == "site `b`: a plain Flower client answers no questions of an aggregator",
            "{text}"
        );
        assert!(told(client.publish(&order(0), services).unwrap_err()).0);
        assert!(told(client.evaluate_other(&order(0), services).unwrap_err()).0);
        client.save_model(Path::new("nowhere"), services).unwrap();
        let (unsupported, text) = told(client.round(&order(0), &Pause::never(), services).unwrap_err());
        assert!(!unsupported && text == "site `b`: error 2: no third round", "{text}");
        let (_, text) = told(client.round(&order(0), &Pause::never(), services).unwrap_err());
        assert!(text.starts_with("site `b`: its app's reply cannot be used"), "{text}");
        let mut with_control = order(0);
        with_control.global.extra = global().params;
        let (unsupported, text) = told(client.round(&with_control, &Pause::never(), services).unwrap_err());
        assert!(unsupported && text.contains("knows parameters only, and this run also sends `w`"), "{text}");
    });
    assert_eq!(orders.len(), 2);
}

#[test]
fn experiments_that_assume_more_are_errors_with_their_lines() {
    let key = |digit: &str| format!("\"sha256:{}\"", digit.repeat(64));
    let plain = |digit: &str| format!("{{ key = {}, flower = \"message\" }}", key(digit));
    let filters = "[[filter]]\nplugin = \"f\"\nat = [\"client-output\", \"client-input\"]\n[[filter]]\nplugin = \
                   \"g\"\nat = \"server-input\"\n";
    let told = |sites: &str, filters: &str| -> Vec<String> {
        let draft = draft(&format!("[federation.sites]\n{sites}"), filters);
        assert!(draft.is_whole(), "{:?}", draft.reports);
        problems(&draft.experiment).iter().map(Diagnostic::line).collect()
    };
    let own = format!("a = {}\n", key("a"));
    assert!(told(&own, filters).is_empty());
    let mixed = format!("{own}b = {}\n", plain("b"));
    assert!(told(&mixed, "").is_empty());
    let [filter] = &told(&mixed, filters)[..] else { panic!() };
    assert!(
        filter.starts_with("x.toml:14:")
            && filter.contains("site `b` is a plain Flower client, which applies no filters"),
        "{filter}"
    );
    let [alone] = &told(&format!("b = {}\n", plain("b")), "")[..] else { panic!() };
    assert!(alone.contains("at least one must run `fedplug join`"), "{alone}");
}
