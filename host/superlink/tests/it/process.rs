//! Ends in processes of their own, so that they can be killed. The "tests" here are started by others.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use fedplug_superlink::{Identity, Peer, Server, ServerOptions, Site, SiteOptions};

use crate::superlink::Program;
use crate::support::{Bench, connection, content, floats, never, plus_one, request, work};

/// A site in a process.
pub fn start_site(bench: &Bench, name: &str, port: u16, sleep: Duration) -> Program {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--ignored", "--nocapture", "process::site"]);
    command.env("SITE_PORT", port.to_string()).env("SITE_NAME", name).env("SITE_FOLDER", bench.path(""));
    command.env("SITE_SLEEP", sleep.as_millis().to_string());
    Program::start(&command, &bench.path(&format!("{name}.out")))
}

/// What a site's process printed.
pub fn output(bench: &Bench, name: &str) -> String {
    std::fs::read_to_string(bench.path(&format!("{name}.out"))).unwrap()
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap()
}

#[test]
#[ignore = "a process of other tests"]
fn site() {
    let (name, folder) = (variable("SITE_NAME"), PathBuf::from(variable("SITE_FOLDER")));
    let identity = Identity::load(&folder.join(format!("{name}.pem"))).unwrap();
    let options = SiteOptions::new(
        connection(variable("SITE_PORT").parse().unwrap()),
        identity,
        folder.join(format!("site-{name}")),
    );
    let options = SiteOptions { poll: Duration::from_millis(100), idle_poll: Duration::from_millis(200), ..options };
    let sleep = Duration::from_millis(variable("SITE_SLEEP").parse().unwrap());
    let observer = std::sync::Arc::new(|event: &fedplug_superlink::Event| eprintln!("{event}"));
    let site = Site::open(options, observer).unwrap();
    loop {
        if let Some(order) = site.next(Duration::from_secs(1)).unwrap() {
            work(order, &folder.join(format!("{name}.log")), sleep);
        }
    }
}

/// A server in a process. It calls all sites of the bench with each key, one key after the other, and prints a line for
/// each answer: site, key, how often it was sent, a number of the answer.
pub fn start_server(bench: &Bench, port: u16, keys: &str) -> Program {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--ignored", "--nocapture", "process::server"]);
    command.env("SERVER_PORT", port.to_string()).env("SERVER_FOLDER", bench.path("")).env("SERVER_KEYS", keys);
    command.env("SERVER_SITES", bench.identities.keys().cloned().collect::<Vec<_>>().join(" "));
    Program::start(&command, &bench.path("server.out"))
}

#[test]
#[ignore = "a process of other tests"]
fn server() {
    let folder = PathBuf::from(variable("SERVER_FOLDER"));
    let names: Vec<String> = variable("SERVER_SITES").split(' ').map(str::to_owned).collect();
    let sites = names.iter().map(|name| {
        let identity = Identity::load(&folder.join(format!("{name}.pem"))).unwrap();
        (name.clone(), Peer::Fedplug(identity.fingerprint()))
    });
    let connection = connection(variable("SERVER_PORT").parse().unwrap());
    let mut options = ServerOptions::new(connection, "Test Run", folder.join("server"), sites.collect());
    options.policy.silence = Duration::from_secs(2);
    options.policy.poll = Duration::from_millis(100);
    let observer = std::sync::Arc::new(|event: &fedplug_superlink::Event| eprintln!("{event}"));
    let server = Server::open(options, observer).unwrap();
    for key in variable("SERVER_KEYS").split(' ') {
        let model = content(&[("w", floats(100, key.parse().unwrap()))]);
        std::thread::scope(|scope| {
            for name in &names {
                let (server, model) = (&server, &model);
                scope.spawn(move || {
                    let answer = server.call(name, request(key, model), &never).unwrap();
                    assert_eq!(answer.content, plus_one(model));
                    eprintln!("answer {name} {key} {} {}", answer.sends, server.run());
                });
            }
        });
    }
    server.finish(true, "").unwrap();
    eprintln!("finished");
}
