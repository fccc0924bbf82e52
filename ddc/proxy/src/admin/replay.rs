//! `/v1/replay`: asks an ingress to send offsets again, exactly those. Guarded as `/maintenance` is.
//!
//! ```text
//!  POST   /v1/replay        begins: {"id": "…", "ranges": [{"topic": "…", "partition": 3, "from": 100, "to": 199}]}
//!  GET    /v1/replay        the last replays, without their ranges
//!  GET    /v1/replay/ID     one, range by range
//!  DELETE /v1/replay/ID     ends it
//! ```
//!
//! The id makes it idempotent: the same request again is answered with how far it is (200), not begun anew (202).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::{Extension, Path, Request as AskedFor, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

use super::maintenance::{Peer, guard, panicked, refused};
use super::{AdminState, Shared, typed};
use crate::replay::{BeginError, Job, Replays, Request};

/// Bytes of a request: the most ranges that a replay may have, and more.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;
/// How long a request may take to come.
const BODY_TIME: Duration = Duration::from_secs(10);

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
    if let Err(why) = guard(asked.headers()) {
        return refused(StatusCode::FORBIDDEN, why);
    }
    if state.replays().is_none() {
        return no_ingress();
    }
    let body = match body_of(asked).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    // A request of many ranges takes its time: not on the thread that answers everybody.
    let begun = tokio::task::spawn_blocking(move || begin(&state, &peer, &body));
    begun.await.unwrap_or_else(|_| panicked())
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
    let Some(replays) = state.replays() else { return no_ingress() };
    replays.cancel(&id, &peer.0).map_or_else(unknown, |job| shown(&job))
}

/// Reads a body, one at a time, so that nobody fills the memory with many.
async fn body_of(asked: AskedFor) -> Result<Bytes, Response> {
    static READING: Semaphore = Semaphore::const_new(1);
    let Ok(_reading) = READING.try_acquire() else {
        return Err(refused(StatusCode::SERVICE_UNAVAILABLE, "another request is being read; ask again"));
    };
    let body = axum::body::to_bytes(asked.into_body(), MAX_BODY_BYTES);
    match tokio::time::timeout(BODY_TIME, body).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the request was cut off or has more than 4 MiB; split it into several replays",
        )),
        Err(_) => Err(refused(StatusCode::REQUEST_TIMEOUT, "the request took too long to come")),
    }
}

fn begin(state: &Arc<dyn AdminState>, peer: &Peer, body: &[u8]) -> Response {
    let Some(replays) = state.replays() else { return no_ingress() };
    let request: Request = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => {
            let why = format!(
                "no request for a replay: {error}; for example: {{\"id\": \"case-17\", \"ranges\": [{{\"topic\": \"orders\", \"partition\": 3, \"from\": 100, \"to\": 199}}]}}"
            );
            return refused(StatusCode::BAD_REQUEST, &why);
        }
    };
    answer(replays, request, peer)
}

fn answer(replays: &Replays, request: Request, peer: &Peer) -> Response {
    // A clock before 1970 is told as 1970.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    match replays.begin(request, &peer.0, now) {
        Ok((job, true)) => (StatusCode::ACCEPTED, shown(&job)).into_response(),
        Ok((job, false)) => shown(&job),
        Err(error) => {
            let code = match &error {
                BeginError::Request(_) => StatusCode::BAD_REQUEST,
                BeginError::Busy(_) => StatusCode::CONFLICT,
                BeginError::OtherRanges(_) => StatusCode::UNPROCESSABLE_ENTITY,
                BeginError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
                BeginError::Thread(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            refused(code, &error.to_string())
        }
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
        "no replay of this id is known; the last ones are remembered until the process ends: GET /v1/replay",
    )
}

fn no_ingress() -> Response {
    refused(StatusCode::NOT_FOUND, "an egress replays nothing; ask the ingress of this link")
}
