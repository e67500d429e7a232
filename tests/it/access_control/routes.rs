//! The list of all routes, from `/openapi.json` and `/describe`.

use serde_json::Value;

use super::raw_http::{first_response, request};
use crate::support::daemon::Daemon;
use crate::support::http::Target;

/// A method and a path template with its parameters in braces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Route {
    pub(super) method: String,
    pub(super) path: String,
}

/// The values for the parameters of a path.
pub(super) struct PathParameters {
    pub(super) session: String,
    pub(super) turn: String,
    pub(super) request: String,
    pub(super) queue: String,
}

impl PathParameters {
    /// Replaces the parameters of the path; an unknown parameter fails the test.
    pub(super) fn fill(&self, path: &str) -> String {
        let filled = path
            .replace("{session_id}", &self.session)
            .replace("{turn_id}", &self.turn)
            .replace("{queue_id}", &self.queue)
            .replace("{request_id}", &self.request)
            .replace("{hook_id}", "no-such-hook");
        assert!(!filled.contains('{'), "{path} has a parameter that these tests do not know");
        filled
    }
}

/// The routes of the OpenAPI document, which must equal those of `/describe`; both requests send these header lines.
pub(super) async fn routes(daemon: &Daemon, lines: &[&str]) -> Vec<Route> {
    let host = format!("Host: {}", daemon.authority());
    let lines = [&[host.as_str()], lines].concat();
    let read = async |path: &str| {
        let response =
            first_response(daemon.authority(), &request(&format!("GET {path}"), &lines, "")).await.unwrap();
        response.check(200, None).unwrap();
        serde_json::from_str::<Value>(&response.body).unwrap()
    };
    let document = read("/openapi.json").await;
    let mut routes = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            routes.push(Route { method: method.to_uppercase(), path: path.clone() });
        }
    }
    routes.sort();
    let description = read("/describe").await;
    let lists = [&description["routes"], &description["extensions"]];
    let mut described: Vec<Route> =
        lists.iter().flat_map(|list| list.as_array().unwrap()).map(parse_described_route).collect();
    described.sort();
    described.dedup();
    assert_eq!(routes, described);
    routes
}

/// A route of `/describe`, which has `:name` parameters and the method `WS`.
fn parse_described_route(route: &Value) -> Route {
    let text = |name: &str| route[name].as_str().unwrap().to_owned();
    let part = |part: &str| match part.strip_prefix(':') {
        Some(name) => format!("{{{name}}}"),
        None => part.to_owned(),
    };
    let path = text("path").split('/').map(part).collect::<Vec<_>>().join("/");
    Route { method: text("method").replace("WS", "GET"), path }
}
