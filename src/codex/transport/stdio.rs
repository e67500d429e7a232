//! The pipes of a child process.

use std::sync::{Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::codex::listener::{AppServerEvent, Listener};
use crate::codex::process::stderr_tail::StderrTail;
use crate::codex::rpc::connection::WriterEnd;

/// How much is collected for one write.
const WRITE_BLOCK_BYTES: usize = 64 * 1024;

/// Writes lines until `close` is cancelled or the pipe fails, then closes the pipe; returns why it ended.
pub(crate) async fn write(
    mut stdin: impl AsyncWrite + Unpin,
    mut lines: mpsc::UnboundedReceiver<Vec<u8>>,
    close: CancellationToken,
) -> WriterEnd {
    let mut block = Vec::new();
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            () = close.cancelled() => None,
        };
        let Some(mut line) = line else { return WriterEnd::Closed };
        loop {
            block.append(&mut line);
            block.push(b'\n');
            match lines.try_recv() {
                Ok(next) if block.len() < WRITE_BLOCK_BYTES => line = next,
                Ok(next) => {
                    block.extend_from_slice(&next);
                    block.push(b'\n');
                    break;
                }
                Err(_) => break,
            }
        }
        // A child that does not read must not delay the closing of its stdin.
        let written = tokio::select! {
            written = stdin.write_all(&block) => written,
            () = close.cancelled() => return WriterEnd::Closed,
        };
        if let Err(error) = written {
            return WriterEnd::Failed(format!("its stdin failed: {error}"));
        }
        block.clear();
    }
}

/// Reports stderr until the pipe ends; its last lines stay in `tail`.
pub(crate) async fn read_stderr(
    mut stderr: impl AsyncRead + Unpin,
    mut listener: impl Listener,
    tail: &Mutex<StderrTail>,
) {
    loop {
        let mut block = bytes::BytesMut::with_capacity(8 * 1024);
        match stderr.read_buf(&mut block).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                tail.lock().unwrap_or_else(PoisonError::into_inner).take(&block);
                listener.on_event(AppServerEvent::Stderr(block.freeze()));
                listener.flush();
            }
        }
    }
}
