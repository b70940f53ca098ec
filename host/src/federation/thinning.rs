//! Which scalars of a training epoch are kept.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// A scalar without its tag. `time` is in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) step: u64,
    pub(crate) value: f64,
    pub(crate) time: f64,
}

/// Keeps the scalars of every n-th step, and the last one of each tag. By the step's number, so that a resumed run keeps
/// the same ones, and all tags have the same steps.
#[derive(Debug)]
pub(crate) struct Thinning {
    every: u64,
    /// The last scalar of each tag, unless it was kept.
    held: Mutex<BTreeMap<String, Point>>,
}

impl Thinning {
    pub(crate) fn new(every: u64) -> Self {
        Self { every, held: Mutex::default() }
    }

    /// Whether a scalar is kept at once.
    pub(crate) fn keeps(&self, tag: &str, point: Point) -> bool {
        if self.every <= 1 {
            return true;
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if point.step.is_multiple_of(self.every) {
            held.remove(tag);
            return true;
        }
        match held.get_mut(tag) {
            Some(last) => *last = point,
            None => drop(held.insert(tag.to_owned(), point)),
        }
        false
    }

    /// The last scalar of each tag, unless it was kept, at the end of an epoch.
    pub(crate) fn take(&self) -> BTreeMap<String, Point> {
        std::mem::take(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nth_step_and_the_last_one_of_each_tag_are_kept() {
        let kept = |every: u64, steps: std::ops::Range<u64>| {
            let (thinning, mut kept) = (Thinning::new(every), Vec::new());
            for (tag, step) in steps.flat_map(|step| [("a", step), ("b", 2 * step)]) {
                let point = Point { step, value: 0.5, time: 1.0 };
                kept.extend(thinning.keeps(tag, point).then(|| (tag.to_owned(), step)));
            }
            kept.extend(thinning.take().into_iter().map(|(tag, point)| (tag, point.step)));
            assert!(thinning.take().is_empty());
            kept.sort();
            kept.into_iter().map(|(tag, step)| format!("{tag}{step}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(kept(1, 3..6), "a3 a4 a5 b6 b8 b10");
        assert_eq!(kept(3, 1..8), "a3 a6 a7 b6 b12 b14");
        assert_eq!(kept(3, 4..7), "a6 b12");
        assert_eq!(kept(100, 1..4), "a3 b6");
        assert_eq!(kept(100, 1..1), "");
    }
}
