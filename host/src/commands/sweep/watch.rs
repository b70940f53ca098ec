//! The median rule: runs of a sweep that are worse than most are given up (Golovin et al. 2017, Google Vizier, KDD).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::file;
use crate::artefacts::names;
use crate::artefacts::tracking::SERVER;
use crate::commands::batch::Member;
use crate::experiment::config::VALIDATION_SCORE;
use crate::federation::history::short;

/// How often the runs' scores are read.
const READ_EVERY: Duration = Duration::from_secs(1);

/// How many runs must be finished.
const LEAST: usize = 3;

/// The validation scores of the runs of a sweep.
pub(super) struct Watch {
    /// The round from which on runs are given up; never if it is missing.
    from: Option<u64>,
    scores: Vec<Scores>,
    read: Instant,
}

/// The scores of a run, from its metrics file.
struct Scores {
    path: PathBuf,
    summary: PathBuf,
    /// How far the file was read.
    position: u64,
    /// The scores by round.
    rounds: BTreeMap<u64, f64>,
}

/// A line of the metrics file.
#[derive(Deserialize)]
struct Line {
    client: String,
    tag: String,
    round: u64,
    value: f64,
}

impl Watch {
    pub(super) fn new(folder: &Path, members: &[Member], from: Option<u64>) -> Self {
        let scores = |member: &Member| Scores {
            path: file(folder, &member.folder, names::METRICS),
            summary: file(folder, &member.folder, names::SUMMARY),
            position: 0,
            rounds: BTreeMap::new(),
        };
        Self { from, scores: members.iter().map(scores).collect(), read: Instant::now() }
    }

    /// The runs at work that are to be given up, and why.
    pub(super) fn judge(&mut self, at_work: &[usize]) -> Vec<(usize, String)> {
        let Some(from) = self.from.filter(|_| self.read.elapsed() >= READ_EVERY) else { return Vec::new() };
        self.read = Instant::now();
        self.scores.iter_mut().for_each(Scores::read);
        let finished = self.scores.iter().filter(|scores| scores.summary.is_file());
        let finished: Vec<Vec<f64>> = finished.map(|scores| scores.rounds.values().copied().collect()).collect();
        let bad = |&index: &usize| {
            let own: Vec<f64> = self.scores[index].rounds.values().copied().collect();
            Some((index, worse_than_most(&own, &finished, from)?))
        };
        at_work.iter().filter_map(bad).collect()
    }
}

impl Scores {
    /// Reads the lines that are new.
    fn read(&mut self) {
        let Ok(mut file) = File::open(&self.path) else { return };
        if file.seek(SeekFrom::Start(self.position)).is_err() {
            return;
        }
        let (mut lines, mut line) = (BufReader::new(file), String::new());
        // A line without its end is still being written.
        while lines.read_line(&mut line).is_ok() && line.ends_with('\n') {
            self.position += line.len() as u64;
            if let Ok(Line { client, tag, round, value }) = serde_json::from_str(&line)
                && client == SERVER
                && tag == VALIDATION_SCORE
            {
                self.rounds.insert(round, value);
            }
            line.clear();
        }
    }
}

/// Why a run with these scores is worse than most of the finished ones, if it is.
fn worse_than_most(own: &[f64], finished: &[Vec<f64>], from: u64) -> Option<String> {
    let rounds = own.len();
    let best = own.iter().copied().reduce(f64::max).filter(|_| rounds as u64 >= from)?;
    let others = finished.iter().filter(|scores| scores.len() >= rounds);
    let mut means: Vec<f64> = others.map(|scores| scores[..rounds].iter().sum::<f64>() / rounds as f64).collect();
    if means.len() < LEAST {
        return None;
    }
    means.sort_by(f64::total_cmp);
    let middle = means.len() / 2;
    let median =
        if means.len().is_multiple_of(2) { f64::midpoint(means[middle - 1], means[middle]) } else { means[middle] };
    (best < median).then(|| {
        format!(
            "its best validation score in {rounds} rounds, {}, is below the median of the finished runs' means, {}",
            short(best),
            short(median)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_given_up_if_its_best_is_below_the_median_of_the_others_means() {
        // Means over two rounds: -2, -1.5, -4; the median is -2.
        let finished = [vec![-3.0, -1.0, 0.0], vec![-2.0, -1.0], vec![-4.0, -4.0]];
        assert!(worse_than_most(&[-9.0, -2.5], &finished, 2).unwrap().contains("in 2 rounds, -2.500, is below"));
        assert!(worse_than_most(&[-9.0, -2.0], &finished, 2).is_none(), "as good as the median");
        assert!(worse_than_most(&[-9.0, -2.5], &finished, 3).is_none(), "too early");
        assert!(worse_than_most(&[-9.0], &finished[..2], 1).is_none(), "too few");
        // After the third round only one of the finished runs has a score.
        assert!(worse_than_most(&[-9.0, -9.0, -9.0], &finished, 1).is_none());
    }

    #[test]
    fn scores_are_read_as_they_come() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let line = |round: u64, client: &str| {
            format!(
                "{{\"client\":\"{client}\",\"round\":{round},\"tag\":\"{VALIDATION_SCORE}\",\"step\":1,\"value\":-{round}.5,\"time\":1.0}}\n"
            )
        };
        let mut scores = Scores { path: path.clone(), summary: path.clone(), position: 0, rounds: BTreeMap::new() };
        scores.read();
        std::fs::write(&path, line(0, "server") + &line(7, "a") + &line(1, "server")[..20]).unwrap();
        scores.read();
        assert_eq!(scores.rounds, BTreeMap::from([(0, -0.5)]));
        std::fs::write(&path, line(0, "server") + &line(7, "a") + &line(1, "server")).unwrap();
        scores.read();
        assert_eq!(scores.rounds, BTreeMap::from([(0, -0.5), (1, -1.5)]));
    }
}
