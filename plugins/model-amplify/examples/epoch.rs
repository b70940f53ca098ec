//! Measures whole epochs through the plugin's contract, on random sequences. Prints one line of JSON.
//!
//! ```sh
//! cargo run --release -p model-amplify --example epoch -- --size 120M --rows 16 --train frozen
//! ```
//!
//! Options: `--size tiny|120M|350M`, `--rows N` (sequences), `--length N` (letters of each), `--epochs N`, `--batch N`,
//! `--threads N`, `--clients N` (one after the other, as a process has them), and what is trained: `--train all|frozen|lora`.

#![allow(clippy::print_stdout)]

use std::time::Instant;

use model_amplify::Amplify;
use plugin_api::context::Silent;
use plugin_api::{Column, Context, Epoch, Model, ModelSetup, Seed, Table, Task, TaskSpec};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const LETTERS: &[u8] = b"LAGVSERTIDPKQNFYMHWC";

struct Options {
    size: String,
    rows: usize,
    length: usize,
    epochs: u64,
    batch: usize,
    threads: usize,
    clients: usize,
    train: String,
}

fn options() -> Outcome<Options> {
    let mut options = Options {
        size: "tiny".to_owned(),
        rows: 64,
        length: 230,
        epochs: 3,
        batch: 64,
        threads: std::thread::available_parallelism()?.get(),
        clients: 1,
        train: "all".to_owned(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("`{word}` takes a value"));
        match word.as_str() {
            "--size" => options.size = value()?,
            "--rows" => options.rows = value()?.parse()?,
            "--length" => options.length = value()?.parse()?,
            "--epochs" => options.epochs = value()?.parse()?,
            "--batch" => options.batch = value()?.parse()?,
            "--threads" => options.threads = value()?.parse()?,
            "--clients" => options.clients = value()?.parse()?,
            "--train" => options.train = value()?,
            other => return Err(format!("there is no option `{other}`").into()),
        }
    }
    Ok(options)
}

/// Random sequences of one length with random targets.
fn task(options: &Options) -> Outcome<Task> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut sequence = || (0..options.length).map(|_| char::from(LETTERS[rng.random_range(0..20)])).collect::<String>();
    let sequences: Vec<String> = (0..options.rows).map(|_| sequence()).collect();
    let targets: Vec<f32> = (0..options.rows).map(|row| (row % 7) as f32).collect();
    let table = Table::new().with("sequence", Column::text(&sequences))?.with("y", Column::f32(&targets))?;
    Ok(Task { spec: TaskSpec::new("task", ["sequence"], "y"), train: table.clone(), test: table })
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
        "pretrained": { "hidden-size": hidden, "layers": layers, "heads": heads, "intermediate-size": intermediate },
        "batch-size": options.batch,
    });
    match options.train.as_str() {
        "all" => {}
        "frozen" => config["frozen-trunk"] = true.into(),
        "lora" => config["lora"] = json!({}),
        other => return Err(format!("`{other}` cannot be trained").into()),
    }
    let task = task(&options)?;
    let setup = ModelSetup::new(vec![task.spec.clone()], 2, options.epochs);
    let host = Silent;
    let ctx = Context::new(&host).with_threads(options.threads).with_seed(Seed::new(1));
    let mut clients = Vec::new();
    let mut times = Vec::new();
    for _ in 0..options.clients {
        let mut model = Amplify::new(serde_json::from_value(config.clone())?, &setup, &ctx)?;
        for epoch in 0..options.epochs {
            let start = Instant::now();
            model.train(std::slice::from_ref(&task), Epoch { round: 0, epoch }, &ctx)?;
            times.push(start.elapsed().as_secs_f64());
        }
        clients.push(model);
    }
    let sent = clients[0].send(&ctx)?.bytes();
    let mut later = times[1..].to_vec();
    later.sort_by(f64::total_cmp);
    let line = json!({
        "size": options.size, "train": options.train, "rows": options.rows, "length": options.length,
        "threads": options.threads, "clients": options.clients, "first_epoch_s": times[0],
        "later_epoch_s": later.get(later.len() / 2), "sent_bytes": sent, "peak_memory_MiB": peak_memory_mib(),
    });
    println!("{line}");
    Ok(())
}

/// The process's peak memory, on Linux.
fn peak_memory_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
}
