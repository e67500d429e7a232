//! The events of the daemon, its state files and its log.

use crate::state::Level::{self, Error, Info, Warn};

event_types! {
    /// The events of the daemon and its files.
    enum DaemonEvent {
        /// The daemon serves.
        "daemon.started" => Started {
            /// The mode, `app-server`.
            mode: String = skip,
            /// The endpoint of the app-server, without secrets.
            endpoint: String = default,
            /// The address of the HTTP interface, as configured.
            local_api_base: String = default,
            /// `spawn`, `shared` or `external`.
            strategy: String = default,
            /// The PID of the daemon.
            pid: Option<u32> = default,
            /// The ID of the daemon, which stays the same across restarts.
            daemon_id: String = default,
        } => Info, format!("codexd started in {mode} mode.");
        /// The daemon stopped in order.
        "daemon.stopped" => Stopped {} => Info, "codexd stopped.".to_owned();
        /// Files of a previous run were repaired or set aside at the start.
        "state.recovered" => StateRecovered {
            /// What was done.
            message: String = skip,
            /// The first sequence number that is skipped.
            skipped_from: Option<u64> = default skip_serializing_if,
            /// The last sequence number that is skipped.
            skipped_through: Option<u64> = default skip_serializing_if,
        } => Warn, message.clone();
        /// The log cannot be written.
        "storage.failed" => StorageFailed {
            /// The error.
            reason: String,
        } => Error, format!("The event log cannot be written ({reason}); no new event is acknowledged until it can.");
        /// The log can be written again.
        "storage.recovered" => StorageRecovered {
            /// The first event that is lost; `null` when none is.
            lost_from: Option<u64>,
            /// The last event that is lost.
            lost_through: Option<u64>,
        } => if lost_from.is_some() { Error } else { Info }, recovered(lost_from.zip(*lost_through));
        /// Lines in the middle of the log cannot be read.
        "log.damaged" => LogDamaged {
            /// The damaged places.
            damage: Vec<LogDamage>,
        } => Error, damaged(damage);
    }
}

event_detail! {
    /// A damaged place of the log.
    struct LogDamage {
        /// The file.
        file: String,
        /// The last intact event before it; 0 when there is none.
        after_seq: u64,
        /// The first intact event after it, if there is one.
        before_seq: Option<u64>,
        /// Its length; 0 for missing lines.
        bytes: u64,
        /// The first event that is missing, if that is known.
        missing_from: Option<u64>,
        /// The last event that is missing, if that is known.
        missing_through: Option<u64>,
    }
}

fn recovered(lost: Option<(u64, u64)>) -> String {
    match lost {
        None => "The event log can be written again; no events are missing.".to_owned(),
        Some((first, last)) => {
            format!("The event log can be written again; the events {first} to {last} are lost.")
        }
    }
}

fn damaged(damage: &[LogDamage]) -> String {
    let between = |damage: &LogDamage| match damage.before_seq {
        Some(before) => format!("between event {} and event {before}", damage.after_seq),
        None => format!("after event {}", damage.after_seq),
    };
    let places: Vec<_> = damage.iter().take(5).map(between).collect();
    let more = if damage.len() > places.len() { " and in more places" } else { "" };
    format!("The event log is damaged {}{more}; the events that were there are lost.", places.join(", "))
}
