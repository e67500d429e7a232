//! The socket of a client, with what HTTP over TCP needs and hyper does not have.
//!
//! [`Socket`] owns the TCP stream and shares the [`Slot`] of its connection; `server` passes it to hyper, and a WebSocket
//! goes on with it. Invariants: no write waits longer than the limit without progress, and a final response is not lost
//! because the client is still sending.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::connections::Slot;

/// How long data that a client is still sending is read and discarded before the connection is closed.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection to a client.
pub(super) struct Socket {
    stream: TcpStream,
    slot: Arc<Slot>,
    write_limit: Duration,
    write_timeout: Option<Pin<Box<Sleep>>>,
    /// Runs once our side is shut down.
    linger_timeout: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    /// Fails a write or flush with [`io::ErrorKind::TimedOut`] when not one byte could be written within `write_limit`;
    /// the next write starts a new timeout, so that a final message can still be sent.
    pub(super) fn new(stream: TcpStream, slot: Arc<Slot>, write_limit: Duration) -> Self {
        Self { stream, slot, write_limit, write_timeout: None, linger_timeout: None }
    }

    fn apply_timeout<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_timeout = None;
            return written;
        }
        let limit = self.write_limit;
        let timeout = self.write_timeout.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(timeout.as_mut().poll(context));
        self.write_timeout = None;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Whether the client has closed its side, or the connection; TCP does not tell one from the other.
    ///
    /// hyper does not read while it responds, because the end of the requests does not mean that the client has stopped
    /// reading.
    fn has_hung_up(&self, context: &mut Context<'_>) -> bool {
        let mut byte = [0];
        matches!(self.stream.poll_peek(context, &mut ReadBuf::new(&mut byte)), Poll::Ready(Ok(0) | Err(_)))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        // hyper reads only when it needs the next request, or more of a body.
        if read.is_pending() && !self.slot.is_upgraded.load(Ordering::Relaxed) {
            self.slot.mark_waiting();
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.apply_timeout(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.apply_timeout(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.slot.is_upgraded.load(Ordering::Relaxed) && self.has_hung_up(context) {
            // The client of an event stream has nothing more to say, and a stream without events would stay until the
            // second keep-alive. Another client may still read the response that it waits for, up to an hour, so its
            // connection only has to make room.
            if self.slot.is_streaming.load(Ordering::Relaxed) {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            self.slot.mark_waiting();
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.apply_timeout(context, flushed)
    }

    /// Shuts down our side. If the client is still sending, its data is read and discarded for a moment: closing with
    /// unread data resets the connection, and the client loses the response (RFC 9112 section 9.6).
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger_timeout.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            self.linger_timeout = Some(Box::pin(tokio::time::sleep(LINGER_TIMEOUT)));
        }
        if self.slot.is_upgraded.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let this = &mut *self;
        let mut block = [0; 4096];
        loop {
            if this.linger_timeout.as_mut().is_none_or(|timeout| timeout.as_mut().poll(context).is_ready()) {
                return Poll::Ready(Ok(()));
            }
            let mut discarded = ReadBuf::new(&mut block);
            match Pin::new(&mut this.stream).poll_read(context, &mut discarded) {
                Poll::Ready(Ok(())) if !discarded.filled().is_empty() => {
                    this.slot.has_unread_input.store(true, Ordering::Relaxed);
                }
                Poll::Pending if this.slot.has_unread_input.load(Ordering::Relaxed) => {
                    this.slot.mark_waiting();
                    return Poll::Pending;
                }
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::http::connections::ConnectionLimiter;

    async fn connect(write_limit: Duration) -> (Socket, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let slot = ConnectionLimiter::new(1).acquire().await.unwrap();
        (Socket::new(listener.accept().await.unwrap().0, Arc::new(slot), write_limit), client)
    }

    #[tokio::test]
    async fn write_fails_when_client_does_not_read_and_next_one_starts_a_new_timeout() {
        let (mut server, mut client) = connect(Duration::from_millis(50)).await;
        let error = server.write_all(&vec![1; 32 << 20]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let reading = tokio::spawn(async move { client.read_to_end(&mut Vec::new()).await.unwrap() });
        server.write_all(&[2]).await.unwrap();
        drop(server);
        assert!(reading.await.unwrap() > 1);
    }

    #[tokio::test]
    async fn shutdown_reads_what_client_is_still_sending() {
        let (mut server, mut client) = connect(Duration::from_secs(30)).await;
        server.write_all(b"no").await.unwrap();
        server.slot.has_unread_input.store(true, Ordering::Relaxed);
        let closing = tokio::spawn(async move { server.shutdown().await });
        client.write_all(&vec![1; 8 << 20]).await.unwrap();
        client.shutdown().await.unwrap();
        let mut response = Vec::new();
        client.read_to_end(&mut response).await.unwrap();
        assert_eq!(response, b"no");
        closing.await.unwrap().unwrap();
    }
}
