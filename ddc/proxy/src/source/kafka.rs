//! The Kafka source: a member of a consumer group whose one thread reads, packs and commits.
//!
//! ```text
//!  group events ─▶ assigned ─▶ starting (ids, commits, epoch) ─▶ reading ─▶ packer ─▶ blocks ─▶ link thread
//!                  revoked ──▶ commit by the rule ──▶ given up               ▲                    │
//!                                                        commit log ◀── blocks sent (a counter) ──┘
//! ```
//!
//! Nothing is dropped here: when what waits for the link reaches `[link] buffer`, reading pauses. Kafka keeps the rest.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender as BlockSender;
use ddc_kafka::batch::{ReadError, Record};
use ddc_kafka::commit::CommitError;
use ddc_kafka::errors::{Kind, Verdict, classify};
use ddc_kafka::group::{GroupEvent, GroupMember};
use ddc_link::sender::{Mark, PackError, PackedBlock, Packer, Slot};
use ddc_telemetry::catalogue::IngressMetrics;
use ddc_telemetry::cells::Label;
use ddc_telemetry::exposition::LinkMetrics;
use ddc_telemetry::log::RateLimit;
use ddc_telemetry::notify::Tick;
use ddc_telemetry::reasons::{KafkaErrorReason, SkipReason};
use ddc_wire::{RecordHeader, SourceState, Timestamp};
use rdkafka::{Offset, TopicPartitionList};

use super::commit::CommitLog;
use super::metadata::CommitMetadata;
use super::outlet::{Outlet, ROOM_WAIT, Record as Packable};
use super::start::Start;
use super::starting::{Starting, Step, failure};
use super::topics::TopicWatch;
use crate::config::{CommitOnStop, IngressConfig, TopicPattern};
use crate::ingress::Shared;
use crate::state::StateDir;

/// Most records of one read. Between two reads group events, blocks and commits are served.
pub const BATCH_RECORDS: usize = 1024;
/// How often what may be committed is committed, unless `commit_delay` is shorter.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// The longest wait for records: it bounds how late group events, a stop and the watchdog are served.
const LONGEST_WAIT: Duration = Duration::from_millis(20);
/// How long the last commit of a partition may take before it is given up without it.
const LAST_COMMIT: Duration = Duration::from_secs(5);
/// How often the lag is worked out.
const LAG_EVERY: Duration = Duration::from_secs(1);

/// A partition that is being read.
struct Reading {
    slot: Slot,
    topic: Arc<str>,
    partition: i32,
    /// The next offset to be sent, by what the link thread has handed to the kernel.
    sent_end: i64,
    /// What goes into the commit's metadata besides the mark.
    start: Start,
}

/// The thread's state; made by [`KafkaSource::new`], run by [`KafkaSource::run`].
pub struct KafkaSource {
    config: Arc<IngressConfig>,
    link: Arc<str>,
    metrics: Arc<LinkMetrics<IngressMetrics>>,
    shared: Arc<Shared>,
    member: GroupMember,
    outlet: Outlet,
    reading: HashMap<Slot, Reading>,
    slots: HashMap<(Arc<str>, i32), Slot>,
    starting: Starting,
    topics: TopicWatch,
    next_commit: Instant,
    next_lag: Instant,
    limit: RateLimit<String>,
}

impl KafkaSource {
    /// Joins the group; partitions come once the broker answers.
    pub fn new(
        config: Arc<IngressConfig>,
        member: GroupMember,
        packer: Packer,
        blocks: BlockSender<PackedBlock>,
        shared: Arc<Shared>,
        state: Arc<StateDir>,
        metrics: Arc<LinkMetrics<IngressMetrics>>,
    ) -> anyhow::Result<Self> {
        let topics: Vec<&str> = config.source.topics.iter().map(TopicPattern::as_str).collect();
        member.subscribe(&topics)?;
        let now = Instant::now();
        let link: Arc<str> = config.link.name.as_str().into();
        Ok(Self {
            outlet: Outlet::new(
                packer,
                CommitLog::new(config.source.commit_delay),
                blocks,
                Arc::clone(&shared),
                Arc::clone(&metrics),
                config.buffer.0,
            ),
            starting: Starting::new(state)?,
            topics: TopicWatch::new(member.consumer(), config.source.topic_epoch, Arc::clone(&link)),
            config,
            link,
            metrics,
            shared,
            member,
            reading: HashMap::new(),
            slots: HashMap::new(),
            next_commit: now,
            next_lag: now,
            limit: RateLimit::new(Duration::from_secs(10)),
        })
    }

