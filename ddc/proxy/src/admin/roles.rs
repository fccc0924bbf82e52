//! Who may ask what: read < fence < operate. One table for all routes.
//!
//! A connection is granted a role when it is accepted; what asks for more is refused (403). Loopback and the Unix socket have
//! no authentication today: whoever reaches them is an operator, as the rights of the host say. A listener that
//! authenticates grants what its caller proves, and needs nothing here.

use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use super::maintenance::refused;

/// What a caller may do; each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// Look.
    Read,
    /// Stop and release the ingress, and bring back what it sent: what the health checker does.
    Fence,
    /// Everything.
    Operate,
}

impl Role {
    /// Its name.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Fence => "fence",
            Self::Operate => "operate",
        }
    }
}

/// What the connection was granted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Granted(pub(super) Role);

/// What changes something, by path; what only looks is [`Role::Read`] everywhere.
const CHANGES: &[(&str, Role)] = &[
    ("/v1/pause", Role::Fence),
    ("/v1/resume", Role::Fence),
    ("/v1/rewind", Role::Fence),
    ("/v1/replay", Role::Operate),
    ("/maintenance", Role::Operate),
];

/// What a request needs. A path that the table does not know needs all: nothing becomes open by being forgotten.
pub(super) fn needed(method: &Method, path: &str) -> Role {
    if matches!(*method, Method::GET | Method::HEAD) {
        return Role::Read;
    }
    let of = |(prefix, _): &&(&str, Role)| {
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    CHANGES.iter().find(of).map_or(Role::Operate, |(_, role)| *role)
}

/// Lets through what the connection may ask.
pub(super) async fn check(request: Request, next: Next) -> Response {
    let needed = needed(request.method(), request.uri().path());
    let granted = request.extensions().get::<Granted>().map(|granted| granted.0);
    match granted {
        Some(granted) if granted >= needed => next.run(request).await,
        _ => {
            let has = granted.map_or("none", Role::as_str);
            let why = format!("this needs the role `{}`; you have `{has}`", needed.as_str());
            refused(StatusCode::FORBIDDEN, &why)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_names_its_role() {
        for (method, path, role) in [
            (Method::GET, "/status", Role::Read),
            (Method::GET, "/v1/replay/a", Role::Read),
            (Method::HEAD, "/metrics", Role::Read),
            (Method::POST, "/v1/rewind", Role::Fence),
            (Method::POST, "/v1/pause", Role::Fence),
            (Method::POST, "/v1/resume", Role::Fence),
            (Method::POST, "/v1/replay", Role::Operate),
            (Method::DELETE, "/v1/replay/a", Role::Operate),
            (Method::POST, "/maintenance", Role::Operate),
            (Method::POST, "/v1/pauses", Role::Operate),
            (Method::POST, "/v1/rate", Role::Operate),
            (Method::PUT, "/healthz", Role::Operate),
        ] {
            assert_eq!(needed(&method, path), role, "{method} {path}");
        }
        assert!(Role::Read < Role::Fence && Role::Fence < Role::Operate);
    }
}
