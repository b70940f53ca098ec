//! A bounded part of the fault campaign in `tests/campaign`: runs that are interrupted in every way and resumed leave what
//! healthy runs leave. `make campaign` is the whole.

use std::process::Command;

use crate::support::{libraries, root, skip};

/// Runs the campaign. Returns whether nothing differed, and what it printed.
fn campaign(arguments: &[&str]) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    let mut campaign = Command::new(python);
    campaign.arg(root().join("tests/campaign/campaign.py")).arg("--fedplug").arg(libraries().join("fedplug"));
    campaign.args(arguments).args(["--jobs", "2", "--folder"]).arg(folder.path()).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = campaign.current_dir(root()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), told)
}

#[test]
#[cfg(target_os = "linux")]
fn interrupted_runs_leave_what_healthy_runs_leave() {
    if !Command::new("cc").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return skip("there is no C compiler for the campaign's shim");
    }
    // Those that need no libtorch.
    let linear = "plain,memory,idle,early,lost,long-rounds,replaced,secure";
    let (success, told) = campaign(&["--kills", "15", "--seconds", "90", "--experiments", linear]);
    assert!(success, "{told}");
    let table = told.lines().find(|line| line.starts_with("all")).unwrap_or_else(|| panic!("{told}"));
    let numbers: Vec<u32> = table.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(numbers[1] >= 3, "hardly anything was interrupted: {told}");
    // On a disk that lies nothing survives, and the campaign says so.
    let lies = ["--kills", "6", "--seconds", "60", "--experiments", "plain", "--kinds", "power", "--disk-lies"];
    let (success, told) = campaign(&lies);
    assert!(!success && told.contains("case "), "{told}");
}
