//! The sink thread of an egress that writes to Kafka: batches from the queue → records and progress in one transaction.
//!
//! ```text
//!  batch ─ unpack ─▶ chunk ─▶ whose partition is it? ── not ours yet ──▶ held ─┐
//!                                │ ours                 ◀── judged again ──────┘
//!                                ▼
//!                             new │ late │ duplicate │ missing          (WorkingCopy)
//!                                ▼
//!                             plan: records handed over, progress ─▶ commit ─▶ settled, gaps reported
//! ```
//!
//! A cycle: chunks are judged and their records handed over until the transaction is full, old, or nothing more waits; then it is
//! committed with the progress of every partition that it changed. If it fails, its chunks are judged again; if the producer is
//! lost, so is what memory knows of the progress, and all of it is read anew from the topic.
//!
//! | module      | what it is for                                                     |
//! |-------------|--------------------------------------------------------------------|
//! | `judge`     | a chunk: written, held, or nothing to do                           |
//! | `routes`    | which topic a chunk goes to, and whether it is there               |
//! | `plan`      | what the open transaction holds                                    |
//! | `writer`    | the producer, the transaction, what came back                      |
//! | `isolation` | which records the destination refuses for ever                     |
//! | `letters`   | dead letters of those                                              |
//! | `held`      | chunks that cannot be written yet                                  |
//! | `drops`     | why batches are missing before the one that is judged              |
//! | `rewind_wait` | which of them wait for the ingress to go back                    |
//! | `ownership` | the steps of the takeover protocol, and the progress topic         |

mod drops;
mod held;
mod isolation;
mod judge;
mod letters;
mod ownership;
mod plan;
mod rewind_wait;
mod routes;
mod writer;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use ddc_kafka::context::Reporter;
use ddc_link::receiver::{Positions, Unpacker};
use ddc_progress::{Notice, WorkingCopy};
use ddc_spool::ReadError;
use ddc_telemetry::cells::Label;
use ddc_telemetry::log::RateLimit;
use ddc_telemetry::{EgressMetrics, LinkMetrics};
use ddc_wire::{Chunks, Content, LedgerEntries};
use rdkafka::ClientConfig;

use super::books::Books;
use super::control::{Control, GivenUp};
use super::deliver;
use super::feed::{FeedOut, Item, Taken};
use super::missing::TOO_MANY_HOLES;
use super::shared::{Shared, lock};
use crate::config::{DeliveryMode, KafkaSink, LateRecords, LostProgress};
use crate::dead_letters::DeadLetters;
use crate::gaps::Timestamp;
use crate::sink::destination::Destinations;
use crate::sink::progress_topic::PROGRESS_TOPIC as TOPIC;
use crate::sink::topics::TopicMap;
use drops::Drops;
use held::{Held, HeldPart, Kept, Waiting, Why};
use judge::Judged;
use ownership::{Acted, Ownership};
use plan::{Note, Plan};
use rewind_wait::RewindWait;
use routes::Routes;
use writer::{Ended, Writer, WriterParts};

/// Figures are told, and held chunks looked at again, this often.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// One kind of message is logged this often at most.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// Without transactions nobody waits for the end of a cycle: progress is written this often.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Chunks that are held; when there are more, nothing is taken until there are fewer.
const MAX_HELD: usize = 200_000;
/// The longest sleep: so that a stop and the progress topic are noticed.
const LONGEST_NAP: Duration = Duration::from_millis(50);
/// While an answer is waited for.
const SHORT_NAP: Duration = Duration::from_millis(2);

/// What the thread is made of.
pub(crate) struct KafkaThread {
    pub(crate) feed: FeedOut,
    pub(crate) unpacker: Unpacker,
    pub(crate) settings: KafkaSink,
    /// Built for the role [`KafkaSink::producer`].
    pub(crate) producer: ClientConfig,
    /// Built for the role `Admin`.
    pub(crate) admin: ClientConfig,
    pub(crate) reporter: Reporter,
    pub(crate) books: Books,
    pub(crate) dead_letters: Option<DeadLetters>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) control: Arc<Control>,
    pub(crate) metrics: Arc<LinkMetrics<EgressMetrics>>,
}

