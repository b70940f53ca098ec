//! Files that stand in for the wanted one after a failed download: a Git LFS pointer, or a web page.

use std::fs;
use std::path::Path;

use plugin_api::{Error, Result};

/// How every Git LFS pointer starts (the first line of its specification).
const LFS: &[u8] = b"version https://git-lfs.github.com/spec/";

/// The content of a small file.
///
/// # Errors
/// If it cannot be read, or is a placeholder.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let content = fs::read(path).map_err(|e| Error::io(path, &e))?;
    detect(path, &content).map_or(Ok(content), Err)
}

/// The error, if a file that starts like this is a placeholder.
pub(crate) fn detect(path: &Path, start: &[u8]) -> Option<Error> {
    let text = start.strip_prefix("\u{feff}".as_bytes()).unwrap_or(start).trim_ascii_start();
    let is_page = ["<!doctype", "<html", "<?xml", "<head"]
        .iter()
        .any(|tag| text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag.as_bytes())));
    let (what, help) = if text.starts_with(LFS) {
        let help = "`git lfs pull` in the folder downloads the file; without Git, download the file itself";
        ("is a Git LFS pointer, not the file itself", help)
    } else if is_page {
        let help = "download the file itself: on the Hugging Face hub its address has `resolve` in place of `blob`";
        ("is a web page, not the file itself", help)
    } else {
        return None;
    };
    Some(Error::data(what).in_file(path, None).help(help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lfs_pointers_and_web_pages_are_detected() {
        let found = |content: &[u8]| detect(Path::new("a"), content).map(|e| e.message().to_owned());
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
