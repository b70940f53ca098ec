//! Calls without faults.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fedplug_superlink::{Array, CallError, Content, DType, Event, Policy, Record, Request, Site, Value};

use crate::process::start_site;
use crate::proxy::{Fate, Proxy};
use crate::superlink::SuperLink;
use crate::support::{Bench, LONG, content, floats, never, plus_one, request, wait_for, work};

#[test]
fn every_kind_of_content_goes_there_and_back() {
    let Some(port) = SuperLink::shared() else { return };
    let bench = Bench::new(&["a"]);
    let _site = bench.site("a", port);
    let server = bench.server(port);
    let mut arrays = indexmap::IndexMap::new();
    let dtypes = [
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float64",
        "bfloat16",
    ];
    for (index, name) in dtypes.iter().enumerate() {
        let dtype = DType::from_name(name).unwrap();
        let data: Vec<u8> = (0..6 * dtype.size()).map(|i| u8::from(*name != "bool") * (i * 7 + index) as u8).collect();
        arrays.insert(format!("z{name}"), Array::new(dtype, vec![2, 3], data.into()).unwrap());
    }
    arrays.insert("scalar".into(), Array::new(DType::I64, vec![], 7i64.to_le_bytes().to_vec().into()).unwrap());
    arrays.insert("none".into(), Array::new(DType::F32, vec![0, 4], vec![].into()).unwrap());
    arrays.insert("no brain, über".into(), Array::new(DType::BF16, vec![0], vec![].into()).unwrap());
    // Two chunks and a bit; and one in which all chunks but the first and the last are the same.
    arrays.insert(
        "large".into(),
        Array::new(
            DType::U8,
            vec![12_000_000],
            (0..12_000_000u32).map(|i| (i / 1000) as u8).collect::<Vec<_>>().into(),
        )
        .unwrap(),
    );
    arrays.insert("zeros".into(), Array::new(DType::U8, vec![22_000_000], vec![0; 22_000_000].into()).unwrap());
    let values = [
        ("float", Value::Float(0.1)),
        ("nan", Value::Float(f64::INFINITY)),
        ("int", Value::Int(i64::MIN)),
        ("uint", Value::Uint(u64::MAX)),
        ("floats", Value::Floats(vec![1.5, -0.0])),
        ("ints", Value::Ints(vec![-1, i64::MAX])),
        ("uints", Value::Uints(vec![])),
    ];
    let metrics: indexmap::IndexMap<_, _> = values.map(|(name, value)| (name.to_owned(), value)).into();
    let mut config = metrics.clone();
    for (name, value) in [
        ("bool", Value::Bool(true)),
        ("text", Value::Text("ö\0\"".into())),
        ("bytes", Value::Bytes(vec![0, 255].into())),
        ("bools", Value::Bools(vec![true, false])),
        ("texts", Value::Texts(vec![String::new()])),
        ("byte strings", Value::ByteStrings(vec![vec![].into(), vec![1].into()])),
    ] {
        config.insert(name.to_owned(), value);
    }
    let sent = Content::from([
        ("z arrays".to_owned(), Record::Arrays(arrays)),
        ("metrics".to_owned(), Record::Metrics(metrics)),
        ("config".to_owned(), Record::Config(config)),
        ("no arrays".to_owned(), Record::Arrays(indexmap::IndexMap::new())),
        ("nothing".to_owned(), Record::Config(indexmap::IndexMap::new())),
    ]);
    let answer = server.call("a", request("1", &sent), &never).unwrap();
    assert_eq!(answer.content, plus_one(&sent));
    let names = |content: &Content| -> Vec<String> {
        content
            .iter()
            .flat_map(|(name, record)| match record {
                Record::Arrays(arrays) => {
                    std::iter::once(name.clone()).chain(arrays.keys().cloned()).collect::<Vec<_>>()
                }
                _ => vec![name.clone()],
            })
            .collect()
    };
    assert_eq!(names(&answer.content), names(&sent), "the order of names");
    let Record::Arrays(arrays) = &answer.content["z arrays"] else { panic!() };
    for (name, array) in arrays {
        assert_eq!(array.data().as_ptr() as usize % 64, 0, "{name}");
    }
    assert_eq!(bench.worked("a")["done 1"], 1);
    // 12 MB, and of the zeros a chunk with the head, one for the middle, and the rest.
    let traffic = answer.traffic;
    assert!((23_500_000..23_600_000).contains(&traffic.sent), "{traffic:?}");
    server.finish(true, "").unwrap();
}

