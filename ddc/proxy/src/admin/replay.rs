//! `/v1/replay`: asks an ingress to send offsets again, exactly those. Guarded as `/maintenance` is.
//!
//! ```text
//!  POST   /v1/replay        begins: {"id": "…", "ranges": [{"topic": "…", "partition": 3, "from": 100, "to": 199}]}
//!  GET    /v1/replay        the last replays, without their ranges
//!  GET    /v1/replay/ID     one, range by range
//!  DELETE /v1/replay/ID     ends it
//! ```
//!
//! The id makes it idempotent: the same request again is answered with how far it is (200), not begun anew (202). It is on disk
//! when it is answered, and goes on after a restart.

use std::time::Duration;

use axum::extract::{Extension, Path, Request as AskedFor, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

use super::maintenance::{Peer, guard, panicked, refused};
use super::order::{Order, wall};
use super::{Shared, typed};
use crate::replay::{BeginError, Job, Request};

static ORDER: Order = Order {
    wrong: "no request for a replay",
    example: "{\"id\": \"case-17\", \"ranges\": [{\"topic\": \"orders\", \"partition\": 3, \"from\": 100, \"to\": 199}]}",
    // The most ranges that a replay may have, and more.
    longest: 4 * 1024 * 1024,
    within: Duration::from_secs(10),
    one_by_one: Some(&READING),
};
static READING: Semaphore = Semaphore::const_new(1);

pub(super) async fn list(State(state): Shared) -> Response {
    let Some(replays) = state.replays() else { return no_ingress() };
    let all: Vec<_> = replays.all().iter().map(|job| job.summary()).collect();
    typed("application/json", serde_json::json!({ "replays": all }).to_string() + "\n")
}

pub(super) async fn get(State(state): Shared, Path(id): Path<String>) -> Response {
    let Some(replays) = state.replays() else { return no_ingress() };
    replays.get(&id).map_or_else(unknown, |job| shown(&job))
}

pub(super) async fn post(
    State(state): Shared,
    Extension(peer): Extension<Peer>,
    asked: AskedFor,
) -> Response {
    let cannot = state.replays().is_none().then(no_ingress);
    ORDER
        .take(asked, cannot, move |request: Request| {
            let Some(replays) = state.replays() else { return no_ingress() };
            match replays.begin(request, &peer.0, wall().as_secs()) {
                Ok((job, true)) => (StatusCode::ACCEPTED, shown(&job)).into_response(),
                Ok((job, false)) => shown(&job),
                Err(error) => refused(code_of(&error), &error.to_string()),
            }
        })
        .await
}

pub(super) async fn delete(
    State(state): Shared,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    if let Err(why) = guard(&headers) {
        return refused(StatusCode::FORBIDDEN, why);
    }
    // Writes to disk: not on the thread that answers everybody.
    let ended = tokio::task::spawn_blocking(move || {
        let Some(replays) = state.replays() else { return no_ingress() };
        match replays.cancel(&id, &peer.0) {
            Ok(job) => job.map_or_else(unknown, |job| shown(&job)),
            Err(error) => {
                let why = format!("it ends now, but would go on after a restart: {error}");
                refused(StatusCode::INTERNAL_SERVER_ERROR, &why)
            }
        }
    });
    ended.await.unwrap_or_else(|_| panicked())
}

fn code_of(error: &BeginError) -> StatusCode {
    match error {
        BeginError::Request(_) => StatusCode::BAD_REQUEST,
        BeginError::Busy(_) => StatusCode::CONFLICT,
        BeginError::OtherRanges(_) => StatusCode::UNPROCESSABLE_ENTITY,
        BeginError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        BeginError::State(_) | BeginError::Thread(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn shown(job: &Job) -> Response {
    // A report has names and numbers only, which always can be written.
    let text = serde_json::to_string(&job.report()).unwrap_or_default();
    typed("application/json", text + "\n")
}

fn unknown() -> Response {
    refused(
        StatusCode::NOT_FOUND,
        "no replay of this id is known; the last ones are remembered until the process ends, the very last one longer: GET /v1/replay",
    )
}

fn no_ingress() -> Response {
    refused(StatusCode::NOT_FOUND, "an egress replays nothing; ask the ingress of this link")
}
