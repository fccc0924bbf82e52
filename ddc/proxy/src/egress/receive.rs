//! The receive thread: datagrams from the socket, batches to the queue or the spool; it waits for nothing else.
//!
//! ```text
//!  socket ─ recvmmsg ─▶ Receiver (open, recover, order, join) ─▶ feed ─▶ sink thread
//!                          └─▶ counters, heartbeats, sessions
//! ```
//!
//! What has no room is dropped and counted; a datagram that is not ours is counted by its reason. It
//! wakes at least every [`LONGEST_WAIT`], so that a stop, a new keyring and the watchdog are served.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Receiver as ChannelReceiver;
use ddc_link::receiver::{Counters, Event, GivenUpReason, Receiver, Reject, RetiredWhy};
use ddc_telemetry::cells::Label;
use ddc_telemetry::log::RateLimit;
use ddc_telemetry::notify::Tick;
use ddc_telemetry::process::thread_cpu;
use ddc_telemetry::reasons::{DropReason, SourceState, Thread};
use ddc_telemetry::{EgressMetrics, LinkMetrics};
use ddc_udp::clock::wall_clock_micros;
use ddc_udp::{ReceiveBatch, ReceiverSocket};
use ddc_wire::{Heartbeat, KeyId, Session};

use super::control::Control;
use super::feed::{FeedIn, NotTaken};
use super::shared::{HeartbeatView, SessionView, Shared, lock};

/// The longest wait for a datagram.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// Counters reach telemetry, and sessions the sink thread, this often.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);
/// One kind of message is logged this often at most.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// After an error of the socket.
const ERROR_PAUSE: Duration = Duration::from_millis(20);
/// UDP header, and Ethernet preamble, header, checksum and gap, in bytes.
const UDP_AND_ETHERNET: usize = 8 + 38;
/// The shortest time a frame takes on the wire, in bytes.
const SHORTEST_FRAME: usize = 84;

/// The thread's state.
pub(crate) struct ReceiveThread {
    pub(crate) socket: ReceiverSocket,
    pub(crate) receiver: Receiver,
    pub(crate) feed: FeedIn,
    /// Buffers of settled batches.
    pub(crate) recycled: ChannelReceiver<Vec<u8>>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) control: Arc<Control>,
    pub(crate) metrics: Arc<LinkMetrics<EgressMetrics>>,
    pub(crate) tick: Tick,
}

impl ReceiveThread {
    /// Runs until a stop; then what is ready has been queued.
    pub(crate) fn run(self) {
        let reported = Reported::default();
        let limit = RateLimit::new(LOG_EVERY);
        Running { thread: self, reported, limit, published_at: Instant::now() }.run();
    }
}

struct Running {
    thread: ReceiveThread,
    reported: Reported,
    limit: RateLimit<&'static str>,
    published_at: Instant,
}

/// What telemetry has been told.
#[derive(Default)]
struct Reported {
    counters: Counters,
    socket_drops: u64,
}

impl Running {
    fn run(mut self) {
        let mut batch = ReceiveBatch::new();
        self.thread.shared.receiving.store(true, Relaxed);
        self.publish(Instant::now());
        while !self.thread.control.is_stopping() {
            self.thread.tick.mark();
            let now = self.receive(&mut batch);
            self.drain(now);
            if now.saturating_duration_since(self.published_at) >= PUBLISH_EVERY {
                self.take_keyring(now);
                self.publish(now);
            }
        }
        self.thread.shared.receiving.store(false, Relaxed);
        self.publish(Instant::now());
        // The queue's end is dropped with `self`: the sink thread sees it when it has taken everything.
        self.thread.tick.retire();
    }

