//! Flower's own programs, and the probes of the protocol, on the other end.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fedplug_superlink::{
    Array, DType, Dialect, Evaluated, Order, Peer, Record, Request, Server, Site, SiteOptions, Trained, Value,
    read_task,
};
use indexmap::IndexMap;
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::superlink::{Program, SuperLink, free_port, post};
use crate::support::{Bench, LONG, floats, never, packages, plus_one, python, root, wait_for};

/// A site that takes part in the run of a Python server until `stop`.
fn take_part(site: Site, name: &str, stop: &AtomicBool) -> Vec<String> {
    let mut kinds = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Some(order) = site.next(Duration::from_millis(200)).unwrap() else { continue };
        assert_eq!((order.session.as_ref(), order.number), (None, None));
        kinds.push(order.kind.clone());
        answer(order, name);
    }
    site.leave().unwrap();
    kinds
}

fn answer(order: Order, name: &str) {
    if order.kind == "query" {
        let site = IndexMap::from([("site".to_owned(), Value::from(name))]);
        order.answer([("config".to_owned(), Record::Config(site))].into()).unwrap();
        return;
    }
    let mut content = order.content.clone();
    content.shift_remove("nonce");
    let task = read_task(content).unwrap();
    assert!(task.config["server-round"].as_u64().unwrap() >= 1);
    let examples = if name == "a" { 100 } else { 300 };
    let metrics = IndexMap::from([("loss".to_owned(), Value::Float(0.5))]);
    let content = if order.kind == "train" {
        let records = [("arrays".to_owned(), Record::Arrays(task.arrays))].into();
        let Record::Arrays(arrays) = plus_one(&records)["arrays"].clone() else { panic!() };
        task.dialect.trained(&Trained { arrays, examples, metrics })
    } else {
        task.dialect.evaluated(&Evaluated { loss: Some(0.5), examples, metrics: IndexMap::new() })
    };
    order.answer(content).unwrap();
}

fn probe(name: &str) -> Option<Command> {
    let path = test_support::shared(&format!("flower/{name}"))?;
    let mut command = python()?;
    command.arg("-u").arg(path);
    Some(command)
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn the_probes() {
    let (Some(mut server_probe), Some(node_probe)) = (probe("runtime_probe.py"), probe("fleet_probe.py")) else {
        return;
    };
    let Some(link) = SuperLink::start(&["--insecure", "--isolation", "process"]) else { return };
    let url = format!("http://127.0.0.1:{}", link.port);
    let bench = Bench::new(&["a", "b"]);
    // Our sites, their server.
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let sites = ["a", "b"].map(|name| {
            let site = Site::open(bench.site_options(name, link.port), bench.site_events.observer(name)).unwrap();
            let stop = Arc::clone(&stop);
            scope.spawn(move || take_part(site, name, &stop))
        });
        server_probe.args([&url, "--nodes", "2", "--rounds", "3", "--evaluate"]);
        let mut server = Program::start(&server_probe, &bench.path("server.out"));
        server.wait(LONG);
        stop.store(true, Ordering::Relaxed);
        for site in sites {
            assert_eq!(site.join().unwrap(), ["query", "train", "train", "train", "evaluate"]);
        }
    });
    let printed = text(&bench.path("server.out"));
    assert!(printed.contains("first numbers [3.0, 3.0]") && printed.contains("finished:completed"), "{printed}");
    // Their nodes, our server. The nodes' keys are ours, so that the server knows them.
    let mut nodes = Vec::new();
    for (name, add) in [("a", "1"), ("b", "4")] {
        let home = bench.path(&format!("home-{name}"));
        std::fs::create_dir(&home).unwrap();
        std::fs::copy(bench.path(&format!("{name}.pem")), home.join("key.pem")).unwrap();
        let mut node = Command::new(node_probe.get_program());
        node.args(node_probe.get_args()).envs(node_probe.get_envs().filter_map(|(name, value)| Some((name, value?))));
        node.args([&url, "--rounds", "2", "--site", name, "--add", add]).arg("--home").arg(home);
        nodes.push(Program::start(&node, &bench.path(&format!("{name}.out"))));
    }
    let mut options = bench.server_options(link.port);
    for peer in options.sites.values_mut() {
        *peer = Peer::Flower(peer.fingerprint().to_owned());
    }
    let server = Server::open(options, bench.server_events.observer("server")).unwrap();
    for round in 1..=2 {
        for (name, add) in [("a", 1.0), ("b", 4.0)] {
            let arrays = IndexMap::from([("w".to_owned(), floats(5, 2.0))]);
            let config = IndexMap::from([("server-round".to_owned(), Value::Int(round))]);
            let content = Dialect::Message.train(&arrays, config);
            let request = Request { kind: "train".into(), key: round.to_string(), content, keep: false };
            let answer = server.call(name, request, &never).unwrap();
            let trained = Dialect::Message.read_trained(answer.content).unwrap();
            assert_eq!(trained.arrays["w"], floats(5, 2.0 + add));
            assert_eq!((trained.examples, &trained.metrics["loss"]), (100, &Value::Float(1.0 / round as f64)));
        }
    }
    server.finish(true, "").unwrap();
}

