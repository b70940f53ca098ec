//! The mechanisms, run on neighbouring inputs: the epsilon measured from the runs is below the claimed one, and above
//! earlier wrong claims.
//!
//! Every bound is too large with a probability of at most one in ten thousand, and the seeds are fixed.

use fedplug_dp::audit::epsilon_lower;
use fedplug_dp::{Rounds, epsilon};
use plugin_api::{Aggregator, Cohort, Sampling, Update as Sent};

use super::*;
use crate::central::Central;

const ALPHA: f64 = 1e-4;
const DELTA: f64 = 1e-5;
const RUNS: u64 = 4000;

/// The scores of runs with a client's data and of runs without it.
fn runs(count: u64, mut run: impl FnMut(u64, bool) -> f64) -> [Vec<f64>; 2] {
    [true, false].map(|with| (0..count).map(|k| run(2 * k + u64::from(with), with)).collect())
}

fn audited(scores: &[Vec<f64>; 2]) -> f64 {
    epsilon_lower(&scores[0], &scores[1], DELTA, ALPHA)
}

fn claimed(sample_rate: f64, count: u64) -> f64 {
    epsilon(&[Rounds { noise_multiplier: 1.0, sample_rate, count }], DELTA)
}

/// A client's message in one round, through the filter: an update of the clipping norm, or of 0.
fn filtered(noise: &str, multiplier: f64) -> [Vec<f64>; 2] {
    let config = json!({
        "mechanism": "gaussian", "clip": 1.0, "noise-multiplier": multiplier, "delta": DELTA, "noise": noise,
        "reproducible": true,
    });
    let mut filter = privacy(config).unwrap();
    let base = message([("w", tensor(&[0.0_f64, 1.0]))]);
    let host = Recorder::default();
    runs(2 * RUNS, |seed, with| {
        let sent = message([("w", tensor(&[if with { 5.0_f64 } else { 0.0 }, 1.0]))]);
        let ctx = Context::new(&host).with_seed(Seed::new(seed)).with_client("a").with_round(0);
        elements(&filter.apply(sent, &base, &ctx).unwrap())[0]
    })
}

#[test]
fn the_filters_noise_hides_what_is_claimed_and_no_more_than_that() {
    for noise in ["gaussian", "discrete"] {
        let (found, claim) = (audited(&filtered(noise, 1.0)), claimed(1.0, 1));
        eprintln!("filter, {noise}, sigma 1, 1 round: claimed {claim:.2}, audited {found:.2}");
        assert!(found <= claim && found > 1.0, "{noise}: {found}");
    }
    // A fifth of the claimed noise is detected.
    let found = audited(&filtered("discrete", 0.2));
    eprintln!("filter, a fifth of the noise that is claimed: claimed {:.2}, audited {found:.2}", claimed(1.0, 1));
    assert!(found > claimed(1.0, 1), "{found}");
}

/// A server that reports how clients are sampled.
struct Server(Sampling);

impl Host for Server {
    fn enabled(&self, _: Level) -> bool {
        false
    }
    fn log(&self, _: Level, _: &str) {}
    fn scalar(&self, _: &str, _: u64, _: f64) {}
    fn progress(&self, _: u64, _: u64) {}
    fn property(&self, key: &str) -> Option<Value> {
        (key == "sampling").then(|| serde_json::to_value(self.0).unwrap())
    }
    fn cancelled(&self) -> bool {
        false
    }
}

