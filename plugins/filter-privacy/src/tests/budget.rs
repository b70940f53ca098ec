//! The limit on the account, and the ledger that outlives a run.

use std::path::Path;

use fedplug_dp::{Rounds, epsilon};

use super::*;

const DELTA: f64 = 1e-5;

fn limited(sigma: f64, budget: Value) -> Result<Privacy> {
    let config =
        json!({ "mechanism": "gaussian", "clip": 1.0, "noise-multiplier": sigma, "delta": 1e-6, "budget": budget });
    privacy(config)
}

fn send(filter: &mut Privacy, host: &Recorder, round: u64) -> Result<Message> {
    let (sent, base) = (message([("w", tensor(&[1.0_f32]))]), message([("w", tensor(&[0.0_f32]))]));
    filter.apply(sent, &base, &host.ctx("tm", round))
}

/// The epsilon of messages, as (noise multiplier, count).
fn cost(messages: &[(f64, u64)]) -> f64 {
    let of = |&(noise_multiplier, count): &(f64, u64)| Rounds { noise_multiplier, sample_rate: 1.0, count };
    epsilon(&messages.iter().map(of).collect::<Vec<_>>(), DELTA)
}

/// How many messages a filter lets pass, of ten at most.
fn passed(filter: &mut Privacy, host: &Recorder) -> u64 {
    (0..10).take_while(|&round| send(filter, host, round).is_ok()).count() as u64
}

fn ledger(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_budget_of_a_run_ends_it_at_the_message_that_would_exceed_it() {
    let host = Recorder::default();
    let budget = json!({ "epsilon": cost(&[(1.0, 3)]), "delta": DELTA });
    let mut filter = limited(1.0, budget.clone()).unwrap();
    assert_eq!(passed(&mut filter, &host), 3);
    let error = send(&mut filter, &host, 3).unwrap_err();
    let (would, most) = (cost(&[(1.0, 4)]), cost(&[(1.0, 3)]));
    let wanted = format!(
        "`budget`: the privacy budget is spent: epsilon would be {would:.4} at delta 1e-5 after 4 messages in this run, and \
         at most {most} is allowed"
    );
    assert_eq!(error.to_string(), wanted);
    // Rounds that an interrupted process began count, as in the account.
    *host.attempts.lock().unwrap() = Some(4);
    assert!(send(&mut limited(1.0, budget.clone()).unwrap(), &host, 0).is_err());
    *host.attempts.lock().unwrap() = Some(3);
    assert!(send(&mut limited(1.0, budget).unwrap(), &host, 0).is_ok());
    // By default, delta is that of the filter.
    let at_own = json!({ "epsilon": cost(&[(1.0, 3)]) });
    assert_eq!(passed(&mut limited(1.0, at_own).unwrap(), &Recorder::default()), 2);
}

#[test]
fn a_ledger_outlives_runs_and_composes_different_noise_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("privacy.json");
    let most = cost(&[(1.0, 2), (2.0, 3)]);
    let budget = json!({ "epsilon": most, "delta": DELTA, "ledger": path });
    let host = Recorder::default();
    let mut first = limited(1.0, budget.clone()).unwrap();
    send(&mut first, &host, 0).unwrap();
    send(&mut first, &host, 1).unwrap();
    let note = format!("epsilon {:.4} of {most} at delta 1e-5 is spent, for 2 messages in all runs", cost(&[(1.0, 2)]));
    assert_eq!(host.last_note_of("privacy.budget"), note);
    // Another run, with more noise and under another client's name. The sum of both epsilons would allow fewer.
    let mut second = limited(2.0, budget.clone()).unwrap();
    let ctx = host.ctx("renamed", 0);
    let (sent, base) = (message([("w", tensor(&[1.0_f32]))]), message([("w", tensor(&[0.0_f32]))]));
    second.apply(sent, &base, &ctx).unwrap();
    assert_eq!(passed(&mut second, &host), 2);
    assert!(cost(&[(1.0, 2)]) + cost(&[(2.0, 3)]) > most);
    let kept = json!([{ "noise-multiplier": 1.0, "count": 2 }, { "noise-multiplier": 2.0, "count": 3 }]);
    assert_eq!(ledger(&path)["messages"], kept);
    // What was refused is not counted.
    assert_eq!((passed(&mut second, &host), passed(&mut limited(1.0, budget).unwrap(), &host)), (0, 0));
    assert_eq!(ledger(&path)["messages"], kept);
}

