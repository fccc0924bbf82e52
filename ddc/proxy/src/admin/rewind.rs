//! `/v1/rewind`: asks an ingress to go back to where it was some time ago. Guarded as `/maintenance` is.
//!
//! ```text
//!  POST /v1/rewind      {"id": "case-17", "since": "20s", "topics": [], "partitions": [], "dry_run": false}
//!  GET  /v1/rewind      the last rewinds, without their partitions
//!  GET  /v1/rewind/ID   one, partition by partition
//! ```
//!
//! The id makes it idempotent: the same request again is answered with how far it is (200), not done again (202).

use std::time::{Duration, Instant};

use axum::extract::{Extension, Path, Request as AskedFor, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::maintenance::{Peer, refused};
use super::order::{Order, wall};
use super::{Shared, typed};
use crate::rewind::{BeginError, Report, Request};

static ORDER: Order = Order {
    wrong: "no request for a rewind",
    example: "{\"since\": \"20s\"}",
    // The most topics and partitions that it may name.
    longest: 512 * 1024,
    within: Duration::from_secs(5),
    one_by_one: None,
};

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
    let cannot = state.rewinds().is_none().then(no_ingress);
    ORDER
        .take(asked, cannot, move |request: Request| {
            let Some(rewinds) = state.rewinds() else { return no_ingress() };
            match rewinds.begin(request, &peer.0, Instant::now(), wall()) {
                Ok((report, true)) => (StatusCode::ACCEPTED, shown(&report)).into_response(),
                Ok((report, false)) => shown(&report),
                Err(error) => refused(code_of(&error), &error.to_string()),
            }
        })
        .await
}

fn code_of(error: &BeginError) -> StatusCode {
    match error {
        BeginError::Request(_) => StatusCode::BAD_REQUEST,
        BeginError::Busy(_) => StatusCode::CONFLICT,
        BeginError::Other(_) => StatusCode::UNPROCESSABLE_ENTITY,
        BeginError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    }
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
