//! Trunks from a hub on loopback. Environment variables belong to a process, so each load runs in its own: this binary again,
//! with only the test [`in_a_child`].

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::hub::{Fault, ID, TestHub};
use crate::common::{amplify, config, ctx, exported, setup};
use model_amplify::Amplify;
use plugin_api::context::Host;
use plugin_api::{Context, Level, Model};
use serde_json::{Value, json};

const FIRST: &str = "1111111111111111111111111111111111111111";
const SECOND: &str = "2222222222222222222222222222222222222222";

#[derive(Default)]
struct Lines(Mutex<Vec<String>>, AtomicBool);

impl Host for Lines {
    fn enabled(&self, _: Level) -> bool {
        true
    }
    fn log(&self, _: Level, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
    fn scalar(&self, _: &str, _: u64, _: f64) {}
    fn progress(&self, done: u64, total: u64) {
        assert!(done <= total);
    }
    fn cancelled(&self) -> bool {
        self.1.load(Ordering::Relaxed)
    }
}

/// Makes six clients in parallel, exports the first, and writes the outcome to a file.
#[test]
#[ignore = "run by the other tests, with an environment of its own"]
fn in_a_child() {
    let (Ok(pretrained), Some(folder)) = (env::var("HUB_TEST_NAME"), env::var_os("HUB_TEST_FOLDER")) else { return };
    let folder = PathBuf::from(folder);
    let lines = Lines::default();
    let make = || Amplify::new(config(json!({ "pretrained": pretrained })), &setup(), &Context::new(&lines));
    let stop = env::var_os("HUB_TEST_STOP").is_some();
    let made: Result<Vec<_>, _> = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(500));
            lines.1.store(stop, Ordering::Relaxed);
        });
        let clients: Vec<_> = (0..6).map(|_| scope.spawn(make)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let mut outcome = match made {
        Ok(mut models) => {
            let export = folder.join("export");
            let _ = fs::remove_dir_all(&export);
            fs::create_dir(&export).unwrap();
            json!({ "files": models[0].export(&export, &ctx()).unwrap() })
        }
        Err(e) => json!({ "error": e.to_string(), "causes": e.causes(), "hint": e.hint(), "kind": e.kind().as_str() }),
    };
    outcome["lines"] = json!(*lines.0.lock().unwrap());
    fs::write(folder.join("outcome.json"), outcome.to_string()).unwrap();
}

/// A hub with one trunk at `main` and another at `v2`, and a cache.
struct Scene {
    hub: TestHub,
    home: tempfile::TempDir,
    trunks: BTreeMap<&'static str, Vec<u8>>,
}

impl Scene {
    fn new() -> Self {
        let hub = TestHub::new();
        let mut trunks = BTreeMap::new();
        for (commit, revision, range) in [(FIRST, "main", 0.02), (SECOND, "v2", 0.5)] {
            let trunk = json!({
                "hidden-size": 16, "layers": 2, "heads": 2, "intermediate-size": 24, "decoder-init-range": range,
            });
            let folder = exported(&mut amplify(json!({ "pretrained": trunk })));
            let mut files: Vec<_> = ["config.json", "tokenizer.json", "model.safetensors"]
                .map(|name| (name, fs::read(folder.path().join(name)).unwrap()))
                .into();
            trunks.insert(commit, files[2].1.clone());
            let mut config: Value = serde_json::from_slice(&files[0].1).unwrap();
            config["auto_map"] = json!({ "AutoModel": "amplify.AMPLIFY" });
            files[0].1 = config.to_string().into_bytes();
            files.extend([("amplify.py", b"# code".to_vec()), ("norm.py", b"# its part".to_vec())]);
            files.push(("README.md", b"# not asked for".to_vec()));
            hub.change(|shelf| {
                shelf.revisions.insert(revision.to_owned(), commit.to_owned());
                for (name, content) in files {
                    shelf.files.insert((commit.to_owned(), name.to_owned()), content);
                }
            });
        }
        Self { hub, home: tempfile::tempdir().unwrap(), trunks }
    }

