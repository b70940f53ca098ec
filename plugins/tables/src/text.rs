//! Text as files hold it: its encoding, the characters that show nothing, and many texts in one piece of memory.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use plugin_api::{Error, Result};
use sha2::{Digest, Sha256};

/// Many texts in one piece of memory.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    all: String,
    ends: Vec<usize>,
}

impl Texts {
    /// Adds one text: these parts, one after the other.
    pub fn push(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.all.push_str(part));
        self.ends.push(self.all.len());
    }

    /// The text of a number.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn get(&self, index: usize) -> &str {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.all[start..self.ends[index]]
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// How many bytes are held for it.
    pub fn memory(&self) -> usize {
        self.all.capacity() + self.ends.capacity() * size_of::<usize>()
    }
}

/// A file whose bytes are read as UTF-8, whatever its encoding.
pub struct Opened {
    /// What it says, in UTF-8.
    pub reader: Box<dyn Read + Send>,
    /// SHA-256 of the bytes as they lie in the file, in hexadecimal.
    pub sha256: String,
    /// Whether the encoding was a guess.
    pub guessed: bool,
    /// Whether it is known to hold no `"`.
    pub unquoted: bool,
}

const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";
const CHUNK: usize = 1 << 16;

/// Opens a file in UTF-8, in UTF-16 with a byte order mark, else in Latin-1, in which every byte is a character. A file
/// in UTF-8 is never in memory as a whole.
///
/// # Errors
/// If it cannot be read.
pub fn open(path: &Path) -> Result<Opened> {
    let io = |e: std::io::Error| Error::io(path, &e);
    let mut file = File::open(path).map_err(io)?;
    let Survey { start, utf8, unquoted, sha256 } = survey(&mut file).map_err(io)?;
    let (mut guessed, mut marked) = (false, 0);
    let decoded = match start[..] {
        [0xff, 0xfe, ..] => Some(utf16(&std::fs::read(path).map_err(io)?, u16::from_le_bytes)),
        [0xfe, 0xff, ..] => Some(utf16(&std::fs::read(path).map_err(io)?, u16::from_be_bytes)),
        _ if utf8 => {
            marked = if start == UTF8_MARK { UTF8_MARK.len() } else { 0 };
            None
        }
        _ => {
            guessed = true;
            Some(std::fs::read(path).map_err(io)?.into_iter().map(char::from).collect())
        }
    };
    file.seek(SeekFrom::Start(marked as u64)).map_err(io)?;
    // Of a text that was decoded its bytes tell nothing.
    let unquoted = unquoted && decoded.is_none();
    let reader: Box<dyn Read + Send> = match decoded {
        Some(text) => Box::new(Cursor::new(text.into_bytes())),
        None => Box::new(file),
    };
    Ok(Opened { reader, sha256, guessed, unquoted })
}

/// What a first reading of a file tells.
struct Survey {
    /// Its first three bytes, or fewer.
    start: Vec<u8>,
    utf8: bool,
    unquoted: bool,
    sha256: String,
}

fn survey(file: &mut File) -> std::io::Result<Survey> {
    let (mut sha256, mut start, mut utf8, mut unquoted) = (Sha256::new(), Vec::new(), true, true);
    let mut buffer = vec![0; CHUNK];
    // How many bytes at the buffer's start are a character that the last chunk cut in two.
    let mut cut = 0;
    loop {
        let read = file.read(&mut buffer[cut..])?;
        if read == 0 {
            break;
        }
        let chunk = &buffer[cut..cut + read];
        sha256.update(chunk);
        unquoted = unquoted && memchr::memchr(b'"', chunk).is_none();
        start.extend(chunk.iter().take(UTF8_MARK.len() - start.len()));
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
    Ok(Survey { start, utf8: utf8 && cut == 0, unquoted, sha256 })
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let units = bytes.chunks_exact(2).skip(1).map(|pair| unit([pair[0], pair[1]]));
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// The text without white space, which neither a chain nor a number has inside, and without characters that show
/// nothing: soft hyphen, zero-width space and joiners, directional marks, word joiner and byte order mark.
pub fn visible(text: &str) -> Cow<'_, str> {
    // A block at a time, without a way out inside it, so that it is one comparison of vectors.
    let plain = |block: &[u8]| block.iter().fold(true, |plain, byte| plain & byte.is_ascii_graphic());
    if text.as_bytes().chunks(32).all(plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().filter(|&c| !is_unseen(c)).collect())
}

/// The text without what [`visible`] leaves out at its start and its end; what stands between is as it is.
pub fn trimmed(text: &str) -> &str {
    text.trim_matches(is_unseen)
}

/// Whether a text stands for a missing value.
pub fn is_missing(text: &str) -> bool {
    let missing = ["", "-", "na", "n/a", "nan", "none", "null"];
    missing.iter().any(|missing| missing.eq_ignore_ascii_case(trimmed(text)))
}

fn is_unseen(c: char) -> bool {
    let shows_nothing = matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    c.is_whitespace() || c.is_control() || shows_nothing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> (String, bool) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mut opened = open(file.path()).unwrap();
        let mut text = String::new();
        opened.reader.read_to_string(&mut text).unwrap();
        (text, opened.guessed)
    }

    #[test]
    fn a_character_may_lie_across_two_chunks() {
        for before in CHUNK - 4..=CHUNK {
            for character in ["é", "€", "🧬"] {
                let text = "A".repeat(before) + character + &"B".repeat(CHUNK);
                assert_eq!(read(text.as_bytes()), (text, false));
            }
        }
        let mut torn = "A".repeat(CHUNK - 1).into_bytes();
        torn.extend(b"\xe2\x82");
        assert_eq!(read(&torn), ("A".repeat(CHUNK - 1) + "â\u{82}", true));
    }

    #[test]
    fn the_hash_is_of_the_bytes_in_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"\xef\xbb\xbfabc").unwrap();
        // printf '\xef\xbb\xbfabc' | sha256sum
        let expected = "1c28dc3f1f804a1ad9c9b4b4cf5e2658d16ad4ed08e3020d04a8d2865018947c";
        assert_eq!(open(file.path()).unwrap().sha256, expected);
    }

    #[test]
    fn a_text_without_unseen_characters_is_not_copied() {
        assert!(matches!(visible("EVQLVESGGGLVQPGGSLRLSCAASGFNIKDTYIHWVRQAPGKGLEWV|-0.5"), Cow::Borrowed(_)));
        assert_eq!(visible("\u{a0}\u{202d}1.5\u{200b}\u{feff} \r\n"), "1.5");
        let late = "A".repeat(100) + "\u{ad}B";
        assert_eq!(visible(&late), "A".repeat(100) + "B");
        assert_eq!(trimmed("\u{feff} a\u{ad} b\u{200b}\r\n"), "a\u{ad} b");
    }
}
