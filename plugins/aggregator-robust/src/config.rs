//! The `[aggregator]` table. Values keep to their bounds in the schema; whether the method uses a key is checked when it is
//! made.

use std::num::NonZeroUsize;

use plugin_api::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::method::Method;

/// The keys of the aggregator's table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// How the clients' updates become one.
    method: Name,
    /// For `trimmed-mean`, which needs it: the fraction of the values left out at either end, more than 0 and less than
    /// 0.5. So many of the clients may be byzantine.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 0.5))]
    trim: Option<f64>,
    /// For `krum` and `multi-krum`, which need it: how many clients may be byzantine, at least 1. The round needs twice
    /// as many and 3.
    #[serde(default)]
    byzantine: Option<NonZeroUsize>,
    /// For `multi-krum`, which needs it: how many updates are averaged, at most the number of clients less `byzantine`
    /// and 2.
    #[serde(default)]
    keep: Option<NonZeroUsize>,
    /// For `geometric-median`: iterations of the smoothed Weiszfeld algorithm; 10 if not given.
    #[serde(default)]
    iterations: Option<NonZeroUsize>,
    /// For `geometric-median`: the smoothing ν, more than 0, in the units of the parameters: a smaller distance counts
    /// as this one. 1e-6 if not given.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    smoothing: Option<f64>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Name {
    /// The median of each coordinate.
    Median,
    /// The mean of each coordinate without its smallest and largest values.
    TrimmedMean,
    /// The one update closest to its neighbours.
    Krum,
    /// The mean of the updates closest to their neighbours.
    MultiKrum,
    /// The point with the least sum of distances to all updates.
    GeometricMedian,
}

impl Config {
    /// The method with its numbers.
    ///
    /// # Errors
    /// If a key is missing, or one is given that the method does not use.
    pub(crate) fn method(&self) -> Result<Method> {
        let (name, keys): (_, &[&str]) = match self.method {
            Name::Median => ("median", &[]),
            Name::TrimmedMean => ("trimmed-mean", &["trim"]),
            Name::Krum => ("krum", &["byzantine"]),
            Name::MultiKrum => ("multi-krum", &["byzantine", "keep"]),
            Name::GeometricMedian => ("geometric-median", &["iterations", "smoothing"]),
        };
        let given = [
            ("trim", self.trim.is_some()),
            ("byzantine", self.byzantine.is_some()),
            ("keep", self.keep.is_some()),
            ("iterations", self.iterations.is_some()),
            ("smoothing", self.smoothing.is_some()),
        ];
        if let Some((key, _)) = given.into_iter().find(|(key, given)| *given && !keys.contains(key)) {
            let used: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
            let used = if used.is_empty() { "no other key".to_owned() } else { used.join(", ") };
            return Err(Error::config(format!("the method `{name}` does not use it"))
                .at_key(key)
                .help(format!("`{name}` uses {used}")));
        }
        let missing = |key: &str| Error::config(format!("the method `{name}` needs it")).at_key(key);
        let byzantine = || self.byzantine.map(NonZeroUsize::get).ok_or_else(|| missing("byzantine"));
        Ok(match self.method {
            Name::Median => Method::Median,
            Name::TrimmedMean => Method::TrimmedMean { trim: self.trim.ok_or_else(|| missing("trim"))? },
            Name::Krum => Method::Krum { byzantine: byzantine()?, keep: 1 },
            Name::MultiKrum => {
                let keep = self.keep.map(NonZeroUsize::get).ok_or_else(|| missing("keep"));
                Method::Krum { byzantine: byzantine()?, keep: keep? }
            }
            Name::GeometricMedian => Method::GeometricMedian {
                iterations: self.iterations.map_or(10, NonZeroUsize::get),
                smoothing: self.smoothing.unwrap_or(1e-6),
            },
        })
    }
}
