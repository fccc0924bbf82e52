//! A chunk: may it be written, what of it is new, and where does it go?

use std::time::Instant;

use ddc_link::receiver::{Disposition, OffsetRange, PartitionKey, Settled};
use ddc_progress::{Heading, Verdict};
use ddc_wire::{Chunk, ChunkHeader, ChunkKind, LedgerEntry, Session, TopicId};

use super::held::Why;
use super::plan::Note;
use super::rewind_wait::Advice;
use super::routes::Way;
use super::{Engine, Place};
use crate::config::LateRecords;
use crate::egress::control::GivenUp;
use crate::egress::missing::TOO_MANY_HOLES;

/// Why a hole is not waited for any longer.
const DROPPED_LATE: &str = "its records came late, and late = \"drop\"";

/// What became of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judged {
    /// It is in the plan.
    Planned,
    /// It is held.
    Held(Why),
    /// What of it may be written is in the plan, the rest is held.
    Both(Why),
    /// There is nothing to do for it.
    Settled,
}

impl Engine {
    /// Judges a chunk of a batch for the plan.
    pub(super) fn chunk(
        &mut self,
        chunk: &Chunk<'_>,
        place: Place,
        session: Session,
    ) -> Result<Judged, GivenUp> {
        let (header, slot) = (&chunk.header, place.slot);
        let Some(key) = self.writer.books.partitions.key(slot).cloned() else { return Ok(Judged::Settled) };
        let holes_only = match self.verdict(&key, header, session) {
            Ok(holes_only) => holes_only,
            Err(Why::Elsewhere) if self.is_settled_elsewhere(&key, header.base(), header.end) => {
                return Ok(Judged::Settled);
            }
            Err(why) => return Ok(Judged::Held(why)),
        };
        if self.held.blocks(slot, (place.number, place.part)) {
            return Ok(Judged::Held(Why::Ownership));
        }
        let holes_only = match self.rewind_advice(&key, header, holes_only, place) {
            Advice::Go => holes_only,
            Advice::HolesOnly => true,
            Advice::Wait => return Ok(Judged::Held(Why::Rewind)),
        };
        let way = match chunk.record_count {
            0 => None,
            _ => match self.routes.find(header, &mut self.writer) {
                Way::Wait => return Ok(Judged::Held(Why::Topic)),
                way => Some(way),
            },
        };
        let visit = self.working.enter(&key, header, chunk.record_count, session, holes_only);
        let Some(visit) = visit else { return Ok(Judged::Held(Why::Ownership)) };
        let plan = &mut self.writer.plan;
        plan.notes.extend(visit.missing.map(|missing| Note::Missing(slot, missing, session)));
        plan.notes.extend(visit.forgotten.map(|hole| Note::GivenUp(slot, hole, TOO_MANY_HOLES)));
        for record in chunk.records.clone().map_while(Result::ok) {
            let late = match visit.disposition(record.offset) {
                Disposition::Deliver => false,
                Disposition::Late => {
                    self.writer.plan.late += 1;
                    if self.late == LateRecords::Drop {
                        continue;
                    }
                    true
                }
                Disposition::Duplicate => {
                    self.writer.plan.duplicates += 1;
                    continue;
                }
                // The chain will bring it.
                Disposition::Ahead => continue,
            };
            match &way {
                Some(Way::To(route)) => self.writer.send(slot, late, header, route, &record)?,
                Some(Way::Nowhere(reason, why)) => {
                    self.writer.refuse(slot, header, &record, None, *reason, why.clone())?;
                }
                Some(Way::Wait) | None => {}
            }
        }
        let Settled { filled, forgotten } = visit.finish();
        let plan = &mut self.writer.plan;
        plan.notes.extend(forgotten.map(|hole| Note::GivenUp(slot, hole, TOO_MANY_HOLES)));
        plan.notes.extend(filled.into_iter().map(|range| match self.late {
            LateRecords::Drop => Note::GivenUp(slot, range, DROPPED_LATE),
            LateRecords::Mark => Note::Filled(slot, range),
        }));
        plan.received += u64::from(chunk.record_count);
        let next = self.working.position(&key).map_or(0, ddc_link::receiver::Position::next);
        if holes_only && header.kind == ChunkKind::Live && header.end > next {
            return Ok(Judged::Both(Why::Beyond));
        }
        Ok(Judged::Planned)
    }

    /// Whether a chunk has to wait for its ingress to go back.
    fn rewind_advice(
        &mut self,
        key: &PartitionKey,
        header: &ChunkHeader<'_>,
        holes_only: bool,
        place: Place,
    ) -> Advice {
        if holes_only || header.kind != ChunkKind::Live {
            return Advice::Go;
        }
        let was_waiting = self.rewind_wait.is_waiting(key);
        let leaves_gap = || self.working.leaves_gap(key, header);
        let advice =
            self.rewind_wait.judge(key, header.epoch, place.is_left_over, leaves_gap, Instant::now());
        if was_waiting != self.rewind_wait.is_waiting(key) {
            let (link, topic, partition) = (self.metrics.link(), header.topic, header.partition);
            let next = self.working.position(key).map(ddc_link::receiver::Position::next);
            if was_waiting {
                tracing::info!(
                    link,
                    topic,
                    partition,
                    next,
                    "the ingress went back: the partition goes on where it was, without a gap"
                );
            } else {
                tracing::info!(
                    link,
                    topic,
                    partition,
                    next,
                    first = header.base(),
                    "the first records after the start leave a gap; rewind_wait: the partition waits for the ingress to go back"
                );
            }
        }
        advice
    }

