//! A reader as a stream of chunks.

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use std::io;
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The most bytes of one chunk: large enough that a file of a gigabyte is not read in crumbs.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;

/// What `reader` gives, until its end or its first error.
pub(crate) fn chunks<R>(reader: R) -> impl Stream<Item = io::Result<Bytes>> + Send
where
    R: AsyncRead + Send + 'static,
{
    let reader: Pin<Box<dyn AsyncRead + Send>> = Box::pin(reader);
    futures_util::stream::unfold(Some(reader), async |state| {
        let mut reader = state?;
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        match reader.read_buf(&mut chunk).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(chunk.freeze()), Some(reader))),
            Err(error) => Some((Err(error), None)),
        }
    })
}
