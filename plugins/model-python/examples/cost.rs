//! What a class in Python costs: the start of a process, an empty call, and 472 MB to it and back.
//!
//! `FEDPLUG_PYTHON=/path/to/python cargo run --release -p model-python --example cost [-- torch]`
#![expect(clippy::print_stdout, reason = "a table is what it is for")]

use std::path::Path;
use std::time::Instant;

use plugin_api::context::Silent;
use plugin_api::{Buffer, Context, Message, Model, ModelSetup, Params, Result, TaskSpec, Tensor};
use serde_json::json;

fn timed<T>(what: &str, times: u32, mut call: impl FnMut() -> Result<T>) -> Result<T> {
    let (mut best, mut last) = (f64::INFINITY, None);
    for _ in 0..times {
        let begun = Instant::now();
        last = Some(call()?);
        best = best.min(begun.elapsed().as_secs_f64());
    }
    println!("| {what} | {:.3} ms |", 1000.0 * best);
    last.ok_or_else(|| plugin_api::Error::other("nothing was timed"))
}

/// The memory of a process that is its own, in MiB.
fn private(process: &str) -> Option<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
    let kilobytes = rollup
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
    Some(kilobytes.sum::<u64>() >> 10)
}

fn children() -> Vec<String> {
    let own = std::process::id().to_string();
    let of = |process: &Path| -> Option<String> {
        let status = std::fs::read_to_string(process.join("status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().to_owned();
        (parent == own).then(|| process.file_name().map(|name| name.to_string_lossy().into_owned()))?
    };
    std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| of(&entry.path())).collect()
}

fn model(class: &str, mebibytes: u64, workers: u64) -> Result<Box<dyn Model>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/cost.py");
    let config = json!({ "script": script, "class": class, "mebibytes": mebibytes, "workers": workers });
    let setup = ModelSetup::new(vec![TaskSpec::new("t", ["x"], "y")], 1, 1);
    model_python::model().new_model(&config, &setup, &Context::new(&Silent))
}

fn main() -> Result<()> {
    let class = if std::env::args().any(|word| word == "torch") { "LargeTorch" } else { "Large" };
    let ctx = Context::new(&Silent);
    println!("| {class} | best |\n|---|---|");
    let mut first = timed("start of a process, with its first object", 1, || model(class, 450, 1))?;
    let small: Vec<_> =
        timed("each of 20 further objects in the process", 20, || model(class, 0, 1)).into_iter().collect();
    let folder = std::env::temp_dir();
    timed("an empty call", 1000, || first.export(&folder, &ctx))?;
    let own = first.parameters(&ctx)?;
    let copy = |_: &str, tensor: &Tensor| {
        Tensor::new(tensor.dtype(), tensor.shape(), Buffer::copy_of(tensor.buffer().as_slice()))
    };
    println!("| bytes of the parameters | {} |", own.bytes());
    let new = |params: &Params| -> Result<Message> { Ok(params.map(copy)?.into()) };
    let mut messages = (0..4).map(|_| new(&own)).collect::<Result<Vec<_>>>()?.into_iter();
    drop(own);
    timed("to it, from new memory", 4, || first.receive(&messages.next().unwrap_or_default(), &ctx))?;
    let again = new(&first.parameters(&ctx)?)?;
    timed("to it, when another client got the same", 4, || first.receive(&again, &ctx))?;
    timed("back from it", 4, || first.parameters(&ctx))?;
    let answer: Message = first.parameters(&ctx)?.into();
    timed("to it, what it or another process returned", 4, || first.receive(&answer, &ctx))?;
    for process in children() {
        println!(
            "| private memory of a process with {} objects | {} MiB |",
            1 + small.len(),
            private(&process).unwrap_or(0)
        );
    }
    Ok(())
}
