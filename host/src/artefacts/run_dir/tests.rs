//! Directories with all kinds of contents that a run may, or may not, begin in.

use super::*;

fn claim(parent: &Path, existing: Existing) -> Result<RunDir, CliError> {
    RunDir::claim(parent, "r", existing, &mut |_| ())
}

#[test]
fn what_a_process_left_before_its_manifest_stops_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r");
    for left in [&["run.lock"][..], &["run.lock", "manifest.json.part"], &["experiment.toml.part"]] {
        for existing in [Existing::Refuse, Existing::Replace, Existing::Resume] {
            std::fs::create_dir_all(&path).unwrap();
            left.iter().for_each(|name| std::fs::write(path.join(name), "").unwrap());
            assert!(claim(folder.path(), existing).unwrap().to_resume().is_none());
            std::fs::remove_dir_all(&path).unwrap();
        }
    }
    assert!(claim(folder.path(), Existing::Resume).unwrap_err().to_string().contains("there is no run to resume"));
}

/// A process that replaces a run may be killed after each of its steps.
#[test]
fn a_replacement_that_was_interrupted_goes_on_whatever_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r");
    let aside = replaced::aside(&path);
    let write = |path: PathBuf, text: &str| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let manifest = r#"{"fedplug": "0", "interface": "1.0.0", "plugins": []}"#;
    for existing in [Existing::Refuse, Existing::Replace, Existing::Resume] {
        // The manifest is already aside, a file of the run and one of somebody else are not.
        write(aside.join(names::MANIFEST), manifest);
        write(path.join("events/a/events.out.tfevents.1.fedplug.0"), "old");
        write(path.join("notes.txt"), "mine");
        let mut claimed = claim(folder.path(), existing).unwrap();
        assert!(claimed.to_resume().is_none());
        claimed.begin("", json!({"fedplug": "0", "interface": "1.0.0", "plugins": []})).unwrap();
        assert!(aside.join("events/a").exists() && !path.join("events").exists(), "{existing:?}");
        assert_eq!(claimed.replaces().is_some(), existing != Existing::Refuse);
        claimed.complete(&json!({})).unwrap();
        claimed.finish(&mut |_| ()).unwrap();
        drop(claimed);
        assert_eq!(aside.exists(), existing == Existing::Refuse);
        assert_eq!(std::fs::read_to_string(path.join("notes.txt")).unwrap(), "mine");
        std::fs::remove_dir_all(&path).unwrap();
        let _ = std::fs::remove_dir_all(&aside);
    }
}

#[test]
fn a_damaged_manifest_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r");
    std::fs::create_dir_all(&path).unwrap();
    for (file, text) in [(names::MANIFEST, "{\"fedplug"), (names::EXPERIMENT, ""), (names::JOURNAL, "")] {
        std::fs::write(path.join(file), text).unwrap();
    }
    for existing in [Existing::Refuse, Existing::Replace, Existing::Resume] {
        let failure = claim(folder.path(), existing).unwrap_err();
        assert!(failure.to_string().contains("`manifest.json` is damaged"), "{failure}");
    }
}

#[test]
fn a_claim_that_comes_to_nothing_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let parent = folder.path().join("runs");
    let claimed = claim(&parent, Existing::Refuse).unwrap();
    assert!(claim(&parent, Existing::Refuse).unwrap_err().to_string().contains("is running this experiment"));
    drop(claimed);
    assert!(!parent.exists());
}

#[test]
fn a_folder_of_somebody_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r");
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join("manifest.json"), r#"{"manifest_version": 3}"#).unwrap();
    for existing in [Existing::Refuse, Existing::Replace, Existing::Resume] {
        claim(folder.path(), existing).unwrap_err();
    }
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1);
}

#[test]
#[cfg(unix)]
fn a_link_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().join("real");
    std::fs::create_dir_all(&real).unwrap();
    std::fs::write(real.join(names::MANIFEST), r#"{"fedplug": "0", "interface": "1.0.0", "plugins": []}"#).unwrap();
    std::os::unix::fs::symlink(&real, folder.path().join("r")).unwrap();
    let failure = claim(folder.path(), Existing::Replace).unwrap_err();
    assert!(failure.to_string().contains("is a link"), "{failure}");
    assert!(claim(folder.path(), Existing::Resume).is_ok());
}

#[test]
fn a_replacement_that_moved_nothing_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut claimed = claim(folder.path(), Existing::Refuse).unwrap();
    let aside = replaced::aside(claimed.path());
    std::fs::create_dir_all(&aside).unwrap();
    claimed.begin("", json!({"fedplug": "0", "interface": "1.0.0", "plugins": []})).unwrap();
    claimed.finish(&mut |_| ()).unwrap();
    assert!(!aside.exists());
}
