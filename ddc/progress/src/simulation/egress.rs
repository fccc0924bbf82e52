//! An egress: spool, table, owners and working copy around a producer that can be lost at any step.

use std::time::{Duration, Instant};

use ddc_link::receiver::Disposition;
use ddc_wire::ChunkKind;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::broker::{Broker, Fenced, Handle, Written};
use super::source::{Chunk, key};
use super::{Skip, TIMEOUT, link, set};
use crate::{
    Action, Heading, Kind, Notice, Outcome, Owners, OwnersConfig, ProgressTable, RecordKey, Ticket, Verdict,
    WorkingCopy,
};

pub(super) struct Egress {
    pub(super) number: usize,
    skip: Skip,
    /// Survives a crash.
    pub(super) spool: Vec<Chunk>,
    owners: Owners,
    table: ProgressTable,
    working: WorkingCopy,
    reader: usize,
    handle: Option<Handle>,
    in_transaction: bool,
    /// The progress is produced: the transaction takes nothing more, and holds up readers until it ends.
    is_produced: bool,
    pending: Option<Pending>,
    after_fence: bool,
    /// Every chunk that was judged as a gap in this life, for walks in which there is none.
    pub(super) gaps: usize,
}

enum Pending {
    /// The claims are produced and not committed.
    Claims(Ticket),
    /// Reads until there.
    Read(Ticket, usize),
}

/// How often things go wrong that only this egress sees.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trouble {
    pub(super) lost_answer: f64,
    pub(super) abort: f64,
}

impl Egress {
    pub(super) fn new(number: usize, skip: Skip) -> Self {
        Self {
            number,
            skip,
            spool: Vec::new(),
            owners: owners(number),
            table: ProgressTable::new(set()),
            working: WorkingCopy::new(set(), link(number)),
            reader: 0,
            handle: None,
            in_transaction: false,
            is_produced: false,
            pending: None,
            after_fence: false,
            gaps: 0,
        }
    }

    /// Everything but the spool is gone; what is open at the broker stays open.
    pub(super) fn crash(&mut self) {
        let spool = std::mem::take(&mut self.spool);
        *self = Self { gaps: self.gaps, ..Self::new(self.number, self.skip) };
        self.spool = spool;
        self.spool.iter_mut().for_each(|chunk| chunk.in_transaction = false);
    }

    /// One step of whatever this egress could do now.
    pub(super) fn step(&mut self, broker: &mut Broker, rng: &mut ChaCha8Rng, trouble: Trouble, step: u64) {
        let now = super::time(step);
        if rng.random_bool(0.4) {
            self.read(broker);
        }
        match self.pending {
            Some(Pending::Claims(ticket)) => return self.commit_claims(broker, rng, trouble, ticket, now),
            Some(Pending::Read(ticket, target)) if self.reader >= target => {
                self.pending = None;
                self.owners.answer(ticket, Outcome::Done, now);
            }
            _ => {}
        }
        if self.is_produced || self.in_transaction && rng.random_bool(0.4) {
            return self.commit(broker, rng, trouble);
        }
        if !self.in_transaction
            && rng.random_bool(0.7)
            && let Some(action) = self.owners.poll(&self.table, now)
        {
            return self.act(broker, rng, trouble, action, step);
        }
        let partition = rng.random_range(0..super::PARTITIONS);
        let chunks = rng.random_range(1..4);
        self.sweep(broker, partition, chunks, step);
    }

