//! From records to acknowledgements: hands records to the destination, keeps their batches until all is
//! settled, and gives again what came back.
//!
//! ```text
//!  begin ─ route ─ send … send ─ end          answers ──▶ ring ──▶ settled, in order
//!            │        │                                     │
//!            waits    waits when full                       failed ──▶ again (module `again`)
//! ```
//!
//! Order: records of a source partition are handed over in order, and librdkafka's idempotent producer keeps
//! it. Only a record that came back while later ones got through can arrive behind them; it then carries the
//! header `ddcLate`.
//!
//! Whatever waits here (a full queue, a missing topic, a cluster that is away) waits in [`Outlet::pause`], which
//! goes on marking the thread as alive, fetches answers, and ends when the drain's time is over.
//!
//! Bounds: [`MAX_IN_FLIGHT`] records; bytes by the queue's budget, which covers a batch until it is settled.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use ddc_kafka::errors::classify_code;
use ddc_link::receiver::{Positions, Unpacker};
use ddc_wire::{ChunkHeader, Record};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::books::Books;
use super::control::GivenUp;
use super::delivery::Delivery;
use super::feed::Item;
use super::shared::lock;
use crate::config::PartitionMode;
use crate::reason::reason;
use crate::sink::destination::{Destinations, Need, NotReady};
use crate::sink::in_flight::{InFlight, InFlightRecord, Settled};
use crate::sink::kafka::{Answer, NotTaken, Producer, Route};
use crate::sink::latency::Latencies;
use crate::sink::topics::TopicMap;

/// Records that may be handed over and not settled. As many as librdkafka's queue holds.
pub(crate) const MAX_IN_FLIGHT: usize = 100_000;
/// Answers are fetched after so many records at the latest.
const SERVICE_EVERY: u32 = 256;
/// How long a missing topic is left alone before it is asked for again.
const TOPIC_RETRY: Duration = Duration::from_secs(1);
/// How long [`Outlet::probe`] waits.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// Waits begin short, so that a full queue costs no throughput, and grow, so that an outage costs no CPU.
const SHORTEST_WAIT: Duration = Duration::from_micros(500);
const LONGEST_WAIT: Duration = Duration::from_millis(20);

/// A point between records.
#[derive(Debug)]
pub(super) enum Mark {
    /// The oldest batch held is settled.
    BatchEnd,
    /// These positions are acknowledged.
    Checkpoint(Box<Positions>),
}

/// A batch that is not settled.
pub(super) struct HeldBatch {
    pub(super) number: u64,
    pub(super) item: Arc<Item>,
}

/// Where the records of a chunk go.
#[derive(Debug, Clone)]
pub(crate) struct ChunkRoute {
    pub(super) topic: Arc<str>,
    pub(super) partition: Option<i32>,
    need: Need,
}

/// What an outlet is made of.
pub(crate) struct OutletParts {
    pub(crate) producer: Producer,
    pub(crate) destinations: Destinations,
    pub(crate) topics: TopicMap,
    pub(crate) partition_mode: PartitionMode,
    pub(crate) unpacker: Unpacker,
    pub(crate) books: Books,
}

/// See the module's text.
pub(crate) struct Outlet {
    pub(super) producer: Producer,
    pub(super) destinations: Destinations,
    topics: TopicMap,
    partition_mode: PartitionMode,
    /// For batches that are handed over again; the one that is being delivered uses another.
    pub(super) unpacker: Option<Unpacker>,
    pub(super) ring: InFlight<Mark>,
    pub(super) batches: VecDeque<HeldBatch>,
    next_batch: u64,
    next_ordinal: u32,
    pub(super) books: Books,
    answers: Vec<Answer>,
    since_service: u32,
    latencies: Latencies,
    pub(super) wait: Duration,
    /// Checkpoints in the ring.
    checkpoints: usize,
    /// When the client error that was counted last occurred.
    counted_error: Option<Instant>,
}

impl Outlet {
    pub(crate) fn new(parts: OutletParts) -> Self {
        Self {
            producer: parts.producer,
            destinations: parts.destinations,
            topics: parts.topics,
            partition_mode: parts.partition_mode,
            unpacker: Some(parts.unpacker),
            ring: InFlight::default(),
            batches: VecDeque::new(),
            next_batch: 0,
            next_ordinal: 0,
            books: parts.books,
            answers: Vec::new(),
            since_service: 0,
            latencies: Latencies::default(),
            wait: SHORTEST_WAIT,
            checkpoints: 0,
            counted_error: None,
        }
    }
}

impl Delivery for Outlet {
    type Route = ChunkRoute;

    fn books(&self) -> &Books {
        &self.books
    }

    fn books_mut(&mut self) -> &mut Books {
        &mut self.books
    }

