//! A checkpoint as a stranger may have made it: each of its files is read or refused.

use std::fs;

use test_support::fuzz::{Memory, fuzz, overwrite};

use crate::architecture::Architecture;
use crate::checkpoint::{CONFIG, Checkpoint, TOKENIZER};
use crate::config::Pretrained;
use crate::tokenize::Tokenizer;
use crate::weight_files::{self, WeightFiles};

use plugin_api::Context;
use plugin_api::context::Silent;

#[test]
fn any_configuration_is_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::published(&Architecture::published()).unwrap();
    fs::write(folder.path().join(TOKENIZER), tokenizer.json()).unwrap();
    let pretrained = Pretrained::Named(folder.path().display().to_string());
    fuzz("config", 300, Memory { base: 1 << 20, per_byte: 200 }, |input| {
        overwrite(&folder.path().join(CONFIG), input);
        Checkpoint::open(&pretrained, &Context::new(&Silent)).is_ok()
    });
}

#[test]
fn any_tokenizer_is_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(TOKENIZER);
    let architecture = Architecture { vocab_size: 1000, ..Architecture::published() };
    fuzz("tokenizer", 300, Memory { base: 4 << 20, per_byte: 500 }, |input| {
        overwrite(&path, input);
        let Ok(tokenizer) = Tokenizer::read(&path, &architecture) else { return false };
        let _ = (tokenizer.masking(0), tokenizer.settings());
        ["", "EVQ|DIQ", "x é <bos>"].iter().all(|text| tokenizer.encode(text).is_ok())
    });
}

#[test]
fn any_file_of_weights_is_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(weight_files::SINGLE);
    fuzz("weights", 400, Memory { base: 64 << 10, per_byte: 100 }, |input| {
        overwrite(&path, input);
        let Ok(mut located) = WeightFiles::single(path.clone()).locate(&[("w", vec![2, 2])], |_| true) else {
            return false;
        };
        located.read("w", &mut [0.0; 4]).is_ok()
    });
}

#[test]
fn any_index_of_weights_is_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(weight_files::INDEX);
    fuzz("shards", 300, Memory { base: 64 << 10, per_byte: 100 }, |input| {
        overwrite(&path, input);
        weight_files::shards(&path).is_ok()
    });
}
