//! From amino-acid letters to token ids.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use plugin_api::{Context, Error, Result, Table, TaskSpec, TextColumn};
use serde_json::{Map, Value, json};

use crate::architecture::Architecture;
use crate::impostor;
use crate::unknown::Unknown;

/// Between the inputs of a task that has several, such as a heavy and a light chain.
const CHAIN_BREAK: &str = "|";
pub(crate) const UNKNOWN: &str = "<unk>";
/// The published vocabulary, in the order of the ids.
const SPECIAL: [&str; 5] = ["<pad>", UNKNOWN, "<mask>", "<bos>", "<eos>"];
const LETTERS: &str = "|LAGVSERTIDPKQNFYMHWCB";
/// Tables whose tokens are kept. A run has a train and a test table for each task.
const KEPT: usize = 64;

/// The token ids of a table's rows.
pub type Tokens = Arc<Vec<Vec<u32>>>;

/// A tokenizer in Hugging Face's format, and what it was read from.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    json: Vec<u8>,
    unknown: Option<u32>,
    longest: usize,
    kept: Vec<(Vec<TextColumn>, Tokens)>,
    /// Tasks and letters that were reported as unknown.
    reported: BTreeSet<(String, String)>,
}

impl Tokenizer {
    /// Of a checkpoint.
    ///
    /// # Errors
    /// If the file cannot be read, or knows more tokens than the trunk.
    pub fn read(path: &Path, architecture: &Architecture) -> Result<Self> {
        let json = impostor::read(path)?;
        Self::new(json, architecture).map_err(|e| e.in_file(path, None))
    }

    /// The published one: a token for each letter, between `<bos>` and `<eos>`.
    ///
    /// # Errors
    /// If the trunk knows fewer tokens.
    pub fn published(architecture: &Architecture) -> Result<Self> {
        Self::new(serde_json::to_vec_pretty(&published_json()).unwrap_or_default(), architecture)
    }

    fn new(json: Vec<u8>, architecture: &Architecture) -> Result<Self> {
        let unusable = |cause: tokenizers::Error| Error::data("is no usable tokenizer").because(&*cause);
        let mut inner = tokenizers::Tokenizer::from_bytes(&json).map_err(unusable)?;
        // Cutting and padding are ours, so that they can be reported and batched.
        inner.with_padding(None).with_truncation(None).map_err(unusable)?;
        let known = inner.get_vocab(true).into_values().max().map_or(0, |id| i64::from(id) + 1);
        if known > architecture.vocab_size {
            let message = format!("knows {known} tokens and the trunk's embedding {}", architecture.vocab_size);
            return Err(Error::data(message).help("do `config.json` and `tokenizer.json` belong together?"));
        }
        let unknown = inner.token_to_id(UNKNOWN);
        Ok(Self {
            inner,
            json,
            unknown,
            longest: architecture.max_length as usize,
            kept: Vec::new(),
            reported: BTreeSet::new(),
        })
    }

