//! What others may write, damage or send: each decoder reads or refuses it.

use std::path::Path;

use serde_json::Value;
use test_support::fuzz::{Memory, fuzz, overwrite};

use crate::artefacts::checkpoint::{Reader, sha256};
use crate::artefacts::names;
use crate::artefacts::safetensors;
use crate::experiment::config::Draft;
use crate::experiment::document::Document;
use crate::federation::resume::CheckpointIndex;
use crate::federation::summary::Summary;
use crate::sites::protocol::{Call, Payload, Reply};
use crate::sites::site_file::SiteFile;

/// A file of a user, with what is reported of its errors.
const TOML: Memory = Memory { base: 1 << 20, per_byte: 1000 };

/// A tree of values.
const JSON: Memory = Memory { base: 128 << 10, per_byte: 200 };

/// Reads an experiment as a run does before it looks for plugins, and writes it as a run's directory holds it.
fn experiment(document: Document) -> bool {
    match Draft::of(document).whole() {
        Ok(experiment) => !experiment.resolved().is_empty(),
        Err(error) => refused(&error),
    }
}

/// What a user sees of the refusal takes memory too.
fn refused(error: &impl ToString) -> bool {
    assert!(!error.to_string().is_empty());
    false
}

#[test]
fn any_experiment_is_read_or_refused() {
    fuzz("experiment", 500, TOML, |input| {
        let Ok(text) = str::from_utf8(input) else { return false };
        match Document::parse("x.toml".to_owned(), text) {
            Ok(document) => experiment(document),
            Err(error) => refused(&error),
        }
    });
}

#[test]
fn any_argument_of_set_is_read_or_refused() {
    let text = include_str!("../../tests/corpus/experiment/all");
    let document = Document::parse("x.toml".to_owned(), text).unwrap();
    fuzz("set", 500, TOML, |input| {
        let mut document = document.clone();
        let Ok(argument) = str::from_utf8(input) else { return false };
        match document.set(argument) {
            Ok(()) => experiment(document),
            Err(error) => refused(&error),
        }
    });
}

#[test]
fn any_file_of_a_site_is_read_or_refused() {
    fuzz("site", 300, TOML, |input| {
        let Ok(text) = str::from_utf8(input) else { return false };
        SiteFile::parse("site.toml", text, Path::new("/site")).map_or_else(|error| refused(&error), |_| true)
    });
}

/// The sums are right, as whoever changes a checkpoint on purpose would leave them.
#[test]
fn any_index_of_a_checkpoint_is_read_or_refused() {
    let run = tempfile::tempdir().unwrap();
    let folder = run.path().join(names::CHECKPOINT).join("00000001");
    std::fs::create_dir_all(&folder).unwrap();
    let states = folder.join("1.safetensors");
    std::fs::write(&states, include_bytes!("../../tests/corpus/safetensors/state")).unwrap();
    let states = sha256(&states).unwrap();
    fuzz("checkpoint", 300, Memory { base: 1 << 20, per_byte: 200 }, |input| {
        overwrite(&folder.join("index.json"), input);
        let index = sha256(&folder.join("index.json")).unwrap();
        let sums = format!("{index}  index.json\n{states}  1.safetensors\n");
        overwrite(&folder.join("SHA256SUMS"), sums.as_bytes());
        match Reader::open::<CheckpointIndex>(run.path(), &mut |_| ()) {
            Ok(Some((reader, _))) => {
                let names = ["global", "aggregator", "client.0.model"];
                names.iter().all(|name| reader.state(name).is_ok() && reader.message(name).is_ok())
            }
            Ok(None) => panic!("the checkpoint is complete"),
            Err(error) => refused(&error),
        }
    });
}

#[test]
fn any_file_of_tensors_is_read_or_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fuzz("safetensors", 500, Memory { base: 256 << 10, per_byte: 20 }, |input| {
        overwrite(file.path(), input);
        match safetensors::read(file.path()) {
            Ok(params) => {
                assert!(params.iter().map(|(_, tensor)| tensor.buffer().len()).sum::<usize>() <= input.len());
                true
            }
            Err(error) => refused(&error),
        }
    });
}

#[test]
fn any_call_and_any_reply_is_read_or_refused() {
    fuzz("wire", 500, JSON, |input| {
        let Ok(body) = serde_json::from_slice::<Value>(input) else { return false };
        let payload = || Payload { body: body.clone(), ..Payload::default() };
        let (call, reply) = (Call::read(payload()), Reply::read(payload()));
        let read = call.is_ok() || reply.is_ok();
        if let Ok(call) = call {
            call.into_payload().unwrap();
        }
        if let Ok(reply) = reply {
            assert!(reply.report.scalars.iter().all(|(_, trace)| trace.state().is_ok()));
            reply.into_payload().unwrap();
        }
        read
    });
}

#[test]
fn any_summary_is_read_or_refused() {
    let run = tempfile::tempdir().unwrap();
    fuzz("summary", 300, JSON, |input| {
        overwrite(&run.path().join(names::SUMMARY), input);
        Summary::read(run.path()).map_or_else(|error| refused(&error), |_| true)
    });
}
