//! The sink thread of a UDP destination: batches from the queue → what is new goes out, what is missing is named.
//!
//! ```text
//!  batch ─ unpack ─▶ chunk ─ Positions::enter ─▶ gap? report     record ─ disposition ─▶ send │ late │ skip
//!                    ledger ─ Positions::ledger ─▶ gap? report
//! ```
//!
//! UDP does not answer: what was handed to the kernel is settled, so records are judged by [`Positions`] in memory, and these are
//! stored once a second. After a crash everything from the stored state on that the ingress does not send again is named, with
//! reason `restart`, though the last second of it may have been delivered.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use ddc_link::receiver::{Disposition, Missing, OffsetRange, PartitionKey, Positions, Settled, Unpacker};
use ddc_telemetry::cells::Label;
use ddc_telemetry::log::RateLimit;
use ddc_telemetry::reasons::MissingReason;
use ddc_telemetry::{EgressMetrics, LinkMetrics};
use ddc_wire::{
    Chunk, ChunkHeader, ChunkKind, Chunks, Content, LedgerEntries, LedgerEntry, Session, TopicId,
};

use super::books::Books;
use super::control::{Control, GivenUp};
use super::datagrams::{DatagramOutlet, NAP};
use super::feed::{FeedOut, Item, Taken};
use super::missing::{Range, SourcePartition, TOO_MANY_HOLES};
use super::shared::{Shared, lock};
use crate::config::LateRecords;

/// What is acknowledged is stored this often.
const STORE_EVERY: Duration = Duration::from_secs(1);
/// One kind of message is logged this often at most.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The thread's parts; [`SinkThread::run`] is its life.
pub(crate) struct SinkThread {
    pub(crate) feed: FeedOut,
    pub(crate) unpacker: Unpacker,
    pub(crate) former: Positions,
    /// By partition: up to which offset the journal has open gaps that the positions have not come to.
    pub(crate) ahead: HashMap<PartitionKey, i64>,
    pub(crate) late: LateRecords,
    pub(crate) shared: Arc<Shared>,
    pub(crate) control: Arc<Control>,
    pub(crate) metrics: Arc<LinkMetrics<EgressMetrics>>,
}

impl SinkThread {
    /// Carries to `outlet` until the receive thread has ended and everything it queued is sent, or the drain's time is over.
    /// Returns whether everything was.
    pub(crate) fn run(self, outlet: DatagramOutlet) -> bool {
        let shared = Arc::clone(&self.shared);
        let Self { feed, unpacker, former, ahead, late, shared: _, control, metrics } = self;
        let judge = Judge {
            positions: former,
            ahead,
            session: None,
            outlet,
            metrics,
            late,
            limit: RateLimit::new(LOG_EVERY),
            changed: false,
        };
        let now = Instant::now();
        let mut running = Running { feed, unpacker, judge, shared, control, kept_at: now };
        let ended = running.deliver();
        running.finish(ended)
    }
}

struct Running {
    feed: FeedOut,
    unpacker: Unpacker,
    judge: Judge,
    shared: Arc<Shared>,
    control: Arc<Control>,
    kept_at: Instant,
}

impl Running {
    fn deliver(&mut self) -> Result<(), GivenUp> {
        loop {
            match self.feed.take(NAP) {
                Taken::Item(item) => self.batch(Arc::new(*item))?,
                Taken::Nothing => self.judge.outlet.service()?,
                Taken::Closed => break,
            }
            self.control.check()?;
            self.keep_house();
        }
        Ok(())
    }

    fn batch(&mut self, item: Arc<Item>) -> Result<(), GivenUp> {
        if let Some(dropped) = item.dropped_before {
            self.judge.positions.note_dropped(dropped.reason);
        }
        self.judge.session = Some(item.batch.session);
        let raw = match self.unpacker.unpack(&item.batch) {
            Ok(raw) => raw,
            Err(error) => {
                let judge = &mut self.judge;
                refuse_batch(&judge.metrics, &mut judge.limit, &item, &error.to_string());
                self.judge.outlet.books_mut().recycle(item);
                return Ok(());
            }
        };
        match item.batch.content {
            Content::Records => {
                self.judge.outlet.begin_batch(Arc::clone(&item));
                for chunk in Chunks::new(raw).map_while(Result::ok) {
                    self.judge.chunk(&chunk);
                }
                // Before the batch can be settled, so that its buffer can be used again.
                drop(item);
                self.judge.outlet.end_batch()
            }
            Content::Ledger => {
                for entry in LedgerEntries::new(raw).map_while(Result::ok) {
                    self.judge.entry(&entry);
                }
                self.judge.outlet.books_mut().recycle(item);
                self.judge.outlet.service()
            }
        }
    }

