//! The UDP source: datagrams from a few sockets, each a record of its stream; one thread reads and packs.
//!
//! ```text
//!  sockets, one per stream ─▶ recvmmsg, as it comes ─▶ packer ─▶ blocks, at most [link] buffer ─▶ link thread
//!    └─ the kernel drops        └─ too large: dropped   └─ full: dropped
//! ```
//!
//! Nothing here can be asked again and no sender can be told to wait, so what finds no room is dropped and counted:
//! datagrams that came = packed + `ddc_ingress_source_drops_total`, by reason. Only what is packed gets an offset; offsets of a
//! stream count from 0 in every life of the ingress, and the life's start stands in for a topic id. So what is lost later
//! is found, counted and named by the egress as for Kafka.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use crossbeam_channel::Sender as BlockSender;
use ddc_link::sender::{PackError, PackedBlock, Packer, PartitionStart, Slot};
use ddc_telemetry::catalogue::IngressMetrics;
use ddc_telemetry::exposition::LinkMetrics;
use ddc_telemetry::log::RateLimit;
use ddc_telemetry::notify::Tick;
use ddc_telemetry::process::thread_cpu;
use ddc_telemetry::reasons::{SkipReason, SourceDropReason, Thread};
use ddc_udp::clock::wall_clock_micros;
use ddc_udp::{OpenError, ReceiveBatch, ReceiverOptions, ReceiverSocket};
use ddc_wire::{Epoch, RecordHeader, SourceState, Timestamp, TopicId};
use serde::{Deserialize, Serialize};

use super::commit::CommitLog;
use super::outlet::{Outlet, ROOM_WAIT, Record};
use super::preflight::SourceReport;
use crate::config::{IngressConfig, Stream, UdpSource as Settings};
use crate::ingress::Shared;
use crate::sink::preflight::{Finding, Severity};
use crate::state::{StateDir, StateError};

/// Reads of one socket in one turn, each of at most [`ddc_udp::BATCH`] datagrams: so no stream starves the others, and blocks
/// leave in between.
const READS: usize = 4;
/// Turns that a stop may still read what waits in the kernel; senders that go on are not waited for.
const LAST_TURNS: usize = 1024;
/// The longest wait for a datagram: it bounds how late a stop and the watchdog are served.
const LONGEST_WAIT: Duration = Duration::from_millis(20);
/// How often drops, lag and `/status` are brought up to date.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// One kind of trouble is logged this often at most.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// The state file, and its version.
const FILE: &str = "streams.json";
const FORMAT: u32 = 1;

/// The thread's state; made by [`UdpSource::open`], run by [`UdpSource::run`].
pub struct UdpSource {
    link: Arc<str>,
    metrics: Arc<LinkMetrics<IngressMetrics>>,
    shared: Arc<Shared>,
    outlet: Outlet,
    streams: Vec<Open>,
    batch: ReceiveBatch,
    /// Datagrams packed, less those that a session took with it when it had to end at once.
    packed: u64,
    next_report: Instant,
    limit: RateLimit<(usize, &'static str)>,
}

/// A stream and its socket.
struct Open {
    stream: Stream,
    socket: ReceiverSocket,
    slot: Slot,
    /// The offset of the next datagram that is packed.
    next: i64,
    counted: Tally,
    /// Why the socket cannot be read.
    error: Option<io::Error>,
}

/// What `/status` shows of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Tally {
    datagrams: u64,
    bytes: u64,
    too_large: u64,
    buffer_full: u64,
    kernel: u64,
}

/// What a [`UdpSource`] is made of.
pub struct Parts<'a> {
    /// The configuration.
    pub config: &'a IngressConfig,
    /// `[source.udp]`.
    pub settings: &'a Settings,
    /// A packer without partitions.
    pub packer: Packer,
    /// Towards the link thread.
    pub blocks: BlockSender<PackedBlock>,
    /// What the threads tell each other.
    pub shared: Arc<Shared>,
    /// The state directory.
    pub state: &'a StateDir,
    /// The link's metrics.
    pub metrics: Arc<LinkMetrics<IngressMetrics>>,
}

