//! The letters of a table that the tokenizer does not know, and the line that tells of them.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::tokenize::UNKNOWN;

/// How many letters the line names.
const NAMED: usize = 12;

/// What a table holds that the tokenizer does not know.
#[derive(Default)]
pub(crate) struct Unknown {
    /// Letters, and how often each stands there.
    pub(crate) letters: BTreeMap<String, usize>,
    /// Sequences with such letters.
    pub(crate) sequences: usize,
    /// Letters of any kind.
    pub(crate) all: usize,
}

impl Unknown {
    /// Letters with their counts, the commonest first, and their share of a table of so many sequences.
    pub(crate) fn describe(&self, sequences: usize, knows: impl Fn(&str) -> bool) -> String {
        let total: usize = self.letters.values().sum();
        let share = 100.0 * total as f64 / self.all as f64;
        let mut letters: Vec<_> = self.letters.iter().collect();
        letters.sort_by_key(|&(letter, count)| (Reverse(count), letter));
        let named = letters.iter().take(NAMED).map(|(letter, count)| format!("`{}` {count}", letter.escape_debug()));
        let mut named: Vec<_> = named.collect();
        if letters.len() > NAMED {
            named.push(format!("{} others", letters.len() - NAMED));
        }
        let known_in_upper_case = |letter: &String| {
            let upper = letter.to_uppercase();
            upper != *letter && knows(&upper)
        };
        let case = if self.letters.keys().any(known_in_upper_case) { "; it knows letters in upper case" } else { "" };
        format!(
            "the tokenizer does not know {total} of {} letters ({share:.2}%), in {} of {sequences} sequences, and reads \
             them as `{UNKNOWN}`: {}{case}",
            self.all,
            self.sequences,
            named.join(", "),
        )
    }
}
