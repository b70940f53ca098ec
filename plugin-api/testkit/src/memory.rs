//! Whether memory grows from call to call, by the pages that the process has in memory.

use std::time::{Duration, Instant};

use super::verdict::{Found, fail, skip};
use plugin_api::Result;

/// How many calls are watched.
pub const CALLS: usize = 1000;
/// By how much the process may grow over so many calls, in bytes: what allocators keep, and other tests of the process.
pub const ALLOWANCE: usize = 16 << 20;

/// How many calls go before, so that caches and the allocator's pools are full.
const WARM_UP: usize = 50;
/// A leak is there each time; what grew once may be another thread's.
const TRIES: usize = 3;
/// How long the watching may take, for components whose calls are slow.
const PATIENCE: Duration = Duration::from_secs(4);
/// Fewer calls than so many prove nothing.
const FEWEST: usize = 30;

/// Makes a call a thousand times and watches the process.
pub(crate) fn does_not_grow(mut call: impl FnMut() -> Result<()>) -> Found {
    if resident().is_none() {
        return skip("this system does not say how much memory the process has");
    }
    let begun = Instant::now();
    for _ in 0..WARM_UP {
        call()?;
        if begun.elapsed() > PATIENCE {
            break;
        }
    }
    let mut grown = (0, 0);
    for _ in 0..TRIES {
        let before = resident().unwrap_or_default();
        let grew = || resident().unwrap_or_default().saturating_sub(before);
        let mut calls = 0;
        // A leak of megabytes need not fill the machine to be seen.
        while calls < CALLS && grew() <= 2 * ALLOWANCE {
            call()?;
            calls += 1;
            if begun.elapsed() > PATIENCE && calls >= FEWEST {
                break;
            }
        }
        grown = (grew(), calls);
        if grown.0 <= ALLOWANCE {
            return Ok(());
        }
    }
    let (bytes, calls) = grown;
    let expected = format!("at most {} MiB more in memory after {CALLS} calls", ALLOWANCE >> 20);
    fail(expected, format!("{:.1} MiB more after {calls} calls, {TRIES} times over", bytes as f64 / f64::from(1 << 20)))
}

/// Bytes of the process that lie in memory.
#[cfg(target_os = "linux")]
fn resident() -> Option<usize> {
    // The second number is of pages. Their size is 4 KiB on the machines that this is run on; where it is larger, more
    // growth is allowed.
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(text.split_ascii_whitespace().nth(1)?.parse::<usize>().ok()? * 4096)
}

#[cfg(not(target_os = "linux"))]
fn resident() -> Option<usize> {
    None
}