    /// Runs until a stop is asked for and what is packed has been sent, or `drain` has passed since.
    pub fn run(mut self, tick: &Tick, drain: Duration) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            tick.mark();
            self.turn(Instant::now());
            if self.outlet.is_full() {
                std::thread::sleep(ROOM_WAIT);
            } else {
                self.read(tick, self.wait(Instant::now()));
            }
        }
        self.drain(tick, drain);
    }

    /// Everything but reading: what must happen in time even when no record comes.
    fn turn(&mut self, now: Instant) {
        while let Some(event) = self.member.serve() {
            self.on_group_event(event, now);
        }
        self.serve_starting(now);
        self.serve_topics(now);
        self.note_sent(now);
        self.outlet.move_blocks(now);
        if now >= self.next_commit {
            self.next_commit = now + COMMIT_EVERY.min(self.config.source.commit_delay.max(ROOM_WAIT));
            let marks = self.outlet.log.take_committable(now);
            self.commit(&marks);
        }
        if now >= self.next_lag {
            self.next_lag = now + LAG_EVERY;
            self.measure_lag();
        }
        self.report_state();
    }

    fn wait(&self, now: Instant) -> Duration {
        let deadline = self.outlet.packer.next_deadline().map(|at| at.saturating_duration_since(now));
        // A lingering block that only waits for the link is looked at each millisecond.
        let wait = deadline.map_or(LONGEST_WAIT, |wait| wait.max(ROOM_WAIT));
        wait.min(LONGEST_WAIT)
    }

    fn read(&mut self, tick: &Tick, wait: Duration) {
        let batch = self.member.read(wait);
        if batch.is_empty() {
            return;
        }
        let mut failed = Vec::new();
        let mut known: Option<(Slot, &str, i32)> = None;
        let mut read = 0;
        for record in batch.iter() {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    failed.push(error);
                    continue;
                }
            };
            read += 1;
            let (topic, partition) = (record.topic(), record.partition());
            let slot = match known {
                Some((slot, of, number)) if number == partition && of == topic => slot,
                _ => match self.slots.get(&(Arc::from(topic), partition)) {
                    Some(slot) => *slot,
                    // Given up since it was fetched; the next owner reads it.
                    None => continue,
                },
            };
            known = Some((slot, topic, partition));
            match self.outlet.push(tick, slot, &packable(record)) {
                Ok(()) => {}
                // A stop: what is left of the batch was not packed and is not committed.
                Err(PackError::Full) => break,
                Err(error) => skip(&self.link, &self.metrics, &mut self.outlet.packer, slot, record, &error),
            }
        }
        drop(batch);
        self.metrics.records_read.add(read);
        for error in failed {
            self.on_read_error(&error);
        }
        self.outlet.move_blocks(Instant::now());
    }

    fn note_sent(&mut self, now: Instant) {
        self.outlet.note_sent(now);
        for reading in self.reading.values_mut() {
            if let Some(mark) = self.outlet.log.newest_sent(reading.slot) {
                reading.sent_end = mark.end;
            }
        }
    }

    // --- the group ------------------------------------------------------------------------------------------------

    fn on_group_event(&mut self, event: GroupEvent, now: Instant) {
        match event {
            GroupEvent::Assigned(partitions) => {
                self.metrics.rebalances.inc();
                tracing::info!(link = &*self.link, partitions = partitions.count(), "partitions assigned");
                self.starting.add(&partitions);
            }
            GroupEvent::Revoked { partitions, lost } => {
                self.metrics.rebalances.inc();
                tracing::info!(
                    link = &*self.link,
                    partitions = partitions.count(),
                    lost,
                    "partitions revoked"
                );
                self.starting.remove(&partitions);
                let slots: Vec<Slot> = self.slots_of(&partitions);
                if !lost {
                    self.last_commit(&slots, now, CommitOnStop::Delayed);
                }
                self.give_up(&slots);
                if let Err(error) = self.member.release(&partitions) {
                    self.on_error(&classify(&error), &error.to_string());
                }
            }
            GroupEvent::Committed(result) => {
                self.starting.on_committed(&result);
                match failure(&result) {
                    None => self.metrics.commits.inc(),
                    Some(error) => self.on_commit_failure(error, now),
                }
            }
            GroupEvent::Failed(error) => self.on_error(&classify(&error), &error.to_string()),
            GroupEvent::Stray { topic, partition, offset } => {
                let mut list = TopicPartitionList::new();
                list.add_partition(&topic, partition);
                tracing::warn!(
                    link = &*self.link,
                    topic,
                    partition,
                    offset,
                    "a record came past the queue; the partition starts again"
                );
                self.restart(&list);
            }
        }
    }

    fn on_commit_failure(&mut self, error: CommitError, now: Instant) {
        self.metrics.commit_failures.inc();
        if let Some(suppressed) = self.limit.allow("commit".into(), now) {
            tracing::warn!(link = &*self.link, %error, reason = error.verdict().reason, suppressed,
                "offsets were not committed; they are tried again, nothing is lost");
        }
    }

    fn on_read_error(&mut self, error: &ReadError) {
        let verdict = error.verdict();
        self.on_error(&verdict, &error.to_string());
        if verdict.kind == Kind::OffsetGone {
            let mut list = TopicPartitionList::new();
            list.add_partition(&error.topic, error.partition);
            self.restart(&list);
        }
    }

    fn on_error(&mut self, verdict: &Verdict, error: &str) {
        self.metrics
            .source_errors
            .inc(KafkaErrorReason::from_name(verdict.reason).unwrap_or(KafkaErrorReason::Other));
        if verdict.kind != Kind::OffsetGone {
            self.shared
                .set_problem("source", Some(format!("the source's Kafka: {error}; {}", verdict.advice)));
        }
        if let Some(suppressed) = self.limit.allow(verdict.reason.to_owned(), Instant::now()) {
            tracing::warn!(
                link = &*self.link,
                error,
                reason = verdict.reason,
                advice = verdict.advice,
                suppressed,
                "the source's Kafka reported an error"
            );
        }
    }

    /// Gives partitions up without leaving them to others, and starts them again from what the group has committed.
    fn restart(&mut self, partitions: &TopicPartitionList) {
        let slots = self.slots_of(partitions);
        self.give_up(&slots);
        if let Err(error) = self.member.release(partitions) {
            self.on_error(&classify(&error), &error.to_string());
        }
        self.starting.add(partitions);
    }

    fn slots_of(&self, partitions: &TopicPartitionList) -> Vec<Slot> {
        let of = |topic: &str, partition| self.slots.get(&(Arc::from(topic), partition)).copied();
        partitions.elements().iter().filter_map(|element| of(element.topic(), element.partition())).collect()
    }

    fn give_up(&mut self, slots: &[Slot]) {
        for slot in slots {
            self.outlet.packer.revoke(*slot);
            self.outlet.log.forget(*slot);
            if let Some(reading) = self.reading.remove(slot) {
                self.slots.remove(&(reading.topic, reading.partition));
            }
        }
        self.metrics.assigned_partitions.set(self.reading.len() as i64);
    }

    // --- starting -------------------------------------------------------------------------------------------------

    fn serve_starting(&mut self, now: Instant) {
        match self.starting.step(now, &self.config.source, &self.link, &mut self.member, &mut self.topics) {
            Step::Nothing => {}
            Step::Problem(sentence) => self.shared.set_problem("start", Some(sentence)),
            Step::Begin { offsets, starts } => self.begin(&offsets, starts),
        }
    }

    /// The start commits are acknowledged: from here on records of these partitions may be sent.
    fn begin(&mut self, offsets: &TopicPartitionList, starts: Vec<Start>) {
        for start in starts {
            let (topic, partition) = (Arc::clone(&start.partition.topic), start.partition.partition);
            match self.outlet.packer.assign(start.partition.clone()) {
                Ok(slot) => {
                    self.outlet.log.start(slot);
                    self.slots.insert((Arc::clone(&topic), partition), slot);
                    let sent_end = start.partition.next;
                    self.topics.watch(&topic, start.partition.topic_id);
                    self.reading.insert(slot, Reading { slot, topic, partition, sent_end, start });
                }
                Err(error) => {
                    tracing::error!(link = &*self.link, topic = &*topic, partition, %error,
                        "this partition cannot be carried; its records stay in Kafka");
                    self.shared.set_problem(
                        "packer",
                        Some(format!("{topic}[{partition}] cannot be carried: {error}")),
                    );
                }
            }
        }
        if let Err(error) = self.member.assign(offsets) {
            self.on_error(&classify(&error), &error.to_string());
        }
        self.metrics.assigned_partitions.set(self.reading.len() as i64);
        self.shared.set_problem("start", None);
        self.shared.set_problem("source", None);
    }

    fn serve_topics(&mut self, now: Instant) {
        let recreated = self.topics.step(now);
        for topic in recreated {
            self.metrics.topics_recreated.inc();
            let mut list = TopicPartitionList::new();
            for reading in self.reading.values().filter(|reading| *reading.topic == *topic) {
                list.add_partition(&topic, reading.partition);
            }
            tracing::warn!(
                link = &*self.link,
                topic,
                partitions = list.count(),
                "the topic was deleted and created again: it is read from its earliest record, as a new topic"
            );
            if list.count() > 0 {
                self.restart(&list);
            }
        }
    }

    // --- commits --------------------------------------------------------------------------------------------------

    fn offsets(&self, marks: &[Mark]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(marks.len());
        for mark in marks {
            let Some(reading) = self.reading.get(&mark.slot) else { continue };
            let start = &reading.start.partition;
            let metadata = CommitMetadata {
                topic_id: start.topic_id,
                epoch: start.epoch,
                origin: start.origin,
                previous: mark.last,
                count: mark.count,
            };
            let mut element = list.add_partition(&reading.topic, reading.partition);
            // Offsets of a mark are not negative, which is all that is checked.
            let _ = element.set_offset(Offset::Offset(mark.end));
            element.set_metadata(metadata.to_string());
        }
        list
    }

    fn commit(&mut self, marks: &[Mark]) {
        let offsets = self.offsets(marks);
        if offsets.count() == 0 {
            return;
        }
        if let Err(error) = self.member.commit(&offsets) {
            self.on_commit_failure(error, Instant::now());
        }
    }

    /// The last commit before partitions are given up: by the same rule, and waited for.
    fn last_commit(&mut self, slots: &[Slot], now: Instant, rule: CommitOnStop) {
        let marks: Vec<Mark> = slots
            .iter()
            .filter_map(|slot| match rule {
                CommitOnStop::Delayed => self.outlet.log.committable(now, *slot),
                CommitOnStop::Sent => self.outlet.log.newest_sent(*slot),
            })
            .collect();
        let offsets = self.offsets(&marks);
        if offsets.count() == 0 {
            return;
        }
        let failed = match self.member.commit_and_wait(&offsets, LAST_COMMIT) {
            Ok(result) => failure(&result),
            Err(error) => Some(error),
        };
        match failed {
            None => self.metrics.commits.inc(),
            Some(error) => {
                self.metrics.commit_failures.inc();
                tracing::warn!(link = &*self.link, %error,
                    "the last commit failed: the next owner sends again what was sent since the commit before; the egress skips it");
            }
        }
    }

    // --- what others see ------------------------------------------------------------------------------------------

    /// Records at the source behind what was *sent*, not behind what was committed.
    fn measure_lag(&mut self) {
        let mut lag = Some(0u64);
        for reading in self.reading.values() {
            let high = self.member.cached_watermarks(&reading.topic, reading.partition).map(|(_, high)| high);
            lag = lag.zip(high).map(|(sum, high)| sum + high.saturating_sub(reading.sent_end).max(0) as u64);
        }
        let lag = lag.filter(|_| !self.reading.is_empty());
        self.shared.lag.store(lag.unwrap_or(crate::ingress::UNKNOWN_LAG), Ordering::Relaxed);
        match lag {
            Some(lag) => self.metrics.consumer_lag.set(lag as f64),
            None => self.metrics.consumer_lag.clear(),
        }
    }

    fn report_state(&self) {
        let state = if self.outlet.is_full() {
            SourceState::Full
        } else if self.reading.is_empty() {
            SourceState::Starting
        } else {
            SourceState::Running
        };
        self.shared.set_source_state(state);
        let unassigned = self.reading.is_empty() && !self.starting.is_waiting();
        self.shared.set_problem(
            "assignment",
            unassigned.then(|| {
                format!(
                    "no partition is assigned: group {}, topics {}",
                    self.config.source.group,
                    self.topic_list()
                )
            }),
        );
    }

    fn topic_list(&self) -> String {
        self.config.source.topics.iter().map(TopicPattern::as_str).collect::<Vec<_>>().join(", ")
    }

    // --- the end --------------------------------------------------------------------------------------------------

    fn drain(&mut self, tick: &Tick, bound: Duration) {
        self.shared.set_source_state(SourceState::Draining);
        let deadline = Instant::now() + bound;
        self.outlet.packer.flush(Instant::now());
        loop {
            tick.mark();
            let now = Instant::now();
            while self.member.serve().is_some() {}
            self.outlet.move_blocks(now);
            self.note_sent(now);
            if self.outlet.is_sent() {
                break;
            }
            if now >= deadline {
                tracing::warn!(
                    link = &*self.link,
                    waiting_bytes = self.shared.queued_bytes.load(Ordering::Relaxed),
                    "the drain took too long; what was not sent is not committed and will be sent at the next start"
                );
                break;
            }
            std::thread::sleep(ROOM_WAIT);
        }
        let slots: Vec<Slot> = self.reading.keys().copied().collect();
        tick.mark();
        self.last_commit(&slots, Instant::now(), self.config.source.commit_on_stop);
        tick.mark();
        self.shared.source_done.store(true, Ordering::Release);
    }
}

