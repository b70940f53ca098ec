//! What a run reveals of the data that no privacy account covers.
//!
//! A component leaves the account of its guarantee as a note under [`ACCOUNT`]. It holds for the messages that the component
//! saw, and a reader would take it for the whole run. So a run with one says beside it, in one sentence, what else it
//! revealed: what the host itself takes from clients, and what components name under [`CLEAR`].

use crate::artefacts::tracking::SERVER;
use crate::federation::notes::Notes;

/// The key of an account.
const ACCOUNT: &str = "privacy";

/// The key of what no account covers.
const CLEAR: &str = "privacy.clear";

/// Whose the host's own sentence is.
const HOST: &str = "fedplug";

/// What a run really did, as far as it revealed something.
#[derive(Clone, Copy, Debug)]
pub struct Revealed {
    /// Whether clients reported losses, metrics and scores.
    pub metrics: bool,
    /// Whether scores chose a best model.
    pub best: bool,
    /// Whether predictions were written.
    pub predictions: bool,
}

/// Puts one sentence into the place of what components named; none where there is no account.
pub fn note(notes: &Notes, revealed: Revealed) {
    let named = notes.take(CLEAR);
    if !notes.has(ACCOUNT) {
        return;
    }
    let Revealed { metrics, best, predictions } = revealed;
    let host = [
        (metrics, "each client's losses, metrics and scores"),
        (best, "with them the choice of the best model"),
        (true, "numbers of rows, steps and examples"),
        (true, "what the dataset reports of its files"),
        (true, "how long clients took and which failed"),
    ];
    let mut all: Vec<&str> = host.iter().filter(|(is_so, _)| *is_so).map(|(_, what)| *what).collect();
    for what in &named {
        if !all.contains(&what.as_str()) {
            all.push(what);
        }
    }
    let kept =
        if predictions { "each client's own model and predictions of its rows" } else { "each client's own model" };
    let text = format!(
        "no account covers, and no noise: {}; the run's directory also has {kept}, which clients on machines of their own \
         would keep",
        all.join("; ")
    );
    notes.set(SERVER, HOST, CLEAR, &text);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Revealed = Revealed { metrics: true, best: true, predictions: true };

    #[test]
    fn an_account_has_one_sentence_beside_it_of_what_it_does_not_cover() {
        let notes = Notes::default();
        notes.set("a", "privacy", ACCOUNT, "epsilon 1");
        for client in ["a", "b"] {
            notes.set(client, "privacy", CLEAR, "norms of updates");
        }
        notes.set(SERVER, "csv", CLEAR, "means of targets");
        note(&notes, ALL);
        let all = notes.list();
        let clear: Vec<_> = all.iter().filter(|note| note.key == CLEAR).collect();
        assert_eq!(clear.len(), 1);
        assert_eq!((clear[0].who.as_str(), clear[0].client.as_str()), (HOST, SERVER));
        let text = &clear[0].text;
        for what in ["metrics and scores", "best model", "steps and examples", "predictions of its rows"] {
            assert!(text.contains(what), "{text}");
        }
        assert!(text.contains("; means of targets; norms of updates; the run's"), "{text}");
        // What did not happen is not named.
        let notes = Notes::default();
        notes.set("a", "privacy", "privacy", "epsilon 1");
        note(&notes, Revealed { metrics: false, best: false, predictions: false });
        let all = notes.list();
        let text = &all.iter().find(|note| note.key == CLEAR).unwrap().text;
        assert!(!["metrics", "best model", "predictions"].iter().any(|what| text.contains(what)), "{text}");
    }

    #[test]
    fn without_an_account_nobody_is_told() {
        let notes = Notes::default();
        notes.set(SERVER, "csv", CLEAR, "means of targets");
        note(&notes, ALL);
        assert!(notes.list().is_empty());
    }
}
