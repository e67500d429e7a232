//! What is written to a WebSocket without tungstenite, which copies each message into a buffer of the connection: events,
//! which all clients share, and large messages.
//!
//! `websocket` owns one [`Outgoing`] per client. Invariant: between two calls of [`Outgoing::write`] that returned `Ok`, no
//! frame is written in part, so tungstenite can write its frames then.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Poll, ready};

use axum::body::Bytes;
use serde::Serialize;
use serde_json::Value;
use tokio::io::AsyncWrite;

use crate::journal::{Line, push_on_one_line, websocket_header};

/// How many parts are written with one system call; the kernel takes up to 1,024.
const MAX_PARTS: usize = 256;

/// How many parts an idle client keeps memory for.
const KEPT_PARTS: usize = 32;

/// The frames that wait to be written, in parts.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    parts: VecDeque<Bytes>,
}

impl Outgoing {
    /// Adds events; returns the number of bytes.
    pub(super) fn push_events(&mut self, lines: Vec<Line>) -> usize {
        let length = lines.iter().map(Line::len).sum();
        self.parts.extend(Line::into_websocket_frames(lines));
        length
    }

    /// Adds a text message whose text is in several parts; returns the number of its bytes.
    pub(super) fn push_message(&mut self, parts: impl IntoIterator<Item = Bytes, IntoIter: Clone>) -> usize {
        let parts = parts.into_iter();
        let length = parts.clone().map(|part| part.len()).sum();
        let (header, size) = websocket_header(length);
        self.parts.push_back(Bytes::copy_from_slice(&header[..size]));
        self.parts.extend(parts);
        length
    }

    /// Writes all of it.
    ///
    /// After an error, and when the future was dropped, the next call continues where this one stopped.
    pub(super) async fn write(&mut self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        while !self.parts.is_empty() {
            let count = poll_fn(|context| {
                let mut slices = [IoSlice::new(&[]); MAX_PARTS];
                let count = self.parts.len().min(MAX_PARTS);
                for (slice, part) in slices.iter_mut().zip(&self.parts) {
                    *slice = IoSlice::new(part);
                }
                let written = ready!(Pin::new(&mut *stream).poll_write_vectored(context, &slices[..count]))?;
                Poll::Ready(Ok::<_, io::Error>(written))
            })
            .await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.advance(count);
        }
        self.parts.shrink_to(KEPT_PARTS);
        Ok(())
    }

    /// Removes what was written.
    fn advance(&mut self, mut count: usize) {
        while let Some(part) = self.parts.front_mut() {
            if count < part.len() {
                drop(part.split_to(count));
                return;
            }
            count -= part.len();
            self.parts.pop_front();
        }
    }
}

/// A message of the daemon: its text and a newline.
pub(super) fn frame(value: &Value) -> Bytes {
    let mut text = Vec::new();
    push_on_one_line(&mut text, format!("{value}\n").as_bytes());
    text.into()
}

/// JSON on one line, without a newline.
pub(super) fn text(value: &impl Serialize) -> serde_json::Result<Bytes> {
    let json = serde_json::to_vec(value)?;
    if memchr::memchr2(0xC2, 0xE2, &json).is_none() {
        return Ok(json.into());
    }
    let mut text = Vec::with_capacity(json.len());
    push_on_one_line(&mut text, &json);
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    /// The frames of messages with these texts.
    fn frames(texts: &[String]) -> Vec<u8> {
        let frame = |text: &String| {
            let (header, size) = websocket_header(text.len());
            [&header[..size], text.as_bytes()].concat()
        };
        texts.iter().flat_map(frame).collect()
    }

    #[tokio::test]
    async fn interrupted_write_continues_where_it_stopped() {
        let texts: Vec<String> = (0..600).map(|length| "é".repeat(length)).collect();
        let mut outgoing = Outgoing::default();
        for text in &texts {
            let (first, second) = text.split_at(text.len() / 4 * 2);
            let parts = [first, "", second].map(|part| Bytes::copy_from_slice(part.as_bytes()));
            assert_eq!(outgoing.push_message(parts), text.len());
        }
        let (mut ours, mut client) = tokio::io::duplex(1000);
        let mut received = Vec::new();
        // The client reads only after the write was cancelled, so that no write is complete but the last one.
        while tokio::time::timeout(std::time::Duration::ZERO, outgoing.write(&mut ours)).await.is_err() {
            let mut some = [0; 777];
            let count = client.read(&mut some).await.unwrap();
            received.extend_from_slice(&some[..count]);
        }
        drop(ours);
        client.read_to_end(&mut received).await.unwrap();
        assert!(received == frames(&texts));
    }
}
