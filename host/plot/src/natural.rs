//! Natural sort order of names.

use std::cmp::Ordering;

use crate::events::SERVER;

/// A name in natural sort order: `site-2` before `site-10`, and the server last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Natural(pub(super) String);

impl Ord for Natural {
    fn cmp(&self, other: &Self) -> Ordering {
        fn pieces(text: &str) -> Vec<(u128, &str)> {
            let chunks = text.as_bytes().chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit());
            let mut start = 0;
            let piece = |chunk: &[u8]| {
                let piece = &text[start..start + chunk.len()];
                start += chunk.len();
                (piece.parse().unwrap_or(u128::MAX), piece)
            };
            chunks.map(piece).collect()
        }
        let server = |name: &str| name == SERVER;
        let by_name = || pieces(&self.0).cmp(&pieces(&other.0)).then_with(|| self.0.cmp(&other.0));
        server(&self.0).cmp(&server(&other.0)).then_with(by_name)
    }
}

impl PartialOrd for Natural {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let mut names = ["site-10", SERVER, "site-2", "tm", "site-1"].map(|name| Natural(name.to_owned()));
        names.sort();
        assert_eq!(names.map(|name| name.0), ["site-1", "site-2", "site-10", "tm", SERVER]);
    }
}
