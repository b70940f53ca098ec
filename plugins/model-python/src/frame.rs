//! Messages on the connection to a process: 8 bytes of length, JSON, and what comes beside it. See `_channel.py`.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use plugin_api::Buffer;
use serde_json::Value;

/// How long a wait lasts before the caller looks around.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// How many bytes memory is taken for before any of them has come.
const PIECE: u64 = 1 << 16;

/// The longest JSON that a process may send.
const LONGEST: u64 = 1 << 31;

/// The connection, to send.
#[derive(Debug)]
pub(crate) struct Writer(UnixStream);

/// The connection, to receive.
#[derive(Debug)]
pub(crate) struct Reader(UnixStream);

/// A message as it came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) value: Value,
    pub(crate) pieces: Vec<Buffer>,
}

/// Why nothing came.
#[derive(Debug)]
pub(crate) enum Broken<E> {
    /// The other end is closed, or what it sent is no message.
    Closed(String),
    /// The caller had enough while it waited.
    Given(E),
}

/// Both directions of a connection.
pub(crate) fn split(stream: UnixStream) -> std::io::Result<(Reader, Writer)> {
    stream.set_read_timeout(Some(TICK))?;
    stream.set_write_timeout(Some(TICK))?;
    Ok((Reader(stream.try_clone()?), Writer(stream)))
}

impl Writer {
    /// Sends a message with these descriptors, and the pieces after it. Calls `tick` while the other end does not read.
    pub(crate) fn send<E>(
        &mut self,
        value: &Value,
        files: &[BorrowedFd<'_>],
        pieces: &[Buffer],
        tick: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<(), Broken<E>> {
        let text = value.to_string();
        let mut head = (text.len() as u64).to_le_bytes().to_vec();
        head.extend_from_slice(text.as_bytes());
        let begun = if files.is_empty() { 0 } else { self.send_files(&head, files)? };
        self.write(&head[begun..], tick)?;
        pieces.iter().try_for_each(|piece| self.write(piece.as_slice(), tick))
    }

    fn send_files<E>(&self, head: &[u8], files: &[BorrowedFd<'_>]) -> Result<usize, Broken<E>> {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
        let mut space = vec![std::mem::MaybeUninit::uninit(); SendAncillaryMessage::ScmRights(files).size()];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        if !rights.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(Broken::Closed("too many files at once".to_owned()));
        }
        sendmsg(&self.0, &[std::io::IoSlice::new(head)], &mut rights, SendFlags::empty())
            .map_err(|error| Broken::Closed(error.to_string()))
    }

    fn write<E>(&mut self, mut bytes: &[u8], tick: &mut dyn FnMut() -> Result<(), E>) -> Result<(), Broken<E>> {
        while !bytes.is_empty() {
            match self.0.write(bytes) {
                Ok(0) => return Err(Broken::Closed("nobody reads what is sent".to_owned())),
                Ok(written) => bytes = &bytes[written..],
                Err(error) => waited(&error, tick)?,
            }
        }
        Ok(())
    }
}

impl Reader {
    /// The next message. Calls `tick` while there is none.
    pub(crate) fn receive<E>(&mut self, tick: &mut dyn FnMut() -> Result<(), E>) -> Result<Frame, Broken<E>> {
        let mut head = [0; 8];
        self.read(&mut head, tick)?;
        let length = u64::from_le_bytes(head);
        if length > LONGEST {
            return Err(Broken::Closed(format!("it sent a message of {length} bytes")));
        }
        let text = self.bytes(length, tick)?;
        let value: Value = serde_json::from_slice(&text).map_err(|error| Broken::Closed(error.to_string()))?;
        let lengths = value["pieces"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut pieces = Vec::with_capacity(lengths.len());
        for length in lengths {
            let length = length.as_u64().unwrap_or_default();
            pieces.push(if length > PIECE {
                Buffer::copy_of(&self.bytes(length, tick)?)
            } else {
                let mut outcome = Ok(());
                let buffer = Buffer::build::<u8>(length as usize, |bytes| outcome = self.read(bytes, tick));
                outcome.map(|()| buffer)?
            });
        }
        Ok(Frame { value, pieces })
    }

    /// So many bytes. Memory is taken as they come, since a damaged length may be larger than any memory.
    fn bytes<E>(&mut self, length: u64, tick: &mut dyn FnMut() -> Result<(), E>) -> Result<Vec<u8>, Broken<E>> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < length {
            let start = bytes.len();
            let end = length.min(PIECE.max(2 * start as u64));
            bytes.resize(end as usize, 0);
            self.read(&mut bytes[start..], tick)?;
        }
        Ok(bytes)
    }

    fn read<E>(&mut self, mut into: &mut [u8], tick: &mut dyn FnMut() -> Result<(), E>) -> Result<(), Broken<E>> {
        while !into.is_empty() {
            match self.0.read(into) {
                Ok(0) => return Err(Broken::Closed("it has closed its end of the connection".to_owned())),
                Ok(read) => into = &mut into[read..],
                Err(error) => waited(&error, tick)?,
            }
        }
        Ok(())
    }
}

fn waited<E>(error: &std::io::Error, tick: &mut dyn FnMut() -> Result<(), E>) -> Result<(), Broken<E>> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => tick().map_err(Broken::Given),
        ErrorKind::Interrupted => Ok(()),
        _ => Err(Broken::Closed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use test_support::fuzz::{Memory, fuzz};

    use super::*;

    #[test]
    fn any_message_of_a_process_is_received_or_refused() {
        fuzz("frame", 300, Memory { base: 256 << 10, per_byte: 500 }, |input| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let (mut reader, writer) = split(ours).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    let mut theirs = theirs;
                    // The reader may have had enough before.
                    let _ = theirs.write_all(input);
                });
                let received = reader.receive(&mut || Ok::<(), ()>(()));
                drop((reader, writer));
                received.is_ok()
            })
        });
    }
}
