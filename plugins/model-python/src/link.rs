//! A call to a process, and what may come before its answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plugin_api::{Buffer, Context, Error, ErrorKind, Level, Result};
use serde_json::{Value, json};

use crate::encode::Outgoing;
use crate::failure;
use crate::frame::{Broken, Frame, Reader, Writer};
use crate::process::Process;
use crate::segment::{self, Lease};

/// A process with the connection to it, and the memory that it has.
#[derive(Debug)]
pub(crate) struct Link {
    process: Process,
    reader: Reader,
    writer: Writer,
    calls: u64,
    /// The segments that the process has.
    known: BTreeSet<u64>,
    /// The leases that it has mapped, and how often.
    held: BTreeMap<u64, (Arc<Lease>, usize)>,
}

/// What a call returned.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) value: Value,
    lease: Option<Arc<Lease>>,
    pieces: Vec<Buffer>,
}

impl Answer {
    /// The memory at a place.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn buffer(&self, place: &Value) -> Result<Buffer> {
        let wrong = || Error::other(format!("the Python process returned memory at {place}, where none is"));
        let place: Vec<usize> = serde_json::from_value(place.clone()).map_err(|_| wrong())?;
        match (place[..].as_ref(), &self.lease) {
            ([_, _, 0], _) => Ok(Buffer::copy_of::<u8>(&[])),
            ([lease, offset, len], Some(own)) if *lease as u64 == own.number => own.buffer(*offset, *len),
            ([piece], _) => self.pieces.get(*piece).cloned().ok_or_else(wrong),
            _ => Err(wrong()),
        }
    }
}

/// A call to make.
pub(crate) struct Call<'a, 'c> {
    pub(crate) request: Value,
    pub(crate) memory: Outgoing,
    pub(crate) ctx: &'a Context<'c>,
    /// How long it may go on when it was asked to stop.
    pub(crate) grace: Duration,
}

/// Why a call has no answer.
pub(crate) enum End {
    Failed(Error),
    /// The process is no more, and why.
    Died(String, Error),
}

impl End {
    /// Of a process that has ended by itself.
    fn of(process: &mut Process, why: &str) -> Self {
        let (how, words) = process.obituary(why);
        let error = Error::new(ErrorKind::Other("python".to_owned()), how.clone());
        Self::Died(how, with_causes(error, words))
    }
}

/// A call while it is made.
struct Watch<'a, 'c> {
    ctx: &'a Context<'c>,
    grace: Duration,
    asked: Option<Instant>,
}

impl Link {
    pub(crate) fn new(process: Process, reader: Reader, writer: Writer) -> Self {
        Self { process, reader, writer, calls: 0, known: BTreeSet::new(), held: BTreeMap::new() }
    }

    /// The number of the process.
    pub(crate) fn process(&self) -> u32 {
        self.process.id()
    }

    /// Passes on what the process wrote by other ways than `print`.
    pub(crate) fn tell(&self, ctx: &Context<'_>) {
        self.process.lines().into_iter().for_each(|line| ctx.info(format_args!("{line}")));
    }

    /// Makes a call, after telling the process which objects it can let go of.
    pub(crate) fn call(&mut self, call: Call<'_, '_>, dropped: Vec<u64>) -> Result<Answer, End> {
        self.calls += 1;
        let Call { mut request, memory, ctx, grace } = call;
        request["call"] = self.calls.into();
        request["drop"] = dropped.into();
        request["forget"] = self.forget().into();
        let new: Vec<Arc<Lease>> = self.introduce(memory.leases.values());
        request["segments"] = new.iter().map(|lease| json!([lease.of_segment(), lease.size()])).collect();
        request["leases"] = memory.leases.values().map(|lease| json!([lease.number, lease.of_segment()])).collect();
        request["pieces"] = memory.pieces.iter().map(Buffer::len).collect();
        for lease in memory.leases.values() {
            self.held.entry(lease.number).or_insert_with(|| (lease.clone(), 0)).1 += 1;
        }
        let mut watch = Watch { ctx, grace, asked: None };
        self.send(&request, &new, &memory.pieces, &mut watch)?;
        drop(memory);
        let mut granted = None;
        loop {
            let frame = self.receive(&mut watch)?;
            let mut value = frame.value;
            if let Some(size) = value["need"].as_u64() {
                let lease = Lease::new(size as usize).map_err(|error| self.killed(error))?;
                let new = self.introduce([&lease]);
                let mut reply =
                    json!({ "lease": lease.number, "segment": lease.of_segment(), "forget": self.forget() });
                reply["segments"] = new.iter().map(|lease| json!([lease.of_segment(), lease.size()])).collect();
                self.send(&reply, &new, &[], &mut watch)?;
                granted = Some(lease);
            } else if let Some(key) = value["property"].as_str() {
                // A property of another type is none that the class can ask for.
                let property: Value = ctx.property(key).ok().flatten().unwrap_or_default();
                self.send(&json!({ "property": property }), &[], &[], &mut watch)?;
            } else if value["done"] == self.calls {
                for lease in value["released"].as_array().into_iter().flatten().filter_map(Value::as_u64) {
                    self.release(lease);
                }
                self.tell(ctx);
                return match value.get_mut("error") {
                    Some(error) => Err(End::Failed(failure::error(error))),
                    None => Ok(Answer { value: value["value"].take(), lease: granted, pieces: frame.pieces }),
                };
            } else {
                tell(ctx, &value);
            }
        }
    }

