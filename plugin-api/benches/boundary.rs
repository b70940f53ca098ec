//! What it costs to cross the boundary, and to go through a message: `cargo bench -p plugin-api`.
//!
//! A component stands behind the boundary as one of a library does: every call goes through the wire types there and back.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use plugin_api::boundary::crossing::crossed;
use plugin_api::context::Silent;
use plugin_api::{
    Component, Context, Epoch, Evaluation, Message, Model, ModelSetup, Params, Received, Result, Table, Task, Tensor,
    Trained, WeightedMean,
};
use serde_json::Value;

/// As many as AMPLIFY-120M has.
const TENSORS: usize = 220;
const CLIENTS: usize = 6;

/// Does something as often as it is told epochs, and keeps what it receives.
struct Busy {
    each: fn(&Context<'_>, u64),
    kept: Message,
}

impl Model for Busy {
    fn parameters(&mut self, _: &Context<'_>) -> Result<Params> {
        Ok(self.kept.params.clone())
    }
    fn receive(&mut self, global: &Message, _: &Context<'_>) -> Result<Received> {
        self.kept = global.clone();
        Ok(Received::default())
    }
    fn train(&mut self, _: &[Task], epoch: Epoch, ctx: &Context<'_>) -> Result<Trained> {
        (0..epoch.epoch).for_each(|step| (self.each)(ctx, step));
        Ok(Trained::default())
    }
    fn evaluate(&mut self, _: &[Task], _: &Context<'_>) -> Result<Vec<Evaluation>> {
        Ok(Vec::new())
    }
    fn predict(&mut self, _: &str, _: &Table, _: &Context<'_>) -> Result<Table> {
        Ok(Table::predicted(&[]))
    }
}

fn busy(each: fn(&Context<'_>, u64)) -> Busy {
    Busy { each, kept: Message::default() }
}

/// The same model in process, and behind the boundary.
fn both(new: fn(Value, &ModelSetup, &Context<'_>) -> Result<Busy>) -> [(&'static str, Box<dyn Model>); 2] {
    let here = Component::model("busy", "Does one thing again and again", new);
    let there = crossed(&here);
    let made = |component: &Component| {
        component.new_model(&Value::Null, &ModelSetup::default(), &Context::new(&Silent)).unwrap()
    };
    [("in process", made(&here)), ("across the boundary", made(&there))]
}

fn message(bytes: usize, fill: impl Fn(&mut [f32])) -> Message {
    let shape = [bytes / size_of::<f32>() / TENSORS];
    let params: Params = (0..TENSORS).map(|k| (format!("layers.{k}.weight"), Tensor::build(&shape, &fill))).collect();
    params.into()
}

fn calls(criterion: &mut Criterion) {
    let ctx = Context::new(&Silent).with_client("tm").with_round(3);
    for (place, mut model) in both(|_, _, _| Ok(busy(|_, _| {}))) {
        criterion.bench_function(&format!("a call, {place}"), |bencher| {
            bencher.iter(|| model.train(&[], black_box(Epoch { round: 3, epoch: 0 }), &ctx));
        });
    }
    let lines = both(|_, _, _| Ok(busy(|ctx, step| ctx.debug(format_args!("step {step}")))));
    let scalars = both(|_, _, _| Ok(busy(|ctx, step| ctx.scalar("Loss/train", step, 0.5))));
    for (what, models) in [("a line whose level is off", lines), ("a scalar that is discarded", scalars)] {
        for (place, mut model) in models {
            criterion.bench_function(&format!("{what}, {place}"), |bencher| {
                // All in one call, so that the call itself does not count.
                bencher.iter_custom(|count| {
                    let start = Instant::now();
                    model.train(&[], Epoch { round: 3, epoch: count }, &ctx).unwrap();
                    start.elapsed()
                });
            });
        }
    }
}

fn broadcast(criterion: &mut Criterion) {
    let ctx = Context::new(&Silent);
    // Never written to, so that the system gives it no memory: the size of AMPLIFY-120M, for whom it would be copied.
    let global = message(472_000_000, |_| {});
    let mut group = criterion.benchmark_group("a message of 472 MB");
    let mut receivers: [Vec<_>; 2] = Default::default();
    for _ in 0..CLIENTS {
        for (all, one) in receivers.iter_mut().zip(both(|_, _, _| Ok(busy(|_, _| {})))) {
            all.push(one);
        }
    }
    for mut all in receivers {
        group.bench_function(format!("to {CLIENTS} models, {}", all[0].0), |bencher| {
            bencher.iter(|| all.iter_mut().for_each(|(_, model)| drop(model.receive(&global, &ctx).unwrap())));
        });
        for (_, model) in &mut all {
            let kept = model.parameters(&ctx).unwrap();
            let mut pairs = kept.iter().zip(global.params.iter());
            assert!(pairs.all(|((_, a), (_, b))| a.buffer().is_same(b.buffer())), "a tensor was copied");
        }
    }
    group.finish();
}

fn bytes(criterion: &mut Criterion) {
    let messages: Vec<_> = (0..CLIENTS).map(|k| message(64_000_000, |out| out.fill(k as f32))).collect();
    let tensors = || messages.iter().flat_map(|message| message.params.iter()).map(|(_, tensor)| tensor);
    let mut group = criterion.benchmark_group(format!("{CLIENTS} messages of 64 MB"));
    group.sample_size(20).throughput(Throughput::Bytes(tensors().map(|tensor| tensor.buffer().len() as u64).sum()));
    group.bench_function("read", |bencher| {
        let sum = |tensor: &Tensor| {
            tensor.buffer().try_cast::<u32>().unwrap().iter().fold(0_u32, |sum, &word| sum.wrapping_add(word))
        };
        bencher.iter(|| tensors().map(sum).fold(0, u32::wrapping_add));
    });
    group.bench_function("is_finite", |bencher| bencher.iter(|| tensors().all(Tensor::is_finite)));
    group.bench_function("weighted mean", |bencher| {
        // A mean goes when the next but one comes, as in rounds.
        let mut before = Params::new();
        bencher.iter(|| {
            let mut mean = WeightedMean::new();
            for (k, message) in messages.iter().enumerate() {
                mean.add(&message.params, 1.0 + k as f64, "client").unwrap();
            }
            before = mean.finish().unwrap();
        });
    });
    group.finish();
}

criterion_group!(benches, calls, broadcast, bytes);
criterion_main!(benches);
