//! The house rules that a compiler does not know: who may use whom, and who may touch the world outside.
//!
//! They are read off the source text, in tokens, so that neither comments nor strings count; `docs/architecture.md`
//! explains them.

#![expect(clippy::disallowed_methods, reason = "tests may block: each runs on a thread of its own")]
#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml frees test functions only, and the helpers here serve nothing but tests"
)]

#[path = "architecture/proofs.rs"]
mod proofs;
#[path = "architecture/protocol.rs"]
mod protocol;
#[path = "architecture/source.rs"]
mod source;

use std::fs;
use std::path::Path;

use source::{Source, paths, rooms_used, sources, without_tests};

/// The rooms from the top to the bottom, each with the rooms that it may use.
const ROOMS: [(&str, &[&str]); 17] = [
    ("main", &["commands", "cli"]),
    ("fuzzing", &["http", "daemon", "codex", "journal", "state", "storage"]),
    (
        "commands",
        &[
            "client",
            "http",
            "daemon",
            "service",
            "codex",
            "embedded",
            "cli",
            "config",
            "codex::protocol",
            "storage",
        ],
    ),
    ("client", &["http", "config"]),
    ("http", &["daemon", "journal", "state", "codex::protocol", "storage", "blocking"]),
    ("daemon", &["codex", "journal", "state", "config", "codex::protocol", "storage", "time", "blocking"]),
    ("service", &["codex", "config", "codex::protocol", "storage"]),
    ("codex", &["codex::protocol", "time", "blocking"]),
    ("journal", &["storage", "blocking"]),
    ("state", &["codex::protocol", "storage"]),
    ("embedded", &[]),
    ("cli", &["config", "codex::protocol"]),
    ("config", &["codex::protocol"]),
    ("codex::protocol", &[]),
    ("storage", &[]),
    ("time", &[]),
    ("blocking", &[]),
];

const LONGEST_FILE: usize = 500;

// The rules: each takes a file and says what is wrong with it.

/// Uses of a room that stands above or beside, or of something that is no room; a test may use all that stand below.
fn wrong_uses(source: &Source) -> Vec<String> {
    let room = source.room();
    let place = ROOMS.iter().position(|(name, _)| *name == room);
    let allowed = place.map_or(&[][..], |place| ROOMS[place].1);
    let is_test = source.path.ends_with("/tests.rs") || source.path.contains("/tests/");
    let below = |used: &str| {
        is_test && ROOMS.iter().position(|(name, _)| *name == used).is_some_and(|at| Some(at) > place)
    };
    let used = rooms_used(source).into_iter();
    used.filter(|used| used != room && !allowed.contains(&used.as_str()) && !below(used))
        .map(|used| format!("{} uses {used}", source.path))
        .collect()
}

/// Readings of the environment outside of the room that has the settings, and of the build script.
fn environment(source: &Source) -> Vec<String> {
    let names = ["var", "var_os", "vars", "vars_os", "set_var", "remove_var", "*"];
    let reads = |path: &[String]| pairs(path).any(|(a, b)| a == "env" && names.contains(&b));
    offences(source, &["src/config", "src/build.rs"], reads)
}

/// Starts of processes outside of the places that have to: the app-server, its guard, `ps` where there is no `/proc`,
/// `launchctl` and `systemctl`, and git before the program is compiled.
fn processes(source: &Source) -> Vec<String> {
    let starts = |path: &[String]| {
        pairs(path).any(|pair| [("process", "Command"), ("process", "*"), ("Command", "new")].contains(&pair))
    };
    let app_server =
        ["src/codex/process/child.rs", "src/codex/process/guard.rs", "src/codex/process/reaper.rs"];
    let others = ["src/codex/process/macos.rs", "src/service/manager.rs", "src/embedded", "src/build.rs"];
    let places = [&app_server[..], &others].concat();
    offences(source, &places, starts)
}

/// Changes of files outside of the places that own files.
fn files(source: &Source) -> Vec<String> {
    let owners = ["src/storage", "src/embedded", "src/commands/smoke.rs"];
    let of_fs =
        ["write", "rename", "copy", "hard_link", "create_dir", "create_dir_all", "set_permissions", "*"];
    let changes = |path: &[String]| {
        path.iter().any(|name| name == "OpenOptions" || name == "DirBuilder")
            || pairs(path).any(|(a, b)| {
                (a == "File" && ["create", "create_new", "options"].contains(&b))
                    || (a == "fs" && (of_fs.contains(&b) || b.starts_with("remove_")))
            })
    };
    offences(source, &owners, changes)
}

/// Things outside of itself that the room with the records knows; only its snapshots are files.
fn impurities(source: &Source) -> Vec<String> {
    if source.room() != "state" {
        return Vec::new();
    }
    let outside = |path: &[String]| {
        ["tokio", "jiff", "tracing", "hyper", "axum"].contains(&path[0].as_str())
            || pairs(path).any(|(a, b)| {
                a == "std" && ["env", "fs", "io", "net", "process", "thread", "time"].contains(&b)
            })
    };
    offences(source, &["src/state/snapshot.rs"], outside)
}

fn too_long(source: &Source) -> Vec<String> {
    let is_long = source.lines > LONGEST_FILE;
    is_long.then(|| format!("{} has {} lines", source.path, source.lines)).into_iter().collect()
}

