//! What leaves the server holds no secret.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::secrets;

/// Largest answer; none of ours comes near.
const MOST_BYTES: usize = 256 << 20;

/// Masks secrets in an answer. Streams of events are masked by whoever makes the events: they have no end to wait for.
pub async fn mask(request: Request, next: Next) -> Response {
    let is_metrics = request.uri().path() == "/metrics";
    let response = next.run(request).await;
    let content = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let is = |kind: &[u8]| content.starts_with(kind);
    if is(b"text/event-stream") || !(is(b"text/") || is(b"application/json")) {
        return response;
    }
    let quoted = is_metrics || is(b"application/json");
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, MOST_BYTES).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(masked(bytes, quoted)))
}

fn masked(bytes: Bytes, quoted: bool) -> Bytes {
    match std::str::from_utf8(&bytes) {
        Ok(text) => match if quoted { secrets::mask_quoted(text) } else { secrets::mask(text) } {
            std::borrow::Cow::Borrowed(_) => bytes.clone(),
            std::borrow::Cow::Owned(text) => text.into(),
        },
        Err(_) => bytes,
    }
}
