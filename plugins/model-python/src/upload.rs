//! What is sent to processes, each piece copied into shared memory once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use plugin_api::{Buffer, Result};

use crate::segment::{ALIGNMENT, Lease};

/// How many bytes are remembered, besides those of the latest message.
const REMEMBERED: usize = 256 << 20;

/// Where a piece is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) lease: Arc<Lease>,
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

struct Entry {
    /// Keeps the address from being used for something else.
    _source: Buffer,
    place: Place,
    used: u64,
}

/// By address and length.
type Entries = BTreeMap<(usize, usize), Entry>;

static SENT: Mutex<(u64, Entries)> = Mutex::new((0, BTreeMap::new()));

/// Finds these pieces in shared memory, or copies them there. Those that are copied get one lease.
///
/// # Errors
/// If there is no memory.
pub(crate) fn place(pieces: &[&Buffer]) -> Result<Vec<Place>> {
    // Others wait while a piece is copied: they may want the same.
    let mut sent = SENT.lock().unwrap_or_else(PoisonError::into_inner);
    let (clock, entries) = &mut *sent;
    *clock += 1;
    let now = *clock;
    let mut places: Vec<Option<Place>> = Vec::with_capacity(pieces.len());
    let mut size = 0;
    for piece in pieces {
        let known = Lease::of(piece).map(|(lease, offset)| Place { lease, offset, len: piece.len() }).or_else(|| {
            let entry = entries.get_mut(&key(piece))?;
            entry.used = now;
            Some(entry.place.clone())
        });
        if known.is_none() {
            size += piece.len().next_multiple_of(ALIGNMENT);
        }
        places.push(known);
    }
    if size > 0 {
        let lease = Lease::new(size)?;
        let mut offset = 0;
        for (piece, place) in pieces.iter().zip(&mut places).filter(|(_, place)| place.is_none()) {
            lease.fill(offset, piece.as_slice());
            let new = Place { lease: lease.clone(), offset, len: piece.len() };
            entries.insert(key(piece), Entry { _source: (*piece).clone(), place: new.clone(), used: now });
            *place = Some(new);
            offset += piece.len().next_multiple_of(ALIGNMENT);
        }
        forget(entries, now);
    }
    Ok(places.into_iter().flatten().collect())
}

fn key(piece: &Buffer) -> (usize, usize) {
    (piece.as_slice().as_ptr().addr(), piece.len())
}

/// Forgets what was not sent for longest, but nothing of this message.
fn forget(entries: &mut Entries, now: u64) {
    let mut bytes: usize = entries.values().filter(|entry| entry.used < now).map(|entry| entry.place.len).sum();
    while bytes > REMEMBERED {
        let oldest = entries.values().map(|entry| entry.used).min().unwrap_or(now);
        entries.retain(|_, entry| {
            let kept = entry.used > oldest;
            bytes -= if kept { 0 } else { entry.place.len };
            kept
        });
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_copied_once_and_what_is_there_is_not_copied() {
        let (a, b) = (Buffer::copy_of(&[1.0_f32, 2.0]), Buffer::copy_of(&[3_i64]));
        let first = place(&[&a, &b]).unwrap();
        let again = place(&[&b, &a.clone()]).unwrap();
        assert_eq!((first[0].lease.number, first[0].offset), (again[1].lease.number, again[1].offset));
        assert_eq!((first[0].offset, first[1].offset, first[1].len), (0, 64, 8));
        let there = first[1].lease.buffer(64, 8).unwrap();
        assert_eq!(there.try_cast::<i64>().unwrap(), [3]);
        // A tensor that is in shared memory already stays where it is.
        let of_it = place(&[&there]).unwrap();
        assert_eq!((of_it[0].lease.number, of_it[0].offset), (first[1].lease.number, 64));
        assert!(first[1].lease.buffer(64, 1 << 30).is_err() && first[1].lease.buffer(8, 8).is_err());
    }

    #[test]
    fn what_was_sent_long_ago_is_forgotten_and_its_segment_is_used_again() {
        let large = |fill: u8| Buffer::build::<u8>(REMEMBERED / 2, |bytes| bytes.fill(fill));
        let first = place(&[&large(1)]).unwrap().remove(0).lease.number;
        for fill in 2..6 {
            place(&[&large(fill)]).unwrap();
        }
        let known = SENT.lock().unwrap().1.values().filter(|entry| entry.place.len == REMEMBERED / 2).count();
        assert!(known <= 3, "{known}");
        let leases = SENT.lock().unwrap().1.values().any(|entry| entry.place.lease.number == first);
        assert!(!leases);
    }
}
