//! The verdict on what arrived: nothing lost, doubled, changed or moved. No Kafka, no clock.
//!
//! A record says by the last `sourceOffset` header which one it is; all else is compared with the record made anew.

use std::fmt;

use super::records::{Plan, SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TOPIC, Sample};

/// Differences that are kept to be shown.
const EXAMPLES: usize = 5;

/// A record as it stands at the destination.
#[derive(Debug, Clone)]
pub(super) struct Arrived<'a, H> {
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    /// As the producer set it; `None`: there is none, or the broker's clock replaced it.
    pub(super) timestamp: Option<i64>,
    pub(super) headers: H,
}

/// One header: name, and value or null.
pub(super) type Header<'a> = (&'a [u8], Option<&'a [u8]>);

/// What was found so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// All records read at the destination.
    pub(super) received: u64,
    /// Records of the plan that arrived at least once.
    pub(super) distinct: u64,
    /// Records that had arrived before.
    pub(super) duplicated: u64,
    /// Records of which a field differs.
    pub(super) mismatched: u64,
    /// Records that came after a later one of their partition.
    pub(super) out_of_order: u64,
    /// Bytes of keys and values.
    pub(super) bytes: u64,
}

/// What differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Difference {
    NoProvenance,
    UnknownOffset,
    Key,
    Value,
    Timestamp,
    Headers,
    Provenance,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoProvenance => "has no provenance headers",
            Self::UnknownOffset => "names a source offset that was never produced",
            Self::Key => "has another key",
            Self::Value => "has another value",
            Self::Timestamp => "has another timestamp",
            Self::Headers => "has other headers",
            Self::Provenance => "names another source topic or partition",
        })
    }
}

/// Compares, counts, remembers which have come: one bit per record.
#[derive(Debug)]
pub(super) struct Checker {
    plan: Plan,
    /// The source topics' names, as provenance must give them.
    topics: Vec<String>,
    slots: Vec<SlotState>,
    expected: Sample,
    tally: Tally,
    examples: Vec<String>,
}

#[derive(Debug)]
struct SlotState {
    seen: Vec<u64>,
    /// The sequence after the highest that came.
    next: u64,
    /// The weight of all records below `next`.
    weight: u64,
}

impl Checker {
    /// For the plan; `topics` are the source topics' names in the plan's order.
    pub(super) fn new(plan: Plan, topics: Vec<String>) -> Self {
        let slots = (0..plan.slots().len())
            .map(|slot| SlotState {
                seen: vec![0; plan.count(slot).div_ceil(64) as usize],
                next: 0,
                weight: 0,
            })
            .collect();
        Self {
            plan,
            topics,
            slots,
            expected: Sample::default(),
            tally: Tally::default(),
            examples: Vec::new(),
        }
    }

    /// What was found so far.
    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    /// The first differences, as sentences.
    pub(super) fn examples(&self) -> &[String] {
        &self.examples
    }

    /// The weight of what has arrived in a slot, or was passed over by something later.
    pub(super) fn settled(&self, slot: usize) -> u64 {
        self.slots[slot].weight
    }

