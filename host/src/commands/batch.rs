//! Several runs in child processes of this program, several at a time.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use plugin_api::Level;

use crate::artefacts::names;
use crate::artefacts::run_dir::Existing;
use crate::artefacts::series::log;
use crate::error::{CliError, Diagnostic, Exit};
use crate::experiment::config::Federation;
use crate::federation::history::short;
use crate::federation::summary::Summary;
use crate::terminal::console::Console;
use crate::terminal::signals::Stop;

/// How often the processes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How many runs an error message names.
const NAMED: usize = 10;

/// A run of a batch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Member {
    /// Its folder in the batch's directory.
    pub folder: String,
    /// Its own values, as arguments of `--set`. Paths in them are relative to the experiment's file.
    pub overrides: Vec<String>,
}

/// How a run of a batch ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ended {
    /// It has its results, from now or from before.
    Finished,
    /// It was stopped and can be resumed, or was not started.
    Stopped,
    /// It was given up for this reason.
    GivenUp(String),
    /// It failed with this exit code and message.
    Failed(i32, String),
}

/// What all runs of a batch have in common.
pub(crate) struct Batch<'a> {
    /// The batch's directory.
    pub folder: &'a Path,
    /// The experiment's file and the options of `fedplug run` that all runs have.
    pub arguments: Vec<OsString>,
    /// How many runs work at the same time.
    pub jobs: usize,
    /// What to do with runs that are there already.
    pub existing: Existing,
    /// For messages.
    pub console: &'a Console,
    /// Whether a stop was requested.
    pub stop: &'a Stop,
}

/// Says of runs at work, by their indices, which ones to give up and why.
pub(crate) type Judge<'j> = dyn FnMut(&[usize]) -> Vec<(usize, String)> + 'j;

/// A run at work.
struct Working {
    index: usize,
    child: Child,
    begun: Instant,
    /// Why it was asked to stop, if it is given up.
    given_up: Option<String>,
}

