//! `/api/v1/pipelines/{pipeline}/savepoints`: making savepoints of a running pipeline, and listing those that there are.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::App;
use super::api::problem;
use crate::pipeline::{Savepoint, savepoint_name, savepoints};

/// The route, below `/api/v1`.
pub fn routes() -> Router<App> {
    Router::new().route("/pipelines/{pipeline}/savepoints", get(list).post(make))
}

/// Which savepoint to make.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MakeSavepoint {
    /// Its name [default: the time].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Savepoints, for people and for programs that choose one.
#[derive(Debug, Serialize, Deserialize)]
pub struct Savepoints {
    /// Oldest first.
    pub savepoints: Vec<SavepointSummary>,
    /// Those that cannot be read, and why.
    pub unreadable: Vec<String>,
}

/// A savepoint.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavepointSummary {
    /// Its name.
    pub name: String,
    /// The epoch that it is a copy of.
    pub epoch: u64,
    /// When it was made, milliseconds since the epoch.
    pub created_ms: i64,
    /// Length of its files, bytes.
    pub bytes: u64,
    /// How many files it has.
    pub files: usize,
}

impl From<Savepoint> for SavepointSummary {
    fn from(savepoint: Savepoint) -> SavepointSummary {
        SavepointSummary {
            name: savepoint.name,
            epoch: savepoint.decision.epoch.0,
            created_ms: savepoint.created_ms,
            bytes: savepoint.bytes,
            files: savepoint.files.len(),
        }
    }
}

/// Answers once it is made, after the next checkpoint.
async fn make(State(app): State<App>, Path(pipeline): Path<String>, body: Bytes) -> Response {
    let asked: MakeSavepoint = match body.is_empty() {
        true => MakeSavepoint::default(),
        false => match serde_json::from_slice(&body) {
            Ok(asked) => asked,
            Err(error) => return problem(StatusCode::BAD_REQUEST, format!("the body: {error}")),
        },
    };
    let name = match savepoint_name(asked.name) {
        Ok(name) => name,
        Err(error) => return problem(StatusCode::BAD_REQUEST, error),
    };
    match app.supervisor.savepoint(&pipeline, name).await {
        Err(unknown) => problem(StatusCode::NOT_FOUND, unknown.to_string()),
        Ok(Ok(savepoint)) => (StatusCode::CREATED, Json(SavepointSummary::from(savepoint))).into_response(),
        Ok(Err(reason)) => problem(StatusCode::CONFLICT, reason),
    }
}

async fn list(State(app): State<App>, Path(pipeline): Path<String>) -> Response {
    let Some(plan) = app.supervisor.plan(&pipeline) else {
        return problem(StatusCode::NOT_FOUND, format!("there is no pipeline `{pipeline}`"));
    };
    let namespace = app.supervisor.namespace().to_owned();
    let read = tokio::task::spawn_blocking(move || savepoints(&plan, &namespace)).await;
    match read.map_err(|error| error.to_string()).and_then(|read| read.map_err(|error| error.to_string())) {
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error),
        Ok(all) => {
            let mut answer = Savepoints { savepoints: vec![], unreadable: vec![] };
            for one in all {
                match one {
                    Ok(savepoint) => answer.savepoints.push(savepoint.into()),
                    Err(error) => answer.unreadable.push(error.to_string()),
                }
            }
            Json(answer).into_response()
        }
    }
}
