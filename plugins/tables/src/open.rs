//! Opening a file of text: how it is packed, which encoding it has, and what is no table at all.

use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};
use flate2::read::MultiGzDecoder;
use plugin_api::{Error, Result};
use sha2::{Digest, Sha256};
use zip::result::ZipError;

use crate::quoted;

/// A file that is read as UTF-8, whatever its encoding.
pub struct TextFile {
    /// What it says, in UTF-8.
    pub reader: Box<dyn Read + Send>,
    /// SHA-256 of the bytes as they lie in the file, in hexadecimal.
    pub sha256: String,
    /// What may be wrong with the characters, where that is a guess.
    pub encoding_warning: Option<&'static str>,
    /// Whether its name says that columns stand between tabs.
    pub tab_separated: bool,
}

/// What is known of a file that cannot be read.
pub(crate) struct NotATable {
    /// SHA-256 of its bytes.
    pub(crate) sha256: String,
    /// Why, as a whole sentence about "it".
    pub(crate) reason: String,
}

/// Bytes that are looked at to tell what a file is.
const START: usize = 64;
const CHUNK: usize = 1 << 16;

/// Opens a file in UTF-8, in UTF-16, else in Windows-1252, in which every byte is a character. It may be packed by gzip, or
/// be the one CSV file in a zip archive, whatever its name says. A file in UTF-8 that is not packed is never in memory as
/// a whole.
///
/// # Errors
/// If it cannot be read or unpacked, or is no text.
pub fn open_text(path: &Path) -> Result<TextFile> {
    open_or_explain(path)?.map_err(|unreadable| Error::data(unreadable.reason).in_file(path, None))
}

/// As [`open_text`], but what is whole and no text is told apart from what is broken.
pub(crate) fn open_or_explain(path: &Path) -> Result<Result<TextFile, NotATable>> {
    let io = |e: std::io::Error| Error::io(path, &e);
    let mut file = File::open(path).map_err(io)?;
    let on_disk = FileScan::of(&mut file).map_err(io)?;
    let sha256 = on_disk.sha256.clone();
    let mut name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    name.truncate(name.strip_suffix(".gz").unwrap_or(&name).len());
    let unpacked = match unpack(path, &on_disk.start, &mut name)? {
        Ok(unpacked) => unpacked,
        Err(reason) => return Ok(Err(NotATable { sha256, reason })),
    };
    let survey = match &unpacked {
        Some(bytes) => FileScan::of(&mut &bytes[..]).map_err(io)?,
        None => on_disk,
    };
    let (encoding, marked) = survey.encoding();
    if let Some(what) = survey.no_table(encoding) {
        return Ok(Err(NotATable { sha256, reason: format!("it is {what}") }));
    }
    let mut encoding_warning = None;
    let reader: Box<dyn Read + Send> = match (unpacked, encoding == UTF_8 && survey.utf8) {
        (Some(bytes), true) => {
            let mut cursor = Cursor::new(bytes);
            cursor.set_position(marked);
            Box::new(cursor)
        }
        (None, true) => {
            file.seek(SeekFrom::Start(marked)).map_err(io)?;
            Box::new(file)
        }
        (unpacked, false) => {
            let bytes = unpacked.map_or_else(|| std::fs::read(path), Ok).map_err(io)?;
            let (text, wrong) = encoding.decode_with_bom_removal(&bytes);
            encoding_warning = match encoding.name() {
                "windows-1252" => Some("neither UTF-8 nor UTF-16, read as Windows-1252"),
                "UTF-8" if wrong => Some("not all of it is UTF-8, as its first bytes say; the rest is read as `�`"),
                _ if wrong => Some("not all of it is UTF-16; the rest is read as `�`"),
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

/// Whether a file is a table by its name: `.csv`, `.tsv` or `.tab`, also packed as `.gz` or `.zip`; or any `.zip`.
pub fn is_table_file(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let inner = name.strip_suffix(".gz").unwrap_or(&name);
    name.ends_with(".zip") || [".csv", ".tsv", ".tab"].iter().any(|end| inner.ends_with(end))
}

/// What a packed file holds, none of one that is not packed; or why it is not read. `name` becomes the
/// name in the archive.
fn unpack(path: &Path, start: &[u8], name: &mut String) -> Result<Result<Option<Vec<u8>>, String>> {
    let broken = |cause: &dyn std::fmt::Display| {
        let error = Error::data("cannot be unpacked").in_file(path, None).because_of(cause.to_string());
        error.help("unpack it by another program, or fetch it again")
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

/// The one table among the files of an archive, or why there is none.
fn member(names: &[String]) -> Result<&str, String> {
    let mut tables: Vec<&str> = Vec::new();
    for name in names {
        if ["[Content_Types].xml", "mimetype", "META-INF/manifest.xml"].contains(&name.as_str()) {
            return Err("it is a workbook or document; save the table as CSV".to_owned());
        }
        // Finder adds folders and files of its own.
        let hidden = name.split('/').any(|part| part.starts_with('.') || part == "__MACOSX");
        let text = [".csv", ".tsv", ".tab", ".txt"].iter().any(|end| name.to_lowercase().ends_with(end));
        if text && !hidden {
            tables.push(name);
        }
    }
    tables.sort_unstable();
    match tables.len() {
        0 => Err("the archive holds no CSV file".to_owned()),
        1 => Ok(tables.remove(0)),
        _ => Err(format!("the archive holds several files ({}); unpack it", quoted(&tables))),
    }
}

/// What a first reading of bytes tells.
struct FileScan {
    /// The first of them.
    start: Vec<u8>,
    utf8: bool,
    /// Whether a byte is zero.
    zero: bool,
    sha256: String,
}

impl FileScan {
    fn of(file: &mut impl Read) -> std::io::Result<Self> {
        let (mut sha256, mut start, mut utf8, mut zero) = (Sha256::new(), Vec::new(), true, false);
        let mut buffer = vec![0; CHUNK];
        // How many bytes at the buffer's start are a character that the last chunk cut in two.
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

    /// The encoding, and how many bytes at the start do nothing but name it. Every second byte of plain text in UTF-16 is
    /// zero.
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

    /// What the bytes are, if they are known to be no table.
    fn no_table(&self, encoding: &'static Encoding) -> Option<&'static str> {
        let text = String::from_utf8_lossy(&self.start).trim_start_matches('\u{feff}').trim_start().to_lowercase();
        let packed = ["bzh", "\u{fffd}7zxz", "7z\u{fffd}", "rar!", "(\u{fffd}/\u{fffd}"];
        if text.starts_with("version https://git-lfs") {
            Some("a Git LFS pointer, not the file itself; `git lfs pull` fetches that")
        } else if ["<!doctype", "<html", "<?xml"].iter().any(|tag| text.starts_with(tag)) {
            Some("a web page or XML, not the file itself; download that again")
        } else if self.start.starts_with(b"\xd0\xcf\x11\xe0") {
            Some("an Excel workbook; save the table as CSV")
        } else if self.start.starts_with(b"PAR1") {
            Some("a Parquet file; save the table as CSV")
        } else if self.zero && !self.utf8 && packed.iter().any(|magic| text.starts_with(magic)) {
            Some("packed in a way that is not read; unpack it")
        } else if self.zero && ![UTF_16LE, UTF_16BE].contains(&encoding) {
            Some("no text file")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests;
