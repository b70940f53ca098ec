//! Writing pictures to files: rendered on all cores, saved as SVG and PNG.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::Error;
use crate::png::Canvas;
use crate::svg::{self, Svg};

/// PNG pixels per CSS pixel: sharp on current screens, and 192 per inch on paper.
const PIXELS: u32 = 2;

/// A picture as the bytes of its two files.
#[derive(Debug)]
pub struct Drawn {
    svg: String,
    png: Vec<u8>,
}

/// Draws pictures on as many threads as the machine has cores. Returns one result per picture, in order.
pub fn draw_all(pictures: &[Svg]) -> Vec<Result<Drawn, String>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(pictures.len()).max(1);
    let next = AtomicUsize::new(0);
    let some = || {
        let mut canvas = Canvas::default();
        std::iter::from_fn(|| {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let svg = pictures.get(place)?;
            let drawn = canvas.encode(svg, PIXELS).map(|png| Drawn { svg: svg.text(), png });
            Some((place, drawn))
        })
        .collect::<Vec<_>>()
    };
    let mut drawn = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(some)).collect();
        let mut drawn = some();
        for other in others {
            drawn.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        drawn
    });
    drawn.sort_by_key(|(place, _)| *place);
    drawn.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Writes a picture as `STEM.svg` and `STEM.png`, and returns the two files.
///
/// # Errors
/// If the picture could not be drawn, or a file cannot be written.
pub fn save(drawn: Result<Drawn, String>, stem: &Path) -> Result<[PathBuf; 2], Error> {
    let [vector, pixels] = pair(stem);
    let drawn = drawn.map_err(|cause| Error::Draw { path: pixels.clone(), cause })?;
    if let Some(folder) = stem.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io(folder, "create the folder"))?;
    }
    for (path, bytes) in [(&vector, drawn.svg.as_bytes()), (&pixels, &drawn.png)] {
        // Write a temporary file and rename it, so that nothing is written through a link.
        let part = with(path, "part");
        std::fs::write(&part, bytes)
            .and_then(|()| std::fs::rename(&part, path))
            .map_err(Error::io(path, "write the picture"))?;
    }
    Ok([vector, pixels])
}

/// The first of a picture's two files that exists and was not drawn by fedplug. The SVG decides for both.
pub(crate) fn foreign(stem: &Path) -> Option<PathBuf> {
    let there = |path: &PathBuf| path.symlink_metadata().ok();
    let files = pair(stem);
    let ours = there(&files[0]).is_some_and(|data| data.is_file())
        && std::fs::read_to_string(&files[0]).is_ok_and(|text| svg::is_ours(&text));
    files.into_iter().find(|path| there(path).is_some_and(|data| !ours || !data.is_file()))
}

/// The two files of a picture.
pub(crate) fn pair(stem: &Path) -> [PathBuf; 2] {
    ["svg", "png"].map(|extension| with(stem, extension))
}

/// Appends an extension to a path.
fn with(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

/// Turns a name into a valid file name on any file system.
pub fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "-_.+ ".contains(c) { c } else { '_' };
    let name: String = name.chars().map(plain).collect();
    if name.starts_with('.') { format!("_{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_file() {
        assert_eq!(
            ["site-1", "Loss/train", "../up", "tm.v2"].map(file_name),
            ["site-1", "Loss_train", "_.._up", "tm.v2"]
        );
        assert_eq!(pair(Path::new("out/tm.v2")), [PathBuf::from("out/tm.v2.svg"), PathBuf::from("out/tm.v2.png")]);
    }
}
