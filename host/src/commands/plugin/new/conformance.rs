//! Drives the plugin as a host does, and says what it breaks and why that matters. Give it a configuration that uses
//! your keys; `plugin_testkit` has more.

use {{crate}}::component;
use plugin_testkit as testkit;
use serde_json::json;

#[test]
fn conforms() {
    {{check}}
}
