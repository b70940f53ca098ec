//! Plugins of this interface in a host that knows a later one, and the other way round.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::process::Command;

use crate::support::{Bench, libraries};

#[test]
fn a_later_host_loads_plugins_of_its_interface_and_of_this_one() {
    let folder = libraries();
    let library = |name: &str| folder.join(format!("{DLL_PREFIX}{name}{DLL_SUFFIX}"));
    let mut later = Command::new(folder.join(format!("fixture-later{}", std::env::consts::EXE_SUFFIX)));
    let told = later.args(["model_newer", "aggregator_fedavg", "model_linear"].map(library)).output().unwrap();
    let (out, err) = (String::from_utf8(told.stdout).unwrap(), String::from_utf8(told.stderr).unwrap());
    assert!(told.status.success(), "{err}");
    assert_eq!(
        out,
        "interface 9: 41 is told as 41\ninterface 1: aggregator-fedavg makes 2 of 1 and 3\ninterface 1: model-linear\n"
    );
    // The text of what this host says of the later plugin is a snapshot in `faults`.
    let bench = Bench::new();
    let path = bench.write(
        "x.toml",
        "name = \"x\"\n[federation]\nrounds = 1\n[dataset]\nplugin = \"flab\"\nroot = \"configs/sample\"\n\
         [model]\nplugin = \"newer\"\n[aggregator]\nplugin = \"fedavg\"\n",
    );
    let told = bench.fedplug(&["check", path.to_str().unwrap()]);
    assert_eq!(told.code, 2);
    let both = [format!("plugin-api {}", env!("CARGO_PKG_VERSION")), "plugin-api 9.0.0".to_owned()];
    assert!(both.iter().all(|version| told.stderr.contains(version)), "{}", told.stderr);
}
