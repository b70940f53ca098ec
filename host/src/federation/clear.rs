//! What a run reveals about the data that no privacy account covers.
//!
//! A component reports its privacy account as a note under [`ACCOUNT`]. The account holds for the messages that the
//! component saw, but a reader would take it for the whole run. So a run with an account adds one sentence that lists
//! what else it revealed: what the host itself takes from clients, and what components name under [`CLEAR`].

use crate::artefacts::tracking::SERVER;
use crate::federation::notes::Notes;

/// The key of notes that hold an account.
const ACCOUNT: &str = "privacy";

/// The key of notes that name what no account covers.
const CLEAR: &str = "privacy.clear";

/// The component name of the host's own note.
const HOST: &str = "fedplug";

/// What a run revealed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Revealed {
    /// Whether clients reported losses, metrics and scores.
    pub metrics: bool,
    /// Whether scores chose a best model.
    pub best: bool,
    /// Whether predictions were written.
    pub predictions: bool,
}

/// Replaces the notes under [`CLEAR`] by one sentence. Without an account, removes them and adds none.
pub(crate) fn note(notes: &Notes, revealed: Revealed) {
    let named = notes.take(CLEAR);
    if !notes.has(ACCOUNT) {
        return;
    }
    let Revealed { metrics, best, predictions } = revealed;
    let host = [
        (metrics, "each client's losses, metrics and scores"),
        (best, "through them the choice of the best model"),
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
        "released without noise and not covered by the account: {}; the run's directory also contains {kept}, which \
         clients on their own machines would keep",
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
        // The sentence omits what did not happen.
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
