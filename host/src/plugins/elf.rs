//! Checks that a library's file is complete. The dynamic loader maps the ranges in a file's headers; if the file is
//! shorter, the process dies of SIGBUS on the first access past its end.
//!
//! This is for ELF, the format of Linux and similar systems. The loaders of macOS and Windows check files themselves
//! and reject incomplete ones.

use std::fs::File;
use std::path::Path;

use object::elf::{FileHeader32, FileHeader64, SHT_NOBITS};
use object::read::elf::{FileHeader, ProgramHeader as _, SectionHeader as _};
use object::{Endianness, ReadCache, ReadRef};

use crate::error::Diagnostic;

/// Rejects an ELF file that is shorter than its headers state. Other files are left to the loader.
pub(super) fn check(path: &Path) -> Result<(), Diagnostic> {
    let failed = |e: std::io::Error| Diagnostic::new("the library cannot be read").cause(e);
    let file = File::open(path).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    let data = ReadCache::new(file);
    let end = match end(&data, len) {
        Ok(end) if end <= len => return Ok(()),
        Ok(end) => format!("the file has {len} bytes, but its headers refer to data up to byte {end}"),
        Err(error) => format!("its headers cannot be read: {error}"),
    };
    Err(Diagnostic::new("the library is truncated").cause(end).hint("build it or copy it again"))
}

/// The end of the last range that the headers name, in bytes. `len` is the length of the file.
fn end<'a, R: ReadRef<'a>>(data: R, len: u64) -> object::Result<u64> {
    // The byte after the magic number is the class: 32 or 64 bits.
    match data.read_bytes_at(0, len.min(5)) {
        Ok([0x7f, b'E', b'L', b'F', 1]) => end_of::<FileHeader32<Endianness>, R>(data, len),
        Ok([0x7f, b'E', b'L', b'F', 2]) => end_of::<FileHeader64<Endianness>, R>(data, len),
        _ => Ok(0),
    }
}

fn end_of<'a, E: FileHeader<Endian = Endianness>, R: ReadRef<'a>>(data: R, len: u64) -> object::Result<u64> {
    let header = E::parse(data)?;
    let endian = header.endian()?;
    let table = |start: u64, count: u32, size: u16| start.saturating_add(u64::from(count) * u64::from(size));
    let segments = table(header.e_phoff(endian).into(), header.phnum(endian, data)?, header.e_phentsize(endian));
    // The number of sections may be stored in the first section header.
    let first = table(header.e_shoff(endian).into(), 1, header.e_shentsize(endian));
    let mut end = segments.max(first);
    if end > len {
        return Ok(end);
    }
    let sections = table(header.e_shoff(endian).into(), header.shnum(endian, data)?, header.e_shentsize(endian));
    end = end.max(sections);
    if end > len {
        return Ok(end);
    }
    for segment in header.program_headers(endian, data)? {
        end = end.max(segment.p_offset(endian).into().saturating_add(segment.p_filesz(endian).into()));
    }
    for section in header.section_headers(endian, data)? {
        if section.sh_type(endian) != SHT_NOBITS {
            end = end.max(section.sh_offset(endian).into().saturating_add(section.sh_size(endian).into()));
        }
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file with 32 or 64 bits and little or big endian, with one segment and one section that end at `end`.
    fn elf(bits: u32, little: bool, end: u64) -> Vec<u8> {
        let mut bytes = vec![0x7f, b'E', b'L', b'F', if bits == 64 { 2 } else { 1 }, if little { 1 } else { 2 }, 1];
        bytes.resize(16, 0);
        let mut put = |fields: &[(usize, u64)]| {
            for &(width, value) in fields {
                match little {
                    true => bytes.extend(&value.to_le_bytes()[..width]),
                    false => bytes.extend(&value.to_be_bytes()[8 - width..]),
                }
            }
        };
        let word = bits as usize / 8;
        let (header, segment, section) = if bits == 64 { (64, 56, 64) } else { (52, 32, 40) };
        // Type, machine, version, entry point, and the offsets of the program and section headers.
        put(&[(2, 3), (2, 62), (4, 1), (word, 0), (word, header), (word, header + segment)]);
        // Flags, and the sizes and numbers of all headers.
        put(&[(4, 0), (2, header), (2, segment), (2, 1), (2, section), (2, 1), (2, 0)]);
        let (offset, size) = (header + segment + section, end - header - segment - section);
        if bits == 64 {
            put(&[(4, 1), (4, 4), (8, offset), (8, 0), (8, 0), (8, size), (8, size), (8, 0)]);
        } else {
            put(&[(4, 1), (4, offset), (4, 0), (4, 0), (4, size), (4, size), (4, 4), (4, 0)]);
        }
        // Name, type, flags, address, offset and size; the rest is zero.
        put(&[(4, 0), (4, 1), (word, 0), (word, 0), (word, offset), (word, size)]);
        bytes.resize(end as usize, 0);
        bytes
    }

    fn judged(bytes: &[u8]) -> Result<(), Diagnostic> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        check(file.path())
    }

    #[test]
    fn a_file_that_ends_before_its_headers_say_is_refused_wherever_it_was_cut() {
        for (bits, little) in [(64, true), (64, false), (32, true), (32, false)] {
            let whole = elf(bits, little, 300);
            judged(&whole).unwrap();
            for len in 5..300 {
                let report = judged(&whole[..len]).unwrap_err();
                assert_eq!(report.message(), "the library is truncated", "{bits} {little} {len}");
            }
            assert!(judged(&whole[..299]).unwrap_err().line().ends_with("byte 300; build it or copy it again"));
        }
    }

    #[test]
    fn what_is_no_elf_file_is_left_to_the_loader() {
        for bytes in [&b""[..], b"\x7fEL", b"not a library", b"\x7fELF\x03", b"\xcf\xfa\xed\xfe and more of Mach-O"] {
            judged(bytes).unwrap();
        }
    }
}
