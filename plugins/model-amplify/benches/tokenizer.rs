//! The time to make a tokenizer, and to tokenize sequences: `cargo bench -p model-amplify`.

#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use model_amplify::architecture::Architecture;
use model_amplify::tokenize::Tokenizer;
use plugin_api::context::Silent;
use plugin_api::{Column, Context, Table, TaskSpec};

const ROWS: usize = 1000;

fn tokenizer(criterion: &mut Criterion) {
    let sequence = "EVQLVESGGGLVQPGGSLRLSCAAS".repeat(5) + "|" + &"DIQMTQSPSSLSASVGDRVTITC".repeat(5);
    let table = Table::new().with("combined", Column::text(vec![&sequence; ROWS])).unwrap();
    let task = TaskSpec {
        name: "tm".to_owned(),
        inputs: vec!["combined".to_owned()],
        target: "fitness".to_owned(),
        ..TaskSpec::default()
    };
    let make = || Tokenizer::published(&Architecture::published()).unwrap();
    let mut group = criterion.benchmark_group("tokenizer");
    group.bench_function("made", |bencher| bencher.iter(make));
    group.throughput(Throughput::Elements(ROWS as u64));
    // A new tokenizer each time, since it caches the tokens of a table.
    group.bench_function("1,000 antibodies", |bencher| {
        bencher.iter_with_setup(make, |mut tokenizer| tokenizer.rows(&task, &table, &Context::new(&Silent)).unwrap());
    });
    group.finish();
}

criterion_group!(benches, tokenizer);
criterion_main!(benches);
