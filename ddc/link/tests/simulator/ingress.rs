//! A source with partitions, and ingresses that read it, keep the commit rule, and die.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use ddc_fec::Code;
use ddc_link::keys::{LinkKey, SealMode};
use ddc_link::sender::{
    Compression, Datagrams, HeartbeatFacts, Mark, PackConfig, PackError, Packer, PartitionStart, Sender,
    SenderConfig, Slot, Step,
};
use ddc_wire::{Epoch, GoodbyeReason, KeyId, LinkId, RecordHeader, Session, SourceState, Timestamp, TopicId};

use super::weather::Time;

pub(crate) const LINK: LinkId = LinkId(7);

pub(crate) fn link_key(id: KeyId) -> LinkKey {
    LinkKey::new([id.0; 32])
}

/// The records of one partition: their offsets; what they hold follows from the offset.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) offsets: Vec<i64>,
    pub(crate) committed: Option<Commit>,
    pub(crate) sizes: usize,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Commit {
    offset: i64,
    epoch: Epoch,
    origin: i64,
    previous: Option<i64>,
    count: u64,
}

pub(crate) fn content(partition: i32, offset: i64, sizes: usize) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let mut state = (offset as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (partition as u64) << 17;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let key = (next() % 5 != 0).then(|| offset.to_be_bytes().to_vec());
    let len = if next() % 40 == 0 { sizes * 12 } else { next() as usize % (sizes + 1) };
    let value = (next() % 9 != 0).then(|| (0..len).map(|_| next() as u8).collect());
    (key, value)
}

/// What a link is configured with, the same for every ingress of a scenario.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) code: Code,
    pub(crate) symbol_size: usize,
    pub(crate) interleave: u8,
    pub(crate) span: Duration,
    pub(crate) rate: Option<u64>,
    pub(crate) linger: Duration,
    pub(crate) compression: Compression,
    pub(crate) commit_delay: Duration,
}

/// One life of an ingress.
pub(crate) struct Ingress {
    pub(crate) address: u16,
    packer: Packer,
    sender: Sender,
    settings: Settings,
    /// Partition, its slot, index of the next record in the log, and what its commits say.
    reading: BTreeMap<i32, (Slot, usize, PartitionStart)>,
    handed: VecDeque<(u64, Vec<Mark>)>,
    pushed_blocks: u64,
    sent: VecDeque<(Time, Mark)>,
    next_heartbeat: Time,
    next_commit: Time,
    /// Does nothing before this time: SIGSTOP.
    pub(crate) stopped_until: Time,
    /// Has lost its partitions to a newer member and may not commit, but goes on with what it has.
    pub(crate) fenced: bool,
    datagrams: Datagrams,
}

impl Ingress {
    pub(crate) fn begin(
        settings: Settings,
        base: Instant,
        now: Time,
        session: Session,
        key_id: KeyId,
        address: u16,
        logs: &mut BTreeMap<i32, Log>,
        epoch: Epoch,
    ) -> Self {
        let at = base + now;
        let config = PackConfig {
            stream: String::new(),
            symbol_size: settings.symbol_size,
            source_symbols: settings.code.k(),
            linger: settings.linger,
            compression: settings.compression,
            max_record_bytes: 1 << 20,
            ledger_interval: Duration::from_secs(30),
            ledger_changed: Duration::from_secs(1),
            max_partitions: 16,
        };
        let mut packer = Packer::new(config, at).unwrap();
        let mut reading = BTreeMap::new();
        for (&partition, log) in logs {
            let commit = *log.committed.get_or_insert(Commit {
                offset: 0,
                epoch,
                origin: 0,
                previous: None,
                count: 0,
            });
            let epoch = Epoch(epoch.0.max(commit.epoch.0 + 1));
            log.committed = Some(Commit { epoch, ..commit });
            let start = PartitionStart {
                topic: "t".into(),
                topic_id: TopicId::Uuid([1; 16]),
                partition,
                partition_count: 3,
                epoch,
                origin: commit.origin,
                previous: commit.previous,
                count: commit.count,
                next: commit.offset,
            };
            let index = log.offsets.partition_point(|offset| *offset < commit.offset);
            reading.insert(partition, (packer.assign(start.clone()).unwrap(), index, start));
        }
        let sender = Sender::new(
            SenderConfig {
                link_id: LINK,
                key_id,
                key: link_key(key_id),
                seal: SealMode::Aes256Gcm,
                session,
                code: settings.code,
                symbol_size: settings.symbol_size,
                interleave: settings.interleave,
                interleave_span: settings.span,
                rate: settings.rate,
                burst: Duration::from_micros(250),
                ip_overhead: 20,
            },
            at,
        );
        Self {
            address,
            packer,
            sender: sender.unwrap(),
            settings,
            reading,
            handed: VecDeque::new(),
            pushed_blocks: 0,
            sent: VecDeque::new(),
            next_heartbeat: now,
            next_commit: now,
            stopped_until: Time::ZERO,
            fenced: false,
            datagrams: Datagrams::new(),
        }
    }