impl KafkaThread {
    /// Carries to Kafka until the receive thread has ended and everything it queued is committed, or the drain's time is over.
    /// Returns whether everything was.
    pub(crate) fn run(self) -> bool {
        let mut engine = Engine::new(self);
        let ended = engine.deliver();
        engine.finish(ended)
    }
}

struct Engine {
    feed: FeedOut,
    /// Taken out while a batch is read from it.
    unpacker: Option<Unpacker>,
    ownership: Ownership,
    working: WorkingCopy,
    held: Held,
    rewind_wait: RewindWait,
    waiting: Waiting,
    routes: Routes,
    writer: Writer,
    late: LateRecords,
    interval: Duration,
    lost_progress: LostProgress,
    /// The topic is read, and it is in order to write.
    is_started: bool,
    /// Held chunks of these are to be judged again.
    sweep: Sweep,
    next_number: u64,
    drops: Drops,
    shared: Arc<Shared>,
    control: Arc<Control>,
    metrics: Arc<LinkMetrics<EgressMetrics>>,
    limit: RateLimit<&'static str>,
    kept_at: Instant,
}

/// Which chunk of all.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Its batch, in the order of arrival.
    number: u64,
    /// Its place in the batch.
    part: u32,
    /// The number of its partition.
    slot: u32,
    /// A former life of this egress received it.
    is_left_over: bool,
}

/// What is to be judged again.
#[derive(Debug, Default)]
struct Sweep {
    /// Not before this time.
    at: Option<Instant>,
    all: bool,
    slots: HashSet<u32>,
}

impl Sweep {
    fn is_due(&self) -> bool {
        self.all || !self.slots.is_empty()
    }
}

impl Engine {
    fn new(parts: KafkaThread) -> Self {
        let KafkaThread { feed, unpacker, settings, producer, admin, reporter, books, dead_letters, .. } =
            parts;
        let link = settings.link.to_string();
        let transactional = settings.delivery == DeliveryMode::ExactlyOnce;
        let destinations = Destinations::new(
            &link,
            admin.clone(),
            reporter.clone(),
            settings.create_topics,
            settings.replication_factor,
        );
        Self {
            feed,
            unpacker: Some(unpacker),
            ownership: Ownership::new(
                &settings,
                admin,
                reporter.clone(),
                transactional,
                Arc::clone(&parts.metrics),
            ),
            working: WorkingCopy::new(settings.set.clone(), settings.link.clone()),
            held: Held::default(),
            rewind_wait: RewindWait::new(settings.rewind_wait),
            waiting: Waiting::default(),
            late: settings.late,
            interval: if transactional { settings.transaction_interval } else { PROGRESS_EVERY },
            lost_progress: settings.lost_progress,
            writer: Writer::new(WriterParts {
                config: producer,
                reporter,
                provenance: settings.provenance,
                transactional,
                bad_timestamp: settings.bad_timestamp,
                dead_letters,
                books,
            }),
            routes: Routes {
                destinations,
                partition_mode: settings.partition,
                topics: TopicMap::new(&link, settings),
                waiting: HashMap::new(),
            },
            is_started: false,
            sweep: Sweep::default(),
            next_number: 0,
            drops: Drops::default(),
            shared: parts.shared,
            control: parts.control,
            metrics: parts.metrics,
            limit: RateLimit::new(LOG_EVERY),
            kept_at: Instant::now(),
        }
    }

