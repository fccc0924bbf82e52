//! `/v1/pause`, `/v1/resume`: an ingress stops reading until every requester has withdrawn. Guarded as `/maintenance` is.
//!
//! ```text
//!  GET  /v1/pause    who has paused it, and how far it is
//!  POST /v1/pause    {"by": "checker-a", "fence": 17, "since": "20s"}    all may be left out
//!  POST /v1/resume   {"by": "checker-a", "fence": 18, "all": false}
//! ```
//!
//! An order is on disk when it is answered: 200, it is done; 202, the source is still about it, ask `GET /v1/pause`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Extension, Request as AskedFor, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::maintenance::{Peer, refused};
use super::order::{Order, wall};
use super::{AdminState, Shared, typed};
use crate::pause::{PauseError, Pauses, Request};

static ORDER: Order = Order {
    wrong: "no order",
    example: "{\"by\": \"ops\", \"since\": \"20s\"}",
    // Ours have some tens.
    longest: 4 * 1024,
    within: Duration::from_secs(5),
    one_by_one: None,
};
/// How long an answer waits for the source: shorter than a client's patience.
const WAIT: Duration = Duration::from_millis(1500);

pub(super) async fn get(State(state): Shared) -> Response {
    if state.pauses().is_some() { shown(&state) } else { no_ingress() }
}

pub(super) async fn pause(state: Shared, Extension(peer): Extension<Peer>, asked: AskedFor) -> Response {
    order(state, asked, move |pauses, request| pauses.pause(request, &peer.0, Instant::now(), wall())).await
}

pub(super) async fn resume(state: Shared, Extension(peer): Extension<Peer>, asked: AskedFor) -> Response {
    order(state, asked, move |pauses, request| pauses.resume(request, &peer.0)).await
}

async fn order(
    State(state): Shared,
    asked: AskedFor,
    act: impl FnOnce(&Pauses, &Request) -> Result<(), PauseError> + Send + 'static,
) -> Response {
    let cannot = state.pauses().is_none().then(no_ingress);
    ORDER
        .take(asked, cannot, move |request: Request| {
            let Some(pauses) = state.pauses() else { return no_ingress() };
            match act(pauses, &request) {
                Ok(()) => {
                    let code = if pauses.wait(WAIT) { StatusCode::OK } else { StatusCode::ACCEPTED };
                    (code, shown(&state)).into_response()
                }
                Err(error) => refused(code_of(&error), &error.to_string()),
            }
        })
        .await
}

fn code_of(error: &PauseError) -> StatusCode {
    match error {
        PauseError::Name(_) | PauseError::Since(_) | PauseError::Unknown(_) => StatusCode::BAD_REQUEST,
        PauseError::Stale { .. } | PauseError::NotYours { .. } | PauseError::TooMany => StatusCode::CONFLICT,
        PauseError::State(_) | PauseError::Format(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn shown(state: &Arc<dyn AdminState>) -> Response {
    let Some(status) = state.pause_status() else { return no_ingress() };
    typed("application/json", status.to_string() + "\n")
}

fn no_ingress() -> Response {
    refused(
        StatusCode::NOT_FOUND,
        "this is no ingress that reads from Kafka, and only such a one can be paused: nothing else keeps what is sent meanwhile; name its configuration file, or stop this process instead",
    )
}
