//! Drives the plugin as a host does, and says what it breaks and why that matters. Give it a configuration that uses
//! your keys; `plugin_api::testkit` has more.

use {{crate}}::component;
use plugin_api::testkit;
use serde_json::json;

#[test]
fn conforms() {
    {{check}}
}
