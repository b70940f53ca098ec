//! The methods, and the number of clients that each guarantee needs.

use plugin_api::{Error, Result};

/// A method with its parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Method {
    Median,
    TrimmedMean {
        trim: f64,
    },
    /// Krum itself has `keep = 1`.
    Krum {
        byzantine: usize,
        keep: usize,
    },
    GeometricMedian {
        iterations: usize,
        smoothing: f64,
    },
}

/// The number of clients that a guarantee covers, and how many of them may be byzantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) n: usize,
    pub(crate) f: usize,
    /// How many of them sent nothing and count as byzantine.
    pub(crate) missing: usize,
}

impl Bound {
    /// How many of the updates that arrived may be byzantine.
    pub(crate) fn among_those_that_came(self) -> usize {
        self.f - self.missing
    }
}

impl Method {
    /// The name as it appears in a sentence.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Median => "median",
            Self::TrimmedMean { .. } => "trimmed mean",
            Self::Krum { keep: 1, .. } => "Krum",
            Self::Krum { .. } => "multi-Krum",
            Self::GeometricMedian { .. } => "geometric median",
        }
    }

    /// The key that sets how many clients may be byzantine.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Median | Self::GeometricMedian { .. } => "method",
            Self::TrimmedMean { .. } => "trim",
            Self::Krum { .. } => "byzantine",
        }
    }

    /// The guarantee for a round in which `came` updates arrived and `missing` did not. If those that arrived suffice,
    /// the guarantee covers them alone; otherwise the missing ones count as byzantine.
    ///
    /// # Errors
    /// If there are too few for the guarantee either way, at the key that requires them.
    pub(crate) fn bound(self, came: usize, missing: usize) -> Result<Bound> {
        self.tolerates(came).map(|f| Bound { n: came, f, missing: 0 }).or_else(|error| {
            let n = came + missing;
            let f = self.tolerates(n).ok().filter(|&f| missing > 0 && missing <= f);
            f.map(|f| Bound { n, f, missing }).ok_or(error)
        })
    }

    /// How many of `clients` may be byzantine; at least one.
    ///
    /// # Errors
    /// If there are too few for the guarantee, at the key that requires them.
    pub(crate) fn tolerates(self, clients: usize) -> Result<usize> {
        let too_few = |message: String, help: String| Err(Error::config(message).at_key(self.key()).help(help));
        match self {
            Self::Median | Self::GeometricMedian { .. } => match clients {
                0..3 => too_few(
                    format!("the {} of {clients} clients tolerates no byzantine client", self.name()),
                    "at least 3 clients are needed".to_owned(),
                ),
                _ => Ok((clients - 1) / 2),
            },
            Self::TrimmedMean { trim } => match trimmed(trim, clients) {
                0 => too_few(
                    format!("{trim} of {clients} clients rounds to none, which would be the plain mean"),
                    format!("take at least {} clients, or a larger fraction", (1.0 / trim).ceil()),
                ),
                trimmed => Ok(trimmed),
            },
            Self::Krum { byzantine, keep } => {
                let least = byzantine.saturating_mul(2).saturating_add(3);
                if clients < least {
                    return too_few(
                        format!("{} with {byzantine} byzantine of {clients} clients guarantees nothing", self.name()),
                        format!("at least {least} clients are needed"),
                    );
                }
                let most = clients - byzantine - 2;
                if keep > most {
                    let message = format!("with {byzantine} byzantine of {clients} clients at most {most} can be kept");
                    return Err(Error::config(message).at_key("keep"));
                }
                Ok(byzantine)
            }
        }
    }
}

/// How many of `values` values to drop at either end: the fraction, rounded down. A product such as 0.29 · 100,
/// slightly below 29 in binary, counts as 29.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "of a small number above 0")]
fn trimmed(trim: f64, values: usize) -> usize {
    (trim * values as f64 + 1e-9).floor() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_are_those_of_the_papers() {
        let tolerated = |method: Method, clients: usize| method.tolerates(clients).ok();
        let all = |method: Method| [1, 2, 3, 4, 5, 6, 7, 10].map(|clients| tolerated(method, clients));
        let half = [None, None, Some(1), Some(1), Some(2), Some(2), Some(3), Some(4)];
        assert_eq!(all(Method::Median), half);
        assert_eq!(all(Method::GeometricMedian { iterations: 1, smoothing: 1.0 }), half);
        assert_eq!(
            all(Method::TrimmedMean { trim: 0.2 }),
            [None, None, None, None, Some(1), Some(1), Some(1), Some(2)]
        );
        assert_eq!(
            all(Method::Krum { byzantine: 1, keep: 1 }),
            [None, None, None, None, Some(1), Some(1), Some(1), Some(1)]
        );
        assert_eq!(all(Method::Krum { byzantine: 2, keep: 4 }), [None, None, None, None, None, None, None, Some(2)]);
        assert_eq!((trimmed(0.29, 100), trimmed(0.499, 1000), trimmed(0.1, 9)), (29, 499, 0));
    }

    #[test]
    fn a_refusal_stands_at_the_key_and_says_what_it_takes() {
        let told = |method: Method, clients: usize| {
            let error = method.tolerates(clients).unwrap_err();
            (error.to_string(), error.hint().map(str::to_owned))
        };
        assert_eq!(
            told(Method::Median, 2),
            (
                "`method`: the median of 2 clients tolerates no byzantine client".into(),
                Some("at least 3 clients are needed".into())
            )
        );
        assert_eq!(
            told(Method::TrimmedMean { trim: 0.1 }, 9),
            (
                "`trim`: 0.1 of 9 clients rounds to none, which would be the plain mean".into(),
                Some("take at least 10 clients, or a larger fraction".into())
            )
        );
        assert_eq!(
            told(Method::Krum { byzantine: 2, keep: 1 }, 6),
            (
                "`byzantine`: Krum with 2 byzantine of 6 clients guarantees nothing".into(),
                Some("at least 7 clients are needed".into())
            )
        );
        assert_eq!(
            told(Method::Krum { byzantine: 2, keep: 4 }, 7),
            ("`keep`: with 2 byzantine of 7 clients at most 3 can be kept".into(), None)
        );
    }
}
