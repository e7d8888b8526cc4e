//! The HTTP server: `/metrics`, `/healthz`, `/readyz`, and the API below `/api/v1`.
//!
//! `/healthz` says that the process lives. `/readyz` says 200 only while every pipeline is ready, and otherwise 503 with a line
//! for each pipeline: its name, its state and why. Who may ask what is in [`guard`].

mod api;
mod guard;
mod mask;
pub mod model;
pub mod savepoints;

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::Metrics;
use crate::pipeline::{PipelineStatus, host_name};
use crate::settings::Http;
use crate::supervisor::Supervisor;
use guard::Guard;

/// What answers are made from.
#[derive(Clone)]
pub struct App {
    /// The pipelines.
    pub supervisor: Supervisor,
    /// Figures of the process and of its pipelines.
    pub metrics: Metrics,
}

/// A server that listens and does not answer yet.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    guard: Guard,
}

impl HttpServer {
    /// Starts listening.
    ///
    /// # Errors
    ///
    /// If the address is taken, or not one of this machine's.
    pub async fn bind(settings: &Http) -> std::io::Result<HttpServer> {
        let listener = TcpListener::bind(settings.listen).await?;
        Ok(HttpServer { listener, guard: Guard::new(settings, &host_name()) })
    }

    /// The address that it listens at, with the port that was taken for port 0.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers requests until `stop` ends, and then those that are under way.
    pub async fn serve(
        self,
        app: App,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let routes = Router::new()
            .route("/metrics", get(async |State(app): State<App>| scrape(&app.metrics)))
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(async |State(app): State<App>| readiness(&app.supervisor.list())))
            .nest("/api/v1", savepoints::routes().merge(api::routes()))
            .layer(axum::middleware::from_fn(mask::mask))
            .layer(axum::middleware::from_fn_with_state(Arc::new(self.guard), guard::guard))
            .with_state(app);
        axum::serve(self.listener, routes).with_graceful_shutdown(stop).await
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
    use crate::inputs::Inputs;
    use crate::supervisor::Mode;

    fn ask(address: SocketAddr, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A server of a daemon whose one pipeline waits for its broker.
    fn app(dir: &std::path::Path) -> App {
        let pipeline = "pipeline: orders\nkafka: { bootstrap_servers: \"127.0.0.1:9\" }\n\
            sources: { in: { topics: [a], format: json, schema: { x: bigint } } }\nsinks: { out: { from: in, topic: b, format: json } }\n";
        std::fs::write(dir.join("orders.yaml"), pipeline).unwrap();
        std::fs::write(dir.join("settings"), "").unwrap();
        let inputs = Inputs { named: vec![dir.join("orders.yaml")], config: Some(dir.join("settings")) };
        let loaded = inputs.load().unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let metrics = Metrics::new().unwrap();
        let supervisor = Supervisor::start(inputs, loaded, Mode::default(), metrics.clone()).unwrap();
        App { supervisor, metrics }
    }

    #[test]
    fn answers_for_the_process_and_for_its_pipelines() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let settings = Http { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..Http::default() };
        let server = runtime.block_on(HttpServer::bind(&settings)).unwrap();
        let address = server.address().unwrap();
        let taken = Http { listen: address, ..Http::default() };
        assert!(runtime.block_on(HttpServer::bind(&taken)).is_err());
        let dir = tempfile::tempdir().unwrap();
        let app = app(dir.path());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = runtime.spawn(server.serve(app.clone(), async {
            let _ = stopped.await;
        }));

        assert!(ask(address, "GET", "/healthz").starts_with("HTTP/1.1 200 "));
        let metrics = ask(address, "GET", "/metrics");
        assert!(metrics.contains("onceflow_bytes_in_total{pipeline=\"orders\"} 0\n"), "{metrics}");
        let answer = ask(address, "GET", "/readyz");
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("orders starting\n"), "{answer}");
        assert!(ask(address, "GET", "/nowhere").starts_with("HTTP/1.1 404 "));
        assert!(ask(address, "GET", "/api/v1/nowhere").starts_with("HTTP/1.1 404 "));
        assert!(ask(address, "GET", "/api/v1/reload").starts_with("HTTP/1.1 405 "));

        let answer = ask(address, "POST", "/api/v1/reload");
        assert!(answer.ends_with(r#""removed":[],"unchanged":["orders"]}"#), "{answer}");
        std::fs::write(dir.path().join("orders.yaml"), "pipelin: orders").unwrap();
        let answer = ask(address, "POST", "/api/v1/reload");
        assert!(answer.starts_with("HTTP/1.1 422 ") && answer.contains("orders.yaml:1:1:"), "{answer}");

        app.supervisor.close();
        runtime.block_on(app.supervisor.over());
        assert!(ask(address, "POST", "/api/v1/reload").starts_with("HTTP/1.1 422 "));
        stop.send(()).unwrap();
        runtime.block_on(serving).unwrap().unwrap();
    }

    #[test]
    fn readiness_names_every_pipeline_and_why_it_is_not() {
        let status = |name: &str, state, ready, detail: &str| PipelineStatus {
            name: name.to_owned(),
            state,
            ready,
            detail: detail.to_owned(),
        };
        let running = status("a", "running", true, "");
        let fenced = status("b", "fenced", false, "by host-b since 12:00");
        assert_eq!(readiness(std::slice::from_ref(&running)), (StatusCode::OK, "a running\n".to_owned()));
        let told = "a running\nb fenced: by host-b since 12:00\n";
        assert_eq!(readiness(&[running, fenced]), (StatusCode::SERVICE_UNAVAILABLE, told.to_owned()));
    }
}
