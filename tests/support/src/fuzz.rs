//! Fuzzing of decoders: whatever a file or message holds, it is read or refused. There is no panic, no hang, and no more
//! memory than a stated multiple of its length.
//!
//! Inputs are the files of `tests/corpus/TARGET` as they are, and changes of them. The same are tried in every run of the
//! tests; `FEDPLUG_FUZZ` tries as many times more, which are others each time. An input that fails is made small, and
//! its path is in the message: mend the fault, and put the input into the corpus, where it stays.

mod memory;

use std::cell::Cell;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{TestCaseError, TestError, TestRunner};

/// A decoder that takes longer hangs. Inputs are short, so that this is a thousand times what one of them takes.
const HANGS: Duration = Duration::from_secs(30);

/// The longest input, in bytes.
const LONGEST: usize = 1 << 18;

/// How much memory a decoder may hold at a time, in bytes, on the thread that calls it.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Whatever the input.
    pub base: usize,
    /// For each byte of the input.
    pub per_byte: usize,
}

/// Calls `decode` with the corpus of a target, and with `count` changes of its files. It returns whether it has read the
/// input or refused it.
///
/// # Panics
/// If there is no corpus or all of it is refused, or `decode` panics or takes more memory than `memory` says. If `decode`
/// hangs, the process ends.
pub fn fuzz(target: &str, count: u32, memory: Memory, decode: impl Fn(&[u8]) -> bool) {
    fuzz_within(HANGS, target, count, memory, decode);
}

fn fuzz_within(hangs: Duration, target: &str, count: u32, memory: Memory, decode: impl Fn(&[u8]) -> bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target);
    let corpus = read_corpus(&folder);
    let failed = failing(target);
    do_not_count_backtraces();
    let started = Instant::now();
    let (tried, read) = (Cell::new(0_u64), Cell::new(0_u64));
    let most = Cell::new(0.0_f64);
    let begun: Mutex<Option<Instant>> = Mutex::new(None);
    let run = |input: &[u8]| -> Result<(), TestCaseError> {
        // An input that ends the process is in the file.
        overwrite(&failed, input);
        let set = |time| *begun.lock().expect("nobody panics with it") = time;
        set(Some(Instant::now()));
        let mut outcome = Ok(false);
        let held = memory::peak(|| {
            outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| decode(input)));
        });
        set(None);
        tried.set(tried.get() + 1);
        let bound = memory.base + memory.per_byte * input.len();
        most.set(most.get().max(held as f64 / bound as f64));
        read.set(read.get() + u64::from(outcome.as_ref().is_ok_and(|read| *read)));
        match outcome {
            Err(panic) => Err(TestCaseError::fail(format!("panicked: {}", said(&*panic)))),
            Ok(_) if held > bound => {
                let length = input.len();
                Err(TestCaseError::fail(format!(
                    "{held} bytes of memory for {length} bytes; at most {bound} may be held"
                )))
            }
            Ok(_) => Ok(()),
        }
    };
    let failure = std::thread::scope(|scope| {
        let (done, waits) = channel::<()>();
        let (begun, failed) = (&begun, &failed);
        scope.spawn(move || {
            while waits.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                if begun.lock().expect("nobody panics with it").is_some_and(|begun| begun.elapsed() > hangs) {
                    say(format_args!("{target} hangs with the input in {}", failed.display()));
                    std::process::abort();
                }
            }
        });
        let failure = all(count, &corpus, run);
        drop(done);
        failure
    });
    if let Some((input, why)) = failure {
        fs::write(&failed, input).expect("the input can be written");
        panic!("{target}: {why}\nthe input is in {}", failed.display());
    }
    let _ = fs::remove_file(&failed);
    assert!(read.get() > 0, "{target}: nothing in {} is read", folder.display());
    if std::env::var_os("FEDPLUG_FUZZ").is_some() {
        let (tried, read, most, seconds) = (tried.get(), read.get(), most.get(), started.elapsed().as_secs_f64());
        say(format_args!(
            "fuzzed {target}: {tried} inputs, {read} of them read, in {seconds:.0} s, at most {most:.2} of the memory allowed"
        ));
    }
}

