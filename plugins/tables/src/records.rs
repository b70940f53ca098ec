//! Reads CSV records with the lines on which they begin.

use std::collections::VecDeque;
use std::io::{self, Read};

use csv::StringRecord;

/// Reads records one by one. Empty lines are not records.
pub(crate) struct RecordReader(csv::Reader<LineTracker>);

impl RecordReader {
    pub(crate) fn new(reader: Box<dyn Read + Send>, delimiter: u8) -> Self {
        let mut builder = csv::ReaderBuilder::new();
        builder.delimiter(delimiter).flexible(true).has_headers(false).buffer_capacity(1 << 16);
        Self(builder.from_reader(LineTracker::new(reader)))
    }

    /// Reads the next record, and returns whether there was one. Its position holds the line on which it begins, counted as
    /// editors do.
    pub(crate) fn next(&mut self, record: &mut StringRecord) -> csv::Result<bool> {
        let more = self.0.read_record(record)?;
        // The position of the `csv` crate is where it began to search: before empty lines, or after the last record.
        if more && let Some(mut position) = record.position().cloned() {
            position.set_line(self.0.get_mut().line_of(position.byte()));
            record.set_position(Some(position));
        }
        Ok(more)
    }
}

/// Passes bytes through and remembers where lines begin.
struct LineTracker {
    reader: Box<dyn Read + Send>,
    /// The offset of the next byte.
    offset: u64,
    /// The line of the last byte.
    line: u64,
    /// The last byte.
    previous: Option<u8>,
    /// The offsets and numbers of lines that are not empty and whose records have not been read yet.
    starts: VecDeque<(u64, u64)>,
}

impl LineTracker {
    fn new(reader: Box<dyn Read + Send>) -> Self {
        Self { reader, offset: 0, line: 0, previous: None, starts: VecDeque::new() }
    }

    /// The line of the first record at or after this offset.
    fn line_of(&mut self, offset: u64) -> u64 {
        while self.starts.front().is_some_and(|(start, _)| *start < offset) {
            self.starts.pop_front();
        }
        self.starts.front().map_or(self.line, |(_, line)| *line)
    }

    /// Counts a line that begins at this offset with this byte.
    fn begin(&mut self, offset: u64, byte: u8) {
        if self.previous == Some(b'\r') && byte == b'\n' {
            return;
        }
        self.line += 1;
        if !matches!(byte, b'\r' | b'\n') {
            self.starts.push_back((offset, self.line));
        }
    }
}

impl Read for LineTracker {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        let bytes = &buffer[..read];
        let ends_line = |byte: u8| matches!(byte, b'\r' | b'\n');
        // A line begins with the first byte of the text, and after a chunk that ended with a line break.
        if let Some(&first) = bytes.first().filter(|_| self.previous.is_none_or(ends_line)) {
            self.begin(self.offset, first);
        }
        for end in memchr::memchr2_iter(b'\n', b'\r', bytes) {
            self.previous = Some(bytes[end]);
            if let Some(&next) = bytes.get(end + 1) {
                self.begin(self.offset + end as u64 + 1, next);
            }
        }
        self.previous = bytes.last().copied().or(self.previous);
        self.offset += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns this many bytes at a time.
    struct Slow(Vec<u8>, usize);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len()).min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0.drain(..count);
            Ok(count)
        }
    }

    fn records(text: &str, step: usize) -> Vec<(u64, String)> {
        let mut records = RecordReader::new(Box::new(Slow(text.as_bytes().to_vec(), step)), b',');
        let (mut all, mut record) = (Vec::new(), StringRecord::new());
        while records.next(&mut record).unwrap() {
            all.push((record.position().unwrap().line(), record.iter().collect::<Vec<_>>().join("/")));
        }
        all
    }

    #[test]
    fn a_record_has_the_line_on_which_it_begins() {
        let text: &[(&str, &[(u64, &str)])] = &[
            ("", &[]),
            ("\n", &[]),
            ("a,b\n1,2\n", &[(1, "a/b"), (2, "1/2")]),
            ("a\r\nb\r\nc", &[(1, "a"), (2, "b"), (3, "c")]),
            ("a\rb\r\rc\r", &[(1, "a"), (2, "b"), (4, "c")]),
            ("\n\na\n\n\nb\n\n", &[(3, "a"), (6, "b")]),
            ("a\r\n\r\n\r\nb\r\n \r\nc", &[(1, "a"), (4, "b"), (5, " "), (6, "c")]),
            ("\"x\ny\",1\nb\n", &[(1, "x\ny/1"), (3, "b")]),
            ("\"x\r\n\r\ny\"\r\n\"\n\"\r\nb", &[(1, "x\r\n\r\ny"), (4, "\n"), (6, "b")]),
            ("\"x\n\"\n\n\"\n\ny\"\n\nb", &[(1, "x\n"), (4, "\n\ny"), (8, "b")]),
            ("a\n\"open\nto the\nend", &[(1, "a"), (2, "open\nto the\nend")]),
        ];
        for (text, wanted) in text {
            let wanted: Vec<(u64, String)> = wanted.iter().map(|(line, text)| (*line, (*text).to_owned())).collect();
            for step in [1, 2, 3, 1000] {
                assert_eq!(records(text, step), wanted, "{text:?} by {step}");
            }
        }
    }

    #[test]
    fn lines_are_right_in_a_file_of_many_chunks() {
        let mut text = String::new();
        let mut wanted = Vec::new();
        let mut line = 1;
        for row in 0..20_000_u64 {
            let (record, lines) = match row % 4 {
                0 => (format!("r{row},1\r\n"), 1),
                1 => (format!("r{row},\"a\n\nb\"\r\n"), 3),
                2 => (format!("r{row},\n\n"), 2),
                _ => (format!("r{row}\n"), 1),
            };
            text += &record;
            wanted.push(line);
            line += lines;
        }
        let found: Vec<u64> = records(&text, 1 << 20).into_iter().map(|(line, _)| line).collect();
        assert_eq!(found, wanted);
    }
}
