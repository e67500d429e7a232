//! Tests of a panicking handler, and of untrusted peers.

use axum::body::Body;
use axum::http::Request;
use axum::routing::get;

use super::{HOST, TestApp};
use crate::http::Peer;

#[tokio::test]
async fn panicking_handler_fails_only_its_own_request() {
    let mut app = TestApp::new().await;
    let panics = || async {
        let nothing: [u8; 0] = [];
        nothing[std::hint::black_box(0)].to_string()
    };
    app.app.router = app.app.router.clone().route("/panic", get(panics));
    let response = app.get("/panic").await;
    let message = response.error(500, "internal_error");
    assert_eq!(message, "Internal error; see the daemon log.");
    assert_eq!(response.headers["connection"], "close");
    assert_eq!(app.get("/healthz").await.status, 200);
    app.stop().await;
}

#[tokio::test]
async fn foreign_peer_is_rejected_before_routing() {
    let app = TestApp::new().await;
    for path in ["/healthz", "/describe", "/no-such-route"] {
        let request = Request::get(path).header("host", HOST).body(Body::empty()).unwrap();
        let response =
            app.app.respond(&Peer::Foreign("it belongs to another user".to_owned()), request).await;
        assert_eq!(response.status(), 403, "{path}");
    }
    app.stop().await;
}
