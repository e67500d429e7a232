//! The table of attacks, with the effect of each on an unprotected server.

use super::pages::Relation;

/// The script that performs the attacks of this table, under the same names.
pub(super) const SCRIPT: &str = include_str!("attacks.js");

/// One way in which a page can send a request to another server.
pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    /// Whether a browser sends a CORS preflight first to a server of another origin.
    pub(super) is_preflighted: bool,
    pub(super) reads: Reads,
    pub(super) payload: Payload,
}

/// When a page can read the response of an unprotected server.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Reads {
    Always,
    /// When the server has the origin of the page after DNS rebinding.
    WhenRebound,
    Never,
}

/// What an attack sends besides the request head.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Payload {
    Nothing,
    /// A body that creates a session with the name of the attack in its metadata.
    Session,
    /// A WebSocket message with the name of the attack.
    Message,
}

const STATUS: &str = "/v1/codexd/status";
const SESSIONS: &str = "/v1/codexd/sessions";
const EVENTS: &str = "/v1/codexd/events";

/// All attacks, in the order in which a page performs them.
pub(super) const ATTACKS: [Attack; 31] = [
    get("websocket", EVENTS, Reads::Always),
    Attack { payload: Payload::Message, ..get("websocket-respond", EVENTS, Reads::Always) },
    get("fetch-get", STATUS, Reads::Always),
    get("fetch-get-credentials", STATUS, Reads::Always),
    Attack { is_preflighted: true, ..get("fetch-get-header", STATUS, Reads::Always) },
    post("fetch-post-text", Reads::Always),
    Attack { is_preflighted: true, ..post("fetch-post-json", Reads::Always) },
    Attack {
        method: "DELETE",
        is_preflighted: true,
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
    Attack { is_preflighted: true, ..post("beacon-json", Reads::Never) },
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
    Attack { name, method: "GET", path, is_preflighted: false, reads, payload: Payload::Nothing }
}

const fn post(name: &'static str, reads: Reads) -> Attack {
    let payload = Payload::Session;
    Attack { name, method: "POST", path: SESSIONS, is_preflighted: false, reads, payload }
}

impl Attack {
    /// The method of the first request, after whose refusal the browser sends no other one.
    pub(super) fn first_method(&self, relation: Relation) -> &'static str {
        if self.is_preflighted && relation == Relation::Foreign { "OPTIONS" } else { self.method }
    }

    /// Whether the page can read the response of an unprotected server.
    pub(super) fn is_read(&self, relation: Relation) -> bool {
        match self.reads {
            Reads::Always => true,
            Reads::WhenRebound => relation == Relation::Rebound,
            Reads::Never => false,
        }
    }
}
