//! The table of the attacks, and what each of them achieves where nobody guards the door.

use super::pages::Seen;

/// What a page does; the other half of it stands in `attacks.js`.
pub(super) const SCRIPT: &str = include_str!("attacks.js");

/// One way for a page to reach a server that is not its own.
pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    /// Whether a browser asks for permission first when the server is of another origin.
    pub(super) asks_first: bool,
    pub(super) reads: Reads,
    pub(super) carries: Carries,
}

/// When a page can read what comes back from a server that guards nothing.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Reads {
    Always,
    /// When the browser takes the server for the page's own.
    WhenRebound,
    Never,
}

/// What an unguarded server hears of an attack besides the request.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Carries {
    Nothing,
    /// A body that creates a session with the name of the attack in it.
    Session,
    /// A message over the WebSocket with the name of the attack in it.
    Message,
}

const STATUS: &str = "/v1/codexd/status";
const SESSIONS: &str = "/v1/codexd/sessions";
const EVENTS: &str = "/v1/codexd/events";

/// All of them, in the order in which a page tries them.
pub(super) const ATTACKS: [Attack; 31] = [
    get("websocket", EVENTS, Reads::Always),
    Attack { carries: Carries::Message, ..get("websocket-respond", EVENTS, Reads::Always) },
    get("fetch-get", STATUS, Reads::Always),
    get("fetch-get-credentials", STATUS, Reads::Always),
    Attack { asks_first: true, ..get("fetch-get-header", STATUS, Reads::Always) },
    post("fetch-post-text", Reads::Always),
    Attack { asks_first: true, ..post("fetch-post-json", Reads::Always) },
    Attack {
        method: "DELETE",
        asks_first: true,
        ..get("fetch-delete", "/v1/codexd/sessions/some", Reads::Always)
    },
    get("fetch-no-cors-get", STATUS, Reads::WhenRebound),
    post("fetch-no-cors-post", Reads::WhenRebound),
    post("fetch-no-cors-post-credentials", Reads::WhenRebound),
    post("fetch-no-cors-post-keepalive", Reads::WhenRebound),
    post("fetch-no-cors-post-no-referrer", Reads::WhenRebound),
    post("fetch-redirected-post", Reads::Never),
    post("request-post", Reads::Always),
    post("beacon-text", Reads::Never),
    Attack { asks_first: true, ..post("beacon-json", Reads::Never) },
    post("form-post", Reads::WhenRebound),
    post("form-post-no-referrer", Reads::WhenRebound),
    post("form-post-window", Reads::WhenRebound),
    post("form-redirected-post", Reads::WhenRebound),
    get("image", STATUS, Reads::Never),
    get("image-no-referrer", STATUS, Reads::Never),
    get("image-redirected", STATUS, Reads::Never),
    get("script", STATUS, Reads::Never),
    get("script-module", STATUS, Reads::Never),
    get("stylesheet", STATUS, Reads::Never),
    get("frame", STATUS, Reads::WhenRebound),
    get("event-source", EVENTS, Reads::Always),
    get("event-source-credentials", EVENTS, Reads::Always),
    get("window", STATUS, Reads::WhenRebound),
];

const fn get(name: &'static str, path: &'static str, reads: Reads) -> Attack {
    Attack { name, method: "GET", path, asks_first: false, reads, carries: Carries::Nothing }
}

const fn post(name: &'static str, reads: Reads) -> Attack {
    let carries = Carries::Session;
    Attack { name, method: "POST", path: SESSIONS, asks_first: false, reads, carries }
}

impl Attack {
    /// The method of the request that a guarded server refuses: no other one follows it.
    pub(super) fn first_method(&self, seen: Seen) -> &'static str {
        if self.asks_first && seen == Seen::Foreign { "OPTIONS" } else { self.method }
    }

    /// Whether the page reads the answer of a server that guards nothing.
    pub(super) fn is_read(&self, seen: Seen) -> bool {
        match self.reads {
            Reads::Always => true,
            Reads::WhenRebound => seen == Seen::Rebound,
            Reads::Never => false,
        }
    }
}
