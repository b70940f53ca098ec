//! Letters that the tokenizer does not know, and the warning about them.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::tokenize::UNKNOWN;

/// How many letters the warning lists.
const LISTED: usize = 12;

/// The unknown letters of a table.
#[derive(Debug, Default)]
pub(crate) struct UnknownLetters {
    /// The count of each unknown letter.
    pub(crate) counts: BTreeMap<String, usize>,
    /// Sequences with unknown letters.
    pub(crate) sequences: usize,
    /// Letters in the table, known and unknown.
    pub(crate) total_letters: usize,
}

impl UnknownLetters {
    /// The warning's text for a table of `sequences` rows: the letters, most frequent first, and their share. `is_known` tells
    /// whether the tokenizer knows a letter.
    pub(crate) fn describe(&self, sequences: usize, is_known: impl Fn(&str) -> bool) -> String {
        let unknown: usize = self.counts.values().sum();
        let share = 100.0 * unknown as f64 / self.total_letters as f64;
        let mut letters: Vec<_> = self.counts.iter().collect();
        letters.sort_by_key(|&(letter, count)| (Reverse(count), letter));
        let listed = letters.iter().take(LISTED).map(|(letter, count)| format!("`{}` {count}", letter.escape_debug()));
        let mut listed: Vec<_> = listed.collect();
        if letters.len() > LISTED {
            listed.push(format!("{} others", letters.len() - LISTED));
        }
        let known_in_upper_case = |letter: &String| {
            let upper = letter.to_uppercase();
            upper != *letter && is_known(&upper)
        };
        let case = if self.counts.keys().any(known_in_upper_case) { "; it knows letters in upper case" } else { "" };
        format!(
            "the tokenizer does not know {unknown} of {} letters ({share:.2}%), in {} of {sequences} sequences, and reads \
             them as `{UNKNOWN}`: {}{case}",
            self.total_letters,
            self.sequences,
            listed.join(", "),
        )
    }
}
