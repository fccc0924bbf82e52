//! The way out over UDP: each record is a datagram to the target of its stream.
//!
//! A record is settled when the call returns: it was handed to the kernel, or it was refused, counted and reported. Nothing is
//! kept, nothing is given again, and no target holds up another for longer than [`crate::sink::udp`] says. Positions are stored as
//! for Kafka, so after a planned stop exactly what came meanwhile is named as missing; after a crash up to a second more is, with
//! the reason `restart`, whose meaning allows for it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use ddc_link::receiver::Positions;
use ddc_telemetry::cells::Label as _;
use ddc_telemetry::log::RateLimit;
use ddc_telemetry::reasons::KafkaErrorReason;
use ddc_wire::{ChunkHeader, Record};

use super::books::Books;
use super::control::GivenUp;
use super::feed::Item;
use super::shared::lock;
use crate::config::Stream;
use crate::sink::latency::Latencies;
use crate::sink::udp::{NotSent, StreamSocket};

/// One kind of trouble of one stream is logged this often at most.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// How long the thread may wait for a batch before it should call [`DatagramOutlet::service`].
pub(super) const NAP: Duration = Duration::from_millis(50);

/// See the module's text.
pub(crate) struct DatagramOutlet {
    books: Books,
    targets: Vec<Target>,
    /// The batch that is being delivered, for its buffer.
    batch: Option<Arc<Item>>,
    /// Not yet told to telemetry.
    delivered: u64,
    latencies: Latencies,
    limit: RateLimit<(usize, KafkaErrorReason)>,
}

struct Target {
    socket: StreamSocket,
    /// Why its last datagram was not sent.
    trouble: Option<String>,
}

impl DatagramOutlet {
    pub(crate) fn new(streams: &[Stream], books: Books) -> Self {
        let now = Instant::now();
        let target =
            |stream: &Stream| Target { socket: StreamSocket::open(stream.clone(), now), trouble: None };
        // There is nobody to wait for: UDP does not answer.
        books.shared.connected.store(true, Relaxed);
        Self {
            targets: streams.iter().map(target).collect(),
            books,
            batch: None,
            delivered: 0,
            latencies: Latencies::default(),
            limit: RateLimit::new(LOG_EVERY),
        }
    }

    /// Counts and logs why something was not sent; `number` tells streams apart.
    fn trouble(&mut self, number: usize, reason: KafkaErrorReason, why: &str) {
        self.books.metrics.sink_errors.inc(reason);
        if let Some(suppressed) = self.limit.allow((number, reason), Instant::now()) {
            tracing::warn!(
                link = self.books.metrics.link(),
                reason = reason.as_str(),
                error = why,
                suppressed,
                "datagrams are not sent on"
            );
        }
    }
}

/// What [`super::deliver`] asks for. Whatever waits goes on marking the thread as alive, and ends with [`GivenUp`] when the
/// drain's time is over.
impl DatagramOutlet {
    pub(super) fn books(&self) -> &Books {
        &self.books
    }

    pub(super) fn books_mut(&mut self) -> &mut Books {
        &mut self.books
    }

    /// The records that follow come from this batch.
    pub(super) fn begin_batch(&mut self, item: Arc<Item>) {
        self.batch = Some(item);
        self.latencies.tick();
    }

    /// All records of the batch were handed over.
    pub(super) fn end_batch(&mut self) -> Result<(), GivenUp> {
        if let Some(item) = self.batch.take() {
            self.books.recycle(item);
        }
        self.service()
    }

    /// Stores these positions: everything handed over before is settled.
    pub(super) fn checkpoint(&mut self, positions: &Positions) {
        self.books.checkpoint();
        self.books.acknowledged(positions);
    }

    /// The number of a chunk's stream. The error: it goes nowhere, and why.
    pub(super) fn route(&mut self, header: &ChunkHeader<'_>) -> Result<usize, String> {
        let of = |target: &Target| target.socket.stream().name.as_str() == header.topic;
        if let Some(number) = self.targets.iter().position(of) {
            return Ok(number);
        }
        let why = format!(
            "stream {} is not in [sink.udp] streams; add it with the address that its datagrams go to",
            header.topic
        );
        self.trouble(self.targets.len(), KafkaErrorReason::UnknownTopic, &why);
        Err(why)
    }

    /// Hands a record over.
    pub(super) fn send(&mut self, slot: u32, number: usize, record: &Record<'_>) {
        let target = &mut self.targets[number];
        let sent = match record.value {
            Some(datagram) => target.socket.send(Instant::now(), datagram),
            // Of a Kafka source: a record without a value is no datagram, not even an empty one.
            None => Err(NotSent {
                reason: KafkaErrorReason::Refused,
                why: format!(
                    "stream {}: a record without a value cannot be a datagram",
                    target.socket.stream().name
                ),
            }),
        };
        match sent {
            Ok(()) => {
                target.trouble = None;
                self.delivered += 1;
                self.latencies.acknowledged(self.latencies.times(record.timestamp));
            }
            Err(NotSent { reason, why }) => {
                target.trouble = Some(why.clone());
                self.trouble(number, reason, &why);
                self.refuse(slot, record.offset, || why);
            }
        }
    }

    /// The destination will never have the record.
    pub(super) fn refuse(&mut self, slot: u32, offset: i64, why: impl FnOnce() -> String) {
        self.books.report_refused(slot, offset, why);
    }

    /// Counts, and does what is due.
    pub(super) fn service(&mut self) -> Result<(), GivenUp> {
        self.books.tick.mark();
        self.books.metrics.records_delivered.add(std::mem::take(&mut self.delivered));
        self.latencies.flush(&self.books.metrics);
        self.books.store_sessions_in_time();
        self.books.control.check()
    }

    /// Once a second: what is wrong, for `/status`.
    pub(super) fn probe(&mut self) {
        let trouble = self.targets.iter().find_map(|target| target.trouble.clone());
        *lock(&self.books.shared.sink_problem) = trouble;
    }

    /// Where datagrams go.
    pub(super) fn destinations(&self) -> Vec<String> {
        self.targets.iter().map(|target| target.socket.stream().to_string()).collect()
    }

    /// Why the last datagram to a target was not sent.
    pub(super) fn last_error(&self) -> Option<String> {
        self.targets.iter().find_map(|target| target.trouble.clone())
    }

    /// The thread ends as planned.
    pub(super) fn retire(self) {
        self.books.tick.retire();
    }
}