/// Writes a bundle of `apps.py`.
fn bundle(bench: &Bench, kind: &str, result: &Path) -> Option<Vec<u8>> {
    let (script, path) = (root().join("host/superlink/tests/it/apps.py"), bench.path("app.fab"));
    let made = python()?.arg(script).args(["bundle", kind]).arg(result).arg(&path).status().unwrap();
    assert!(made.success());
    Some(std::fs::read(path).unwrap())
}

#[test]
fn python_clients() {
    let bench = Bench::new(&["a"]);
    let (Some(message), Some(numpy)) =
        (bundle(&bench, "message", Path::new("")), bundle(&bench, "numpy", Path::new("")))
    else {
        return;
    };
    // SuperNodes use keys with TLS only.
    let Some(link) = SuperLink::start_tls() else { return };
    let script = root().join("host/superlink/tests/it/apps.py");
    let converted = python().unwrap().arg(script).arg("key").arg(bench.path("a.pem")).arg(bench.path("a.ssh")).status();
    assert!(converted.unwrap().success());
    // A SuperNode with a key of its own does not register it.
    let mut connection = bench.site_options("a", 0).connection;
    connection.url = format!("https://127.0.0.1:{}", link.port);
    connection.ca = Some(link.folder().join("ca.pem"));
    let site = SiteOptions { connection: connection.clone(), ..bench.site_options("a", 0) };
    Site::open(site, bench.site_events.observer("a")).unwrap().leave().unwrap();
    let mut node = python().unwrap();
    node.arg(packages().join("bin/flower-supernode"))
        .args(["--superlink", &format!("127.0.0.1:{}", link.port), "--port", &free_port().to_string()])
        .arg("--root-certificates")
        .arg(link.folder().join("ca.pem"))
        .arg("--auth-supernode-private-key")
        .arg(bench.path("a.ssh"))
        .env("FLWR_HOME", bench.path("home"));
    let _node = Program::start(&node, &bench.path("node.out"));
    let serve = |bundle: Vec<u8>, state: &str| {
        let mut options = bench.server_options(link.port);
        options.bundle = Some(bundle);
        options.connection = connection.clone();
        options.state = bench.path(state);
        options.sites = [("a".to_owned(), Peer::Flower(bench.identities["a"].fingerprint()))].into();
        Server::open(options, bench.server_events.observer("server")).unwrap()
    };
    let arrays = IndexMap::from([("w".to_owned(), floats(6, 0.0)), ("v".to_owned(), matrix())]);
    let round = |round| IndexMap::from([("server-round".to_owned(), Value::Int(round))]);
    let call = |server: &Server, kind: &str, content| {
        let request = Request { kind: kind.into(), key: "1".into(), content, keep: false };
        let answer = server.call("a", request, &never);
        eprintln!("{}", text(&bench.path("node.out")));
        answer
    };

    let server = serve(message, "message");
    let answer = call(&server, "train", Dialect::Message.train(&arrays, round(1))).unwrap();
    let trained = Dialect::Message.read_trained(answer.content).unwrap();
    assert_eq!(trained.arrays.keys().collect::<Vec<_>>(), ["w", "v", "double", "big"]);
    let sent = [("arrays".to_owned(), Record::Arrays(arrays.clone()))].into();
    let Record::Arrays(expected) = plus_one(&sent)["arrays"].clone() else { panic!() };
    assert_eq!((&trained.arrays["w"], &trained.arrays["v"]), (&expected["w"], &expected["v"]));
    assert_eq!(trained.arrays["double"], Array::new(DType::F64, vec![], 0.5f64.to_le_bytes().to_vec().into()).unwrap());
    let big: Vec<u8> = (0..3i32).flat_map(i32::to_le_bytes).collect();
    assert_eq!(trained.arrays["big"], Array::new(DType::I32, vec![3], big.into()).unwrap());
    assert_eq!((trained.examples, &trained.metrics["loss"]), (7, &Value::Float(0.25)));
    let answer = call(&server, "evaluate", Dialect::Message.evaluate(&arrays, round(1))).unwrap();
    let evaluated = Dialect::Message.read_evaluated(answer.content).unwrap();
    assert_eq!((evaluated.loss, evaluated.examples, &evaluated.metrics["acc"]), (Some(1.5), 3, &Value::Float(0.5)));
    let error = call(&server, "train", Dialect::Message.train(&arrays, round(3))).unwrap_err();
    assert!(
        error.to_string().starts_with("site `a`: error 2: ") && error.to_string().contains("no third round"),
        "{error}"
    );
    server.finish(true, "").unwrap();

    let server = serve(numpy, "numpy");
    let config = IndexMap::from([("add".to_owned(), Value::Float(1.0))]);
    let answer = call(&server, "train", Dialect::NumPyClient.train(&arrays, config)).unwrap();
    let trained = Dialect::NumPyClient.read_trained(answer.content).unwrap();
    assert!(trained.arrays.values().eq(expected.values()), "{trained:?}");
    assert_eq!((trained.examples, &trained.metrics["note"]), (11, &Value::from("fine")));
    let answer = call(&server, "evaluate", Dialect::NumPyClient.evaluate(&arrays, IndexMap::new())).unwrap();
    let evaluated = Dialect::NumPyClient.read_evaluated(answer.content).unwrap();
    assert_eq!((evaluated.loss, evaluated.examples), (Some(15.0), 5));
    server.finish(true, "").unwrap();
}

