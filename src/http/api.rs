//! `/api/v1`: what an operator asks and orders. Answers are JSON; a refusal is `{"error": "…"}`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};

use super::App;
use crate::supervisor::ReloadError;

/// The routes, below `/api/v1`.
pub fn routes() -> Router<App> {
    Router::new()
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