#[test]
fn what_sites_share_goes_out_once() {
    let Some(port) = SuperLink::shared() else { return };
    let mut bench = Bench::new(&["a", "b", "c"]);
    bench.policy.silence = Duration::from_secs(60);
    bench.policy.window = Duration::from_secs(1);
    let _sites = ["a", "b", "c"].map(|name| bench.site(name, port));
    let pushes = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&pushes);
    let proxy = Proxy::start(port, move |passing| {
        if passing.path == "runtime/push-messages" && passing.answer.is_none() {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Fate::Pass
    });
    let server = bench.server(proxy.port);
    while server.sites().unwrap().iter().any(|site| !site.online) {}
    let model = content(&[("w", floats(2_000_000, 0.0))]);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let calls =
            ["a", "b", "c"].map(|name| scope.spawn(|| server.call(name, request("1", &model), &never).unwrap()));
        calls.map(|call| call.join().unwrap()).into()
    });
    for answer in &answers {
        assert_eq!(answer.content, plus_one(&model));
        assert_eq!(answer.sends, 1);
    }
    let sent: u64 = answers.iter().map(|answer| answer.traffic.sent).sum();
    assert!((8_000_000..8_100_000).contains(&sent), "{sent}");
    assert_eq!(pushes.load(Ordering::Relaxed), 1);
    server.finish(true, "").unwrap();
}

#[test]
fn kept_arrays_are_not_sent_again() {
    let Some(port) = SuperLink::shared() else { return };
    let bench = Bench::new(&["a"]);
    let site = bench.site("a", port);
    let server = bench.server(port);
    let (frozen, head) = (floats(500_000, 0.0), floats(10, 3.0));
    let keep = |key: &str, content: &Content| Request { keep: true, ..request(key, content) };
    let first = content(&[("a", frozen.clone()), ("head", head.clone()), ("b", frozen.clone())]);
    let answer = server.call("a", keep("1", &first), &never).unwrap();
    assert!(answer.traffic.sent > 2_000_000);
    // The same arrays in other memory, at other places, under other names.
    let again = || Array::new(DType::F32, vec![500_000], frozen.data().to_vec().into()).unwrap();
    let second = content(&[("new", floats(10, 5.0)), ("x", again()), ("head", floats(10, 4.0)), ("y", again())]);
    let answer = server.call("a", keep("2", &second), &never).unwrap();
    assert_eq!(answer.content, plus_one(&second));
    let Record::Arrays(arrays) = &answer.content["arrays"] else { panic!() };
    assert_eq!(arrays.keys().collect::<Vec<_>>(), ["new", "x", "head", "y"]);
    assert!(answer.traffic.sent < 20_000, "{:?}", answer.traffic);
    // A site that has restarted has nothing.
    drop(site);
    let _site = bench.site("a", port);
    let third = content(&[("x", again()), ("head", head)]);
    let answer = server.call("a", keep("3", &third), &never).unwrap();
    assert_eq!(answer.content, plus_one(&third));
    assert!(answer.traffic.sent > 2_000_000 && answer.sends == 2, "{answer:?}");
    assert_eq!(bench.worked("a")["done 3"], 1);
    server.finish(true, "").unwrap();
}

#[test]
fn a_site_can_refuse_and_fail_and_be_asked_again() {
    let Some(port) = SuperLink::shared() else { return };
    let bench = Bench::new(&["a"]);
    let _site = bench.site("a", port);
    let server = bench.server(port);
    let ask = |kind: &str| server.call("a", Request { kind: kind.into(), ..request("1", &Content::new()) }, &never);
    let refused = ask("query.refuse").unwrap_err();
    assert!(matches!(&refused, CallError::Refused { reason, .. } if reason == "not here"), "{refused}");
    assert_eq!(refused.to_string(), "site `a`: refused: not here");
    for _ in 0..2 {
        let failed = ask("query.fail").unwrap_err();
        assert_eq!(failed.to_string(), "site `a`: out of memory");
    }
    let wrong = ask("query.wrong").unwrap_err().to_string();
    assert_eq!(wrong, "site `a`: the answer cannot be sent: record `m`: the metric `name` is no number");
    // A failure is no answer that the same call would get again.
    assert_eq!(bench.worked("a")["begin 1"], 4);
    let missing = server.call("z", request("1", &Content::new()), &never).unwrap_err();
    assert_eq!(missing.to_string(), "site `z`: there is no site of this name");
    server.finish(false, "as planned").unwrap();
}

