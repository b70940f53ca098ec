//! Stdout and stderr that are closed, full, or no longer read.

#![cfg(unix)]

use std::fs::File;
use std::io::{BufRead as _, BufReader, PipeWriter, pipe};
use std::process::{Command, Stdio};

use crate::support::Bench;

/// The code that the README tells of a process whose stdout was closed.
const CLOSED_PIPE: i32 = 141;

/// A pipe that nobody reads.
fn unread() -> PipeWriter {
    pipe().unwrap().1
}

/// A file that takes nothing.
fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// How a shell command ends in which `fedplug` stands for the command.
fn shell(bench: &Bench, arguments: &[&str], redirection: &str) -> i32 {
    let fedplug = bench.command(arguments);
    let mut sh = Command::new("sh");
    sh.arg("-c").arg(format!("exec \"$0\" \"$@\" {redirection}")).arg(fedplug.get_program()).args(fedplug.get_args());
    sh.current_dir(fedplug.get_current_dir().unwrap())
        .env_remove("FEDPLUG_PLUGIN_PATH")
        .status()
        .unwrap()
        .code()
        .unwrap()
}

const RUN: [&str; 4] = ["run", "configs/linear.toml", "--set", "federation.rounds=3"];

#[test]
fn a_run_goes_on_whatever_becomes_of_stderr() {
    let done = |name: &str, run: &dyn Fn(&Bench, &[&str]) -> Option<i32>| {
        let bench = Bench::new();
        // Everything is told, and from several threads.
        let code = run(&bench, &[&RUN[..], &["--name", name, "-vv", "--threads", "3"]].concat());
        assert_eq!((code, &bench.summary(name)["rounds"]), (Some(0), &3.into()), "{name}");
    };
    done("closed", &|bench, run| Some(shell(bench, run, "2>&-")));
    done("both", &|bench, run| Some(shell(bench, run, ">&- 2>&-")));
    done("unread", &|bench, run| bench.command(run).stderr(unread()).status().unwrap().code());
    // As `2>&1 | head -1` does.
    done("head", &|bench, run| {
        let mut child = bench.command(run).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty());
        child.wait().unwrap().code()
    });
    #[cfg(target_os = "linux")]
    done("full", &|bench, run| bench.command(run).stderr(full()).status().unwrap().code());
}

#[test]
fn an_error_that_nobody_reads_keeps_its_exit_code() {
    let bench = Bench::new();
    let check = ["check", "no-such-file.toml"];
    assert_eq!(shell(&bench, &check, "2>&-"), 2);
    assert_eq!(bench.command(&check).stderr(unread()).status().unwrap().code(), Some(2));
    assert_eq!(bench.command(&["no-such-command"]).stderr(unread()).status().unwrap().code(), Some(2));
}

#[test]
fn an_answer_that_nobody_reads_ends_quietly_and_one_that_finds_no_room_does_not() {
    let bench = Bench::new();
    bench.run(&RUN[1..]);
    let run = bench.path("runs/linear").to_str().unwrap().to_owned();
    let rows = bench.write("rows.csv", "heavy,light\nEVQ,DIQ\nQVQ,EIV\n");
    let figures = bench.path("figures").to_str().unwrap().to_owned();
    let commands: [&[&str]; 7] = [
        &["check", "configs/linear.toml"],
        &["plugin", "list"],
        &["plugin", "inspect", "linear"],
        &["schema", "configs/linear.toml"],
        &["compare", &run],
        &["predict", &run, rows.to_str().unwrap(), "--client", "tm"],
        &["plot", &run, "--tag", "RMSE/local_test", "--output", &figures],
    ];
    for command in commands {
        let told = bench.command(command).stdout(unread()).output().unwrap();
        let said = String::from_utf8_lossy(&told.stderr);
        assert_eq!((told.status.code(), said.contains("error")), (Some(CLOSED_PIPE), false), "{command:?}: {said}");
        assert_eq!(shell(&bench, &[command, &["--force"][..usize::from(command[0] == "plot")]].concat(), ">&-"), 0);
        #[cfg(target_os = "linux")]
        {
            let force = &["--force"][..usize::from(command[0] == "plot")];
            let told = bench.command(&[command, force].concat()).stdout(full()).output().unwrap();
            let said = String::from_utf8_lossy(&told.stderr);
            assert!(told.status.code() == Some(1) && said.contains("error: cannot write "), "{command:?}: {said}");
        }
    }
}
