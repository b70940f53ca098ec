//! What the host does beside training in a round: `cargo bench -p fedplug`.

#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fedplug::internals::{
    CallScope, ClientRef, Console, FilterChain, HostServices, NONE, Notes, Reporter, Terms, Tracker, safetensors,
};
use plugin_api::boundary::crossing::crossed;
use plugin_api::{Component, Context, Filter, Level, Message, Params, Result, Seed, Tensor};
use serde_json::Value;
use tempfile::TempDir;

/// As many as AMPLIFY-120M has.
const TENSORS: usize = 220;
/// Scalars that are reported before the tracking thread is waited for.
const BURST: u64 = 10_000;

/// What a component's context of a round needs.
struct Parts(Console, Notes, AtomicBool);

impl Parts {
    fn new() -> Self {
        Self(Console::new(Level::Warn), Notes::default(), AtomicBool::new(false))
    }
    fn link(&self, reporter: Reporter) -> HostServices<'_> {
        let (seed, terms) = (Seed::new(42), Terms::default());
        HostServices {
            console: &self.0,
            reporter,
            notes: &self.1,
            journal: &NONE,
            stop: &self.2,
            activity: None,
            seed,
            terms,
            threads: 1,
        }
    }
}

fn line<'a>(link: &'a HostServices<'a>) -> CallScope<'a> {
    CallScope::new(link, "model `amplify`", Some(ClientRef { index: 0, name: "tm" }), Some(3))
}

fn tracker() -> (Tracker, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Tracker::new(folder.path(), &["tm".to_owned()], None).unwrap(), folder)
}

fn report(ctx: &Context<'_>, count: u64) -> Duration {
    let start = Instant::now();
    (0..count).for_each(|step| ctx.scalar("Loss/train", step, 0.123_456_789));
    start.elapsed()
}

fn scalars(criterion: &mut Criterion) {
    let parts = Parts::new();
    let mut group = criterion.benchmark_group("scalars");
    group.bench_function("one of many at once, on the training thread", |bencher| {
        bencher.iter_custom(|count| {
            let burst = |count| {
                let (tracker, _folder) = tracker();
                let link = parts.link(tracker.reporter());
                let taken = report(&line(&link).context(), count);
                tracker.sync().unwrap();
                taken
            };
            (0..count.div_ceil(BURST)).map(|k| burst(BURST.min(count - k * BURST))).sum()
        });
    });
    group.bench_function("one now and then, on the training thread", |bencher| {
        bencher.iter_custom(|count| {
            let (tracker, _folder) = tracker();
            let link = parts.link(tracker.reporter());
            let now_and_then = |_| {
                // A training step, in which the tracking thread may fall asleep.
                let start = Instant::now();
                while start.elapsed() < Duration::from_micros(200) {}
                report(&line(&link).context(), 1)
            };
            (0..count).map(now_and_then).sum()
        });
    });
    group.sample_size(20).throughput(Throughput::Elements(BURST));
    group.bench_function("10,000 until they are in the files", |bencher| {
        bencher.iter_with_setup(tracker, |(tracker, folder)| {
            report(&line(&parts.link(tracker.reporter())).context(), BURST);
            tracker.sync().unwrap();
            // Given back, so that its removal is not timed.
            (tracker, folder)
        });
    });
    group.finish();
}

fn params(fill: impl Fn(&mut [f32])) -> Params {
    let tensor = |_| Tensor::build(&[64_000_000 / size_of::<f32>() / TENSORS], &fill);
    (0..TENSORS).map(|k| (format!("layers.{k}.weight"), tensor(k))).collect()
}

fn files(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let params = params(|out| out.fill(0.5));
    let mut group = criterion.benchmark_group("safetensors of 64 MB");
    group.sample_size(20).throughput(Throughput::Bytes(params.bytes() as u64));
    group.bench_function("write", |bencher| bencher.iter(|| safetensors::write(&path, &params, &[]).unwrap()));
    group.bench_function("read", |bencher| bencher.iter_with_large_drop(|| safetensors::read(&path).unwrap()));
    group.finish();
}

/// Keeps some parameters at the client.
struct Private;

impl Filter for Private {
    fn apply(&mut self, mut message: Message, _: &Message, _: &Context<'_>) -> Result<Message> {
        message.params.retain(|name, _| !name.starts_with("layers.0."));
        Ok(message)
    }
}

fn filters(criterion: &mut Criterion) {
    let parts = Parts::new();
    let link = parts.link(Reporter::nowhere());
    let line = line(&link);
    let message = Message::from(params(|_| {}));
    let here = Component::filter("private", "Keeps some parameters", |_: Value, _| Ok(Private));
    let there = crossed(&here);
    for (place, component) in [("in process", here), ("across the boundary", there)] {
        let mut chain = FilterChain::default();
        for _ in 0..3 {
            chain.push("private".to_owned(), Vec::new(), component.new_filter(&Value::Null, &line.context()).unwrap());
        }
        criterion.bench_function(&format!("{TENSORS} tensors through three filters, {place}"), |bencher| {
            bencher.iter_with_large_drop(|| chain.apply(message.clone(), &message, &line).unwrap());
        });
    }
}

criterion_group!(benches, scalars, files, filters);
criterion_main!(benches);
