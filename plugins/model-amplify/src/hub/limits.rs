//! Time limits and cancellation for hf-hub, whose requests have none: a request runs in a thread of its own, and whoever
//! waits for it gives up if nothing comes for too long, or the run is to stop.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hf_hub::api::Progress;
use plugin_api::{Context, Error, ErrorKind, Result};

/// How often a wait looks around.
const TICK: Duration = Duration::from_millis(100);

/// The default of [`VARIABLE`], in seconds.
const DEFAULT: u64 = 60;

/// The variable that sets how long the hub may send nothing, in seconds: Hugging Face's name.
pub(super) const VARIABLE: &str = "HF_HUB_DOWNLOAD_TIMEOUT";

/// A request that was given up and still waits, and why. It holds the file's lock, so others would wait for it.
static GIVEN_UP: Mutex<Option<(JoinHandle<()>, Error)>> = Mutex::new(None);

/// What a request tells meanwhile.
pub(super) enum News {
    /// The size of the file in bytes.
    Size(u64),
    /// So many bytes came.
    Bytes(u64),
}

/// Sends the progress of a download. It ends the request if nobody waits for it any more.
pub(super) struct Teller(Sender<News>);

impl Teller {
    fn tell(&self, news: News) {
        if self.0.send(news).is_err() {
            // hf-hub asks nobody whether to go on. Its lock and its files are closed on the way.
            resume_unwind(Box::new("nobody waits for this download"));
        }
    }
}

impl Progress for Teller {
    fn init(&mut self, size: usize, _: &str) {
        self.tell(News::Size(size as u64));
    }
    fn update(&mut self, size: usize) {
        self.tell(News::Bytes(size as u64));
    }
    fn finish(&mut self) {}
}

/// How long the hub may send nothing.
///
/// # Errors
/// If the variable is not a number of seconds.
pub(super) fn longest_silence() -> Result<Duration> {
    let Some(text) = std::env::var_os(VARIABLE).filter(|text| !text.is_empty()) else {
        return Ok(Duration::from_secs(DEFAULT));
    };
    let seconds = text.to_str().and_then(|text| text.trim().parse().ok()).filter(|seconds| *seconds > 0);
    seconds.map(Duration::from_secs).ok_or_else(|| {
        let what = format!("`{VARIABLE}` must be a number of seconds, at least 1, not `{}`", text.display());
        Error::config(what).at_key("pretrained")
    })
}

/// Fails if a request that was given up is still waiting.
///
/// # Errors
/// Why it was given up.
pub(super) fn check_given_up() -> Result<()> {
    let mut given_up = GIVEN_UP.lock().unwrap_or_else(PoisonError::into_inner);
    match &*given_up {
        Some((thread, error)) if !thread.is_finished() => Err(error.clone()),
        _ => {
            *given_up = None;
            Ok(())
        }
    }
}

/// Makes a request, and passes on what it tells. `what` is requested, for the error.
///
/// # Errors
/// If nothing comes for `silence`, or the run is to stop.
pub(super) fn request<T: Send + 'static>(
    what: &str,
    silence: Duration,
    ctx: &Context<'_>,
    mut news: impl FnMut(News),
    request: impl FnOnce(Teller) -> T + Send + 'static,
) -> Result<T> {
    let (sender, told) = channel();
    let (answer, answered) = channel();
    let thread = std::thread::spawn(move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| request(Teller(sender))));
        let _ = answer.send(outcome);
    });
    match wait(silence, ctx, &told, &mut news) {
        Ok(()) => {
            let outcome: std::thread::Result<T> = answered.recv().unwrap_or_else(|lost| Err(Box::new(lost)));
            return outcome.map_err(|panic| resume_unwind(panic));
        }
        Err(Some(cancelled)) => return Err(cancelled),
        Err(None) => {}
    }
    let seconds = silence.as_secs();
    let given_up = Error::new(ErrorKind::Io, format!("the hub has sent nothing of {what} for {seconds} s"));
    let given_up = given_up.at_key("pretrained").help(format!(
        "check the network, `HF_ENDPOINT` and the proxy variables, and run again, which resumes the download; \
         `{VARIABLE}` sets another limit in seconds"
    ));
    *GIVEN_UP.lock().unwrap_or_else(PoisonError::into_inner) = Some((thread, given_up.clone()));
    Err(given_up)
}

/// Waits until the request has ended. None as an error is too long a silence.
fn wait(
    silence: Duration,
    ctx: &Context<'_>,
    told: &Receiver<News>,
    news: &mut impl FnMut(News),
) -> Result<(), Option<Error>> {
    let mut last = Instant::now();
    loop {
        match told.recv_timeout(TICK) {
            Ok(something) => {
                last = Instant::now();
                news(something);
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) if last.elapsed() > silence => return Err(None),
            Err(RecvTimeoutError::Timeout) => {}
        }
        ctx.check().map_err(Some)?;
    }
}
