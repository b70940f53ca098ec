//! Processes that are killed, and come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use fedplug_superlink::{Event, Policy};

use crate::losses::{call_once, contains};
use crate::process::{output, start_server, start_site};
use crate::proxy::{Fate, Proxy};
use crate::superlink::{Program, SuperLink};
use crate::support::{Bench, LONG, wait_for};

#[test]
fn a_site_killed_at_work() {
    let Some(port) = SuperLink::shared() else { return };
    let bench = Bench::new(&["a"]);
    let server = bench.server(port);
    let site = start_site(&bench, "a", port, Duration::from_secs(2));
    std::thread::scope(|scope| {
        let call = scope.spawn(|| call_once(&bench, &server, "1", 10));
        wait_for("the work", LONG, || bench.worked("a").get("begin 1").copied());
        site.kill();
        let _site = start_site(&bench, "a", port, Duration::ZERO);
        assert_eq!(call.join().unwrap(), 2);
        assert_eq!(bench.worked("a")["begin 1"], 2);
    });
    server.finish(true, "").unwrap();
}

#[test]
fn a_site_killed_between_its_work_and_its_push() {
    let Some(port) = SuperLink::shared() else { return };
    let bench = Bench::new(&["a"]);
    let cut = Arc::new(AtomicBool::new(false));
    let is_cut = Arc::clone(&cut);
    let proxy = Proxy::start(port, move |passing| {
        if passing.path == "fleet/push-messages" && contains(&passing.body, b"train.test") && passing.answer.is_none() {
            is_cut.store(true, Ordering::Relaxed);
        }
        if is_cut.load(Ordering::Relaxed) { Fate::Lose } else { Fate::Pass }
    });
    let site = start_site(&bench, "a", proxy.port, Duration::ZERO);
    let server = bench.server(port);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| call_once(&bench, &server, "1", 1000));
        wait_for("the cut", LONG, || cut.load(Ordering::Relaxed).then_some(()));
        site.kill();
        // It comes back by another way.
        let _site = start_site(&bench, "a", port, Duration::ZERO);
        assert_eq!(call.join().unwrap(), 2);
    });
    assert_eq!(bench.worked("a")["begin 1"], 1);
    server.finish(true, "").unwrap();
}

/// A site through a proxy that loses everything after the second object of its answer; the site is killed there.
fn killed_in_its_push(bench: &Bench, port: u16) -> (Proxy, Arc<AtomicBool>, Program) {
    let (cut, count) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
    let is_cut = Arc::clone(&cut);
    let proxy = Proxy::start(port, move |passing| {
        let push = passing.path == "fleet/push-object" && passing.answer.is_none() && passing.body.len() > 100_000;
        if push && count.fetch_add(1, Ordering::Relaxed) == 2 {
            is_cut.store(true, Ordering::Relaxed);
        }
        if is_cut.load(Ordering::Relaxed) { Fate::Lose } else { Fate::Pass }
    });
    let site = start_site(bench, "a", proxy.port, Duration::ZERO);
    (proxy, cut, site)
}

#[test]
fn a_site_killed_in_its_push() {
    let Some(port) = SuperLink::shared() else { return };
    let bench = Bench::new(&["a"]);
    let (proxy, cut, site) = killed_in_its_push(&bench, port);
    let server = bench.server(port);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| call_once(&bench, &server, "1", 3_200_000));
        wait_for("the cut", LONG, || cut.load(Ordering::Relaxed).then_some(()));
        site.kill();
        cut.store(false, Ordering::Relaxed);
        let _site = start_site(&bench, "a", proxy.port, Duration::ZERO);
        assert_eq!(call.join().unwrap(), 1);
    });
    let printed = output(&bench, "a");
    assert!(printed.contains("resuming the push of the answer to order 1"), "{printed}");
    assert_eq!(bench.worked("a")["begin 1"], 1);
    server.finish(true, "").unwrap();
}

