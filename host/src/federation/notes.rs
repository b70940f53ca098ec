//! Notes that components leave for the summary, such as what a method guarantees or what it saved.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// Notes for the summary, by component, key and client.
#[derive(Debug, Default)]
pub struct Notes(Mutex<BTreeMap<[String; 3], String>>);

impl Notes {
    /// Sets the note of the component `who` for `client` under this key. Replaces an earlier one.
    pub fn set(&self, client: &str, who: &str, key: &str, text: &str) {
        self.lock().insert([who, key, client].map(str::to_owned), text.to_owned());
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
        let mut lines: Vec<(Note, usize)> = Vec::new();
        for note in self.list() {
            match lines.iter_mut().find(|(n, _)| (&n.who, &n.key, &n.text) == (&note.who, &note.key, &note.text)) {
                Some((_, count)) => *count += 1,
                None => lines.push((note, 1)),
            }
        }
        let line = |(Note { who, key, client, text }, count): (Note, usize)| match (count, client.as_str()) {
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
