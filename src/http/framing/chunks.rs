//! Finds the end of a chunked body (RFC 9112 section 7.1).
//!
//! [`ChunkedBody`] owns only the state of the scan; `framer` feeds it the bytes. A body that can be parsed in two ways
//! is an error.

/// The maximum length of a chunk-size line, and of all trailers together, in bytes.
const MAX_LINE_BYTES: usize = 4 * 1024;

/// Follows a chunked body to its end without buffering it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChunkedBody {
    state: State,
    /// Bytes of the current line, or of all trailers, so far.
    line: usize,
}

/// The bytes are not a valid chunked body, or are ambiguous.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InvalidChunk;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the digits of a chunk size; `digits` counts them.
    Size {
        size: u64,
        digits: u8,
    },
    /// After the digits.
    Extension {
        size: u64,
    },
    /// Before the line feed of a chunk-size line.
    SizeFeed {
        size: u64,
    },
    /// In the data of a chunk, of which `left` bytes remain.
    Data {
        left: u64,
    },
    DataReturn,
    DataFeed,
    /// At the start of a trailer or of the final line.
    TrailerStart,
    Trailer,
    TrailerFeed,
    EndFeed,
    End,
}

impl ChunkedBody {
    pub(crate) fn new() -> Self {
        Self { state: State::Size { size: 0, digits: 0 }, line: 0 }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.state == State::End
    }

    /// Returns how many of `bytes` belong to the body: all of them, unless it ends among them.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, InvalidChunk> {
        let mut taken = 0;
        while taken < bytes.len() && !self.is_complete() {
            if let State::Data { left } = self.state {
                let rest = (bytes.len() - taken) as u64;
                let step = rest.min(left);
                self.state = if step == left { State::DataReturn } else { State::Data { left: left - step } };
                taken += usize::try_from(step).map_err(|_| InvalidChunk)?;
                continue;
            }
            self.step(bytes[taken])?;
            taken += 1;
        }
        Ok(taken)
    }

    fn step(&mut self, byte: u8) -> Result<(), InvalidChunk> {
        self.line += 1;
        if self.line > MAX_LINE_BYTES {
            return Err(InvalidChunk);
        }
        self.state = match (self.state, byte) {
            (State::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < 15 => {
                let digit = char::from(byte).to_digit(16).ok_or(InvalidChunk)?;
                State::Size { size: size * 16 + u64::from(digit), digits: digits + 1 }
            }
            (State::Size { size, digits: 1.. } | State::Extension { size }, b'\r') => {
                State::SizeFeed { size }
            }
            (State::Size { size, digits: 1.. }, b';') => State::Extension { size },
            (State::Extension { size }, byte) if is_text(byte) => State::Extension { size },
            (State::SizeFeed { size }, b'\n') => {
                self.line = 0;
                if size == 0 { State::TrailerStart } else { State::Data { left: size } }
            }
            (State::DataReturn, b'\r') => State::DataFeed,
            (State::DataFeed, b'\n') => {
                self.line = 0;
                State::Size { size: 0, digits: 0 }
            }
            (State::TrailerStart, b'\r') => State::EndFeed,
            (State::TrailerStart, byte) if is_text(byte) && byte != b' ' && byte != b'\t' => State::Trailer,
            (State::Trailer, b'\r') => State::TrailerFeed,
            (State::Trailer, byte) if is_text(byte) => State::Trailer,
            (State::TrailerFeed, b'\n') => State::TrailerStart,
            (State::EndFeed, b'\n') => State::End,
            _ => return Err(InvalidChunk),
        };
        Ok(())
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunked_body_ends_at_last_chunk_for_any_split() {
        for text in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "5;name=value\r\nhello\r\n00A\r\n0123456789\r\n0\r\nTrailer: a\r\nOther: b\r\n\r\n",
        ] {
            let more = format!("{text}GET / HTTP/1.1");
            let mut whole = ChunkedBody::new();
            assert_eq!(whole.take(more.as_bytes()), Ok(text.len()));
            assert!(whole.is_complete());
            let mut bytewise = ChunkedBody::new();
            for byte in text.bytes() {
                assert!(!bytewise.is_complete());
                assert_eq!(bytewise.take(&[byte]), Ok(1), "{text:?}");
            }
            assert!(bytewise.is_complete());
        }
    }

    #[test]
    fn chunked_body_rejects_invalid_chunks() {
        for text in [
            "\r\n",
            "x\r\n",
            "-5\r\nhello\r\n",
            "+5\r\nhello\r\n",
            "0x5\r\nhello\r\n",
            "5 \r\nhello\r\n",
            "5\nhello\r\n",
            "5\r\nhelloX\r\n",
            "5\r\nhello\n",
            "11112222333344445\r\n",
            "0\r\n folded: a\r\n\r\n",
            "0\r\nA: b\n\r\n",
            "5;a\0b\r\n",
        ] {
            assert_eq!(ChunkedBody::new().take(text.as_bytes()), Err(InvalidChunk), "{text:?}");
        }
        let endless = format!("5;{}", "a".repeat(MAX_LINE_BYTES));
        assert_eq!(ChunkedBody::new().take(endless.as_bytes()), Err(InvalidChunk));
    }
}
