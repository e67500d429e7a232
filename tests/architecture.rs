//! The rules of `docs/architecture.md` that the compiler does not check: which layer may use which, which files may import
//! each other, and which files may read the environment, start processes or change files.
//!
//! The rules work on the tokens of the source text, so comments and strings do not count.

#![expect(clippy::disallowed_methods, reason = "tests may block: each runs on a thread of its own")]
#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in test functions only; the helpers here serve tests"
)]

#[path = "architecture/imports.rs"]
mod imports;
#[path = "architecture/proofs.rs"]
mod proofs;
#[path = "architecture/protocol.rs"]
mod protocol;
#[path = "architecture/source.rs"]
mod source;

use std::fs;
use std::path::Path;

use imports::{Imports, cycles};
use source::{Source, layers_used, paths, sources, without_tests};

/// The layers from top to bottom, each with the layers that it may use.
const LAYERS: [(&str, &[&str]); 21] = [
    ("main", &["commands", "cli"]),
    ("fuzzing", &["http", "daemon", "codex", "journal", "state", "storage"]),
    (
        "commands",
        &[
            "mcp",
            "client",
            "http",
            "daemon",
            "service",
            "codex",
            "demo",
            "cli",
            "config",
            "codex::protocol",
            "storage",
            "ids",
        ],
    ),
    ("mcp", &["client", "http", "codex::protocol"]),
    ("client", &["http", "config"]),
    ("http", &["daemon", "journal", "state", "codex::protocol", "storage", "blocking", "ids", "timestamp"]),
    (
        "daemon",
        &[
            "hooks",
            "codex",
            "journal",
            "state",
            "config",
            "codex::protocol",
            "storage",
            "time",
            "blocking",
            "ids",
            "timestamp",
        ],
    ),
    (
        "hooks",
        &["codex", "journal", "state", "codex::protocol", "storage", "time", "blocking", "ids", "timestamp"],
    ),
    ("service", &["codex", "config", "codex::protocol", "storage"]),
    ("codex", &["codex::protocol", "time", "blocking", "ids"]),
    ("journal", &["storage", "blocking"]),
    ("state", &["codex::protocol", "storage", "ids", "timestamp"]),
    ("demo", &[]),
    ("cli", &["config", "codex::protocol"]),
    ("config", &["codex::protocol"]),
    ("codex::protocol", &["ids"]),
    ("storage", &[]),
    ("time", &["timestamp"]),
    ("blocking", &[]),
    ("ids", &[]),
    ("timestamp", &[]),
];

const MAX_FILE_LINES: usize = 500;
/// The demo shows what a turn can contain; it is no second fake app-server.
const MAX_DEMO_CODE_LINES: usize = 660;

// Each rule takes a file and returns its violations.

/// Uses of layers that the table does not allow; tests may use every lower layer.
fn wrong_uses(source: &Source) -> Vec<String> {
    let layer = source.layer();
    let index = LAYERS.iter().position(|(name, _)| *name == layer);
    let allowed = index.map_or(&[][..], |index| LAYERS[index].1);
    let is_test = source.path.ends_with("/tests.rs") || source.path.contains("/tests/");
    let below = |used: &str| {
        is_test && LAYERS.iter().position(|(name, _)| *name == used).is_some_and(|at| Some(at) > index)
    };
    let used = layers_used(source).into_iter();
    used.filter(|used| used != layer && !allowed.contains(&used.as_str()) && !below(used))
        .map(|used| format!("{} uses {used}", source.path))
        .collect()
}

/// Reads of the environment outside `config` and the build script.
fn environment_reads(source: &Source) -> Vec<String> {
    let names = ["var", "var_os", "vars", "vars_os", "set_var", "remove_var", "*"];
    let reads = |path: &[String]| pairs(path).any(|(a, b)| a == "env" && names.contains(&b));
    violations(source, &["src/config", "src/build.rs"], reads)
}

