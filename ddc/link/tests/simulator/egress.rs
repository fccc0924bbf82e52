//! An egress that keeps its positions each second, and checks everything that it is about to deliver.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ddc_link::keys::{Keyring, SealMode};
use ddc_link::receiver::{
    Disposition, Event, Missing, Positions, Receiver, ReceiverConfig, StoredSession, Unpacker,
};
use ddc_wire::{Chunks, Content, KeyId, LedgerEntries, Timestamp};

use super::ingress::{LINK, Log, content, link_key};
use super::weather::Time;

/// Everything that is known of a partition over all lives.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) delivered: BTreeSet<i64>,
    pub(crate) reported: Vec<(i64, i64)>,
}

/// One life of an egress, and what it left on disk.
pub(crate) struct Egress {
    receiver: Receiver,
    unpacker: Unpacker,
    positions: Positions,
    stored: (Vec<StoredSession>, String),
    next_store: Time,
    pub(crate) stopped_until: Time,
    /// Of this life, by partition: delivered, and the last one in order.
    delivered: BTreeMap<i32, (BTreeSet<i64>, i64)>,
    pub(crate) known: BTreeMap<i32, Known>,
    pub(crate) deliveries: u64,
    /// Records that filled a reported hole.
    pub(crate) late: u64,
    pub(crate) refused: u64,
}

const WINDOW: usize = 4 << 20;

impl Egress {
    pub(crate) fn begin(base: Instant, now: Time, former: Option<Egress>, keep_state: bool) -> Self {
        let (stored, known, deliveries, late, refused) = match former {
            Some(former) if keep_state => {
                (former.stored, former.known, former.deliveries, former.late, former.refused)
            }
            Some(former) => {
                (Default::default(), former.known, former.deliveries, former.late, former.refused)
            }
            None => Default::default(),
        };
        let mut keyring = Keyring::default();
        for id in [1, 2] {
            keyring.insert(KeyId(id), link_key(KeyId(id)));
        }
        let config = ReceiverConfig {
            link_id: LINK,
            keyring,
            seal: SealMode::Aes256Gcm,
            reorder_timeout: Duration::from_millis(50),
            window_bytes: WINDOW,
            max_batch_bytes: 2 << 20,
            build_micros: 1_700_000_000_000_000,
        };
        let positions =
            if stored.1.is_empty() { Positions::default() } else { serde_json::from_str(&stored.1).unwrap() };
        Self {
            receiver: Receiver::new(config, base + now, &stored.0),
            unpacker: Unpacker::new(2 << 20).unwrap(),
            positions,
            stored,
            next_store: now,
            stopped_until: Time::ZERO,
            delivered: BTreeMap::new(),
            known,
            deliveries,
            late,
            refused,
        }
    }

    /// What the receiver counted, for a person who looks for a fault.
    pub(crate) fn describe(&self) -> String {
        format!("{:#?}\n{:#?}", self.receiver.counters(), self.receiver.stored())
    }

    pub(crate) fn handle(
        &mut self,
        base: Instant,
        now: Time,
        wall_micros: u64,
        from: u16,
        datagram: &mut [u8],
    ) {
        let source = ([127, 0, 0, 1], from).into();
        if self.receiver.handle(base + now, wall_micros, source, datagram).is_err() {
            self.refused += 1;
        }
    }

    /// Everything that is due. Returns when to come back.
    pub(crate) fn run(&mut self, base: Instant, now: Time, logs: &BTreeMap<i32, Log>) -> Time {
        if now < self.stopped_until {
            return self.stopped_until;
        }
        while let Some(event) = self.receiver.poll(base + now) {
            if let Event::Batch(batch) = event {
                let raw = self.unpacker.unpack(&batch).expect("an authentic batch is well-formed");
                match batch.content {
                    Content::Records => {
                        for chunk in Chunks::new(raw) {
                            deliver(
                                &mut self.positions,
                                &mut self.delivered,
                                &mut self.known,
                                (&mut self.deliveries, &mut self.late),
                                chunk.unwrap(),
                                logs,
                            );
                        }
                    }
                    Content::Ledger => {
                        for entry in LedgerEntries::new(raw) {
                            let entry = entry.unwrap();
                            let verdict = self.positions.ledger(&entry);
                            if let Some(missing) = verdict.missing {
                                report(&self.delivered, &mut self.known, entry.partition, missing);
                            }
                        }
                    }
                }
            }
        }
        if now >= self.next_store {
            self.next_store = now + Duration::from_secs(1);
            self.stored = (self.receiver.stored(), serde_json::to_string(&self.positions).unwrap());
        }
        let due =
            self.receiver.next_deadline().map_or(self.next_store, |at| at.saturating_duration_since(base));
        due.max(now + Duration::from_micros(200)).min(self.next_store)
    }
}

fn deliver(
    positions: &mut Positions,
    delivered: &mut BTreeMap<i32, (BTreeSet<i64>, i64)>,
    known: &mut BTreeMap<i32, Known>,
    (deliveries, late): (&mut u64, &mut u64),
    chunk: ddc_wire::Chunk<'_>,
    logs: &BTreeMap<i32, Log>,
) {
    let partition = chunk.header.partition;
    let visit = positions.enter(&chunk.header, chunk.record_count);
    if let Some(missing) = visit.missing {
        report(delivered, known, partition, missing);
    }
    let log = &logs[&partition];
    let (mine, last) = delivered.entry(partition).or_insert((BTreeSet::new(), -1));
    for record in chunk.records {
        let record = record.unwrap();
        let (key, value) = content(partition, record.offset, log.sizes);
        assert!(log.offsets.binary_search(&record.offset).is_ok(), "offset {} was never sent", record.offset);
        assert_eq!(record.key, key.as_deref(), "key of {}", record.offset);
        assert_eq!(record.value, value.as_deref(), "value of {}", record.offset);
        assert_eq!(record.timestamp, Some(Timestamp::Create(record.offset * 10)));
        assert_eq!(record.headers.len(), 1);
        match visit.disposition(record.offset) {
            Disposition::Deliver => {
                assert!(record.offset > *last, "partition {partition}: {} after {last}", record.offset);
                *last = record.offset;
                assert!(mine.insert(record.offset), "partition {partition}: {} twice", record.offset);
            }
            Disposition::Late => {
                assert!(mine.insert(record.offset), "partition {partition}: {} twice, late", record.offset);
                *late += 1;
            }
            Disposition::Duplicate => continue,
            Disposition::Ahead => panic!("nobody replays"),
        }
        *deliveries += 1;
        known.entry(partition).or_default().delivered.insert(record.offset);
    }
    let settled = visit.finish();
    assert!(settled.forgotten.is_none(), "no scenario has so many holes");
}

fn report(
    delivered: &BTreeMap<i32, (BTreeSet<i64>, i64)>,
    known: &mut BTreeMap<i32, Known>,
    partition: i32,
    missing: Missing,
) {
    let (first, last) = (missing.range.first, missing.range.last);
    assert!(first <= last);
    if let Some((mine, _)) = delivered.get(&partition) {
        let wrong = mine.range(first..=last).next();
        assert!(
            wrong.is_none(),
            "partition {partition}: {first}..={last} reported, but {wrong:?} was delivered in this life"
        );
    }
    known.entry(partition).or_default().reported.push((first, last));
}
