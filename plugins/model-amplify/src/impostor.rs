//! What lies in a file's place where a download went wrong: the pointer that Git LFS leaves, or a page of the site.

use std::fs;
use std::path::Path;

use plugin_api::{Error, Result};

/// How every Git LFS pointer begins (the specification's first line).
const LFS: &[u8] = b"version https://git-lfs.github.com/spec/";

/// A small file's content.
///
/// # Errors
/// If it cannot be read, or is something else than it should be.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let content = fs::read(path).map_err(|e| Error::io(path, &e))?;
    impostor(path, &content).map_or(Ok(content), Err)
}

/// The error, if a file that begins so is no file of ours at all.
pub(crate) fn impostor(path: &Path, beginning: &[u8]) -> Option<Error> {
    let text = beginning.strip_prefix("\u{feff}".as_bytes()).unwrap_or(beginning).trim_ascii_start();
    let is_page = ["<!doctype", "<html", "<?xml", "<head"]
        .iter()
        .any(|tag| text.get(..tag.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(tag.as_bytes())));
    let (what, help) = if text.starts_with(LFS) {
        let help = "`git lfs pull` in the folder fetches the file; without Git, download the file itself";
        ("is a Git LFS pointer, not the file that it stands for", help)
    } else if is_page {
        let help = "download the file itself: on the Hugging Face hub its address has `resolve` in place of `blob`";
        ("is a web page, not the file that it is named after", help)
    } else {
        return None;
    };
    Some(Error::data(what).in_file(path, None).help(help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_and_pages_are_told_from_files() {
        let found = |content: &[u8]| impostor(Path::new("a"), content).map(|e| e.message().to_owned());
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:aaaa\nsize 123\n";
        assert!(found(pointer).unwrap().contains("Git LFS pointer"));
        for page in ["<!DOCTYPE html><html>", "\n  <html lang=\"en\">", "<?xml version=\"1.0\"?>", "\u{feff}<HTML>"] {
            assert!(found(page.as_bytes()).unwrap().contains("web page"), "{page}");
        }
        for file in [&b""[..], b"{ \"hidden_size\": 16 }", b"\x40\0\0\0\0\0\0\0{\"a\":", b"<", b"version 1"] {
            assert_eq!(found(file), None);
        }
    }
}
