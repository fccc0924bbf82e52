//! What the egress's threads tell each other and the admin listener: small, behind short locks, never on the way of
//! a datagram more often than ten times a second.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ddc_link::keys::Keyring;
use ddc_link::receiver::StoredSession;
use ddc_wire::Heartbeat;
use serde::Serialize;

/// Written by the receive thread, except where said.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Sessions as the next life needs them.
    pub(crate) stored: Mutex<Vec<StoredSession>>,
    /// Sessions as `/status` shows them.
    pub(crate) sessions: Mutex<BTreeMap<String, SessionView>>,
    /// The last heartbeat.
    pub(crate) heartbeat: Mutex<Option<HeartbeatView>>,
    /// When two sessions were found sending side by side.
    pub(crate) two_senders: Mutex<Option<(Instant, String)>>,
    /// Set from outside; taken by the receive thread.
    pub(crate) keyring: Mutex<Option<Keyring>>,
    /// The receive thread cannot read its socket, and why.
    pub(crate) socket_error: Mutex<Option<String>>,
    /// The receive thread reads.
    pub(crate) receiving: AtomicBool,
    /// Set by the sink thread: why records do not reach the destination.
    pub(crate) sink_problem: Mutex<Option<String>>,
    /// Set by the sink thread: a partition that has been waiting long for somebody else, and for what.
    pub(crate) held_long: Mutex<Option<String>>,
    /// Set by the sink thread: the destination has answered once.
    pub(crate) connected: AtomicBool,
    /// Set by the sink thread: source partitions whose position is known.
    pub(crate) partitions: AtomicU64,
    /// Set by the sink thread: chunks that wait for their partition or their topic.
    pub(crate) held: AtomicU64,
    /// Set by the sink thread: records handed over and not acknowledged.
    pub(crate) in_flight: AtomicU64,
    /// Set by the sink thread: times the producer was built anew.
    pub(crate) rebuilds: AtomicU64,
    /// Set by the sink thread: batches that wait for it.
    pub(crate) queued_batches: AtomicU64,
    /// Set by the spool's thread: how it stands; `None` without a spool.
    pub(crate) spool: Mutex<Option<SpoolView>>,
    /// Set by the sink thread: destination topics seen.
    pub(crate) topics: Mutex<Vec<String>>,
    /// Set by the publisher: why `[missing_records]` cannot be written.
    pub(crate) publish_trouble: Mutex<Option<String>>,
    /// Set by the sink thread: it has ended.
    pub(crate) sink_done: AtomicBool,
}

/// A session, for people.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SessionView {
    pub(crate) key_id: u8,
    pub(crate) source: String,
    pub(crate) continued: bool,
    pub(crate) started_at_micros: u64,
}

/// The spool, for people.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SpoolView {
    pub(crate) directory: String,
    /// Of its files, and at most.
    pub(crate) bytes: u64,
    pub(crate) limit_bytes: u64,
    /// Not settled yet, and not even read yet.
    pub(crate) waiting_bytes: u64,
    pub(crate) unread_bytes: u64,
    pub(crate) oldest_age_seconds: f64,
    pub(crate) segments: usize,
    /// What a power cut would cost.
    pub(crate) unsynced_seconds: f64,
    pub(crate) doubtful_bytes: u64,
    pub(crate) disk_free_bytes: Option<u64>,
    pub(crate) taken_batches: u64,
    /// Why batches are refused now.
    pub(crate) refusing: Option<String>,
    pub(crate) fsync_error: Option<String>,
    pub(crate) checkpoint_error: Option<String>,
}

/// A heartbeat and when it came.
#[derive(Debug, Clone)]
pub(crate) struct HeartbeatView {
    pub(crate) at: Instant,
    pub(crate) session: String,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) clock_difference_micros: i64,
}

/// What is guarded here is valid after every statement, so a panic elsewhere does not spoil it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