#[test]
#[ignore = "takes 200 s"]
fn a_site_killed_in_its_push_and_back_after_the_session() {
    let Some(port) = SuperLink::shared() else { return };
    let mut bench = Bench::new(&["a"]);
    bench.policy = Policy { away: None, ..bench.policy };
    let (proxy, cut, site) = killed_in_its_push(&bench, port);
    let server = bench.server(port);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| call_once(&bench, &server, "1", 3_200_000));
        wait_for("the cut", LONG, || cut.load(Ordering::Relaxed).then_some(()));
        site.kill();
        std::thread::sleep(Duration::from_secs(190));
        cut.store(false, Ordering::Relaxed);
        let _site = start_site(&bench, "a", proxy.port, Duration::ZERO);
        call.join().unwrap();
    });
    assert_eq!(bench.worked("a")["begin 1"], 1);
    server.finish(true, "").unwrap();
}

#[test]
fn a_superlink_with_a_database_killed_in_a_transfer() {
    let arguments = ["--insecure", "--isolation", "process", "--database", "state.db"];
    let Some(mut link) = SuperLink::start(&arguments) else { return };
    let bench = Bench::new(&["a"]);
    let (seen, port) = (Arc::new(AtomicUsize::new(0)), link.port);
    let count = Arc::clone(&seen);
    let proxy = Proxy::start(port, move |passing| {
        if passing.path.ends_with("push-object") && passing.answer.is_none() && passing.body.len() > 1_000_000 {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Fate::Pass
    });
    let _site = bench.site("a", proxy.port);
    let server = bench.server(proxy.port);
    let run = server.run();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| call_once(&bench, &server, "1", 4_000_000));
        // In the middle of the order, and in the middle of the answer.
        for large in [2, 6] {
            wait_for("the transfer", LONG, || (seen.load(Ordering::Relaxed) >= large).then_some(()));
            link.kill();
            link.restart();
        }
        call.join().unwrap();
    });
    assert_eq!(server.run(), run);
    assert_eq!(bench.worked("a")["begin 1"], 1);
    server.finish(true, "").unwrap();
}

#[test]
fn a_superlink_without_a_database_killed() {
    let Some(mut link) = SuperLink::start(&["--insecure", "--isolation", "process"]) else { return };
    let bench = Bench::new(&["a"]);
    let _site = bench.site_with("a", link.port, Duration::from_secs(2));
    let server = bench.server(link.port);
    let run = server.run();
    call_once(&bench, &server, "1", 10);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| call_once(&bench, &server, "2", 10));
        wait_for("the work", LONG, || bench.worked("a").get("begin 2").copied());
        link.kill();
        link.restart();
        call.join().unwrap();
    });
    assert_ne!(server.run(), run);
    assert_eq!(bench.worked("a")["begin 2"], 1);
    assert!(bench.site_events.any(|event| matches!(event, Event::NodeLost)));
    assert!(bench.server_events.any(|event| matches!(event, Event::RunLost { .. })));
    server.finish(true, "").unwrap();
}

#[test]
fn a_server_killed_and_back() {
    let Some(port) = SuperLink::shared() else { return };
    let bench = Bench::new(&["a"]);
    let _site = bench.site_with("a", port, Duration::from_secs(2));
    let server = start_server(&bench, port, "1");
    wait_for("the work", LONG, || bench.worked("a").get("begin 1").copied());
    server.kill();
    let mut server = start_server(&bench, port, "1 2");
    server.wait(LONG);
    let printed = std::fs::read_to_string(bench.path("server.out")).unwrap();
    assert!(printed.contains("finished") && printed.contains("resumed run"), "{printed}");
    assert_eq!(bench.worked("a").values().copied().collect::<Vec<_>>(), [1, 1, 1, 1]);
}

#[test]
#[ignore = "takes 80 s"]
fn a_server_killed_and_back_too_late_for_its_run() {
    let Some(port) = SuperLink::shared() else { return };
    let bench = Bench::new(&["a"]);
    let _site = bench.site_with("a", port, Duration::from_secs(2));
    let server = start_server(&bench, port, "1");
    wait_for("the work", LONG, || bench.worked("a").get("begin 1").copied());
    server.kill();
    std::thread::sleep(Duration::from_secs(70));
    let mut server = start_server(&bench, port, "1 2");
    server.wait(LONG);
    let printed = std::fs::read_to_string(bench.path("server.out")).unwrap();
    assert!(printed.contains("finished") && !printed.contains("resumed run"), "{printed}");
    assert_eq!(printed.matches("started run").count(), 2, "{printed}");
    assert_eq!(bench.worked("a").values().copied().collect::<Vec<_>>(), [1, 1, 1, 1]);
}
