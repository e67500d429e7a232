//! Hooks with a URL: what is posted, and which URLs are refused.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{HOOKS, add_hook, hooks, logged, numbers};
use crate::api::{new_session, start_daemon, start_turn, wait_until_idle};
use crate::support::http::post;
use crate::support::wait::{wait_until, wait_until_async};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A request that the server got.
#[derive(Clone)]
struct Received {
    head: String,
    body: String,
}

impl Received {
    fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut found = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.trim())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A server that answers the requests in order with these statuses, and all later ones with the last.
struct Receiver {
    address: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    async fn start(statuses: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let received = Arc::<Mutex<Vec<Received>>>::default();
        let log = Arc::clone(&received);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = Vec::new();
                let request = loop {
                    if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                        break None;
                    }
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let request = Received { head: head.to_owned(), body: body.to_owned() };
                    let length = request.header("content-length").unwrap().parse::<usize>().unwrap();
                    if body.len() == length {
                        break Some(request);
                    }
                };
                let Some(request) = request else { continue };
                let number = {
                    let mut log = log.lock().unwrap();
                    log.push(request);
                    log.len()
                };
                let status = statuses[(number - 1).min(statuses.len() - 1)];
                let _ = stream
                    .write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes())
                    .await;
            }
        });
        Self { address, received }
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    async fn wait_for(&self, count: usize) -> Vec<Received> {
        wait_until(&format!("{count} requests"), || Some(self.received()).filter(|all| all.len() >= count))
            .await
    }
}

/// HMAC-SHA256 by its definition (RFC 2104), independent of the implementation in codexd.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let padded = |pad: u8| block.map(|byte| byte ^ pad);
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().to_vec()
}

#[tokio::test]
async fn events_are_posted_with_the_headers_of_standard_webhooks() {
    let daemon = start_daemon().await;
    let receiver = Receiver::start(&["200 OK", "503 Busy", "204 No Content"]).await;
    let session_id = new_session(&daemon).await;
    let url = format!("http://{}/CANARY-PATH?token=CANARY-TOKEN", receiver.address);
    let on = ["turn.accepted", "app-server.turn.completed"];
    let hook = add_hook(&daemon, json!({ "on": on, "url": url, "secret": SECRET })).await;
    assert_eq!(
        (&hook["origin"], &hook["signed"]),
        (&json!(format!("http://{}", receiver.address)), &json!(true))
    );
    assert_eq!((&hook["program"], &hook["arguments"]), (&Value::Null, &Value::Null));
    start_turn(&daemon, &session_id, "hello").await;
    wait_until_idle(&daemon, &session_id).await;
    let received = receiver.wait_for(3).await;
    let deliveries: Vec<_> = received.iter().map(Received::json).collect();
    let log = logged(&daemon, &on, 0);
    assert_eq!(numbers(&deliveries), [log[0], log[1], log[1]], "the second one was refused once");
    let key = data_encoding::BASE64.decode(&SECRET.as_bytes()["whsec_".len()..]).unwrap();
    for (request, delivery) in received.iter().zip(&deliveries) {
        assert!(
            request.head.starts_with("POST /CANARY-PATH?token=CANARY-TOKEN HTTP/1.1\r\n"),
            "{}",
            request.head
        );
        let (id, time) =
            (request.header("webhook-id").unwrap(), request.header("webhook-timestamp").unwrap());
        assert_eq!(*id, delivery["id"]);
        let now = jiff::Timestamp::now().as_second();
        assert!((now - 60..=now).contains(&time.parse::<i64>().unwrap()), "{time}");
        let signed = format!("{id}.{time}.{}", request.body);
        let expected = format!("v1,{}", data_encoding::BASE64.encode(&hmac(&key, signed.as_bytes())));
        assert_eq!(request.header("webhook-signature"), Some(expected.as_str()));
        assert_eq!(request.header("content-type"), Some("application/json"));
    }
    wait_until_async("the delivery", async || (hooks(&daemon).await[0]["delivered"] == 2).then_some(()))
        .await;
    let shown = json!([hooks(&daemon).await, daemon.events_on_disk()]).to_string() + &daemon.stderr();
    for secret in ["CANARY", SECRET, "MfKQ9r8G"] {
        assert!(!shown.contains(secret), "{secret} is shown");
    }
}

#[tokio::test]
async fn redirect_is_a_failure_and_is_not_followed() {
    let daemon = start_daemon().await;
    let target = Receiver::start(&["200 OK"]).await;
    let status = format!("302 Found\r\nlocation: http://{}/", target.address);
    let receiver = Receiver::start(vec![&*status.leak()].leak()).await;
    let url = format!("http://{}/", receiver.address);
    let hook = add_hook(&daemon, json!({ "on": ["request"], "url": url })).await;
    let path = format!("{HOOKS}/{}/test", hook["hookId"].as_str().unwrap());
    let tested = post(&daemon, &path, &json!({})).await.data(200).clone();
    assert_eq!(tested["error"], "it answered with status 302; redirects are not followed");
    assert_eq!((receiver.received().len(), target.received().len()), (1, 0));
    assert_eq!(receiver.received()[0].header("webhook-signature"), None, "there is no secret");
}

#[tokio::test]
async fn urls_that_are_not_https_and_not_of_this_machine_are_refused() {
    let daemon = start_daemon().await;
    for (url, reason) in [
        ("http://example.org/", "must be https"),
        ("http://192.168.1.1/", "must be https"),
        ("ftp://localhost/", "must be https"),
        ("https://user:password@example.org/", "no credentials"),
        ("not a url", "is not a URL"),
    ] {
        let answer = post(&daemon, HOOKS, &json!({ "name": "a", "on": ["request"], "url": url })).await;
        assert!(answer.error(400, "bad_request").contains(reason), "{url}: {}", answer.text);
    }
    let short =
        json!({ "name": "a", "on": ["request"], "url": "https://example.org/", "secret": "whsec_c2hvcnQ=" });
    let answer = post(&daemon, HOOKS, &short).await;
    assert!(answer.error(400, "bad_request").contains("secret must be 24 to 64 bytes"), "{}", answer.text);
    assert!(!answer.text.contains("c2hvcnQ"), "{}", answer.text);
}
