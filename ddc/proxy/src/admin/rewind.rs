//! `/v1/rewind`: asks an ingress to go back to where it was some time ago. Guarded as `/maintenance` is.
//!
//! ```text
//!  POST /v1/rewind      {"id": "case-17", "since": "20s", "topics": [], "partitions": [], "dry_run": false}
//!  GET  /v1/rewind      the last rewinds, without their partitions
//!  GET  /v1/rewind/ID   one, partition by partition
//! ```
//!
//! The id makes it idempotent: the same request again is answered with how far it is (200), not done again (202).

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::{Extension, Path, Request as AskedFor, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::maintenance::{Peer, guard, panicked, refused};
use super::{Shared, typed};
use crate::rewind::{BeginError, Report, Request};

/// Bytes of a request: the most topics and partitions that it may name.
const MAX_BODY_BYTES: usize = 512 * 1024;
/// How long a request may take to come.
const BODY_TIME: Duration = Duration::from_secs(5);

pub(super) async fn list(State(state): Shared) -> Response {
    let Some(rewinds) = state.rewinds() else { return no_ingress() };
    typed("application/json", serde_json::json!({ "rewinds": rewinds.summaries() }).to_string() + "\n")
}

pub(super) async fn get(State(state): Shared, Path(id): Path<String>) -> Response {
    let Some(rewinds) = state.rewinds() else { return no_ingress() };
    rewinds.get(&id).map_or_else(unknown, |report| shown(&report))
}

pub(super) async fn post(
    State(state): Shared,
    Extension(peer): Extension<Peer>,
    asked: AskedFor,
) -> Response {
    if let Err(why) = guard(asked.headers()) {
        return refused(StatusCode::FORBIDDEN, why);
    }
    if state.rewinds().is_none() {
        return no_ingress();
    }
    let body = match body_of(asked, MAX_BODY_BYTES).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    let request: Request = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => {
            let why = format!("no request for a rewind: {error}; for example: {{\"since\": \"20s\"}}");
            return refused(StatusCode::BAD_REQUEST, &why);
        }
    };
    // Patterns are compiled for it: not on the thread that answers everybody.
    let begun = tokio::task::spawn_blocking(move || {
        let Some(rewinds) = state.rewinds() else { return no_ingress() };
        match rewinds.begin(request, &peer.0, Instant::now(), wall()) {
            Ok((report, true)) => (StatusCode::ACCEPTED, shown(&report)).into_response(),
            Ok((report, false)) => shown(&report),
            Err(error) => {
                let code = match &error {
                    BeginError::Request(_) => StatusCode::BAD_REQUEST,
                    BeginError::Busy(_) => StatusCode::CONFLICT,
                    BeginError::Other(_) => StatusCode::UNPROCESSABLE_ENTITY,
                    BeginError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
                };
                refused(code, &error.to_string())
            }
        }
    });
    begun.await.unwrap_or_else(|_| panicked())
}

/// Reads a body that is short.
pub(super) async fn body_of(asked: AskedFor, longest: usize) -> Result<Bytes, Response> {
    let body = axum::body::to_bytes(asked.into_body(), longest);
    match tokio::time::timeout(BODY_TIME, body).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            &format!("the request was cut off or has more than {} KiB", longest / 1024),
        )),
        Err(_) => Err(refused(StatusCode::REQUEST_TIMEOUT, "the request took too long to come")),
    }
}

/// Since 1970; a clock before that is told as 1970.
pub(super) fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn shown(report: &Report) -> Response {
    // A report has names and numbers only, which always can be written.
    let text = serde_json::to_string(report).unwrap_or_default();
    typed("application/json", text + "\n")
}

fn unknown() -> Response {
    refused(
        StatusCode::NOT_FOUND,
        "no rewind of this id is known; the last ones are remembered until the process ends: GET /v1/rewind",
    )
}

fn no_ingress() -> Response {
    refused(StatusCode::NOT_FOUND, "an egress cannot go back; ask the ingress of this link")
}
