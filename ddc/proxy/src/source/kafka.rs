//! The Kafka source: a member of a consumer group whose one thread reads, packs and commits.
//!
//! ```text
//!  group events ─▶ assigned ─▶ starting (ids, commits, epoch) ─▶ reading ─▶ packer ─▶ blocks ─▶ link thread
//!                  revoked ──▶ commit by the rule ──▶ given up               ▲                    │
//!                                                        commit log ◀── blocks sent (a counter) ──┘
//! ```
//!
//! Nothing is dropped here: when what waits for the link reaches `[link] buffer`, reading pauses. Kafka keeps the rest.
//! The thread never waits for brokers or for the link, except for the last commit of a partition, some seconds at most:
//! the group is answered, and the watchdog fed, whatever is away.
//!
//! Here: the thread's loop, reading, the drain. `events.rs`: the group and the life of partitions. `commits.rs`: the
//! commits. `rewind.rs`, `pausing.rs`: what operators and the checker order. `report.rs`: what others see.

mod commits;
mod events;
mod pausing;
mod report;
mod rewind;
#[cfg(test)]
mod rewind_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender as BlockSender;
use ddc_kafka::batch::Record;
use ddc_kafka::context::Reporter;
use ddc_kafka::group::GroupMember;
use ddc_link::sender::{PackError, PackedBlock, Packer, Slot};
use ddc_telemetry::catalogue::IngressMetrics;
use ddc_telemetry::exposition::LinkMetrics;
use ddc_telemetry::log::RateLimit;
use ddc_telemetry::notify::Tick;
use ddc_wire::{RecordHeader, SourceState, Timestamp};

use super::commit::CommitLog;
use super::letters::{Letters, Refused, Taken};
use super::outlet::{Outlet, ROOM_WAIT, Record as Packable};
use super::start::Start;
use super::starting::Starting;
use super::topics::TopicWatch;
use crate::config::{IngressConfig, KafkaSource as Settings};
use crate::ingress::Shared;
use crate::pause::{Kept, Pauses};
use crate::replay::ReplayOut;
use crate::rewind::Rewinds;
use crate::state::StateDir;
use report::Trouble;
use rewind::GoingBack;

/// Most records of one read. Between two reads group events, blocks and commits are served.
pub const BATCH_RECORDS: usize = 1024;
/// How long the last commit of a partition may take before it is given up without it.
pub const LAST_COMMIT: Duration = Duration::from_secs(3);
/// How often what may be committed is committed, unless `commit_delay` is shorter.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// The longest wait for records: it bounds how late group events, a stop and the watchdog are served.
const LONGEST_WAIT: Duration = Duration::from_millis(20);

/// A partition that is being read.
struct Reading {
    topic: Arc<str>,
    partition: i32,
    /// What goes into the commit's metadata besides the mark.
    start: Start,
}

/// The thread's state; made by [`KafkaSource::new`], run by [`KafkaSource::run`].
pub struct KafkaSource {
    /// `[source.kafka]`.
    settings: Settings,
    link: Arc<str>,
    metrics: Arc<LinkMetrics<IngressMetrics>>,
    shared: Arc<Shared>,
    // Before the member: its lookup holds the consumer, which is closed when the last one lets go.
    starting: Starting,
    topics: TopicWatch,
    member: GroupMember,
    reporter: Reporter,
    outlet: Outlet,
    letters: Letters,
    reading: HashMap<Slot, Reading>,
    slots: HashMap<(Arc<str>, i32), Slot>,
    /// Assigned partitions that the packer cannot carry, and why. They are not read.
    refused: BTreeMap<(Arc<str>, i32), String>,
    rewinds: Arc<Rewinds>,
    /// Partitions that go back and have not begun again.
    going_back: HashMap<(Arc<str>, i32), GoingBack>,
    pauses: Arc<Pauses>,
    /// The group was left, as ordered.
    paused: bool,
    /// What the group did not take before it was left, and was not read again yet.
    kept: Vec<Kept>,
    trouble: Option<Trouble>,
    /// When the brokers last gave a sign of life.
    alive_at: Instant,
    next_commit: Instant,
    next_report: Instant,
    limit: RateLimit<String>,
}

