//! The plugin keeps the contract, in process and as a built library.
#![allow(clippy::unwrap_used)]

use plugin_api::Kind;
use plugin_testkit::{self as testkit, AggregatorCheck};
use serde_json::json;

#[test]
fn conforms() {
    let library = testkit::built("aggregator-secure");
    let built = [Kind::Aggregator, Kind::Filter].map(|kind| testkit::load(&library, kind).unwrap());
    for [aggregator, filter] in [[aggregator_secure::aggregator(), aggregator_secure::filter()], built] {
        // The result does not depend on where the masks come from, so that it is the same bits in either case.
        for reproducible in [true, false] {
            let config = json!({ "reproducible": reproducible });
            testkit::check_configuration(&filter, &config).assert();
            let check = AggregatorCheck::new(&aggregator, &json!({ "threshold": 4, "bits": 20 }));
            check.with_filter(&filter, &config).check().assert();
        }
        // With noise the result is the same for the same seed only where the noise comes from it.
        let config =
            json!({ "reproducible": true, "noise-multiplier": 0.5, "minimum": 2, "threshold": 3, "colluding": 1 });
        testkit::check_configuration(&filter, &config).assert();
        let noise = json!({ "threshold": 4, "clip-norm": 1.0, "noise-multiplier": 0.5, "delta": 1e-5 });
        AggregatorCheck::new(&aggregator, &noise).with_filter(&filter, &config).check().assert();
    }
}
