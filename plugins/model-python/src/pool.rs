//! Which process an object is made in.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use plugin_api::{Context, Result};

use crate::config::Launch;
use crate::worker::Worker;

static WORKERS: Mutex<Vec<Arc<Worker>>> = Mutex::new(Vec::new());

/// A process for another object: one that waits, else a new one if there are fewer than `limit`, else the one with the fewest
/// objects. So there are as many as work at the same time, up to the limit.
///
/// # Errors
/// If none can be started.
pub(crate) fn place(launch: &Launch, limit: usize, ctx: &Context<'_>) -> Result<Arc<Worker>> {
    let mut workers = WORKERS.lock().unwrap_or_else(PoisonError::into_inner);
    let objects = |worker: &Arc<Worker>| worker.objects.load(Ordering::Relaxed);
    // Those that have ended, and one that told a schema and has another number of threads.
    let other = |worker: &Arc<Worker>| Launch { threads: launch.threads, ..worker.launch.clone() } == *launch;
    workers.retain(|worker| {
        let useless = worker.launch != *launch && other(worker) && objects(worker) == 0 && worker.is_idle();
        worker.is_alive() && !useless
    });
    let fitting = workers.iter().filter(|worker| worker.launch == *launch);
    let (idle, busy): (Vec<_>, Vec<_>) = fitting.partition(|worker| worker.is_idle());
    let fewest = |of: Vec<&Arc<Worker>>| of.into_iter().min_by_key(|worker| objects(worker)).cloned();
    let found = match fewest(idle) {
        None if busy.len() >= limit => fewest(busy),
        idle => idle,
    };
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
