//! `/readyz` and `/status` of a listener, read leniently: what is missing or of another kind is unknown.

use serde::Serialize;
use serde_json::Value;

use super::clean::{LONGEST, clean};
use super::page::{Key, Side};

/// Reasons that are kept; more are counted in the last one.
const MAX_REASONS: usize = 16;
/// Gaps and sessions that are kept.
const MAX_GAPS: usize = 20;
const MAX_SESSIONS: usize = 8;

/// Whether a link's side does its work, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Readiness {
    pub(super) ready: bool,
    pub(super) reasons: Vec<String>,
}

/// What `/status` tells beyond the metrics.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Status {
    /// Whose status it is.
    pub(super) key: Option<Key>,
    pub(super) uptime_seconds: Option<f64>,
    /// What the source does, on the ingress; at the last heartbeat, on the egress.
    pub(super) source_state: Option<String>,
    pub(super) sessions: Vec<Session>,
    /// Newest first.
    pub(super) gaps: Vec<Gap>,
}

/// A session of the link.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Session {
    /// Its id.
    pub(super) id: String,
    /// The key it is sealed with.
    pub(super) key_id: Option<u64>,
    /// Where its datagrams come from, as the egress sees it.
    pub(super) source: Option<String>,
}

/// Offsets that were sent and will not be delivered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Gap {
    pub(super) stream: String,
    pub(super) topic: String,
    pub(super) partition: Option<i64>,
    pub(super) first: Option<i64>,
    pub(super) last: Option<i64>,
    pub(super) records: Option<u64>,
    pub(super) reason: String,
    pub(super) found_at_millis: Option<u64>,
}

/// The answer of `/readyz`, asked for as JSON.
pub(super) fn readiness(body: &str) -> Option<Readiness> {
    let value: Value = serde_json::from_str(body).ok()?;
    let ready = value.get("ready")?.as_bool()?;
    let all = value.get("reasons").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut reasons: Vec<String> = all.iter().take(MAX_REASONS).map(text).collect();
    if all.len() > MAX_REASONS {
        reasons.push(format!("and {} more reasons", all.len() - MAX_REASONS));
    }
    Some(Readiness { ready, reasons })
}

/// The answer of `/status`.
pub(super) fn status(body: &str) -> Option<Status> {
    let value: Value = serde_json::from_str(body).ok()?;
    value.as_object()?;
    let side = value["side"].as_str().and_then(Side::parse);
    let name = value["link"]["name"].as_str().map(|name| clean(name, 249)).filter(|name| !name.is_empty());
    let state = [&value["source"]["state"], &value["heartbeat"]["source"]["state"]];
    Some(Status {
        key: name.zip(side),
        uptime_seconds: value["uptime_seconds"].as_f64(),
        source_state: state.into_iter().find_map(Value::as_str).map(|state| clean(state, 40)),
        sessions: sessions(&value),
        gaps: gaps(&value["missing"]),
    })
}

/// The egress has a map of sessions, the ingress a note about its own.
fn sessions(value: &Value) -> Vec<Session> {
    let own = &value["notes"]["session"];
    if let Some(id) = own["id"].as_str() {
        return vec![Session { id: clean(id, 64), key_id: own["key_id"].as_u64(), source: None }];
    }
    let Some(sessions) = value["sessions"].as_object() else { return Vec::new() };
    sessions
        .iter()
        .take(MAX_SESSIONS)
        .map(|(id, session)| Session {
            id: clean(id, 64),
            key_id: session["key_id"].as_u64(),
            source: session["source"].as_str().map(|source| clean(source, 64)),
        })
        .collect()
}

fn gaps(value: &Value) -> Vec<Gap> {
    let Some(gaps) = value.as_array() else { return Vec::new() };
    gaps.iter()
        .rev()
        .take(MAX_GAPS)
        .map(|gap| Gap {
            stream: text(&gap["stream"]),
            topic: text(&gap["topic"]),
            partition: gap["partition"].as_i64(),
            first: gap["first"].as_i64(),
            last: gap["last"].as_i64(),
            records: gap["records"].as_u64(),
            reason: text(&gap["reason"]),
            found_at_millis: gap["found_at_millis"].as_u64(),
        })
        .collect()
}

fn text(value: &Value) -> String {
    clean(value.as_str().unwrap_or_default(), LONGEST)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;

    #[test]
    fn the_pages_of_both_sides_are_read() {
        let egress = status(include_str!("fixtures/egress-status.json")).unwrap();
        assert_eq!(egress.key, Some(("plant-a".to_owned(), Side::Egress)));
        assert_eq!(egress.source_state.as_deref(), Some("running"));
        assert_eq!(egress.sessions.len(), 1);
        assert_eq!(egress.sessions[0].source.as_deref(), Some("198.18.0.1:40000"));
        let newest = &egress.gaps[0];
        assert_eq!((newest.first, newest.last, newest.records), (Some(120), Some(125), Some(6)));
        assert_eq!(egress.gaps[1].records, None, "null is unknown");
        let ingress = status(include_str!("fixtures/ingress-status.json")).unwrap();
        assert_eq!(ingress.key, Some(("plant-a".to_owned(), Side::Ingress)));
        assert_eq!((ingress.sessions[0].key_id, ingress.gaps.len()), (Some(1), 0));
    }

    #[test]
    fn other_contents_are_unknown_and_bounded() {
        for body in ["", "ready\n", "[]", "{\"ready\":1}", "null", "{\"ready\""] {
            assert_eq!(readiness(body), None, "{body}");
        }
        for body in ["", "<html>", "[1]", "null"] {
            assert_eq!(status(body), None, "{body}");
        }
        assert_eq!(
            status("{\"missing\":7,\"sessions\":[],\"link\":3,\"side\":\"x\"}"),
            Some(Status::default())
        );
        let many = format!("{{\"ready\":false,\"reasons\":[{}\"x\"]}}", "1,".repeat(90));
        let many = readiness(&many).unwrap();
        assert_eq!((many.ready, many.reasons.len()), (false, MAX_REASONS + 1));
        let escape = readiness("{\"ready\":false,\"reasons\":[\"\\u001b[2J\"]}").unwrap();
        assert_eq!(escape.reasons, ["?[2J"]);
        let deep = "[".repeat(100_000);
        assert_eq!(status(&deep), None, "nesting is refused, not followed");
        let gaps = format!("{{\"missing\":[{}{{}}]}}", "{\"topic\":\"t\"},".repeat(500));
        assert_eq!(status(&gaps).unwrap().gaps.len(), MAX_GAPS);
    }
}
