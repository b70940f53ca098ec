//! What never crosses.

use std::sync::{Arc, Mutex};

use safetensors::SafeTensors;
use test_support::proxy::{Fate, Proxy};
use test_support::superlink::SuperLink;

use super::{Sites, TASKS, linear, nothing};
use crate::support::{files, root};

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(haystack, needle).is_some()
}

#[test]
fn rows_private_heads_and_paths_never_reach_the_superlink() {
    let Some(link) = SuperLink::start(&["--insecure", "--isolation", "process"]) else { return };
    let recorded = Arc::new(Mutex::new(Vec::new()));
    let recorder = {
        let recorded = Arc::clone(&recorded);
        Proxy::start(link.port, move |passing| {
            let mut recorded = recorded.lock().unwrap();
            recorded.extend_from_slice(passing.answer.as_ref().unwrap_or(&passing.body));
            Fate::Pass
        })
    };
    let mut sites = Sites::at(link, recorder.port, &TASKS, &linear(&TASKS, "secrets", 3, ""), nothing);
    sites.join_all();
    sites.serve(&[]);
    let all = std::mem::take(&mut *recorded.lock().unwrap());
    let folder = root().display().to_string();
    assert!(!contains(&all, folder.as_bytes()), "a path crossed");
    for site in TASKS {
        let data = std::fs::read_to_string(&files(&root().join("configs/sample").join(site))[0]).unwrap();
        for row in data.lines().skip(1) {
            let sequence = row.split(',').max_by_key(|cell| cell.len()).unwrap();
            assert!(sequence.len() > 60 && !contains(&all, &sequence.as_bytes()[..30]), "{site}: a row crossed");
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
            let crossed = contains(&all, &bytes[..bytes.len().min(64)]);
            let is_private = name.contains("regressor");
            *(if is_private { &mut private } else { &mut shared }) += 1;
            // What is shared shows that the search finds what did cross.
            assert_eq!(crossed, !is_private, "{site}: {name}");
        }
        assert!(private > 0 && shared > 0, "{site}: {private} private tensors, {shared} shared ones");
    }
}