    fn begin_batch(&mut self, item: Arc<Item>) {
        self.batches.push_back(HeldBatch { number: self.next_batch, item });
        self.next_batch += 1;
        self.next_ordinal = 0;
        self.latencies.tick();
    }

    fn end_batch(&mut self) -> Result<(), GivenUp> {
        self.ring.mark(Mark::BatchEnd);
        self.service()
    }

    fn checkpoint(&mut self, positions: Positions) {
        self.checkpoints += 1;
        self.books.checkpoint();
        self.ring.mark(Mark::Checkpoint(Box::new(positions)));
    }

    fn has_checkpoint(&self) -> bool {
        self.checkpoints > 0
    }

    fn route(&mut self, header: &ChunkHeader<'_>) -> Result<Result<ChunkRoute, String>, GivenUp> {
        self.find_route(header, true)
    }

    fn next_ordinal(&mut self) -> u32 {
        let ordinal = self.next_ordinal;
        self.next_ordinal += 1;
        ordinal
    }

    fn send(
        &mut self,
        slot: u32,
        ordinal: u32,
        late: bool,
        header: &ChunkHeader<'_>,
        route: &ChunkRoute,
        record: &Record<'_>,
    ) -> Result<(), GivenUp> {
        self.since_service += 1;
        if self.since_service >= SERVICE_EVERY {
            self.service()?;
        }
        while self.ring.records() >= MAX_IN_FLIGHT {
            self.pause(self.wait)?;
            self.service()?;
        }
        let batch = self.next_batch - 1;
        let place = InFlightRecord {
            batch,
            ordinal,
            slot,
            offset: record.offset,
            late,
            times: self.latencies.times(record.timestamp),
        };
        loop {
            let number = self.ring.push(place);
            if self.hand_over(number, late, header, route, record) {
                return Ok(());
            }
            self.ring.unpush();
            self.pause(self.wait)?;
            self.service()?;
        }
    }

    fn refuse(&mut self, slot: u32, offset: i64, why: impl FnOnce() -> String) {
        self.books.refuse(slot, offset, why);
    }

    fn service(&mut self) -> Result<(), GivenUp> {
        self.pump();
        if self.ring.failures() > 0 || self.producer.fatal().is_some() {
            self.give_again()?;
        }
        Ok(())
    }

    fn pause(&mut self, how_long: Duration) -> Result<(), GivenUp> {
        let until = Instant::now() + how_long;
        loop {
            self.pump();
            self.books.control.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.wait = (self.wait * 2).min(LONGEST_WAIT);
                return Ok(());
            }
            thread::sleep(left.min(LONGEST_WAIT));
        }
    }

    fn nap(&mut self) -> Duration {
        if self.ring.is_empty() {
            return Duration::from_millis(50);
        }
        let wait = self.wait;
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        wait.max(Duration::from_millis(1))
    }

    fn is_idle(&self) -> bool {
        self.ring.is_empty()
    }

    fn in_flight(&self) -> usize {
        self.ring.records()
    }

    fn probe(&mut self) {
        let error = self.producer.reporter().last_error();
        let doubtful = error.is_some() || !self.books.shared.connected.load(Relaxed);
        // What keeps the client as a whole away (a wrong password) comes back with no record: it is counted here.
        if let Some(error) = error.filter(|error| self.counted_error != Some(error.at)) {
            self.counted_error = Some(error.at);
            self.books.metrics.sink_errors.inc(reason(error.verdict));
        }
        if doubtful && self.ring.is_empty() && self.producer.topics(PROBE_TIMEOUT).is_ok() {
            self.producer.reporter().clear_error();
            self.books.shared.connected.store(true, Relaxed);
        }
        self.books.tick.mark();
    }

    fn destinations(&self) -> Vec<String> {
        self.topics.destinations().map(ToString::to_string).collect()
    }

    fn last_error(&self) -> Option<String> {
        self.producer.reporter().last_error().map(|error| error.text)
    }

    fn retire(self) {
        self.books.tick.retire();
    }
}