/// Starts of processes outside the files that may: the app-server, a shared one, its guard, `ps` where there is no `/proc`, `launchctl`
/// and `systemctl`, and git in the build script.
fn process_starts(source: &Source) -> Vec<String> {
    let starts = |path: &[String]| {
        pairs(path).any(|pair| [("process", "Command"), ("process", "*"), ("Command", "new")].contains(&pair))
    };
    let app_server = [
        "src/codex/process/child.rs",
        "src/codex/process/detached.rs",
        "src/codex/process/version.rs",
        "src/codex/process/guard.rs",
        "src/codex/process/program.rs",
        "src/codex/process/reaper.rs",
    ];
    let others = [
        "src/commands/programs.rs",
        "src/codex/process/macos.rs",
        "src/service/environment.rs",
        "src/service/manager.rs",
        "src/build.rs",
    ];
    let exempt = [&app_server[..], &others].concat();
    violations(source, &exempt, starts)
}

/// Changes of files outside the modules that own files.
fn file_changes(source: &Source) -> Vec<String> {
    let owners = ["src/storage", "src/demo/threads.rs", "src/commands/smoke.rs", "src/commands/ask/files.rs"];
    let of_fs =
        ["write", "rename", "copy", "hard_link", "create_dir", "create_dir_all", "set_permissions", "*"];
    let changes = |path: &[String]| {
        path.iter().any(|name| name == "OpenOptions" || name == "DirBuilder")
            || pairs(path).any(|(a, b)| {
                (a == "File" && ["create", "create_new", "options"].contains(&b))
                    || (a == "fs" && (of_fs.contains(&b) || b.starts_with("remove_")))
            })
    };
    violations(source, &owners, changes)
}

/// Uses of tasks, clocks and the system in `state`; only its snapshots are files.
fn impure_uses(source: &Source) -> Vec<String> {
    if source.layer() != "state" {
        return Vec::new();
    }
    let outside = |path: &[String]| {
        ["tokio", "jiff", "tracing", "hyper", "axum"].contains(&path[0].as_str())
            || pairs(path).any(|(a, b)| {
                a == "std" && ["env", "fs", "io", "net", "process", "thread", "time"].contains(&b)
            })
    };
    violations(source, &["src/state/snapshot.rs"], outside)
}

/// Files with too many lines.
fn long_files(source: &Source) -> Vec<String> {
    let is_long = source.lines > MAX_FILE_LINES;
    is_long.then(|| format!("{} has {} lines", source.path, source.lines)).into_iter().collect()
}

/// Unfinished code, ignored tests, lints switched off, and tests that are compiled into the program.
fn forbidden_markers(source: &Source) -> Vec<String> {
    let names: Vec<&str> = source.tokens.iter().map(String::as_str).collect();
    let mut found = Vec::new();
    let mut report = |what: &str| found.push(format!("{} has {what}", source.path));
    for (at, pair) in names.windows(2).enumerate() {
        match pair {
            ["todo" | "unimplemented", "!"] => report("todo!"),
            ["#", "[" | "!"] => {
                let attribute: Vec<_> = names[at..].iter().take_while(|name| **name != "]").collect();
                for marker in ["ignore", "allow"].iter().filter(|marker| attribute.contains(marker)) {
                    report(&format!("#[{marker}]"));
                }
            }
            _ => {}
        }
    }
    if without_tests(&source.tokens).windows(2).any(|pair| pair == ["mod", "tests"]) {
        report("tests that are part of the program");
    }
    found
}

/// Temporary directories of tests that are not made by the function that keeps them under the target directory.
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

/// The paths for which `is_wrong` holds in a file outside `exempt`; test code is exempt too.
fn violations(source: &Source, exempt: &[&str], is_wrong: impl Fn(&[String]) -> bool) -> Vec<String> {
    if source.is_below(exempt) {
        return Vec::new();
    }
    let paths = paths(&source.without_tests().tokens);
    let wrong = paths.into_iter().filter(|path| is_wrong(path));
    wrong.map(|path| format!("{} has {}", source.path, path.join("::"))).collect()
}

fn pairs(path: &[String]) -> impl Iterator<Item = (&str, &str)> {
    path.windows(2).map(|pair| (pair[0].as_str(), pair[1].as_str()))
}

