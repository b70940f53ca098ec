//! Keys of sites: made once, never overwritten, and shown as experiments and SuperLinks need them.

use crate::support::Bench;

/// What follows `start` in a line of the output.
fn line<'t>(text: &'t str, start: &str) -> &'t str {
    text.lines().find_map(|line| line.strip_prefix(start)).unwrap_or_else(|| panic!("no `{start}` in {text}"))
}

#[test]
fn a_key_is_made_once_for_its_owner_alone_and_shown_as_often_as_wanted() {
    let bench = Bench::new();
    let keys = |arguments: &[&str]| bench.fedplug(&[&["keys"], arguments].concat());
    let path = bench.path("a.pem");
    let output = ["--output", path.to_str().unwrap()];
    let made = keys(&[&["clinic-a"], &output[..]].concat());
    assert_eq!(made.code, 0, "{}", made.stderr);
    let fingerprint = line(&made.stdout, "fingerprint: ");
    assert!(fingerprint.len() == 64 && fingerprint.bytes().all(|c| c.is_ascii_hexdigit()), "{fingerprint}");
    assert_eq!(line(&made.stdout, "clinic-a = "), format!("\"sha256:{fingerprint}\""));
    assert!(line(&made.stdout, "ecdsa-sha2-nistp384 ").ends_with(" clinic-a"));
    let private = std::fs::read_to_string(&path).unwrap();
    assert!(
        private.starts_with("-----BEGIN PRIVATE KEY-----\n") && !made.stdout.contains(private.lines().nth(1).unwrap())
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let again = keys(&[&["clinic-a"], &output[..]].concat());
    assert_eq!(again.code, 2, "{}", again.stdout);
    assert!(
        again.stderr.contains("a.pem: the file exists; a key is never overwritten\nhint: show its"),
        "{}",
        again.stderr
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), private);
    let shown = keys(&[&["clinic-a", "--show"], &output[..]].concat());
    assert_eq!((shown.code, &shown.stdout), (0, &made.stdout));
    let other = bench.command(&["keys", "clinic-b"]).current_dir(bench.path("")).output().unwrap();
    assert!(other.status.success() && bench.path("clinic-b.pem").is_file());
    assert_ne!(line(std::str::from_utf8(&other.stdout).unwrap(), "fingerprint: "), fingerprint);
}

#[test]
fn what_is_no_key_or_no_name_is_refused() {
    let bench = Bench::new();
    let path = bench.write("b.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let output = path.to_str().unwrap();
    for (arguments, code, text) in [
        (&["../a"][..], 2, "error: `../a`: names a directory"),
        (&["a", "--show", "--output", output][..], 2, "b.pem: "),
        (&["a", "--output", "/no/such/folder/a.pem"][..], 2, "/no/such/folder/a.pem: "),
    ] {
        let told = bench.fedplug(&[&["keys"], arguments].concat());
        assert_eq!(told.code, code, "{}", told.stderr);
        assert!(told.stderr.contains(text), "{}", told.stderr);
    }
}