impl Outlet {
    /// As [`Self::route`]; without `serve`, what came back stays so meanwhile.
    pub(super) fn find_route(
        &mut self,
        header: &ChunkHeader<'_>,
        serve: bool,
    ) -> Result<Result<ChunkRoute, String>, GivenUp> {
        let topic = match self.topics.destination(header.topic) {
            Ok(topic) => topic,
            Err(name) => {
                return Ok(Err(format!("the topic map makes {name:?} of it, which is no topic name")));
            }
        };
        let partition = (self.partition_mode == PartitionMode::Keep).then_some(header.partition);
        let need = Need {
            partition: partition.and_then(|partition| u32::try_from(partition).ok()),
            source_partitions: header.partition_count,
        };
        let route = ChunkRoute { topic, partition, need };
        if self.destinations.is_ready(&route.topic, need) {
            return Ok(Ok(route));
        }
        loop {
            if serve {
                self.service()?;
            }
            match self.prepare(&route) {
                Ok(()) => return Ok(Ok(route)),
                Err(NotReady::Wait) => self.pause(TOPIC_RETRY)?,
                Err(NotReady::TooFewPartitions(has)) => {
                    return Ok(Err(format!(
                        "topic {} has {has} partitions at the destination and create_topics = false; add partitions, or set partition = \"hash\"",
                        route.topic
                    )));
                }
            }
        }
    }

    /// The destination topic of a source topic turned out to be other than remembered.
    pub(super) fn forget_topic(&mut self, source: &str) {
        if let Ok(topic) = self.topics.destination(source) {
            self.destinations.forget(&topic);
        }
    }

    /// Asks for the topic once more; new partitions are made known to the producer.
    fn prepare(&mut self, route: &ChunkRoute) -> Result<(), NotReady> {
        self.books.tick.mark();
        let ready = self.destinations.prepare(&route.topic, route.need);
        self.books.tick.mark();
        *lock(&self.books.shared.sink_problem) = self.destinations.waiting().map(str::to_owned);
        if ready.is_ok() {
            self.producer.refresh(&route.topic, Duration::from_secs(1));
        }
        ready
    }

    /// Gives a record to the producer under its number; false: no room now.
    pub(super) fn hand_over(
        &mut self,
        number: usize,
        late: bool,
        header: &ChunkHeader<'_>,
        route: &ChunkRoute,
        record: &Record<'_>,
    ) -> bool {
        let to = Route {
            topic: &route.topic,
            partition: route.partition,
            source_topic: header.topic,
            source_partition: header.partition,
            late,
        };
        match self.producer.send(record, to, number) {
            Ok(0) => true,
            Ok(changed) => {
                self.warn_of_names(header, record.offset, changed);
                true
            }
            Err(NotTaken::Full) => false,
            Err(NotTaken::Refused(code)) => {
                self.came_back(number, code);
                true
            }
        }
    }

    /// Fetches answers and lets go of what is settled.
    pub(super) fn pump(&mut self) {
        self.books.tick.mark();
        self.since_service = 0;
        let mut answers = std::mem::take(&mut self.answers);
        self.producer.answers(&mut answers);
        self.latencies.tick();
        if !answers.is_empty() {
            self.wait = SHORTEST_WAIT;
        }
        let mut delivered = 0;
        for (number, answer) in answers.drain(..) {
            match answer {
                Ok(()) => {
                    if let Some(record) = self.ring.done(number) {
                        self.latencies.acknowledged(record.times);
                    }
                    delivered += 1;
                }
                Err(code) => self.came_back(number, code),
            }
        }
        self.answers = answers;
        if delivered > 0 {
            self.books.metrics.records_delivered.add(delivered);
            self.latencies.flush(&self.books.metrics);
            self.books.shared.connected.store(true, Relaxed);
        }
        self.books.shared.in_flight.store(self.ring.records() as u64, Relaxed);
        while let Some(settled) = self.ring.pop() {
            match settled {
                Settled::Record(_) => {}
                Settled::Mark(Mark::BatchEnd) => {
                    if let Some(batch) = self.batches.pop_front() {
                        self.books.recycle(batch.item);
                    }
                }
                Settled::Mark(Mark::Checkpoint(positions)) => {
                    self.checkpoints -= 1;
                    self.books.acknowledged(&positions);
                }
            }
        }
        // Here, since a destination that is away can hold the thread in `pause` for hours.
        self.books.store_sessions_in_time();
    }

    fn came_back(&mut self, number: usize, code: Code) {
        self.ring.failed(number, code);
        let verdict = classify_code(code);
        self.books.metrics.sink_errors.inc(reason(verdict));
        if let Some(suppressed) = self.books.limit.allow(verdict.reason, Instant::now()) {
            tracing::warn!(
                link = self.books.metrics.link(),
                reason = verdict.reason,
                error = %code,
                advice = verdict.advice,
                suppressed,
                "the destination did not take records"
            );
        }
    }

    fn warn_of_names(&mut self, header: &ChunkHeader<'_>, offset: i64, changed: u32) {
        if let Some(suppressed) = self.books.limit.allow("header names", Instant::now()) {
            tracing::warn!(
                link = self.books.metrics.link(),
                topic = header.topic,
                partition = header.partition,
                offset,
                changed,
                suppressed,
                "header names that are not UTF-8 were changed: their bad bytes became U+FFFD"
            );
        }
    }
}
