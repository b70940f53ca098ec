//! Tables as others write them: each is read or refused.

use std::collections::BTreeMap;

use plugin_api::Context;
use plugin_api::context::Silent;
use test_support::fuzz::{Memory, fuzz, overwrite};

use crate::{CsvFile, DecimalMark, FastaColumns, PredictionFile, RowPolicy, parse_number};

/// Files are read in pieces of a fixed size. The most that a compressed file becomes is the limit of DEFLATE, 1032 times its
/// length.
const MEMORY: Memory = Memory { base: 2 << 20, per_byte: 4 * 1032 };

#[test]
fn any_table_is_read_or_refused() {
    let file = tempfile::NamedTempFile::with_suffix(".csv").unwrap();
    let ctx = Context::new(&Silent);
    let rules = RowPolicy { reasons: &[], allow_short_rows: true, allow_empty: true };
    fuzz("csv", 400, MEMORY, |input| {
        overwrite(file.path(), input);
        let mut read = false;
        for delimiter in [b',', b';'] {
            let Ok(mut table) = CsvFile::open(file.path(), delimiter, &ctx) else { continue };
            let names = table.names(&["heavy", "fitness"]);
            if !["heavy", "fitness"].iter().all(|wanted| names.iter().any(|name| name == wanted)) {
                let missing = table.missing_columns(&names, &["heavy", "fitness"]);
                table.skip(missing, &ctx);
                continue;
            }
            let _ = table.check_unique(&names, 0..names.len());
            let rows = table.rows(rules, &ctx, |row| {
                let numbers = row.iter().filter_map(|field| parse_number(field, DecimalMark::Point).ok());
                assert!(numbers.into_iter().all(f32::is_finite));
                Ok(())
            });
            read |= rows.is_ok();
        }
        read
    });
}

#[test]
fn any_rows_for_prediction_are_read_or_refused() {
    let file = tempfile::NamedTempFile::with_suffix(".csv").unwrap();
    let pairs = FastaColumns::Pairs { heavy: "heavy", light: "light", allow_single: true };
    fuzz("prediction", 400, MEMORY, |input| {
        overwrite(file.path(), input);
        let mut read = false;
        for (fasta, known) in [(pairs, &["heavy", "light"][..]), (FastaColumns::Single("heavy"), &["heavy"])] {
            let Ok(mut rows) = PredictionFile::open(file.path(), b',', known, &BTreeMap::new(), Some(fasta)) else {
                continue;
            };
            let _ = rows.check_unique(known.iter().filter_map(|name| rows.position(name)));
            let mut table = plugin_api::Table::new();
            let mut count = 0;
            let whole = loop {
                match rows.next_row() {
                    Ok(Some(_)) => count += 1,
                    Ok(None) => break true,
                    Err(_) => break false,
                }
            };
            if whole && let Ok(with) = table.clone().with("row", plugin_api::Column::i64(&vec![0; count])) {
                table = with;
                read |= rows.with_original_cells(table).is_ok();
            }
        }
        read
    });
}