    /// The outcome of six clients with this `pretrained` and these variables.
    fn load(&self, name: &str, variables: &[(&str, &str)]) -> Value {
        let outcome = self.home.path().join("outcome.json");
        let _ = fs::remove_file(&outcome);
        let mut child = Command::new(env::current_exe().unwrap());
        child.args(["hub::in_a_child", "--exact", "--ignored"]).current_dir(self.home.path());
        // Nothing of the machine that runs the tests counts.
        for (variable, _) in env::vars_os() {
            let upper = variable.to_string_lossy().to_uppercase();
            if upper.starts_with("HF_") || upper.starts_with("XDG_") || upper.ends_with("_PROXY") {
                child.env_remove(&variable);
            }
        }
        child.env("HF_HOME", self.home.path()).env("HF_ENDPOINT", &self.hub.url).envs(variables.iter().copied());
        let output = child.env("HUB_TEST_NAME", name).env("HUB_TEST_FOLDER", self.home.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        serde_json::from_slice(&fs::read(outcome).unwrap_or_else(|_| panic!("the child failed: {said}"))).unwrap()
    }

    #[track_caller]
    fn loads(&self, name: &str, variables: &[(&str, &str)], commit: &str) -> Value {
        let outcome = self.load(name, variables);
        assert_eq!(outcome.get("error"), None, "{outcome:#}");
        let exported = fs::read(self.home.path().join("export/model.safetensors")).unwrap();
        assert!(exported == self.trunks[commit], "other weights than those of {commit}");
        outcome
    }

    /// Fails with an error that contains all `parts`.
    #[track_caller]
    fn fails(&self, name: &str, variables: &[(&str, &str)], parts: &[&str]) {
        let outcome = self.load(name, variables);
        let text = format!("{} {} {}", outcome["error"], outcome["causes"], outcome["hint"]);
        assert!(outcome["error"].as_str().is_some_and(|error| error.starts_with("`pretrained`: ")), "{outcome:#}");
        parts.iter().for_each(|part| assert!(text.contains(part), "`{part}` is not in {outcome:#}"));
    }

    fn cached(&self, commit: &str, file: &str) -> PathBuf {
        self.home.path().join("hub/models--lab--tiny/snapshots").join(commit).join(file)
    }
}

const OFFLINE: (&str, &str) = ("HF_HUB_OFFLINE", "1");

#[test]
fn a_trunk_is_downloaded_once_and_then_taken_from_the_cache() {
    let scene = Scene::new();
    let outcome = scene.loads(ID, &[], FIRST);
    let code = fs::read(scene.home.path().join("export/amplify.py")).unwrap();
    assert_eq!((code, outcome["files"].to_string().contains("norm.py")), (b"# code".to_vec(), true));
    assert_eq!(outcome["lines"].to_string().matches("downloading `lab/tiny`").count(), 1, "{outcome:#}");
    let asked = scene.hub.asked();
    // For six clients: its size, then the file.
    assert_eq!(asked.iter().filter(|line| line.starts_with("/cdn/")).count(), 2, "{asked:#?}");
    assert!(!asked.iter().any(|line| line.contains("README")), "{asked:#?}");

    scene.hub.change(|shelf| shelf.fault = Fault::Status(500));
    scene.loads(ID, &[], FIRST);
    scene.loads(ID, &[OFFLINE], FIRST);
    scene.loads(&format!("{ID}@{FIRST}"), &[OFFLINE], FIRST);
    assert_eq!(scene.hub.asked(), [""; 0]);
    let elsewhere = scene.home.path().join("hub");
    scene.loads(ID, &[OFFLINE, ("HF_HOME", "/nowhere"), ("HF_HUB_CACHE", elsewhere.to_str().unwrap())], FIRST);
}

/// The cache was copied without `refs`.
#[test]
fn offline_a_cache_without_references_is_used_if_it_holds_one_commit() {
    let scene = Scene::new();
    scene.loads(ID, &[], FIRST);
    fs::remove_dir_all(scene.home.path().join("hub/models--lab--tiny/refs")).unwrap();
    let outcome = scene.loads(ID, &[OFFLINE], FIRST);
    let line = format!("the cache does not say which commit `lab/tiny` is at; using {FIRST}, its only one");
    assert!(outcome["lines"].to_string().contains(&line), "{outcome:#}");
    // A named revision is not replaced by another commit.
    scene.fails(&format!("{ID}@v2"), &[OFFLINE], &["`lab/tiny@v2` is incomplete in the cache"]);
    scene.loads(&format!("{ID}@{FIRST}"), &[OFFLINE], FIRST);

    scene.loads(&format!("{ID}@{SECOND}"), &[], SECOND);
    fs::remove_dir_all(scene.home.path().join("hub/models--lab--tiny/refs")).unwrap();
    let parts = ["the cache holds 2 commits of `lab/tiny`", FIRST, SECOND, &format!("such as `lab/tiny@{FIRST}`")];
    scene.fails(ID, &[OFFLINE], &parts);
    scene.loads(&format!("{ID}@{SECOND}"), &[OFFLINE], SECOND);
    assert!(!scene.hub.asked().is_empty());
    // With network access the hub resolves the branch.
    scene.loads(ID, &[], FIRST);
    assert!(scene.hub.asked().iter().any(|line| line.contains("/revision/main")));
}

#[test]
fn a_revision_is_a_branch_a_tag_or_a_commit() {
    let scene = Scene::new();
    scene.loads(&format!("{ID}@v2"), &[], SECOND);
    scene.loads(ID, &[], FIRST);
    scene.loads(&format!("{ID}@{SECOND}"), &[OFFLINE], SECOND);
    scene.loads(&format!("{ID}@v2"), &[OFFLINE], SECOND);
    scene.fails(&format!("{ID}@v3"), &[], &["there is no `lab/tiny@v3` on the hub (status 404)", "the revision"]);
}

#[test]
fn a_local_folder_takes_precedence_over_the_hub() {
    let scene = Scene::new();
    scene.loads(ID, &[], FIRST);
    let folder = scene.home.path().join(ID);
    fs::create_dir_all(folder.parent().unwrap()).unwrap();
    fs::rename(scene.home.path().join("export"), &folder).unwrap();
    fs::remove_dir_all(scene.home.path().join("hub")).unwrap();
    scene.loads(ID, &[OFFLINE], FIRST);
}

#[test]
fn a_sharded_trunk_is_downloaded() {
    let scene = Scene::new();
    scene.hub.change(|shelf| {
        let weights = shelf.files.remove(&(FIRST.to_owned(), "model.safetensors".to_owned())).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&weights).unwrap().tensors();
        let mut map = BTreeMap::new();
        for (number, part) in tensors.chunks(tensors.len() / 2 + 1).enumerate() {
            let file = format!("model-{number}.safetensors");
            part.iter().for_each(|(name, _)| drop(map.insert(name, file.clone())));
            let bytes = safetensors::serialize(part.iter().map(|(name, view)| (name, view)), None).unwrap();
            shelf.files.insert((FIRST.to_owned(), file), bytes);
        }
        let index = json!({ "weight_map": map }).to_string().into_bytes();
        shelf.files.insert((FIRST.to_owned(), "model.safetensors.index.json".to_owned()), index);
    });
    scene.loads(ID, &[], FIRST);
    scene.loads(ID, &[OFFLINE], FIRST);
    fs::remove_file(scene.cached(FIRST, "model-1.safetensors")).unwrap();
    scene.fails(ID, &[OFFLINE], &["lacks `model-1.safetensors`"]);
    scene.hub.asked();
    scene.loads(ID, &[], FIRST);
    assert!(!scene.hub.asked().iter().any(|line| line.contains("model-0")), "a complete shard was downloaded again");
}