    fn deliver(&mut self) -> Result<(), GivenUp> {
        let mut is_closed = false;
        loop {
            self.control.check()?;
            self.writer.books.tick.mark();
            self.ownership.follow(&mut self.writer);
            if self.writer.plan.is_empty() {
                self.act()?;
            }
            self.end_waits(is_closed);
            self.sweep()?;
            let mut is_idle = true;
            // A stop need not wait for a destination that was never there, if nothing was received for it.
            let may_take = self.is_started || self.control.is_stopping();
            // What is held comes first: a batch that tells of a loss before it would tell it of them.
            let may_take = may_take && !self.sweep.is_due() && self.held.len() < MAX_HELD;
            if is_closed || !may_take {
                thread::sleep(SHORT_NAP);
            } else {
                match self.feed.take(self.nap()) {
                    Taken::Item(item) => {
                        is_idle = false;
                        self.batch(Arc::new(*item))?;
                    }
                    Taken::Nothing => {}
                    Taken::Closed => is_closed = true,
                }
            }
            if self.is_due(is_idle, is_closed) {
                self.commit()?;
            }
            if is_closed && self.writer.plan.is_empty() && !self.held.is_blocking() {
                return Ok(());
            }
            self.keep_house();
        }
    }

    /// Partitions that have waited long enough for their ingress to go back are written, and their gaps named. Without a spool
    /// a stop ends all waits, since what waits would be lost.
    fn end_waits(&mut self, is_closed: bool) {
        let is_last_chance = is_closed && !self.feed.is_kept();
        for key in self.rewind_wait.over(Instant::now(), is_last_chance) {
            tracing::info!(
                link = self.metrics.link(),
                topic = key.topic,
                partition = key.partition,
                "the ingress did not go back within rewind_wait; the partition is written on, and what is missing is named"
            );
            let slot =
                self.writer.books.partitions.slot(&key.stream, &key.topic, key.topic_id, key.partition);
            self.sweep.slots.extend(slot);
        }
    }

    /// How long a batch may be waited for.
    fn nap(&self) -> Duration {
        let plan = &self.writer.plan;
        match plan.opened {
            Some(_) if plan.is_small() && self.writer.is_transactional() => Duration::ZERO,
            Some(opened) => self.interval.saturating_sub(opened.elapsed()).min(SHORT_NAP),
            None if self.ownership.is_busy() || !self.held.is_empty() => SHORT_NAP,
            None => LONGEST_NAP,
        }
    }

    fn is_due(&self, is_idle: bool, is_closed: bool) -> bool {
        let plan = &self.writer.plan;
        let Some(opened) = plan.opened else { return false };
        let is_waited_for = is_idle && plan.is_small() && self.writer.is_transactional();
        is_closed || is_waited_for || plan.is_full() || opened.elapsed() >= self.interval
    }

    /// A batch from the link.
    fn batch(&mut self, item: Arc<Item>) -> Result<(), GivenUp> {
        let number = self.next_number;
        self.next_number += 1;
        if let Some(dropped) = item.dropped_before {
            self.drops.note(number, dropped.reason);
        }
        self.judge(number, &item, None)?;
        self.let_go(number, item);
        Ok(())
    }

    /// Unpacks a batch and judges its chunks, or those `of_these`.
    fn judge(&mut self, number: u64, item: &Arc<Item>, of_these: Option<&[HeldPart]>) -> Result<(), GivenUp> {
        let Some(mut unpacker) = self.unpacker.take() else { return Ok(()) };
        let (drops, reason) = self.drops.before(number);
        self.working.dropped_before(drops, reason);
        let judged = match unpacker.unpack(&item.batch) {
            Ok(raw) => self.parts(number, item, raw, of_these),
            Err(error) => {
                self.refuse_batch(item, &error.to_string());
                Ok(())
            }
        };
        self.unpacker = Some(unpacker);
        judged
    }

