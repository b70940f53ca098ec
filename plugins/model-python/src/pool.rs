//! Which process an object is made in.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use plugin_api::{Context, Result};

use crate::config::Launch;
use crate::worker::Worker;

static WORKERS: Mutex<Vec<Arc<Worker>>> = Mutex::new(Vec::new());

/// A process for another object: one that waits and has no object, or any that waits if objects `share`; else a new one if
/// there are fewer than `limit`, else the one with the fewest objects. So there are as many as work at the same time, or as
/// objects, up to the limit.
///
/// # Errors
/// If none can be started.
pub(crate) fn place(launch: &Launch, limit: usize, share: bool, ctx: &Context<'_>) -> Result<Arc<Worker>> {
    let mut workers = WORKERS.lock().unwrap_or_else(PoisonError::into_inner);
    let objects = |worker: &Arc<Worker>| worker.objects.load(Ordering::Relaxed);
    // Those that have ended, and one that told a schema and has another number of threads.
    let other = |worker: &Arc<Worker>| Launch { threads: launch.threads, ..worker.launch.clone() } == *launch;
    workers.retain(|worker| {
        let useless = worker.launch != *launch && other(worker) && objects(worker) == 0 && worker.is_idle();
        worker.is_alive() && !useless
    });
    let mut fitting: Vec<&Arc<Worker>> = workers.iter().filter(|worker| worker.launch == *launch).collect();
    fitting.sort_by_key(|worker| objects(worker));
    let waits = fitting.iter().find(|worker| worker.is_idle() && (share || objects(worker) == 0));
    let found = waits.or(if fitting.len() < limit { None } else { fitting.first() }).map(|&worker| worker.clone());
    let worker = match found {
        Some(worker) => worker,
        None => {
            let worker = Arc::new(Worker::start(launch.clone(), ctx)?);
            workers.push(worker.clone());
            worker
        }
    };
    worker.objects.fetch_add(1, Ordering::Relaxed);
    Ok(worker)
}
