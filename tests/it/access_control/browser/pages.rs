//! The servers of the pages: one for all host names, and one for DNS rebinding, whose name later resolves to another
//! server.

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

/// The script at the start of every page.
const SCRIPT: &str = include_str!("report.js");

/// A host name that resolves to the server of the pages only.
pub(super) const FOREIGN_HOST: &str = "evil.test";

/// How the browser relates the attacked server to the page.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Relation {
    /// The server has another origin.
    Foreign,
    /// The server has the origin of the page, because of DNS rebinding.
    Rebound,
}

/// A page that the browser loads.
pub(super) struct Page {
    pub(super) script: &'static str,
    /// The fields of `config` in the script that are not common to all pages.
    pub(super) config: Value,
    /// Whether the page is sandboxed and has the opaque origin `null`.
    pub(super) is_sandboxed: bool,
}

/// A server that serves the pages and receives their reports; it ends with the runtime of its test.
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

    /// The origin of the pages under this host name.
    pub(super) fn origin(&self, host: &str) -> String {
        format!("http://{host}:{}", self.port)
    }

    /// Serves this page at the path `/NAME`; afterwards the browser opens the page `next`.
    pub(super) fn add(&self, name: &str, mut page: Page, next: Option<&str>) {
        let foreign = self.origin(FOREIGN_HOST);
        let common = json!({
            "page": name,
            "reports": format!("{foreign}/reports"),
            "redirect": format!("{foreign}/redirect?to="),
            "next": next,
        });
        page.config.as_object_mut().unwrap().extend(common.as_object().unwrap().clone());
        self.site.pages.lock().unwrap().insert(name.to_owned(), page);
    }

    /// Serves the same pages on another port until one of them posts to `/flip`; afterwards it forwards every
    /// connection to `server`.
    ///
    /// To a browser that maps a host name to this port, this looks as if DNS rebinding changed the address of the name.
    pub(super) async fn rebind(&self, server: SocketAddr) -> u16 {
        let (listener, port) = listen().await;
        let site = Arc::clone(&self.site);
        let flipped = Arc::new(AtomicBool::new(false));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (site, flipped) = (Arc::clone(&site), Arc::clone(&flipped));
                tokio::spawn(async move {
                    // A browser may connect long before it sends a request.
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

    /// Waits for the report of a page about one of its requests.
    pub(super) async fn report(&self, page: &str, of: &str) -> Value {
        wait_until(&format!("the report of the page {page} about {of}"), || {
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
        // Either side may close the connection at any time.
        let _ = copy_bidirectional(&mut stream, &mut server).await;
    }
}

async fn serve(stream: TcpStream, site: Arc<Site>, flipped: Arc<AtomicBool>) {
    let service = service_fn(move |request| {
        let (site, flipped) = (Arc::clone(&site), Arc::clone(&flipped));
        async move { Ok::<_, Infallible>(respond(&site, &flipped, request).await) }
    });
    // Each connection has one request, so that none from before the flip stays open.
    // A browser may close a connection at any time.
    let _ = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service).await;
}

async fn respond(site: &Site, flipped: &AtomicBool, request: Request<Incoming>) -> Response<Full<Bytes>> {
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
            // Status 307 keeps the method and the body.
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
