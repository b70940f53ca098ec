//! Fetches arrays: their chunks come several at a time and are written in order into one piece of memory for each array,
//! so that besides the arrays no more than one chunk a thread is held.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;

use crate::assemble::Assembly;
use crate::content::{Array, DType};
use crate::error::Error;
use crate::object::{ObjectId, Parsed};
use crate::pack::{NUMPY, PLAIN};
use crate::parallel::{self, Abort, lock};
use crate::unpack::Fetch;

#[derive(Deserialize)]
struct About {
    dtype: String,
    shape: Vec<u64>,
    stype: String,
    arraychunk_ids: Vec<u32>,
}

/// An array as its object describes it.
struct Planned {
    /// Type and shape, where the stream has no head that says them.
    plain: Option<(DType, Vec<u64>)>,
    chunks: Vec<ObjectId>,
}

/// A chunk's place: which array, and which of its chunks.
struct Job {
    array: usize,
    chunk: usize,
    id: ObjectId,
    /// The earlier job that fetches the same object.
    same_as: Option<usize>,
}

/// An array being written.
struct Target {
    state: Mutex<(usize, Assembly)>,
    advanced: Condvar,
}

/// Fetches all arrays of these ids.
pub(crate) fn fetch(fetch: &Fetch<'_>, ids: &[ObjectId], abort: Abort<'_>) -> Result<HashMap<ObjectId, Array>, Error> {
    let mut planned = fetch.all(ids, abort, |id, abort| plan(fetch, fetch.object(id, abort)?))?;
    let limits = *fetch.limits();
    let taken = AtomicU64::new(0);
    let (mut jobs, mut targets, mut first) = (Vec::new(), Vec::new(), HashMap::new());
    for id in ids {
        let Some(Planned { plain, chunks }) = planned.remove(id) else { continue };
        let admit = |bytes| admit(&taken, bytes, limits.arrays, chunks.len(), limits.object);
        let assembly = match plain {
            Some((dtype, shape)) => Assembly::plain(dtype, shape, admit)?,
            None => Assembly::new(limits.dimensions),
        };
        for (chunk, id) in chunks.iter().enumerate() {
            let same_as = first.get(id).copied();
            first.entry(*id).or_insert(jobs.len());
            jobs.push(Job { array: targets.len(), chunk, id: *id, same_as });
        }
        targets.push((chunks.len(), Target { state: Mutex::new((0, assembly)), advanced: Condvar::new() }));
    }
    // Where in its array's stream each object was written that is needed again.
    let written: Vec<Mutex<Range<usize>>> = jobs.iter().map(|_| Mutex::new(0..0)).collect();
    parallel::for_each(jobs.len(), fetch.threads(), abort, |index, abort| {
        let Job { array, chunk, id, same_as } = &jobs[index];
        // Jobs begin in order and wait for earlier ones only, so the earliest never waits.
        let bytes = match same_as {
            None => fetch.object(*id, abort)?.expect("ArrayChunk")?.body,
            Some(earlier) => {
                let source = &jobs[*earlier];
                let state = targets[source.array].1.wait(source.chunk + 1, abort)?;
                state.1.read(lock(&written[*earlier]).clone()).into()
            }
        };
        let (chunks, target) = &targets[*array];
        let mut state = target.wait(*chunk, abort)?;
        let start = state.1.len();
        state.1.append(&bytes, |size| admit(&taken, size, limits.arrays, *chunks, limits.object))?;
        *lock(&written[index]) = start..state.1.len();
        state.0 += 1;
        target.advanced.notify_all();
        Ok(())
    })?;
    let arrays = ids.iter().zip(targets).map(|(id, (_, target))| {
        let (_, assembly) = target.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok((*id, assembly.finish()?))
    });
    arrays.collect()
}

impl Target {
    /// Waits until this many chunks have been written.
    fn wait(&self, chunks: usize, abort: Abort<'_>) -> Result<std::sync::MutexGuard<'_, (usize, Assembly)>, Error> {
        let mut state = lock(&self.state);
        while state.0 < chunks {
            if abort() {
                return Err(Error::Stopped);
            }
            let waited = self.advanced.wait_timeout(state, Duration::from_millis(100));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(state)
    }
}

/// Whether memory may be taken: all arrays together stay below `most`, and an array is no larger than its chunks can be.
fn admit(taken: &AtomicU64, bytes: u64, most: u64, chunks: usize, object: usize) -> Result<(), Error> {
    let before = taken.fetch_add(bytes.min(most), Ordering::Relaxed);
    if bytes > most || before + bytes > most {
        return Err(Error::protocol("message", format!("arrays of more than {most} bytes")));
    }
    if bytes > (chunks as u64).saturating_mul(object as u64) {
        return Err(Error::protocol("array", format!("{bytes} bytes cannot lie in {chunks} chunks")));
    }
    Ok(())
}

fn plan(fetch: &Fetch<'_>, parsed: Parsed) -> Result<Planned, Error> {
    let wrong = |reason: String| Error::protocol("array", reason);
    let Parsed { children, body, .. } = parsed.expect("Array")?;
    let about: About = serde_json::from_slice(&body).map_err(|error| wrong(error.to_string()))?;
    let limits = fetch.limits();
    if about.arraychunk_ids.len() > limits.objects || about.shape.len() > limits.dimensions {
        return Err(wrong("too many chunks or dimensions".into()));
    }
    let chunks = about.arraychunk_ids.iter().map(|place| children.get(*place as usize).copied());
    let chunks = chunks.collect::<Option<Vec<_>>>().ok_or_else(|| wrong("a chunk is none of its children".into()))?;
    let plain = match about.stype.as_str() {
        NUMPY => None,
        PLAIN => {
            let dtype = DType::from_name(&about.dtype);
            Some((dtype.ok_or_else(|| wrong(format!("the type `{}` is unknown", short(&about.dtype))))?, about.shape))
        }
        other => return Err(wrong(format!("arrays of the form `{}` cannot be read", short(other)))),
    };
    Ok(Planned { plain, chunks })
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}
