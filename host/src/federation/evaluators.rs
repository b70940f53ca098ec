//! The clients that evaluate every round's global model.

use std::collections::BTreeSet;

use crate::federation::means::Evaluated;

/// The clients that evaluate every round's global model.
#[derive(Debug, Default)]
pub(crate) struct Evaluators {
    /// Their indices, sorted.
    clients: Vec<usize>,
    /// Whether the best model and early stopping go by their rows for validation.
    by_validation: bool,
    /// Those that have failed. Only the first failure of each is reported.
    failed: BTreeSet<usize>,
    /// Whether a warning has reported that some are missing.
    warned: bool,
}

impl Evaluators {
    /// Creates the set from client indices, which must be sorted.
    pub(crate) fn new(clients: Vec<usize>, by_validation: bool) -> Self {
        Self { clients, by_validation, ..Self::default() }
    }

    /// Whether the best model and early stopping go by their rows for validation.
    pub(crate) fn by_validation(&self) -> bool {
        self.by_validation
    }

    /// Whether no client evaluates.
    pub(crate) fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// The evaluators that are not in the sorted list.
    pub(crate) fn outside(&self, clients: &[usize]) -> Vec<usize> {
        self.clients.iter().copied().filter(|index| clients.binary_search(index).is_err()).collect()
    }

    /// The evaluations that come from evaluators.
    pub(crate) fn only<'e>(&self, all: impl Iterator<Item = Evaluated<'e>>) -> Vec<Evaluated<'e>> {
        all.filter(|(index, _)| self.clients.binary_search(index).is_ok()).collect()
    }

    /// Notes the failure of an evaluator. Returns whether it is its first one.
    pub(crate) fn fails_first(&mut self, client: usize) -> bool {
        self.failed.insert(client)
    }

    /// A warning if fewer than all evaluators have evaluated, but only the first time.
    pub(crate) fn warning(&mut self, evaluated: usize, rounds: u64) -> Option<String> {
        let all = self.clients.len();
        if evaluated >= all || std::mem::replace(&mut self.warned, true) {
            return None;
        }
        Some(format!(
            "the global model after {rounds} rounds was evaluated by {evaluated} of {all} clients; from now on, models are \
             compared over the clients that evaluated both"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_outside_a_draw_and_missing_ones_are_known() {
        let mut evaluators = Evaluators::new(vec![1, 3, 4], false);
        assert_eq!(evaluators.outside(&[0, 3]), [1, 4]);
        let all = [0, 1, 4].map(|index| (index, &[][..]));
        assert_eq!(evaluators.only(all.into_iter()).len(), 2);
        assert!(evaluators.warning(3, 1).is_none());
        assert!(evaluators.warning(2, 1).unwrap().contains("after 1 rounds was evaluated by 2 of 3 clients"));
        assert!(evaluators.warning(2, 2).is_none(), "reported once");
        assert!(evaluators.fails_first(1) && !evaluators.fails_first(1));
    }
}
