//! The servers of the pages: one for all names, and one whose name comes to mean another server.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::support::wait::wait_until;

/// What every page begins with.
const SCRIPT: &str = include_str!("report.js");

/// A name that leads to the server of the pages, and to nothing else.
pub(super) const ELSEWHERE: &str = "evil.test";

/// What the browser takes the attacked server for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Seen {
    /// Another origin than the page's.
    Foreign,
    /// The page's own server, because its name was bound again.
    Rebound,
}

/// A page, as the browser gets it.
pub(super) struct Page {
    pub(super) script: &'static str,
    /// What the script finds as `config`, except for what is the same for all pages.
    pub(super) config: Value,
    /// Whether the page has an origin that nothing else has, which is called `null`.
    pub(super) is_sandboxed: bool,
}

/// What serves the pages and hears their reports; it ends with the runtime of its test.
pub(super) struct Pages {
    port: u16,
    site: Arc<Site>,
}

#[derive(Default)]
struct Site {
    pages: Mutex<HashMap<String, Page>>,
    reports: Mutex<Vec<Value>>,
}

impl Pages {
    pub(super) async fn start() -> Self {
        let (listener, port) = listen().await;
        let site = Arc::new(Site::default());
        let served = Arc::clone(&site);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&served), Arc::default()));
            }
        });
        Self { port, site }
    }

    /// The origin of the pages when they are asked for under this name.
    pub(super) fn origin(&self, host: &str) -> String {
        format!("http://{host}:{}", self.port)
    }

    /// Serves this page at the path `/NAME`; the browser goes on to the page `next` afterwards.
    pub(super) fn add(&self, name: &str, mut page: Page, next: Option<&str>) {
        let elsewhere = self.origin(ELSEWHERE);
        let common = json!({
            "page": name,
            "reports": format!("{elsewhere}/reports"),
            "redirect": format!("{elsewhere}/redirect?to="),
            "next": next,
        });
        page.config.as_object_mut().unwrap().extend(common.as_object().unwrap().clone());
        self.site.pages.lock().unwrap().insert(name.to_owned(), page);
    }

    /// Serves the same pages on another port until one of them posts to `/flip`; then every connection leads to `server`.
    ///
    /// To a browser that knows the port under a name, this is what it is when the name gets another address.
    pub(super) async fn rebind(&self, server: SocketAddr) -> u16 {
        let (listener, port) = listen().await;
        let site = Arc::clone(&self.site);
        let flipped = Arc::new(AtomicBool::new(false));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (site, flipped) = (Arc::clone(&site), Arc::clone(&flipped));
                tokio::spawn(async move {
                    // A browser may connect long before it has something to say.
                    if stream.readable().await.is_err() {
                        return;
                    }
                    if flipped.load(Ordering::SeqCst) {
                        forward(stream, server).await;
                    } else {
                        serve(stream, site, flipped).await;
                    }
                });
            }
        });
        port
    }

    /// What a page reported of one of the things that it did, once it has.
    pub(super) async fn report(&self, page: &str, of: &str) -> Value {
        wait_until(&format!("the report of {of} by the page {page}"), || {
            let reports = self.site.reports.lock().unwrap();
            reports.iter().find(|report| report["page"] == page && report["of"] == of).cloned()
        })
        .await
    }
}

/// A listener on a free port.
pub(super) async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn forward(mut stream: TcpStream, server: SocketAddr) {
    if let Ok(mut server) = TcpStream::connect(server).await {
        // Either side may hang up at any time.
        let _ = copy_bidirectional(&mut stream, &mut server).await;
    }
}

async fn serve(stream: TcpStream, site: Arc<Site>, flipped: Arc<AtomicBool>) {
    let service = service_fn(move |request| {
        let (site, flipped) = (Arc::clone(&site), Arc::clone(&flipped));
        async move { Ok::<_, Infallible>(answer(&site, &flipped, request).await) }
    });
    // Each connection has one request, so that none is left from before the flip; a browser may hang up at any time.
    let _ = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(site: &Site, flipped: &AtomicBool, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().trim_start_matches('/');
    let response = Response::builder();
    let response = match (head.method, path) {
        (Method::POST, "reports") => {
            let body = body.collect().await.unwrap().to_bytes();
            site.reports.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
            response.status(204).body(Full::default())
        }
        (Method::POST, "flip") => {
            flipped.store(true, Ordering::SeqCst);
            response.status(204).body(Full::default())
        }
        (_, "redirect") => {
            let query = form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
            let to = query.into_owned().find_map(|(name, value)| (name == "to").then_some(value)).unwrap();
            // This one keeps the method and the body.
            response.status(307).header("location", to).body(Full::default())
        }
        _ => match site.pages.lock().unwrap().get(path) {
            Some(page) => {
                let response = response.header("content-type", "text/html; charset=utf-8");
                let response = if page.is_sandboxed {
                    let policy = "sandbox allow-scripts allow-forms allow-popups";
                    response.header("content-security-policy", policy)
                } else {
                    response
                };
                response.body(Full::from(page.html()))
            }
            None => response.status(404).body(Full::default()),
        },
    };
    response.unwrap()
}

impl Page {
    fn html(&self) -> String {
        let (config, script) = (&self.config, self.script);
        format!(
            "<!doctype html><meta name=\"referrer\" content=\"strict-origin-when-cross-origin\"><title>Hello</title>\
             <body><script>const config = {config};\n{SCRIPT}{script}</script>"
        )
    }
}
