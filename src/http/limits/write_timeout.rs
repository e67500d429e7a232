//! A timeout for writes to a client that does not read.
//!
//! `server` wraps every accepted socket in [`WriteTimeout`]. Invariant: no write or flush waits longer than the limit
//! without progress.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Fails a write or flush with [`io::ErrorKind::TimedOut`] when not one byte could be written within `limit`.
///
/// After such a failure the next write starts a new timeout, so that a final message can still be sent.
#[derive(Debug)]
pub(crate) struct WriteTimeout<S> {
    inner: S,
    limit: Duration,
    timeout: Option<Pin<Box<Sleep>>>,
}

impl<S> WriteTimeout<S> {
    pub(crate) fn new(inner: S, limit: Duration) -> Self {
        Self { inner, limit, timeout: None }
    }

    fn apply_timeout<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.timeout = None;
            return written;
        }
        let limit = self.limit;
        let timeout = self.timeout.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(timeout.as_mut().poll(context));
        self.timeout = None;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.apply_timeout(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, parts);
        self.apply_timeout(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        self.apply_timeout(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(50);

    // The paused clock advances only when every task is idle, so the load of the machine does not matter.
    #[tokio::test(start_paused = true)]
    async fn write_timeout_fails_stalled_write_and_allows_slow_reader() {
        let (server, mut client) = tokio::io::duplex(8);
        let mut server = WriteTimeout::new(server, LIMIT);
        assert_eq!(server.write_all(&[1; 16]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let reading = tokio::spawn(async move {
            let mut one = [0];
            let mut count = 0;
            while client.read(&mut one).await.unwrap() > 0 {
                count += 1;
                tokio::time::sleep(LIMIT / 10).await;
            }
            count
        });
        // The transfer takes many times the limit, but never the limit without a byte.
        server.write_all(&[2; 32]).await.unwrap();
        drop(server);
        assert_eq!(reading.await.unwrap(), 8 + 32);
    }
}
