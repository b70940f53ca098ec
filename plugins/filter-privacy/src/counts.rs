//! Counts the messages of each client for the account.

use std::collections::BTreeMap;

use plugin_api::{Context, Error, Result, State};
use serde::{Deserialize, Serialize};

/// The key in a state.
const KEY: &str = "rounds";

/// The counts of all clients.
#[derive(Debug, Default)]
pub(crate) struct Counts(BTreeMap<String, Count>);

/// The counts of one client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Count {
    /// Rounds in which it sent a message, or may have.
    pub(crate) rounds: u64,
    /// The rounds among these that started without a known message; an interrupted process may have sent it.
    pub(crate) unknown: u64,
    /// How many rounds the client had started at the last of them, if the host reports it.
    attempts: u64,
}

impl Counts {
    /// What the count of a client becomes with one more message, and all rounds that it has started since the last known
    /// one.
    pub(crate) fn next(&self, client: &str, ctx: &Context<'_>) -> Result<Count> {
        let Count { rounds, unknown, attempts } = self.0.get(client).copied().unwrap_or_default();
        let begun: Option<u64> = ctx.property("attempts")?;
        let lost = begun.map_or(0, |begun| begun.saturating_sub(attempts).saturating_sub(1));
        let rounds = rounds.saturating_add(lost).saturating_add(1);
        Ok(Count { rounds, unknown: unknown.saturating_add(lost), attempts: begun.unwrap_or(attempts) })
    }

    /// Counts a message, as [`next`](Self::next) says.
    pub(crate) fn add(&mut self, client: &str, ctx: &Context<'_>) -> Result<Count> {
        let count = self.next(client, ctx)?;
        self.0.insert(client.to_owned(), count);
        Ok(count)
    }

    pub(crate) fn state(&self) -> Result<State> {
        let mut state = State::default();
        if !self.0.is_empty() {
            let counts = serde_json::to_value(&self.0);
            let counts = counts.map_err(|e| Error::other("the counts cannot be written").because(&e))?;
            state.values.insert(KEY.to_owned(), counts);
        }
        Ok(state)
    }

    pub(crate) fn of(state: &State) -> Result<Self> {
        if state.is_empty() { Ok(Self::default()) } else { state.value(KEY).map(Self) }
    }
}

impl Count {
    /// The end of a sentence that says why there are more rounds than messages.
    pub(crate) fn explained(self) -> String {
        match self.unknown {
            0 => String::new(),
            1 => "; one of the rounds was interrupted, after its message may have been sent".to_owned(),
            n => format!("; {n} of the rounds were interrupted, after their messages may have been sent"),
        }
    }
}