impl Batch<'_> {
    /// Runs all members, and returns how each ended. `judge` is asked from time to time which ones to give up.
    ///
    /// # Errors
    /// If a process cannot be started.
    pub(crate) fn run(&self, members: &[Member], judge: &mut Judge<'_>) -> Result<Vec<Ended>, CliError> {
        let mut ended: Vec<Option<Ended>> = vec![None; members.len()];
        let (mut working, mut waiting, mut told) = (Vec::<Working>::new(), 0..members.len(), false);
        loop {
            while working.len() < self.jobs && !self.stop.asked() {
                let Some(index) = waiting.next() else { break };
                let member = &members[index];
                if self.existing == Existing::Resume && self.path(member).join(names::SUMMARY).is_file() {
                    ended[index] = Some(Ended::Finished);
                    continue;
                }
                match self.start(member) {
                    Ok(child) => working.push(Working { index, child, begun: Instant::now(), given_up: None }),
                    Err(failure) => {
                        working.iter_mut().for_each(|run| ask_to_stop(&run.child));
                        return Err(failure);
                    }
                }
            }
            if self.stop.asked() && !std::mem::replace(&mut told, true) {
                working.iter().for_each(|run| ask_to_stop(&run.child));
            }
            for at in (0..working.len()).rev() {
                let status =
                    working[at].child.try_wait().map_err(|e| CliError::io(self.folder, "wait for a run", &e))?;
                let Some(status) = status else { continue };
                let run = working.swap_remove(at);
                let end = self.end(&members[run.index], status.code().unwrap_or(-1), run.given_up);
                ended[run.index] = Some(end);
                self.tell(&members[run.index], &ended, run.index, run.begun);
            }
            if working.is_empty() && (waiting.is_empty() || self.stop.asked()) {
                return Ok(ended.into_iter().map(|end| end.unwrap_or(Ended::Stopped)).collect());
            }
            let at_work: Vec<usize> =
                working.iter().filter(|run| run.given_up.is_none()).map(|run| run.index).collect();
            for (index, why) in judge(&at_work) {
                if let Some(run) = working.iter_mut().find(|run| run.index == index) {
                    ask_to_stop(&run.child);
                    run.given_up = Some(why);
                }
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn path(&self, member: &Member) -> PathBuf {
        self.folder.join(&member.folder)
    }

    fn start(&self, member: &Member) -> Result<Child, CliError> {
        let path = log(self.folder, &member.folder);
        let failed = |doing: &str, e: &std::io::Error| CliError::io(&path, doing, e);
        // A resumed run goes on with its log.
        let resumes = self.existing == Existing::Resume;
        let mut options = OpenOptions::new();
        let file = options.create(true).write(true).truncate(!resumes).append(resumes).open(&path);
        let file = file.map_err(|e| failed("write the log of the run", &e))?;
        let program = std::env::current_exe().map_err(|e| failed("find the program of the run", &e))?;
        let mut command = Command::new(program);
        command.arg("run").args(&self.arguments).arg("--once").arg("--output").arg(self.folder);
        command.arg("--name").arg(&member.folder);
        for set in &member.overrides {
            command.arg("--set-in-file").arg(set);
        }
        let begun = self.path(member).join(names::MANIFEST).is_file();
        command.args(match self.existing {
            Existing::Resume if begun => Some("--resume"),
            Existing::Replace => Some("--force"),
            _ => None,
        });
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        command.spawn().map_err(|e| failed("start the run", &e))
    }

    fn end(&self, member: &Member, code: i32, given_up: Option<String>) -> Ended {
        match (code, given_up) {
            (0, _) => Ended::Finished,
            (_, Some(why)) => Ended::GivenUp(why),
            (code, None) if code == Exit::Stopped as i32 => Ended::Stopped,
            (code, None) => {
                let text = std::fs::read_to_string(log(self.folder, &member.folder)).unwrap_or_default();
                Ended::Failed(code, last_error(&text))
            }
        }
    }

    /// Shows a line for a run that ended.
    fn tell(&self, member: &Member, ended: &[Option<Ended>], index: usize, begun: Instant) {
        let (done, all) = (ended.iter().flatten().count(), ended.len());
        let (name, seconds) = (&member.folder, begun.elapsed().as_secs_f64());
        let (level, what) = match &ended[index] {
            Some(Ended::Finished) => {
                let summary = Summary::read(&self.path(member)).ok();
                let score = summary.and_then(|summary| summary.last.score);
                let score = score.map_or_else(String::new, |score| format!(", score {}", short(score)));
                (Level::Info, format!("finished in {seconds:.1} s{score}"))
            }
            Some(Ended::Stopped) | None => (Level::Info, "stopped".to_owned()),
            Some(Ended::GivenUp(why)) => (Level::Info, format!("given up: {why}")),
            Some(Ended::Failed(..)) => {
                (Level::Warn, format!("failed; its log is {}", log(self.folder, name).display()))
            }
        };
        self.console.log(level, &format!("{name}: {what} ({done} of {all})"));
    }

    /// The error of a batch whose runs have ended so, if not all have finished or were given up. `resume` says how the rest
    /// is run.
    pub(crate) fn verdict(&self, members: &[Member], ended: &[Ended], resume: &str) -> Result<(), CliError> {
        if self.stop.asked() {
            let done = ended.iter().filter(|end| **end == Ended::Finished).count();
            let what = format!("stopped on request, with {done} of {} runs finished", ended.len());
            return Err(CliError::stopped(Diagnostic::new(what).hint(resume)));
        }
        let mut failures: Vec<(&str, Vec<&str>, i32)> = Vec::new();
        for (member, end) in members.iter().zip(ended) {
            let (code, text) = match end {
                Ended::Finished | Ended::GivenUp(_) => continue,
                Ended::Stopped => (1, "stopped by another process"),
                Ended::Failed(code, text) => (*code, text.as_str()),
            };
            match failures.iter_mut().find(|(other, ..)| *other == text) {
                Some((_, names, _)) => names.push(&member.folder),
                None => failures.push((text, vec![&member.folder], code)),
            }
        }
        if failures.is_empty() {
            return Ok(());
        }
        let failed: usize = failures.iter().map(|(_, names, _)| names.len()).sum();
        let mut report = Diagnostic::new(format!("{failed} of {} runs failed", ended.len()));
        for (text, names, _) in &failures {
            let more = names.len().checked_sub(NAMED + 1).map(|more| format!(" and {} more", more + 1));
            let named = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
            report = report.cause(format!("{named}{}: {text}", more.unwrap_or_default()));
        }
        // An error in the experiment is the same in all runs.
        let usage = failed == ended.len() && failures.iter().all(|(_, _, code)| *code == Exit::Usage as i32);
        Err(if usage { CliError::usage(report) } else { CliError::run(report.hint(resume)) })
    }
}

/// Asks a process to stop, as Ctrl-C does. One that has ended is not asked.
fn ask_to_stop(child: &Child) {
    #[cfg(unix)]
    if let Some(id) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
    }
    #[cfg(not(unix))]
    let _ = child;
}

/// The last error in a log, without `error: `.
fn last_error(log: &str) -> String {
    let lines: Vec<&str> = log.trim_end().lines().collect();
    let last = lines.iter().rposition(|line| line.starts_with("error: "));
    let from = last.unwrap_or_else(|| lines.len().saturating_sub(1));
    let text = lines[from..].join("\n");
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    if text.is_empty() { "it ended without a message".to_owned() } else { text.to_owned() }
}

/// How many runs work at the same time, and how many clients in each, on this many cores. `clients` is the number that each
/// run is to have at work, or 0 to choose it, and `jobs` that of runs.
pub(crate) fn share_cores(cores: usize, runs: usize, plan: &Federation, jobs: Option<usize>) -> (usize, usize) {
    let (per_client, clients) = (plan.threads_per_client.max(1), plan.threads);
    let jobs = jobs.unwrap_or_else(|| match (uses_gpus(&plan.devices), clients) {
        // Each run would fill the same GPUs.
        (true, _) => 1,
        (false, 0) => cores / per_client,
        (false, clients) => cores / (clients * per_client),
    });
    let jobs = jobs.clamp(1, runs.max(1));
    let clients = if clients == 0 { (cores / (jobs * per_client)).max(1) } else { clients };
    (jobs, clients)
}

/// Whether runs with these devices may compute on a GPU.
fn uses_gpus(devices: &[String]) -> bool {
    let auto = || Path::new("/dev/nvidiactl").exists();
    devices.iter().any(|device| device != "cpu" && (device != "auto" || auto()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_their_clients_share_the_cores() {
        let plan = |threads: usize, per_client: usize, device: &str| {
            let keys = serde_json::json!({ "rounds": 1, "threads": threads, "threads-per-client": per_client,
                "devices": [device] });
            plugin_api::config::read::<Federation>(&keys).unwrap()
        };
        assert_eq!(share_cores(8, 15, &plan(0, 1, "cpu"), None), (8, 1));
        assert_eq!(share_cores(8, 3, &plan(0, 1, "cpu"), None), (3, 2));
        assert_eq!(share_cores(8, 15, &plan(0, 2, "cpu"), None), (4, 1));
        assert_eq!(share_cores(8, 15, &plan(3, 1, "cpu"), None), (2, 3));
        assert_eq!(share_cores(2, 15, &plan(3, 1, "cpu"), None), (1, 3));
        assert_eq!(share_cores(8, 15, &plan(0, 1, "cuda:0"), None), (1, 8));
        assert_eq!(share_cores(8, 15, &plan(0, 1, "cuda:0"), Some(2)), (2, 4));
        assert_eq!(share_cores(8, 15, &plan(0, 1, "cpu"), Some(99)), (15, 1));
    }

    #[test]
    fn the_error_of_a_run_is_the_last_of_its_log() {
        assert_eq!(last_error("round 1/2\nerror: a\n  hint: b\n"), "a\n  hint: b");
        assert_eq!(last_error("error: first\nround\nerror: last\n"), "last");
        assert_eq!(last_error("killed\n"), "killed");
        assert_eq!(last_error(""), "it ended without a message");
    }
}