    /// Once a second: refusals into the positions, a copy of them towards the disk, figures for `/status`.
    fn keep_house(&mut self) {
        let now = Instant::now();
        if now.saturating_duration_since(self.kept_at) < STORE_EVERY {
            return;
        }
        self.kept_at = now;
        self.feed.house_keeping();
        self.judge.outlet.books_mut().flush_refused();
        if self.judge.changed {
            self.judge.changed = false;
            self.judge.outlet.checkpoint(&self.judge.positions);
        }
        self.judge.outlet.probe();
        self.shared.partitions.store(self.judge.positions.len() as u64, Relaxed);
        self.shared.queued_batches.store(self.feed.len() as u64, Relaxed);
        *lock(&self.shared.topics) = self.judge.outlet.destinations();
        self.judge.metrics.queue_bytes.set(self.feed.used() as i64);
    }

    /// The last acts of the thread.
    fn finish(mut self, ended: Result<(), GivenUp>) -> bool {
        self.judge.outlet.books_mut().flush_refused();
        let link = self.judge.metrics.link().to_owned();
        let drained = ended.is_ok();
        if drained {
            self.judge.outlet.books_mut().checkpoint();
            self.judge.outlet.books_mut().acknowledged(&self.judge.positions);
            tracing::info!(link, "everything received was acknowledged by the destination");
        } else {
            let destination = self.judge.outlet.last_error();
            tracing::error!(
                link,
                batches_waiting = self.feed.len(),
                destination,
                "the drain was given up; what was not acknowledged will be named as missing after the next start"
            );
        }
        self.judge.outlet.books_mut().store_sessions();
        self.shared.in_flight.store(0, Relaxed);
        self.shared.sink_done.store(true, Relaxed);
        self.judge.outlet.retire();
        drained
    }
}

/// What is decided about chunks and ledger entries, and carried out.
struct Judge {
    positions: Positions,
    /// See [`SinkThread::ahead`]; empty soon after the start.
    ahead: HashMap<PartitionKey, i64>,
    /// Of the batch at hand.
    session: Option<Session>,
    outlet: DatagramOutlet,
    metrics: Arc<LinkMetrics<EgressMetrics>>,
    late: LateRecords,
    limit: RateLimit<&'static str>,
    /// The positions differ from the copy that was made last.
    changed: bool,
}

impl Judge {
    fn chunk(&mut self, chunk: &Chunk<'_>) {
        let header = &chunk.header;
        // An empty table has room.
        let Some(slot) = self.slot(header.stream, header.topic, header.topic_id, header.partition) else {
            return;
        };
        let visit = self.positions.enter(header, chunk.record_count);
        self.changed = true;
        if let Some(missing) = &visit.missing {
            report(self.outlet.books(), slot, missing, self.session);
        }
        note_limits(self.outlet.books(), slot, visit.forgotten, visit.evicted.as_deref());
        if visit.older_epoch {
            warn_of_epoch(&mut self.limit, &self.metrics, header);
        }
        let (mut duplicates, mut late_records, mut route) = (0, 0, None);
        for record in chunk.records.clone().map_while(Result::ok) {
            match visit.disposition(record.offset) {
                Disposition::Deliver => {}
                Disposition::Late => {
                    late_records += 1;
                    if self.late == LateRecords::Drop {
                        continue;
                    }
                }
                Disposition::Duplicate => {
                    duplicates += 1;
                    continue;
                }
                // The chain will bring it.
                Disposition::Ahead => continue,
            }
            let route = match &mut route {
                Some(route) => route,
                none => none.insert(self.outlet.route(header)),
            };
            match route {
                Ok(route) => self.outlet.send(slot, *route, &record),
                Err(why) => self.outlet.refuse(slot, record.offset, || why.clone()),
            }
        }
        let Settled { filled, forgotten } = visit.finish();
        note_limits(self.outlet.books(), slot, forgotten, None);
        self.fill(slot, &filled);
        if !self.ahead.is_empty() && header.kind == ChunkKind::Live {
            self.fill_ahead(slot, header.base(), header.end);
        }
        self.outlet.books_mut().chunk_done();
        self.metrics.records_received.add(u64::from(chunk.record_count));
        self.metrics.records_duplicate.add(duplicates);
        self.metrics.records_late.add(late_records);
    }

