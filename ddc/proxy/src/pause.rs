//! Pauses of an ingress: it leaves its group, Kafka keeps the records, and only heartbeats cross, until every requester
//! has withdrawn. On disk before it is acknowledged, so that it holds across restarts.
//!
//! ```text
//!  POST /v1/pause ─▶ Pauses ─▶ pause.json ─▶ source thread: commits, leaves the group ─▶ "paused", nothing assigned
//!  POST /v1/resume ──┘
//! ```
//!
//! A requester may number its orders (`fence`): one that comes late, with a lower number than its last, is refused. The
//! source's thread does the work (`source/kafka/pausing.rs`) and asks here each turn.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::replay::is_name;
use crate::rewind::{RequestError, since};
use crate::state::{StateDir, StateError};

/// The state file, in the ingress's state directory.
const FILE: &str = "pause.json";
const FORMAT: u32 = 1;
/// Most requesters whose numbers are remembered.
const MAX_REQUESTERS: usize = 64;
/// Who it is when nobody says.
pub const OPERATOR: &str = "operator";

/// An order: `POST /v1/pause` or `POST /v1/resume`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Who pauses; only who paused can withdraw. Without it [`OPERATOR`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The number of the order: below the requester's last one it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
    /// Pause only: begin, when reading goes on, where it was so long ago (`20s`), or then (`2026-03-01T08:15:30Z`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Resume only: withdraw for every requester.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

/// Why a pause stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// `by`.
    #[error("`by`: {0:?} is no name: 1 to 63 of A-Z, a-z, 0-9, '.', '_', '-', '@' and '+'")]
    Name(String),
    /// `since`.
    #[error(transparent)]
    Since(#[from] RequestError),
    /// A key of the other order.
    #[error("`{0}` is not known here")]
    Unknown(&'static str),
    /// An order that was overtaken.
    #[error("{by} has sent order {known} since; order {fence} comes too late and is not obeyed")]
    Stale {
        /// Whose.
        by: String,
        /// Its number.
        fence: u64,
        /// The last number.
        known: u64,
    },
    /// Too many.
    #[error(
        "{MAX_REQUESTERS} requesters are known, which is the most; use a name that is known: GET /v1/pause"
    )]
    TooMany,
    /// Resumed by somebody who did not pause.
    #[error(
        "{by} has not paused this ingress; it was {others}: resume by that name, or for all: `ddc resume --all`"
    )]
    NotYours {
        /// Who asked.
        by: String,
        /// Who has paused it.
        others: String,
    },
    /// It would not survive a restart, so it was not done.
    #[error("the pause stays as it was: {0}")]
    State(#[from] StateError),
    /// A file of a later version.
    #[error(
        "state file {FILE} has format {0}, this version knows {FORMAT}: install the version that wrote it, or move the file away"
    )]
    Format(u32),
}

/// Who has paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requester {
    /// Its name.
    pub by: String,
    /// Its order's number.
    pub fence: Option<u64>,
    /// When, in s since 1970.
    pub since_timestamp_seconds: u64,
    /// As the connection showed it.
    pub peer: String,
}

/// An offset that the group did not take before it was left: kept for the resumption.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The topic at the source.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The metadata that the commit would have had.
    pub metadata: String,
    /// The next offset to be read.
    pub offset: i64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    format: u32,
    requesters: Vec<Requester>,
    /// The highest number of each requester that numbers, also of those that have withdrawn.
    fences: BTreeMap<String, u64>,
    kept: Vec<Kept>,
}

/// How far the source's thread is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It reads, or is about to.
    #[default]
    Running,
    /// It was ordered to pause and has not left the group yet.
    Pausing,
    /// It has left the group; nothing is assigned.
    Paused,
}

/// The pauses of one ingress.
#[derive(Debug)]
pub struct Pauses {
    link: String,
    directory: Arc<StateDir>,
    /// Held while the file is written, which can take long: readers must not wait for it.
    writing: Mutex<()>,
    paused: AtomicBool,
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    stored: Stored,
    /// `since` of the order that the source's thread has not seen, and as it was written.
    since: Option<Since>,
    /// The source's thread has left the group.
    left: bool,
}