    fn parts(
        &mut self,
        number: u64,
        item: &Arc<Item>,
        raw: &[u8],
        of_these: Option<&[HeldPart]>,
    ) -> Result<(), GivenUp> {
        let session = item.batch.session;
        let is_left_over = self.feed.is_left_over(item);
        let is_wanted = |at: u32| of_these.is_none_or(|parts| parts.iter().any(|part| part.part == at));
        if item.batch.content == Content::Ledger {
            for (at, entry) in (0_u32..).zip(LedgerEntries::new(raw).map_while(Result::ok)) {
                if !is_wanted(at) {
                    continue;
                }
                let slot = self.slot(entry.stream, entry.topic, entry.topic_id, entry.partition);
                let Some(slot) = self.known(slot, item) else { continue };
                let place = Place { number, part: at, slot, is_left_over };
                let judged = self.entry(&entry, place, session);
                let end = entry.last.map_or(0, |last| last + 1);
                self.keep(judged, item, place, (end, end));
            }
            return Ok(());
        }
        for (at, chunk) in (0_u32..).zip(Chunks::new(raw).map_while(Result::ok)) {
            if !is_wanted(at) {
                continue;
            }
            let header = &chunk.header;
            let slot = self.slot(header.stream, header.topic, header.topic_id, header.partition);
            let Some(slot) = self.known(slot, item) else { continue };
            let place = Place { number, part: at, slot, is_left_over };
            let judged = self.chunk(&chunk, place, session)?;
            self.keep(judged, item, place, (header.base(), header.end));
        }
        Ok(())
    }

    /// Notes where a part of a batch is now: in the plan, held, or nowhere.
    fn keep(&mut self, judged: Judged, item: &Arc<Item>, place: Place, (base, end): (i64, i64)) {
        let Place { number, part, slot, .. } = place;
        let held = |why| HeldPart { part, slot, base, end, why };
        match judged {
            Judged::Planned => self.writer.plan.frame(number, item).parts.push(held(Why::Ownership)),
            Judged::Held(why) => self.held.add(number, item, &[held(why)]),
            Judged::Both(why) => {
                self.writer.plan.frame(number, item);
                self.held.add(number, item, &[held(why)]);
            }
            Judged::Settled => {}
        }
    }

    /// Carries out what the takeover protocol asks for.
    fn act(&mut self) -> Result<(), GivenUp> {
        loop {
            match self.ownership.act(&mut self.writer)? {
                Acted::Nothing => return Ok(()),
                Acted::Lost => self.lost(),
                Acted::Notice(notice) => self.notice(notice)?,
            }
        }
    }

    fn notice(&mut self, notice: Notice) -> Result<(), GivenUp> {
        if let Some(key) = notice.key() {
            let slot =
                self.writer.books.partitions.slot(&key.stream, &key.topic, key.topic_id, key.partition);
            self.sweep.slots.extend(slot);
        }
        let link = self.metrics.link();
        match notice {
            Notice::Started => self.started()?,
            Notice::MayWrite { key, progress } => {
                let progress = self.ownership.known(&key, progress);
                let next = progress.as_ref().map(|progress| progress.position.next());
                let former = progress.as_ref().map(|progress| progress.owner.to_string());
                if former.as_deref().is_some_and(|former| former != link) {
                    tracing::info!(
                        link,
                        topic = key.topic,
                        partition = key.partition,
                        next,
                        former,
                        "a partition of another link is written from here on"
                    );
                } else {
                    tracing::debug!(
                        link,
                        topic = key.topic,
                        partition = key.partition,
                        next,
                        "a partition is written from here"
                    );
                }
                self.working.restore(&key, progress.as_ref());
            }
            Notice::Lost { key, to, epoch } => {
                tracing::info!(
                    link, topic = key.topic, partition = key.partition, to = %to, epoch = %epoch,
                    "a partition is written by another link now"
                );
                self.working.forget(&key);
            }
            Notice::Refused { key, why } => {
                tracing::error!(
                    link, topic = key.topic, partition = key.partition, why = %why,
                    "the progress topic cannot be used for this partition; its records are held until it is mended"
                );
                self.working.forget(&key);
            }
        }
        Ok(())
    }

