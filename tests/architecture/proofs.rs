//! Tests of the rules themselves: each finds what it forbids in made-up sources, and nothing else.

use super::*;

/// Asserts that a rule finds a violation in each `bad` text and none in a `good` one, as if they were the file `path`.
#[track_caller]
fn assert_distinguishes(rule: fn(&Source) -> Vec<String>, path: &str, bad: &[&str], good: &[&str]) {
    for text in bad {
        assert!(!rule(&Source::new(path, text)).is_empty(), "{text:?} passes in {path}");
    }
    for text in good {
        assert_eq!(rule(&Source::new(path, text)), [""; 0], "{text:?} in {path}");
    }
}

#[test]
fn use_of_a_layer_that_is_not_allowed_is_found() {
    assert_distinguishes(
        wrong_uses,
        "src/journal/line.rs",
        &[
            "use crate::state::Event;",
            "use crate::{journal, state::Event};",
            "pub use crate :: http;",
            "fn f() -> crate::daemon::Daemon {}",
            "use super::super::state;",
            "use super::super::{state, journal};",
            "mod inner { use super::super::super::http; }",
            "#[cfg(test)] mod tests { use crate::daemon; }",
            "use crate::*;",
            "use crate::{self};",
            "use crate::no_such_layer;",
            "const A: char = '\"'; use crate::http; // \"",
            "const A: char = '{'; const B: &str = r#\"\"}\"#; use crate::http;",
            "fn f<'a>(a: &'a str) -> crate::http::App<'a> {}",
        ],
        &[
            "use crate::journal::tail::Tail;",
            "use super::tail::{Tail, After}; pub(crate) fn f() {}",
            "mod inner { use super::super::tail; }",
            "mod a { fn f() {} } mod b { use super::super::tail; }",
            "// use crate::http;",
            "/* use /* nested */ crate::http; */",
            "/// See [`crate::http`].\nfn f() {}",
            "const A: &str = \"use crate::http; \\\" \";",
            "const A: &str = r##\"use crate::http; \"# \"##;",
            "const A: &[u8] = b\"crate::http\"; const B: u8 = b'\\'';",
        ],
    );
    assert_distinguishes(
        wrong_uses,
        "src/journal/mod.rs",
        &["use super::state;"],
        &["use self::tail::Tail;"],
    );
    assert_distinguishes(
        wrong_uses,
        "src/http/mod.rs",
        &["use crate::codex::Client;"],
        &["use crate::daemon::Daemon;"],
    );
    assert_distinguishes(
        wrong_uses,
        "src/daemon/turns.rs",
        &["use crate::http;"],
        &["use crate::{codex, config::Paths};"],
    );
    assert_distinguishes(wrong_uses, "src/main.rs", &["codexd::daemon::f();"], &["codexd::cli::parse(a)"]);
    assert_distinguishes(wrong_uses, "src/lib.rs", &["use crate::http;"], &["pub mod http;"]);
}

#[test]
fn environment_read_is_found() {
    let bad = [
        "std::env::var(\"A\");",
        "use std::env; fn f() { env::vars() }",
        "use std::{env::var_os, fs};",
        "use std::env::*;",
    ];
    let good = [
        "env!(\"A\");",
        "std::env::temp_dir();",
        "var(1);",
        "#[cfg(test)] mod tests { fn f() { std::env::var(a); } }",
    ];
    assert_distinguishes(environment_reads, "src/http/mod.rs", &bad, &good);
    assert_distinguishes(environment_reads, "src/config/settings.rs", &[], &bad);
}

#[test]
fn process_start_is_found() {
    let bad = [
        "Command::new(\"a\");",
        "use tokio::process::{Child, Command};",
        "use std::{process::Command as Other, io};",
        "std::process::Command::new(a);",
        "#[cfg(test)] mod tests { fn f() { { g(); } } } fn f() { Command::new(a) }",
    ];
    let good = ["clap::Command;", "use std::process::ExitCode;", "#[cfg(test)] fn f() { Command::new(a); }"];
    assert_distinguishes(process_starts, "src/codex/supervisor/task.rs", &bad, &good);
    assert_distinguishes(process_starts, "src/codex/process/child.rs", &[], &bad);
    assert_distinguishes(process_starts, "src/demo/turn.rs", &bad, &good);
    assert_distinguishes(process_starts, "src/service/manager.rs", &[], &bad);
    assert_distinguishes(process_starts, "src/service/mod.rs", &bad, &good);
}

#[test]
fn temporary_directory_of_a_test_is_found() {
    let bad = [
        "TempDir::new().unwrap();",
        "TempDir::with_prefix(\"a\");",
        "tempfile::tempdir();",
        "use tempfile::{tempdir, TempDir};",
        "std::env::temp_dir();",
    ];
    let good = ["scratch::directory(\"a\");", "use tempfile::TempDir;", "Builder::new().tempdir_in(a);"];
    assert_distinguishes(temporary_directories, "tests/it/files.rs", &bad, &good);
}