    fn act(
        &mut self,
        broker: &mut Broker,
        rng: &mut ChaCha8Rng,
        trouble: Trouble,
        action: Action,
        step: u64,
    ) {
        let now = super::time(step);
        match action {
            Action::Rebuild(ticket) => {
                self.lose_transaction();
                self.handle = Some(broker.init(self.number));
                self.owners.answer(ticket, Outcome::Done, now);
            }
            Action::CommitClaims(ticket, claims) => {
                if self.skip == Skip::Claim {
                    return self.owners.answer(ticket, Outcome::Done, now);
                }
                let handle = self.handle.unwrap();
                let produced = broker.begin(handle, step).and_then(|()| {
                    let mut claims = claims.iter().map(|claim| self.owners.encode(&self.table, claim));
                    claims.try_for_each(|record| broker.produce_topic(handle, record))
                });
                match produced {
                    Ok(()) => self.pending = Some(Pending::Claims(ticket)),
                    Err(Fenced) => self.claims_fenced(broker, ticket, now),
                }
            }
            Action::ReadToEnd(ticket) => {
                if self.skip == Skip::ReadAfterFence && std::mem::take(&mut self.after_fence) {
                    return self.owners.answer(ticket, Outcome::Done, now);
                }
                let stable = self.skip == Skip::Watermark;
                let end = if stable { broker.last_stable() } else { broker.high_watermark() };
                self.pending = Some(Pending::Read(ticket, end));
            }
            Action::Fence(ticket, other) => {
                self.after_fence = true;
                if self.skip != Skip::Fence {
                    let other = (0..super::LINKS).find(|number| link(*number) == other).unwrap();
                    assert_ne!(other, self.number, "nobody fences itself");
                    broker.init(other);
                }
                let failed = rng.random_bool(trouble.abort);
                self.owners.answer(ticket, if failed { Outcome::Failed } else { Outcome::Done }, now);
            }
            Action::Notice(Notice::MayWrite { key, progress }) => {
                self.working.restore(&key, progress.as_ref());
            }
            Action::Notice(Notice::Lost { key, .. }) => self.working.forget(&key),
            Action::Notice(Notice::Started) => {}
            Action::Notice(Notice::Refused { why, .. }) => panic!("{why}"),
        }
    }

    fn commit_claims(
        &mut self,
        broker: &mut Broker,
        rng: &mut ChaCha8Rng,
        trouble: Trouble,
        ticket: Ticket,
        now: Instant,
    ) {
        self.pending = None;
        let handle = self.handle.unwrap();
        if rng.random_bool(trouble.abort) {
            return match broker.abort(handle) {
                Ok(()) => self.owners.answer(ticket, Outcome::Failed, now),
                Err(Fenced) => self.claims_fenced(broker, ticket, now),
            };
        }
        match broker.commit(handle) {
            Ok(()) if rng.random_bool(trouble.lost_answer) => {
                self.owners.answer(ticket, Outcome::LostProducer, now);
            }
            Ok(()) => self.owners.answer(ticket, Outcome::Done, now),
            Err(Fenced) => self.claims_fenced(broker, ticket, now),
        }
    }

    fn claims_fenced(&mut self, broker: &mut Broker, ticket: Ticket, now: Instant) {
        if self.skip == Skip::Recheck {
            self.handle = Some(broker.init(self.number));
            return self.owners.answer(ticket, Outcome::Failed, now);
        }
        self.owners.answer(ticket, Outcome::LostProducer, now);
    }

    /// Judges chunks of a partition in their order, until one has to wait.
    fn sweep(&mut self, broker: &mut Broker, partition: usize, mut chunks: usize, step: u64) {
        let key = key(partition);
        for at in 0..self.spool.len() {
            let chunk = &self.spool[at];
            if chunk.partition != partition || chunk.in_transaction {
                continue;
            }
            let header = chunk.header(&key);
            let heading = Heading::of_chunk(&header, chunk.session);
            let chain = self.working.chain(&key);
            let verdict = self.owners.judge(&self.table, chain, &key, &heading, super::time(step));
            let holes_only = match verdict {
                Verdict::Write { holes_only, .. } => holes_only,
                Verdict::Wait | Verdict::Parked { .. } => return,
                Verdict::NotOwner { .. } => continue,
                Verdict::Refused(why) => panic!("{why}"),
            };
            if chunks == 0 {
                return;
            }
            // What can only fill holes stays for long, and must not hold up what is behind it.
            chunks -= usize::from(!holes_only);
            if self.write(broker, at, holes_only, step) == Err(Fenced) {
                return self.fenced(broker);
            }
        }
    }