/// The changes of the aggregator's global models in rounds of these clients, in units of one client's largest
/// contribution. `victim` sends the largest possible update, or none; all others send none.
fn aggregated(sampling: Sampling, population: usize, seed: u64, rounds: &[Vec<String>], with: bool) -> Vec<f64> {
    let config = json!({ "clip": 1.0, "noise-multiplier": 1.0, "delta": DELTA, "reproducible": true });
    let server = Server(sampling);
    let mut central = Central::new(plugin_api::config::read(&config).unwrap(), &Context::new(&server)).unwrap();
    let global = message([("w", tensor(&[0.0_f64]))]);
    let expected = match sampling {
        Sampling::Fixed => rounds[0].len() as f64,
        Sampling::Poisson(rate) => rate * population as f64,
    };
    let of_round = |(round, clients): (usize, &Vec<String>)| {
        let ctx = Context::new(&server).with_seed(Seed::new(seed)).with_round(round as u64);
        central.begin(&global, &Cohort::new(clients.clone(), population), &ctx).unwrap();
        for client in clients {
            let w = if with && client == "victim" { 7.0_f64 } else { 0.0 };
            let (client, message) = (client.clone(), message([("w", tensor(&[w]))]));
            central.add(Sent { client, message, steps: 1, examples: 1 }, &ctx).unwrap();
        }
        // A whole round except its account, which would take most of the time.
        central.release(&ctx).unwrap().elements::<f64>("w", &[1]).unwrap()[0] * expected
    };
    rounds.iter().enumerate().map(of_round).collect()
}

/// The host's draw of a fixed number of clients, known to anyone who knows the seed: one client in each round.
fn fixed_draw(seed: u64, clients: u64, rounds: u64) -> Vec<u64> {
    (0..rounds).map(|round| Seed::new(seed).of("participation").at(round).at(0).value() % clients).collect()
}

/// The fault that this mechanism fixes: an account amplified by sampling, for a draw that follows from the seed.
#[test]
fn an_amplified_account_of_a_draw_that_can_be_foreseen_is_found_out() {
    let drawn = fixed_draw(42, 100, 20);
    // The client drawn most often; the adversary knows the rounds, and looks at these only.
    let times = |client: &u64| drawn.iter().filter(|&other| other == client).count();
    let victim = *drawn.iter().max_by_key(|client| times(client)).unwrap();
    let count = times(&victim) as u64;
    let rounds: Vec<Vec<String>> = drawn
        .iter()
        .map(|&client| vec![if client == victim { "victim".to_owned() } else { client.to_string() }])
        .collect();
    let scores = runs(RUNS, |seed, with| {
        let moves = aggregated(Sampling::Fixed, 100, seed, &rounds, with);
        moves.iter().zip(&drawn).filter(|(_, client)| **client == victim).map(|(x, _)| x).sum()
    });
    let found = audited(&scores);
    let (truth, wrong) = (claimed(1.0, count), claimed(0.01, 20));
    // The earlier claim: the Rényi bound at integer orders.
    let renyi = |order: u32| {
        let rdp = 20.0 * fedplug_dp::renyi::sampled_gaussian(order, 1.0, 0.01);
        fedplug_dp::renyi::epsilon(order.into(), rdp, DELTA)
    };
    let before = (2..=512).map(renyi).fold(f64::INFINITY, f64::min);
    eprintln!(
        "aggregator, fixed draw of 1 of 100, sigma 1, 20 rounds, {count} with the client: claimed {truth:.2}, audited \
         {found:.2}; amplified, wrongly: {wrong:.2}, and {before:.2} by the Rényi bound"
    );
    assert!(found <= truth, "{found} of {truth}");
    assert!(found > wrong && found > before, "{found} shows neither {wrong} nor {before} to be wrong");
}

#[test]
fn with_poisson_sampling_the_amplified_account_holds() {
    use rand::{RngExt, SeedableRng};
    for (rate, count) in [(0.5, 5), (0.1, 20)] {
        let mut draw = rand_chacha::ChaCha20Rng::seed_from_u64(9);
        let scores = runs(RUNS, |seed, with| {
            let join = |_| if draw.random_bool(rate) { vec!["victim".to_owned()] } else { Vec::new() };
            let rounds: Vec<Vec<String>> = (0..count).map(join).collect();
            let moves = aggregated(Sampling::Poisson(rate), 10, seed, &rounds, with);
            // The log likelihood ratio is the best possible score.
            moves.iter().map(|x| (1.0 - rate + rate * (x - 0.5).exp()).ln()).sum()
        });
        let (found, claim) = (audited(&scores), claimed(rate, count));
        eprintln!("aggregator, Poisson, rate {rate}, sigma 1, {count} rounds: claimed {claim:.2}, audited {found:.2}");
        assert!(found <= claim && found > 0.1, "{rate}: {found} of {claim}");
    }
}
