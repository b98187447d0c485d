//! Reads length-prefixed JSON records (see `framehook_core::job`) from a pipe, without blocking and without trust.

use std::{io, marker::PhantomData};

use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// One read: what a pipe holds on Linux.
const CHUNK: usize = 64 << 10;

pub(crate) struct RecordReader<R, T> {
    input: R,
    buffer: Vec<u8>,
    /// Where the first record not yet returned begins.
    start: usize,
    /// Bytes of a record.
    longest: usize,
    record: PhantomData<fn() -> T>,
}

impl<R: AsyncRead + Unpin, T: DeserializeOwned> RecordReader<R, T> {
    /// Records of at most `longest` bytes: the other end is not trusted with more memory than it
    /// needs.
    pub(crate) fn new(input: R, longest: usize) -> Self {
        Self { input, buffer: Vec::with_capacity(CHUNK), start: 0, longest, record: PhantomData }
    }

    /// The next record; `None` at the end of the stream. Cancel-safe: what was read stays in the buffer.
    ///
    /// # Errors
    /// `UnexpectedEof` when the stream ends inside a record; anything else when it holds something that is no record.
    pub(crate) async fn next(&mut self) -> io::Result<Option<T>> {
        loop {
            if let Some(record) = self.take_buffered()? {
                return Ok(Some(record));
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            self.buffer.reserve(CHUNK);
            if self.input.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    fn take_buffered(&mut self) -> io::Result<Option<T>> {
        let unread = &self.buffer[self.start..];
        let Some((&prefix, body)) = unread.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(prefix) as usize;
        if length > self.longest {
            let longest = self.longest;
            return Err(io::Error::other(format!("a record of {length} bytes, where at most {longest} are allowed")));
        }
        let Some(body) = body.get(..length) else { return Ok(None) };
        // Not by `?`: to serde_json a value that ends too early is an end of file, but this record is complete.
        let record = serde_json::from_slice(body).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        self.start += prefix.len() + length;
        Ok(Some(record))
    }
}

#[cfg(test)]
mod tests {
    use framehook_core::job::{Control, write_record};

    use super::*;

    /// Of the records below.
    const LONGEST: usize = br#"{"type":"stop"}"#.len();

    async fn read_all(bytes: &[u8], piece: usize) -> (usize, io::Result<()>) {
        let (mut write, read) = tokio::io::duplex(piece);
        let bytes = bytes.to_vec();
        let writer = tokio::spawn(async move { tokio::io::AsyncWriteExt::write_all(&mut write, &bytes).await });
        let mut reader = RecordReader::<_, Control>::new(read, LONGEST);
        let mut count = 0;
        let end = loop {
            match reader.next().await {
                Ok(Some(Control::Stop)) => count += 1,
                Ok(None) => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        drop(reader);
        // Fails only if the reader gave up before the end.
        writer.await.unwrap().ok();
        (count, end)
    }

    #[tokio::test]
    async fn records_survive_any_cutting_and_broken_streams_are_errors() {
        let mut good = Vec::new();
        (0..50).for_each(|_| write_record(&mut good, &Control::Stop).unwrap());
        for piece in [1, 3, 4, 5, 64, 1 << 16] {
            let (count, end) = read_all(&good, piece).await;
            assert_eq!(count, 50);
            end.unwrap();
        }
        let kind = |end: io::Result<()>| end.unwrap_err().kind();
        let (count, end) = read_all(&good[..good.len() - 1], 7).await;
        assert_eq!((count, kind(end)), (49, io::ErrorKind::UnexpectedEof));
        for garbage in [
            &b"\xff\xff\xff\xff"[..],
            b"\x10\0\0\0{\"type\": \"stop\"}",
            b"\x02\0\0\0{}",
            b"\x03\0\0\0abc",
            b"\0\0\0\0",
        ] {
            let (count, end) = read_all(&[&good, garbage].concat(), 7).await;
            assert_eq!(count, 50);
            assert_ne!(kind(end), io::ErrorKind::UnexpectedEof, "{garbage:?}");
        }
    }
}
