//! Looking for a secret in all that somebody else could read, however it is written there.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::support::scratch;
use base64ish::{STANDARD, URL, encode};
use uuid::Uuid;

/// A secret like no other, of the characters that a token may have; some of them look different in an address.
pub(super) fn canary() -> String {
    format!("{}+.~{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// Base64 as it stands in a header.
pub(super) fn base64(bytes: &[u8]) -> String {
    let padding = "=".repeat((3 - bytes.len() % 3) % 3);
    encode(bytes, STANDARD) + &padding
}

/// Texts and where they were found.
#[derive(Default)]
pub(super) struct Places(Vec<(String, Vec<u8>)>);

impl Places {
    /// One more place.
    pub(super) fn add(&mut self, name: impl Into<String>, text: impl Into<Vec<u8>>) {
        self.0.push((name.into(), text.into()));
    }

    /// Every file below this folder, with its name.
    pub(super) fn add_files(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.display().to_string();
            if path.is_dir() {
                self.add(name.clone(), name);
                self.add_files(&path);
            } else {
                self.add(name.clone(), [name.into_bytes(), fs::read(&path).unwrap()].concat());
            }
        }
    }

    /// The names of all places.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The places that have this secret, of those that count, and how it is written there.
    pub(super) fn hits(&self, secret: &str, counts: impl Fn(&str) -> bool) -> Vec<String> {
        let mut found = Vec::new();
        let forms = forms(secret.as_bytes());
        for (name, text) in self.0.iter().filter(|(name, _)| counts(name)) {
            let lower = text.to_ascii_lowercase();
            for (how, form, exact) in &forms {
                let there = if *exact {
                    memchr::memmem::find(text, form.as_bytes())
                } else {
                    memchr::memmem::find(&lower, form.to_ascii_lowercase().as_bytes())
                };
                if let Some(at) = there {
                    let around = String::from_utf8_lossy(&text[at.saturating_sub(80)..at]).into_owned();
                    found.push(format!("{name}, as {how}, after {around:?}"));
                }
            }
        }
        found
    }
}

/// All forms a secret may be written in: name, text, and whether capitals matter.
fn forms(secret: &[u8]) -> Vec<(String, String, bool)> {
    let each = |before: &str| {
        secret.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{before}{byte:02x}");
            text
        })
    };
    let plain = String::from_utf8(secret.to_vec()).unwrap();
    let mut forms = vec![
        ("itself".to_owned(), plain, false),
        ("hex".to_owned(), each(""), false),
        ("percent".to_owned(), each("%"), false),
        ("a form".to_owned(), form_urlencoded::byte_serialize(secret).collect(), false),
    ];
    for alphabet in [STANDARD, URL] {
        for shift in 0..3 {
            forms.push((format!("base64, {shift} bytes in"), shifted(secret, shift, alphabet), true));
        }
    }
    forms
}

/// The middle of the base64 of a text that has the secret after so many bytes, which is the same whatever is around it.
fn shifted(secret: &[u8], shift: usize, alphabet: [u8; 2]) -> String {
    let text = encode(&[&vec![0; shift], secret].concat(), alphabet);
    let end = (shift + secret.len()) * 8 / 6;
    text.get((shift * 8).div_ceil(6)..end).unwrap().to_owned()
}

/// Base64 without a crate for it.
mod base64ish {
    /// The last two characters of the usual alphabet, and of the one for addresses.
    pub(super) const STANDARD: [u8; 2] = *b"+/";
    pub(super) const URL: [u8; 2] = *b"-_";

    /// Without padding.
    pub(super) fn encode(bytes: &[u8], last: [u8; 2]) -> String {
        let alphabet: Vec<u8> = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(last).collect();
        let bits = |index: usize| (0..6).map(move |bit| index * 6 + bit);
        let value = |bit: usize| bytes.get(bit / 8).map_or(0, |byte| usize::from(byte >> (7 - bit % 8) & 1));
        let characters = (0..(bytes.len() * 8).div_ceil(6))
            .map(|index| alphabet[bits(index).fold(0, |all, bit| all << 1 | value(bit))]);
        String::from_utf8(characters.collect()).unwrap()
    }
}

#[test]
fn a_planted_canary_is_found_in_every_form() {
    let secret = canary();
    assert_eq!(base64(b"user:pass"), "dXNlcjpwYXNz");
    assert_eq!(base64(b"Hello, world"), "SGVsbG8sIHdvcmxk");
    assert_eq!(base64(b"a"), "YQ==");
    assert_eq!(encode(&[0xfb, 0xff], URL), "-_8");
    let upper = |text: String| text.to_ascii_uppercase();
    let (_, hex, _) = forms(secret.as_bytes()).remove(1);
    let (_, percent, _) = forms(secret.as_bytes()).remove(2);
    let escaped: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    assert_ne!(escaped, secret);
    let mut planted = vec![
        secret.clone(),
        upper(secret.clone()),
        hex.clone(),
        upper(hex),
        percent.clone(),
        upper(percent),
        escaped,
    ];
    for before in ["", "u", "us", "use", "user:"] {
        for after in ["", "a", "an", "and"] {
            let text = format!("{before}{secret}{after}");
            planted.push(base64(text.as_bytes()));
            planted.push(encode(text.as_bytes(), URL));
        }
    }
    for text in &planted {
        let mut places = Places::default();
        places.add("elsewhere", "nothing");
        places.add("there", format!("something before {text} and after"));
        let hits = places.hits(&secret, |_| true);
        assert!(hits.iter().any(|hit| hit.starts_with("there")), "{text} is not found: {hits:?}");
        assert!(hits.iter().all(|hit| hit.starts_with("there")), "{hits:?}");
        assert_eq!(places.hits(&secret, |name| name == "elsewhere"), Vec::<String>::new());
        assert_eq!(places.hits(&canary(), |_| true), Vec::<String>::new());
    }
}

#[test]
fn a_planted_canary_is_found_in_a_file() {
    let folder = scratch::directory("test");
    let (inner, secret) = (folder.path().join("inner"), canary());
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("file"), [&[0xff, 0xfe][..], secret.as_bytes()].concat()).unwrap();
    fs::write(folder.path().join(format!("named-{secret}")), "").unwrap();
    let mut places = Places::default();
    places.add_files(folder.path());
    assert_eq!(places.hits(&secret, |_| true).len(), 2, "in the file, and in the name");
}
