//! Runs and clients from paths and tags.

use super::*;

fn path(text: &str) -> Vec<String> {
    text.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

#[test]
fn the_way_to_the_run_is_what_names_neither_client_nor_nothing() {
    let around = |below: &str, client: &str| {
        let folder = Folder { root: 0, above: path("home/a"), path: path(below), files: Vec::new(), series: None };
        let (before, behind) = folder.around(client);
        (before.join("/"), behind.map(|behind| behind.join("/")))
    };
    let is = |before: &str, behind: &str| (before.to_owned(), Some(behind.to_owned()));
    let kept = |before: &str| (before.to_owned(), None);
    assert_eq!(around("events/tm", "tm"), is("", ""));
    assert_eq!(around("fedavg/events/tm", "tm"), is("fedavg", ""));
    assert_eq!(around("fedavg/tm", "tm"), is("fedavg", ""));
    assert_eq!(around("fedavg/site-1/tb_events", "site-1"), is("fedavg", ""));
    assert_eq!(around("fedavg/server/simulate_job/tb_events/site-1", "site-1"), kept("fedavg"));
    assert_eq!(around("server/simulate_job/tb_events/site-1", "site-1"), kept(""));
    assert_eq!(around("server/events/site-1", "site-1"), is("server", ""));
    assert_eq!(around("5f1e/workspace/tb_events/site-1", "site-1"), is("5f1e", ""));
    assert_eq!(around("fedavg/tm/run_Nov26_10-00-01/logs", "tm"), is("fedavg", "run_Nov26_10-00-01"));
    assert_eq!(around("run_Nov26_10-00-01/logs", "a"), is("", "run_Nov26_10-00-01"));
    assert_eq!(around("all-in-one", "site-1"), is("all-in-one", ""));
}

#[test]
fn runs_are_named_by_what_differs() {
    let named = |paths: &[&str]| {
        let paths: Vec<Vec<String>> = paths.iter().map(|text| path(text)).collect();
        names(&paths.iter().map(Vec::as_slice).collect::<Vec<_>>())
    };
    assert_eq!(named(&["home/runs/linear"]), ["linear"]);
    assert_eq!(named(&["home/runs/linear/events"]), ["linear"]);
    assert_eq!(named(&["runs/a", "runs/b"]), ["a", "b"]);
    assert_eq!(named(&["x/a/server", "x/b/server"]), ["a", "b"]);
    assert_eq!(named(&["x/a", "x/a/b"]), ["a", "b"]);
    assert_eq!(named(&["x/a", "x/a"]), ["a", "a"]);
}

#[test]
fn a_tag_is_the_folders_own_or_its_first_part_names_the_client() {
    let curves = |tags: &[&str]| -> Curves { tags.iter().map(|tag| ((*tag).to_owned(), Vec::new())).collect() };
    let clients = |tags: &[&str], tag| {
        let found = matching(curves(tags), tag, "tm");
        found.into_iter().map(|(client, _)| client).collect::<Vec<_>>()
    };
    assert_eq!(clients(&["a/RMSE/test", "b/RMSE/test", "RMSE/other"], "RMSE/test"), ["a", "b"]);
    assert_eq!(clients(&["RMSE/test", "a/RMSE/test"], "RMSE/test"), ["tm"]);
    assert_eq!(clients(&["a/RMSE/test"], "test"), [""; 0]);
}