/// What a [`KafkaSource`] is made of.
pub struct Parts {
    /// The configuration.
    pub config: Arc<IngressConfig>,
    /// `[source.kafka]`.
    pub settings: Settings,
    /// The consumer, not subscribed yet.
    pub member: GroupMember,
    /// Where the consumer reports.
    pub reporter: Reporter,
    /// A packer without partitions.
    pub packer: Packer,
    /// Towards the link thread.
    pub blocks: BlockSender<PackedBlock>,
    /// What the threads tell each other.
    pub shared: Arc<Shared>,
    /// The state directory.
    pub state: Arc<StateDir>,
    /// The link's metrics.
    pub metrics: Arc<LinkMetrics<IngressMetrics>>,
    /// What replays send.
    pub replay: Option<ReplayOut>,
    /// Orders to go back.
    pub rewinds: Arc<Rewinds>,
    /// Orders to pause.
    pub pauses: Arc<Pauses>,
}

impl KafkaSource {
    /// Joins the group; partitions come once the broker answers.
    pub fn new(parts: Parts) -> anyhow::Result<Self> {
        let Parts {
            config, settings, member, reporter, packer, blocks, shared, state, metrics, replay, ..
        } = parts;
        let (rewinds, pauses) = (parts.rewinds, parts.pauses);
        let starting = Starting::new(state)?;
        let patterns = &settings.topics;
        let named = patterns
            .iter()
            .filter(|topic| !topic.is_pattern())
            .map(|topic| topic.as_str().to_owned())
            .collect();
        let now = Instant::now();
        let link: Arc<str> = config.link.name.as_str().into();
        let mut outlet = Outlet::new(
            packer,
            CommitLog::new(settings.commit_delay).with_history(settings.history),
            blocks,
            Arc::clone(&shared),
            Arc::clone(&metrics),
            config.buffer.0,
        );
        if let Some(replay) = replay {
            outlet.set_replay(replay);
        }
        let letters = Letters::open(&config, &settings, Arc::clone(&metrics))?;
        let mut source = Self {
            outlet,
            letters,
            starting,
            topics: TopicWatch::new(member.consumer(), settings.topic_epoch, named, Arc::clone(&link)),
            settings,
            link,
            metrics,
            shared,
            member,
            reporter,
            reading: HashMap::new(),
            slots: HashMap::new(),
            refused: BTreeMap::new(),
            rewinds,
            going_back: HashMap::new(),
            pauses,
            paused: true,
            kept: Vec::new(),
            trouble: None,
            alive_at: now,
            next_commit: now,
            next_report: now,
            limit: RateLimit::new(Duration::from_secs(10)),
        };
        if source.pauses.is_paused() {
            source.begin_paused();
        } else {
            source.join()?;
        }
        Ok(source)
    }

