//! The HTTP server: `/metrics`, `/healthz`, `/readyz`.
//!
//! `/healthz` says that the process lives. `/readyz` says 200 only while every pipeline is ready, and otherwise 503 with a line
//! for each pipeline: its name, its state and why.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// How one pipeline is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineStatus {
    /// Its name.
    pub name: String,
    /// One of [`PIPELINE_STATES`](crate::metrics::PIPELINE_STATES).
    pub state: &'static str,
    /// Whether it does its work.
    pub ready: bool,
    /// What an operator should know: whom it was fenced by, why it failed. May be empty.
    pub detail: String,
}

/// The pipelines of this process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Statuses {
    shared: Arc<Mutex<Vec<PipelineStatus>>>,
}

impl Statuses {
    /// Sets what is known of a pipeline; it is found by its name.
    pub fn set(&self, status: PipelineStatus) {
        let mut all = self.lock();
        match all.iter_mut().find(|known| known.name == status.name) {
            Some(known) => *known = status,
            None => all.push(status),
        }
    }

    /// All of them, in the order in which they came.
    pub fn all(&self) -> Vec<PipelineStatus> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<PipelineStatus>> {
        self.shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A server that listens and does not answer yet.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    routes: Router,
}

impl HttpServer {
    /// Starts listening.
    ///
    /// # Errors
    ///
    /// If the address is taken, or not one of this machine's.
    pub async fn bind(
        listen: SocketAddr,
        metrics: Metrics,
        statuses: Statuses,
    ) -> std::io::Result<HttpServer> {
        let listener = TcpListener::bind(listen).await?;
        let routes = Router::new()
            .route("/metrics", get(async |State((metrics, _)): State<(Metrics, Statuses)>| scrape(&metrics)))
            .route("/healthz", get(async || "ok\n"))
            .route(
                "/readyz",
                get(async |State((_, statuses)): State<(Metrics, Statuses)>| readiness(&statuses.all())),
            )
            .with_state((metrics, statuses));
        Ok(HttpServer { listener, routes })
    }

    /// The address that it listens at, with the port that was taken for port 0.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers requests until `stop` ends, and then those that are under way.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
        axum::serve(self.listener, self.routes).with_graceful_shutdown(stop).await
    }
}

fn scrape(metrics: &Metrics) -> Response {
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn readiness(pipelines: &[PipelineStatus]) -> (StatusCode, String) {
    let mut text = String::new();
    for PipelineStatus { name, state, detail, .. } in pipelines {
        let separator = if detail.is_empty() { "" } else { ": " };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name} {state}{separator}{detail}");
    }
    let ready = pipelines.iter().all(|pipeline| pipeline.ready);
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write as _};
    use std::net::TcpStream;

    use super::*;

    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn answers_for_the_process_and_for_its_pipelines() {
        let metrics = Metrics::new().unwrap();
        let statuses = Statuses::default();
        let pipeline = metrics.pipeline("orders").unwrap();
        pipeline.bytes_in.inc_by(5);
        let status = |state, ready, detail: &str| PipelineStatus {
            name: "orders".to_owned(),
            state,
            ready,
            detail: detail.to_owned(),
        };
        statuses.set(status("starting", false, ""));

        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = runtime.block_on(HttpServer::bind(listen, metrics, statuses.clone())).unwrap();
        let address = server.address().unwrap();
        assert!(
            runtime
                .block_on(HttpServer::bind(address, Metrics::new().unwrap(), Statuses::default()))
                .is_err()
        );
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = runtime.spawn(server.serve(async {
            let _ = stopped.await;
        }));

        assert!(get(address, "/healthz").starts_with("HTTP/1.1 200 "));
        assert!(get(address, "/metrics").contains("onceflow_bytes_in_total{pipeline=\"orders\"} 5\n"));
        let answer = get(address, "/readyz");
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("orders starting\n"), "{answer}");
        statuses.set(status("running", true, ""));
        assert!(get(address, "/readyz").starts_with("HTTP/1.1 200 "));
        statuses.set(status("fenced", false, "by host-b since 12:00"));
        let answer = get(address, "/readyz");
        assert!(answer.ends_with("\r\n\r\norders fenced: by host-b since 12:00\n"), "{answer}");
        assert!(get(address, "/nowhere").starts_with("HTTP/1.1 404 "));

        stop.send(()).unwrap();
        runtime.block_on(serving).unwrap().unwrap();
    }
}