fn packable(
    record: Record<'_>,
) -> Packable<'_, impl ExactSizeIterator<Item = RecordHeader<'_>> + Clone + use<'_>> {
    let timestamp = match record.timestamp() {
        rdkafka::Timestamp::NotAvailable => None,
        rdkafka::Timestamp::CreateTime(millis) => Some(Timestamp::Create(millis)),
        rdkafka::Timestamp::LogAppendTime(millis) => Some(Timestamp::LogAppend(millis)),
    };
    let headers = record.headers().map(|header| RecordHeader { name: header.name, value: header.value });
    Packable { offset: record.offset(), timestamp, key: record.key(), value: record.value(), headers }
}

/// A record that the wire cannot carry is stepped over, by name: it will never fit.
fn skip(
    link: &str,
    metrics: &IngressMetrics,
    packer: &mut Packer,
    slot: Slot,
    record: Record<'_>,
    error: &PackError,
) {
    let reason = match error {
        PackError::TooLarge { .. } => SkipReason::TooLarge,
        // Read again after a restart of the partition: it is in a block already.
        PackError::OffsetOrder { .. } => return,
        _ => SkipReason::NotEncodable,
    };
    metrics.records_skipped.inc(reason);
    tracing::error!(link, topic = record.topic(), partition = record.partition(), offset = record.offset(), %error,
        "a record was not sent and will not be: raise `max_record_bytes` in [link.pack] and [link.receive], then read it again with another group");
    // A slot that was revoked meanwhile has nothing to move.
    let _ = packer.advance(slot, record.offset() + 1);
}
