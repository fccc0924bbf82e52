//! What waits for one target: bounded in number and bytes, the oldest goes first when it is full.
//!
//! A thread that logs takes the lock for the time of a push; nobody does I/O, formats or logs while holding it.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::message::Event;

/// The most messages that wait for a target.
pub const MAX_MESSAGES: usize = 1024;
/// The most bytes that wait for a target, counted as they lie in memory. Targets share the events, so this bounds them nearly together.
pub const MAX_BYTES: usize = 1 << 20;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// To the writer: there is something to do.
    work: Condvar,
    /// To those who flush: something was finished.
    done: Condvar,
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<Arc<Event>>,
    bytes: usize,
    /// Messages ever pushed.
    pushed: u64,
    /// The writer holds one that is neither sent nor given up.
    in_hand: bool,
    /// Messages dropped since the writer last asked.
    lost: u64,
    /// The writer sleeps until there is something to send.
    idle: bool,
    /// The target does not take messages now.
    troubled: bool,
    /// Nothing more comes; the writer ends when the queue is empty or at this time.
    end_at: Option<Instant>,
    ended: bool,
}

/// What [`Queue::take`] found.
pub(super) enum Taken {
    Event(Arc<Event>),
    TimedOut,
    Stopped,
}

impl Queue {
    pub(super) fn new() -> Self {
        let state = State {
            // All the room it will ever need: a push allocates nothing.
            waiting: VecDeque::with_capacity(MAX_MESSAGES),
            bytes: 0,
            pushed: 0,
            in_hand: false,
            lost: 0,
            idle: false,
            troubled: false,
            end_at: None,
            ended: false,
        };
        Self { state: Mutex::new(state), work: Condvar::new(), done: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing here leaves the state half changed when it panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message; tells how many were dropped for it, or because nobody sends any more.
    pub(super) fn push(&self, event: Arc<Event>) -> u64 {
        let bytes = event.bytes();
        let mut state = self.state();
        if state.ended {
            return 1;
        }
        let mut dropped = 0;
        while state.waiting.len() >= MAX_MESSAGES || state.bytes + bytes > MAX_BYTES {
            // One event is far smaller than the bound: an empty queue always has room.
            let Some(oldest) = state.waiting.pop_front() else { break };
            state.bytes -= oldest.bytes();
            dropped += 1;
        }
        state.waiting.push_back(event);
        state.bytes += bytes;
        state.pushed += 1;
        state.lost += dropped;
        if std::mem::take(&mut state.idle) {
            self.work.notify_one();
        }
        dropped
    }

    /// Waits for a message, at most until `until`.
    pub(super) fn take(&self, until: Option<Instant>) -> Taken {
        let mut state = self.state();
        loop {
            if state.must_end() {
                return Taken::Stopped;
            }
            if let Some(event) = state.waiting.pop_front() {
                state.bytes -= event.bytes();
                state.in_hand = true;
                return Taken::Event(event);
            }
            if state.end_at.is_some() {
                return Taken::Stopped;
            }
            if until.is_some_and(|until| until <= Instant::now()) {
                return Taken::TimedOut;
            }
            state.idle = true;
            state = self.wait(state, until);
        }
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>, until: Option<Instant>) -> MutexGuard<'s, State> {
        match until {
            None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(until) => {
                let wait = until.saturating_duration_since(Instant::now());
                self.work.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    /// What was taken has been sent.
    pub(super) fn finished(&self) {
        let mut state = self.state();
        state.in_hand = false;
        state.troubled = false;
        drop(state);
        self.done.notify_all();
    }

    /// The target takes nothing now: who flushes need not wait for it.
    pub(super) fn trouble(&self) {
        self.state().troubled = true;
        self.done.notify_all();
    }

    /// Waits out `pause`, or until the end is asked for.
    pub(super) fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut state = self.state();
        while state.end_at.is_none() && Instant::now() < until {
            state = self.wait(state, Some(until));
        }
    }

    /// Messages lost since the last call, and whether nothing waits.
    pub(super) fn lost(&self) -> (u64, bool) {
        let state = self.state();
        (state.lost, state.waiting.is_empty())
    }

    /// That so many were lost has been told.
    pub(super) fn told(&self, lost: u64) {
        self.state().lost -= lost;
    }

    /// The end is asked for.
    pub(super) fn is_ending(&self) -> bool {
        self.state().end_at.is_some()
    }

    /// The time given to the end is over.
    pub(super) fn must_end(&self) -> bool {
        self.state().must_end()
    }

    /// The writer has ended: `count` is told how many messages that leaves unsent, before anyone learns of the end.
    pub(super) fn ended(&self, count: impl FnOnce(u64)) {
        let mut state = self.state();
        count(state.waiting.len() as u64 + u64::from(state.in_hand));
        state.waiting.clear();
        (state.bytes, state.in_hand, state.ended) = (0, false, true);
        drop(state);
        self.done.notify_all();
    }

    /// Waits until all that was pushed before is sent or dropped, at most until `until`, and not at all for a target in trouble.
    pub(super) fn flush(&self, until: Instant) {
        let state = self.state();
        let goal = state.pushed;
        self.wait_until(state, until, |state| state.troubled || state.finished() >= goal);
    }

    /// Asks the writer to send what waits, and to end at `until` in any case.
    pub(super) fn end(&self, until: Instant) {
        self.state().end_at = Some(until);
        self.work.notify_all();
    }

    /// Waits for the writer's end, at most until `until`.
    pub(super) fn wait_for_end(&self, until: Instant) {
        let state = self.state();
        self.wait_until(state, until, |state| state.ended);
    }

    fn wait_until(&self, mut state: MutexGuard<'_, State>, until: Instant, reached: impl Fn(&State) -> bool) {
        while !state.ended && !reached(&state) {
            let Some(wait) = until.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero())
            else {
                return;
            };
            state = self.done.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl State {
    /// Messages sent or dropped; the oldest always go first.
    fn finished(&self) -> u64 {
        self.pushed - self.waiting.len() as u64 - u64::from(self.in_hand)
    }

    fn must_end(&self) -> bool {
        self.end_at.is_some_and(|end_at| end_at <= Instant::now())
    }
}
