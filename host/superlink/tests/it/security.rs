//! Others on the network.

use std::time::Duration;

use fedplug_superlink::{Connection, Error, Event, Server, Site, SiteOptions};

use crate::superlink::{Program, SuperLink};
use crate::support::{Bench, LONG, connection, content, floats, never, plus_one, python, request, wait_for};

/// A node with the site's key that answers an order first without a signature, then with that of another key, and then as
/// if it were the answer to another order; and ends.
const FORGER: &str = r#"
import sys, time; sys.path.insert(0, sys.argv[1])
import fleet_probe as f
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
node = f.Node(f.Http(sys.argv[2]), sys.argv[3]); node.join()
other = ec.generate_private_key(ec.SECP384R1())
done = 0
while done < 3:
    pulled = node.pull()
    if pulled is None:
        time.sleep(0.05); continue
    meta, records, error = pulled
    if meta["type"].startswith("query"):
        continue
    records.pop("fedplug.superlink")
    if done > 0:
        signature = other.sign(b"anything", ec.ECDSA(hashes.SHA256()))
        records["fedplug.superlink"] = f.Config(status="answer", text="", signature=signature)
    if done == 2:
        meta = meta | {"group_id": ".".join(meta["group_id"].split(".")[:2] + ["77"] + meta["group_id"].split(".")[3:])}
    print(node.push(meta, records), flush=True)
    done += 1
node.stop.set()
"#;

#[test]
fn forged_answers_are_ignored() {
    let Some(port) = SuperLink::shared() else { return };
    let Some(probes) = test_support::shared("flower/fleet_probe.py") else { return };
    let bench = Bench::new(&["a"]);
    let home = bench.path("home");
    std::fs::create_dir(&home).unwrap();
    std::fs::copy(bench.path("a.pem"), home.join("key.pem")).unwrap();
    let mut command = python().unwrap();
    command.args(["-c", FORGER]).arg(probes.parent().unwrap()).arg(format!("http://127.0.0.1:{port}")).arg(&home);
    let mut forger = Program::start(&command, &bench.path("forger.out"));
    let server = bench.server(port);
    let model = content(&[("w", floats(5, 0.0))]);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| server.call("a", request("1", &model), &never).unwrap());
        forger.wait(LONG);
        // The site takes its node over.
        let node = std::fs::read_to_string(home.join("node.json")).unwrap();
        let node: u64 = node.trim_end_matches('}').rsplit(' ').next().unwrap().parse().unwrap();
        std::fs::create_dir_all(bench.path("site-a")).unwrap();
        let mut file = vec![8];
        prost::encoding::encode_varint(node, &mut file);
        std::fs::write(bench.path("site-a/node"), file).unwrap();
        let _site = bench.site("a", port);
        let answer = call.join().unwrap();
        assert_eq!(answer.content, plus_one(&model));
    });
    let reasons = ["it is not signed", "its signature is not the site's", "it answers another order"];
    for expected in reasons {
        let found =
            bench.server_events.any(|event| matches!(event, Event::Forged { reason, .. } if reason == expected));
        assert!(found, "{expected}: {}", std::fs::read_to_string(bench.path("forger.out")).unwrap());
    }
    server.finish(true, "").unwrap();
}

#[test]
fn only_encrypted_connections_leave_this_machine() {
    let bench = Bench::new(&["a"]);
    let open = |url: &str, insecure| {
        let connection = Connection { insecure, patience: Some(Duration::ZERO), ..Connection::new(url) };
        let options = SiteOptions { connection, ..bench.site_options("a", 1) };
        Site::open(options, bench.site_events.observer("a")).map(drop).unwrap_err()
    };
    let refused = open("http://192.0.2.1:8000", false);
    let text = "`http://192.0.2.1:8000`: it is not encrypted, and the host is another machine\n\
                hint: use `https`, or allow insecure connections";
    assert_eq!(refused.to_string(), text);
    for url in [
        "http://localhost.example:8000",
        "http://127.0.0.1.example",
        "ftp://127.0.0.1",
        "127.0.0.1:8000",
        "http://user@127.0.0.1",
        "https://",
    ] {
        assert!(matches!(open(url, false), Error::Url { .. }), "{url}");
    }
    for (url, insecure) in [
        ("http://127.0.0.1:9", false),
        ("http://[::1]:9", false),
        ("http://localhost:9", false),
        ("https://127.0.0.1:9", false),
    ] {
        assert!(matches!(open(url, insecure), Error::Unreachable { .. }), "{url}");
    }
}

#[test]
fn tls_by_an_authority_of_ones_own() {
    let Some(link) = SuperLink::start_tls() else { return };
    let bench = Bench::new(&["a"]);
    let connection = |authority: &str| Connection {
        url: format!("https://127.0.0.1:{}", link.port),
        ca: Some(link.folder().join(authority)),
        ..connection(link.port)
    };
    let mut options = bench.server_options(link.port);
    for (authority, wrong) in
        [("other.pem", "certificate"), ("server.key", "no certificate"), ("missing.pem", "No such file")]
    {
        options.connection = Connection { patience: Some(Duration::from_secs(20)), ..connection(authority) };
        let error = Server::open(options.clone(), bench.server_events.observer("server")).map(drop).unwrap_err();
        assert!(error.to_string().contains(wrong), "{authority}: {error}");
    }
    options.connection = connection("ca.pem");
    let server = Server::open(options, bench.server_events.observer("server")).unwrap();
    let site = SiteOptions { connection: connection("ca.pem"), ..bench.site_options("a", 0) };
    let site = Site::open(site, bench.site_events.observer("a")).unwrap();
    std::thread::scope(|scope| {
        let model = content(&[("w", floats(2_000_000, 0.0))]);
        let call = scope.spawn(move || {
            let answer = server.call("a", request("1", &model), &never).unwrap();
            assert_eq!(answer.content, model);
            server.finish(true, "").unwrap();
        });
        let order = wait_for("the order", LONG, || site.next(Duration::from_secs(1)).unwrap());
        let content = order.content.clone();
        order.answer(content).unwrap();
        call.join().unwrap();
    });
}

#[test]
fn keys_and_state_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(port) = SuperLink::shared() else { return };
    let bench = Bench::new(&["a"]);
    let _site = bench.site("a", port);
    let server = bench.server(port);
    server.call("a", request("1", &content(&[("w", floats(5, 0.0))])), &never).unwrap();
    let session = server.session();
    for file in ["a.pem", "server/server.json", "site-a/node", &format!("site-a/answers/{session}")] {
        let mode = std::fs::metadata(bench.path(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    // A key is never replaced.
    let error = bench.identities["a"].save(&bench.path("a.pem")).unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error}");
    server.finish(true, "").unwrap();
}
