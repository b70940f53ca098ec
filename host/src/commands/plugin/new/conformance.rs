//! Calls the plugin as the host does, and reports what violates the contract and why that matters. Pass a configuration
//! that uses your keys; `plugin_testkit` has more checks.

use {{crate}}::component;
use plugin_testkit as testkit;
use serde_json::json;

#[test]
fn conforms() {
    {{check}}
}
