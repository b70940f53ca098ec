//! Opens text files: detects compression, encoding, and what is not a table.

use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};
use flate2::read::MultiGzDecoder;
use plugin_api::{Error, Result};
use sha2::{Digest, Sha256};
use zip::result::ZipError;

use crate::quoted;

/// A text file, opened.
pub struct TextFile {
    /// The text, in UTF-8 whatever the file's encoding.
    pub reader: Box<dyn Read + Send>,
    /// SHA-256 of the bytes on disk, in hexadecimal.
    pub sha256: String,
    /// What may be wrong with the characters, where the encoding had to be guessed or is broken.
    pub encoding_warning: Option<&'static str>,
    /// Whether the file's name, or its name in the archive, asks for tabs between columns.
    pub tab_separated: bool,
}

/// A file that is whole, but not a table.
pub(crate) struct NotATable {
    /// SHA-256 of its bytes, in hexadecimal.
    pub(crate) sha256: String,
    /// What it is, as a clause that begins with "it".
    pub(crate) reason: String,
}

/// How many bytes at the start decide what a file is.
const START: usize = 64;
const CHUNK: usize = 1 << 16;

/// Opens a file in UTF-8, UTF-16 or, if it is neither, Windows-1252. It may be compressed by gzip, or be the only CSV file
/// in a zip archive, whatever its name. Uncompressed UTF-8 is streamed; anything else is read into memory.
///
/// # Errors
/// If the file cannot be read or decompressed, or is not text.
pub fn open_text(path: &Path) -> Result<TextFile> {
    open_or_explain(path)?.map_err(|unreadable| Error::data(unreadable.reason).in_file(path, None))
}

/// As [`open_text`], but returns a file that is whole and not a table as such, for callers that skip it.
pub(crate) fn open_or_explain(path: &Path) -> Result<Result<TextFile, NotATable>> {
    let io = |e: std::io::Error| Error::io(path, &e);
    let mut file = File::open(path).map_err(io)?;
    let on_disk = FileScan::of(&mut file).map_err(io)?;
    let sha256 = on_disk.sha256.clone();
    let mut name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    name.truncate(name.strip_suffix(".gz").unwrap_or(&name).len());
    let decompressed = match decompress(path, &on_disk.start, &mut name)? {
        Ok(decompressed) => decompressed,
        Err(reason) => return Ok(Err(NotATable { sha256, reason })),
    };
    let scan = match &decompressed {
        Some(bytes) => FileScan::of(&mut &bytes[..]).map_err(io)?,
        None => on_disk,
    };
    let (encoding, marked) = scan.encoding();
    if let Some(what) = scan.not_a_table(encoding) {
        return Ok(Err(NotATable { sha256, reason: format!("it is {what}") }));
    }
    let mut encoding_warning = None;
    let reader: Box<dyn Read + Send> = match (decompressed, encoding == UTF_8 && scan.utf8) {
        (Some(bytes), true) => {
            let mut cursor = Cursor::new(bytes);
            cursor.set_position(marked);
            Box::new(cursor)
        }
        (None, true) => {
            file.seek(SeekFrom::Start(marked)).map_err(io)?;
            Box::new(file)
        }
        (decompressed, false) => {
            let bytes = decompressed.map_or_else(|| std::fs::read(path), Ok).map_err(io)?;
            let (text, wrong) = encoding.decode_with_bom_removal(&bytes);
            encoding_warning = match encoding.name() {
                "windows-1252" => Some("neither UTF-8 nor UTF-16, read as Windows-1252"),
                "UTF-8" if wrong => Some("invalid UTF-8 despite its byte order mark; invalid bytes are read as `�`"),
                _ if wrong => Some("invalid UTF-16; invalid bytes are read as `�`"),
                _ => None,
            };
            Box::new(Cursor::new(text.into_owned().into_bytes()))
        }
    };
    Ok(Ok(TextFile {
        reader,
        sha256,
        encoding_warning,
        tab_separated: [".tsv", ".tab"].iter().any(|end| name.ends_with(end)),
    }))
}

/// Whether a file's name is that of a table: `.csv`, `.tsv` or `.tab`, also with `.gz`, or any `.zip`.
pub fn is_table_file(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let inner = name.strip_suffix(".gz").unwrap_or(&name);
    name.ends_with(".zip") || [".csv", ".tsv", ".tab"].iter().any(|end| inner.ends_with(end))
}