    /// The progress topic is read for the first time.
    fn started(&mut self) -> Result<(), GivenUp> {
        let mut positions = Positions::default();
        for (key, progress) in self.ownership.table.iter() {
            positions.restore(key, progress.position.clone());
        }
        let link = self.metrics.link().to_owned();
        if positions.is_empty() && self.feed.was_used() {
            let what = "ddc-progress at the destination knows nothing of this set, though this egress has delivered before: what the ingress \
                        sends again would be delivered again. Look whether the topic was removed or the cluster is another one; to begin \
                        anew, start once with lost_progress = \"accept\" in [sink.kafka]";
            if self.lost_progress == LostProgress::Refuse {
                tracing::error!(link, topic = TOPIC, "{what}");
                *lock(&self.shared.sink_problem) = Some(what.to_owned());
                loop {
                    self.writer.books.store_sessions_in_time();
                    self.writer.books.tick.mark();
                    self.control.check()?;
                    if self.control.is_stopping() {
                        return Err(GivenUp);
                    }
                    thread::sleep(LONGEST_NAP);
                }
            }
            tracing::warn!(
                link,
                topic = TOPIC,
                "ddc-progress knows nothing of this set; lost_progress = \"accept\": beginning anew"
            );
        }
        let changed = self.writer.books.report().reconcile(&positions, Timestamp::now());
        tracing::info!(
            link,
            topic = TOPIC,
            partitions = positions.len(),
            gaps_changed = changed,
            "progress read"
        );
        self.is_started = true;
        Ok(())
    }

    /// Judges held chunks again, in their order.
    fn sweep(&mut self) -> Result<(), GivenUp> {
        if !self.sweep.is_due() || self.sweep.at.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        let Sweep { all, slots, .. } = std::mem::take(&mut self.sweep);
        // Whose first chunk has to wait on, those behind it do too.
        let mut stuck = HashSet::new();
        let mut from = 0;
        // Those that are held anew are behind `from`, and are not met again.
        loop {
            let wanted = |part: &HeldPart| (all || slots.contains(&part.slot)) && !stuck.contains(&part.slot);
            let Some((number, kept, parts)) = self.held.take(from, wanted) else { return Ok(()) };
            from = number + 1;
            let Some(item) = self.found_again(kept, number, &parts) else { continue };
            self.judge(number, &item, Some(&parts))?;
            stuck.extend(
                parts.iter().map(|part| part.slot).filter(|slot| self.held.blocks(*slot, (number, u32::MAX))),
            );
            self.let_go(number, item);
            if self.writer.plan.is_full() {
                self.commit()?;
                // What is left is swept in the next turn, and with it what came back.
                self.sweep.slots.extend(slots.iter().copied());
                self.sweep.all |= all;
                return Ok(());
            }
        }
    }

    /// A batch that was held. `None`: it is no longer there, and what is missing is found by offsets; or it cannot be read now,
    /// and is held on.
    fn found_again(&mut self, kept: Kept, number: u64, parts: &[HeldPart]) -> Option<Arc<Item>> {
        let span = match kept {
            Kept::Memory(item) => return Some(item),
            Kept::Spool(span) => span,
        };
        match self.feed.reread(span) {
            Ok(Some(item)) => return Some(Arc::from(item)),
            Ok(None) => {}
            Err(error @ ReadError::Io { .. }) => {
                if let Some(suppressed) = self.limit.allow("reread", Instant::now()) {
                    tracing::warn!(link = self.metrics.link(), %error, suppressed, "the spool cannot be read now; trying again");
                }
                self.held.put_back(number, span, parts);
                return None;
            }
            Err(error) => {
                tracing::error!(
                    link = self.metrics.link(), %error, position = span.start,
                    "a batch that had waited in the spool cannot be read; its records are named when the next ones come"
                );
            }
        }
        if !self.held.has(number) {
            self.feed.settle_span(span);
        }
        None
    }

    /// A batch of which nothing is planned and nothing held is settled.
    fn let_go(&mut self, number: u64, item: Arc<Item>) {
        let is_planned = self.writer.plan.frames.last().is_some_and(|last| last.number == number);
        if !is_planned && !self.held.has(number) {
            self.feed.settle(item);
        }
    }

