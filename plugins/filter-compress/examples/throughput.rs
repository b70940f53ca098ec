//! How fast each method encodes and restores 100 MB of f32, on one thread:
//! `cargo run --release -p filter-compress --example throughput`.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::Instant;

use filter_compress::{Compress, Config, Method, Of};
use plugin_api::context::Silent;
use plugin_api::{Context, Filter as _, Message, Params, Seed, Tensor};

const COUNT: usize = 25_000_000;
const REPEATS: usize = 5;

fn message(seed: u64) -> Message {
    let seed = Seed::new(seed);
    let fill = |out: &mut [f32]| {
        for (i, out) in (0..).zip(out) {
            *out = (seed.at(i).value() >> 40) as f32 / (1 << 23) as f32 - 1.0;
        }
    };
    [("w", Tensor::build(&[COUNT], fill))].into_iter().collect::<Params>().into()
}

fn main() {
    let (base, x) = (message(1), message(2));
    let (server, client) = (Context::new(&Silent), Context::new(&Silent).with_client("a"));
    println!("GB/s of f32, the best of {REPEATS}");
    println!("{:<7} {:<7} {:>7} {:>7} {:>7}", "method", "of", "encode", "restore", "both");
    for (method, of) in [
        (Method::Fp16, Of::Values),
        (Method::Bf16, Of::Values),
        (Method::Int8, Of::Values),
        (Method::Int8, Of::Update),
        (Method::Nf4, Of::Update),
        (Method::TopK, Of::Update),
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
        let of = if of == Of::Update { "update" } else { "values" };
        let (encode, restore, both) = (speed(encode), speed(restore), speed(encode + restore));
        println!("{:<7} {of:<7} {encode:>7.2} {restore:>7.2} {both:>7.2}", method.as_str());
    }
}