impl UdpSource {
    /// Opens every socket or none.
    pub fn open(parts: Parts<'_>) -> anyhow::Result<Self> {
        let Parts { config, settings, mut packer, blocks, shared, state, metrics } = parts;
        let life = begin_life(state, wall_clock_micros())?;
        let link: Arc<str> = config.link.name.as_str().into();
        let mut streams = Vec::new();
        for stream in &settings.streams {
            let socket = open(stream, settings).with_context(|| format!("stream {}", stream.name))?;
            let grant = socket.buffer();
            if let Some(shortfall) = grant.shortfall() {
                tracing::warn!(link = &*link, stream = stream.name.as_str(), "{shortfall}");
            }
            tracing::info!(
                link = &*link,
                stream = stream.name.as_str(),
                listen = %socket.local_addr(),
                receive_buffer = grant.granted,
                "stream opened"
            );
            let slot = packer.assign(PartitionStart {
                topic: stream.name.as_str().into(),
                topic_id: TopicId::Configured(life),
                partition: 0,
                partition_count: 1,
                epoch: Epoch(life),
                origin: 0,
                previous: None,
                count: 0,
                next: 0,
            })?;
            let stream = stream.clone();
            streams.push(Open { stream, socket, slot, next: 0, counted: Tally::default(), error: None });
        }
        metrics.assigned_partitions.set(streams.len() as i64);
        // Nothing is committed: a log without partitions keeps nothing.
        let log = CommitLog::new(Duration::ZERO);
        let outlet =
            Outlet::new(packer, log, blocks, Arc::clone(&shared), Arc::clone(&metrics), config.buffer.0);
        Ok(Self {
            link,
            metrics,
            shared,
            outlet,
            streams,
            batch: ReceiveBatch::with_room(settings.max_datagram.0 as usize),
            packed: 0,
            next_report: Instant::now(),
            limit: RateLimit::new(LOG_EVERY),
        })
    }

