//! Log messages to syslog collectors: RFC 5424 with structured data, over UDP, TCP and Unix sockets.
//!
//! ```text
//!  any thread ── tracing ──▶ SyslogLayer ──▶ queue, bounded, drop-oldest ──▶ writer thread ──▶ udp://127.0.0.1:5140   (Vector)
//!                            (captures)  └─▶ queue ──────────────────────▶ writer thread ──▶ unixgram:///dev/log    (rsyslog)
//! ```
//! * `message`: an event as a message: header, escapes, bounds.
//! * `target`: what the configuration names.
//! * `queue`: [`MAX_MESSAGES`] and [`MAX_BYTES`] per target, dropped oldest first.
//! * `socket`: the four transports. `writer`: the thread that serves one.
//!
//! A thread that logs copies the fields and takes a lock for a push, nothing more: a collector that is slow, away or refusing
//! costs messages, never time. What could not be sent is in `ddc_syslog_messages_dropped_total`, and told in the log once messages
//! get through again. A message goes out at least once to a collector that lives; one that dies takes with it what it had not read.
//!
//! Daemons that read `/dev/log` must be told to expect RFC 5424: rsyslog by `SysSock.UseSpecialParser="off"` of its module imuxsock (on
//! `input()`: `UseSpecialParser="off"`), else the header ends up in the message and the program is called `1`; systemd's journal has
//! no such switch. Over UDP and TCP rsyslog needs nothing. Its `maxMessageSize` is 8096 bytes unless set.
//!
//! There is no TLS and no way to read messages; nothing is kept over a restart of the process.

mod message;
mod queue;
mod socket;
mod target;
mod writer;

#[cfg(test)]
mod message_tests;
#[cfg(test)]
mod rfc5424;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

pub use message::ELEMENT;
pub use queue::{MAX_BYTES, MAX_MESSAGES};
pub use target::{Facility, FacilityError, Target, TargetError};

use crate::{Identity, ProcessMetrics};
use message::{Event, Renderer};
use queue::Queue;
use socket::Timing;
use writer::Writer;

/// The most targets of a process: each has a thread and a queue.
pub const MAX_TARGETS: usize = 8;

/// Hands events to the writers. Made by [`start`].
#[derive(Debug)]
pub struct SyslogLayer {
    queues: Vec<Arc<Queue>>,
    metrics: Arc<ProcessMetrics>,
}

/// The running writers. Dropping it stops them as [`Syslog::stop`] does with half a second.
#[derive(Debug)]
pub struct Syslog {
    queues: Vec<Arc<Queue>>,
}

/// Starts a writer for each target; no target is waited for. Messages carry the process's identity: the app name `ddc-SIDE`, and
/// `process` and `site` in structured data.
///
/// More than [`MAX_TARGETS`] are refused with [`io::ErrorKind::InvalidInput`].
pub fn start(
    targets: &[Target],
    facility: Facility,
    identity: &Identity,
    metrics: &Arc<ProcessMetrics>,
) -> io::Result<(SyslogLayer, Syslog)> {
    start_with(targets, facility, identity, metrics, Timing::default())
}

fn start_with(
    targets: &[Target],
    facility: Facility,
    identity: &Identity,
    metrics: &Arc<ProcessMetrics>,
    timing: Timing,
) -> io::Result<(SyslogLayer, Syslog)> {
    if targets.len() > MAX_TARGETS {
        let why = format!("{} syslog targets; a process serves at most {MAX_TARGETS}", targets.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let renderer = Arc::new(renderer(facility, identity));
    let mut syslog = Syslog { queues: Vec::with_capacity(targets.len()) };
    for target in targets {
        let queue = Arc::new(Queue::new());
        let (renderer, metrics) = (Arc::clone(&renderer), Arc::clone(metrics));
        Writer::start(target.clone(), Arc::clone(&queue), renderer, metrics, timing)?;
        syslog.queues.push(queue);
    }
    Ok((SyslogLayer { queues: syslog.queues.clone(), metrics: Arc::clone(metrics) }, syslog))
}

/// `ingress-plant-a` logs as `ddc-ingress`.
fn renderer(facility: Facility, identity: &Identity) -> Renderer {
    let side = identity.process.split('-').next().unwrap_or_default();
    let app = if side.is_empty() { "ddc".to_owned() } else { format!("ddc-{side}") };
    let mut common = vec![("process", identity.process.clone())];
    common.extend(identity.site.clone().map(|site| ("site", site)));
    let system = rustix::system::uname();
    Renderer::new(facility, &system.nodename().to_string_lossy(), &app, common)
}

impl<S: Subscriber> Layer<S> for SyslogLayer {
    fn on_event(&self, event: &tracing::Event<'_>, _context: Context<'_, S>) {
        let event = Arc::new(Event::capture(event, SystemTime::now()));
        for queue in &self.queues {
            match queue.push(Arc::clone(&event)) {
                0 => {}
                dropped => self.metrics.syslog_messages_dropped.add(dropped),
            }
        }
    }
}

impl Syslog {
    /// Waits until what was logged before is sent or dropped, but not for targets in trouble and no longer than `within`.
    pub fn flush(&self, within: Duration) {
        let until = Instant::now() + within;
        self.queues.iter().for_each(|queue| queue.flush(until));
    }

    /// Sends what waits, for `within` at most, and ends the writers; what is logged from then on is counted as dropped. A target that
    /// fails while this goes on is not tried again.
    pub fn stop(&self, within: Duration) {
        let until = Instant::now() + within;
        self.queues.iter().for_each(|queue| queue.end(until));
        self.queues.iter().for_each(|queue| queue.wait_for_end(until));
    }
}

impl Drop for Syslog {
    fn drop(&mut self) {
        self.stop(Duration::from_millis(500));
    }
}
