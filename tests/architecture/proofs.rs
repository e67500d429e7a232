//! That each rule finds what it forbids, and only that, in texts that are made up.

use super::*;

/// Asserts that a rule finds a fault in each of these texts and none in those, as if they stood in `path`.
#[track_caller]
fn assert_tells_apart(rule: fn(&Source) -> Vec<String>, path: &str, bad: &[&str], good: &[&str]) {
    for text in bad {
        assert!(!rule(&Source::new(path, text)).is_empty(), "{text:?} passes in {path}");
    }
    for text in good {
        assert_eq!(rule(&Source::new(path, text)), [""; 0], "{text:?} in {path}");
    }
}

#[test]
fn a_use_upwards_or_sideways_is_found() {
    assert_tells_apart(
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
            "use crate::no_such_room;",
            "const A: char = '\"'; use crate::http; // \"",
            "const A: char = '{'; const B: &str = r#\"\"}\"#; use crate::http;",
            "fn f<'a>(a: &'a str) -> crate::http::Edge<'a> {}",
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
    assert_tells_apart(wrong_uses, "src/journal/mod.rs", &["use super::state;"], &["use self::tail::Tail;"]);
    assert_tells_apart(
        wrong_uses,
        "src/http/mod.rs",
        &["use crate::app_server::Client;"],
        &["use crate::daemon::Daemon;"],
    );
    assert_tells_apart(
        wrong_uses,
        "src/daemon/turns.rs",
        &["use crate::http;"],
        &["use crate::{app_server, config::Paths};"],
    );
    assert_tells_apart(wrong_uses, "src/main.rs", &["codexd::daemon::f();"], &["codexd::cli::parse(a)"]);
    assert_tells_apart(wrong_uses, "src/lib.rs", &["use crate::http;"], &["pub mod http;"]);
}

#[test]
fn a_reader_of_the_environment_is_found() {
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
    assert_tells_apart(environment, "src/http/mod.rs", &bad, &good);
    assert_tells_apart(environment, "src/config/settings.rs", &[], &bad);
}

#[test]
fn a_start_of_a_process_is_found() {
    let bad = [
        "Command::new(\"a\");",
        "use tokio::process::{Child, Command};",
        "use std::{process::Command as Other, io};",
        "std::process::Command::new(a);",
        "#[cfg(test)] mod tests { fn f() { { g(); } } } fn f() { Command::new(a) }",
    ];
    let good = ["clap::Command;", "use std::process::ExitCode;", "#[cfg(test)] fn f() { Command::new(a); }"];
    assert_tells_apart(processes, "src/app_server/supervisor.rs", &bad, &good);
    assert_tells_apart(processes, "src/app_server/child.rs", &[], &bad);
    assert_tells_apart(processes, "src/embedded/tools.rs", &[], &bad);
    assert_tells_apart(processes, "src/service/manager.rs", &[], &bad);
    assert_tells_apart(processes, "src/service/mod.rs", &bad, &good);
}

#[test]
fn a_temporary_directory_of_a_test_is_found() {
    let bad = [
        "TempDir::new().unwrap();",
        "TempDir::with_prefix(\"a\");",
        "tempfile::tempdir();",
        "use tempfile::{tempdir, TempDir};",
        "std::env::temp_dir();",
    ];
    let good = ["scratch::directory(\"a\");", "use tempfile::TempDir;", "Builder::new().tempdir_in(a);"];
    assert_tells_apart(temporary_directories, "tests/it/files.rs", &bad, &good);
}

#[test]
fn a_change_of_a_file_is_found() {
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
    assert_tells_apart(files, "src/daemon/keeper.rs", &bad, &good);
    for owner in ["src/disk/mod.rs", "src/disk/lock.rs", "src/commands/smoke.rs", "src/embedded/store.rs"] {
        assert_tells_apart(files, owner, &[], &bad);
    }
    for other in [
        "src/journal/writer.rs",
        "src/state/snapshot.rs",
        "src/daemon/opening.rs",
        "src/daemon/output.rs",
        "src/commands/start.rs",
    ] {
        assert_tells_apart(files, other, &bad, &good);
    }
    // What a folder of tests does is free as well.
    assert_tells_apart(files, "src/config/tests.rs", &[], &bad);
}

#[test]
fn a_record_that_knows_the_world_is_found() {
    let bad = [
        "use tokio::sync::watch;",
        "std::time::Instant::now();",
        "use std::{fs, sync::Arc};",
        "jiff::Timestamp::now();",
    ];
    assert_tells_apart(impurities, "src/state/session.rs", &bad, &["use std::sync::Arc;", "let time = fs;"]);
    assert_tells_apart(impurities, "src/state/snapshot.rs", &[], &bad);
    assert_tells_apart(impurities, "src/daemon/mod.rs", &[], &bad);
}

#[test]
fn a_file_that_is_too_long_is_found() {
    let (long, short) = ("\n".repeat(LONGEST_FILE + 1), "\n".repeat(LONGEST_FILE));
    assert_tells_apart(too_long, "src/cli.rs", &[&long], &[&short]);
}

#[test]
fn an_excuse_is_found() {
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
    assert_tells_apart(excuses, "src/cli.rs", &bad, &good);
}
