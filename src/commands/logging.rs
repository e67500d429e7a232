//! What the daemon says about itself, on stderr.

use std::io::IsTerminal;

use tracing::Level;
use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::Failure;
use crate::daemon;

/// What the targets of codexd's own words begin with.
const OURS: &str = "codexd";

/// Begins to log what `filter` lets through, such as `info` or `codexd=debug,hyper=warn`.
///
/// A panic is logged too, and ends the process unless it is that of a single request.
pub(crate) fn start(filter: &str) -> Result<(), Failure> {
    let filter: Targets = filter.parse().map_err(|error| {
        Failure::settings(format!("BAA_CODEXD_LOG: {error}; write it like info or codexd=debug."))
    })?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // What the libraries below would say of themselves at these levels are headers, frames and texts.
    let is_ours =
        filter_fn(|metadata| *metadata.level() <= Level::INFO || metadata.target().starts_with(OURS));
    tracing_subscriber::registry()
        .with(filter)
        .with(is_ours)
        .with(lines)
        .try_init()
        .map_err(|error| Failure::new(format!("The log could not be started: {error}.")))?;
    std::panic::set_hook(Box::new(|panic| {
        // Words that were put together at the time may quote what was said in a turn.
        let words = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(words left out)");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let is_contained = daemon::is_contained();
        tracing::error!(place, words, is_contained, "codexd met a fault of its own");
        if !is_contained {
            // Something that everything else needs has ended; to go on without it would be to be half dead.
            std::process::abort();
        }
    }));
    Ok(())
}
