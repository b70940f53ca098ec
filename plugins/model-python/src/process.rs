//! Starting a process, ending it, and what it said last.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, PipeReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use plugin_api::{Error, Result};

use crate::config::{Launch, reason};

/// How many lines are kept as last words.
const LINES: usize = 30;
/// The longest line that is kept, in bytes.
const LONGEST: u64 = 2000;

const BOOT: &str = include_str!("boot.py");

/// The variables by which libraries find out how many threads they may use.
const THREADS: [&str; 4] = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"];

/// A process.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    said: Arc<Mutex<Said>>,
}

/// What it wrote to its standard output and error by other ways than `print`.
#[derive(Debug, Default)]
struct Said {
    /// Lines that nobody has been told yet.
    new: VecDeque<String>,
    last: VecDeque<String>,
    closed: bool,
}

type Job = (Command, Sender<std::io::Result<Child>>);

/// The thread that starts all processes. It never ends: Linux signals a child that its parent died when the thread ends
/// that started it.
static STARTER: LazyLock<Sender<Job>> = LazyLock::new(|| {
    let (jobs, queue) = channel::<Job>();
    std::thread::spawn(move || {
        for (mut command, answer) in queue {
            // Whoever asked waits for it.
            let _ = answer.send(command.spawn());
        }
    });
    jobs
});

impl Process {
    /// Starts an interpreter. Returns the connection to it as well.
    ///
    /// # Errors
    /// If there is no such program.
    pub(crate) fn start(launch: &Launch) -> Result<(Self, UnixStream)> {
        let failed = |error: &std::io::Error| {
            let what = format!("{} cannot be started: {}", launch.python.display(), reason(error));
            Error::config(what).at_key("python").help("name an interpreter with the key `python`, or in FEDPLUG_PYTHON")
        };
        let (ours, theirs) = UnixStream::pair().map_err(|error| failed(&error))?;
        let (output, input) = std::io::pipe().map_err(|error| failed(&error))?;
        let again = input.try_clone().map_err(|error| failed(&error))?;
        let mut command = Command::new(&launch.python);
        command.args(["-X", "faulthandler", "-c", BOOT]);
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(input).stderr(again);
        // An interrupt from the terminal reaches the program alone, which decides.
        command.process_group(0);
        let threads = launch.threads.max(1).to_string();
        command.envs(THREADS.map(|name| (name, &threads)));
        command.env("PYTHONHASHSEED", "0").env("PYTHONUNBUFFERED", "1");
        if launch.deterministic {
            command.env("CUBLAS_WORKSPACE_CONFIG", ":4096:8");
        }
        let (answer, started) = channel();
        let gone = || Error::other("the thread that starts Python has ended");
        STARTER.send((command, answer)).map_err(|_| gone())?;
        let child = started.recv().map_err(|_| gone())?.map_err(|error| failed(&error))?;
        let said = Arc::new(Mutex::new(Said::default()));
        let heard = said.clone();
        std::thread::spawn(move || listen(output, &heard));
        Ok((Self { child, said }, ours))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lines since the last call.
    pub(crate) fn lines(&self) -> VecDeque<String> {
        std::mem::take(&mut self.said().new)
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Kills it and what it has started.
    pub(crate) fn kill(&mut self) {
        if let Some(group) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end, kills what is left of it, and says how it ended, with its last words. `why` says what is wrong with
    /// one that has not ended by itself.
    pub(crate) fn obituary(&mut self, why: &str) -> (String, Vec<String>) {
        let begun = Instant::now();
        let status = loop {
            match self.ended() {
                Some(status) => break Some(status),
                None if begun.elapsed() > Duration::from_secs(1) => break None,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        self.kill();
        let begun = Instant::now();
        while !self.said().closed && begun.elapsed() < Duration::from_millis(500) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // A shell between the two, such as a shim of pyenv, tells a signal as its number and 128.
        let signal =
            |status: ExitStatus| status.signal().or(status.code().map(|code| code - 128).filter(|code| *code > 0));
        let how = match status.map(|status| (status.code(), signal(status))) {
            Some((Some(code), None)) => format!("ended with exit code {code}"),
            Some((_, Some(signal))) => format!("was killed by signal {signal}{}", name(signal)),
            _ => format!("was ended: {why}"),
        };
        // Of Python's stack at a fault, what is not the user's.
        let own = ["File \"<fedplug>/", "File \"<string>\"", "Extension modules:"];
        let words = self.said().last.drain(..).filter(|line| !own.iter().any(|own| line.contains(own))).collect();
        (format!("the Python process {how}"), words)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn name(signal: i32) -> &'static str {
    match signal {
        4 => " (illegal instruction)",
        6 => " (abort)",
        8 => " (arithmetic error)",
        9 => ", as the system does when memory runs out",
        11 => " (segmentation fault)",
        _ => "",
    }
}

fn listen(output: PipeReader, said: &Mutex<Said>) {
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    // Longer lines come in pieces.
    while std::io::Read::take(&mut reader, LONGEST).read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        let Said { new, last, .. } = &mut *said;
        for lines in [new, last] {
            lines.push_back(text.clone());
            if lines.len() > LINES {
                lines.pop_front();
            }
        }
        line.clear();
    }
    said.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
}

/// The devices that a class may compute on: the CPU, and the GPUs that the system has. Whether the class uses one is up to
/// it.
pub(crate) fn devices() -> Vec<String> {
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
    let gpus = match visible.as_deref().map(str::trim) {
        Some("" | "-1") => 0,
        Some(listed) => listed.split(',').count(),
        None => (0..).take_while(|number| std::path::Path::new(&format!("/dev/nvidia{number}")).exists()).count(),
    };
    std::iter::once("cpu".to_owned()).chain((0..gpus).map(|number| format!("cuda:{number}"))).collect()
}