#[test]
fn a_site_that_is_away_is_waited_for_as_long_as_the_policy_says() {
    let Some(port) = SuperLink::shared() else { return };
    let mut bench = Bench::new(&["a"]);
    bench.policy = Policy { away: Some(Duration::from_secs(2)), ..bench.policy };
    let server = bench.server(port);
    let start = Instant::now();
    let away = server.call("a", request("1", &Content::new()), &never).unwrap_err();
    assert!(matches!(away, CallError::Away { .. }) && start.elapsed() >= Duration::from_secs(2), "{away}");
    let cancelled = server.call("a", request("1", &Content::new()), &|| start.elapsed() > Duration::from_secs(3));
    assert!(matches!(cancelled, Err(CallError::Cancelled)));
    std::thread::scope(|scope| {
        // On a busy machine it may take longer to come than the policy allows.
        let call =
            scope.spawn(|| wait_for("it", LONG, || server.call("a", request("1", &Content::new()), &never).ok()));
        let _site = bench.site("a", port);
        call.join().unwrap();
    });
    assert!(bench.server_events.any(|event| matches!(event, Event::SiteOnline { .. })));
    server.finish(true, "").unwrap();
}

#[test]
fn a_site_that_works_for_long_is_asked_and_not_sent_the_order_again() {
    let Some(port) = SuperLink::shared() else { return };
    let mut bench = Bench::new(&["a"]);
    bench.policy.silence = Duration::from_secs(1);
    let site = Site::open(bench.site_options("a", port), bench.site_events.observer("a")).unwrap();
    let server = bench.server(port);
    let is_working = |event: &Event| matches!(event, Event::Status { status, .. } if status == "working");
    std::thread::scope(|scope| {
        let call = scope.spawn(|| server.call("a", request("1", &content(&[("w", floats(3, 0.0))])), &never).unwrap());
        let order = wait_for("the order", LONG, || site.next(Duration::from_secs(1)).unwrap());
        wait_for("two answers", LONG, || (bench.server_events.count(is_working) >= 2).then_some(()));
        work(order, &bench.path("a.log"), Duration::ZERO);
        assert_eq!(call.join().unwrap().sends, 1);
    });
    server.finish(true, "").unwrap();
}

#[test]
fn calls_to_one_site_wait_for_each_other() {
    let Some(port) = SuperLink::shared() else { return };
    let bench = Bench::new(&["a"]);
    let _site = bench.site_with("a", port, Duration::from_millis(300));
    let server = bench.server(port);
    std::thread::scope(|scope| {
        for key in ["1", "2", "3"] {
            let server = &server;
            scope.spawn(move || server.call("a", request(key, &Content::new()), &never).unwrap());
        }
    });
    assert_eq!(bench.worked("a").len(), 6);
    assert!(bench.worked("a").values().all(|count| *count == 1));
    server.finish(true, "").unwrap();
}

/// The most memory that a process has had, in MB.
fn most_memory(pid: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1000
}

#[test]
#[ignore = "prints figures of 472 MB; takes a minute"]
fn a_large_model() {
    let Some(link) = SuperLink::start(&["--insecure", "--isolation", "process"]) else { return };
    let bench = Bench::new(&["a"]);
    let site = start_site(&bench, "a", link.port, Duration::ZERO);
    let server = bench.server(link.port);
    while !server.sites().unwrap()[0].online {}
    let arrays: Vec<_> = (0..118).map(|i| (format!("layer{i}"), floats(1_000_000, i as f32))).collect();
    let arrays: Vec<_> = arrays.iter().map(|(name, array)| (name.as_str(), array.clone())).collect();
    let model = content(&arrays);
    for round in ["1", "2"] {
        let before = most_memory("self");
        let start = Instant::now();
        let answer = server.call("a", request(round, &model), &never).unwrap();
        let time = start.elapsed().as_secs_f64();
        assert_eq!(answer.content, plus_one(&model));
        let (server, node) = (most_memory("self"), most_memory(&site.pid.to_string()));
        eprintln!("round {round}: {time:.1} s, {:?}; server {before} to {server} MB, site {node} MB", answer.traffic);
    }
    server.finish(true, "").unwrap();
}

