//! Central differential privacy: noise at the server, its account, and clients that are absent by chance.

use crate::support::Bench;

/// The sample at six clients with the small model, one of six in each round.
const FILE: &str = r#"
name = "central"
seed = 42

[federation]
rounds = 12
fraction = 0.17

[dataset]
plugin = "flab"
root = "configs/sample"
tasks = ["tm"]
clients = { count = 6, alpha = 100.0 }

[model]
plugin = "linear"

[aggregator]
plugin = "privacy"
clip = 0.5
noise-multiplier = 1.0
delta = 1e-5
"#;

/// The epsilon of the last round that has one, and how many rounds have.
fn epsilons(bench: &Bench) -> (f64, usize) {
    let lines = bench.metrics("central");
    let told: Vec<f64> = lines
        .iter()
        .filter(|line| line.contains("Privacy/epsilon"))
        .map(|line| line.rsplit_once(':').unwrap().1.trim_end_matches('}').parse().unwrap())
        .collect();
    (*told.last().unwrap(), told.len())
}

#[test]
fn only_a_secret_draw_is_amplified_and_every_round_counts() {
    let bench = Bench::new();
    let file = bench.write("central.toml", FILE);
    let file = file.to_str().unwrap();

    // With the draw of the seed, the client that is drawn most counts in full.
    let told = bench.run(&[file]);
    let (fixed, rounds) = epsilons(&bench);
    assert_eq!(rounds, 12);
    assert!(told.stderr.contains("the draw is predictable"), "{}", told.stderr);
    // Of twelve draws of one in six, one client has two at least: sigma 1 twice.
    assert!(fixed > 6.5, "{fixed}");

    // Every round has noise, also a third of them without clients. `dp-accounting` 0.6.0, by its PLD accountant: 4.6759.
    let told = bench.run(&[file, "--set", "federation.sampling=poisson", "--force"]);
    let (poisson, rounds) = epsilons(&bench);
    assert_eq!(rounds, 12, "{}", told.stderr);
    assert!((poisson - 4.6759).abs() < 0.01, "{poisson}");
    assert!(told.stderr.contains("each client took part in each with probability 0.17, in secret"), "{}", told.stderr);
}
