//! Ends in processes of their own, so that they can be killed. The "tests" here are started by others.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use fedplug_superlink::{Identity, Site, SiteOptions};

use crate::support::{Bench, Program, connection, work};

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
