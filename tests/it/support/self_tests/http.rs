//! Which responses the HTTP client accepts as responses of codexd, and which it rejects.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use hyper::Method;

use crate::support::http::{get, post, raw, request};

const GOOD: &str = "{\n  \"ok\": true,\n  \"data\": {\n    \"sessions\": []\n  }\n}\n";

/// Starts a server that answers every request with `answer`; returns its base URL.
async fn server(answer: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    base_url
}

fn answer(status: u16, content_type: &str, cache_control: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Status\r\ncontent-type: {content_type}\r\ncache-control: {cache_control}\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

fn json_answer(status: u16, body: &str) -> String {
    answer(status, "application/json; charset=utf-8", "no-store", body)
}

#[tokio::test]
async fn http_client_accepts_conforming_responses() {
    let base = server(json_answer(200, GOOD)).await;
    let answer = get(base.as_str(), "/v1/codexd/sessions").await;
    assert_eq!(*answer.data(200), json!({ "sessions": [] }));
    assert_eq!(answer.headers["connection"], "close");
    assert_eq!(post(base.as_str(), "/v1/codexd/sessions", &json!({})).await.status, 200);
    let headers = [("host", "elsewhere.example"), ("origin", "null")];
    assert_eq!(request(base.as_str(), Method::DELETE, "/", &headers, "").await.text, GOOD);

    let refused = "{\n  \"ok\": false,\n  \"error\": \"not_found\",\n  \"message\": \"No.\"\n}\n";
    let base = server(json_answer(404, refused)).await;
    assert_eq!(get(base.as_str(), "/").await.error(404, "not_found"), "No.");
}

#[tokio::test]
async fn http_client_rejects_nonconforming_responses() {
    let nonconforming = [
        answer(200, "application/json", "no-store", GOOD),
        answer(200, "application/json; charset=utf-8", "no-cache", GOOD),
        json_answer(200, GOOD.trim_end()),
        json_answer(200, "{\"ok\":true}\n"),
        json_answer(200, "{\n  \"data\": 1\n}\n"),
        json_answer(200, "{\n  \"ok\": false\n}\n"),
        json_answer(500, GOOD),
        json_answer(500, "{\n  \"ok\": false,\n  \"error\": \"x\"\n}\n"),
        json_answer(200, "not JSON\n"),
    ];
    for answer in nonconforming {
        let base = server(answer.clone()).await;
        let accepted = tokio::spawn(async move { get(base.as_str(), "/").await.status });
        assert!(accepted.await.is_err(), "the client accepted {answer}");
    }
}

#[tokio::test]
async fn raw_request_returns_response_bytes_unchanged() {
    let answer = json_answer(200, GOOD);
    let base = server(answer.clone()).await;
    assert_eq!(raw(base.as_str(), b"nonsense\r\n\r\n").await, answer);
}
