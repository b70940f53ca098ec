//! What never crosses.

use safetensors::SafeTensors;

use super::{Sites, TASKS, linear};
use crate::support::{files, root};

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(haystack, needle).is_some()
}

/// All that a SuperLink with a database kept of a run.
fn kept(sites: &mut Sites) -> Vec<u8> {
    sites.link.kill();
    let database = sites.bench.path("superlink.db");
    sites.link.restart_with(&["--database", database.to_str().unwrap()]);
    sites.join_all();
    sites.serve(&[]);
    let of_database = |path: &std::path::PathBuf| path.to_str().unwrap().starts_with(database.to_str().unwrap());
    files(database.parent().unwrap())
        .iter()
        .filter(|path| of_database(path))
        .flat_map(|path| std::fs::read(path).unwrap())
        .collect()
}

#[test]
fn rows_private_heads_and_paths_never_reach_the_superlink() {
    let Some(mut sites) = Sites::new(&TASKS, &linear("secrets", 3, ""), |_| String::new()) else { return };
    let kept = kept(&mut sites);
    let folder = root().display().to_string();
    assert!(!contains(&kept, folder.as_bytes()), "a path crossed");
    for site in TASKS {
        let data = std::fs::read_to_string(&files(&root().join("configs/sample").join(site))[0]).unwrap();
        for row in data.lines().skip(1) {
            let sequence = row.split(',').max_by_key(|cell| cell.len()).unwrap();
            assert!(sequence.len() > 60 && !contains(&kept, &sequence.as_bytes()[..30]), "{site}: a row crossed");
        }
        let model = std::fs::read(sites.at_site(site, "model/model.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&model).unwrap();
        let (mut private, mut shared) = (0, 0);
        for (name, view) in tensors.tensors() {
            let bytes = view.data();
            // Shorter values would be found by chance.
            if bytes.len() < 16 {
                continue;
            }
            assert!(bytes.iter().any(|&byte| byte != 0), "{site}: {name} was not trained");
            let crossed = contains(&kept, &bytes[..bytes.len().min(64)]);
            let is_private = name.contains("regressor");
            *(if is_private { &mut private } else { &mut shared }) += 1;
            // What is shared shows that the search finds what did cross.
            assert_eq!(crossed, !is_private, "{site}: {name}");
        }
        assert!(private > 0 && shared > 0, "{site}: {private} private tensors, {shared} shared ones");
    }
}
