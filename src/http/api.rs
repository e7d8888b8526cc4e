//! `/api/v1`: what an operator asks and orders. Answers are JSON; a refusal is `{"error": "…"}`.

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};

use serde::Deserialize;

use super::App;
use super::model::{Checkpoints, Pipelines, Reasons, Stopped, Triggered};
use crate::pipeline::{Answer, NoAnswer, Why, why};
use crate::supervisor::{ReloadError, StopMode, Unknown};

/// The routes, below `/api/v1`.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/pipelines", get(pipelines))
        .route("/pipelines/{pipeline}", get(pipeline))
        .route("/pipelines/{pipeline}/checkpoints", get(checkpoints).post(checkpoint))
        .route("/pipelines/{pipeline}/stop", post(stop))
        .route("/pipelines/{pipeline}/why", get(reasons))
        .route("/reload", post(reload))
        .fallback(async || problem(StatusCode::NOT_FOUND, "there is no such path in the API".to_owned()))
}

/// An answer that says what is wrong.
pub fn problem(status: StatusCode, error: String) -> Response {
    (status, Json(serde_json::json!({ "error": error }))).into_response()
}

/// Answers once everything that had to be stopped has ended, and its successors have been started.
async fn reload(State(app): State<App>) -> Response {
    match app.supervisor.reload().await {
        Ok(done) => Json(done).into_response(),
        Err(error @ ReloadError::Mistakes(_)) => problem(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
        Err(error @ ReloadError::Stopping) => problem(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}

async fn pipelines(State(app): State<App>) -> Json<Pipelines> {
    let mut pipelines = app.supervisor.overviews();
    // Those that want to see every partition ask for one pipeline.
    for overview in &mut pipelines {
        overview.progress.partitions.clear();
        overview.progress.steps.clear();
    }
    Json(Pipelines { pipelines })
}

async fn pipeline(State(app): State<App>, Path(pipeline): Path<String>) -> Response {
    match app.supervisor.overview(&pipeline) {
        Some(overview) => Json(overview).into_response(),
        None => Unknown(pipeline).into_response(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    key: Option<String>,
}

/// With a key, once all workers have said what they have of it.
async fn reasons(
    State(app): State<App>,
    Path(pipeline): Path<String>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let Ok(Query(Asked { key })) = asked else {
        return problem(StatusCode::BAD_REQUEST, "the one parameter is `key`".to_owned());
    };
    let Some(overview) = app.supervisor.overview(&pipeline) else {
        return Unknown(pipeline).into_response();
    };
    let mut steps = why(&overview.progress);
    if let Some(key) = key {
        let found = match app.supervisor.find(&pipeline, &key).await {
            Ok(Ok(found)) => found,
            Ok(Err(NoAnswer::NoSuchKey(reason))) => return problem(StatusCode::BAD_REQUEST, reason),
            Ok(Err(NoAnswer::NotRunning)) => {
                let error = format!("pipeline `{pipeline}` does not run, or was started again meanwhile");
                return problem(StatusCode::CONFLICT, error);
            }
            Ok(Err(NoAnswer::Busy)) => {
                let error =
                    "the workers are busy with something else: they wait for a broker, or many windows fire";
                return problem(StatusCode::SERVICE_UNAVAILABLE, error.to_owned());
            }
            Ok(Err(NoAnswer::Failed(reason))) => return problem(StatusCode::INTERNAL_SERVER_ERROR, reason),
            Err(unknown) => return unknown.into_response(),
        };
        for (step, of_key) in found {
            let at = steps.iter().position(|why| why.step == step).unwrap_or_else(|| {
                steps.push(Why { step, ..Why::default() });
                steps.len() - 1
            });
            steps[at].key = Some(of_key);
        }
    }
    Json(Reasons { steps }).into_response()
}

/// Checkpoints that an answer holds if nobody says how many.
const CHECKPOINTS: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Newest {
    limit: Option<usize>,
}

async fn checkpoints(
    State(app): State<App>,
    Path(pipeline): Path<String>,
    newest: Result<Query<Newest>, QueryRejection>,
) -> Response {
    let Ok(Query(Newest { limit })) = newest else {
        return problem(StatusCode::BAD_REQUEST, "the one parameter is `limit`, a whole number".to_owned());
    };
    match app.supervisor.checkpoints(&pipeline, limit.unwrap_or(CHECKPOINTS)) {
        Ok(checkpoints) => Json(Checkpoints { checkpoints }).into_response(),
        Err(unknown) => unknown.into_response(),
    }
}

/// Answers once the checkpoint is committed, or has failed.
async fn checkpoint(State(app): State<App>, Path(pipeline): Path<String>) -> Response {
    match app.supervisor.checkpoint(&pipeline).await {
        Ok(Answer::Completed(checkpoint)) => Json(Triggered::Completed { checkpoint }).into_response(),
        Ok(Answer::Unchanged(epoch)) => Json(Triggered::Unchanged { epoch }).into_response(),
        Ok(Answer::Failed(reason)) => problem(StatusCode::INTERNAL_SERVER_ERROR, reason),
        Ok(Answer::NotRunning) => {
            let state =
                app.supervisor.overview(&pipeline).map_or("gone".to_owned(), |overview| overview.state);
            problem(StatusCode::CONFLICT, format!("pipeline `{pipeline}` does not run; it is {state}"))
        }
        Err(unknown) => unknown.into_response(),
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Stop {
    mode: StopMode,
}

/// Answers once the pipeline has ended. Without a body it stops with a checkpoint.
async fn stop(State(app): State<App>, Path(pipeline): Path<String>, body: Bytes) -> Response {
    let asked = if body.is_empty() { Ok(Stop::default()) } else { serde_json::from_slice(&body) };
    let Stop { mode } = match asked {
        Ok(asked) => asked,
        Err(error) => {
            return problem(StatusCode::BAD_REQUEST, format!("the body is not understood: {error}"));
        }
    };
    match app.supervisor.stop(&pipeline, mode).await {
        Ok(outcome) => Json(Stopped::new(&pipeline, &outcome)).into_response(),
        Err(unknown) => unknown.into_response(),
    }
}

impl IntoResponse for Unknown {
    fn into_response(self) -> Response {
        problem(StatusCode::NOT_FOUND, self.to_string())
    }
}