    fn release(&mut self, lease: u64) {
        if let Some((_, times)) = self.held.get_mut(&lease) {
            *times -= 1;
            if *times == 0 {
                self.held.remove(&lease);
            }
        }
    }

    /// The segments that the process has and that exist no more.
    fn forget(&mut self) -> Vec<u64> {
        let gone = segment::gone(&self.known);
        gone.iter().for_each(|number| {
            self.known.remove(number);
        });
        gone
    }

    /// Those leases whose segments the process does not have yet.
    fn introduce<'l>(&mut self, leases: impl IntoIterator<Item = &'l Arc<Lease>>) -> Vec<Arc<Lease>> {
        leases.into_iter().filter(|lease| self.known.insert(lease.of_segment())).cloned().collect()
    }

    fn send(
        &mut self,
        value: &Value,
        new: &[Arc<Lease>],
        pieces: &[Buffer],
        watch: &mut Watch<'_, '_>,
    ) -> Result<(), End> {
        let files: Vec<_> = new.iter().map(|lease| lease.file()).collect();
        let Self { process, writer, .. } = self;
        let sent = writer.send(value, &files, pieces, &mut || watch.patience(process));
        sent.map_err(|broken| self.broken(broken))
    }

    fn receive(&mut self, watch: &mut Watch<'_, '_>) -> Result<Frame, End> {
        let Self { process, reader, writer, calls, .. } = self;
        let received = reader.receive(&mut || {
            process.lines().into_iter().for_each(|line| watch.ctx.info(format_args!("{line}")));
            if watch.asked.is_none() && watch.ctx.cancelled() {
                watch.asked = Some(Instant::now());
                // If this fails, so does the next attempt to receive.
                let _ = writer.send(&json!({ "stop": *calls }), &[], &[], &mut || watch.patience(process));
            }
            watch.patience(process)
        });
        received.map_err(|broken| self.broken(broken))
    }

    fn broken(&mut self, broken: Broken<End>) -> End {
        match broken {
            Broken::Given(end) => end,
            Broken::Closed(why) => End::of(&mut self.process, &why),
        }
    }

    /// Ends the process, which waits for something that it cannot get.
    fn killed(&mut self, error: Error) -> End {
        self.process.kill();
        End::Died(error.to_string(), error)
    }
}

impl Watch<'_, '_> {
    /// An error if the process has ended, or goes on for too long after it was asked to stop.
    fn patience(&self, process: &mut Process) -> Result<(), End> {
        if self.asked.is_some_and(|asked| asked.elapsed() > self.grace) {
            process.kill();
            let how = "the Python process did not stop when it was asked to, and was killed";
            self.ctx.warn(format_args!("{how}"));
            return Err(End::Died(how.to_owned(), Error::cancelled()));
        }
        if process.ended().is_some() {
            return Err(End::of(process, "it has ended"));
        }
        Ok(())
    }
}

/// Passes on what a call says before its answer.
fn tell(ctx: &Context<'_>, value: &Value) {
    let text = |key: &str, place: usize| value[key][place].as_str().unwrap_or_default();
    let number = |key: &str, place: usize| value[key][place].as_u64().unwrap_or_default();
    if value.get("log").is_some() {
        let level = match text("log", 0) {
            "warn" => Level::Warn,
            "debug" => Level::Debug,
            _ => Level::Info,
        };
        ctx.log(level, format_args!("{}", text("log", 1)));
    } else if value.get("scalar").is_some() {
        ctx.scalar(text("scalar", 0), number("scalar", 1), text("scalar", 2).parse().unwrap_or(f64::NAN));
    } else if value.get("progress").is_some() {
        ctx.progress(number("progress", 0), number("progress", 1));
    } else if value.get("note").is_some() {
        ctx.note(text("note", 0), format_args!("{}", text("note", 1)));
    }
}

/// Adds lines as causes.
pub(crate) fn with_causes(error: Error, causes: impl IntoIterator<Item = String>) -> Error {
    causes.into_iter().filter(|line| !line.trim().is_empty()).fold(error, Error::because_of)
}