/// Where a pause goes back to.
#[derive(Debug, Clone)]
pub(crate) struct Since {
    /// `None`: before every clock.
    pub(crate) time: Option<Instant>,
    pub(crate) text: String,
    pub(crate) by: String,
}

impl Pauses {
    /// Takes up what a former life has left. A file that cannot be read keeps the ingress from starting: it may say that
    /// records must not flow.
    pub fn open(link: &str, directory: Arc<StateDir>) -> Result<Self, PauseError> {
        let stored: Stored =
            directory.read::<Stored>(FILE)?.unwrap_or(Stored { format: FORMAT, ..Stored::default() });
        if stored.format != FORMAT {
            return Err(PauseError::Format(stored.format));
        }
        let paused = !stored.requesters.is_empty();
        if paused {
            tracing::warn!(
                link,
                by = names(&stored.requesters),
                "the pause of a former run holds: nothing is read"
            );
        }
        Ok(Self {
            link: link.to_owned(),
            directory,
            writing: Mutex::default(),
            paused: AtomicBool::new(paused),
            inner: Mutex::new(Inner { stored, ..Inner::default() }),
            changed: Condvar::new(),
        })
    }

    /// Pauses, for one more requester, or again for one that has. On disk when this returns. `wall`: since 1970.
    pub fn pause(
        &self,
        request: &Request,
        peer: &str,
        now: Instant,
        wall: Duration,
    ) -> Result<(), PauseError> {
        if request.all {
            return Err(PauseError::Unknown("all"));
        }
        let by = name(request)?;
        let ago = request.since.as_deref().map(|text| since(text, wall)).transpose()?;
        let _writing = lock(&self.writing);
        let mut stored = self.copy();
        admit(&mut stored, by, request.fence)?;
        stored.requesters.retain(|requester| requester.by != by);
        if stored.requesters.len() >= MAX_REQUESTERS {
            return Err(PauseError::TooMany);
        }
        stored.requesters.push(Requester {
            by: by.to_owned(),
            fence: request.fence,
            since_timestamp_seconds: wall.as_secs(),
            peer: peer.to_owned(),
        });
        self.directory.write(FILE, &stored)?;
        tracing::warn!(
            link = self.link,
            by,
            peer,
            fence = request.fence,
            since = request.since.as_deref(),
            "the ingress is paused: its partitions go to other members, or wait"
        );
        let mut inner = lock(&self.inner);
        inner.stored = stored;
        if let (Some(ago), Some(text)) = (ago, &request.since) {
            inner.since = Some(Since { time: now.checked_sub(ago), text: text.clone(), by: by.to_owned() });
        }
        self.paused.store(true, Ordering::Release);
        Ok(())
    }

    /// Withdraws one requester's pause, or all. Reading goes on when it was the last one. On disk when this returns.
    pub fn resume(&self, request: &Request, peer: &str) -> Result<(), PauseError> {
        if request.since.is_some() {
            return Err(PauseError::Unknown("since"));
        }
        let by = name(request)?;
        let _writing = lock(&self.writing);
        let mut stored = self.copy();
        admit(&mut stored, by, request.fence)?;
        let before = stored.requesters.len();
        stored.requesters.retain(|requester| !request.all && requester.by != by);
        if before > 0 && stored.requesters.len() == before {
            return Err(PauseError::NotYours { by: by.to_owned(), others: names(&stored.requesters) });
        }
        self.directory.write(FILE, &stored)?;
        let paused = !stored.requesters.is_empty();
        if before > 0 {
            tracing::warn!(
                link = self.link,
                by,
                peer,
                fence = request.fence,
                all = request.all,
                others = names(&stored.requesters),
                "a pause was withdrawn"
            );
        }
        lock(&self.inner).stored = stored;
        self.paused.store(paused, Ordering::Release);
        Ok(())
    }