/// The smallest input found that fails, and why.
fn all(count: u32, corpus: &[Vec<u8>], run: impl Fn(&[u8]) -> Result<(), TestCaseError>) -> Option<(Vec<u8>, String)> {
    for input in corpus {
        if let Err(error) = run(input) {
            return Some((input.clone(), error.to_string()));
        }
    }
    let config = proptest::test_runner::Config { max_shrink_iters: 2000, ..crate::cases(count) };
    let inputs = (any::<Index>(), proptest::collection::vec(change(), 1..4));
    let input = |(seed, changes): &(Index, Vec<Change>)| {
        let mut input = seed.get(corpus).clone();
        for change in changes {
            change.apply(&mut input, corpus);
            input.truncate(LONGEST);
        }
        input
    };
    match TestRunner::new(config).run(&inputs, |drawn| run(&input(&drawn))) {
        Ok(()) => None,
        Err(TestError::Fail(why, drawn)) => Some((input(&drawn), why.to_string())),
        Err(TestError::Abort(why)) => Some((Vec::new(), why.to_string())),
    }
}

/// Writes a file for a decoder that reads files. Not as [`fs::write`], which cuts the file first: some file systems then
/// force the new content to the disk.
///
/// # Panics
/// If it cannot be written.
pub fn overwrite(path: &Path, input: &[u8]) {
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path);
    let written = file.and_then(|mut file| file.write_all(input).and_then(|()| file.set_len(input.len() as u64)));
    written.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// A decoder may catch a panic of a library. The backtrace of one takes 40 MB, where there are any.
fn do_not_count_backtraces() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| memory::uncounted(|| before(info))));
    });
}

fn read_corpus(folder: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a corpus can be listed").path()).collect();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).collect()
}

/// The file of a target's input that is being tried, beside the test.
fn failing(target: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let folder = test.with_file_name("fuzz");
    fs::create_dir_all(&folder).expect("a folder for inputs");
    folder.join(format!("{target}.{}", std::process::id()))
}

fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

/// To the terminal, although the harness captures a test's output.
fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A change of an input.
#[derive(Clone, Debug)]
pub enum Change {
    /// A byte becomes another.
    Set(Index, u8),
    /// A bit is flipped.
    Flip(Index, u8),
    /// Bytes are inserted.
    Insert(Index, Vec<u8>),
    /// Bytes are removed.
    Remove(Index, usize),
    /// The rest is cut off.
    Cut(Index),
    /// Some bytes stand there many times.
    Repeat(Index, usize, usize),
    /// The rest becomes the rest of another input of the corpus.
    Splice(Index, Index, Index),
    /// A number in its text becomes another.
    Number(Index, String),
    /// Eight bytes, or as many as it has, become an extreme number.
    Extreme(Index, u64, usize),
}

