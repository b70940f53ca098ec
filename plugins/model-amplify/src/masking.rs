//! Masked language modelling (Devlin et al. 2019, *BERT*, section 3.1) as AMPLIFY was pre-trained by it.
//!
//! 15% of a sequence's letters are chosen, each on its own. Of these, 80% are replaced by `<mask>`, 10% by a random letter,
//! and 10% stay; the model is to restore all of them. Special tokens are neither chosen nor drawn. AMPLIFY's own code may
//! choose `<unk>`, which says nothing about a protein, and may choose no letter of a short sequence; here one is chosen then.

use plugin_api::{Evaluation, Goal, Metric, Seed, TaskSpec};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::targets::Targets;

/// What the score of evaluations measures: the negated mean cross entropy of masked tokens, in nats.
pub(crate) const SCORE: &str = "-masked cross entropy";

/// The share of letters that are chosen, and of these the shares that are masked and that are either masked or random.
const CHOSEN: f64 = 0.15;
const MASKED: f64 = 0.8;
const REPLACED: f64 = 0.9;

/// What is masked, and by what.
#[derive(Clone, Debug)]
pub(crate) struct Masking {
    /// The id of `<mask>`.
    pub(crate) mask: u32,
    /// The ids of the tokens that are not special, sorted.
    pub(crate) letters: Vec<u32>,
}

/// A sequence with masked tokens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MaskedSequence {
    /// What the model reads.
    pub(crate) ids: Vec<u32>,
    /// The positions to restore, with their original tokens.
    restored: Vec<(usize, u32)>,
}

impl Masking {
    /// Masks a sequence.
    pub(crate) fn masked(&self, ids: &[u32], seed: Seed) -> MaskedSequence {
        let mut rng = ChaCha8Rng::seed_from_u64(seed.value());
        let letters: Vec<usize> = (0..ids.len()).filter(|&at| self.letters.binary_search(&ids[at]).is_ok()).collect();
        let mut chosen: Vec<usize> = letters.iter().copied().filter(|_| uniform(&mut rng) < CHOSEN).collect();
        if let (true, Some(one)) = (chosen.is_empty(), any(&letters, &mut rng)) {
            chosen.push(one);
        }
        let mut masked = MaskedSequence { ids: ids.to_vec(), restored: Vec::with_capacity(chosen.len()) };
        for at in chosen {
            let kind = uniform(&mut rng);
            let replacement = if kind < MASKED {
                Some(self.mask)
            } else if kind < REPLACED {
                any(&self.letters, &mut rng)
            } else {
                None
            };
            masked.ids[at] = replacement.unwrap_or(ids[at]);
            masked.restored.push((at, ids[at]));
        }
        masked
    }

    /// Masks a sequence for evaluation: always in the same way, whatever the run, the round and the client.
    pub(crate) fn masked_for_evaluation(&self, ids: &[u32]) -> MaskedSequence {
        let seed = Seed::new(0).of("masked-lm");
        self.masked(ids, ids.iter().fold(seed, |seed, &id| seed.at(id.into())))
    }
}

impl MaskedSequence {
    /// How many tokens are to be restored.
    pub(crate) fn count(&self) -> usize {
        self.restored.len()
    }
}

impl Targets {
    /// What is to be restored in a batch of these sequences. None if there is nothing.
    pub(crate) fn masked<'a>(batch: impl IntoIterator<Item = &'a MaskedSequence>) -> Option<Self> {
        let one = |(row, sequence): (usize, &'a MaskedSequence)| {
            sequence.restored.iter().map(move |&(position, token)| ((row, position), i64::from(token)))
        };
        let (positions, tokens): (Vec<_>, Vec<_>) = batch.into_iter().enumerate().flat_map(one).unzip();
        (!tokens.is_empty()).then_some(Self::Tokens { positions, tokens })
    }
}

/// The evaluation of a task from the sum of the cross entropies of its masked tokens, the number of those that the model
/// finds the most probable ones, and the number of all.
pub(crate) fn evaluation(spec: &TaskSpec, rows: usize, [entropy, correct]: [f64; 2], count: usize) -> Evaluation {
    let [loss, accuracy] = [entropy, correct].map(|sum| sum / count as f64);
    let metric = |name: &str, value, goal| Metric { name: name.to_owned(), value, goal };
    Evaluation {
        task: spec.name.clone(),
        examples: rows as u64,
        loss,
        score: -loss,
        metrics: vec![
            metric("Perplexity", loss.exp(), Goal::Lower),
            metric("Accuracy", accuracy, Goal::Higher),
            metric("Cross_entropy", loss, Goal::Lower),
        ],
    }
}