    /// Runs until a stop is asked for and what is packed has been sent, or `drain` has passed since.
    pub fn run(mut self, tick: &Tick, drain: Duration) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            tick.mark();
            self.turn(Instant::now());
            self.wait();
            self.read();
        }
        self.drain(tick, drain);
    }

    /// Everything but reading: what must happen in time even when no datagram comes.
    fn turn(&mut self, now: Instant) {
        self.note_sent(now);
        self.outlet.move_blocks(now);
        let full = self.outlet.is_full();
        self.shared.set_source_state(if full { SourceState::Full } else { SourceState::Running });
        if now >= self.next_report {
            self.next_report = now + REPORT_EVERY;
            self.report();
        }
    }

    fn wait(&self) {
        if self.outlet.is_full() {
            // A flood finds no room anyway: the kernel drops what does not fit its buffer, at less cost than here.
            std::thread::sleep(ROOM_WAIT);
            return;
        }
        let now = Instant::now();
        let due = self.outlet.packer.next_deadline().map(|at| at.saturating_duration_since(now));
        // A lingering block that only waits for the link is looked at each millisecond.
        let wait = due.map_or(LONGEST_WAIT, |due| due.max(ROOM_WAIT)).min(LONGEST_WAIT);
        // A wait that fails is one that ends early; the socket's own error shows when it is read.
        if ReceiverSocket::wait_for_any(self.streams.iter().map(|open| &open.socket), wait).is_err() {
            std::thread::sleep(ROOM_WAIT);
        }
    }

    /// Takes what waits in the sockets, a bounded part of it. `false`: nothing did.
    fn read(&mut self) -> bool {
        let mut any = false;
        for number in 0..self.streams.len() {
            for _ in 0..READS {
                let read = self.streams[number].socket.receive(&mut self.batch, Duration::ZERO);
                match read {
                    Ok(count) => {
                        self.streams[number].error = None;
                        self.pack(number);
                        any |= count > 0;
                        if count < ddc_udp::BATCH {
                            break;
                        }
                    }
                    Err(error) => {
                        self.on_read_error(number, error);
                        break;
                    }
                }
            }
        }
        self.outlet.move_blocks(Instant::now());
        any
    }

    /// Packs the datagrams of one read.
    fn pack(&mut self, number: usize) {
        let timestamp = Timestamp::Create((wall_clock_micros() / 1000) as i64);
        let open = &mut self.streams[number];
        let before = open.counted;
        let mut failed = None;
        let mut packed = 0;
        for datagram in self.batch.datagrams() {
            open.counted.datagrams += 1;
            open.counted.bytes += datagram.wire_bytes as u64;
            if datagram.truncated {
                open.counted.too_large += 1;
                continue;
            }
            let record = Record {
                offset: open.next,
                timestamp: Some(timestamp),
                key: None,
                value: Some(&*datagram.bytes),
                headers: std::iter::empty::<RecordHeader<'_>>(),
            };
            match self.outlet.push(open.slot, &record) {
                Ok(()) => {
                    open.next += 1;
                    packed += 1;
                }
                Err(PackError::Full) => open.counted.buffer_full += 1,
                Err(error) => failed = Some(error),
            }
        }
        self.packed += packed;
        let after = open.counted;
        self.metrics.records_read.add(after.datagrams - before.datagrams);
        self.metrics.source_drops.add(SourceDropReason::TooLarge, after.too_large - before.too_large);
        self.metrics.source_drops.add(SourceDropReason::BufferFull, after.buffer_full - before.buffer_full);
        if after.too_large > before.too_large {
            self.warn(
                number,
                "too_large",
                "datagrams longer than max_datagram were dropped; raise it in [source.udp]",
            );
        }
        if after.buffer_full > before.buffer_full {
            self.warn(
                number,
                "buffer_full",
                "datagrams were dropped: more come than `rate` lets go, and [link] buffer is full",
            );
        }
        if let Some(error) = failed {
            // The packer was made for these datagrams and this partition: a fault of this program, counted all the same.
            let lost = after.datagrams
                - before.datagrams
                - packed
                - (after.too_large - before.too_large)
                - (after.buffer_full - before.buffer_full);
            self.metrics.records_skipped.add(SkipReason::Other, lost);
            tracing::error!(link = &*self.link, %error, lost, "datagrams cannot be packed, a fault of this program");
        }
    }

    fn warn(&mut self, number: usize, kind: &'static str, message: &'static str) {
        if let Some(suppressed) = self.limit.allow((number, kind), Instant::now()) {
            let open = &self.streams[number];
            tracing::warn!(
                link = &*self.link,
                stream = open.stream.name.as_str(),
                too_large = open.counted.too_large,
                buffer_full = open.counted.buffer_full,
                kernel = open.counted.kernel,
                suppressed,
                "{message}"
            );
        }
    }

    fn on_read_error(&mut self, number: usize, error: io::Error) {
        if let Some(suppressed) = self.limit.allow((number, "socket"), Instant::now()) {
            let stream = &self.streams[number].stream;
            tracing::warn!(link = &*self.link, stream = stream.name.as_str(), %error, suppressed, "a socket cannot be read");
        }
        self.streams[number].error = Some(error);
    }

    /// What a session took with it cannot be read again. The offsets are used up, so the egress names it.
    fn note_sent(&mut self, now: Instant) {
        if self.outlet.note_sent(now) {
            let lost = self.lag();
            self.packed -= lost;
            tracing::error!(
                link = &*self.link,
                datagrams = lost,
                "datagrams were packed and not sent, since their session had to end at once; the egress names them"
            );
        }
    }

    /// Datagrams that are packed and not sent.
    fn lag(&self) -> u64 {
        self.packed.saturating_sub(self.metrics.records_sent.value())
    }

    fn report(&mut self) {
        self.metrics.common.thread_cpu_seconds.set(Thread::Source, thread_cpu());
        self.shared.lag.store(self.lag(), Ordering::Relaxed);
        let mut notes = serde_json::Map::new();
        for number in 0..self.streams.len() {
            let open = &mut self.streams[number];
            let drops = open.socket.socket_drops();
            let news = drops - open.counted.kernel;
            open.counted.kernel = drops;
            notes.insert(
                open.stream.name.to_string(),
                serde_json::json!({
                    "listen": open.socket.local_addr().to_string(),
                    "receive_buffer_bytes": open.socket.buffer().granted,
                    "counted": open.counted,
                }),
            );
            self.metrics.source_drops.add(SourceDropReason::Kernel, news);
            if news > 0 {
                self.warn(
                    number,
                    "kernel",
                    "the kernel dropped datagrams: the socket's buffer was full; raise `receive_buffer` in [source.udp]",
                );
            }
        }
        self.shared.set_note("streams", notes.into());
        let error =
            self.streams.iter().find_map(|open| open.error.as_ref().map(|error| (&open.stream, error)));
        let problem = error.map(|(stream, error)| format!("stream {stream} cannot be read: {error}"));
        self.shared.set_problem("source", problem);
    }

    /// Takes what waits in the kernel, closes the sockets (whoever sends on is told by its own kernel), and sends all.
    fn drain(&mut self, tick: &Tick, bound: Duration) {
        let deadline = Instant::now() + bound;
        self.shared.set_source_state(SourceState::Draining);
        for _ in 0..LAST_TURNS {
            tick.mark();
            if !self.read() || self.outlet.is_full() {
                break;
            }
        }
        self.report();
        self.streams.clear();
        self.outlet.packer.flush(Instant::now());
        loop {
            tick.mark();
            let now = Instant::now();
            self.outlet.move_blocks(now);
            self.note_sent(now);
            if self.outlet.is_sent() {
                break;
            }
            if now >= deadline || self.outlet.is_cut_off() {
                tracing::error!(
                    link = &*self.link,
                    datagrams = self.lag(),
                    "the drain ends with datagrams unsent; they are lost"
                );
                break;
            }
            std::thread::sleep(ROOM_WAIT);
        }
        self.shared.lag.store(self.lag(), Ordering::Relaxed);
        self.shared.source_done.store(true, Ordering::Release);
    }
}

