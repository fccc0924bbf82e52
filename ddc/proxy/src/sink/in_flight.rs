//! Records on their way to the destination, in the order in which they were handed over.
//!
//! ```text
//!  front ─▶ acknowledged │ acknowledged │ mark │ waiting │ failed │ waiting │ mark ◀─ back
//!           └── popped: everything before it is settled ──┘
//! ```
//!
//! Acknowledgements come in any order; entries leave only from the front, so that what has left is a
//! prefix of what was handed over. A *mark* is a point between records: it leaves when everything before
//! it has. Pure bookkeeping: no Kafka, no clock. The caller bounds the number of records.

use std::collections::VecDeque;

use rdkafka::types::RDKafkaErrorCode as Code;

use super::latency::Times;

/// Which record an entry stands for; enough to find it again in its batch and to name it in a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlightRecord {
    /// The batch it came in, counted from 0 in this process.
    pub batch: u64,
    /// Its place among the records of that batch, from 0.
    pub ordinal: u32,
    /// Its partition at the source, as the caller numbers them.
    pub slot: u32,
    /// Its offset at the source.
    pub offset: i64,
    /// It came after it had been stepped over, or after a later one of its partition.
    pub late: bool,
    /// When it was handed over first.
    pub times: Times,
}

/// What left at the front.
#[derive(Debug, PartialEq, Eq)]
pub enum Settled<M> {
    /// A record that the destination has, or that was given up.
    Record(InFlightRecord),
    /// Everything handed over before this mark is settled.
    Mark(M),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Done,
    Failed(Code),
}

#[derive(Debug)]
enum Entry<M> {
    Record(InFlightRecord, State),
    Mark(M),
}

/// See the module's text.
#[derive(Debug)]
pub struct InFlight<M> {
    entries: VecDeque<Entry<M>>,
    /// The number of the front entry; numbers rise by one per entry and never come again.
    front: usize,
    waiting: usize,
    failed: usize,
    records: usize,
}

impl<M> Default for InFlight<M> {
    fn default() -> Self {
        // Numbers begin at 1: as a pointer, which librdkafka carries them as, none is null.
        Self { entries: VecDeque::new(), front: 1, waiting: 0, failed: 0, records: 0 }
    }
}

impl<M> InFlight<M> {
    /// Appends a record that is about to be handed over; its number comes back with its acknowledgement.
    pub fn push(&mut self, record: InFlightRecord) -> usize {
        self.entries.push_back(Entry::Record(record, State::Waiting));
        self.waiting += 1;
        self.records += 1;
        self.front + self.entries.len() - 1
    }

    /// Appends a mark.
    pub fn mark(&mut self, mark: M) {
        self.entries.push_back(Entry::Mark(mark));
    }

    /// Takes the last record back: it was not handed over after all.
    pub fn unpush(&mut self) {
        if let Some(Entry::Record(_, State::Waiting)) = self.entries.back() {
            self.entries.pop_back();
            self.waiting -= 1;
            self.records -= 1;
        }
    }

    /// The destination has the record (or it is given up); the record, if it had no such answer before. Unknown
    /// numbers change nothing.
    pub fn done(&mut self, number: usize) -> Option<InFlightRecord> {
        self.change(number, State::Done)
    }

    /// The record came back.
    pub fn failed(&mut self, number: usize, code: Code) {
        self.change(number, State::Failed(code));
    }

    /// The record is handed over again.
    pub fn again(&mut self, number: usize) {
        self.change(number, State::Waiting);
    }

    /// Everything handed over and not answered came back; for a producer that is thrown away.
    pub fn all_failed(&mut self, code: Code) {
        for entry in &mut self.entries {
            if let Entry::Record(_, state @ State::Waiting) = entry {
                *state = State::Failed(code);
                self.waiting -= 1;
                self.failed += 1;
            }
        }
    }

    fn change(&mut self, number: usize, to: State) -> Option<InFlightRecord> {
        let entry = number.checked_sub(self.front).and_then(|at| self.entries.get_mut(at))?;
        let Entry::Record(record, state) = entry else { return None };
        match state {
            State::Waiting => self.waiting -= 1,
            State::Failed(_) => self.failed -= 1,
            // Settled is settled: a second answer is none.
            State::Done => return None,
        }
        match to {
            State::Waiting => self.waiting += 1,
            State::Failed(_) => self.failed += 1,
            State::Done => {}
        }
        *state = to;
        Some(*record)
    }

    /// The next entry that is settled together with everything before it.
    pub fn pop(&mut self) -> Option<Settled<M>> {
        if matches!(self.entries.front()?, Entry::Record(_, State::Waiting | State::Failed(_))) {
            return None;
        }
        self.front += 1;
        match self.entries.pop_front()? {
            Entry::Record(record, _) => {
                self.records -= 1;
                Some(Settled::Record(record))
            }
            Entry::Mark(mark) => Some(Settled::Mark(mark)),
        }
    }

