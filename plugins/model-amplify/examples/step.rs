//! Measures training steps, or evaluations, on random sequences. Prints one line of JSON.
//!
//! ```sh
//! cargo run --release -p model-amplify --example step -- --size 120M --batch 4 --threads 2
//! ```
//!
//! Options: `--size tiny|120M|350M`, `--batch N`, `--length N` (tokens of the longest sequence; the others are up to 24
//! shorter), `--steps N`, `--threads N`, `--precision fp32|tf32|bf16|bf16-residual`, `--device cpu|cuda:0`, `--evaluate`, `--libtorch`
//! (libtorch's trunk on all threads in place of the hand-written one; a norm after the embedding selects it), `--with JSON`
//! (further keys of the model's table, such as `{"lora": {}}`).

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use model_amplify::Amplify;
use model_amplify::batch::Batch;
use model_amplify::network::Resources;
use model_amplify::random::DropoutRng;
use model_amplify::targets::Targets;
use model_amplify::trainer::{SchedulePoint, TrainBatch};
use plugin_api::context::Host;
use plugin_api::{Context, Level, ModelSetup, Seed, TaskSpec};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

struct Options {
    size: String,
    batch: usize,
    length: usize,
    steps: usize,
    threads: usize,
    precision: String,
    device: String,
    evaluate: bool,
    libtorch: bool,
    with: Map<String, Value>,
}

fn options() -> Outcome<Options> {
    let mut options = Options {
        size: "tiny".to_owned(),
        batch: 64,
        length: 240,
        steps: 10,
        threads: std::thread::available_parallelism()?.get(),
        precision: "fp32".to_owned(),
        device: "cpu".to_owned(),
        evaluate: false,
        libtorch: false,
        with: Map::new(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("`{word}` takes a value"));
        match word.as_str() {
            "--size" => options.size = value()?,
            "--batch" => options.batch = value()?.parse()?,
            "--length" => options.length = value()?.parse()?,
            "--steps" => options.steps = value()?.parse()?,
            "--threads" => options.threads = value()?.parse()?,
            "--precision" => options.precision = value()?,
            "--device" => options.device = value()?,
            "--evaluate" => options.evaluate = true,
            "--libtorch" => options.libtorch = true,
            "--with" => options.with = serde_json::from_str(&value()?)?,
            other => return Err(format!("there is no option `{other}`").into()),
        }
    }
    Ok(options)
}

/// Keeps warnings.
#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl Host for Warnings {
    fn enabled(&self, level: Level) -> bool {
        level <= Level::Warn
    }
    fn log(&self, _: Level, line: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
    }
    fn scalar(&self, _: &str, _: u64, _: f64) {}
    fn progress(&self, _: u64, _: u64) {}
    fn cancelled(&self) -> bool {
        false
    }
}

/// Sequences of random amino acids, the first at full length.
fn rows(options: &Options) -> Vec<Vec<u32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let shortest = options.length.saturating_sub(24).max(1);
    let lengths = (0..options.batch)
        .map(|row| if row == 0 { options.length } else { rng.random_range(shortest..=options.length) })
        .collect::<Vec<_>>();
    lengths.into_iter().map(|length| (0..length).map(|_| rng.random_range(5..27)).collect()).collect()
}

fn main() -> Outcome<()> {
    let options = options()?;
    let (hidden, layers, heads, intermediate) = match options.size.as_str() {
        "tiny" => (64, 2, 4, 256),
        "120M" => (640, 24, 10, 2560),
        "350M" => (960, 32, 15, 3840),
        other => return Err(format!("there is no size `{other}`").into()),
    };
    let mut config = json!({
        "pretrained": {
            "hidden-size": hidden, "layers": layers, "heads": heads, "intermediate-size": intermediate,
            "layer-norm-after-embedding": options.libtorch,
        },
        "precision": options.precision,
    });
    config.as_object_mut().into_iter().for_each(|config| config.extend(options.with.clone()));
    let task = TaskSpec {
        name: "task".to_owned(),
        inputs: vec!["sequence".to_owned()],
        target: "y".to_owned(),
        ..TaskSpec::default()
    };
    let setup = ModelSetup::new(vec![task], 2, 1);
    let host = Warnings::default();
    let ctx = Context::new(&host).with_threads(options.threads).with_device(&options.device);
    let mut model = Amplify::new(serde_json::from_value(config)?, &setup, &ctx)?;
    for warning in host.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        // What is measured must be what was asked for, which may be slow.
        if !warning.starts_with("`precision`:") {
            return Err(warning.clone().into());
        }
        eprintln!("warning: {warning}");
    }

    let rows = rows(&options);
    let tokens: usize = rows.iter().map(Vec::len).sum();
    let batch = model.batch(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let targets = Targets::Numbers(rows.iter().map(|_| rng.random_range(-1.0..1.0)).collect());
    let mut resources = Resources::new(options.threads)?;
    // The plugin's calls use one thread of libtorch.
    tch::set_num_threads(if options.libtorch { options.threads as i32 } else { 1 });
    let mut once = |step: usize| one(&mut model, &options, &batch, &targets, step, &mut resources);
    for warm_up in 0..3 {
        once(warm_up)?;
    }
    let mut times = Vec::new();
    for step in 0..options.steps.max(1) {
        let start = Instant::now();
        once(step)?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    let line = json!({
        "size": options.size, "batch": options.batch, "length": options.length, "device": options.device,
        "threads": options.threads, "precision": options.precision, "libtorch": options.libtorch, "with": options.with, "steps": times.len(), "median_s": median,
        "min_s": times[0], "max_s": times[times.len() - 1], "tokens_per_s": (tokens as f64 / median).round(),
        "peak_memory_MiB": model.device_peak_bytes()?.map_or_else(peak_memory_mib, |bytes| u64::try_from(bytes >> 20).ok()),
    });
    println!("{line}");
    Ok(())
}

/// A step or an evaluation. Both copy a number to the host, which waits for the device.
fn one(
    model: &mut Amplify,
    options: &Options,
    batch: &Batch,
    targets: &Targets,
    step: usize,
    resources: &mut Resources,
) -> Outcome<f64> {
    if options.evaluate {
        let _guard = tch::no_grad_guard();
        return Ok(model.trainer()?.network.predict("task", batch, resources)?.sum(tch::Kind::Float).double_value(&[]));
    }
    let dropout = DropoutRng::new(Seed::new(step as u64));
    let batch = TrainBatch { task: "task", batch, targets, dropout: &dropout };
    Ok(model.trainer()?.step(&[batch], SchedulePoint::default(), resources)?.loss)
}

/// The process's peak memory on the host, on Linux.
fn peak_memory_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
}
