//! Token ids of amino-acid sequences.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use plugin_api::{Context, Error, Result, Table, TaskSpec, TextColumn};
use serde_json::{Map, Value, json};

use crate::architecture::Architecture;
use crate::config::Pooling;
use crate::masking::Masking;
use crate::placeholder;
use crate::segments::ChainBounds;
use crate::unknown_letters::UnknownLetters;

/// Joins a task's inputs, such as a heavy and a light chain.
const CHAIN_BREAK: &str = "|";
pub(crate) const UNKNOWN: &str = "<unk>";
/// The published vocabulary in the order of the ids: first these, then [`LETTERS`].
const SPECIAL: [&str; 5] = ["<pad>", UNKNOWN, MASK, "<bos>", "<eos>"];
const MASK: &str = "<mask>";
const LETTERS: &str = "|LAGVSERTIDPKQNFYMHWCB";
/// Tables whose tokens are cached. A run has a train and a test table for each task.
const CACHED_TABLES: usize = 64;

/// The token ids of each row of a table.
pub type Tokens = Arc<Vec<Vec<u32>>>;

/// A tokenizer in Hugging Face's format.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    json: Vec<u8>,
    /// The id of `<unk>`.
    unknown: Option<u32>,
    max_length: usize,
    cache: Vec<(Vec<TextColumn>, Tokens)>,
    /// Unknown letters that were reported, with their tasks.
    reported: BTreeSet<(String, String)>,
}

impl Tokenizer {
    /// Reads a checkpoint's `tokenizer.json`.
    ///
    /// # Errors
    /// If it cannot be read, or has more tokens than the trunk.
    pub fn read(path: &Path, architecture: &Architecture) -> Result<Self> {
        let json = placeholder::read(path)?;
        Self::new(json, architecture).map_err(|e| e.in_file(path, None))
    }

    /// The published tokenizer: `<bos>`, a token for each letter, `<eos>`.
    ///
    /// # Errors
    /// If the trunk has fewer tokens.
    pub fn published(architecture: &Architecture) -> Result<Self> {
        Self::new(serde_json::to_vec_pretty(&published_json()).unwrap_or_default(), architecture)
    }

    fn new(json: Vec<u8>, architecture: &Architecture) -> Result<Self> {
        let inner = guarded("is not a usable tokenizer", || {
            let mut inner = tokenizers::Tokenizer::from_bytes(&json)?;
            // `encode_rows` truncates, and reports it; `Batch` pads.
            inner.with_padding(None).with_truncation(None)?;
            Ok(inner)
        })?;
        let known = inner.get_vocab(true).into_values().max().map_or(0, |id| i64::from(id) + 1);
        if known > architecture.vocab_size {
            let message = format!("has {known} tokens, and the trunk's embedding {}", architecture.vocab_size);
            return Err(
                Error::data(message).help("check that `config.json` and `tokenizer.json` are of the same checkpoint")
            );
        }
        let unknown = inner.token_to_id(UNKNOWN);
        Ok(Self {
            inner,
            json,
            unknown,
            max_length: architecture.max_length as usize,
            cache: Vec::new(),
            reported: BTreeSet::new(),
        })
    }