#[test]
fn a_call_after_one_that_was_cancelled_while_it_was_sent() {
    let Some(port) = SuperLink::shared() else { return };
    let bench = Bench::new(&["a"]);
    let _site = bench.site("a", port);
    let (held, pushes) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (holds, count) = (Arc::clone(&held), Arc::clone(&pushes));
    // The first order hangs in its push.
    let proxy = Proxy::start(port, move |passing| {
        if passing.path != "runtime/push-messages" || passing.answer.is_some() || !holds.load(Ordering::Relaxed) {
            return Fate::Pass;
        }
        count.fetch_add(1, Ordering::Relaxed);
        Fate::Status(503)
    });
    let server = bench.server(proxy.port);
    let first = content(&[("w", floats(5, 0.0))]);
    let hangs = || pushes.load(Ordering::Relaxed) > 0;
    let cancelled = server.call("a", request("1", &first), &hangs).unwrap_err();
    assert!(matches!(cancelled, CallError::Cancelled), "{cancelled}");
    std::thread::scope(|scope| {
        let second = content(&[("w", floats(7, 100.0))]);
        let call = scope.spawn({
            let (server, second) = (&server, second.clone());
            move || server.call("a", request("2", &second), &never).unwrap()
        });
        std::thread::sleep(Duration::from_millis(300));
        held.store(false, Ordering::Relaxed);
        assert_eq!(call.join().unwrap().content, plus_one(&second));
    });
    assert!(!bench.server_events.any(|event| matches!(event, Event::Forged { .. })));
    server.finish(true, "").unwrap();
}

#[test]
fn many_small_arrays_take_few_requests() {
    let Some(port) = SuperLink::shared() else { return };
    let mut bench = Bench::new(&["a"]);
    // No query, whose objects would be counted.
    bench.policy.silence = LONG;
    let _site = bench.site("a", port);
    // Different ones: what is asked for before it is there is asked for again.
    let requests = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&requests);
    let proxy = Proxy::start(port, move |passing| {
        if passing.answer.is_none() {
            seen.lock().unwrap().insert((passing.path.clone(), passing.body.clone()));
        }
        Fate::Pass
    });
    let server = bench.server(proxy.port);
    let arrays: Vec<_> = (0..40).map(|i| (format!("w{i}"), floats(i, i as f32))).collect();
    let arrays: Vec<_> = arrays.iter().map(|(name, array)| (name.as_str(), array.clone())).collect();
    let content = content(&arrays);
    let answer = server.call("a", request("1", &content), &never).unwrap();
    assert_eq!(answer.content, plus_one(&content));
    // Message, dictionary, the caller's values, ours, one bundle of arrays. What another test has sent is there already.
    let count = |wanted: &str| requests.lock().unwrap().iter().filter(|(path, _)| path == wanted).count();
    let (pushes, pulls) = (count("runtime/push-object"), count("runtime/pull-object"));
    assert!((3..=5).contains(&pushes) && pulls == 5, "{pushes} pushed, {pulls} pulled");
    server.finish(true, "").unwrap();
}

#[test]
fn orders_that_no_superlink_would_take_are_refused_at_once() {
    let Some(port) = SuperLink::shared() else { return };
    let bench = Bench::new(&["a"]);
    let server = bench.server(port);
    let refused = |kind: &str, record: (&str, Record)| {
        let content = Content::from([(record.0.to_owned(), record.1)]);
        let request = Request { kind: kind.into(), key: "1".into(), content, keep: false };
        server.call("a", request, &never).unwrap_err().to_string()
    };
    let none = || ("c", Record::Config(indexmap::IndexMap::new()));
    for kind in ["", "order", "train.", "train.a b", "train.1", "train.a.b", "trains", "query.fedplug_status"] {
        assert_eq!(refused(kind, none()), format!("site `a`: `{kind}` is no message type for orders"));
    }
    let text = [("name".to_owned(), Value::from("text"))].into();
    assert_eq!(refused("train", ("m", Record::Metrics(text))), "site `a`: record `m`: the metric `name` is no number");
    let (_, config) = none();
    assert!(refused("train", ("fedplug.superlink", config)).contains("is reserved"));
    server.finish(true, "").unwrap();
}
