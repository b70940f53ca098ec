//! Checks whether memory grows from call to call, by the process's resident pages.

use std::time::{Duration, Instant};

use super::verdict::{Found, fail, skip};
use plugin_api::Result;

/// The number of calls to watch.
pub const CALLS: usize = 1000;
/// How much the process may grow over that many calls, in bytes. This leaves room for what allocators keep and for
/// other tests in the process.
pub const ALLOWANCE: usize = 16 << 20;

/// The number of warm-up calls, which fill caches and the allocator's pools.
const WARM_UP: usize = 50;
/// A leak shows every time; growth that shows once may come from another thread.
const TRIES: usize = 3;
/// The time limit for components whose calls are slow.
const PATIENCE: Duration = Duration::from_secs(4);
/// Fewer calls than this prove nothing.
const FEWEST: usize = 30;
/// After this many calls the check ends if the process has grown by at most `LITTLE`. A component that leaks as much as the
/// allowance forbids has leaked three times that by then.
const ENOUGH: usize = 200;
const LITTLE: usize = 1 << 20;

/// Makes a call up to a thousand times and watches the process's memory.
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
        // Stop early, so that a leak of megabytes does not fill the machine.
        while calls < CALLS && grew() <= 2 * ALLOWANCE {
            call()?;
            calls += 1;
            if calls == ENOUGH && grew() <= LITTLE {
                return Ok(());
            }
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

/// The process's resident memory in bytes.
#[cfg(target_os = "linux")]
fn resident() -> Option<usize> {
    // The second number counts pages. Pages are 4 KiB on the machines where this runs; if they are larger, more growth
    // is allowed.
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(text.split_ascii_whitespace().nth(1)?.parse::<usize>().ok()? * 4096)
}

#[cfg(not(target_os = "linux"))]
fn resident() -> Option<usize> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::{CALLS, ENOUGH, WARM_UP, does_not_grow};

    // One test, since others in the process would be measured too.
    #[test]
    fn a_small_leak_is_found_and_none_is_soon_believed() {
        let mut calls = 0;
        let steady = does_not_grow(|| {
            calls += 1;
            drop(std::hint::black_box(vec![1_u8; 1 << 20]));
            Ok(())
        });
        assert!(steady.is_ok(), "{steady:?}");
        assert!((WARM_UP + ENOUGH..CALLS).contains(&calls), "{calls}");

        // A little more than the allowance over a thousand calls.
        let mut calls = 0;
        let leak = does_not_grow(|| {
            calls += 1;
            std::mem::forget(std::hint::black_box(vec![1_u8; 18 << 10]));
            Ok(())
        });
        assert!(leak.is_err(), "{leak:?}");
        assert!(calls > WARM_UP + ENOUGH, "{calls}");
    }
}