    /// Whether nothing is to be read.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// Who has paused.
    pub fn requesters(&self) -> Vec<Requester> {
        lock(&self.inner).stored.requesters.clone()
    }

    /// Waits, `patience` at most, until the source's thread has done what was ordered; whether it has.
    pub fn wait(&self, patience: Duration) -> bool {
        let settled = |inner: &mut Inner| inner.left == self.is_paused() && inner.since.is_none();
        let inner = lock(&self.inner);
        let waited = self.changed.wait_timeout_while(inner, patience, |inner| !settled(inner));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// For `/v1/pause` and `/status`.
    pub fn status(&self, assigned: i64) -> serde_json::Value {
        let paused = self.is_paused();
        let inner = lock(&self.inner);
        let phase = match (paused, inner.left && inner.since.is_none()) {
            (false, _) => Phase::Running,
            (true, false) => Phase::Pausing,
            (true, true) => Phase::Paused,
        };
        serde_json::json!({
            "paused": paused,
            "state": phase,
            "requesters": inner.stored.requesters,
            "assigned_partitions": assigned,
            "kept_offsets": inner.stored.kept.len(),
        })
    }

    /// A sentence for `/readyz`.
    pub(crate) fn problem(&self) -> Option<String> {
        let inner = lock(&self.inner);
        let requesters = &inner.stored.requesters;
        (!requesters.is_empty()).then(|| {
            format!("paused by {}: nothing is read until it is withdrawn (`ddc resume`)", names(requesters))
        })
    }

    /// The `since` of an order that was not seen yet.
    pub(crate) fn take_since(&self) -> Option<Since> {
        lock(&self.inner).since.take()
    }

    /// The source's thread has left the group, or has joined it again.
    pub(crate) fn set_left(&self, left: bool) {
        lock(&self.inner).left = left;
        self.changed.notify_all();
    }

    /// What the group has not taken, for the resumption.
    pub(crate) fn kept(&self) -> Vec<Kept> {
        lock(&self.inner).stored.kept.clone()
    }

    /// Keeps offsets until the group has them; on disk when this returns.
    pub(crate) fn keep(&self, kept: Vec<Kept>) -> Result<(), StateError> {
        let _writing = lock(&self.writing);
        let mut stored = self.copy();
        if stored.kept == kept {
            return Ok(());
        }
        stored.kept = kept;
        self.directory.write(FILE, &stored)?;
        lock(&self.inner).stored = stored;
        Ok(())
    }

    fn copy(&self) -> Stored {
        let Stored { format, requesters, fences, kept } = &lock(&self.inner).stored;
        Stored { format: *format, requesters: requesters.clone(), fences: fences.clone(), kept: kept.clone() }
    }
}

fn name(request: &Request) -> Result<&str, PauseError> {
    let by = request.by.as_deref().unwrap_or(OPERATOR);
    if is_name(by) { Ok(by) } else { Err(PauseError::Name(by.chars().take(63).collect())) }
}

/// Refuses what was overtaken, and remembers the number.
fn admit(stored: &mut Stored, by: &str, fence: Option<u64>) -> Result<(), PauseError> {
    let Some(fence) = fence else { return Ok(()) };
    if let Some(known) = stored.fences.get(by).copied().filter(|known| fence < *known) {
        return Err(PauseError::Stale { by: by.to_owned(), fence, known });
    }
    if stored.fences.len() >= MAX_REQUESTERS && !stored.fences.contains_key(by) {
        return Err(PauseError::TooMany);
    }
    stored.fences.insert(by.to_owned(), fence);
    Ok(())
}

fn names(requesters: &[Requester]) -> String {
    if requesters.is_empty() {
        return "nobody".to_owned();
    }
    let names: Vec<&str> = requesters.iter().map(|requester| requester.by.as_str()).collect();
    names.join(", ")
}

/// What is guarded here is valid after every statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "pause_tests.rs"]
mod tests;
