//! What never crosses.

use super::{Sites, TASKS, linear};
use crate::support::files;

/// Bytes that must not be in a file: as they are, and in the forms in which they may travel.
fn found(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn rows_private_heads_and_paths_never_reach_the_superlink() {
    let Some(mut sites) = Sites::new(&TASKS, &linear("secrets", 3, ""), |_| String::new()) else { return };
    // A SuperLink with a database keeps what it got.
    sites.link.kill();
    let database = sites.bench.path("superlink.db");
    sites.link.restart_with(&["--database", database.to_str().unwrap()]);
    sites.join_all();
    sites.serve(&[]);
    let mut seen = Vec::new();
    for path in files(database.parent().unwrap()) {
        if path.file_name().unwrap().to_str().unwrap().starts_with("superlink.db") {
            seen.extend(std::fs::read(path).unwrap());
        }
    }
    // That it keeps anything shows by what may cross.
    assert!(found(&seen, b"round") && seen.len() > 100_000, "{}", seen.len());
    let data = std::fs::read_to_string(crate::support::root().join("configs/sample/tm/tm.csv"));
    let data = data.unwrap_or_else(|_| {
        let all = files(&crate::support::root().join("configs/sample/tm"));
        std::fs::read_to_string(&all[0]).unwrap()
    });
    let row = data.lines().nth(3).unwrap();
    let sequence = row.split(',').max_by_key(|cell| cell.len()).unwrap();
    assert!(sequence.len() > 60 && !found(&seen, &sequence.as_bytes()[..30]));
    let folder = crate::support::root().display().to_string();
    assert!(!found(&seen, folder.as_bytes()), "a path crossed");
    for site in TASKS {
        let model = std::fs::read(sites.at_site(site, "model/model.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&model).unwrap();
        let private: Vec<_> = tensors.tensors().into_iter().filter(|(name, _)| name.contains("regressor")).collect();
        assert!(!private.is_empty());
        for (name, view) in private {
            let bytes = view.data();
            if bytes.len() >= 16 && bytes.iter().any(|byte| *byte != 0) {
                assert!(!found(&seen, &bytes[..bytes.len().min(64)]), "{site}: {name} crossed");
            }
        }
    }
}
