//! The `[aggregator]` table. The schema checks the bounds of each value; [`Config::method`] checks that the method uses
//! the key.

use std::num::NonZeroUsize;

use plugin_api::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::method::Method;

/// The keys of the aggregator's table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// How to combine the clients' updates.
    method: Name,
    /// Required by `trimmed-mean`: the fraction of values to drop at either end, above 0 and below 0.5. This fraction
    /// of the clients may be byzantine.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 0.5))]
    trim: Option<f64>,
    /// Required by `krum` and `multi-krum`: how many clients may be byzantine, at least 1. The round needs at least
    /// `2 * byzantine + 3` clients.
    #[serde(default)]
    byzantine: Option<NonZeroUsize>,
    /// Required by `multi-krum`: how many updates to average, at most the number of clients minus `byzantine` minus 2.
    #[serde(default)]
    keep: Option<NonZeroUsize>,
    /// For `geometric-median`: iterations of the smoothed Weiszfeld algorithm. Default: 10.
    #[serde(default)]
    iterations: Option<NonZeroUsize>,
    /// For `geometric-median`: the smoothing ν, above 0, in the units of the parameters. Smaller distances are treated
    /// as ν. Default: 1e-6.
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
    /// The update closest to its neighbours.
    Krum,
    /// The mean of the updates closest to their neighbours.
    MultiKrum,
    /// The point with the smallest sum of distances to all updates.
    GeometricMedian,
}

impl Config {
    /// The method with its parameters.
    ///
    /// # Errors
    /// If a key is missing, or a key is set that the method does not use.
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
