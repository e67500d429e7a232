//! Replaces text that looks like a secret in output of Codex, for errors and for the tail of stderr.
//!
//! When in doubt it redacts: the full text is in `stderr.log`, which only its owner can read.

/// Replaces a secret.
const REDACTED: &str = "***";
/// The least number of characters after `sk-` that make a key: ordinary words also begin with `sk-`.
const MIN_KEY_CHARS: usize = 8;
/// Suffixes of the names of environment variables that hold secrets.
const SECRET_NAME_SUFFIXES: [&str; 5] = ["_KEY", "_TOKEN", "_SECRET", "_PASSWORD", "APIKEY"];

/// The text with keys (`sk-…`), bearer tokens and the values of variables such as `…_API_KEY` replaced by `***`.
pub fn redact(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    // A secret begins only where a word begins.
    let mut inside_word = false;
    while let Some(first) = rest.chars().next() {
        if !inside_word && let Some((kept, secret)) = secret_at(rest) {
            let (kept, _) = rest.split_at(kept);
            shown.push_str(kept);
            shown.push_str(REDACTED);
            rest = rest.split_at(secret).1;
            continue;
        }
        inside_word = is_word(first);
        shown.push(first);
        rest = rest.split_at(first.len_utf8()).1;
    }
    shown
}

/// If a secret begins here, maybe after its name: the length of the name, and the end of the secret, in bytes.
fn secret_at(text: &str) -> Option<(usize, usize)> {
    key(text).or_else(|| bearer(text)).or_else(|| assignment(text))
}

fn key(text: &str) -> Option<(usize, usize)> {
    let rest = text.strip_prefix("sk-")?;
    let length = length_of(rest, |c| is_word(c) || c == '-');
    (length >= MIN_KEY_CHARS).then_some((3, 3 + length))
}

fn bearer(text: &str) -> Option<(usize, usize)> {
    const WORD: &str = "bearer";
    let head = text.get(..WORD.len()).filter(|head| head.eq_ignore_ascii_case(WORD))?;
    let rest = text.get(head.len()..)?;
    let space = length_of(rest, |c| c == ' ' || c == '\t');
    let token = rest.get(space..)?;
    let length = length_of(token, |c| is_word(c) || "-.~+/=".contains(c));
    // A sentence may contain "bearer" before an ordinary word.
    (space > 0 && length >= MIN_KEY_CHARS).then_some((head.len() + space, head.len() + space + length))
}

fn assignment(text: &str) -> Option<(usize, usize)> {
    let mut start = 0;
    // The value of one name may be the next name.
    while let Some(next) = name(text.get(start..)?) {
        if length_of_value(text.get(start + next..)?) == 0 {
            break;
        }
        start += next;
    }
    let value = text.get(start..).filter(|_| start > 0)?;
    Some((start, start + length_of_value(value)))
}

/// The length of the name of a secret with its separator, in bytes.
fn name(text: &str) -> Option<usize> {
    let name = length_of(text, is_word);
    let upper = text.get(..name)?.to_ascii_uppercase();
    if !SECRET_NAME_SUFFIXES.iter().any(|end| upper.ends_with(end)) {
        return None;
    }
    let rest = text.get(name..)?;
    // NAME=value, NAME: value and "NAME": "value".
    let separator = length_of(rest, |c| "=: \t\"'\\".contains(c));
    rest.get(..separator)?.contains(['=', ':']).then_some(name + separator)
}

fn length_of_value(text: &str) -> usize {
    // A token may be preceded by its scheme.
    let kind = bearer(text).map_or(0, |(kind, _)| kind);
    let (_, word) = text.split_at(kind);
    kind + length_of(word, |c| !c.is_whitespace() && !"\"',;\\".contains(c))
}

/// How many bytes from the beginning of the text satisfy `is_part`.
fn length_of(text: &str, is_part: impl Fn(char) -> bool) -> usize {
    text.find(|c| !is_part(c)).unwrap_or(text.len())
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::redact;

    #[test]
    fn redact_replaces_only_secrets() {
        for (text, shown) in [
            ("Incorrect API key provided: sk-proj-abc_DEF-123456.", "Incorrect API key provided: sk-***."),
            ("authorization: Bearer eyJhbGciOi.J9-x_y~z/+=", "authorization: Bearer ***"),
            ("BEARER\tabcdefgh1234,", "BEARER\t***,"),
            ("OPENAI_API_KEY=secret next", "OPENAI_API_KEY=*** next"),
            ("{\"OPENAI_API_KEY\": \"secret\", \"a\": 1}", "{\"OPENAI_API_KEY\": \"***\", \"a\": 1}"),
            ("{\\\"MY_TOKEN\\\":\\\"secret\\\"}", "{\\\"MY_TOKEN\\\":\\\"***\\\"}"),
            ("export github_token='secret'", "export github_token='***'"),
            ("X_SECRET: sk-abcdefghijkl", "X_SECRET: ***"),
            ("MY_TOKEN: Bearer abcdefgh%1234 next", "MY_TOKEN: *** next"),
            ("MY_KEY=\"MY_TOKEN\": \"secret\"", "MY_KEY=\"MY_TOKEN\": \"***\""),
            ("A_KEY=B_KEY= next", "A_KEY=B_KEY= ***"),
            ("A_KEY=B_KEY=", "A_KEY=***"),
            ("(sk-abcdefgh)sk-abcdefgh", "(sk-***)sk-***"),
            ("a task-management desk-abcdefghij sk-short", "a task-management desk-abcdefghij sk-short"),
            ("the bearer of this is missing", "the bearer of this is missing"),
            ("OPENAI_API_KEY is not set", "OPENAI_API_KEY is not set"),
            ("ü=KEY 日本", "ü=KEY 日本"),
            ("", ""),
        ] {
            assert_eq!(redact(text), shown, "{text}");
        }
    }

    proptest! {
        #[test]
        fn redact_removes_keys_from_any_text(before in ".{0,40}", key in "[a-zA-Z0-9]{20}", after in ".{0,40}") {
            let shown = redact(&format!("{before} sk-{key} {after} Bearer {key} A_KEY={key}"));
            prop_assert!(!shown.contains(&key), "{}", shown);
        }

        #[test]
        fn redact_is_idempotent(text in ".{0,80}") {
            let once = redact(&text);
            prop_assert_eq!(redact(&once), once.clone());
        }
    }
}
