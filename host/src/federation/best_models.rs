//! The best global models so far: by the mean score over all tasks and, in a run of several tasks, also for each task.
//! Scores are those on the rows for validation, if the run goes by them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plugin_api::Message;
use serde::{Deserialize, Serialize};

use crate::artefacts::checkpoint::{Reader, Writer};
use crate::error::CliError;
use crate::federation::means::{ByClient, Evaluated, scores, scores_of};
use crate::federation::model_store::Store;
use crate::federation::spillable_message::SpillableMessage;

/// A global model and its score.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Best {
    /// The number of rounds after which the model was made.
    pub rounds: u64,
    /// The mean score over the clients that evaluate every round's model, on their test rows; `None` if it is undefined.
    pub score: Option<f64>,
    /// The same on their rows for validation, if the run goes by them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_score: Option<f64>,
}

/// Which models are the best.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ranking {
    /// By the mean over all clients of each client's mean over its tasks.
    pub overall: Option<Best>,
    /// For each task, by the mean over the clients that have the task. Empty in a run of one task.
    pub tasks: BTreeMap<String, Best>,
}

impl Ranking {
    fn rounds(&self) -> BTreeSet<u64> {
        self.overall.iter().chain(self.tasks.values()).map(|best| best.rounds).collect()
    }
}

/// The part of a checkpoint that holds the ranking and the clients' scores of the ranked models.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RankingEntry {
    ranking: Ranking,
    overall: ByClient,
    tasks: BTreeMap<String, ByClient>,
}

/// The best models. A model that is the best in several respects is stored once.
pub(crate) struct BestModels {
    store: Arc<Store>,
    /// The run's tasks; empty if there is only one.
    tasks: Vec<String>,
    entry: RankingEntry,
    /// The models, by the number of rounds after which they were made.
    models: BTreeMap<u64, SpillableMessage>,
}

impl BestModels {
    /// Creates an empty ranking for a run of these tasks.
    pub(crate) fn new(store: Arc<Store>, tasks: &[String]) -> Self {
        let tasks = if tasks.len() > 1 { tasks.to_vec() } else { Vec::new() };
        Self { store, tasks, entry: RankingEntry::default(), models: BTreeMap::new() }
    }

    /// Returns which models are the best.
    pub(crate) fn ranking(&self) -> &Ranking {
        &self.entry.ranking
    }

    /// Records the clients' scores of the global model after `rounds` rounds on their test rows, and on their rows for
    /// validation if the run goes by them. Keeps the model if it beats the best one so far over the clients that evaluated
    /// both. Returns whether it is the best one over all tasks.
    ///
    /// # Errors
    /// If a model could not be written to the store.
    pub(crate) fn note(
        &mut self,
        rounds: u64,
        global: &Message,
        test: &[Evaluated<'_>],
        validation: Option<&[Evaluated<'_>]>,
    ) -> Result<bool, CliError> {
        let better = |is_first: bool, best: &ByClient, now: &ByClient, test: &ByClient| {
            let mean = now.mean()?;
            let beats = is_first || now.means_beside(best).is_some_and(|(now, best)| now > best);
            beats.then_some(Best { rounds, score: test.mean(), validation_score: validation.map(|_| mean) })
        };
        let RankingEntry { ranking, overall, tasks } = &mut self.entry;
        let clients = validation.unwrap_or(test);
        let now = scores(clients);
        let best = better(ranking.overall.is_none(), overall, &now, &scores(test));
        let is_best = best.is_some();
        if is_best {
            (ranking.overall, *overall) = (best, now);
        }
        for task in &self.tasks {
            let (now, before) = (scores_of(task, clients), tasks.get(task));
            let best = before.cloned().unwrap_or_default();
            if let Some(best) = better(before.is_none(), &best, &now, &scores_of(task, test)) {
                ranking.tasks.insert(task.clone(), best);
                tasks.insert(task.clone(), now);
            }
        }
        let wanted = self.entry.ranking.rounds();
        self.models.retain(|rounds, _| wanted.contains(rounds));
        if wanted.contains(&rounds) && !self.models.contains_key(&rounds) {
            self.put(rounds, global.clone())?;
        }
        Ok(is_best)
    }

    fn put(&mut self, rounds: u64, message: Message) -> Result<(), CliError> {
        let mut waiting = SpillableMessage::new(self.store.clone(), &name(rounds));
        waiting.put(message)?;
        self.models.insert(rounds, waiting);
        Ok(())
    }

    /// Moves the models into the store. Call this once the federation no longer holds the model that was noted last.
    pub(crate) fn release(&mut self) {
        self.models.values_mut().for_each(SpillableMessage::release);
    }

    /// Returns the model after `rounds` rounds, or `None` if it is not among the best.
    ///
    /// # Errors
    /// If the model could not be written to the store, or cannot be read back.
    pub(crate) fn get(&mut self, rounds: u64) -> Result<Option<Message>, CliError> {
        self.models.get_mut(&rounds).map_or(Ok(None), SpillableMessage::get)
    }

    /// Writes the models into a checkpoint. Returns the ranking to pass to [`restore`](Self::restore).
    ///
    /// # Errors
    /// As [`get`](Self::get), or if a file cannot be written.
    pub(crate) fn save(&mut self, writer: &mut Writer) -> Result<RankingEntry, CliError> {
        for (rounds, waiting) in &mut self.models {
            if let Some(message) = waiting.get()? {
                writer.message(&name(*rounds), &message)?;
            }
        }
        Ok(self.entry.clone())
    }

    /// Restores the models and the ranking from a checkpoint.
    ///
    /// # Errors
    /// If a model cannot be read.
    pub(crate) fn restore(&mut self, reader: &Reader, entry: RankingEntry) -> Result<(), CliError> {
        self.models.clear();
        for rounds in entry.ranking.rounds() {
            self.put(rounds, reader.message(&name(rounds))?)?;
            self.release();
        }
        self.entry = entry;
        Ok(())
    }
}

/// The name of the model after `rounds` rounds, in the store and in a checkpoint.
fn name(rounds: u64) -> String {
    format!("best.{rounds}")
}

#[cfg(test)]
mod tests {
    use plugin_api::{Evaluation, Params, Tensor};

    use super::*;
    use crate::experiment::byte_size::ByteSize;

    fn evaluations(scores: &[(&str, f64)]) -> Vec<Evaluation> {
        let one = |(task, score): &(&str, f64)| Evaluation {
            task: (*task).to_owned(),
            examples: 1,
            loss: 0.0,
            score: *score,
            metrics: Vec::new(),
        };
        scores.iter().map(one).collect()
    }

    fn by_test(rounds: u64, score: f64) -> Best {
        Best { rounds, score: Some(score), validation_score: None }
    }

    #[test]
    fn rows_for_validation_choose_and_test_rows_measure() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::new(folder.path().join("idle"), None).unwrap());
        let mut best = BestModels::new(store, &["a".to_owned(), "b".to_owned()]);
        let mut note = |rounds: u64, test: [f64; 2], validation: [f64; 2]| {
            let of = |[a, b]: [f64; 2]| evaluations(&[("a", a), ("b", b)]);
            let (test, validation) = (of(test), of(validation));
            best.note(rounds, &model(0.0), &[(0, &test)], Some(&[(0, &validation)])).unwrap()
        };
        assert!(note(0, [-3.0, -3.0], [-3.0, -3.0]));
        assert!(note(1, [-4.0, -4.0], [-2.0, -1.0]));
        // The best on the test rows is not chosen, and for task `b` the test rows have no score.
        assert!(!note(2, [-1.0, f64::NAN], [-5.0, -0.5]));
        let of = |rounds, score, validation| Best { rounds, score, validation_score: Some(validation) };
        let Ranking { overall, tasks } = best.ranking().clone();
        assert_eq!(overall, Some(of(1, Some(-4.0), -1.5)));
        assert_eq!((tasks["a"], tasks["b"]), (of(1, Some(-4.0), -2.0), of(2, None, -0.5)));
    }