    /// Everything that is due; datagrams go to `out`. Returns when to come back.
    pub(crate) fn run(
        &mut self,
        base: Instant,
        now: Time,
        wall_micros: u64,
        logs: &mut BTreeMap<i32, Log>,
        out: &mut dyn FnMut(&[u8]),
    ) -> Time {
        if now < self.stopped_until {
            return self.stopped_until;
        }
        let at = base + now;
        self.read(at, logs);
        if now >= self.next_heartbeat {
            self.next_heartbeat = now + Duration::from_secs(1);
            let facts = HeartbeatFacts {
                wall_clock_micros: wall_micros,
                lag: Some(0),
                source_state: SourceState::Running,
            };
            self.sender.heartbeat(at, facts);
        }
        let mut wake = self.next_heartbeat.min(now + Duration::from_millis(500));
        loop {
            while self.sender.ready() {
                let idle = self.sender.could_send_now(at);
                let Some(block) = self.packer.poll(at, idle) else { break };
                self.sender.push(at, block.bytes, block.full, block.records).unwrap();
                self.pushed_blocks += 1;
                self.handed.push_back((self.pushed_blocks, block.marks));
            }
            match self.sender.poll(at, &mut self.datagrams) {
                Step::Send => self.datagrams.iter().for_each(&mut *out),
                Step::Wait(until) => {
                    wake = wake.min((until - base).max(now + Duration::from_micros(1)));
                    break;
                }
                Step::Idle => break,
            }
        }
        if let Some(due) = self.packer.next_deadline() {
            wake = wake.min((due - base).max(now + Duration::from_micros(200)));
        }
        self.commit(now, logs);
        wake
    }

    /// Whether every record of the source has been handed out.
    pub(crate) fn has_sent_all(&self, logs: &BTreeMap<i32, Log>) -> bool {
        let read =
            self.reading.iter().all(|(partition, (_, index, _))| *index == logs[partition].offsets.len());
        read && self.packer.queued_bytes() == 0 && self.sender.blocks_waiting() == 0
    }

    /// Where it stands, for a person who looks for a fault.
    pub(crate) fn describe(&self) -> String {
        let read: Vec<_> = self.reading.iter().map(|(partition, (_, index, _))| (partition, index)).collect();
        let (queued, waiting) = (self.packer.queued_bytes(), self.sender.blocks_waiting());
        format!(
            "{:?}, read {read:?}, {queued} bytes packed, {waiting} blocks in the sender",
            self.sender.totals()
        )
    }

    fn read(&mut self, at: Instant, logs: &BTreeMap<i32, Log>) {
        if self.fenced {
            return;
        }
        for (partition, (slot, index, _)) in &mut self.reading {
            let log = &logs[partition];
            while let Some(&offset) = log.offsets.get(*index) {
                let (key, value) = content(*partition, offset, log.sizes);
                let headers = [RecordHeader { name: b"h", value: None }];
                let time = Some(Timestamp::Create(offset * 10));
                match self.packer.push(
                    at,
                    *slot,
                    offset,
                    time,
                    key.as_deref(),
                    value.as_deref(),
                    headers.into_iter(),
                ) {
                    Ok(()) => *index += 1,
                    Err(PackError::Full) => return,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    fn commit(&mut self, now: Time, logs: &mut BTreeMap<i32, Log>) {
        let blocks = self.sender.totals().blocks;
        while self.handed.front().is_some_and(|(block, _)| *block <= blocks) {
            let (_, marks) = self.handed.pop_front().unwrap();
            self.sent.extend(marks.into_iter().map(|mark| (now, mark)));
        }
        if now < self.next_commit || self.fenced {
            return;
        }
        self.next_commit = now + Duration::from_secs(1);
        while self
            .sent
            .front()
            .is_some_and(|(since, _)| now.saturating_sub(*since) >= self.settings.commit_delay)
        {
            let (_, mark) = self.sent.pop_front().unwrap();
            let Some((partition, (_, _, start))) =
                self.reading.iter().find(|(_, (slot, ..))| *slot == mark.slot)
            else {
                continue;
            };
            logs.get_mut(partition).unwrap().committed = Some(Commit {
                offset: mark.end,
                epoch: start.epoch,
                origin: start.origin,
                previous: mark.last,
                count: mark.count,
            });
        }
    }

    /// A planned stop: what is packed and the goodbyes leave at once.
    pub(crate) fn goodbye(&mut self, base: Instant, now: Time, out: &mut dyn FnMut(&[u8])) {
        let mut at = base + now;
        self.packer.flush(at);
        let end = at + Duration::from_secs(2);
        let mut said = false;
        while at < end && !self.sender.finished() {
            while self.sender.ready() {
                let Some(block) = self.packer.poll(at, true) else { break };
                self.sender.push(at, block.bytes, block.full, block.records).unwrap();
            }
            match self.sender.poll(at, &mut self.datagrams) {
                Step::Send => self.datagrams.iter().for_each(&mut *out),
                Step::Wait(until) => at = until,
                Step::Idle if said => break,
                Step::Idle => {
                    self.sender.goodbye(at, GoodbyeReason::Stop);
                    said = true;
                }
            }
        }
    }
}
