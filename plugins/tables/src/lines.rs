//! Records of a file in which nothing is quoted, as most measurements are: then a line is a record, and finding the ends of
//! lines and fields takes a fraction of the time that a reader of any CSV takes.

use std::io::{Error, ErrorKind, Read, Result};

use csv::{Position, StringRecord};
use memchr::{memchr_iter, memchr2};

const CHUNK: usize = 1 << 16;

/// The lines of a text, read so far. As for the `csv` crate a line ends in LF, CR or both, and an empty one is no record.
pub(crate) struct Lines {
    reader: Box<dyn Read + Send>,
    delimiter: u8,
    buffer: Vec<u8>,
    /// The bytes of the buffer that were read and are not used yet.
    start: usize,
    end: usize,
    /// How many LF were before.
    line: u64,
}

impl Lines {
    /// Whether records with this between their fields can be read so.
    pub(crate) fn can_split_at(delimiter: u8) -> bool {
        delimiter.is_ascii() && !b"\r\n\"".contains(&delimiter)
    }

    pub(crate) fn new(reader: Box<dyn Read + Send>, delimiter: u8) -> Self {
        Self { reader, delimiter, buffer: vec![0; CHUNK], start: 0, end: 0, line: 0 }
    }

    /// Reads the next record, if there is one.
    pub(crate) fn read_record(&mut self, record: &mut StringRecord) -> Result<bool> {
        record.clear();
        // How many unused bytes are known to hold no end of a line.
        let mut seen = 0;
        loop {
            let rest = &self.buffer[self.start..self.end];
            match memchr2(b'\n', b'\r', &rest[seen..]).map(|at| seen + at) {
                Some(0) => self.pass(1),
                Some(length) => {
                    self.split(length, record)?;
                    self.pass(length + 1);
                    return Ok(true);
                }
                None => {
                    seen = rest.len();
                    if self.fill()? {
                        continue;
                    }
                    if seen > 0 {
                        self.split(seen, record)?;
                        self.start = self.end;
                    }
                    return Ok(seen > 0);
                }
            }
        }
    }

    /// Puts the fields of the unused bytes up to `length` into the record.
    fn split(&self, length: usize, record: &mut StringRecord) -> Result<()> {
        let bytes = &self.buffer[self.start..self.start + length];
        let text = str::from_utf8(bytes).map_err(|e| Error::new(ErrorKind::InvalidData, e))?;
        let mut start = 0;
        for end in memchr_iter(self.delimiter, bytes).chain([length]) {
            record.push_field(&text[start..end]);
            start = end + 1;
        }
        let mut position = Position::new();
        position.set_line(self.line + 1);
        record.set_position(Some(position));
        Ok(())
    }

    /// Leaves bytes behind, of which the last ends a line.
    fn pass(&mut self, count: usize) {
        self.start += count;
        self.line += u64::from(self.buffer[self.start - 1] == b'\n');
    }

    /// Reads more behind the unused bytes, if there is more.
    fn fill(&mut self) -> Result<bool> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.end == self.buffer.len() {
            self.buffer.resize(2 * self.end, 0);
        }
        loop {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(read) => {
                    self.end += read;
                    return Ok(read > 0);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives so many bytes at a time.
    struct Slow(Vec<u8>, usize);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
            let count = self.1.min(self.0.len()).min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0.drain(..count);
            Ok(count)
        }
    }

    fn records(text: &str, step: usize) -> Vec<Vec<String>> {
        let mut lines = Lines::new(Box::new(Slow(text.as_bytes().to_vec(), step)), b',');
        let (mut all, mut record) = (Vec::new(), StringRecord::new());
        while lines.read_record(&mut record).unwrap() {
            all.push(record.iter().map(str::to_owned).collect());
        }
        all
    }

    #[test]
    fn records_are_those_of_the_csv_crate() {
        let long = "é".repeat(CHUNK) + ",b\n";
        for text in [
            "",
            "\n",
            "a,b\n1,2\n",
            "a,b\r\n\r\n1,2\r\n3",
            "a\rb\r\rc",
            ",\n,,\n",
            "a,b\n1,",
            " \n x , y\n",
            "ä,β\n🧬",
            &long,
        ] {
            let mut builder = csv::ReaderBuilder::new();
            let reader = builder.has_headers(false).flexible(true).from_reader(text.as_bytes());
            let wanted: Vec<Vec<String>> =
                reader.into_records().map(|record| record.unwrap().iter().map(str::to_owned).collect()).collect();
            for step in [1, 3, CHUNK] {
                if step > 1 || text.len() < CHUNK {
                    assert_eq!(records(text, step), wanted, "{text:.40?}");
                }
            }
        }
    }

    #[test]
    fn a_record_knows_its_line() {
        let mut lines = Lines::new(Box::new("a\r\n\r\nb\nc".as_bytes()), b',');
        let mut record = StringRecord::new();
        for wanted in [1, 3, 4] {
            assert!(lines.read_record(&mut record).unwrap());
            assert_eq!(record.position().unwrap().line(), wanted);
        }
        assert!(!lines.read_record(&mut record).unwrap());
    }
}
