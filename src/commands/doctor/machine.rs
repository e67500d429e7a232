//! Checks the directories, the free disk space, the clock and the file limit.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use rustix::fs::{Access, access, statvfs};
use rustix::process::{Resource, Rlimit, geteuid, getrlimit};
use serde_json::Value;

use super::super::start::{FEW_CONNECTIONS, desired_files, max_connections_for};
use super::check::Check;
use crate::config::Config;

/// Below this many free bytes the disk counts as full.
const MIN_FREE_BYTES: u64 = 64 << 20;
/// How far the clock may be behind the newest event: clocks are set back a little now and then.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(5);
/// A clock before this time was never set, in seconds since 1970: the first day of 2026.
const MIN_CLOCK_SECONDS: i64 = 1_767_225_600;
/// How many bytes at the end of the log are searched for the newest event.
const TAIL_BYTES: u64 = 1 << 20;

pub(super) fn check(config: &Config) -> Vec<Check> {
    let paths = &config.paths;
    let mut checks =
        vec![directory("state-directory", &paths.state_dir), directory("logs-directory", &paths.logs_dir)];
    if paths.events_dir != paths.logs_dir {
        checks.push(directory("events-directory", &paths.events_dir));
    }
    checks.extend([
        disk(config),
        clock(&paths.structured_event_log, Timestamp::now()),
        open_files(&getrlimit(Resource::Nofile), config.http.connection_limit),
    ]);
    checks
}

fn directory(name: &'static str, path: &Path) -> Check {
    let shown = path.display();
    let probe = match fs::symlink_metadata(path) {
        Ok(probe) => probe,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return missing_directory(name, path),
        Err(error) => {
            return Check::fail(
                name,
                format!("{shown} cannot be read: {error}."),
                "Fix its permissions, or choose another directory.",
            );
        }
    };
    let uid = geteuid().as_raw();
    let refused = |what: &str| {
        Check::fail(name, format!("{shown} {what}, which codexd rejects."), "Choose another directory.")
    };
    if !probe.is_dir() {
        return refused("is a symlink or not a directory");
    }
    if probe.uid() != uid {
        return refused(&format!("belongs to user {}, not to user {uid}", probe.uid()));
    }
    if access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return Check::fail(name, format!("{shown} is not writable."), format!("Type: chmod 700 {shown}"));
    }
    let mode = probe.permissions().mode() & 0o777;
    if mode != 0o700 {
        let detail = format!("{shown} has permissions {mode:04o}; other users should have no access.");
        return Check::warn(name, detail, "codexd changes them to 0700 when it starts.");
    }
    Check::ok(name, format!("{shown}."))
}

fn missing_directory(name: &'static str, path: &Path) -> Check {
    let shown = path.display();
    let above = existing_ancestor(path);
    match above.is_dir() && access(above, Access::WRITE_OK | Access::EXEC_OK).is_ok() {
        true => Check::ok(name, format!("{shown} is created at the first start.")),
        false => Check::fail(
            name,
            format!("{shown} does not exist and cannot be created in {}.", above.display()),
            "Create it, or choose another directory.",
        ),
    }
}

