//! How fast each method encodes and restores a tensor of f32, of 100 MB or as many as are given, on one thread:
//! `cargo run --release -p filter-compress --example throughput -- 100`.
//!
//! Each message has memory of its own. Where tensors are large the system gives it page by page, and that takes more time
//! than to decode; with tensors of some megabytes, of which a model has many, the memory of an earlier message is used.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::Instant;

use filter_compress::{Compress, Config, Method, Quantity};
use plugin_api::context::Silent;
use plugin_api::{Context, Filter as _, Message, Params, Seed, Tensor};

const REPEATS: usize = 10;

fn message(count: usize, seed: u64) -> Message {
    let seed = Seed::new(seed);
    let fill = |out: &mut [f32]| {
        for (i, out) in (0..).zip(out) {
            *out = (seed.at(i).value() >> 40) as f32 / (1 << 23) as f32 - 1.0;
        }
    };
    [("w", Tensor::build(&[count], fill))].into_iter().collect::<Params>().into()
}

fn main() {
    let megabytes = std::env::args().nth(1).map_or(100, |size| size.parse().expect("megabytes"));
    let (base, x) = (message(megabytes * 250_000, 1), message(megabytes * 250_000, 2));
    let (server, client) = (Context::new(&Silent), Context::new(&Silent).with_client("a"));
    println!("GB/s of f32, the best of {REPEATS}");
    println!("{:<7} {:<7} {:>7} {:>7} {:>7}", "method", "of", "encode", "restore", "both");
    for (method, of) in [
        (Method::Fp16, Quantity::Values),
        (Method::Bf16, Quantity::Values),
        (Method::Int8, Quantity::Values),
        (Method::Int8, Quantity::Update),
        (Method::Nf4, Quantity::Update),
        (Method::TopK, Quantity::Update),
    ] {
        let config = Config { of: Some(of), ..Config::new(method) };
        let mut sender = Compress::new(config.clone(), &client).unwrap();
        let mut receiver = Compress::new(config, &server).unwrap();
        let mut best = [f64::INFINITY; 2];
        for _ in 0..REPEATS {
            let begun = Instant::now();
            let sent = sender.apply(x.clone(), &base, &client).unwrap();
            best[0] = best[0].min(begun.elapsed().as_secs_f64());
            let begun = Instant::now();
            let restored = receiver.apply(sent, &base, &client).unwrap();
            best[1] = best[1].min(begun.elapsed().as_secs_f64());
            drop(restored);
        }
        let speed = |seconds: f64| x.bytes() as f64 / 1e9 / seconds;
        let [encode, restore] = best;
        let of = if of == Quantity::Update { "update" } else { "values" };
        let (encode, restore, both) = (speed(encode), speed(restore), speed(encode + restore));
        println!("{:<7} {of:<7} {encode:>7.2} {restore:>7.2} {both:>7.2}", method.as_str());
    }
}
