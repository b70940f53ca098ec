//! Which clients take part in a round.
//!
//! A draw without replacement follows from the seed. A Poisson draw is secret and is made only once: it is written to
//! `draws.jsonl` before its round starts, so that a round interrupted at any moment resumes with the same clients. The
//! file is stored with the run's checkpoints and is removed with them at the end of the run.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use plugin_api::{Sampling, Seed};
use serde::{Deserialize, Serialize};

use crate::artefacts::durable::sync_folder;
use crate::artefacts::names;
use crate::error::{CliError, Diagnostic};
use crate::experiment::config::Federation;

/// The file's name in the folder of checkpoints.
const FILE: &str = "draws.jsonl";

/// Draws the clients of a round without replacement and returns their indices, sorted. `fraction` is the share of
/// clients, and at least `at_least` of them are drawn. The draw depends only on the experiment's seed and the round.
pub(crate) fn select(clients: usize, fraction: f64, at_least: usize, seed: Seed, round: u64) -> Vec<usize> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count is a count")]
    let share = (fraction * clients as f64).round() as usize;
    let count = share.max(at_least).clamp(1, clients.max(1)).min(clients);
    let seed = seed.of("participation").at(round);
    let mut indices: Vec<usize> = (0..clients).collect();
    // The first `count` steps of a Fisher-Yates shuffle. The remainder's bias is below clients / 2^64.
    for index in 0..count {
        let step = seed.at(index as u64).value() % (clients - index) as u64;
        indices.swap(index, index + step as usize);
    }
    indices.truncate(count);
    indices.sort_unstable();
    indices
}

/// A low estimate of the number of clients in a Poisson draw: three standard deviations below the mean, but at least
/// one.
pub(crate) fn few(clients: usize, probability: f64) -> usize {
    let mean = clients as f64 * probability;
    let low = mean - 3.0 * (mean * (1.0 - probability)).sqrt();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count is a count")]
    let count = low.max(1.0) as usize;
    count.min(clients)
}

/// The indices of the clients that evaluate every round's global model, sorted.
pub(crate) fn evaluators(clients: usize, plan: &Federation, seed: Seed) -> Vec<usize> {
    if plan.reports() { select(clients, plan.evaluation_fraction, 1, seed.of("evaluation"), 0) } else { Vec::new() }
}

/// The draws of a run.
#[derive(Debug)]
pub(crate) struct Draws {
    path: PathBuf,
    known: BTreeMap<u64, Vec<usize>>,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
struct Draw {
    round: u64,
    clients: Vec<usize>,
}

impl Draws {
    /// Reads the draws already made in this run directory.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn of(run: &Path) -> Result<Self, CliError> {
        let path = run.join(names::CHECKPOINT).join(FILE);
        let failed = |e| CliError::io(&path, "read the draws of clients", &e);
        let text = match std::fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text.map_err(failed)?,
        };
        let mut known = BTreeMap::new();
        // A line without a newline was being written when the process was killed, so its round had not started.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for line in text[..whole].lines() {
            let Draw { round, clients } = serde_json::from_str(line).map_err(|e| {
                let report = Diagnostic::new(format!("{}: a damaged line", path.display())).cause(e);
                CliError::run(report.hint("start over with --force"))
            })?;
            known.insert(round, clients);
        }
        if whole < text.len() {
            let file = std::fs::OpenOptions::new().write(true).open(&path);
            file.and_then(|file| file.set_len(whole as u64)).map_err(failed)?;
        }
        Ok(Self { path, known })
    }

    /// Returns the indices of a round's clients, sorted.
    ///
    /// # Errors
    /// If the operating system provides no randomness, or a draw cannot be written.
    pub(crate) fn round(
        &mut self,
        round: u64,
        clients: usize,
        plan: &Federation,
        seed: Seed,
    ) -> Result<Vec<usize>, CliError> {
        let Sampling::Poisson(probability) = plan.sampling() else {
            return Ok(select(clients, plan.fraction, plan.min_clients, seed, round));
        };
        if probability >= 1.0 {
            return Ok((0..clients).collect());
        }
        if let Some(known) = self.known.get(&round) {
            return Ok(known.clone());
        }
        let drawn = poisson(clients, probability)?;
        self.keep(&Draw { round, clients: drawn.clone() })
            .map_err(|e| CliError::io(&self.path, "save the draw of clients", &e))?;
        self.known.insert(round, drawn.clone());
        Ok(drawn)
    }

    fn keep(&self, draw: &Draw) -> std::io::Result<()> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let new = !self.path.exists();
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&self.path)?;
        file.write_all(format!("{}\n", serde_json::to_string(draw)?).as_bytes())?;
        file.sync_data()?;
        // The names of the file and of its folder.
        let above = self.path.ancestors().skip(1).take(if new { 2 } else { 0 });
        above.into_iter().try_for_each(sync_folder)
    }
}