    /// Takes the next record of a slot's partition at the destination.
    pub(super) fn take<'a, H>(&mut self, slot: usize, arrived: &Arrived<'a, H>)
    where
        H: ExactSizeIterator<Item = Header<'a>> + Clone,
    {
        self.tally.received += 1;
        self.tally.bytes +=
            (arrived.key.map_or(0, <[u8]>::len) + arrived.value.map_or(0, <[u8]>::len)) as u64;
        let Some(sequence) = source_offset(arrived.headers.clone()) else {
            return self.differs(slot, None, Difference::NoProvenance);
        };
        if sequence >= self.plan.count(slot) {
            return self.differs(slot, Some(sequence), Difference::UnknownOffset);
        }
        self.plan.fill(slot, sequence, &mut self.expected);
        let place = self.plan.slots()[slot];
        if let Err(difference) = compare(&self.expected, arrived, &self.topics[place.topic], place.partition)
        {
            self.differs(slot, Some(sequence), difference);
        }
        self.mark(slot, sequence);
    }

    fn mark(&mut self, slot: usize, sequence: u64) {
        let state = &mut self.slots[slot];
        let (word, bit) = ((sequence / 64) as usize, 1 << (sequence % 64));
        if state.seen[word] & bit != 0 {
            self.tally.duplicated += 1;
            return;
        }
        state.seen[word] |= bit;
        self.tally.distinct += 1;
        if sequence < state.next {
            self.tally.out_of_order += 1;
            return;
        }
        for passed in state.next..=sequence {
            state.weight += self.plan.weight(slot, passed);
        }
        state.next = sequence + 1;
    }

    fn differs(&mut self, slot: usize, sequence: Option<u64>, difference: Difference) {
        self.tally.mismatched += 1;
        if self.examples.len() < EXAMPLES {
            let place = self.plan.slots()[slot];
            let offset = sequence.map_or(String::new(), |sequence| format!(" offset {sequence}"));
            let (topic, partition) = (&self.topics[place.topic], place.partition);
            self.examples.push(format!("{topic} partition {partition}{offset} {difference}"));
        }
    }
}

/// The number in the last header, when that is `sourceOffset`.
fn source_offset<'a>(mut headers: impl ExactSizeIterator<Item = Header<'a>>) -> Option<u64> {
    let last = headers.len().checked_sub(1)?;
    let (name, value) = headers.nth(last)?;
    if name != SOURCE_OFFSET.as_bytes() {
        return None;
    }
    std::str::from_utf8(value?).ok()?.parse().ok()
}

