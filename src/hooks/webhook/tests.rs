//! Deliveries to servers on this machine.

use std::net::SocketAddr;

use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

/// Answers one request of each connection with this text.
async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), text: &str) {
    let mut request = Vec::new();
    while !request.ends_with(b"{}") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn serve(text: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            answer(&mut stream, text).await;
        }
    });
    address
}

async fn post(url: &str) -> Result<(), String> {
    let url = HookUrl::parse(url).unwrap();
    Post { url: &url, secret: None, id: "e-1", payload: "{}".into() }.send().await
}

#[tokio::test]
async fn only_2xx_counts_and_redirects_are_not_followed() {
    for (text, expected) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Ok(())),
        ("HTTP/1.1 204 No Content\r\n\r\n", Ok(())),
        (
            "HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
            Err("it answered with status 307; redirects are not followed"),
        ),
        ("HTTP/1.1 500 Error\r\n\r\nout of\n paper", Err("it answered with status 500: out of paper")),
        ("HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n", Err("it answered with status 410")),
    ] {
        let address = serve(text).await;
        assert_eq!(post(&format!("http://{address}/")).await, expected.map_err(str::to_owned));
    }
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = post(&format!("http://{unused}/")).await.unwrap_err();
    assert!(error.starts_with(&format!("127.0.0.1 port {} cannot be reached", unused.port())), "{error}");
}

#[tokio::test]
async fn answer_is_read_to_a_limit() {
    let text = format!("HTTP/1.1 503 Busy\r\n\r\n{}", "é".repeat(1_000_000)).leak();
    let address = serve(text).await;
    let error = post(&format!("http://{address}/")).await.unwrap_err();
    assert_eq!(error.chars().count(), "it answered with status 503: ".len() + MAX_SHOWN_CHARS);
}

#[tokio::test]
async fn certificate_must_be_of_a_trusted_authority() {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                answer(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        }
    });
    let url = HookUrl::parse(&format!("https://localhost:{port}/")).unwrap();
    let post = || Post { url: &url, secret: None, id: "e-1", payload: "{}".into() };
    let error = post().send().await.unwrap_err();
    assert!(
        error.starts_with("the TLS handshake with localhost failed: invalid peer certificate"),
        "{error}"
    );
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    post().send_by(&connector(roots).unwrap()).await.unwrap();
}
