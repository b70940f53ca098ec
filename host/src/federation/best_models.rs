//! The global models that did best so far: by the mean score of all tasks, and, where there are several, of each task.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plugin_api::{Evaluation, Message};
use serde::{Deserialize, Serialize};

use crate::artefacts::checkpoint::{Reader, Writer};
use crate::error::CliError;
use crate::federation::means::{mean_score, mean_score_of};
use crate::federation::model_store::{SpillableMessage, Store};

/// A global model and how well it did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// After how many rounds it was made.
    pub rounds: u64,
    /// The mean of the clients' scores.
    pub score: f64,
}

/// Which models were best, as a checkpoint keeps it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ranking {
    /// By the mean over all clients, each the mean over its tasks.
    pub overall: Option<Best>,
    /// By the mean over the clients that have the task; nothing in a run of one task.
    pub tasks: BTreeMap<String, Best>,
}

impl Ranking {
    fn rounds(&self) -> BTreeSet<u64> {
        self.overall.iter().chain(self.tasks.values()).map(|best| best.rounds).collect()
    }
}

/// The models that were best, each once however often it was.
pub struct BestModels {
    store: Arc<Store>,
    /// The run's tasks, where there are several.
    tasks: Vec<String>,
    ranking: Ranking,
    /// By the number of rounds.
    models: BTreeMap<u64, SpillableMessage>,
}

impl BestModels {
    /// None yet, in a run of these tasks.
    pub fn new(store: Arc<Store>, tasks: &[String]) -> Self {
        let tasks = if tasks.len() > 1 { tasks.to_vec() } else { Vec::new() };
        Self { store, tasks, ranking: Ranking::default(), models: BTreeMap::new() }
    }

    /// Which models were best.
    pub fn ranking(&self) -> &Ranking {
        &self.ranking
    }

    /// Takes down how well the global model after so many rounds did at these clients, and keeps it if it did better
    /// than any before.
    ///
    /// # Errors
    /// If a model could not be written where it waits.
    pub fn note<'e>(
        &mut self,
        rounds: u64,
        global: &Message,
        clients: impl Iterator<Item = &'e [Evaluation]> + Clone,
    ) -> Result<(), CliError> {
        let better = |best: Option<&Best>, score: Option<f64>| {
            let score = score.filter(|score| best.is_none_or(|best| *score > best.score))?;
            Some(Best { rounds, score })
        };
        let overall = better(self.ranking.overall.as_ref(), mean_score(clients.clone()));
        self.ranking.overall = overall.or(self.ranking.overall);
        for task in &self.tasks {
            if let Some(best) = better(self.ranking.tasks.get(task), mean_score_of(task, clients.clone())) {
                self.ranking.tasks.insert(task.clone(), best);
            }
        }
        let wanted = self.ranking.rounds();
        self.models.retain(|rounds, _| wanted.contains(rounds));
        if wanted.contains(&rounds) && !self.models.contains_key(&rounds) {
            self.put(rounds, global.clone())?;
        }
        Ok(())
    }

    fn put(&mut self, rounds: u64, message: Message) -> Result<(), CliError> {
        let mut waiting = SpillableMessage::new(self.store.clone(), &name(rounds));
        waiting.put(message)?;
        self.models.insert(rounds, waiting);
        Ok(())
    }

    /// The federation holds the last model that was noted no more.
    pub fn release(&mut self) {
        self.models.values_mut().for_each(SpillableMessage::release);
    }

    /// The model after so many rounds; none where it was not among the best.
    ///
    /// # Errors
    /// If it could not be written where it waits, or cannot be read back.
    pub fn get(&mut self, rounds: u64) -> Result<Option<Message>, CliError> {
        self.models.get_mut(&rounds).map_or(Ok(None), SpillableMessage::get)
    }

    /// Writes the models into a checkpoint. What is given back is to be kept for [`restore`](Self::restore).
    ///
    /// # Errors
    /// As [`get`](Self::get), or if a file cannot be written.
    pub fn save(&mut self, writer: &mut Writer) -> Result<Ranking, CliError> {
        for (rounds, waiting) in &mut self.models {
            if let Some(message) = waiting.get()? {
                writer.message(&name(*rounds), &message)?;
            }
        }
        Ok(self.ranking.clone())
    }

    /// Goes back to what a checkpoint holds.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn restore(&mut self, reader: &Reader, ranking: Ranking) -> Result<(), CliError> {
        self.models.clear();
        for rounds in ranking.rounds() {
            self.put(rounds, reader.message(&name(rounds))?)?;
            self.release();
        }
        self.ranking = ranking;
        Ok(())
    }
}

/// The name under which the model after so many rounds waits, in the store and in a checkpoint.
fn name(rounds: u64) -> String {
    format!("best.{rounds}")
}

#[cfg(test)]
mod tests {
    use plugin_api::{Params, Tensor};

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
                best.note(round as u64, &model(round as f32), clients.iter().map(|all| &all[..])).unwrap();
                best.release();
            }
            let Ranking { overall, tasks } = best.ranking().clone();
            assert_eq!(overall, Some(Best { rounds: 2, score: -1.5 }));
            assert_eq!(tasks["a"], Best { rounds: 1, score: -1.0 });
            assert_eq!(tasks["b"], Best { rounds: 2, score: -1.5 });
            // Two models for three titles, and files of these alone.
            assert_eq!(best.models.len(), 2);
            for rounds in [1, 2] {
                let kept = best.get(rounds).unwrap().unwrap();
                assert_eq!(kept.params.elements::<f32>("x", &[1]).unwrap(), [rounds as f32]);
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
        let clients = [evaluations(&[("a", 1.0)])];
        best.note(1, &model(1.0), clients.iter().map(|all| &all[..])).unwrap();
        assert!(best.ranking().tasks.is_empty() && best.ranking().overall.is_some());
    }
}
