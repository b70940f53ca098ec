//! How long it takes to read measurements, to split them in either way, and to prepare them:
//! `cargo bench -p dataset-flab`.

#![allow(clippy::unwrap_used, missing_docs)]

use std::fmt::Write as _;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dataset_flab::{Config, Flab};
use plugin_api::context::Silent;
use plugin_api::{Context, Dataset as _};
use serde_json::json;

const ROWS: usize = 10_000;

/// A task's folder with antibodies of the usual length, or with chains so short that the splits are what takes time.
fn folder(heavy: &str, light: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let mut text = "heavy,light,fitness\n".to_owned();
    for row in 0..ROWS {
        writeln!(text, "{heavy},{light},{}.25", row % 100).unwrap();
    }
    std::fs::create_dir(root.path().join("tm")).unwrap();
    std::fs::write(root.path().join("tm/a.csv"), text).unwrap();
    root
}

fn flab(root: &tempfile::TempDir, split: &str) -> Flab {
    let clients = json!({ "count": 100, "alpha": 1.0 });
    let config = json!({ "root": root.path(), "tasks": ["tm"], "split": split, "clients": clients });
    let config: Config = serde_json::from_value(config).unwrap();
    Flab::new(config, &Context::new(&Silent)).unwrap()
}

fn preparing(criterion: &mut Criterion) {
    let whole = folder(&"EVQLVESGGG".repeat(12), &"DIQMTQSPSS".repeat(11));
    let short = folder("EVQ", "DIQ");
    let ctx = Context::new(&Silent);
    let mut group = criterion.benchmark_group("flab");
    group.sample_size(20).throughput(Throughput::Elements(ROWS as u64));
    for (name, root) in [("10,000 antibodies", &whole), ("10,000 short rows", &short)] {
        for split in ["random", "reference"] {
            group.bench_function(format!("read {name}, {split} split"), |bencher| {
                bencher.iter_with_setup(|| flab(root, split), |mut flab| flab.describe(&ctx).unwrap());
            });
        }
    }
    for split in ["random", "reference"] {
        group.bench_function(format!("prepare 10,000 antibodies, {split} split"), |bencher| {
            let setup = || (flab(&whole, split), tempfile::tempdir().unwrap());
            bencher.iter_with_setup(setup, |(mut flab, output)| {
                flab.prepare(output.path(), &ctx).unwrap();
                // Given back, so that its removal is not timed.
                output
            });
        });
    }
    group.finish();
}

criterion_group!(benches, preparing);
criterion_main!(benches);