    /// Holes were filled by what was handed over; or dropped, if that is what shall become of late records.
    fn fill(&mut self, slot: u32, filled: &[OffsetRange]) {
        for range in filled {
            match (self.late, self.outlet.books().name(slot)) {
                (LateRecords::Drop, Some(partition)) => {
                    let why = "its records came late, and late = \"drop\"";
                    self.outlet.books().report().give_up(&partition, *range, why);
                }
                _ => self.outlet.books_mut().fills(slot, *range),
            }
        }
    }

    /// A gap was reported shortly before a crash, and the positions stored were older: what the ingress sends again comes in
    /// order, and yet closes it.
    fn fill_ahead(&mut self, slot: u32, base: i64, end: i64) {
        let books = self.outlet.books_mut();
        let Some(key) = books.partitions.key(slot) else { return };
        let Some(&up_to) = self.ahead.get(key) else { return };
        if end >= up_to {
            self.ahead.remove(key);
        }
        if base < end {
            books.fills(slot, OffsetRange { first: base, last: end - 1 });
        }
    }

    fn entry(&mut self, entry: &LedgerEntry<'_>) {
        let verdict = self.positions.ledger(entry);
        self.changed = true;
        if verdict.missing.is_none() && verdict.forgotten.is_none() && verdict.evicted.is_none() {
            return;
        }
        let Some(slot) = self.slot(entry.stream, entry.topic, entry.topic_id, entry.partition) else {
            return;
        };
        if let Some(missing) = &verdict.missing {
            report(self.outlet.books(), slot, missing, self.session);
        }
        note_limits(self.outlet.books(), slot, verdict.forgotten, verdict.evicted.as_deref());
    }

    /// The number of a partition. A full table is begun anew: nothing handed over refers to it any more.
    fn slot(&mut self, stream: &str, topic: &str, topic_id: TopicId, partition: i32) -> Option<u32> {
        let books = self.outlet.books_mut();
        let known = books.partitions.slot(stream, topic, topic_id, partition);
        known.or_else(|| {
            books.flush_refused();
            books.begin_partitions_anew();
            books.partitions.slot(stream, topic, topic_id, partition)
        })
    }
}

/// Counts and says that a batch cannot be used.
pub(super) fn refuse_batch(
    metrics: &LinkMetrics<EgressMetrics>,
    limit: &mut RateLimit<&'static str>,
    item: &Item,
    error: &str,
) {
    metrics.batches_refused.inc();
    if let Some(suppressed) = limit.allow("unreadable", Instant::now()) {
        tracing::error!(
            link = metrics.link(), session = %item.batch.session,
            first_block = item.batch.first_block, last_block = item.batch.last_block, error, suppressed,
            "a batch came whole and cannot be read; its records are named when the next ones come"
        );
    }
}

pub(super) fn report(books: &Books, slot: u32, missing: &Missing, session: Option<Session>) {
    let Some(partition) = books.name(slot) else { return };
    let reason = MissingReason::from_name(missing.reason.as_str()).unwrap_or(MissingReason::Lost);
    let range = Range { offsets: missing.range, records: missing.records, reason, session };
    books.report().report(&partition, range, "");
}

/// Tables are bounded; what no longer fits is said.
fn note_limits(books: &Books, slot: u32, hole: Option<OffsetRange>, evicted: Option<&PartitionKey>) {
    if let (Some(hole), Some(partition)) = (hole, books.name(slot)) {
        books.report().give_up(&partition, hole, TOO_MANY_HOLES);
    }
    if let Some(evicted) = evicted {
        tracing::warn!(
            link = books.report().link(),
            topic = evicted.topic,
            partition = evicted.partition,
            "too many partitions to remember; this one was silent longest and is judged as if new when it comes again"
        );
        let partition = SourcePartition {
            stream: evicted.stream.clone(),
            topic: evicted.topic.clone(),
            topic_id: evicted.topic_id.to_string(),
            partition: evicted.partition,
        };
        let all = OffsetRange { first: 0, last: i64::MAX - 1 };
        books.report().give_up(&partition, all, "there are more than 65,536 partitions");
    }
}

fn warn_of_epoch(
    limit: &mut RateLimit<&'static str>,
    metrics: &LinkMetrics<EgressMetrics>,
    header: &ChunkHeader<'_>,
) {
    if let Some(suppressed) = limit.allow("epoch", Instant::now()) {
        tracing::warn!(
            link = metrics.link(),
            topic = header.topic,
            partition = header.partition,
            epoch = header.epoch.0,
            suppressed,
            "records of an older ownership epoch came; were the ingress's state and clock set back? Offsets decide all the same"
        );
    }
}