    /// Commits the plan, or takes it back.
    fn commit(&mut self) -> Result<(), GivenUp> {
        self.refuse_planned();
        let tells_progress = self.working.changes().next().is_some();
        match self.writer.commit(&self.working, TOPIC)? {
            Ended::Committed => {
                if tells_progress {
                    self.feed.progress_written();
                }
                self.working.committed();
                let plan = std::mem::take(&mut self.writer.plan);
                self.committed(plan);
            }
            Ended::Aborted(pause) => {
                self.working.aborted();
                self.routes.forget();
                self.hold_planned();
                self.sweep.all = true;
                self.sweep.at = Some(Instant::now() + pause);
            }
            Ended::Lost => self.lost(),
        }
        Ok(())
    }

    /// Records that are refused for ever leave a hole, in the transaction that steps over them.
    fn refuse_planned(&mut self) {
        for at in 0..self.writer.plan.notes.len() {
            let Note::Refused(slot, offset, _) = &self.writer.plan.notes[at] else { continue };
            let (slot, offset) = (*slot, *offset);
            let key = self.writer.books.partitions.key(slot);
            let hole =
                key.and_then(|key| self.working.refuse(key, offset)).and_then(|(_, forgotten)| forgotten);
            if let Some(hole) = hole {
                self.writer.plan.notes.push(Note::GivenUp(slot, hole, TOO_MANY_HOLES));
            }
        }
    }

    /// Says what was found, and lets go of what is settled.
    fn committed(&mut self, plan: Plan) {
        let books = &mut self.writer.books;
        // What is refused after all: a late record that came and was refused closes nothing.
        let (refused, notes): (Vec<_>, Vec<_>) =
            plan.notes.into_iter().partition(|note| matches!(note, Note::Refused(..)));
        for note in notes.into_iter().chain(refused) {
            match note {
                Note::Missing(slot, missing, session) => {
                    deliver::report(books, slot, &missing, Some(session));
                }
                Note::Filled(slot, range) => {
                    if let Some(partition) = books.name(slot) {
                        books.report().close(&partition, &[range]);
                    }
                }
                Note::GivenUp(slot, range, why) => {
                    if let Some(partition) = books.name(slot) {
                        books.report().give_up(&partition, range, why);
                    }
                }
                Note::Refused(slot, offset, why) => {
                    books.report_refused(slot, offset, || why);
                }
                Note::Letter(slot, offset, reason, why) => {
                    self.metrics.dead_letters.inc(reason);
                    let Some(partition) = books.name(slot) else { continue };
                    if let Some(suppressed) = self.limit.allow("letter", Instant::now()) {
                        tracing::warn!(
                            link = self.metrics.link(),
                            topic = partition.topic,
                            partition = partition.partition,
                            offset,
                            reason = reason.as_str(),
                            why,
                            suppressed,
                            "the destination refuses a record for ever; it is kept as a dead letter"
                        );
                    }
                }
                Note::Clamped => self.metrics.timestamps_clamped.inc(),
            }
        }
        books.flush_refused();
        books.chunk_done();
        self.metrics.records_received.add(plan.received);
        self.metrics.records_duplicate.add(plan.duplicates);
        self.metrics.records_late.add(plan.late);
        for frame in plan.frames {
            if !self.held.has(frame.number) {
                self.feed.settle(frame.item);
            }
        }
    }

    /// What is planned is to be judged again.
    fn hold_planned(&mut self) {
        let plan = std::mem::take(&mut self.writer.plan);
        for frame in plan.frames {
            self.held.add(frame.number, &frame.item, &frame.parts);
        }
    }

    /// The producer or the progress is lost: everything not committed is judged again, when the topic was read anew.
    fn lost(&mut self) {
        self.hold_planned();
        self.ownership.lost_producer(self.working.settled());
        self.working.clear();
    }