    /// Judges an entry of a ledger.
    pub(super) fn entry(&mut self, entry: &LedgerEntry<'_>, place: Place, session: Session) -> Judged {
        let slot = place.slot;
        let Some(key) = self.writer.books.partitions.key(slot).cloned() else { return Judged::Settled };
        let heading = Heading::of_ledger(entry, session);
        let (table, chain) = (&self.ownership.table, self.working.chain(&key));
        match self.ownership.owners.judge(table, chain, &key, &heading, Instant::now()) {
            Verdict::Write { holes_only: false, .. } => {}
            Verdict::Wait | Verdict::Parked { .. } => return Judged::Held(Why::Ownership),
            // Of a chain that is over, or another's: whose it is gets ledgers of his own.
            Verdict::Write { .. } | Verdict::NotOwner { .. } | Verdict::Refused(_) => return Judged::Settled,
        }
        if self.held.blocks(slot, (place.number, place.part)) {
            return Judged::Held(Why::Ownership);
        }
        let leaves_gap = || self.working.ledger_leaves_gap(&key, entry);
        match self.rewind_wait.judge(&key, entry.epoch, place.is_left_over, leaves_gap, Instant::now()) {
            Advice::Go => {}
            // It speaks of a chain that is over.
            Advice::HolesOnly => return Judged::Settled,
            Advice::Wait => return Judged::Held(Why::Rewind),
        }
        let Some(verdict) = self.working.ledger(&key, entry, session) else {
            return Judged::Held(Why::Ownership);
        };
        let plan = &mut self.writer.plan;
        plan.notes.extend(verdict.missing.map(|missing| Note::Missing(slot, missing, session)));
        plan.notes.extend(verdict.forgotten.map(|hole| Note::GivenUp(slot, hole, TOO_MANY_HOLES)));
        Judged::Planned
    }

    /// Whether the chunk may be written, and then whether it may fill holes only; else why it is held.
    fn verdict(
        &mut self,
        key: &PartitionKey,
        header: &ChunkHeader<'_>,
        session: Session,
    ) -> Result<bool, Why> {
        let heading = Heading::of_chunk(header, session);
        let (table, chain) = (&self.ownership.table, self.working.chain(key));
        match self.ownership.owners.judge(table, chain, key, &heading, Instant::now()) {
            Verdict::Write { holes_only, set_back } => {
                if set_back && let Some(suppressed) = self.limit.allow("set back", Instant::now()) {
                    tracing::warn!(
                        link = self.metrics.link(), topic = header.topic, partition = header.partition, epoch = %header.epoch, suppressed,
                        "the epoch went back: was the clock or the state of the ingress set back? Offsets decide all the same"
                    );
                }
                Ok(holes_only)
            }
            Verdict::Wait | Verdict::Parked { .. } => Err(Why::Ownership),
            Verdict::NotOwner { owner, epoch, alarm } => {
                if alarm && let Some(suppressed) = self.limit.allow("epochs", Instant::now()) {
                    let owner = owner.as_ref().map_or_else(|| "another link".to_owned(), ToString::to_string);
                    let theirs = epoch.map(|epoch| epoch.to_string());
                    tracing::error!(
                        link = self.metrics.link(), topic = header.topic, partition = header.partition, owner, epoch = theirs, ours = %header.epoch, suppressed,
                        "another link of the set has a greater epoch of this partition, though this one is sending: its records are held. Compare the \
                         clocks of the two ingresses, and whether both are in one consumer group"
                    );
                }
                Err(Why::Elsewhere)
            }
            Verdict::Refused(why) => {
                if let Some(suppressed) = self.limit.allow("refused", Instant::now()) {
                    tracing::error!(
                        link = self.metrics.link(), topic = header.topic, partition = header.partition, why = %why, suppressed,
                        "the progress topic cannot be used for this partition; its records are held until it is mended"
                    );
                }
                Err(Why::Unusable)
            }
        }
    }

    /// Whether the link that writes the partition has all of these offsets, or never will.
    pub(super) fn is_settled_elsewhere(&self, key: &PartitionKey, base: i64, end: i64) -> bool {
        let Some(progress) = self.ownership.table.progress(key) else { return false };
        let range = OffsetRange { first: base, last: end - 1 };
        let crosses = |hole: &OffsetRange| hole.first <= range.last && range.first <= hole.last;
        end <= progress.position.next() && !progress.position.holes().iter().any(crosses)
    }

    /// The number of a partition. `None`: the table is full, and something still refers to it.
    pub(super) fn slot(
        &mut self,
        stream: &str,
        topic: &str,
        topic_id: TopicId,
        partition: i32,
    ) -> Option<u32> {
        let known = self.writer.books.partitions.slot(stream, topic, topic_id, partition);
        if known.is_some() || !self.held.is_empty() || !self.writer.plan.is_empty() {
            return known;
        }
        self.writer.books.begin_partitions_anew();
        self.writer.books.partitions.slot(stream, topic, topic_id, partition)
    }
}