    /// The contents of `tokenizer.json`.
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    /// The ids of one sequence, not truncated.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode(&self, sequence: &str) -> Result<Vec<u32>> {
        let encoding = guarded(NOT_ENCODED, || self.inner.encode_fast(sequence, true))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The contents of `tokenizer_config.json`, which names the padding token and the like. None if no token has a published
    /// name.
    pub(crate) fn settings(&self) -> Option<Value> {
        let mut settings = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": self.max_length,
            "clean_up_tokenization_spaces": false,
        });
        let known = SPECIAL.into_iter().filter(|token| self.inner.token_to_id(token).is_some());
        for token in known.clone() {
            settings[format!("{}_token", token.trim_matches(['<', '>']))] = token.into();
        }
        (known.count() > 0).then_some(settings)
    }

    /// What masked language modelling masks. `pad` is the trunk's padding token.
    ///
    /// # Errors
    /// If there is no `<mask>`, or no token that is not special.
    pub(crate) fn masking(&self, pad: i64) -> Result<Masking> {
        let lacks = |what: &str| Err(Error::config(format!("the tokenizer has no {what}")).at_key("objective"));
        let Some(mask) = self.inner.token_to_id(MASK) else { return lacks("token `<mask>`") };
        let named = SPECIAL.iter().filter_map(|token| self.inner.token_to_id(token));
        let added = self.inner.get_added_tokens_decoder().into_iter();
        let special = named.chain(added.filter(|(_, token)| token.special).map(|(id, _)| id));
        let special: BTreeSet<u32> = special.chain(u32::try_from(pad)).collect();
        let ids: BTreeSet<u32> = self.inner.get_vocab(true).into_values().collect();
        let letters: Vec<u32> = ids.difference(&special).copied().collect();
        if letters.is_empty() { lacks("letters") } else { Ok(Masking { mask, letters }) }
    }

    /// Checks that there are the tokens that a pooling reads. Gives those that bound chains, for the pooling of chains.
    ///
    /// # Errors
    /// If one is missing.
    pub(crate) fn check_pooling(&self, pooling: Pooling) -> Result<Option<ChainBounds>> {
        let id = |token: &str| self.inner.token_to_id(token);
        let lacks = |what: &str| Err(Error::config(format!("the tokenizer {what}")).at_key("pooling"));
        match (pooling, id(CHAIN_BREAK)) {
            (Pooling::Chains, Some(separator)) => {
                Ok(Some(ChainBounds { separator, ends: ["<bos>", "<eos>"].into_iter().filter_map(id).collect() }))
            }
            (Pooling::Chains, None) => lacks("has no token `|`"),
            (Pooling::Bos, _) if id("<bos>").is_none() || self.encode("A")?.first().copied() != id("<bos>") => {
                lacks("does not start a sequence with `<bos>`")
            }
            _ => Ok(None),
        }
    }

    /// The ids of a table's rows, truncated to the trunk's maximum length. Those of the last tables are cached.
    ///
    /// # Errors
    /// If the task has no input column, or the table lacks one.
    pub fn rows(&mut self, task: &TaskSpec, table: &Table, ctx: &Context<'_>) -> Result<Tokens> {
        let columns: Vec<TextColumn> =
            task.inputs.iter().map(|name| table.text(name).cloned()).collect::<Result<_>>()?;
        let same = |cached: &[TextColumn]| {
            cached.len() == columns.len() && cached.iter().zip(&columns).all(|(a, b)| a.is_same(b))
        };
        if let Some((_, tokens)) = self.cache.iter().find(|(cached, _)| same(cached)) {
            return Ok(tokens.clone());
        }
        let tokens = Arc::new(self.encode_rows(task, &columns, ctx)?);
        if self.cache.len() == CACHED_TABLES {
            self.cache.remove(0);
        }
        self.cache.push((columns, tokens.clone()));
        Ok(tokens)
    }

    fn encode_rows(&mut self, task: &TaskSpec, columns: &[TextColumn], ctx: &Context<'_>) -> Result<Vec<Vec<u32>>> {
        let Some(first) = columns.first() else {
            return Err(Error::data(format!("task `{}` has no input column", task.name)));
        };
        let (mut truncated, mut unknown) = (0_usize, UnknownLetters::default());
        let mut rows = Vec::with_capacity(first.len());
        for row in 0..first.len() {
            let parts: Vec<&str> = columns.iter().map(|column| column.get(row)).collect();
            let sequence = parts.join(CHAIN_BREAK);
            let mut ids = self.encode(&sequence)?;
            unknown.total_letters += sequence.chars().count();
            if ids.iter().any(|&id| Some(id) == self.unknown) {
                unknown.sequences += 1;
                self.count_unknown(&sequence, &mut unknown)?;
            }
            if ids.len() > self.max_length {
                // Keeps `<eos>`, the last token.
                ids.drain(self.max_length - 1..ids.len() - 1);
                truncated += 1;
            }
            rows.push(ids);
        }
        let count = rows.len();
        if truncated > 0 {
            ctx.warn(format_args!(
                "task `{}`: {truncated} of {count} sequences are longer than {} tokens and were truncated",
                task.name, self.max_length
            ));
        }
        // A task's tables are encoded one by one. A table with new unknown letters gets a warning.
        let letters = unknown.counts.keys().map(|letter| (task.name.clone(), letter.clone()));
        let before = self.reported.len();
        self.reported.extend(letters);
        if self.reported.len() > before {
            let is_known = |letter: &str| self.inner.token_to_id(letter).is_some();
            ctx.warn(format_args!("task `{}`: {}", task.name, unknown.describe(count, is_known)));
        }
        Ok(rows)
    }

    /// Counts the unknown letters of a sequence.
    fn count_unknown(&self, sequence: &str, unknown: &mut UnknownLetters) -> Result<()> {
        // Slower than `encode`, but gives the range of each token.
        let encoding = guarded(NOT_ENCODED, || self.inner.encode(sequence, true))?;
        for (&id, &(from, to)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
            if Some(id) == self.unknown {
                let letter = sequence.get(from..to).unwrap_or(UNKNOWN);
                *unknown.counts.entry(letter.to_owned()).or_default() += 1;
            }
        }
        Ok(())
    }
}

const NOT_ENCODED: &str = "a sequence could not be tokenized";

/// Calls the crate `tokenizers`, which accepts some files that it then panics over.
fn guarded<T>(what: &str, call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    let outcome = catch_unwind(AssertUnwindSafe(call));
    let outcome = outcome.map_err(|_| Error::data(what).because_of("the file `tokenizer.json` contradicts itself"))?;
    outcome.map_err(|cause| Error::data(what).because(&*cause))
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