#[test]
fn file_change_is_found() {
    let bad = [
        "File::create(a);",
        "use std::fs::{File, OpenOptions};",
        "std::fs::write(a, b);",
        "tokio::fs::rename(a, b);",
        "use std::fs::{write as w};",
        "fs::remove_file(a);",
        "DirBuilder::new();",
        "File::options();",
    ];
    let good = [
        "File::open(a);",
        "std::fs::read(a);",
        "file.write(a);",
        "#[cfg(test)] mod tests { use std::fs::write; }",
    ];
    assert_distinguishes(file_changes, "src/daemon/recorder/snapshot_writer.rs", &bad, &good);
    for owner in ["src/storage/mod.rs", "src/storage/lock.rs", "src/commands/smoke.rs", "src/demo/threads.rs"]
    {
        assert_distinguishes(file_changes, owner, &[], &bad);
    }
    for other in [
        "src/journal/writer.rs",
        "src/state/snapshot.rs",
        "src/daemon/recorder/recovery.rs",
        "src/daemon/backup.rs",
        "src/commands/start.rs",
    ] {
        assert_distinguishes(file_changes, other, &bad, &good);
    }
    // Test files are exempt too.
    assert_distinguishes(file_changes, "src/config/tests.rs", &[], &bad);
}

#[test]
fn impure_use_in_state_is_found() {
    let bad = [
        "use tokio::sync::watch;",
        "std::time::Instant::now();",
        "use std::{fs, sync::Arc};",
        "jiff::Timestamp::now();",
    ];
    assert_distinguishes(
        impure_uses,
        "src/state/session.rs",
        &bad,
        &["use std::sync::Arc;", "let time = fs;"],
    );
    assert_distinguishes(impure_uses, "src/state/snapshot.rs", &[], &bad);
    assert_distinguishes(impure_uses, "src/daemon/mod.rs", &[], &bad);
}

#[test]
fn long_file_is_found() {
    let (long, short) = ("\n".repeat(MAX_FILE_LINES + 1), "\n".repeat(MAX_FILE_LINES));
    assert_distinguishes(long_files, "src/cli.rs", &[&long], &[&short]);
}

#[test]
fn forbidden_marker_is_found() {
    let bad = [
        "fn f() { todo!() }",
        "unimplemented!();",
        "#[ignore] fn f() {}",
        "#[ignore = \"slow\"] fn f() {}",
        "#[allow(dead_code)] fn f() {}",
        "#![allow(dead_code)]",
        "#[cfg_attr(unix, allow(dead_code))] fn f() {}",
        "mod tests;",
    ];
    let good = [
        "// todo!",
        "const A: &str = \"#[ignore]\";",
        "#[expect(dead_code, reason = \"allow\")] fn f() {}",
        "let ignore = allow(a);",
        "#[cfg(test)] mod tests;",
        "#[cfg(test)]\n#[path = \"x\"] mod tests { fn f() {} }",
    ];
    assert_distinguishes(forbidden_markers, "src/cli.rs", &bad, &good);
}

#[test]
fn import_cycle_is_found_through_reexports() {
    let source = |path: &str, text: &str| Source::new(&format!("src/{path}"), text);
    let cycles_of = |sources: &[Source]| {
        let imports = Imports::new(sources);
        cycles(&imports.graph())
    };
    let module = || source("a/mod.rs", "mod b; mod c; pub use b::B; pub use c::C as D;");
    let direct = [
        module(),
        source("a/b.rs", "use super::c::C;"),
        source("a/c.rs", "use super::b;  fn f() { b::g(); }"),
    ];
    assert_eq!(cycles_of(&direct), ["src/a/b.rs → src/a/c.rs → src/a/b.rs"]);
    let reexported =
        [module(), source("a/b.rs", "use crate::a::D;"), source("a/c.rs", "fn f(b: super::B) {}")];
    assert_eq!(cycles_of(&reexported), ["src/a/b.rs → src/a/c.rs → src/a/b.rs"]);
    let parent = [source("a.rs", "mod b; fn f() { b::g(); }"), source("a/b.rs", "use super::f;")];
    assert_eq!(cycles_of(&parent), ["src/a.rs → src/a/b.rs → src/a.rs"]);
    let clean = [
        module(),
        source("a/b.rs", "use super::c::C; #[cfg(test)] mod tests { use crate::a::x; }"),
        source("a/c.rs", "use std::fs; #[cfg(test)] mod tests { use crate::a::B; } // use super::b::B;"),
    ];
    assert_eq!(cycles_of(&clean), [""; 0]);
}