fn assert_holds(rule: impl Fn(&Source) -> Vec<String>, directories: &[&str]) {
    let sources = sources(directories);
    assert!(sources.len() > 10, "the sources were not found");
    let found: Vec<String> = sources.iter().flat_map(rule).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn layers_use_only_allowed_layers() {
    assert_holds(wrong_uses, &["src"]);
}

#[test]
fn table_lists_every_layer() {
    let mut found: Vec<String> = sources(&["src"]).iter().map(|source| source.layer().to_owned()).collect();
    found.sort();
    found.dedup();
    let mut known: Vec<_> = LAYERS.iter().map(|(name, _)| *name).chain(["lib", "build"]).collect();
    known.sort_unstable();
    assert_eq!(found, known);
}

#[test]
fn table_allows_only_what_is_used() {
    let uses = |source: &Source, layer, used: &str| {
        source.layer() == layer && layers_used(source).contains(&used.to_owned())
    };
    let sources = sources(&["src"]);
    for (layer, allowed) in LAYERS {
        for used in allowed {
            assert!(sources.iter().any(|source| uses(source, layer, used)), "{layer} does not use {used}");
        }
    }
}

#[test]
fn table_allows_only_lower_layers() {
    for (index, (layer, allowed)) in LAYERS.iter().enumerate() {
        for used in *allowed {
            let below = LAYERS[index + 1..].iter().any(|(name, _)| name == used);
            assert!(below, "{layer} may use {used}, which is not below it");
        }
    }
}

#[test]
fn architecture_page_shows_the_table() {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md")).unwrap();
    let rows = LAYERS.iter().map(|(layer, allowed)| {
        let names: Vec<_> = allowed.iter().map(|name| format!("`{name}`")).collect();
        let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        format!("| `{layer}` | {names} |")
    });
    let is_row = |line: &&str| LAYERS.iter().any(|(layer, _)| line.starts_with(&format!("| `{layer}` | ")));
    let shown: Vec<_> = page.lines().filter(is_row).collect();
    assert_eq!(shown, rows.collect::<Vec<_>>());
}

/// Links such as [`NAME`](../src/file.rs) lead to a file that exists and, for the name of a constant, defines it.
#[test]
fn architecture_page_links_to_what_exists() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let page = fs::read_to_string(docs.join("architecture.md")).unwrap();
    let links: Vec<_> = page.split("](../").skip(1).filter_map(|rest| rest.split_once(')')).collect();
    let names = page.split("](../").map(|before| before.rsplit('[').next().unwrap_or_default());
    assert!(links.len() > 5, "the page links to the sources in another form");
    for ((path, _), name) in links.iter().zip(names) {
        let text = fs::read_to_string(docs.join("..").join(path));
        let text = text.unwrap_or_else(|error| panic!("{path}: {error}"));
        let name = name.trim_matches('`');
        let is_constant = name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        assert!(!is_constant || text.contains(&format!("const {name}:")), "{path} defines no {name}");
    }
}

#[test]
fn environment_is_read_in_config_only() {
    assert_holds(environment_reads, &["src"]);
}

#[test]
fn processes_are_started_in_few_files() {
    assert_holds(process_starts, &["src"]);
}

#[test]
fn files_are_changed_by_their_owners_only() {
    assert_holds(file_changes, &["src"]);
}

#[test]
fn test_directories_are_under_the_target_directory() {
    let is_a_test = |source: &Source| !source.is_below(&["tests/fuzz"]);
    assert_holds(
        |source| if is_a_test(source) { temporary_directories(source) } else { Vec::new() },
        &["tests"],
    );
}

#[test]
fn state_is_pure() {
    assert_holds(impure_uses, &["src"]);
}

#[test]
fn files_are_at_most_500_lines() {
    assert_holds(long_files, &["src", "tests"]);
}

#[test]
fn demo_has_at_most_660_lines_of_code() {
    let is_code = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with("//");
    let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/demo")).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let paths = paths.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let lines: usize =
        paths.map(|path| fs::read_to_string(path).unwrap().lines().filter(is_code).count()).sum();
    assert!(lines <= MAX_DEMO_CODE_LINES, "src/demo has {lines} lines of code");
}

#[test]
fn no_ignored_tests_allowed_lints_or_todos() {
    assert_holds(forbidden_markers, &["src", "tests"]);
}

#[test]
fn files_do_not_import_each_other_in_cycles() {
    let sources = sources(&["src"]);
    let found = cycles(&Imports::new(&sources).graph());
    assert!(found.is_empty(), "{}", found.join("\n"));
}