#[test]
fn refusals_of_the_hub_say_what_to_do() {
    let scene = Scene::new();
    scene.fails("lab/other", &[], &["there is no `lab/other` on the hub", "it does not exist"]);
    scene.hub.change(|shelf| shelf.token = Some("secret".to_owned()));
    scene.fails(ID, &[], &["refuses access to `lab/tiny` (status 401)", "`HF_TOKEN`", &scene.hub.url]);
    scene.hub.change(|shelf| shelf.fault = Fault::Status(403));
    scene.fails(ID, &[("HF_TOKEN", "secret")], &["status 403", "accept the model's terms"]);
    scene.hub.change(|shelf| shelf.fault = Fault::Status(503));
    scene.fails(ID, &[], &["failed to serve `lab/tiny` (status 503)", "later"]);
    scene.hub.change(|shelf| shelf.fault = Fault::TalksNonsense);
    scene.fails(ID, &[], &["sent an invalid response", "`HF_ENDPOINT`"]);

    scene.hub.change(|shelf| shelf.fault = Fault::Nothing);
    scene.loads(ID, &[("HF_TOKEN", "secret")], FIRST);
    // The token that logging in writes.
    fs::write(scene.home.path().join("token"), "secret\n").unwrap();
    scene.loads(&format!("{ID}@v2"), &[], SECOND);
    fs::remove_dir_all(scene.home.path().join("hub")).unwrap();
    scene.hub.change(|shelf| shelf.files.remove(&(FIRST.to_owned(), "tokenizer.json".to_owned())));
    scene.fails(ID, &[], &["`lab/tiny` on the hub has no file `tokenizer.json`"]);
}