    fn model(value: f32) -> Message {
        let tensor = Tensor::from_slice(&[1], &[value]).unwrap();
        Message::from([("x", tensor)].into_iter().collect::<Params>())
    }

    #[test]
    fn each_tasks_best_model_is_kept_and_no_other() {
        for limit in [None, Some(ByteSize(0)), Some(ByteSize(4))] {
            let folder = tempfile::tempdir().unwrap();
            let store = Arc::new(Store::new(folder.path().join("idle"), limit).unwrap());
            let mut best = BestModels::new(store, &["a".to_owned(), "b".to_owned()]);
            let rounds = [
                [("a", -3.0), ("b", -3.0)],
                [("a", -1.0), ("b", -4.0)],
                [("a", -1.5), ("b", -1.5)],
                [("a", f64::NAN), ("b", f64::NAN)],
                [("a", -1.25), ("b", -2.0)],
            ];
            for (round, scores) in rounds.iter().enumerate() {
                let clients = [evaluations(&scores[..1]), evaluations(&scores[1..])];
                let clients = [(0, &clients[0][..]), (1, &clients[1][..])];
                best.note(round as u64, &model(round as f32), &clients, None).unwrap();
                best.release();
            }
            let Ranking { overall, tasks } = best.ranking().clone();
            assert_eq!(overall, Some(by_test(2, -1.5)));
            assert_eq!(tasks["a"], by_test(1, -1.0));
            assert_eq!(tasks["b"], by_test(2, -1.5));
            // Two models hold three rankings, and only these two have files.
            assert_eq!(best.models.len(), 2);
            for rounds in [1, 2] {
                let entry = best.get(rounds).unwrap().unwrap();
                assert_eq!(entry.params.elements::<f32>("x", &[1]).unwrap(), [rounds as f32]);
            }
            assert!(best.get(4).unwrap().is_none());
            let waiting = std::fs::read_dir(folder.path().join("idle")).map_or(0, Iterator::count);
            assert_eq!(
                waiting,
                match limit {
                    None => 0,
                    Some(ByteSize(0)) => 2,
                    _ => 1,
                }
            );
        }
    }

    #[test]
    fn of_one_task_there_is_one_best_model() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::new(folder.path().join("idle"), None).unwrap());
        let mut best = BestModels::new(store, &["a".to_owned()]);
        best.note(1, &model(1.0), &[(0, &evaluations(&[("a", 1.0)]))], None).unwrap();
        assert!(best.ranking().tasks.is_empty() && best.ranking().overall.is_some());
    }

    /// If a client with a poor score is lost, the mean over the remaining clients rises although no model is better.
    #[test]
    fn models_are_compared_over_the_clients_that_evaluated_both() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::new(folder.path().join("idle"), None).unwrap());
        let mut best = BestModels::new(store, &["a".to_owned()]);
        let mut note = |rounds: u64, scores: &[f64]| {
            let all: Vec<_> = scores.iter().map(|score| evaluations(&[("a", *score)])).collect();
            let clients: Vec<Evaluated<'_>> = all.iter().map(|all| &all[..]).enumerate().collect();
            best.note(rounds, &model(0.0), &clients, None).unwrap();
            best.ranking().overall.unwrap()
        };
        assert_eq!(note(0, &[-1.0, -2.0, -9.0]), by_test(0, -4.0));
        assert_eq!(note(1, &[-1.5, -2.0]).rounds, 0);
        assert_eq!(note(2, &[-0.5, -2.0]), by_test(2, -1.25));
    }
}