    /// Once a second: figures, and another look at what is held.
    fn keep_house(&mut self) {
        let now = Instant::now();
        if now.saturating_duration_since(self.kept_at) < KEEP_EVERY {
            return;
        }
        self.kept_at = now;
        let due: Vec<_> =
            self.held.parts().filter(|part| self.is_worth_judging(part)).map(|part| part.slot).collect();
        self.sweep.slots.extend(due);
        self.feed.house_keeping();
        if let Some(bytes) = self.writer.letter_bytes() {
            self.metrics.dead_letter_bytes.set(bytes as f64);
        }
        self.writer.probe();
        self.close_settled_elsewhere();
        self.tell_who_waits(now);
        self.shared.held.store(self.held.len() as u64, Relaxed);
        self.shared.partitions.store(self.working.len() as u64, Relaxed);
        self.shared.queued_batches.store(self.feed.len() as u64, Relaxed);
        *lock(&self.shared.topics) = self.routes.topics.destinations().map(ToString::to_string).collect();
        self.metrics.queue_bytes.set(self.feed.used() as i64);
        self.writer.books.store_sessions_in_time();
    }

    /// A partition may wait for ever for what nobody does: that must be seen.
    fn tell_who_waits(&mut self, now: Instant) {
        let long = self.waiting.look(&self.held, now);
        let told = long.and_then(|(slot, since, why)| {
            let key = self.writer.books.partitions.key(slot)?;
            let seconds = now.saturating_duration_since(since).as_secs();
            let (topic, partition) = (&key.topic, key.partition);
            let what = match why {
                Why::Unusable => "its record in ddc-progress cannot be used",
                _ => "another link of the set has claimed it and has not settled these records",
            };
            if let Some(suppressed) = self.limit.allow("held long", now) {
                tracing::warn!(
                    link = self.metrics.link(), topic, partition, seconds, what, suppressed,
                    "records are held for long; look at the egress that has the partition, and at its claims in ddc-progress"
                );
            }
            Some(format!("{topic}/{partition} is held for {seconds} s: {what}"))
        });
        *lock(&self.shared.held_long) = told;
    }

    /// What this egress has named as missing may be filled by the link that has the partition now: its progress says so. What is
    /// committed stays settled, so that the table may well be a little old.
    fn close_settled_elsewhere(&mut self) {
        let report = self.writer.books.report();
        let mut settled = Positions::default();
        for key in report.open_partitions() {
            if let Some(progress) = self.ownership.table.progress(&key) {
                settled.restore(&key, progress.position.clone());
            }
        }
        if !settled.is_empty() {
            report.close_settled(&settled);
        }
    }

    /// Whether a chunk that is held may have another fate by now, though no notice says so.
    fn is_worth_judging(&self, part: &HeldPart) -> bool {
        let Some(key) = self.writer.books.partitions.key(part.slot) else { return false };
        match part.why {
            Why::Ownership | Why::Topic | Why::Unusable => true,
            Why::Rewind => !self.rewind_wait.is_waiting(key),
            Why::Elsewhere => self.is_settled_elsewhere(key, part.base, part.end),
            Why::Beyond => self.working.position(key).is_none_or(|position| position.next() >= part.end),
        }
    }

    /// The last acts of the thread.
    fn finish(mut self, ended: Result<(), GivenUp>) -> bool {
        let link = self.metrics.link().to_owned();
        let is_drained = ended.is_ok();
        if is_drained {
            tracing::info!(link, "everything received was acknowledged by the destination");
        } else {
            let destination = self.writer.reporter().last_error().map(|error| error.text);
            tracing::error!(
                link,
                in_flight = self.writer.plan.records.len(),
                held = self.held.len(),
                batches_waiting = self.feed.len(),
                destination,
                kept = self.feed.is_kept(),
                "the drain was given up; what was not acknowledged is delivered after the next start where it is kept in a spool, else named as missing"
            );
        }
        self.writer.books.store_sessions();
        self.shared.in_flight.store(0, Relaxed);
        self.shared.sink_done.store(true, Relaxed);
        self.writer.books.tick.retire();
        is_drained
    }

    /// The number of a partition; without one its chunk cannot be judged.
    fn known(&mut self, slot: Option<u32>, item: &Item) -> Option<u32> {
        if slot.is_none() {
            self.refuse_batch(item, "there are too many partitions");
        }
        slot
    }

    fn refuse_batch(&mut self, item: &Item, error: &str) {
        deliver::refuse_batch(&self.metrics, &mut self.limit, item, error);
    }
}
