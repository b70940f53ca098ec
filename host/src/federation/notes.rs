//! Notes that components leave for the summary, such as what a method guarantees or what it saved.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// The most notes of a run: more are a mistake of a component, and nobody reads them.
const MOST: usize = 10_000;

/// Notes for the summary, by component, key and client.
#[derive(Debug, Default)]
pub struct Notes(Mutex<BTreeMap<[String; 3], String>>);

impl Notes {
    /// Sets the note of the component `who` for `client` under this key. Replaces an earlier one. If there are too many,
    /// a note says so in place of the new one.
    pub fn set(&self, client: &str, who: &str, key: &str, text: &str) {
        let mut all = self.lock();
        let key = [who, key, client].map(str::to_owned);
        if all.len() < MOST || all.contains_key(&key) {
            all.insert(key, text.to_owned());
        } else {
            let text = format!("more than {MOST} notes; the others are not kept");
            all.insert([who, "notes", crate::artefacts::tracking::SERVER].map(str::to_owned), text);
        }
    }

    /// Whether there is a note under this key.
    pub fn has(&self, key: &str) -> bool {
        self.lock().keys().any(|[_, known, _]| known == key)
    }

    /// Removes all notes under a key and returns their texts without duplicates, in the order of the components' names.
    pub fn take(&self, key: &str) -> Vec<String> {
        let mut texts = Vec::new();
        self.lock().retain(|[_, known, _], text| {
            if known == key && !texts.contains(text) {
                texts.push(text.clone());
            }
            known != key
        });
        texts
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<[String; 3], String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns all notes, for a checkpoint and for the summary.
    pub fn list(&self) -> Vec<Note> {
        let note = |([who, key, client], text): (&[String; 3], &String)| {
            let [who, key, client, text] = [who, key, client, text].map(String::clone);
            Note { who, key, client, text }
        };
        self.lock().iter().map(note).collect()
    }

    /// Formats the notes for people, one on each line. A note that is the same for several clients appears once.
    pub fn lines(&self) -> Vec<String> {
        // In the order of the notes; each with its first client.
        let mut lines: IndexMap<(String, String, String), (String, usize)> = IndexMap::new();
        for Note { who, key, client, text } in self.list() {
            lines.entry((who, key, text)).or_insert((client, 0)).1 += 1;
        }
        let line = |((who, key, text), (client, count)): ((String, String, String), (String, usize))| match (
            count,
            client.as_str(),
        ) {
            (1, crate::artefacts::tracking::SERVER) => format!("{who}, {key}: {text}"),
            (1, client) => format!("{who} at {client}, {key}: {text}"),
            (count, _) => format!("{who} at {count} clients, {key}: {text}"),
        };
        lines.into_iter().map(line).collect()
    }
}

/// A note in the summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The component's name.
    pub who: String,
    /// The note's subject.
    pub key: String,
    /// The client's name, or the server's.
    pub client: String,
    /// The text.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_notes_end_in_one_that_says_so() {
        let (notes, begun) = (Notes::default(), std::time::Instant::now());
        (0..200_000).for_each(|key| notes.set("a", "m", &format!("key {key}"), "text"));
        notes.set("a", "m", "key 7", "another");
        let lines = notes.lines();
        assert_eq!(lines.len(), MOST + 1);
        assert!(lines.contains(&"m, notes: more than 10000 notes; the others are not kept".to_owned()));
        assert!(lines.contains(&"m at a, key 7: another".to_owned()));
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_sentence_stands_once_for_all_clients_that_say_the_same() {
        let notes = Notes::default();
        for client in ["a", "b"] {
            notes.set(client, "privacy", "spent", "epsilon 1");
        }
        notes.set("a", "privacy", "spent", "epsilon 2");
        notes.set("c", "privacy", "spent", "epsilon 1");
        notes.set(crate::artefacts::tracking::SERVER, "secure", "threshold", "3 of 6");
        let lines = notes.lines();
        assert_eq!(
            lines,
            ["privacy at a, spent: epsilon 2", "privacy at 2 clients, spent: epsilon 1", "secure, threshold: 3 of 6",]
        );
        assert_eq!(notes.list().len(), 4);
    }
}