/// Any change.
pub fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    let number = prop_oneof![
        "-?[0-9]{1,20}",
        prop::sample::select(vec![
            "0",
            "-1",
            "1e999",
            "1e-999",
            "nan",
            "2147483648",
            "4294967296",
            "18446744073709551615"
        ])
        .prop_map(str::to_owned),
    ];
    let extreme = prop_oneof![
        Just(u64::MAX),
        Just(i64::MAX as u64),
        Just(1 << 63),
        Just(1 << 40),
        Just(u64::from(u32::MAX)),
        Just(1 << 31),
        0..300_u64,
    ];
    prop_oneof![
        3 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        3 => (at(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        2 => (at(), proptest::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        2 => (at(), 1_usize..40).prop_map(|(at, count)| Change::Remove(at, count)),
        1 => at().prop_map(Change::Cut),
        2 => (at(), 1_usize..60, prop_oneof![4 => 2_usize..20, 1 => 20_usize..20_000])
            .prop_map(|(at, length, times)| Change::Repeat(at, length, times)),
        2 => (at(), at(), at()).prop_map(|(at, other, from)| Change::Splice(at, other, from)),
        3 => (at(), number).prop_map(|(at, number)| Change::Number(at, number)),
        2 => (at(), extreme, prop::sample::select(vec![1, 2, 4, 8]))
            .prop_map(|(at, number, width)| Change::Extreme(at, number, width)),
    ]
}

impl Change {
    /// Changes an input. `corpus` is what may be spliced in.
    pub fn apply(&self, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Self::Set(at, byte) => *at.get_mut(bytes) = *byte,
            Self::Flip(at, bit) => *at.get_mut(bytes) ^= 1 << bit,
            Self::Insert(at, more) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Remove(at, count) => {
                let at = at.index(bytes.len());
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Self::Repeat(at, length, times) => {
                let at = at.index(bytes.len());
                let piece = bytes[at..(at + length).min(bytes.len())].to_vec();
                let times = (*times).min(LONGEST / piece.len());
                bytes.splice(at..at, piece.repeat(times));
            }
            Self::Splice(at, other, from) => {
                if !corpus.is_empty() {
                    let other = other.get(corpus);
                    bytes.truncate(at.index(bytes.len()));
                    bytes.extend_from_slice(&other[from.index(other.len() + 1)..]);
                }
            }
            Self::Number(at, number) => {
                let digits: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at].is_ascii_digit()).collect();
                if !digits.is_empty() {
                    let start = *at.get(&digits);
                    let end = (start..bytes.len()).find(|at| !bytes[*at].is_ascii_digit()).unwrap_or(bytes.len());
                    bytes.splice(start..end, number.bytes());
                }
            }
            Self::Extreme(at, number, width) => {
                let at = at.index(bytes.len());
                let end = (at + width).min(bytes.len());
                bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: Memory = Memory { base: 1000, per_byte: 2 };

    /// What fuzzing says of a decoder with a fault, with the input that it names.
    fn found(decode: impl Fn(&[u8]) -> bool) -> (String, Vec<u8>) {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| fuzz("self", 2000, MEMORY, decode)));
        let text = said(&*caught.unwrap_err()).to_owned();
        let path = text.rsplit("the input is in ").next().unwrap().to_owned();
        (text, fs::read(path).unwrap())
    }

    #[test]
    fn faults_are_found_and_made_small() {
        fuzz("self", 2000, MEMORY, |input| !input.to_vec().is_empty());
        let (text, input) = found(|input| {
            assert!(!input.windows(2).any(|pair| pair == b"55"), "two of them");
            true
        });
        assert!(text.starts_with("self: panicked: two of them\n"), "{text}");
        assert!(input.windows(2).any(|pair| pair == b"55"), "{input:?}");
        let (text, input) = found(|input| {
            let length = input.iter().filter(|byte| byte.is_ascii_digit()).count();
            Vec::<u8>::with_capacity(if length > 4 { 1_000_000 } else { 1 }).capacity() > 0
        });
        assert!(text.contains("bytes of memory for"), "{text}");
        assert!((5..100).contains(&input.len()), "{input:?}");
        let refused = std::panic::catch_unwind(|| fuzz("self", 10, MEMORY, |_| false)).unwrap_err();
        assert!(said(&*refused).starts_with("self: nothing in "), "{}", said(&*refused));
    }

    #[test]
    fn a_decoder_that_hangs_is_named() {
        // In another process, which ends.
        let test = "fuzz::tests::one_that_hangs";
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        let output = command.args(["--exact", "--ignored", test]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains("self hangs with the input in "), "{text}");
    }

    #[test]
    #[ignore = "for the test above"]
    fn one_that_hangs() {
        fuzz_within(Duration::from_secs(1), "self", 1, MEMORY, |_| {
            std::thread::sleep(Duration::from_secs(60));
            true
        });
    }
}