/// Draws each client independently with this probability, to within 2^-64, using the operating system's randomness.
fn poisson(clients: usize, probability: f64) -> Result<Vec<usize>, CliError> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of 2^64, below it")]
    let below = (probability * 2_f64.powi(64)) as u64;
    let none =
        |e| CliError::run(Diagnostic::new("the operating system provides no randomness for drawing clients").cause(e));
    let joins = |index: usize| match getrandom::u64().map_err(none) {
        Ok(number) => (number < below).then_some(Ok(index)),
        Err(failure) => Some(Err(failure)),
    };
    (0..clients).filter_map(joins).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Federation {
        toml::from_str(&format!("rounds = 1\n{text}")).unwrap()
    }

    #[test]
    fn clients_of_a_poisson_draw_join_independently() {
        let (rounds, clients, probability) = (4000_u32, 8, 0.3);
        let (mut joined, mut together, mut empty) = ([0_u32; 8], 0_u32, 0_u32);
        for _ in 0..rounds {
            let drawn = poisson(clients, probability).unwrap();
            assert!(drawn.is_sorted());
            drawn.iter().for_each(|&index| joined[index] += 1);
            together += u32::from(drawn.contains(&0) && drawn.contains(&1));
            empty += u32::from(drawn.is_empty());
        }
        // Six standard deviations: fails by chance once in a hundred million runs of this test.
        let within = |count: u32, probability: f64| {
            let (mean, n) = (probability * f64::from(rounds), f64::from(rounds));
            (f64::from(count) - mean).abs() < 6.0 * (n * probability * (1.0 - probability)).sqrt()
        };
        assert!(joined.iter().all(|&count| within(count, 0.3)), "{joined:?}");
        assert!(within(together, 0.09) && within(empty, 0.7_f64.powi(8)), "{together} {empty}");
    }

    #[test]
    fn a_round_is_drawn_once_however_often_it_begins() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan("fraction = 0.5\nsampling = \"poisson\"");
        let draw = |draws: &mut Draws, round| draws.round(round, 64, &plan, Seed::new(1)).unwrap();
        let mut draws = Draws::of(folder.path()).unwrap();
        let drawn: Vec<_> = (0..3).map(|round| draw(&mut draws, round)).collect();
        assert!(drawn[0] != drawn[1] && draw(&mut draws, 1) == drawn[1]);
        let path = folder.path().join(names::CHECKPOINT).join(FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        // The process was killed while it wrote a line, so that round had not started.
        let last = text.lines().next_back().unwrap();
        std::fs::write(&path, &text[..text.len() - last.len() / 2]).unwrap();
        let mut draws = Draws::of(folder.path()).unwrap();
        assert_eq!([draw(&mut draws, 0), draw(&mut draws, 1)], drawn[..2]);
        let again = draw(&mut draws, 2);
        assert_eq!(draw(&mut Draws::of(folder.path()).unwrap(), 2), again);
        std::fs::write(&path, "nonsense\n").unwrap();
        assert!(Draws::of(folder.path()).unwrap_err().to_string().contains("a damaged line"));
    }

    #[test]
    fn everyone_of_everyone_needs_no_draw() {
        let folder = tempfile::tempdir().unwrap();
        let mut draws = Draws::of(folder.path()).unwrap();
        let drawn = draws.round(0, 3, &plan("sampling = \"poisson\""), Seed::new(1)).unwrap();
        assert_eq!(drawn, [0, 1, 2]);
        assert!(!folder.path().join(names::CHECKPOINT).exists());
        assert_eq!([few(1000, 0.5), few(6, 0.3), few(6, 1.0), few(3, 0.001)], [452, 1, 6, 1]);
    }

    #[test]
    fn evaluators_are_the_same_in_every_round_and_of_every_draw() {
        let seed = Seed::new(3);
        assert_eq!(evaluators(4, &plan("fraction = 0.25"), seed), [0, 1, 2, 3]);
        let half = evaluators(100, &plan("evaluation-fraction = 0.5"), seed);
        assert!(half.len() == 50 && half != select(100, 0.5, 1, seed, 0));
        assert!(evaluators(4, &plan("report = \"none\""), seed).is_empty());
    }

    #[test]
    fn everyone_takes_part_unless_a_share_is_asked_for() {
        assert_eq!(select(4, 1.0, 1, Seed::new(1), 0), [0, 1, 2, 3]);
        for (fraction, at_least, count) in [(0.5, 1, 3), (0.01, 1, 1), (0.01, 4, 4), (0.5, 9, 6)] {
            assert_eq!(select(6, fraction, at_least, Seed::new(1), 0).len(), count);
        }
    }

    #[test]
    fn the_draw_is_fair_and_the_same_on_every_run() {
        let mut drawn = [0_u32; 10];
        for round in 0..10_000 {
            let indices = select(10, 0.3, 1, Seed::new(7), round);
            assert!(indices.is_sorted() && indices.len() == 3);
            assert_eq!(indices, select(10, 0.3, 1, Seed::new(7), round));
            indices.iter().for_each(|&index| drawn[index] += 1);
        }
        // The expected count is 3,000 for each, with a standard deviation of 46.
        assert!(drawn.iter().all(|&count| (2800..3200).contains(&count)), "{drawn:?}");
    }
}