    /// Takes what arrived. Returns a time up to which everything that arrived was taken: by it, blocks are judged, so that
    /// nothing is held against symbols that still wait in the socket while this thread stood still.
    fn receive(&mut self, batch: &mut ReceiveBatch) -> Instant {
        let thread = &mut self.thread;
        let now = Instant::now();
        let before = now;
        let due = thread.receiver.next_deadline().map(|due| due.saturating_duration_since(now));
        let wait = due.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT);
        let received = match thread.socket.receive(batch, wait) {
            Ok(received) => received,
            Err(error) => {
                if self.limit.allow("socket", now).is_some() {
                    tracing::error!(link = thread.metrics.link(), %error, "the link's socket cannot be read; trying again");
                }
                *lock(&thread.shared.socket_error) = Some(error.to_string());
                thread::sleep(ERROR_PAUSE);
                return Instant::now();
            }
        };
        if received == 0 {
            return Instant::now();
        }
        let (now, wall) = (Instant::now(), wall_clock_micros());
        let (mut wire_bytes, mut count) = (0, 0);
        for datagram in batch.datagrams() {
            count += 1;
            wire_bytes += wire_len(datagram.wire_bytes, datagram.source) as u64;
            if datagram.truncated {
                thread.metrics.common.dropped_packets.inc(DropReason::Long);
                warn_reject(&mut self.limit, thread.metrics.link(), Reject::Long, datagram.source, now);
            } else if let Err(reject) = thread.receiver.handle(now, wall, datagram.source, datagram.bytes) {
                warn_reject(&mut self.limit, thread.metrics.link(), reject, datagram.source, now);
            }
        }
        thread.metrics.packets_received.add(count);
        thread.metrics.bytes_received.add(wire_bytes);
        before
    }

    /// Takes everything that is ready.
    fn drain(&mut self, now: Instant) {
        while let Some(event) = self.thread.receiver.poll(now) {
            self.event(event, now);
        }
        // At most as many as there are batches in the queue.
        while let Ok(buffer) = self.thread.recycled.try_recv() {
            self.thread.receiver.recycle(buffer);
        }
    }

    fn event(&mut self, event: Event, now: Instant) {
        let thread = &mut self.thread;
        match event {
            Event::Batch(batch) => {
                if let Err(why) = thread.feed.offer(batch) {
                    if matches!(why, NotTaken::Queue) {
                        thread.metrics.common.buffer_full.inc();
                    }
                    if let Some(suppressed) = self.limit.allow("not taken", now) {
                        tracing::error!(
                            link = thread.metrics.link(),
                            %why,
                            suppressed,
                            "a batch was dropped; its records are named when the next ones are delivered"
                        );
                    }
                }
            }
            Event::GivenUp { session, first, last, reason, cause, symbols_seen } => {
                let unreadable = matches!(reason, GivenUpReason::Malformed | GivenUpReason::TooLarge);
                thread.metrics.batches_refused.add(u64::from(unreadable));
                if let Some(suppressed) = self.limit.allow(reason.as_str(), now) {
                    tracing::warn!(
                        link = thread.metrics.link(), %session, first, last, reason = reason.as_str(),
                        ?cause, symbols_seen, suppressed,
                        "blocks were given up; records that were in them are named when the next ones come"
                    );
                }
            }
            Event::LateBlock { session, block } => {
                tracing::debug!(link = thread.metrics.link(), %session, block, "a block came after it was given up");
            }
            Event::SessionOpened { session, key_id, source, first_block, continued } => {
                self.session_opened(session, key_id, source, first_block, continued);
            }
            Event::SessionRetired { session, key_id, why } => self.session_retired(session, key_id, why),
            Event::Heartbeat { session, heartbeat, clock_difference_micros } => {
                self.heartbeat(session, heartbeat, clock_difference_micros, now);
            }
            Event::TwoSenders { older, newer } => {
                let text = format!("{} (session {}) and {} (session {})", older.1, older.0, newer.1, newer.0);
                tracing::warn!(
                    link = thread.metrics.link(),
                    senders = text,
                    "two ingresses send on one link; stop one of them, or give it a link of its own"
                );
                *lock(&thread.shared.two_senders) = Some((now, text));
            }
        }
    }

    fn session_opened(
        &mut self,
        session: Session,
        key_id: KeyId,
        source: SocketAddr,
        first_block: u64,
        continued: bool,
    ) {
        let thread = &self.thread;
        tracing::info!(link = thread.metrics.link(), %session, %key_id, %source, first_block, continued, "session opened");
        let seconds = session.start_micros() as f64 / 1e6;
        let newest =
            thread.metrics.session_start_timestamp_seconds.value().is_none_or(|known| seconds >= known);
        if newest {
            thread.metrics.session_start_timestamp_seconds.set(seconds);
            thread.metrics.key_id.set(f64::from(key_id.0));
        }
        let view = SessionView {
            key_id: key_id.0,
            source: source.to_string(),
            continued,
            started_at_micros: session.start_micros(),
        };
        lock(&thread.shared.sessions).insert(session.to_string(), view);
    }

    fn session_retired(&mut self, session: Session, key_id: KeyId, why: RetiredWhy) {
        let thread = &self.thread;
        tracing::info!(link = thread.metrics.link(), %session, %key_id, ?why, "session retired");
        lock(&thread.shared.sessions).remove(&session.to_string());
    }

    fn heartbeat(
        &mut self,
        session: Session,
        heartbeat: Heartbeat,
        clock_difference_micros: i64,
        now: Instant,
    ) {
        let metrics = &self.thread.metrics;
        metrics.last_heartbeat_timestamp_seconds.set_time(SystemTime::now());
        metrics.clock_difference_seconds.set(clock_difference_micros as f64 / 1e6);
        metrics.source_packets_sent.set(heartbeat.packets as f64);
        metrics.source_blocks_sent.set(heartbeat.blocks as f64);
        metrics.source_records_sent.set(heartbeat.records as f64);
        metrics.source_bytes_sent.set(heartbeat.bytes as f64);
        metrics.source_lag.set(heartbeat.lag.map_or(f64::NAN, |lag| lag as f64));
        let rate = if heartbeat.rate_bits == 0 { f64::NAN } else { heartbeat.rate_bits as f64 };
        metrics.source_rate_bits_per_second.set(rate);
        metrics.source_state.set(source_state(heartbeat.source_state));
        let transit = u64::try_from(clock_difference_micros).unwrap_or(0);
        metrics.transit_latency_seconds.observe(Duration::from_micros(transit));
        let view =
            HeartbeatView { at: now, session: session.to_string(), heartbeat, clock_difference_micros };
        *lock(&self.thread.shared.heartbeat) = Some(view);
    }

    fn take_keyring(&mut self, now: Instant) {
        let thread = &mut self.thread;
        if let Some(keyring) = lock(&thread.shared.keyring).take() {
            thread.receiver.set_keyring(now, keyring);
            tracing::info!(link = thread.metrics.link(), "keyring replaced");
        }
    }

    /// Tells telemetry what has been added since the last time, and the sink thread which sessions to store.
    fn publish(&mut self, now: Instant) {
        self.published_at = now;
        let (thread, told) = (&mut self.thread, &mut self.reported);
        let (metrics, counters) = (&thread.metrics, thread.receiver.counters().clone());
        for (counter, value, before) in [
            (&metrics.packet_loss, counters.packets_lost, told.counters.packets_lost),
            (&metrics.packets_late, counters.packets_late, told.counters.packets_late),
            (&metrics.blocks_received, counters.blocks_received, told.counters.blocks_received),
            (&metrics.blocks_repaired, counters.blocks_repaired, told.counters.blocks_repaired),
            (&metrics.symbols_repaired, counters.symbols_repaired, told.counters.symbols_repaired),
            (&metrics.symbols_spare, counters.symbols_spare, told.counters.symbols_spare),
            (&metrics.blocks_unrepairable, counters.blocks_unrepairable, told.counters.blocks_unrepairable),
            (&metrics.blocks_lost, counters.blocks_lost, told.counters.blocks_lost),
            (&metrics.blocks_late, counters.blocks_late, told.counters.blocks_late),
            (&metrics.heartbeats_received, counters.heartbeats, told.counters.heartbeats),
            (&metrics.sessions_opened, counters.sessions_opened, told.counters.sessions_opened),
            (&metrics.sessions_retired, counters.sessions_retired, told.counters.sessions_retired),
            (&metrics.two_senders, counters.two_senders, told.counters.two_senders),
        ] {
            counter.add(value.saturating_sub(before));
        }
        for reject in Reject::ALL {
            let added = counters.rejected(*reject).saturating_sub(told.counters.rejected(*reject));
            if added > 0 {
                metrics.common.dropped_packets.add(drop_reason(*reject), added);
            }
        }
        told.counters = counters;
        let drops = thread.socket.socket_drops();
        metrics.socket_drops.add(drops.saturating_sub(told.socket_drops));
        if drops > told.socket_drops && self.limit.allow("socket drops", now).is_some() {
            tracing::warn!(
                link = metrics.link(),
                dropped = drops - told.socket_drops,
                "the kernel dropped datagrams because the receive buffer was full; raise socket_buffer and net.core.rmem_max"
            );
        }
        told.socket_drops = drops;
        metrics.common.thread_cpu_seconds.set(Thread::Receive, thread_cpu());
        metrics.sessions_open.set(thread.receiver.sessions().count() as i64);
        metrics.window_bytes.set(thread.receiver.window_bytes() as i64);
        metrics.queue_bytes.set(thread.feed.used() as i64);
        *lock(&thread.shared.stored) = thread.receiver.stored();
    }
}