/// Whether each field is as it was made; behind the record's own headers stand topic, partition and offset, in this order.
fn compare<'a, H>(
    expected: &Sample,
    arrived: &Arrived<'a, H>,
    topic: &str,
    partition: u32,
) -> Result<(), Difference>
where
    H: ExactSizeIterator<Item = Header<'a>> + Clone,
{
    let same = |same, difference| if same { Ok(()) } else { Err(difference) };
    same(arrived.key == expected.key(), Difference::Key)?;
    same(arrived.value == expected.value(), Difference::Value)?;
    same(arrived.timestamp == Some(expected.timestamp), Difference::Timestamp)?;
    let mut headers = arrived.headers.clone();
    same(headers.len() == expected.headers().len() + 3, Difference::Headers)?;
    for (name, value) in expected.headers() {
        same(headers.next() == Some((name.as_bytes(), value)), Difference::Headers)?;
    }
    let digits = partition.to_string();
    let topic = (SOURCE_TOPIC.as_bytes(), Some(topic.as_bytes()));
    same(headers.next() == Some(topic), Difference::Provenance)?;
    same(
        headers.next() == Some((SOURCE_PARTITION.as_bytes(), Some(digits.as_bytes()))),
        Difference::Provenance,
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;

    /// A record as the egress would write it; tests change one thing of it.
    #[derive(Debug, Clone)]
    struct Written {
        key: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
        timestamp: Option<i64>,
        headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    }

    fn checker() -> Checker {
        Checker::new(Plan::new(5, 1200, Some(40)), ["a", "b", "c"].map(String::from).to_vec())
    }

    fn written(slot: usize, sequence: u64) -> Written {
        let plan = Plan::new(5, 1200, Some(40));
        let mut sample = Sample::default();
        plan.fill(slot, sequence, &mut sample);
        let place = plan.slots()[slot];
        let mut headers: Vec<_> =
            sample.headers().map(|(name, value)| (name.into(), value.map(<[u8]>::to_vec))).collect();
        headers.push(("sourceTopic".into(), Some(["a", "b", "c"][place.topic].into())));
        headers.push(("sourcePartition".into(), Some(place.partition.to_string().into())));
        headers.push(("sourceOffset".into(), Some(sequence.to_string().into())));
        Written {
            key: sample.key().map(<[u8]>::to_vec),
            value: sample.value().map(<[u8]>::to_vec),
            timestamp: Some(sample.timestamp),
            headers,
        }
    }

    fn take(checker: &mut Checker, slot: usize, written: &Written) {
        let headers: Vec<Header<'_>> =
            written.headers.iter().map(|(name, value)| (&name[..], value.as_deref())).collect();
        let arrived = Arrived {
            key: written.key.as_deref(),
            value: written.value.as_deref(),
            timestamp: written.timestamp,
            headers: headers.iter().copied(),
        };
        checker.take(slot, &arrived);
    }

    #[test]
    fn what_arrives_as_it_was_made_is_right() {
        let mut checker = checker();
        for slot in 0..12 {
            for sequence in 0..100 {
                take(&mut checker, slot, &written(slot, sequence));
            }
        }
        let tally = checker.tally();
        assert!(tally.bytes > 0);
        assert_eq!(tally, Tally { received: 1200, distinct: 1200, bytes: tally.bytes, ..Tally::default() });
        assert!(checker.examples().is_empty());
    }

    #[test]
    fn twice_late_and_missing_are_told_apart() {
        let mut checker = checker();
        for sequence in [0, 1, 4, 4, 3, 5, 3] {
            take(&mut checker, 2, &written(2, sequence));
        }
        let tally = checker.tally();
        assert_eq!((tally.received, tally.distinct, tally.duplicated, tally.out_of_order), (7, 5, 2, 1));
        assert_eq!(tally.mismatched, 0, "{:?}", checker.examples());
        let plan = Plan::new(5, 1200, Some(40));
        assert_eq!(checker.settled(2), (0..6).map(|sequence| plan.weight(2, sequence)).sum::<u64>());
        assert_eq!(checker.settled(3), 0);
    }

    type Change<'a> = (&'a str, &'a dyn Fn(&mut Written));

    #[test]
    fn a_change_of_any_field_is_found_and_named() {
        // A record with key, value and headers of its own.
        let sequence = (0..100)
            .find(|s| {
                let w = written(0, *s);
                w.headers.len() == 5 && w.key.as_ref().is_some_and(|k| !k.is_empty()) && w.value.is_some()
            })
            .unwrap();
        let changes: [Change<'_>; 13] = [
            ("another key", &|w| w.key.as_mut().unwrap()[0] ^= 1),
            ("another key", &|w| w.key = None),
            ("another value", &|w| w.value.as_mut().unwrap()[39] ^= 0x80),
            ("another value", &|w| w.value = None),
            ("another value", &|w| w.value.as_mut().unwrap().truncate(39)),
            ("another timestamp", &|w| w.timestamp = w.timestamp.map(|t| t + 1)),
            ("another timestamp", &|w| w.timestamp = None),
            ("other headers", &|w| w.headers.swap(0, 1)),
            ("other headers", &|w| w.headers[1].1 = None),
            ("other headers", &|w| drop(w.headers.remove(0))),
            ("another source topic or partition", &|w| w.headers[2].1 = Some("b".into())),
            ("another source topic or partition", &|w| w.headers[3].1 = Some("1".into())),
            ("no provenance", &|w| drop(w.headers.pop())),
        ];
        for (said, change) in changes {
            let mut checker = checker();
            let mut record = written(0, sequence);
            change(&mut record);
            take(&mut checker, 0, &record);
            assert_eq!(checker.tally().mismatched, 1, "{said}");
            assert!(checker.examples()[0].contains(said), "{said}: {:?}", checker.examples());
        }
    }

    #[test]
    fn a_record_of_another_place_is_a_mismatch_and_examples_are_bounded() {
        let mut checker = checker();
        take(&mut checker, 1, &written(0, 7));
        let mut unknown = written(0, 7);
        unknown.headers.last_mut().unwrap().1 = Some("100".into());
        take(&mut checker, 0, &unknown);
        assert!(checker.examples()[1].ends_with("offset 100 names a source offset that was never produced"));
        for _ in 0..10 {
            take(&mut checker, 0, &unknown);
        }
        assert_eq!((checker.tally().mismatched, checker.examples().len()), (12, EXAMPLES));
        assert_eq!(checker.tally().distinct, 1, "the moved one has a number of its new place");
    }
}