    /// Runs until a stop is asked for and what is packed has been sent, or `drain` has passed since.
    pub fn run(mut self, tick: &Tick, drain: Duration) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            tick.mark();
            self.turn(Instant::now());
            if self.outlet.is_full() || self.letters.is_stuck(Instant::now()) {
                std::thread::sleep(ROOM_WAIT);
            } else {
                self.read(self.wait(Instant::now()));
            }
        }
        self.drain(tick, drain);
    }

    /// Everything but reading: what must happen in time even when no record comes.
    fn turn(&mut self, now: Instant) {
        while let Some(event) = self.member.serve() {
            self.on_group_event(event, now);
        }
        self.serve_pause(now);
        self.serve_starting(now);
        self.serve_topics(now);
        self.note_sent(now);
        self.serve_rewind(now);
        self.outlet.move_blocks(now);
        self.letters.serve(now);
        if now >= self.next_commit {
            self.next_commit = now + COMMIT_EVERY.min(self.settings.commit_delay.max(ROOM_WAIT));
            let marks = self.outlet.log.take_committable(now);
            self.commit(&marks);
        }
        self.report(now);
    }

    fn wait(&self, now: Instant) -> Duration {
        let deadline = self.outlet.packer.next_deadline().map(|at| at.saturating_duration_since(now));
        // A lingering block that only waits for the link is looked at each millisecond.
        let wait = deadline.map_or(LONGEST_WAIT, |wait| wait.max(ROOM_WAIT));
        let is_busy = self.outlet.is_replaying() || self.letters.is_busy();
        let longest = if is_busy { ROOM_WAIT } else { LONGEST_WAIT };
        wait.min(longest)
    }

    /// Reads and packs as long as there is room; what finds none is kept for the next time.
    fn read(&mut self, wait: Duration) {
        let batch = self.member.read(wait);
        if batch.is_empty() {
            return;
        }
        let mut failed = Vec::new();
        let mut known: Option<(Slot, &str, i32)> = None;
        let (mut done, mut read) = (0, 0);
        for record in batch.iter() {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    failed.push(error);
                    done += 1;
                    continue;
                }
            };
            let (topic, partition) = (record.topic(), record.partition());
            let known_slot =
                known.filter(|(_, of, number)| *number == partition && *of == topic).map(|(slot, ..)| slot);
            let Some(slot) = known_slot.or_else(|| self.slots.get(&(Arc::from(topic), partition)).copied())
            else {
                // Given up since it was fetched; the next owner reads it.
                done += 1;
                continue;
            };
            known = Some((slot, topic, partition));
            match self.outlet.push(slot, &packable(record)) {
                // Out of order: read again after a restart of the partition, it is in a block already.
                Ok(()) | Err(PackError::OffsetOrder { .. }) => {}
                Err(PackError::Full) => break,
                Err(error) => {
                    let topic_id = self
                        .reading
                        .get(&slot)
                        .map(|reading| reading.start.partition.topic_id)
                        .unwrap_or_default();
                    let refused = Refused { slot, topic_id, record, error: &error };
                    if self.letters.take(&refused, Instant::now()) == Taken::Later {
                        break;
                    }
                    // A slot that was revoked meanwhile has nothing to move.
                    let _ = self.outlet.packer.advance(slot, record.offset() + 1);
                }
            }
            done += 1;
            read += 1;
        }
        batch.keep(done);
        self.metrics.records_read.add(read);
        if read > 0 {
            self.note_alive(Instant::now());
        }
        for error in failed {
            self.on_read_error(&error);
        }
        self.outlet.move_blocks(Instant::now());
    }

    fn note_sent(&mut self, now: Instant) {
        if self.outlet.note_sent(now) && !self.reading.is_empty() {
            tracing::warn!(
                link = &*self.link,
                partitions = self.reading.len(),
                "blocks were packed and not sent: every partition goes back to its committed offset; the egress skips what it has"
            );
            let all = self.partitions_of(|_| true);
            self.restart(&all, now);
        }
    }

    // --- the end --------------------------------------------------------------------------------------------------

    fn drain(&mut self, tick: &Tick, bound: Duration) {
        let deadline = Instant::now() + bound;
        self.outlet.packer.flush(Instant::now());
        loop {
            tick.mark();
            let now = Instant::now();
            self.shared.set_source_state(SourceState::Draining);
            while let Some(event) = self.member.serve() {
                self.on_group_event(event, now);
            }
            self.outlet.move_blocks(now);
            self.note_sent(now);
            if self.outlet.is_sent() {
                break;
            }
            if now >= deadline || self.outlet.is_cut_off() {
                tracing::warn!(
                    link = &*self.link,
                    waiting_bytes = self.shared.queued_bytes.load(Ordering::Relaxed),
                    "the drain ends with something unsent; it is not committed and will be sent at the next start"
                );
                break;
            }
            std::thread::sleep(ROOM_WAIT);
        }
        let slots: Vec<Slot> = self.reading.keys().copied().collect();
        tick.mark();
        let back = self.going_back.keys().cloned().collect::<Vec<_>>();
        self.last_commit(&slots, &back, Instant::now(), self.settings.commit_on_stop);
        tick.mark();
        self.shared.source_done.store(true, Ordering::Release);
    }
}

fn packable(
    record: Record<'_>,
) -> Packable<'_, impl ExactSizeIterator<Item = RecordHeader<'_>> + Clone + use<'_>> {
    let headers = record.headers().map(|header| RecordHeader { name: header.name, value: header.value });
    Packable {
        offset: record.offset(),
        timestamp: time_of(record),
        key: record.key(),
        value: record.value(),
        headers,
    }
}

/// The record's time, as the wire has it.
pub(super) fn time_of(record: Record<'_>) -> Option<Timestamp> {
    match record.timestamp() {
        rdkafka::Timestamp::NotAvailable => None,
        rdkafka::Timestamp::CreateTime(millis) => Some(Timestamp::Create(millis)),
        rdkafka::Timestamp::LogAppendTime(millis) => Some(Timestamp::LogAppend(millis)),
    }
}
