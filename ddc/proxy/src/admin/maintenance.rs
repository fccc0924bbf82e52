//! `/maintenance`: a page of the admin listener that changes something, and what guards such pages.
//!
//! ```text
//!  GET    /maintenance          what is under way
//!  POST   /maintenance?for=2h   begins it (1 min to 7 d); `&by=NAME` says for whom
//!  DELETE /maintenance          ends it
//! ```
//!
//! Whoever reaches the listener may ask: loopback has no authentication. What must not reach it is a web page in an
//! operator's browser, which can send requests to 127.0.0.1 too. A page of another site cannot set the header
//! [`GUARD`] without a permission that is never given, and one that pretends to be of this site (by a name
//! that resolves to 127.0.0.1) is known by the `Origin` that browsers add to every request that changes something.

use std::time::{Duration, Instant};

use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ddc_udp::clock::wall_clock_micros;

use super::{Shared, fresh, typed};
use crate::config::Span;
use crate::maintenance::{MaintenanceError, Window};

/// Must be sent with what changes something.
pub(super) const GUARD: &str = "x-ddc-request";
/// Characters of `by`.
const LONGEST_NAME: usize = 63;

/// Who asks, as the connection tells: an address, or a user and process on a Unix socket.
#[derive(Debug, Clone)]
pub(super) struct Peer(pub(super) String);

pub(super) async fn get(State(state): Shared) -> Response {
    shown(state.maintenance().current(Instant::now()).as_ref())
}

pub(super) async fn post(
    State(state): Shared,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    if let Err(why) = guard(&headers) {
        return refused(StatusCode::FORBIDDEN, why);
    }
    let Wanted { length, by } = match Wanted::parse(query.as_deref().unwrap_or_default()) {
        Ok(wanted) => wanted,
        Err(why) => return refused(StatusCode::BAD_REQUEST, &why),
    };
    let who = by.map_or_else(|| peer.0.clone(), |by| format!("{by} ({})", peer.0));
    // Writes to disk: not on the thread that answers everybody.
    let begun = tokio::task::spawn_blocking(move || {
        let begun = state.maintenance().begin(length, &who, Instant::now(), wall_clock_micros());
        // For the metric of maintenance; whether the link is ready is not asked here.
        let _ = state.each_second();
        begun
    });
    match begun.await {
        Ok(Ok(window)) => shown(Some(&window)),
        Ok(Err(error)) => failed(&error),
        Err(_) => panicked(),
    }
}

pub(super) async fn delete(
    State(state): Shared,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    if let Err(why) = guard(&headers) {
        return refused(StatusCode::FORBIDDEN, why);
    }
    let ended = tokio::task::spawn_blocking(move || {
        let ended = state.maintenance().end(&peer.0, Instant::now());
        // For the metric of maintenance; whether the link is ready is not asked here.
        let _ = state.each_second();
        ended
    });
    match ended.await {
        Ok(Ok(_)) => shown(None),
        Ok(Err(error)) => failed(&error),
        Err(_) => panicked(),
    }
}

fn shown(window: Option<&Window>) -> Response {
    let window = window.map(|window| window.status(Instant::now()));
    typed("application/json", serde_json::json!({ "maintenance": window }).to_string() + "\n")
}

fn failed(error: &MaintenanceError) -> Response {
    let code = match error {
        MaintenanceError::OutOfRange(_) => StatusCode::BAD_REQUEST,
        MaintenanceError::State(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    refused(code, &error.to_string())
}

pub(super) fn panicked() -> Response {
    refused(StatusCode::INTERNAL_SERVER_ERROR, "a fault of this program; the log has it")
}

pub(super) fn refused(code: StatusCode, why: &str) -> Response {
    (code, fresh(format!("{why}\n"))).into_response()
}

/// Whether a request was made on purpose, by a program that is no browser.
pub(super) fn guard(headers: &HeaderMap) -> Result<(), &'static str> {
    if headers.contains_key(header::ORIGIN) {
        return Err(
            "a web page may not change anything here; use a program such as curl, which sends no Origin header",
        );
    }
    if headers.get(GUARD).is_none_or(|value| value != "1") {
        return Err(
            "what changes something needs the header x-ddc-request: 1, which no foreign web page can send; for example: curl -X POST -H 'x-ddc-request: 1' 'http://127.0.0.1:9641/maintenance?for=2h'",
        );
    }
    Ok(())
}

/// What the query of a POST says.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    length: Duration,
    by: Option<String>,
}

impl Wanted {
    fn parse(query: &str) -> Result<Self, String> {
        const EXAMPLE: &str = "for example: POST /maintenance?for=2h";
        let (mut length, mut by) = (None, None);
        for part in query.split('&').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("for", text)) if length.is_none() => {
                    let span = text.parse::<Span>().map_err(|error| format!("`for`: {error}; {EXAMPLE}"))?;
                    length = Some(span.0);
                }
                Some(("by", name)) if by.is_none() => {
                    let right =
                        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@' | '+');
                    if !(1..=LONGEST_NAME).contains(&name.len()) || !name.chars().all(right) {
                        return Err(format!(
                            "`by`: {name:?} is no name: 1 to {LONGEST_NAME} of A-Z, a-z, 0-9, '.', '_', '-', '@' and '+'"
                        ));
                    }
                    by = Some(name.to_owned());
                }
                _ => {
                    return Err(format!(
                        "{part:?} is not known, or there twice; {EXAMPLE}, `&by=NAME` if you like"
                    ));
                }
            }
        }
        let length = length.ok_or_else(|| format!("`for` is missing: say how long; {EXAMPLE}"))?;
        Ok(Self { length, by })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_is_read_strictly() {
        let length = |query: &str| Wanted::parse(query).map(|wanted| wanted.length.as_secs());
        assert_eq!(length("for=2h"), Ok(7200));
        assert_eq!(length("for=1.5h&by=ops@north"), Ok(5400));
        assert_eq!(length("for=7d"), Ok(7 * 86_400));
        for (query, why) in [
            ("", "`for` is missing"),
            ("by=ops", "`for` is missing"),
            ("for=", "is no duration"),
            ("for=2", "is no duration"),
            ("for=forever", "is no duration"),
            ("for=-2h", "is no duration"),
            ("for=2h&for=3h", "there twice"),
            ("for=2h&silent=1", "is not known"),
            ("for=2h&by=", "is no name"),
            ("for=2h&by=a%0Ab", "is no name"),
        ] {
            let error = length(query).unwrap_err();
            assert!(error.contains(why), "{query}: {error}");
        }
    }
}