fn open(stream: &Stream, settings: &Settings) -> Result<ReceiverSocket, OpenError> {
    let mut options = ReceiverOptions::new(stream.address);
    options.receive_buffer = settings.receive_buffer.0 as usize;
    ReceiverSocket::open(&options)
}

/// What is kept of the streams: the start of the present life, in µs since 1970.
#[derive(Debug, Serialize, Deserialize)]
struct Life {
    format: u32,
    start: u64,
}

/// The start of this life: the clock, but later than every life before. Two lives of one start would share offsets, and the
/// egress would take the second for a repetition of the first.
fn begin_life(state: &StateDir, now_micros: u64) -> Result<u64, StateError> {
    // A file of another version is left behind by a rollback; all that counts is to be later than it.
    let former = state.read::<Life>(FILE)?.map_or(0, |life| life.start);
    let start = now_micros.max(former.saturating_add(1));
    state.write(FILE, &Life { format: FORMAT, start })?;
    Ok(start)
}

/// Looks whether the streams' addresses can be listened on: opens and closes them, and takes nothing away from an ingress
/// that runs.
pub(super) fn preflight(settings: &Settings) -> SourceReport {
    let findings = settings.streams.iter().map(|stream| look(stream, settings)).collect();
    let topics = settings.streams.iter().map(|stream| stream.name.to_string()).collect();
    SourceReport { findings, topics }
}

fn look(stream: &Stream, settings: &Settings) -> Finding {
    let (severity, text) = match open(stream, settings) {
        Ok(socket) => match socket.buffer().shortfall() {
            None => (Severity::Good, format!("stream {stream} can be listened on")),
            Some(shortfall) => {
                (Severity::Warning, format!("stream {stream} can be listened on; {shortfall}"))
            }
        },
        Err(OpenError::Bind { cause, .. }) if cause.kind() == io::ErrorKind::AddrInUse => {
            let text = format!(
                "stream {stream} is listened on by another program; by this ingress, if it runs (ss -lunp shows it)"
            );
            (Severity::Warning, text)
        }
        Err(error) => (Severity::Problem, format!("stream {stream}: {error}")),
    };
    Finding { severity, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that is set back must not make an egress take new datagrams for old ones.
    #[test]
    fn every_life_begins_later_than_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::open(directory.path()).unwrap();
        let lives: Vec<u64> =
            [1000, 1000, 5, 2000].map(|now| begin_life(&state, now).unwrap()).into_iter().collect();
        assert_eq!(lives, [1000, 1001, 1002, 2000]);
    }

    #[test]
    fn a_look_tells_what_is_free_in_use_and_not_ours() {
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let stream = |name: &str, address| Stream { name: name.parse().unwrap(), address };
        let settings = Settings {
            streams: vec![
                stream("free", free),
                stream("taken", taken.local_addr().unwrap()),
                stream("foreign", "198.51.100.1:9".parse().unwrap()),
            ],
            max_datagram: crate::config::ByteSize(8 << 10),
            receive_buffer: crate::config::ByteSize(64 << 10),
        };
        let report = preflight(&settings);
        let severities: Vec<_> = report.findings.iter().map(|finding| finding.severity).collect();
        assert_eq!(severities, [Severity::Good, Severity::Warning, Severity::Problem], "{report:?}");
        assert!(report.findings[1].text.contains("ss -lunp"), "{report:?}");
        assert!(report.findings[2].text.contains("198.51.100.1:9"), "{report:?}");
        assert_eq!(report.topics, ["free", "taken", "foreign"]);
    }
}