fn matrix() -> Array {
    let (_, _, data) = floats(6, 10.0).into_parts();
    Array::new(DType::F32, vec![2, 3], data).unwrap()
}

#[test]
fn a_python_server() {
    let bench = Bench::new(&["a", "b"]);
    let result = bench.path("result.json");
    let Some(bundle) = bundle(&bench, "server", &result) else { return };
    // With its default isolation it starts the server's app.
    let Some(link) = SuperLink::start(&["--insecure", "--disable-runtime-dependency-installation"]) else { return };
    let stop = Arc::new(AtomicBool::new(false));
    let kinds = std::thread::scope(|scope| {
        let sites = ["a", "b"].map(|name| {
            let site = Site::open(bench.site_options(name, link.port), bench.site_events.observer(name)).unwrap();
            let stop = Arc::clone(&stop);
            scope.spawn(move || take_part(site, name, &stop))
        });
        let mut fab = Vec::new();
        prost::encoding::bytes::encode(2, &bundle, &mut fab);
        let mut start = Vec::new();
        encode_key(1, WireType::LengthDelimited, &mut start);
        encode_varint(fab.len() as u64, &mut start);
        start.extend(fab);
        post(link.port, "control/start-run", &start);
        wait_for("the end of the run", LONG, || {
            let runs = post(link.port, "control/list-runs", &[]);
            String::from_utf8_lossy(&runs).contains("finished").then_some(())
        });
        stop.store(true, Ordering::Relaxed);
        sites.map(|site| site.join().unwrap())
    });
    assert!(result.exists(), "{}", text(&link.folder().join("superlink.log")));
    let found: serde_json::Value = serde_json::from_str(&text(&result)).unwrap();
    assert_eq!(found["w"], serde_json::json!([[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]]));
    assert_eq!(found["t"], found["w"]);
    assert_eq!(found["train"]["2"]["loss"], 0.5);
    assert_eq!(found["evaluate"]["2"]["loss"], 0.5);
    assert_eq!(kinds[0], ["train", "evaluate", "train", "evaluate"]);
}
