//! Only `src/codex/protocol` has the names and words of Codex's protocol; the page's are checked against it.

use std::fs;
use std::path::Path;

use codexd::codex::protocol::{
    calls, config, decisions, environment, items, methods, notifications, server_requests, values,
};

use crate::source::sources;

/// Sources that may have them: the protocol itself, and programs that play the app-server.
const EXEMPT: [&str; 3] = ["src/codex/protocol", "src/demo", "src/fuzzing"];
/// How the names of methods begin.
const PREFIXES: [&str; 10] = [
    "thread/",
    "turn/",
    "item/",
    "account/",
    "model/",
    "mcpServer/",
    "serverRequest/",
    "command/exec/",
    "config/",
    "rawResponseItem/",
];
/// Words of the protocol that are names of codexd as well: fields, states, levels and settings of its own.
const OWN_WORDS: [&str; 17] = [
    "active",
    "completed",
    "decline",
    "error",
    "failed",
    "full",
    "interrupted",
    "never",
    "none",
    "plan",
    "reasoning",
    "stderr",
    "text",
    "url",
    "warning",
    "auto",
    // The trust of a session.
    "untrusted",
];

/// Every method name.
fn all_methods() -> Vec<&'static str> {
    [methods::ALL, notifications::ALL, server_requests::ALL].concat()
}

/// The words that nothing else means.
fn words() -> Vec<&'static str> {
    let lists = [
        decisions::ALL,
        items::ALL,
        values::SANDBOX_MODES,
        values::APPROVAL_POLICIES,
        values::PERSONALITIES,
        values::REASONING_SUMMARIES,
        values::INPUT_TYPES,
        values::TURN_STATUSES,
        values::ITEM_STATUSES,
        &[decisions::ACCEPT_WITH_POLICY, server_requests::WRITE_STDIN, config::TRUST_LEVEL],
        &[environment::CODEX_HOME, environment::CONFIG_FILE, environment::AUTH_FILE],
        &environment::THREAD_VARIABLES,
    ];
    lists.concat().into_iter().filter(|word| !OWN_WORDS.contains(word)).collect()
}

/// Phrases of Codex's errors that a decision depends on.
const PHRASES: [&str; 11] = [
    "no rollout found",
    "active writer",
    "is closing",
    "thread not found",
    "no active turn",
    "unknown variant",
    "failed to load configuration",
    "Invalid configuration",
    "codexErrorInfo",
    "usageLimitExceeded",
    "try again at ",
];

/// The string literals of a Rust source with their lines, without those that only tests see.
fn literals(text: &str) -> Vec<(usize, String)> {
    let (mut found, mut index, mut line) = (Vec::new(), 0, 1);
    let bytes: Vec<char> = text.chars().collect();
    let starts = |index: usize, mark: &str| bytes[index..].iter().copied().take(mark.len()).eq(mark.chars());
    // The depth of braces, and that outside of which an item for tests began.
    let (mut depth, mut skipped): (usize, Option<usize>) = (0, None);
    while index < bytes.len() {
        let from = index;
        match bytes[index] {
            '/' if starts(index, "//") => {
                while index < bytes.len() && bytes[index] != '\n' {
                    index += 1
                }
            }
            '#' if starts(index, "#[cfg(test)]") && skipped.is_none() => {
                skipped = Some(depth);
                index += "#[cfg(test)]".len();
            }
            '{' => (depth, index) = (depth + 1, index + 1),
            '}' => {
                (depth, index) = (depth.saturating_sub(1), index + 1);
                if skipped == Some(depth) {
                    skipped = None;
                }
            }
            ';' => {
                index += 1;
                if skipped == Some(depth) {
                    skipped = None;
                }
            }
            'r' if starts(index, "r\"") || starts(index, "r#\"") => {
                let hashes = bytes[index + 1..].iter().take_while(|c| **c == '#').count();
                let end = format!("\"{}", "#".repeat(hashes));
                index += hashes + 2;
                let begin = index;
                while index < bytes.len() && !starts(index, &end) {
                    index += 1;
                }
                if skipped.is_none() {
                    found.push((line, bytes[begin..index].iter().collect()));
                }
                index += end.len();
            }
            '"' => {
                index += 1;
                let begin = index;
                while index < bytes.len() && bytes[index] != '"' {
                    index += if bytes[index] == '\\' { 2 } else { 1 };
                }
                if skipped.is_none() {
                    found.push((line, bytes[begin..index.min(bytes.len())].iter().collect()));
                }
                index += 1;
            }
            '\'' if bytes.get(index + 1) == Some(&'\\') => index += 4,
            '\'' if bytes.get(index + 2) == Some(&'\'') => index += 3,
            _ => index += 1,
        }
        line += bytes[from..index.min(bytes.len())].iter().filter(|c| **c == '\n').count();
    }
    found
}

