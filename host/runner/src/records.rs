//! Reads length-prefixed JSON records (see `framehook_core::job`) from a pipe, without blocking and without
//! trust.

use std::{error::Error, io, marker::PhantomData};

use bytes::BytesMut;
use futures::StreamExt as _;
use serde::de::DeserializeOwned;
use tokio::io::AsyncRead;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

pub(crate) struct RecordReader<R, T> {
    records: FramedRead<R, LengthDelimitedCodec>,
    record: PhantomData<fn() -> T>,
}

impl<R: AsyncRead + Unpin, T: DeserializeOwned> RecordReader<R, T> {
    /// Records of at most `longest` bytes: the other end is not trusted with more memory than it
    /// needs.
    pub(crate) fn new(input: R, longest: usize) -> Self {
        let records = LengthDelimitedCodec::builder().little_endian().max_frame_length(longest).new_read(input);
        Self { records, record: PhantomData }
    }

    /// The next record; `None` at the end of the stream. Cancel-safe: what was read stays in the buffer.
    ///
    /// # Errors
    /// `InvalidData` when the stream holds something that is no record; anything else when it ended
    /// inside a record.
    pub(crate) async fn next(&mut self) -> io::Result<Option<T>> {
        self.next_bytes().await?.as_deref().map(Self::read).transpose()
    }

    /// The same before it is read.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub(crate) async fn next_bytes(&mut self) -> io::Result<Option<BytesMut>> {
        let Some(record) = self.records.next().await else { return Ok(None) };
        let record = record.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => invalid(format!(
                "a record of too many bytes, where at most {} are allowed",
                self.records.decoder().max_frame_length()
            )),
            _ => error,
        })?;
        Ok(Some(record))
    }

    /// # Errors
    /// `InvalidData` when it is no record.
    pub(crate) fn read(record: &[u8]) -> io::Result<T> {
        // Not by `?`: to serde_json a value that ends too early is an end of file, but this record is
        // complete.
        serde_json::from_slice(record).map_err(invalid)
    }
}

fn invalid(why: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use framehook_core::job::{Control, write_record};

    use super::*;

    /// Bytes of the records below.
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
                Ok(Some(other)) => panic!("{other:?}"),
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
        assert_eq!(count, 49);
        assert_ne!(kind(end), io::ErrorKind::InvalidData);
        for garbage in [
            &b"\xff\xff\xff\xff"[..],
            b"\x10\0\0\0{\"type\": \"stop\"}",
            b"\x02\0\0\0{}",
            b"\x03\0\0\0abc",
            b"\0\0\0\0",
        ] {
            let (count, end) = read_all(&[&good, garbage].concat(), 7).await;
            assert_eq!(count, 50);
            assert_eq!(kind(end), io::ErrorKind::InvalidData, "{garbage:?}");
        }
    }
}
