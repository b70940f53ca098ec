//! What outlives the server's process: one file, replaced as a whole.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::parallel::lock;
use crate::{files, hex};

/// The last order to a site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LastOrder {
    /// Of key, kind and content.
    pub(super) digest: String,
    pub(super) number: u64,
    /// Messages that were sent and not answered.
    pub(super) messages: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) session: String,
    /// The run and its token.
    pub(super) run: Option<(u64, String)>,
    /// The last number that was given to an order.
    pub(super) number: u64,
    pub(super) sites: BTreeMap<String, LastOrder>,
}

pub(super) struct StateFile {
    _lock: File,
    path: PathBuf,
    state: Mutex<State>,
}

impl StateFile {
    pub(super) fn open(folder: &Path) -> Result<Self, Error> {
        let lock = files::reserve(folder)?;
        let path = folder.join("server.json");
        let state = match files::read(&path)? {
            Some(text) => serde_json::from_slice(&text)
                .map_err(|error| Error::Content { path: path.clone(), reason: error.to_string() })?,
            None => State { session: hex::random()?, run: None, number: 0, sites: BTreeMap::new() },
        };
        let file = Self { _lock: lock, path, state: Mutex::new(state) };
        file.change(|_| ())?;
        Ok(file)
    }

    pub(super) fn session(&self) -> String {
        lock(&self.state).session.clone()
    }

    pub(super) fn get<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&lock(&self.state))
    }

    /// Changes the state, in the file as well.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> Result<T, Error> {
        let mut state = lock(&self.state);
        let value = change(&mut state);
        let text = serde_json::to_vec(&*state)
            .map_err(|error| Error::Content { path: self.path.clone(), reason: error.to_string() })?;
        files::replace(&self.path, |file| file.write_all(&text))?;
        Ok(value)
    }
}