#[test]
fn without_network_access_the_error_names_the_hub_or_the_cache() {
    let scene = Scene::new();
    let dead = TestHub::new().url.clone();
    scene.fails(ID, &[("HF_ENDPOINT", &dead)], &["could not be reached", "refused", "check the network", &dead]);
    let place = scene.home.path().join("hub/models--lab--tiny");
    let parts = ["`HF_HUB_OFFLINE` is set", place.to_str().unwrap(), "`config.json`, `tokenizer.json`", "once"];
    scene.fails(ID, &[OFFLINE], &parts);
    assert_eq!(scene.hub.asked(), [""; 0]);
}

#[test]
fn a_damaged_download_is_removed_and_an_interrupted_one_resumes() {
    let scene = Scene::new();
    scene.hub.change(|shelf| shelf.fault = Fault::Flips);
    scene.fails(ID, &[], &["the download of `model.safetensors` of `lab/tiny` is damaged", "SHA-256", "run again"]);
    assert!(!scene.cached(FIRST, "model.safetensors").exists());
    scene.fails(ID, &[OFFLINE], &["is incomplete in the cache"]);

    scene.hub.change(|shelf| shelf.fault = Fault::BreaksOff);
    scene.fails(ID, &[], &["`model.safetensors` of `lab/tiny` could not be downloaded", "resume the download"]);
    scene.hub.change(|shelf| shelf.fault = Fault::Nothing);
    scene.hub.asked();
    scene.loads(ID, &[], FIRST);
    let asked = scene.hub.asked();
    let resumed = |line: &String| line.starts_with("/cdn/") && line.ends_with('-') && !line.ends_with("bytes=0-");
    assert!(asked.iter().any(resumed), "{asked:#?}");

    // A cached file that was truncated later.
    let blob = fs::canonicalize(scene.cached(FIRST, "model.safetensors")).unwrap();
    shorten(&blob);
    scene.fails(ID, &[OFFLINE], &["lacks `model.safetensors`"]);
    let outcome = scene.loads(ID, &[], FIRST);
    assert!(outcome["lines"].to_string().contains("is damaged; downloading it again"), "{outcome:#}");
}

/// Six clients wait one second in all, not six.
#[test]
fn a_hub_that_falls_silent_ends_the_download() {
    let scene = Scene::new();
    let second = ("HF_HUB_DOWNLOAD_TIMEOUT", "1");
    for (fault, what) in [(Fault::Silent, "`lab/tiny`"), (Fault::Stalls, "`model.safetensors` of `lab/tiny`")] {
        scene.hub.change(|shelf| shelf.fault = fault);
        scene.hub.asked();
        let error = format!("the hub has sent nothing of {what} for 1 s");
        scene.fails(ID, &[second], &[&error, "run again, which resumes the download", second.0]);
        let asked = scene.hub.asked();
        assert_eq!(asked.iter().filter(|line| line.contains("/revision/")).count(), 1, "{asked:#?}");
    }
    scene.hub.change(|shelf| shelf.fault = Fault::Nothing);
    scene.loads(ID, &[second], FIRST);
    let asked = scene.hub.asked();
    assert!(asked.iter().any(|line| line.ends_with('-') && !line.ends_with("bytes=0-")), "not resumed: {asked:#?}");
    scene.fails(
        &format!("{ID}@v2"),
        &[("HF_HUB_DOWNLOAD_TIMEOUT", "soon")],
        &["must be a number of seconds", "`soon`"],
    );
}

#[test]
fn a_download_stops_when_the_run_does() {
    let scene = Scene::new();
    for fault in [Fault::Silent, Fault::Stalls] {
        scene.hub.change(|shelf| shelf.fault = fault);
        let outcome = scene.load(ID, &[("HUB_TEST_STOP", "1")]);
        assert_eq!(outcome["kind"], "cancelled", "{outcome:#}");
    }
}

fn shorten(path: &Path) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();
}
