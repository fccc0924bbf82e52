//! The thread of one target: takes from its queue, renders, sends, waits out failures, and tells what was lost.
//!
//! Its own trouble must not feed itself. It says at most two things per [`Timing::tell_every`] and target, whatever happens: that
//! the collector cannot be reached, and, once messages get through again, how many were lost. These lines go the way of every other,
//! also into its own queue, where one of them can displace one message, no more.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::Target;
use super::message::Renderer;
use super::queue::{Queue, Taken};
use super::socket::{Outlet, SendError, Timing};
use crate::ProcessMetrics;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Writer {
    target: Target,
    queue: Arc<Queue>,
    renderer: Arc<Renderer>,
    metrics: Arc<ProcessMetrics>,
    timing: Timing,
    outlet: Outlet,
    pauses: Pauses,
    /// A line has said that the collector cannot be reached, and none that it can.
    told_away: bool,
    tell_away_at: Instant,
    tell_news_at: Instant,
}

impl Writer {
    /// Starts the thread. It ends when its queue is told to.
    pub(super) fn start(
        target: Target,
        queue: Arc<Queue>,
        renderer: Arc<Renderer>,
        metrics: Arc<ProcessMetrics>,
        timing: Timing,
    ) -> io::Result<()> {
        let now = Instant::now();
        let writer = Self {
            outlet: Outlet::new(target.clone(), timing),
            target,
            queue,
            renderer,
            metrics,
            timing,
            pauses: Pauses { delay: Duration::ZERO, failed_at: None, timing },
            told_away: false,
            tell_away_at: now,
            tell_news_at: now,
        };
        // Nobody joins it: a stop waits for the queue's end, within a bound that a connecting socket would not keep.
        thread::Builder::new().name("ddc-syslog".into()).spawn(move || writer.run()).map(drop)
    }

    fn run(mut self) {
        let _ended = Ended { queue: Arc::clone(&self.queue), metrics: Arc::clone(&self.metrics) };
        let mut news_at = None;
        loop {
            match self.queue.take(news_at) {
                Taken::Event(event) => {
                    let message = self.renderer.render(&event, self.target.message_limit());
                    drop(event);
                    if !self.deliver(&message) {
                        return;
                    }
                }
                Taken::TimedOut => {}
                Taken::Stopped => return,
            }
            news_at = self.tell_news();
        }
    }

    /// Tries until the message is sent. `false`: the end was asked for before.
    fn deliver(&mut self, message: &str) -> bool {
        loop {
            match self.outlet.send(message, &|| self.queue.must_end()) {
                Ok(()) => {
                    self.metrics.syslog_messages_sent.inc();
                    self.queue.finished();
                    return true;
                }
                Err(SendError::Stopped) => return false,
                Err(SendError::Io(error)) => {
                    let pause = self.pauses.next(Instant::now());
                    if !pause.is_zero() {
                        self.queue.trouble();
                        self.tell_away(&error);
                    } else if !self.queue.must_end() {
                        // A first failure, such as a connection that was closed while nothing was sent: try at once.
                        continue;
                    }
                    if self.queue.is_ending() {
                        return false;
                    }
                    // When the end is asked for meanwhile, this message is tried once more.
                    self.queue.pause(pause);
                }
            }
        }
    }

    fn tell_away(&mut self, error: &io::Error) {
        let now = Instant::now();
        if !self.told_away && now >= self.tell_away_at {
            self.told_away = true;
            self.tell_away_at = now + self.timing.tell_every;
            tracing::warn!(
                collector = %self.target,
                %error,
                "a syslog collector cannot be reached: messages wait for it, the oldest are dropped"
            );
        }
    }

    /// After a message got through, or when it is time: tells what was lost. Returns when to be called again without a message.
    fn tell_news(&mut self) -> Option<Instant> {
        let (lost, empty) = self.queue.lost();
        if lost == 0 && !self.told_away {
            return None;
        }
        let now = Instant::now();
        // A collector that never catches up is told of as well, only later.
        let due = if empty { self.tell_news_at } else { self.tell_news_at + self.timing.tell_every };
        if now < due {
            return Some(due);
        }
        self.tell_news_at = now + self.timing.tell_every;
        self.told_away = false;
        self.queue.told(lost);
        if lost > 0 {
            tracing::warn!(collector = %self.target, messages = lost, "syslog messages were lost: the collector was away or slow");
        } else {
            tracing::info!(collector = %self.target, "the syslog collector is reached again, nothing was lost");
        }
        None
    }
}

/// However the thread ends, who waits for it is told, and what it leaves is counted.
struct Ended {
    queue: Arc<Queue>,
    metrics: Arc<ProcessMetrics>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.queue.ended(|left| self.metrics.syslog_messages_dropped.add(left));
    }
}

/// How long to wait after a failure: not at all after the first, then from [`Timing::pause_min`] doubling to [`Timing::pause_max`],
/// each between half and the whole of it, so that many proxies do not come back to a collector at once.
///
/// Only time without failures begins anew, not a message that got through: a collector that takes every connection and closes it is
/// not hammered either.
#[derive(Debug)]
struct Pauses {
    delay: Duration,
    failed_at: Option<Instant>,
    timing: Timing,
}

impl Pauses {
    fn next(&mut self, now: Instant) -> Duration {
        let quiet =
            self.failed_at.is_none_or(|at| now.saturating_duration_since(at) >= self.timing.sound_after);
        self.delay = if quiet {
            Duration::ZERO
        } else {
            (self.delay * 2).clamp(self.timing.pause_min, self.timing.pause_max)
        };
        // The pause itself is no time without failures.
        self.failed_at = Some(now + self.delay);
        self.delay.mul_f64(0.5 + random_share() / 2.0)
    }
}

/// A number from 0 to 1 that differs between threads and processes; the standard library's hasher is seeded by the system.
fn random_share() -> f64 {
    f64::from(RandomState::new().hash_one(Instant::now()) as u32) / f64::from(u32::MAX)
}
