//! `make install`: the program below a prefix, and what shells and `man` read about it.

use std::path::Path;
use std::process::Command;

use clap::CommandFactory as _;

use crate::support::{Bench, files, libraries, root};

fn make(bench: &Bench, target: &str) {
    let mut make = Command::new("make");
    make.args([target, "PREFIX=/opt/fedplug", "LIBTORCH="]).arg(format!("BUILT={}", libraries().display()));
    // No part of the build that runs this test.
    make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").arg(format!("DESTDIR={}", bench.path("dest").display()));
    let told = make.current_dir(root()).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
}

/// What a program says in an empty environment.
fn alone(program: &Path, arguments: &[&str], folder: &Path) -> String {
    let told = Command::new(program).args(arguments).env_clear().current_dir(folder).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    String::from_utf8(told.stdout).unwrap()
}

#[test]
fn an_installed_program_finds_its_plugins_and_goes_without_a_trace() {
    let bench = Bench::new();
    make(&bench, "install");
    let prefix = bench.path("dest/opt/fedplug");
    let program = prefix.join("bin/fedplug");
    let file = root().join("configs/linear.toml");
    let run = ["run", file.to_str().unwrap(), "--set", "federation.rounds=2"];
    alone(&program, &run, &bench.path(""));
    assert!(bench.path("runs/linear/summary.json").is_file());
    let listed = alone(&program, &["plugin", "list"], &bench.path(""));
    assert!(listed.contains("lib/fedplug") && listed.contains("secure"), "{listed}");

    for command in fedplug::Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        let page = prefix.join(format!("share/man/man1/fedplug-{}.1", command.get_name()));
        let text = std::fs::read_to_string(&page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
        assert!(text.contains(".TH") && text.contains(".SH SYNOPSIS"), "{text}");
    }
    let page = std::fs::read_to_string(prefix.join("share/man/man1/fedplug-plugin-inspect.1")).unwrap();
    assert!(page.contains("fedplug plugin inspect") || page.contains("fedplug\\-plugin\\-inspect"), "{page}");
    let script =
        "source \"$1\"; COMP_WORDS=(fedplug comp); COMP_CWORD=1; _fedplug fedplug comp fedplug; echo ${COMPREPLY[@]}";
    let bash = prefix.join("share/bash-completion/completions/fedplug");
    let completed = alone(Path::new("/bin/bash"), &["-c", script, "bash", bash.to_str().unwrap()], root());
    assert_eq!(completed, "compare completions\n");
    let text = std::fs::read_to_string(prefix.join("share/doc/fedplug/THIRD-PARTY.txt")).unwrap();
    assert!(text.contains("serde ") && text.contains("Permission is hereby granted"));

    // Somebody's own plugin stays, also when another version replaces this one.
    std::fs::write(prefix.join("lib/fedplug/libmodel_own.so"), "").unwrap();
    make(&bench, "install");
    make(&bench, "uninstall");
    assert_eq!(files(&prefix), [prefix.join("lib/fedplug/libmodel_own.so")]);
}

#[test]
fn every_shell_has_its_completions() {
    let bench = Bench::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let told = bench.fedplug(&["completions", shell]);
        assert!(told.code == 0, "{}", told.stderr);
        assert!(told.stdout.contains("predict") && told.stdout.contains("superlink"), "{}", told.stdout);
    }
    assert_eq!(bench.fedplug(&["completions", "tcsh"]).code, 2);
}