/// A number from 0 to below 1.
fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    f64::from(rng.next_u32()) / 2_f64.powi(32)
}

/// One of them, if there are any.
fn any<T: Copy>(all: &[T], rng: &mut ChaCha8Rng) -> Option<T> {
    let at = (u64::from(rng.next_u32()) * all.len() as u64) >> 32;
    all.get(at as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masking() -> Masking {
        Masking { mask: 2, letters: (5..27).collect() }
    }

    /// `<bos>`, 5000 letters, `<unk>` among them, `<eos>`.
    fn ids() -> Vec<u32> {
        let mut ids: Vec<u32> = std::iter::once(3).chain((0..5000).map(|i| 5 + i * 7 % 22)).chain([4]).collect();
        ids[100] = 1;
        ids
    }

    #[test]
    fn shares_are_those_of_the_paper_and_special_tokens_stay() {
        let (masking, ids) = (masking(), ids());
        let (mut chosen, mut masks, mut same) = (0, 0, 0);
        for seed in 0..20 {
            let masked = masking.masked(&ids, Seed::new(seed));
            assert_eq!(masked.ids.len(), ids.len());
            let restored: Vec<usize> = masked.restored.iter().map(|&(at, _)| at).collect();
            assert!(restored.is_sorted_by(|a, b| a < b) && !restored.contains(&100));
            for (at, (&now, &before)) in masked.ids.iter().zip(&ids).enumerate() {
                assert!(now == before || restored.contains(&at), "position {at} changed without being chosen");
            }
            for &(at, token) in &masked.restored {
                assert_eq!(token, ids[at]);
                assert!(masking.letters.contains(&token) && (masked.ids[at] == 2 || masked.ids[at] >= 5));
                chosen += 1;
                masks += usize::from(masked.ids[at] == 2);
                same += usize::from(masked.ids[at] == token);
            }
        }
        let share = |a: usize, b: usize| a as f64 / b as f64;
        // About 15,000 chosen: three standard deviations are 0.003 of all, and 0.01 of these.
        assert!((share(chosen, 20 * 4999) - 0.15).abs() < 0.004, "{chosen}");
        assert!((share(masks, chosen) - 0.8).abs() < 0.01, "{masks} of {chosen}");
        // One of 22 random letters is the right one.
        assert!((share(same, chosen) - (0.1 + 0.1 / 22.0)).abs() < 0.01, "{same} of {chosen}");
    }

    #[test]
    fn a_seed_gives_the_same_mask_and_evaluation_needs_none() {
        let (masking, ids) = (masking(), ids());
        assert_eq!(masking.masked(&ids, Seed::new(1)), masking.masked(&ids, Seed::new(1)));
        assert_ne!(masking.masked(&ids, Seed::new(1)), masking.masked(&ids, Seed::new(2)));
        let fixed = masking.masked_for_evaluation(&ids);
        assert_eq!(fixed, masking.masked_for_evaluation(&ids));
        assert_ne!(fixed.restored[0], masking.masked_for_evaluation(&ids[..4000]).restored[0]);
    }

    #[test]
    fn a_sequence_with_a_letter_has_one_to_restore() {
        for seed in 0..50 {
            let masked = masking().masked(&[3, 9, 1, 4], Seed::new(seed));
            assert_eq!((masked.count(), masked.restored[0]), (1, (1, 9)));
        }
        let none = masking().masked(&[3, 1, 4], Seed::new(1));
        assert_eq!((none.count(), none.ids.as_slice()), (0, &[3, 1, 4][..]));
        assert_eq!(Targets::masked([&none]), None);
        let some = masking().masked(&[3, 9, 4], Seed::new(1));
        let wanted = Targets::Tokens { positions: vec![(1, 1)], tokens: vec![9] };
        assert_eq!(Targets::masked(&[none, some]), Some(wanted));
    }

    #[test]
    fn an_evaluation_has_the_means_over_tokens() {
        let found = evaluation(&TaskSpec::without_target("t", ["x"]), 3, [8.0 * 2_f64.ln(), 2.0], 4);
        let values: Vec<f64> = found.metrics.iter().map(|metric| metric.value).collect();
        assert!((values[0] - 4.0).abs() < 1e-12 && values[1] == 0.5 && values[2] == found.loss, "{values:?}");
        assert_eq!((found.examples, found.score), (3, -found.loss));
        let none = evaluation(&TaskSpec::without_target("t", ["x"]), 0, [0.0; 2], 0);
        assert!(none.loss.is_nan() && none.metrics.iter().all(|metric| metric.value.is_nan()));
    }
}
