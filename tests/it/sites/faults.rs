//! Killed processes, lost memories, and sites that stay away.

use std::time::Duration;

use test_support::superlink::{LONG, wait_for};

use super::{Sites, linear, nothing};

const TWO: [&str; 2] = ["binding", "tm"];

fn two(name: &str, rounds: u64, more: &str) -> Option<Sites> {
    Sites::new(&TWO, &linear(&TWO, name, rounds, more), nothing)
}

#[test]
fn sites_killed_in_several_rounds_change_no_bit() {
    let Some(mut sites) = two("killed", 6, "") else { return };
    sites.join_all();
    sites.run_locally("killed");
    let server = sites.start_server(&[]);
    for round in [1, 3] {
        sites.wait_for_line("server", &format!("round {round}/6"));
        sites.kill(round % 2);
        std::thread::sleep(Duration::from_millis(300));
        sites.join(round % 2);
    }
    sites.wait(server);
    sites.wait_for_line("server", "round 6/6");
    sites.assert_same("killed");
}

#[test]
fn a_killed_server_resumes_with_the_same_bits() {
    let Some(mut sites) = two("resumed", 6, "") else { return };
    sites.join_all();
    sites.run_locally("resumed");
    let server = sites.start_server(&[]);
    sites.wait_for_line("server", "round 2/6");
    server.kill();
    let told = sites.serve(&["--resume"]);
    assert!(told.contains("resuming after round"), "{told}");
    sites.assert_same("resumed");
}

#[test]
fn a_superlink_that_forgets_everything_costs_nothing() {
    let Some(mut sites) = two("forgotten", 6, "") else { return };
    sites.join_all();
    sites.run_locally("forgotten");
    let server = sites.start_server(&[]);
    sites.wait_for_line("server", "round 2/6");
    sites.link.kill();
    sites.link.restart();
    sites.wait(server);
    sites.wait_for_line("server", "round 6/6");
    sites.assert_same("forgotten");
}

#[test]
fn a_site_that_stays_away_is_left_out_or_ends_the_run() {
    let Some(mut sites) = two("away", 4, "site-timeout = 3\non-client-failure = \"leave-out\"") else { return };
    sites.join_all();
    let server = sites.start_server(&[]);
    sites.wait_for_line("server", "round 1/4");
    sites.stop(0);
    sites.wait(server);
    sites.wait_for_line("server", "left out");
    sites.wait_for_line("server", "round 4/4");
    let text = std::fs::read_to_string(sites.log("server")).unwrap();
    assert!(text.contains("client `binding`, site `binding`: it has been away for"), "{text}");
    let Some(mut sites) = two("ends", 4, "site-timeout = 3") else { return };
    sites.join_all();
    let server = sites.start_server(&[]);
    sites.wait_for_line("server", "round 1/4");
    sites.stop(1);
    sites.wait(server);
    let text = std::fs::read_to_string(sites.log("server")).unwrap();
    assert!(text.contains("error: round 2, client `tm`, site `tm`: it has been away for"), "{text}");
}

#[test]
fn a_site_refuses_what_its_file_does_not_allow() {
    let Some(mut sites) = two("refused", 4, "") else { return };
    let file = sites.bench.path("tm.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("[allow]", "[allow]\nrounds = 3")).unwrap();
    sites.join_all();
    let output = sites.serve_command(&[]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("site `tm`: it refuses: tm: rule `allow.rounds`"), "{text}");
}

#[test]
fn a_site_ends_when_it_is_told_to_although_the_superlink_is_away() {
    let Some(mut sites) = Sites::new(&["tm"], &linear(&["tm"], "away", 1, ""), nothing) else { return };
    sites.link.kill();
    sites.join(0);
    wait_for("the outage", LONG, || {
        std::fs::read_to_string(sites.log("tm")).ok().filter(|log| log.contains("cannot reach the SuperLink"))
    });
    sites.stop(0);
    assert!(std::fs::read_to_string(sites.log("tm")).unwrap().contains("stopped on request"));
}