/// Work put off, tests left out, lints switched off, and tests that are in the program.
fn excuses(source: &Source) -> Vec<String> {
    let words: Vec<&str> = source.tokens.iter().map(String::as_str).collect();
    let mut found = Vec::new();
    let mut say = |what: &str| found.push(format!("{} has {what}", source.path));
    for (at, pair) in words.windows(2).enumerate() {
        match pair {
            ["todo" | "unimplemented", "!"] => say("todo!"),
            ["#", "[" | "!"] => {
                let attribute: Vec<_> = words[at..].iter().take_while(|word| **word != "]").collect();
                for excuse in ["ignore", "allow"].iter().filter(|word| attribute.contains(word)) {
                    say(&format!("#[{excuse}]"));
                }
            }
            _ => {}
        }
    }
    if without_tests(&source.tokens).windows(2).any(|pair| pair == ["mod", "tests"]) {
        say("tests that are part of the program");
    }
    found
}

/// Temporary directories of tests that are not made by the one function that keeps them under the target directory.
fn temporary_directories(source: &Source) -> Vec<String> {
    let makes = |path: &[String]| {
        pairs(path).any(|pair| match pair {
            ("TempDir", name) => name == "new" || name.starts_with("with_"),
            ("tempfile", name) => name == "tempdir" || name == "*",
            ("env", name) => name == "temp_dir",
            _ => false,
        })
    };
    let wrong = paths(&source.tokens).into_iter().filter(|path| makes(path));
    wrong.map(|path| format!("{} has {}", source.path, path.join("::"))).collect()
}

/// What `is_wrong` finds among the paths of a file that stands elsewhere than in `places`; what only tests see is free.
fn offences(source: &Source, places: &[&str], is_wrong: impl Fn(&[String]) -> bool) -> Vec<String> {
    if source.is_below(places) {
        return Vec::new();
    }
    let paths = paths(&source.without_tests().tokens);
    let wrong = paths.into_iter().filter(|path| is_wrong(path));
    wrong.map(|path| format!("{} has {}", source.path, path.join("::"))).collect()
}

fn pairs(path: &[String]) -> impl Iterator<Item = (&str, &str)> {
    path.windows(2).map(|pair| (pair[0].as_str(), pair[1].as_str()))
}

fn assert_holds(rule: impl Fn(&Source) -> Vec<String>, folders: &[&str]) {
    let sources = sources(folders);
    assert!(sources.len() > 10, "the sources are elsewhere");
    let found: Vec<String> = sources.iter().flat_map(rule).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn rooms_use_only_what_stands_below_them() {
    assert_holds(wrong_uses, &["src"]);
}

#[test]
fn every_room_is_in_the_table() {
    let mut found: Vec<String> = sources(&["src"]).iter().map(|source| source.room().to_owned()).collect();
    found.sort();
    found.dedup();
    let mut known: Vec<_> = ROOMS.iter().map(|(name, _)| *name).chain(["lib", "build"]).collect();
    known.sort_unstable();
    assert_eq!(found, known);
}

#[test]
fn the_table_allows_nothing_that_nobody_needs() {
    let uses = |source: &Source, room, used: &str| {
        source.room() == room && rooms_used(source).contains(&used.to_owned())
    };
    let sources = sources(&["src"]);
    for (room, allowed) in ROOMS {
        for used in allowed {
            assert!(sources.iter().any(|source| uses(source, room, used)), "{room} does not use {used}");
        }
    }
}

#[test]
fn the_table_leads_downwards() {
    for (index, (room, allowed)) in ROOMS.iter().enumerate() {
        for used in *allowed {
            let below = ROOMS[index + 1..].iter().any(|(name, _)| name == used);
            assert!(below, "{room} may use {used}, which does not stand below it");
        }
    }
}

#[test]
fn the_page_shows_the_table() {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md")).unwrap();
    let rows = ROOMS.iter().map(|(room, allowed)| {
        let names: Vec<_> = allowed.iter().map(|name| format!("`{name}`")).collect();
        let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        format!("| `{room}` | {names} |")
    });
    let is_row = |line: &&str| ROOMS.iter().any(|(room, _)| line.starts_with(&format!("| `{room}` | ")));
    let shown: Vec<_> = page.lines().filter(is_row).collect();
    assert_eq!(shown, rows.collect::<Vec<_>>());
}

#[test]
fn the_environment_is_read_in_one_room() {
    assert_holds(environment, &["src"]);
}

#[test]
fn processes_are_started_in_few_places() {
    assert_holds(processes, &["src"]);
}

#[test]
fn files_are_changed_by_their_owners() {
    assert_holds(files, &["src"]);
}

#[test]
fn directories_of_tests_are_under_the_target_directory() {
    let is_a_test = |source: &Source| !source.is_below(&["tests/fuzz"]);
    assert_holds(
        |source| if is_a_test(source) { temporary_directories(source) } else { Vec::new() },
        &["tests"],
    );
}

#[test]
fn the_records_know_nothing_outside_of_themselves() {
    assert_holds(impurities, &["src"]);
}

#[test]
fn no_file_is_too_long() {
    assert_holds(too_long, &["src", "tests"]);
}

#[test]
fn there_are_no_excuses() {
    assert_holds(excuses, &["src", "tests"]);
}