    fn write(&mut self, broker: &mut Broker, at: usize, holes_only: bool, step: u64) -> Result<(), Fenced> {
        let handle = self.handle.unwrap();
        if !self.in_transaction {
            broker.begin(handle, step)?;
            self.in_transaction = true;
        }
        let chunk = &mut self.spool[at];
        chunk.in_transaction = true;
        let key = key(chunk.partition);
        let header = chunk.header(&key);
        let count = chunk.offsets().count() as u32;
        let visit = self.working.enter(&key, &header, count, chunk.session, holes_only);
        let visit = visit.expect("what may be written was restored");
        self.gaps += usize::from(visit.missing.is_some());
        for offset in chunk.offsets() {
            let late = match visit.disposition(offset) {
                Disposition::Deliver => false,
                Disposition::Late => true,
                Disposition::Duplicate | Disposition::Ahead => continue,
            };
            let written = Written { partition: chunk.partition, offset, late, by: self.number };
            broker.produce_data(handle, written)?;
        }
        assert_eq!(visit.finish().forgotten, None, "so many holes");
        Ok(())
    }

    fn commit(&mut self, broker: &mut Broker, rng: &mut ChaCha8Rng, trouble: Trouble) {
        let handle = self.handle.unwrap();
        if !self.is_produced {
            let mut changes: Vec<_> =
                self.working.changes().map(|(key, progress)| self.working.encode(key, &progress)).collect();
            changes.sort_unstable();
            let produced = changes.into_iter().try_for_each(|record| broker.produce_topic(handle, record));
            if produced == Err(Fenced) {
                return self.fenced(broker);
            }
            self.is_produced = true;
            if rng.random_bool(0.5) {
                return;
            }
        }
        let ended = if rng.random_bool(trouble.abort) {
            broker.abort(handle).map(|()| false)
        } else {
            broker.commit(handle).map(|()| true)
        };
        match ended {
            Ok(true) if rng.random_bool(trouble.lost_answer) => self.fenced(broker),
            Ok(true) => {
                self.working.committed();
                (self.in_transaction, self.is_produced) = (false, false);
                let settled: Vec<_> =
                    self.spool.iter().map(|chunk| chunk.in_transaction && self.is_written(chunk)).collect();
                let mut settled = settled.into_iter();
                self.spool.retain(|_| !settled.next().unwrap());
                self.spool.iter_mut().for_each(|chunk| chunk.in_transaction = false);
            }
            Ok(false) => self.void(),
            Err(Fenced) => self.fenced(broker),
        }
    }

    fn fenced(&mut self, broker: &mut Broker) {
        if self.skip == Skip::Recheck {
            self.handle = Some(broker.init(self.number));
            return self.void();
        }
        self.lose_transaction();
        self.owners.lost_producer();
    }

    /// The transaction is aborted, nothing else is lost.
    fn void(&mut self) {
        self.working.aborted();
        (self.in_transaction, self.is_produced) = (false, false);
        self.spool.iter_mut().for_each(|chunk| chunk.in_transaction = false);
    }

    fn lose_transaction(&mut self) {
        self.void();
        self.working.clear();
        self.pending = None;
    }

    fn is_written(&self, chunk: &Chunk) -> bool {
        let position = self.working.position(&key(chunk.partition));
        position.is_some_and(|position| chunk.offsets().all(|offset| position.is_settled(offset)))
            && (chunk.kind == ChunkKind::Replay
                || position.is_some_and(|position| position.next() >= chunk.end))
    }

    /// Follows the topic by a record.
    fn read(&mut self, broker: &Broker) {
        let Some((next, record)) = broker.read(self.reader) else { return };
        let offset = self.reader as i64;
        self.reader = next;
        let Some((key, value)) = record else { return };
        if self.skip == Skip::ReadClaims {
            let own = Kind::Claim(link(self.number));
            let read = RecordKey::decode(key).unwrap();
            if read.kind != Kind::Progress && read.kind != own {
                return;
            }
        }
        self.table.apply(offset, Some(key), Some(value));
    }

    pub(super) fn may_write(&self, partition: usize) -> bool {
        self.owners.may_write(&key(partition))
    }
}

fn owners(number: usize) -> Owners {
    let takeover_timeout = Duration::from_millis(TIMEOUT);
    Owners::new(OwnersConfig { link: link(number), takeover_timeout, fencing: true })
}
