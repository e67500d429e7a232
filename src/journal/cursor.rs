//! Cursors: positions of readers in the log.

use std::fmt;
use std::str::FromStr;

/// The last event that a reader has: `<epoch>-<seq>`, or `<seq>` for the current epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The epoch of its log; `None` for the current one.
    pub epoch: Option<String>,
    /// The number of that event; 0 is before the first.
    pub seq: u64,
}

/// The text is not a cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a cursor is <epoch>-<seq> or <seq>, as codexd gave it")]
pub struct InvalidCursor;

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (epoch, digits) = match text.rsplit_once('-') {
            Some((epoch, digits)) => (Some(epoch), digits),
            None => (None, text),
        };
        // `u64::from_str` alone would accept a plus sign.
        if !epoch.is_none_or(is_epoch) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidCursor);
        }
        let seq = digits.parse().map_err(|_| InvalidCursor)?;
        Ok(Self { epoch: epoch.map(str::to_owned), seq })
    }
}

/// Whether a text can be an epoch.
pub(super) fn is_epoch(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The extent of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// The epoch; it changes only when the log was lost or replaced.
    pub epoch: String,
    /// The number of the oldest event that is kept; one more than `latest` when there is none.
    pub oldest: u64,
    /// The newest number that was assigned.
    pub latest: u64,
}

/// Why a cursor cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorExpired {
    /// What follows it is no longer kept.
    Expired,
    /// It belongs to another epoch.
    OtherEpoch,
    /// It is ahead of the newest event.
    Future,
    /// Events after it are missing: lines of the log were damaged or removed.
    Lost,
}

impl CursorExpired {
    /// The value for it in responses.
    pub fn as_str(self) -> &'static str {
        match self {
            CursorExpired::Expired => "expired",
            CursorExpired::OtherEpoch => "epoch",
            CursorExpired::Future => "future",
            CursorExpired::Lost => "lost",
        }
    }
}

impl Bounds {
    /// The cursor of an event.
    pub fn cursor(&self, seq: u64) -> String {
        format!("{}-{seq}", self.epoch)
    }

    /// The number after which to read on, or why that would leave out events.
    pub fn check(&self, cursor: &Cursor) -> Result<u64, CursorExpired> {
        if cursor.epoch.as_ref().is_some_and(|epoch| *epoch != self.epoch) {
            return Err(CursorExpired::OtherEpoch);
        }
        if cursor.seq > self.latest {
            return Err(CursorExpired::Future);
        }
        if cursor.seq + 1 < self.oldest {
            return Err(CursorExpired::Expired);
        }
        Ok(cursor.seq)
    }
}

impl fmt::Display for CursorExpired {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            CursorExpired::Expired => "events after this cursor are no longer kept",
            CursorExpired::OtherEpoch => "this cursor belongs to a log that was lost or replaced",
            CursorExpired::Future => "this cursor is ahead of the newest event",
            CursorExpired::Lost => "events after this cursor are missing in the log, which was damaged",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_parser_accepts_only_rendered_cursors() {
        assert_eq!("ab12-7".parse(), Ok(Cursor { epoch: Some("ab12".to_owned()), seq: 7 }));
        assert_eq!("0".parse(), Ok(Cursor { epoch: None, seq: 0 }));
        let long = format!("{}-1", "a".repeat(65));
        for text in [
            "",
            "-",
            "a-",
            "-5",
            "x",
            "1.5",
            "+1",
            "a-+1",
            " 1",
            "1 ",
            "é-1",
            "a b-1",
            "18446744073709551616",
            &long,
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(InvalidCursor), "{text}");
        }
    }

    #[test]
    fn cursor_that_would_skip_events_is_rejected() {
        let bounds = Bounds { epoch: "e".to_owned(), oldest: 10, latest: 20 };
        let check = |text: &str| bounds.check(&text.parse().unwrap());
        assert_eq!(check("e-9"), Ok(9));
        assert_eq!(check("20"), Ok(20));
        assert_eq!(check("e-8"), Err(CursorExpired::Expired));
        assert_eq!(check("e-21"), Err(CursorExpired::Future));
        assert_eq!(check("f-15"), Err(CursorExpired::OtherEpoch));
        assert_eq!(check("18446744073709551615"), Err(CursorExpired::Future));
    }
}