    /// The file that it was read from.
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    /// The ids of one sequence, however long.
    ///
    /// # Errors
    /// If the tokenizer cannot split it.
    pub fn encode(&self, sequence: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(sequence, true).map_err(|e| not_split(&*e))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// What programs that read `tokenizer.json` want to know besides: which tokens stand for padding and the like. None
    /// if it knows no token by a published name.
    pub(crate) fn settings(&self) -> Option<Value> {
        let mut settings = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": self.longest,
            "clean_up_tokenization_spaces": false,
        });
        let known = SPECIAL.into_iter().filter(|token| self.inner.token_to_id(token).is_some());
        for token in known.clone() {
            settings[format!("{}_token", token.trim_matches(['<', '>']))] = token.into();
        }
        (known.count() > 0).then_some(settings)
    }

    /// The ids of a table's rows, of which none is longer than the trunk can take. Asked again for the same columns,
    /// it has them ready.
    ///
    /// # Errors
    /// If the task names no input, or the table lacks one.
    pub fn rows(&mut self, task: &TaskSpec, table: &Table, ctx: &Context<'_>) -> Result<Tokens> {
        let columns: Vec<TextColumn> =
            task.inputs.iter().map(|name| table.text(name).cloned()).collect::<Result<_>>()?;
        let same =
            |kept: &[TextColumn]| kept.len() == columns.len() && kept.iter().zip(&columns).all(|(a, b)| a.is_same(b));
        if let Some((_, tokens)) = self.kept.iter().find(|(kept, _)| same(kept)) {
            return Ok(tokens.clone());
        }
        let tokens = Arc::new(self.encode_rows(task, &columns, ctx)?);
        if self.kept.len() == KEPT {
            self.kept.remove(0);
        }
        self.kept.push((columns, tokens.clone()));
        Ok(tokens)
    }

    fn encode_rows(&mut self, task: &TaskSpec, columns: &[TextColumn], ctx: &Context<'_>) -> Result<Vec<Vec<u32>>> {
        let Some(first) = columns.first() else {
            return Err(Error::data(format!(
                "task `{}` names no input column, and there is nothing to read",
                task.name
            )));
        };
        let (mut cut, mut unknown) = (0_usize, Unknown::default());
        let mut rows = Vec::with_capacity(first.len());
        for row in 0..first.len() {
            let parts: Vec<&str> = columns.iter().map(|column| column.get(row)).collect();
            let sequence = parts.join(CHAIN_BREAK);
            let mut ids = self.encode(&sequence)?;
            unknown.all += sequence.chars().count();
            if ids.iter().any(|&id| Some(id) == self.unknown) {
                unknown.sequences += 1;
                self.count_unknown(&sequence, &mut unknown)?;
            }
            if ids.len() > self.longest {
                // The last token is `<eos>` and stays.
                ids.drain(self.longest - 1..ids.len() - 1);
                cut += 1;
            }
            rows.push(ids);
        }
        let count = rows.len();
        if cut > 0 {
            ctx.warn(format_args!(
                "task `{}`: {cut} of {count} sequences are longer than {} tokens and were cut",
                task.name, self.longest
            ));
        }
        // Each table of a task is read once; what it adds to the letters reported before is news.
        let letters = unknown.letters.keys().map(|letter| (task.name.clone(), letter.clone()));
        let before = self.reported.len();
        self.reported.extend(letters);
        if self.reported.len() > before {
            let knows = |letter: &str| self.inner.token_to_id(letter).is_some();
            ctx.warn(format_args!("task `{}`: {}", task.name, unknown.describe(count, knows)));
        }
        Ok(rows)
    }

    /// Adds what the tokenizer does not know of a sequence.
    fn count_unknown(&self, sequence: &str, unknown: &mut Unknown) -> Result<()> {
        // This call costs more than `encode`, and says where each token stands.
        let encoding = self.inner.encode(sequence, true).map_err(|e| not_split(&*e))?;
        for (&id, &(from, to)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
            if Some(id) == self.unknown {
                let letter = sequence.get(from..to).unwrap_or(UNKNOWN);
                *unknown.letters.entry(letter.to_owned()).or_default() += 1;
            }
        }
        Ok(())
    }
}

fn not_split(cause: &(dyn std::error::Error + 'static)) -> Error {
    Error::data("a sequence could not be split into tokens").because(cause)
}

fn published_json() -> Value {
    let letters: Vec<String> = LETTERS.chars().map(String::from).collect();
    let names = SPECIAL.into_iter().chain(letters.iter().map(String::as_str));
    let vocabulary: Map<String, Value> = names.enumerate().map(|(id, token)| (token.to_owned(), id.into())).collect();
    let special = |id: usize| {
        json!({
            "id": id, "content": SPECIAL[id], "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    };
    let added = |id: usize| json!({ "id": SPECIAL[id], "ids": [id], "tokens": [SPECIAL[id]] });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": (0..SPECIAL.len()).map(special).collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": { "type": "Split", "pattern": { "Regex": "." }, "behavior": "Isolated", "invert": false },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                { "SpecialToken": { "id": "<bos>", "type_id": 0 } },
                { "Sequence": { "id": "A", "type_id": 0 } },
                { "SpecialToken": { "id": "<eos>", "type_id": 0 } },
            ],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
            "special_tokens": { "<bos>": added(3), "<eos>": added(4) },
        },
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": UNKNOWN },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::Column;
    use plugin_api::context::{Host, Silent};
    use std::sync::Mutex;

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
    fn letters_become_the_published_ids() {
        let tokenizer = Tokenizer::published(&Architecture::published()).unwrap();
        assert_eq!(tokenizer.encode("LB|A").unwrap(), [3, 6, 26, 5, 7, 4]);
        assert_eq!(tokenizer.encode("").unwrap(), [3, 4]);
    }

    #[test]
    fn several_inputs_are_joined_as_chains_and_kept() {
        let mut tokenizer = Tokenizer::published(&Architecture::published()).unwrap();
        let table =
            Table::new().with("heavy", Column::text(["L"])).unwrap().with("light", Column::text(["A"])).unwrap();
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
    fn what_is_cut_or_unknown_is_said_once() {
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
    fn unknown_letters_are_named_once_a_task() {
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
    fn a_tokenizer_that_knows_more_than_the_trunk_is_refused() {
        let error = Tokenizer::published(&Architecture { vocab_size: 26, ..Architecture::published() }).unwrap_err();
        assert!(error.message().contains("knows 27 tokens"), "{error}");
    }
}