    /// Records handed over and not answered.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Records that came back and were not handed over again.
    pub fn failures(&self) -> usize {
        self.failed
    }

    /// Records held, answered or not.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Whether nothing is held, no mark either.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The records that came back, in order, with their numbers and why.
    pub fn failed_records(&self) -> impl Iterator<Item = (usize, InFlightRecord, Code)> + '_ {
        self.entries.iter().enumerate().filter_map(|(at, entry)| match entry {
            Entry::Record(record, State::Failed(code)) => Some((self.front + at, *record, *code)),
            _ => None,
        })
    }

    /// The records that are at the destination but cannot leave yet, in order, with their numbers.
    pub fn done_records(&self) -> impl Iterator<Item = (usize, InFlightRecord)> + '_ {
        self.entries.iter().enumerate().filter_map(|(at, entry)| match entry {
            Entry::Record(record, State::Done) => Some((self.front + at, *record)),
            _ => None,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(offset: i64) -> InFlightRecord {
        InFlightRecord {
            batch: 0,
            ordinal: offset as u32,
            slot: 0,
            offset,
            late: false,
            times: Times::default(),
        }
    }

    #[test]
    fn leaves_from_the_front_only() {
        let mut ring = InFlight::default();
        let [a, b, c] = [1, 2, 3].map(|offset| ring.push(record(offset)));
        ring.mark("end");
        ring.done(c);
        ring.done(b);
        assert_eq!(ring.pop(), None, "the first is not answered");
        ring.failed(a, Code::InvalidRecord);
        assert_eq!(ring.pop(), None, "the first came back");
        assert_eq!(ring.failed_records().collect::<Vec<_>>(), [(a, record(1), Code::InvalidRecord)]);
        ring.again(a);
        assert_eq!((ring.failures(), ring.waiting()), (0, 1));
        ring.done(a);
        for offset in 1..4 {
            assert_eq!(ring.pop(), Some(Settled::Record(record(offset))));
        }
        assert_eq!(ring.pop(), Some(Settled::Mark("end")));
        assert!(ring.is_empty() && ring.pop().is_none() && ring.records() == 0);
    }

    #[test]
    fn answers_to_nothing_change_nothing() {
        let mut ring: InFlight<()> = InFlight::default();
        ring.done(0);
        ring.failed(7, Code::Fail);
        let a = ring.push(record(1));
        ring.done(a);
        ring.failed(a, Code::Fail);
        ring.again(a);
        assert_eq!(ring.pop(), Some(Settled::Record(record(1))));
        ring.done(a);
        assert_eq!((ring.waiting(), ring.failures(), ring.records()), (0, 0, 0));
    }

    proptest! {
        /// Against a naive model: what leaves is the longest settled prefix, in order, each entry once.
        #[test]
        fn follows_the_model(steps in prop::collection::vec((0u8..6, any::<prop::sample::Index>()), 0..200)) {
            let mut ring: InFlight<i64> = InFlight::default();
            let mut model: Vec<(usize, i64, Option<bool>)> = Vec::new();
            let (mut left, mut popped, mut next) = (Vec::new(), Vec::new(), 0i64);
            for (step, index) in steps {
                match step {
                    0 | 1 => { model.push((ring.push(record(next)), next, None)); next += 1; }
                    2 => { ring.mark(-1 - next); model.push((usize::MAX, -1 - next, Some(true))); next += 1; }
                    _ if model.is_empty() => {}
                    3 | 4 => {
                        let entry = index.get_mut(&mut model);
                        if entry.2 != Some(true) {
                            let good = step == 3;
                            if good {
                                prop_assert_eq!(ring.done(entry.0), Some(record(entry.1)));
                                prop_assert_eq!(ring.done(entry.0), None, "answered once");
                            } else {
                                ring.failed(entry.0, Code::Fail);
                            }
                            entry.2 = Some(good);
                        }
                    }
                    _ => {
                        let entry = index.get_mut(&mut model);
                        if entry.2 == Some(false) { ring.again(entry.0); entry.2 = None; }
                    }
                }
                while let Some(settled) = ring.pop() {
                    left.push(match settled { Settled::Record(r) => r.offset, Settled::Mark(m) => m });
                }
                while model.first().is_some_and(|entry| entry.2 == Some(true)) {
                    popped.push(model.remove(0).1);
                }
                prop_assert_eq!(&left, &popped);
                prop_assert_eq!(ring.waiting(), model.iter().filter(|e| e.2.is_none()).count());
                prop_assert_eq!(ring.failures(), model.iter().filter(|e| e.2 == Some(false)).count());
            }
        }
    }
}