/// The metric's label; each reject has one of its own name.
fn drop_reason(reject: Reject) -> DropReason {
    DropReason::from_name(reject.as_str()).unwrap_or(DropReason::Other)
}

/// The metric's label.
fn source_state(state: ddc_wire::SourceState) -> SourceState {
    match state {
        ddc_wire::SourceState::Starting => SourceState::Starting,
        ddc_wire::SourceState::Running => SourceState::Running,
        ddc_wire::SourceState::Full => SourceState::Full,
        ddc_wire::SourceState::Paused => SourceState::Paused,
        ddc_wire::SourceState::Unreachable => SourceState::Unreachable,
        ddc_wire::SourceState::Draining => SourceState::Stopping,
    }
}

/// Bytes that a datagram takes on the wire.
fn wire_len(payload: usize, source: SocketAddr) -> usize {
    let ip = if source.is_ipv4() { 20 } else { 40 };
    (payload + ip + UDP_AND_ETHERNET).max(SHORTEST_FRAME)
}

/// WARN for what somebody should look at, DEBUG for what a path does by itself (repeats and stragglers).
fn warn_reject(
    limit: &mut RateLimit<&'static str>,
    link: &str,
    reject: Reject,
    source: SocketAddr,
    now: Instant,
) {
    let Some(suppressed) = limit.allow(reject.as_str(), now) else { return };
    let reason = reject.as_str();
    if matches!(reject, Reject::Replay | Reject::BlockOld | Reject::Duplicate) {
        tracing::debug!(link, reason, %source, suppressed, "datagram refused");
    } else {
        tracing::warn!(link, reason, %source, suppressed, "datagram refused");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;

    #[test]
    fn every_reject_has_its_own_label() {
        for reject in Reject::ALL {
            assert_eq!(drop_reason(*reject).as_str(), reject.as_str());
        }
    }

    #[test]
    fn wire_bytes_count_the_whole_frame() {
        let (v4, v6) = ("198.18.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap());
        assert_eq!(wire_len(1472, v4), 1538);
        assert_eq!(wire_len(1452, v6), 1538);
        assert_eq!(wire_len(0, v4), 84);
    }
}
