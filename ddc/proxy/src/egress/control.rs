//! How the egress's threads are told to stop: first to drain, later to give up.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The drain was given up: its time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GivenUp;

/// Shared by both threads and the handle.
#[derive(Debug, Default)]
pub(crate) struct Control {
    stopping: AtomicBool,
    give_up_at: Mutex<Option<Instant>>,
}

impl Control {
    /// Begins the drain; what is not delivered after `bound` is given up. A second call changes nothing.
    pub(crate) fn stop(&self, bound: Duration) {
        let mut give_up_at = self.give_up_at.lock().unwrap_or_else(PoisonError::into_inner);
        if give_up_at.is_none() {
            *give_up_at = Some(Instant::now() + bound);
        }
        drop(give_up_at);
        self.stopping.store(true, Relaxed);
    }

    /// Whether the drain has begun.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    /// Fails once the drain's time is over.
    pub(crate) fn check(&self) -> Result<(), GivenUp> {
        if !self.is_stopping() {
            return Ok(());
        }
        let give_up_at = *self.give_up_at.lock().unwrap_or_else(PoisonError::into_inner);
        if give_up_at.is_some_and(|at| Instant::now() >= at) { Err(GivenUp) } else { Ok(()) }
    }
}