fn is_protocol(literal: &str, methods: &[&str], words: &[&str]) -> bool {
    let is_method = |text: &str| {
        PREFIXES.iter().any(|prefix| text.starts_with(prefix))
            && text.chars().all(|c| c.is_ascii_alphabetic() || c == '/')
    };
    let is_word =
        methods.iter().filter(|method| !OWN_WORDS.contains(method)).any(|method| *method == literal)
            || words.contains(&literal);
    is_method(literal) || is_word || PHRASES.iter().any(|phrase| literal.contains(phrase))
}

#[test]
fn protocol_names_and_words_are_in_one_module() {
    let (methods, words) = (all_methods(), words());
    let mut found = Vec::new();
    for source in sources(&["src"]) {
        let is_test = source.path.contains("/tests/") || source.path.ends_with("/tests.rs");
        // Included by its module for tests only.
        if is_test
            || source.path.ends_with("/orders.rs")
            || source.path == "src/fuzzing.rs"
            || source.is_below(&EXEMPT)
        {
            continue;
        }
        let text = fs::read_to_string(root().join(&source.path)).unwrap();
        for (line, literal) in literals(&text) {
            if is_protocol(&literal, &methods, &words) {
                found.push(format!("{}:{line}: \"{literal}\"", source.path));
            }
        }
    }
    assert!(found.is_empty(), "these belong to src/codex/protocol:\n{}", found.join("\n"));
}

#[test]
fn literals_are_read_with_their_lines_and_without_tests() {
    let text = "let a = \"one\"; // \"no\"\nlet b = '\"';\n#[cfg(test)]\nmod tests { const X: &str = \"no\"; }\nlet c = r#\"t\"wo\"#;";
    assert_eq!(literals(text), [(1, "one".to_owned()), (5, "t\"wo".to_owned())]);
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join("src/http/web").join(name)).unwrap()
}

/// The keys of a table of the page, which begins with `const NAME = lookupTable({`.
fn keys(script: &str, name: &str) -> Vec<String> {
    let (_, table) = script.split_once(&format!("const {name} = lookupTable({{\n")).unwrap();
    let (table, _) = table.split_once("\n});").unwrap();
    let entries = table.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let key = |line: &str| line.trim().split(": ").next().unwrap().trim_matches('"').to_owned();
    entries.filter(|line| line.contains(": ")).map(key).collect()
}

#[test]
fn page_knows_every_decision_and_answerable_request_of_the_protocol() {
    let script = page("requests.js");
    let mut titles = keys(&script, "TITLES");
    let mut known: Vec<_> = server_requests::ALL.to_vec();
    titles.sort();
    known.sort_unstable();
    assert_eq!(titles, known);
    assert_eq!(keys(&script, "DECISIONS"), decisions::ALL);
}

#[test]
fn page_reads_only_notifications_and_items_of_the_protocol() {
    for method in keys(&page("conversation.js"), "NOTIFICATIONS") {
        assert!(notifications::ALL.contains(&method.as_str()), "{method} is not in notifications.rs");
    }
    let script = page("items.js");
    let cases = script.split("case \"").skip(1).map(|rest| rest.split('"').next().unwrap());
    for case in cases {
        assert!(items::ALL.contains(&case), "{case} is not in items.rs");
    }
}

#[test]
fn page_has_no_other_method_of_the_protocol() {
    let methods = all_methods();
    let is_known = |method: &str| methods.contains(&method) || calls::group(method).is_some();
    for entry in fs::read_dir(root().join("src/http/web")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "js") {
            continue;
        }
        let script = fs::read_to_string(&path).unwrap();
        for (line, text) in script.lines().enumerate() {
            for literal in text.split('"').skip(1).step_by(2) {
                let is_method = PREFIXES.iter().any(|prefix| literal.starts_with(prefix));
                let name = path.file_name().unwrap().display();
                assert!(!is_method || is_known(literal), "{name}:{}: {literal} is unknown", line + 1);
            }
        }
    }
}