/// The contents of a compressed file, `None` if it is not compressed, or why it is not read. `name` becomes the name in the
/// archive.
fn decompress(path: &Path, start: &[u8], name: &mut String) -> Result<Result<Option<Vec<u8>>, String>> {
    let broken = |cause: &dyn std::fmt::Display| {
        let error = Error::data("cannot be decompressed").in_file(path, None).because_of(cause.to_string());
        error.help("decompress it with another program, or download it again")
    };
    let mut bytes = Vec::new();
    let file = || File::open(path).map_err(|e| Error::io(path, &e));
    match start {
        [0x1f, 0x8b, ..] => {
            MultiGzDecoder::new(file()?).read_to_end(&mut bytes).map_err(|e| broken(&e))?;
        }
        [b'P', b'K', 3 | 5, 4 | 6, ..] => {
            let mut archive = zip::ZipArchive::new(file()?).map_err(|e| broken(&e))?;
            let names: Vec<String> = archive
                .file_names()
                .map(|name| Ok(name?.into_owned()))
                .collect::<Result<_, ZipError>>()
                .map_err(|e| broken(&e))?;
            let member = match member(&names) {
                Ok(member) => member,
                Err(reason) => return Ok(Err(reason)),
            };
            archive.by_name(member).and_then(|mut file| Ok(file.read_to_end(&mut bytes)?)).map_err(|e| broken(&e))?;
            *name = member.to_lowercase();
        }
        _ => return Ok(Ok(None)),
    }
    Ok(Ok(Some(bytes)))
}

/// The only table in an archive, or why it is not read.
fn member(names: &[String]) -> Result<&str, String> {
    let mut tables: Vec<&str> = Vec::new();
    for name in names {
        if ["[Content_Types].xml", "mimetype", "META-INF/manifest.xml"].contains(&name.as_str()) {
            return Err("it is a workbook or document; save the table as CSV".to_owned());
        }
        // The macOS Finder adds files of its own.
        let hidden = name.split('/').any(|part| part.starts_with('.') || part == "__MACOSX");
        let text = [".csv", ".tsv", ".tab", ".txt"].iter().any(|end| name.to_lowercase().ends_with(end));
        if text && !hidden {
            tables.push(name);
        }
    }
    tables.sort_unstable();
    match tables.len() {
        0 => Err("the archive contains no CSV file".to_owned()),
        1 => Ok(tables.remove(0)),
        _ => Err(format!("the archive contains several files ({}); extract them", quoted(&tables))),
    }
}

/// The result of reading a file once.
struct FileScan {
    /// The first bytes.
    start: Vec<u8>,
    /// Whether all bytes are valid UTF-8.
    utf8: bool,
    /// Whether a byte is zero.
    zero: bool,
    sha256: String,
}

impl FileScan {
    fn of(file: &mut impl Read) -> std::io::Result<Self> {
        let (mut sha256, mut start, mut utf8, mut zero) = (Sha256::new(), Vec::new(), true, false);
        let mut buffer = vec![0; CHUNK];
        // How many bytes at the start of the buffer belong to a character that the last chunk cut in two.
        let mut cut = 0;
        loop {
            let read = match file.read(&mut buffer[cut..]) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let chunk = &buffer[cut..cut + read];
            sha256.update(chunk);
            zero = zero || memchr::memchr(0, chunk).is_some();
            start.extend(chunk.iter().take(START - start.len()));
            let filled = cut + read;
            cut = 0;
            if utf8 && let Err(error) = str::from_utf8(&buffer[..filled]) {
                utf8 = error.error_len().is_none();
                if utf8 {
                    cut = filled - error.valid_up_to();
                    buffer.copy_within(error.valid_up_to()..filled, 0);
                }
            }
        }
        let sha256 = sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { start, utf8: utf8 && cut == 0, zero, sha256 })
    }

    /// The encoding, and the length of the byte order mark. Without one, UTF-16 is recognised by zeros in every second byte,
    /// as in ASCII text.
    fn encoding(&self) -> (&'static Encoding, u64) {
        if let Some((encoding, length)) = Encoding::for_bom(&self.start) {
            return (encoding, length as u64);
        }
        let encoding = match self.start[..] {
            [a, 0, b, 0, ..] if a != 0 && b != 0 => UTF_16LE,
            [0, a, 0, b, ..] if a != 0 && b != 0 => UTF_16BE,
            _ if self.utf8 => UTF_8,
            _ => WINDOWS_1252,
        };
        (encoding, 0)
    }

    /// What the file is, if it is known not to be a table.
    fn not_a_table(&self, encoding: &'static Encoding) -> Option<&'static str> {
        let text = String::from_utf8_lossy(&self.start).trim_start_matches('\u{feff}').trim_start().to_lowercase();
        let packed = ["bzh", "\u{fffd}7zxz", "7z\u{fffd}", "rar!", "(\u{fffd}/\u{fffd}"];
        if text.starts_with("version https://git-lfs") {
            Some("a Git LFS pointer, not the file itself; `git lfs pull` fetches that")
        } else if ["<!doctype", "<html", "<?xml"].iter().any(|tag| text.starts_with(tag)) {
            Some("a web page or XML, not the file itself; download the file again")
        } else if self.start.starts_with(b"\xd0\xcf\x11\xe0") {
            Some("an Excel workbook; save the table as CSV")
        } else if self.start.starts_with(b"PAR1") {
            Some("a Parquet file; save the table as CSV")
        } else if self.zero && !self.utf8 && packed.iter().any(|magic| text.starts_with(magic)) {
            Some("compressed in a format that is not supported; decompress it")
        } else if self.zero && ![UTF_16LE, UTF_16BE].contains(&encoding) {
            Some("not a text file")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests;
