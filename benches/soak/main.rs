//! Runs daemons for hours with everything that clients, app-servers and operators do to them, and decides whether
//! something grows or is lost.
//!
//! `just soak HOURS`, or `cargo bench --bench soak -- HOURS`, starts four daemons: two with the real Codex and an offline
//! model, two with the fake app-server; of each, one is killed and restarted. Their clients submit turns of all kinds at
//! a moderate pace, follow the events, disconnect and reconnect. The results are in `target/soak`: `samples.jsonl`,
//! `plot.svg` and `verdict.txt`. The exit code is 1 if a rule was broken, 2 if there is no verdict, and 130 if the run was
//! interrupted. `docs/testing.md` has the rules.
//!
//! | environment variable | meaning |
//! | --- | --- |
//! | `CODEXD_SOAK_HOURS` | the duration in hours, such as 0.5, if it is no argument; without both nothing runs |
//! | `CODEXD_SOAK_SEED` | the seed of a run that is to be repeated |
//! | `CODEXD_SOAK_DIRECTORY` | where the results are, instead of `target/soak` |
//! | `CODEXD_BENCH_PROGRAM` | the codexd to run, instead of the one of this build |
//!
//! Needs Linux.

#![cfg_attr(
    target_os = "linux",
    expect(clippy::disallowed_methods, reason = "a benchmark is a separate process"),
    expect(clippy::print_stderr, reason = "a benchmark prints its results"),
    expect(
        clippy::unwrap_used,
        clippy::expect_used,
        reason = "a benchmark that cannot continue has no result"
    )
)]
#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

#[cfg(target_os = "linux")]
mod api;
#[cfg(target_os = "linux")]
mod compare;
#[cfg(target_os = "linux")]
mod followers;
#[cfg(target_os = "linux")]
mod hooks;
#[cfg(target_os = "linux")]
mod instance;
#[cfg(target_os = "linux")]
mod load;
#[cfg(target_os = "linux")]
mod plot;
#[cfg(target_os = "linux")]
#[path = "../../tests/it/history/random.rs"]
mod random;
#[cfg(target_os = "linux")]
mod record;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod sample;
#[cfg(target_os = "linux")]
mod series;
#[cfg(target_os = "linux")]
#[path = "../../tests/it/support/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "shared with the integration tests; those of the modules are left out"
)]
mod support;
#[cfg(target_os = "linux")]
mod verdict;

use std::process::ExitCode;

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    println!("SKIPPED: soak: it reads /proc, which only Linux has.");
    ExitCode::SUCCESS
}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    // `cargo test --benches` only checks that the benchmark builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    match program::settings() {
        Ok(Some((settings, files))) => program::run(&settings, files),
        Ok(None) => {
            println!("SKIPPED: soak: CODEXD_SOAK_HOURS is not set.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

#[cfg(target_os = "linux")]
mod program {
    use std::fs;
    use std::panic::AssertUnwindSafe;
    use std::path::{Path, PathBuf};
    use std::process::ExitCode;
    use std::sync::PoisonError;
    use std::time::Duration;

    use futures_util::FutureExt;
    use tempfile::TempDir;
    use tokio::signal::unix::{SignalKind, signal};

    use crate::instance::PLANS;
    use crate::random::seed;
    use crate::run::{Series, Settings};
    use crate::support::fake_codex::fake_codex;
    use crate::verdict::{Verdict, table};

    /// How long daemons and clients may take to end when the run is interrupted.
    const INTERRUPT_GRACE: Duration = Duration::from_secs(20);

    /// The settings of the run; `None` if it has no duration, and an error sentence if one is not valid.
    ///
    /// The directory has the files of the run and is removed when it is dropped.
    pub(super) fn settings() -> Result<Option<(Settings, TempDir)>, String> {
        let argument = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
        let Some(hours) = argument.or_else(|| std::env::var("CODEXD_SOAK_HOURS").ok()) else {
            return Ok(None);
        };
        let duration = hours.parse().ok().filter(|hours: &f64| *hours > 0.0);
        let duration = duration.and_then(|hours| Duration::try_from_secs_f64(hours * 3600.0).ok());
        let duration = duration
            .ok_or_else(|| format!("{hours:?} is no duration; give hours above 0, such as 2 or 0.25."))?;
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap_or(Path::new("target"));
        let directory =
            std::env::var_os("CODEXD_SOAK_DIRECTORY").map_or_else(|| target.join("soak"), PathBuf::from);
        fs::create_dir_all(&directory)
            .map_err(|error| format!("failed to create the directory {}: {error}", directory.display()))?;
        let directory = directory.canonicalize().map_err(|error| error.to_string())?;
        let files = tempfile::Builder::new().prefix("files-").tempdir_in(&directory);
        let files = files.map_err(|error| format!("failed to write to {}: {error}", directory.display()))?;
        let program = std::env::var_os("CODEXD_BENCH_PROGRAM");
        let settings = Settings {
            duration,
            seed: seed(),
            directory,
            files: files.path().to_owned(),
            codexd: program.map_or_else(|| env!("CARGO_BIN_EXE_codexd").into(), PathBuf::from),
            fake_codex: fake_codex().into(),
        };
        Ok(Some((settings, files)))
    }

    pub(super) fn run(settings: &Settings, files: TempDir) -> ExitCode {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("the runtime starts");
        let series = Series::default();
        let minutes = settings.duration.as_secs_f64() / 60.0;
        println!("soak: {minutes:.1} min, results in {}", settings.directory.display());
        let verdicts = runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate()).expect("signals can be received");
            // A panic has been printed; what was measured until then is kept.
            let run = AssertUnwindSafe(crate::run::run(settings, &series)).catch_unwind();
            tokio::select! {
                verdicts = run => verdicts.map_err(|_| 2),
                _ = tokio::signal::ctrl_c() => Err(130),
                _ = terminate.recv() => Err(130),
            }
        });
        // Ends what is still running: a daemon that is dropped is stopped.
        runtime.shutdown_timeout(INTERRUPT_GRACE);
        let title = format!("codexd soak, {minutes:.0} min, seed {}", settings.seed);
        settings.write_plot(&title, &series);
        let code = match verdicts {
            Ok(verdicts) => settings.report(&verdicts),
            Err(code) => {
                eprintln!("soak: the run ended early; there is no verdict.");
                code
            }
        };
        if code == 1 || code == 2 {
            eprintln!("soak: the logs of the daemons are in {}", files.keep().display());
        }
        ExitCode::from(code)
    }

    impl Settings {
        fn write_plot(&self, title: &str, series: &Series) {
            let names = PLANS.map(|plan| plan.name);
            let samples = series.samples.lock().unwrap_or_else(PoisonError::into_inner);
            let marks = series.marks.lock().unwrap_or_else(PoisonError::into_inner);
            self.write("plot.svg", &crate::plot::svg(title, &names, &samples, &marks));
        }

        fn report(&self, verdicts: &[Verdict]) -> u8 {
            let mut text = table(verdicts);
            let failed = verdicts.iter().filter(|verdict| verdict.passed == Some(false)).count();
            let seed = self.seed;
            if failed == 0 {
                text.push_str("soak: passed\n");
            } else {
                text.push_str(&format!("soak: {failed} rules broken; repeat with CODEXD_SOAK_SEED={seed}\n"));
            }
            print!("{text}");
            self.write("verdict.txt", &text);
            u8::from(failed > 0)
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.directory.join(name);
            if let Err(error) = fs::write(&path, text) {
                eprintln!("failed to write {}: {error}", path.display());
            }
        }
    }
}
