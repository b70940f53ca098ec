//! How long it takes to read CSV, to group and to split rows: `cargo bench -p fedplug-tables`.

#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fedplug_tables::{CsvFile, GroupBy, RowPolicy, Sites, Split};
use plugin_api::context::Silent;
use plugin_api::{Context, Seed};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const ROWS: usize = 10_000;

fn reading(criterion: &mut Criterion) {
    let ctx = Context::new(&Silent);
    let rules = RowPolicy { reasons: &[], allow_short_rows: false, allow_empty: false };
    let row = format!("{},{},7.25\n", "EVQLVESGGG".repeat(12), "DIQMTQSPSS".repeat(11));
    let quoted = format!("\"{}\",\"{}\",7.25\n", "EVQLVESGGG".repeat(12), "DIQMTQSPSS".repeat(11));
    let folder = tempfile::tempdir().unwrap();
    let mut group = criterion.benchmark_group("csv");
    for (name, row) in [("plain", row), ("quoted", quoted)] {
        let path = folder.path().join(name);
        let text = "heavy,light,fitness\n".to_owned() + &row.repeat(ROWS);
        std::fs::write(&path, &text).unwrap();
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("10,000 {name} rows"), |bencher| {
            bencher.iter(|| {
                let mut bytes = 0;
                let count = |record: &csv::StringRecord| {
                    bytes += record.as_slice().len();
                    Ok(())
                };
                CsvFile::open(&path, b',', &ctx).unwrap().rows(rules, &ctx, count).unwrap();
                bytes
            });
        });
    }
    group.finish();
}

fn dealing(criterion: &mut Criterion) {
    let (rows, strata) = ((0..10 * ROWS).collect::<Vec<_>>(), vec![0; 10 * ROWS]);
    for count in [6, 10_000] {
        let sites = Sites { count: std::num::NonZeroUsize::new(count).unwrap(), alpha: 1.0 };
        let name = format!("split 100,000 rows to {count} sites");
        criterion.bench_function(&name, |bencher| {
            bencher.iter(|| Split::random(&rows, &strata, 0.2, Seed::new(42)).across_sites(Some(sites), Seed::new(42)));
        });
    }
}

/// Distinct antibodies of one germline with random CDRs: too far apart to be joined, too near to be told apart at once.
fn antibodies(count: usize) -> Vec<String> {
    const FRAMEWORKS: [&str; 7] = [
        "EVQLVESGGGLVQPGGSLRLSCAAS",
        "WVRQAPGKGLEWVA",
        "RFTISRDNSKNTLYLQMNSLRAEDTAVYYCAR",
        "WGQGTLVTVSS|DIQMTQSPSSLSASVGDRVTITC",
        "WYQQKPGKAPKLLIY",
        "GVPSRFSGSGSGTDFTLTISSLQPEDFATYYC",
        "FGQGTKVEIK",
    ];
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let antibody = |_| {
        let mut text = String::new();
        for (number, framework) in FRAMEWORKS.iter().enumerate() {
            let letter = |rng: &mut ChaCha8Rng| char::from(b"GGGSSSSYYYAATTDDNPFVLIKRQEWHM"[rng.random_range(0..29)]);
            for residue in framework.chars() {
                text.push(if rng.random_bool(0.03) { letter(rng) } else { residue });
            }
            let cdr = if number + 1 < FRAMEWORKS.len() { rng.random_range(7..12) } else { 0 };
            (0..cdr).for_each(|_| text.push(letter(rng)));
        }
        text
    };
    (0..count).map(antibody).collect()
}

fn grouping(criterion: &mut Criterion) {
    let rows = antibodies(ROWS);
    let ctx = Context::new(&Silent);
    let mut group = criterion.benchmark_group("group 10,000 antibodies");
    group.sample_size(10);
    for (name, by) in [("by sequence", GroupBy::Sequence), ("by identity 0.9", GroupBy::Identity(0.9))] {
        group.bench_function(name, |bencher| bencher.iter(|| by.groups(ROWS, |row| rows[row].as_str(), &ctx).unwrap()));
    }
    group.finish();
}

criterion_group!(benches, reading, dealing, grouping);
criterion_main!(benches);