/// The nearest existing ancestor, or the path itself.
fn existing_ancestor(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

fn disk(config: &Config) -> Check {
    let (paths, limits) = (&config.paths, &config.limits);
    // Two output logs, each with one older file.
    let most = limits.event_log_bytes.saturating_add(limits.output_log_bytes.saturating_mul(4));
    let apart = (paths.events_dir != paths.logs_dir).then_some(&paths.events_dir);
    let used: u64 = apart.into_iter().chain([&paths.logs_dir]).map(|directory| size_of(directory)).sum();
    let growth = most.saturating_sub(used);
    let free = [&paths.state_dir, &paths.events_dir, &paths.logs_dir].map(|path| {
        let probe = statvfs(existing_ancestor(path));
        (path, probe.map(|probe| probe.f_bavail.saturating_mul(probe.f_frsize)))
    });
    let mut least: Option<(&Path, u64)> = None;
    for (path, free) in free {
        match free {
            Ok(free) if least.is_none_or(|(_, other)| free < other) => least = Some((path, free)),
            Ok(_) => {}
            Err(error) => {
                let detail = format!("Failed to read the free space of {}: {error}.", path.display());
                return Check::warn("disk", detail, "Check it with df.");
            }
        }
    }
    let (path, free) = least.unwrap_or((&paths.logs_dir, 0));
    check_free_space(path, free, growth)
}

fn check_free_space(path: &Path, free: u64, growth: u64) -> Check {
    let detail = format!("{} free for {}", megabytes(free), path.display());
    if free < MIN_FREE_BYTES {
        let advice = "Free some space: without it, codexd rejects sessions and turns.";
        return Check::fail("disk", format!("Only {detail}."), advice);
    }
    if free < growth {
        let detail = format!("{detail}, and the logs may grow by {}.", megabytes(growth));
        return Check::warn("disk", detail, "Free some space, or set a smaller --event-log-bytes.");
    }
    Check::ok("disk", format!("{detail}."))
}

/// The total size of the files in a directory; unreadable ones count as 0.
fn size_of(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .filter(fs::Metadata::is_file)
        .map(|file| file.len())
        .sum()
}

fn megabytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn clock(log: &Path, now: Timestamp) -> Check {
    let advice = "Set the clock: event times and TLS certificates depend on it.";
    if now.as_second() < MIN_CLOCK_SECONDS {
        return Check::fail("clock", format!("The clock is at {now:.0}."), advice);
    }
    match newest_event(log) {
        Err(error) => Check::warn(
            "clock",
            format!("The newest event in {} cannot be read: {error}.", log.display()),
            "Make it readable for your user.",
        ),
        Ok(Some(newest)) if newest.duration_since(now) > CLOCK_TOLERANCE => Check::warn(
            "clock",
            format!("The clock is at {now:.0}, but the newest event is from {newest:.0}."),
            advice,
        ),
        Ok(_) => Check::ok("clock", "The clock is not behind the newest event."),
    }
}

/// The time of the last complete line of the log.
fn newest_event(log: &Path) -> io::Result<Option<Timestamp>> {
    let mut file = match File::open(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut tail = Vec::new();
    // The log may grow meanwhile.
    file.take(TAIL_BYTES).read_to_end(&mut tail)?;
    let mut lines = tail.rsplit(|byte| *byte == b'\n');
    Ok(lines.find_map(|line| {
        let event: Value = serde_json::from_slice(line).ok()?;
        event["createdAt"].as_str()?.parse().ok()
    }))
}

fn open_files(limits: &Rlimit, connections: usize) -> Check {
    let files = desired_files(limits);
    let possible = max_connections_for(files);
    // The default of --connection-limit is a maximum that many machines do not allow.
    if possible < connections.min(FEW_CONNECTIONS) {
        return Check::warn(
            "open-files",
            format!("The limit of {files} open files allows {possible} connections, not {connections}."),
            "Raise the hard limit (ulimit -Hn), or set a smaller --connection-limit.",
        );
    }
    Check::ok(
        "open-files",
        format!("The limit of {files} open files is enough for {} connections.", possible.min(connections)),
    )
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckStatus;
    use super::*;

    #[test]
    fn doctor_checks_directory_as_daemon_does() {
        let home = tempfile::tempdir().unwrap();
        let judge = |name: &str| directory("state-directory", &home.path().join(name));
        let make = |name: &str, mode: u32| {
            fs::create_dir(home.path().join(name)).unwrap();
            fs::set_permissions(home.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        make("good", 0o700);
        make("open", 0o755);
        fs::write(home.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink(home.path().join("good"), home.path().join("link")).unwrap();
        for (name, status, text) in [
            ("good", CheckStatus::Ok, "good."),
            ("open", CheckStatus::Warn, "0755"),
            ("file", CheckStatus::Fail, "not a directory"),
            ("link", CheckStatus::Fail, "is a symlink"),
            ("none/at/all", CheckStatus::Ok, "is created"),
            ("file/below", CheckStatus::Fail, "cannot be"),
        ] {
            let check = judge(name);
            assert_eq!(check.status, status, "{name}: {}", check.detail);
            assert!(check.detail.contains(text), "{}", check.detail);
        }
        assert!(!home.path().join("none").exists());
    }

    #[test]
    fn doctor_checks_free_space_for_log_growth() {
        let judge = |free: u64, growth: u64| check_free_space(Path::new("/logs"), free << 20, growth << 20);
        assert_eq!(judge(700, 640).status, CheckStatus::Ok);
        let check = judge(600, 640);
        assert_eq!(
            (check.status, check.detail.as_str()),
            (CheckStatus::Warn, "600 MiB free for /logs, and the logs may grow by 640 MiB.")
        );
        assert_eq!(judge(63, 0).status, CheckStatus::Fail);
    }

    #[test]
    fn doctor_detects_clock_set_back() {
        let home = tempfile::tempdir().unwrap();
        let log = home.path().join("events.jsonl");
        let now: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(clock(&log, now).status, CheckStatus::Ok);
        assert_eq!(clock(&log, Timestamp::UNIX_EPOCH).status, CheckStatus::Fail);
        let event = |at: &str| format!("{{\"seq\":1,\"createdAt\":\"{at}\"}}\n");
        for (text, status) in [
            (String::new(), CheckStatus::Ok),
            (event("2026-12-31T23:59:59.000Z"), CheckStatus::Ok),
            (event("2027-01-01T00:00:04.000Z"), CheckStatus::Ok),
            (event("2027-01-01T00:00:06.000Z"), CheckStatus::Warn),
            // The last line is incomplete.
            (event("2027-02-01T00:00:00.000Z") + "{\"seq\":2,\"crea", CheckStatus::Warn),
            ("x".repeat(2 << 20) + "\n" + &event("2027-02-01T00:00:00.000Z"), CheckStatus::Warn),
        ] {
            fs::write(&log, text).unwrap();
            assert_eq!(clock(&log, now).status, status);
        }
    }

    #[test]
    fn doctor_counts_open_files_as_start_does() {
        let limits = |current, maximum| Rlimit { current: Some(current), maximum: Some(maximum) };
        assert_eq!(open_files(&limits(256, 4096), 256).status, CheckStatus::Ok);
        let check = open_files(&limits(256, 256), 256);
        assert_eq!(check.status, CheckStatus::Warn);
        assert!(check.detail.contains("208 connections"), "{}", check.detail);
        assert_eq!(open_files(&Rlimit { current: None, maximum: None }, 100_000).status, CheckStatus::Ok);
    }
}
