//! The published tokenizer, and its warnings.

use super::*;
use plugin_api::Column;
use plugin_api::context::{Host, Silent};
use std::sync::Mutex;

/// Keeps the log lines.
#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl Host for Lines {
    fn enabled(&self, _: plugin_api::Level) -> bool {
        true
    }
    fn log(&self, _: plugin_api::Level, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
    fn scalar(&self, _: &str, _: u64, _: f64) {}
    fn progress(&self, _: u64, _: u64) {}
    fn cancelled(&self) -> bool {
        false
    }
}

fn task(inputs: &[&str]) -> TaskSpec {
    TaskSpec {
        name: "tm".to_owned(),
        inputs: inputs.iter().map(|&i| i.to_owned()).collect(),
        target: "fitness".to_owned(),
        ..TaskSpec::default()
    }
}

#[test]
fn encode_gives_the_published_ids() {
    let tokenizer = Tokenizer::published(&Architecture::published()).unwrap();
    assert_eq!(tokenizer.encode("LB|A").unwrap(), [3, 6, 26, 5, 7, 4]);
    assert_eq!(tokenizer.encode("").unwrap(), [3, 4]);
}

#[test]
fn rows_joins_inputs_as_chains_and_caches_them() {
    let mut tokenizer = Tokenizer::published(&Architecture::published()).unwrap();
    let table = Table::new().with("heavy", Column::text(["L"])).unwrap().with("light", Column::text(["A"])).unwrap();
    let ctx = Context::new(&Silent);
    let rows = tokenizer.rows(&task(&["heavy", "light"]), &table, &ctx).unwrap();
    assert_eq!(*rows, [[3, 6, 5, 7, 4]]);
    let again = tokenizer.rows(&task(&["heavy", "light"]), &table.clone(), &ctx).unwrap();
    assert!(Arc::ptr_eq(&rows, &again));
    assert_eq!(*tokenizer.rows(&task(&["light"]), &table, &ctx).unwrap(), [[3, 7, 4]]);
    assert!(tokenizer.rows(&task(&["sequence"]), &table, &ctx).is_err());
    assert!(tokenizer.rows(&task(&[]), &table, &ctx).is_err());
}

#[test]
fn truncated_and_unknown_letters_are_reported_once() {
    let mut tokenizer = Tokenizer::published(&Architecture { max_length: 5, ..Architecture::published() }).unwrap();
    let table = Table::new().with("s", Column::text(["LAGVSE", "XxL", "LAG"])).unwrap();
    let lines = Lines::default();
    for _ in 0..2 {
        let rows = tokenizer.rows(&task(&["s"]), &table, &Context::new(&lines)).unwrap();
        assert_eq!(*rows, [[3, 6, 7, 8, 4], [3, 1, 1, 6, 4], [3, 6, 7, 8, 4]]);
    }
    let lines = lines.0.into_inner().unwrap();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("1 of 3 sequences are longer than 5 tokens"));
    let expected = "task `tm`: the tokenizer does not know 2 of 12 letters (16.67%), in 1 of 3 sequences, and reads them \
                    as `<unk>`: `X` 1, `x` 1";
    assert_eq!(lines[1], expected);
}

#[test]
fn unknown_letters_are_reported_once_per_task() {
    let mut tokenizer = Tokenizer::published(&Architecture::published()).unwrap();
    let lines = Lines::default();
    let mut rows = |name: &str, sequences: &[&str]| {
        let table = Table::new().with("s", Column::text(sequences)).unwrap();
        tokenizer.rows(&TaskSpec { name: name.into(), ..task(&["s"]) }, &table, &Context::new(&lines)).unwrap();
    };
    rows("tm", &["lag", "LAG"]);
    rows("tm", &["gal"]); // nothing new
    rows("tm", &["LA*é"]);
    rows("tm", &["LAGV"]);
    rows("binding", &["ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:;\t"]);
    let lines = lines.0.into_inner().unwrap();
    let begin = "the tokenizer does not know";
    assert_eq!(
        lines,
        [
            format!(
                "task `tm`: {begin} 3 of 6 letters (50.00%), in 1 of 2 sequences, and reads them as `<unk>`: `a` 1, \
                 `g` 1, `l` 1; it knows letters in upper case"
            ),
            format!(
                "task `tm`: {begin} 2 of 4 letters (50.00%), in 1 of 1 sequences, and reads them as `<unk>`: `*` 1, \
                 `é` 1"
            ),
            format!(
                "task `binding`: {begin} 21 of 42 letters (50.00%), in 1 of 1 sequences, and reads them as `<unk>`: \
                 `\\t` 1, `-` 1, `.` 1, `0` 1, `1` 1, `2` 1, `3` 1, `4` 1, `5` 1, `6` 1, `7` 1, `8` 1, 9 others"
            ),
        ]
    );
}

#[test]
fn a_tokenizer_with_more_tokens_than_the_trunk_is_refused() {
    let error = Tokenizer::published(&Architecture { vocab_size: 26, ..Architecture::published() }).unwrap_err();
    assert!(error.message().contains("has 27 tokens"), "{error}");
}