#[test]
fn a_message_is_in_the_ledger_before_it_leaves_and_a_rehearsal_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("privacy.json");
    let budget = json!({ "epsilon": cost(&[(1.0, 1)]), "delta": DELTA, "ledger": path });
    let rehearsal = Recorder { rehearsal: true, ..Recorder::default() };
    assert_eq!(passed(&mut limited(1.0, budget.clone()).unwrap(), &rehearsal), 10);
    assert!(!path.exists() && rehearsal.notes.lock().unwrap().iter().all(|(key, _)| key != "privacy.budget"));
    // If it cannot be written, nothing leaves.
    std::fs::create_dir(folder.path().join("privacy.json.part")).unwrap();
    let host = Recorder::default();
    let error = send(&mut limited(1.0, budget.clone()).unwrap(), &host, 0).unwrap_err();
    assert!(error.to_string().ends_with("privacy.json: the privacy ledger cannot be written"), "{error}");
    assert!(host.is_untouched());
    std::fs::remove_dir(folder.path().join("privacy.json.part")).unwrap();
    send(&mut limited(1.0, budget.clone()).unwrap(), &host, 0).unwrap();
    // Spent: a rehearsal already says so, before anything is trained.
    let error = send(&mut limited(1.0, budget).unwrap(), &rehearsal, 0).unwrap_err();
    assert!(error.to_string().contains("the privacy budget is spent"), "{error}");
}

#[test]
fn filters_that_share_a_ledger_at_the_same_time_lose_no_message() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("privacy.json");
    let budget = json!({ "epsilon": 1e6, "ledger": path });
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(passed(&mut limited(1.0, budget.clone()).unwrap(), &Recorder::default()), 10));
        }
    });
    assert_eq!(ledger(&path)["messages"], json!([{ "noise-multiplier": 1.0, "count": 40 }]));
}

#[test]
fn a_damaged_ledger_stops_everything() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("privacy.json");
    for text in [
        "",
        "{",
        "{}",
        r#"{"messages":[{"noise-multiplier":-1.0,"count":1}]}"#,
        r#"{"messages":[{"noise-multiplier":0.0,"count":1}]}"#,
        r#"{"messages":[{"noise-multiplier":1e999,"count":1}]}"#,
        r#"{"messages":[{"noise-multiplier":1.0,"count":-1}]}"#,
        r#"{"messages":[],"other":1}"#,
    ] {
        std::fs::write(&path, text).unwrap();
        let mut filter = limited(1.0, json!({ "epsilon": 1e6, "ledger": path })).unwrap();
        let error = send(&mut filter, &Recorder::default(), 0).unwrap_err();
        assert!(error.to_string().ends_with("privacy.json: the privacy ledger is damaged"), "{text}: {error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn a_budget_without_a_guarantee_is_refused() {
    let error = limited(0.0, json!({ "epsilon": 1 })).err().unwrap();
    assert_eq!(error.to_string(), "`budget`: cannot be kept: with `noise-multiplier = 0` epsilon is infinite");
    let config = json!({
        "mechanism": "gaussian", "clip": 1.0, "noise-multiplier": 1.0, "delta": 1e-5, "reproducible": true, "budget": { "epsilon": 1 },
    });
    let error = privacy(config).err().unwrap();
    assert_eq!(error.to_string(), "`budget`: cannot be kept: with `reproducible = true` nothing is protected");
    let config = json!({ "mechanism": "percentile", "percentile": 90, "gamma": 1.0, "budget": { "epsilon": 1 } });
    assert_eq!(privacy(config).err().unwrap().to_string(), "`budget`: is not a key of the mechanism `percentile`");
}
