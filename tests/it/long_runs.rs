//! What keeps the files of a long run small.

use crate::resume::{LINEAR, interrupt, same};
use crate::support::Bench;

/// A line of `metrics.jsonl` as the client, the tag, the round and the step.
fn parsed(line: &str) -> (String, String, u64, u64) {
    // The time was cut off.
    let value: serde_json::Value = serde_json::from_str(&format!("{line}}}")).unwrap();
    let text = |key: &str| value[key].as_str().unwrap().to_owned();
    (text("client"), text("tag"), value["round"].as_u64().unwrap(), value["step"].as_u64().unwrap())
}

#[test]
#[cfg(unix)]
fn one_in_so_many_training_steps_is_kept_and_every_evaluation() {
    let bench = Bench::new();
    let base = [
        LINEAR,
        "--set",
        "model.batch-size=4",
        "--set",
        "federation.local-epochs=2",
        "--set",
        "federation.checkpoint-every=1",
    ];
    let thinned = |name: &'static str| [&base[..], &["--set", "federation.scalars-every=10", "--name", name]].concat();
    bench.run(&[&base[..], &["--name", "all"]].concat());
    bench.run(&thinned("thinned"));
    let (all, kept) = (bench.metrics("all"), bench.metrics("thinned"));
    let is_step = |line: &&String| line.contains("\"tag\":\"Loss/train\"");
    let others = |lines: &[String]| lines.iter().filter(|line| !is_step(line)).cloned().collect::<Vec<_>>();
    assert_eq!(others(&all), others(&kept));
    let steps: Vec<_> = all.iter().filter(is_step).map(|line| parsed(line)).collect();
    // The step after the last of an epoch is that of the next epoch, which the evaluations between the two tell apart.
    let mut ends = std::collections::BTreeSet::new();
    for pair in all.windows(2) {
        if is_step(&&pair[0]) && !is_step(&&pair[1]) {
            ends.insert(parsed(&pair[0]));
        }
    }
    let wanted: Vec<_> = steps.iter().filter(|step| step.3.is_multiple_of(10) || ends.contains(step)).collect();
    let found: Vec<_> = kept.iter().filter(is_step).map(|line| parsed(line)).collect();
    assert_eq!(found.iter().collect::<Vec<_>>(), wanted);
    assert!(ends.len() >= 6 * 20 && found.len() > ends.len() && 3 * found.len() < steps.len(), "{}", found.len());

    let told = interrupt(&bench, &thinned("killed"), "killed", "-KILL");
    assert_eq!(told.code, -1, "{}", told.stderr);
    bench.run(&[&thinned("killed")[..], &["--resume"]].concat());
    same(&bench, "killed", "thinned");
    // Results do not depend on it, so a run may go on with another.
    interrupt(&bench, &[&base[..], &["--name", "changed"]].concat(), "changed", "-INT");
    bench.run(&[&thinned("changed")[..], &["--resume"]].concat());
}

/// Of a round of five epochs the second, the fourth and the last are looked at. What is trained is the same.
#[test]
#[cfg(unix)]
fn one_in_so_many_epochs_is_evaluated_and_the_last_of_each_round() {
    let bench = Bench::new();
    let sets = ["federation.rounds=4", "federation.local-epochs=5", "federation.checkpoint-every=1"];
    let base: Vec<&str> = [LINEAR].into_iter().chain(sets.iter().flat_map(|set| ["--set", set])).collect();
    let every =
        |name: &'static str| [&base[..], &["--set", "federation.local-evaluation-every=2", "--name", name]].concat();
    bench.run(&[&base[..], &["--name", "all"]].concat());
    bench.run(&every("some"));
    let (all, some) = (bench.metrics("all"), bench.metrics("some"));
    let is_local = |line: &&String| line.contains("/local_test") && parsed(line).0 != "server";
    let others = |lines: &[String]| lines.iter().filter(|line| !is_local(line)).cloned().collect::<Vec<_>>();
    assert_eq!(others(&all), others(&some));
    // By client, tag and round, in the order of the epochs.
    let mut epochs = std::collections::BTreeMap::<_, Vec<&String>>::new();
    for line in all.iter().filter(is_local) {
        let (client, tag, round, _) = parsed(line);
        epochs.entry((client, tag, round)).or_default().push(line);
    }
    let mut wanted: Vec<&String> = epochs.values().flat_map(|lines| [lines[1], lines[3], lines[4]]).collect();
    let mut found: Vec<_> = some.iter().filter(is_local).collect();
    wanted.sort_unstable();
    found.sort_unstable();
    assert!(found.len() > 6 * 4 * 3 && found == wanted);
    let model = |run: &str| std::fs::read(bench.path("runs").join(run).join("global/model.safetensors")).unwrap();
    assert!(model("all") == model("some"));

    interrupt(&bench, &every("killed"), "killed", "-KILL");
    bench.run(&[&every("killed")[..], &["--resume"]].concat());
    same(&bench, "killed", "some");
}
