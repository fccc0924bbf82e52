//! What the threads of an ingress tell each other besides the blocks: atomics, and the sentences for `/readyz`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ddc_wire::SourceState;

/// Written by one thread each, read by the others.
#[derive(Debug, Default)]
pub struct Shared {
    /// Bytes of packed blocks between the source and the kernel.
    pub queued_bytes: AtomicU64,
    /// Blocks that the link thread has handed to the kernel whole, since the start of the process; those in
    /// [`Shared::blocks_lost`] are among them, so that numbers stay in step.
    pub sent_blocks: AtomicU64,
    /// Blocks that the link thread took and will not send: their session had to end at once. Raised *before*
    /// `sent_blocks` passes them. When it moves, nothing that was packed so far may be committed.
    pub blocks_lost: AtomicU64,
    /// [`Shared::blocks_lost`] as the source has acted on it. While it lags behind, the link thread throws away what
    /// comes: sent behind the hole, it would be taken for the proof of a loss that is being mended.
    pub loss_seen: AtomicU64,
    /// The first block that was packed after that. Written before `loss_seen`.
    pub good_from: AtomicU64,
    /// Whether the link thread has nothing to send and the pacer would let it: a lingering block may go.
    pub link_idle: AtomicBool,
    /// Records at the source that were not sent; [`UNKNOWN_LAG`] when nobody knows.
    pub lag: AtomicU64,
    /// Stop reading, send what is packed, commit, end.
    pub stop: AtomicBool,
    /// The source thread has packed its last block and made its last commit, or has ended.
    pub source_done: AtomicBool,
    /// The link thread has ended: nothing more will be sent.
    pub link_done: AtomicBool,
    state: AtomicU8,
    problems: Mutex<BTreeMap<&'static str, String>>,
    notes: Mutex<BTreeMap<&'static str, serde_json::Value>>,
}

/// Sets a flag when it is dropped: at the end of a thread, also when the thread panics, so that the other one does not
/// wait for it.
pub(super) struct OnEnd(pub(super) Arc<Shared>, pub(super) fn(&Shared) -> &AtomicBool);

impl Drop for OnEnd {
    fn drop(&mut self) {
        (self.1)(&self.0).store(true, Ordering::Release);
    }
}

/// The lag before the first answer of the source.
pub const UNKNOWN_LAG: u64 = u64::MAX;

impl Shared {
    /// At the start nothing is known.
    pub fn new() -> Self {
        let shared = Self { link_idle: AtomicBool::new(true), ..Self::default() };
        shared.lag.store(UNKNOWN_LAG, Ordering::Relaxed);
        shared
    }

    /// The source's state, as heartbeats and `/status` tell it.
    pub fn source_state(&self) -> SourceState {
        SourceState::from_byte(self.state.load(Ordering::Relaxed)).unwrap_or_default()
    }

    /// Sets the source's state.
    pub fn set_source_state(&self, state: SourceState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// Says why the side is not ready, or, with `None`, that this is over. One sentence per key.
    pub fn set_problem(&self, key: &'static str, sentence: Option<String>) {
        let mut problems = lock(&self.problems);
        match sentence {
            Some(sentence) => problems.insert(key, sentence),
            None => problems.remove(key),
        };
    }

    /// The sentences of all problems.
    pub fn problems(&self) -> Vec<String> {
        lock(&self.problems).values().cloned().collect()
    }

    /// Sets a part of `/status`.
    pub fn set_note(&self, key: &'static str, value: serde_json::Value) {
        lock(&self.notes).insert(key, value);
    }

    /// The parts of `/status` that threads have set.
    pub fn notes(&self) -> BTreeMap<&'static str, serde_json::Value> {
        lock(&self.notes).clone()
    }
}

/// What is guarded here is valid after every statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
