//! The one commit rule: only what was handed to the kernel at least `commit_delay` ago.
//!
//! ```text
//!  packed ──▶ [ marks by block ] ── block sent ──▶ [ marks by time ] ── commit_delay ──▶ committable
//! ```
//!
//! The rule holds everywhere: on the timer, on revoke, on pause and on stop. What was sent and not committed is sent
//! again by the next owner, and the destination skips it.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use ddc_link::sender::{Mark, Slot};

use super::history::{self, History, Point};

/// Marks of one slot that are closer together than this share one entry, so that an entry per 100 ms of
/// `commit_delay` bounds the memory, whatever the rate.
const RESOLUTION: Duration = Duration::from_millis(100);

/// What was packed, sent and may be committed, by slot.
#[derive(Debug)]
pub struct CommitLog {
    delay: Duration,
    packed: VecDeque<(u64, Mark)>,
    slots: BTreeMap<Slot, SlotLog>,
    history: History,
}

/// What of a partition was sent before an offset that it goes back to: it stays as committable as it was.
#[derive(Debug)]
pub struct Past {
    log: SlotLog,
    history: history::Past,
}

#[derive(Debug)]
struct SlotLog {
    /// Where the reading began: the group has that.
    start: Mark,
    sent: VecDeque<Sent>,
    committable: Option<Mark>,
    newest: Option<Mark>,
    /// The last commit failed.
    again: bool,
}

/// Marks that were sent within [`RESOLUTION`]: the last of them, and when that one was sent.
#[derive(Debug)]
struct Sent {
    first: Instant,
    last: Instant,
    mark: Mark,
}

impl CommitLog {
    /// A log that lets nothing be committed before it was sent for `delay`.
    pub fn new(delay: Duration) -> Self {
        let history = History::new(Duration::ZERO);
        Self { delay, packed: VecDeque::new(), slots: BTreeMap::new(), history }
    }

    /// The same, and it remembers for `span` where each slot stood.
    pub fn with_history(mut self, span: Duration) -> Self {
        self.history = History::new(span);
        self
    }

    /// Starts a slot where its partition's reading begins; marks of slots that were not started are dropped.
    pub fn start(&mut self, now: Instant, mark: Mark) {
        let log =
            SlotLog { start: mark, sent: VecDeque::new(), committable: None, newest: None, again: false };
        self.slots.insert(mark.slot, log);
        self.history.start(now, mark);
    }

    /// Forgets a slot: another owner, or another life of the topic, begins.
    pub fn forget(&mut self, slot: Slot) {
        self.slots.remove(&slot);
        self.history.forget(slot);
    }

    /// Forgets every slot: nothing that was packed so far may be committed any more.
    pub fn forget_all(&mut self) {
        self.slots.clear();
        self.history.forget_all();
    }

    /// Where a slot stood at a time; `None` is before every clock.
    pub fn at(&self, slot: Slot, time: Option<Instant>) -> Option<Point> {
        self.history.at(slot, time)
    }

    /// What the group has committed of a slot, or may by now; where it started, when that is nothing.
    pub fn floor(&mut self, now: Instant, slot: Slot) -> Option<Mark> {
        self.committable(now, slot).or_else(|| Some(self.slots.get(&slot)?.start))
    }

    /// Takes a slot out whose partition goes back to `mark`: nothing ahead of it may be committed any more.
    pub fn cut(&mut self, mark: Mark) -> Option<Past> {
        let mut log = self.slots.remove(&mark.slot)?;
        log.sent.retain(|sent| sent.mark.end <= mark.end);
        log.committable = log.committable.filter(|committable| committable.end <= mark.end);
        (log.newest, log.again) = (Some(mark), false);
        Some(Past { log, history: self.history.cut(mark.slot, mark.end) })
    }

    /// Goes on with what was cut, under the partition's new slot. `start`: what its new start commit says.
    pub fn resume(&mut self, start: Mark, past: Past) {
        let Past { mut log, history } = past;
        let slot = start.slot;
        let marks = log.sent.iter_mut().map(|sent| &mut sent.mark);
        for mark in marks.chain(&mut log.committable).chain(&mut log.newest) {
            mark.slot = slot;
        }
        log.start = start;
        self.slots.insert(slot, log);
        self.history.resume(slot, history);
    }

    /// A commit of this slot failed: what it may commit is taken again, also when nothing newer comes.
    pub fn again(&mut self, slot: Slot) {
        if let Some(log) = self.slots.get_mut(&slot) {
            log.again = true;
        }
    }

    /// Notes what block number `block` covers once it is sent. Blocks come in rising order; the entries are bounded
    /// by the blocks that may wait for the link.
    pub fn packed(&mut self, block: u64, marks: &[Mark]) {
        self.packed.extend(marks.iter().map(|mark| (block, *mark)));
    }

    /// Notes that all blocks below `blocks` have been handed to the kernel, at the latest `now`.
    pub fn sent(&mut self, now: Instant, blocks: u64) {
        while self.packed.front().is_some_and(|(block, _)| *block < blocks) {
            let Some((_, mark)) = self.packed.pop_front() else { break };
            let Some(log) = self.slots.get_mut(&mark.slot) else { continue };
            log.newest = Some(mark);
            self.history.sent(now, mark);
            match log.sent.back_mut() {
                Some(sent) if now.duration_since(sent.first) < RESOLUTION => {
                    sent.last = now;
                    sent.mark = mark;
                }
                _ => log.sent.push_back(Sent { first: now, last: now, mark }),
            }
        }
    }

    /// What may be committed now and was not taken before, or was and failed, by slot.
    pub fn take_committable(&mut self, now: Instant) -> Vec<Mark> {
        let take = |log: &mut SlotLog| {
            let taken = log.take(now, self.delay);
            let again = std::mem::take(&mut log.again);
            taken.or(log.committable.filter(|_| again))
        };
        self.slots.values_mut().filter_map(take).collect()
    }

    /// What may be committed of one slot, taken before or not: for the last commit before it is given up.
    pub fn committable(&mut self, now: Instant, slot: Slot) -> Option<Mark> {
        let log = self.slots.get_mut(&slot)?;
        log.take(now, self.delay);
        log.committable
    }

    /// The newest mark of a slot that was handed to the kernel, whenever that was (`commit_on_stop = "sent"`).
    pub fn newest_sent(&self, slot: Slot) -> Option<Mark> {
        self.slots.get(&slot)?.newest
    }
}

impl SlotLog {
    fn take(&mut self, now: Instant, delay: Duration) -> Option<Mark> {
        let mut taken = None;
        while self.sent.front().is_some_and(|sent| now.duration_since(sent.last) >= delay) {
            taken = self.sent.pop_front().map(|sent| sent.mark);
        }
        self.committable = taken.or(self.committable);
        taken
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use ddc_link::sender::{Compression, PackConfig, Packer, PartitionStart};
    use ddc_wire::{Epoch, TopicId};
    use proptest::prelude::*;

    const DELAY: Duration = Duration::from_secs(30);

    fn mark(slot: Slot, end: i64) -> Mark {
        Mark { slot, end, last: Some(end - 1).filter(|last| *last >= 0), count: end as u64 }
    }

    fn log() -> (CommitLog, Slot) {
        let mut log = CommitLog::new(DELAY);
        let slot = slots(1)[0];
        log.start(Instant::now(), mark(slot, 0));
        (log, slot)
    }

    /// Only a packer gives out slots.
    pub(in crate::source) fn slots(count: usize) -> Vec<Slot> {
        let config = PackConfig {
            stream: String::new(),
            symbol_size: 1412,
            source_symbols: 64,
            linger: Duration::ZERO,
            compression: Compression::None,
            max_record_bytes: 1 << 20,
            ledger_interval: DELAY,
            ledger_changed: DELAY,
            max_partitions: count,
        };
        let start = |partition| PartitionStart {
            topic: "t".into(),
            topic_id: TopicId::default(),
            partition,
            partition_count: 1,
            epoch: Epoch(1),
            origin: 0,
            previous: None,
            count: 0,
            next: 0,
        };
        let mut packer = Packer::new(config, Instant::now()).unwrap();
        (0..count as i32).map(|partition| packer.assign(start(partition)).unwrap()).collect()
    }

    #[test]
    fn nothing_before_it_was_sent_and_the_delay_has_passed() {
        let (mut log, slot) = log();
        let start = Instant::now();
        log.packed(0, &[mark(slot, 10)]);
        log.packed(1, &[mark(slot, 20)]);
        assert!(log.take_committable(start + DELAY * 9).is_empty(), "packed only");
        log.sent(start, 1);
        assert!(log.take_committable(start + Duration::from_millis(29_999)).is_empty());
        assert_eq!(log.take_committable(start + DELAY), [mark(slot, 10)]);
        assert!(log.take_committable(start + DELAY * 9).is_empty(), "taken once, and block 1 is not sent");
        assert_eq!(log.committable(start + DELAY * 9, slot), Some(mark(slot, 10)));
        log.sent(start + DELAY, 2);
        assert_eq!(log.newest_sent(slot), Some(mark(slot, 20)));
        assert_eq!(log.committable(start + DELAY, slot), Some(mark(slot, 10)));
    }

    /// Without traffic no newer mark would come: the failed one must.
    #[test]
    fn a_commit_that_failed_is_taken_again_once() {
        let (mut log, slot) = log();
        let start = Instant::now();
        log.packed(0, &[mark(slot, 10)]);
        log.sent(start, 1);
        log.again(slot);
        assert!(log.take_committable(start).is_empty(), "not before the delay, whatever failed");
        assert_eq!(log.take_committable(start + DELAY), [mark(slot, 10)]);
        log.again(slot);
        assert_eq!(log.take_committable(start + DELAY), [mark(slot, 10)]);
        assert!(log.take_committable(start + DELAY).is_empty());
    }

    #[test]
    fn a_forgotten_slot_commits_nothing() {
        let (mut log, slot) = log();
        let start = Instant::now();
        log.packed(0, &[mark(slot, 10)]);
        log.forget(slot);
        log.sent(start, 1);
        assert!(log.take_committable(start + DELAY).is_empty());
        assert_eq!(log.newest_sent(slot), None);
    }

    /// What was sent before the point it goes back to is committed when its time comes; what was sent behind it is not.
    #[test]
    fn what_goes_back_commits_only_what_lies_before_it() {
        let (mut log, old) = log();
        let new = slots(2)[1];
        let start = Instant::now();
        for (block, end) in [(0, 10), (1, 20), (2, 30)] {
            log.packed(block, &[mark(old, end)]);
            log.sent(start + Duration::from_secs(block), block + 1);
        }
        assert_eq!(log.floor(start, old), Some(mark(old, 0)), "nothing is old enough: the start");
        assert_eq!(log.floor(start + DELAY, old), Some(mark(old, 10)));
        let past = log.cut(mark(old, 20)).unwrap();
        log.packed(3, &[mark(old, 40)]);
        log.sent(start + Duration::from_secs(3), 4);
        assert_eq!(log.committable(start + DELAY * 9, old), None, "the old slot is gone");
        log.resume(mark(new, 10), past);
        assert_eq!(log.newest_sent(new), Some(mark(new, 20)), "what it goes on behind");
        assert_eq!(log.floor(start, new), Some(mark(new, 10)));
        assert_eq!(log.committable(start + DELAY, new), Some(mark(new, 10)));
        assert_eq!(log.committable(start + DELAY * 9, new), Some(mark(new, 20)), "30 is to be sent again");
    }

    proptest! {
        /// Against the rule itself: whatever is committable was sent at least the delay ago, and everything that
        /// was sent the delay and the resolution ago is committable.
        #[test]
        fn the_rule(steps in proptest::collection::vec(0u64..2_000, 1..200)) {
            let (mut log, slot) = log();
            let start = Instant::now();
            let mut now = start;
            let mut sent_at = Vec::new();
            for (block, step) in steps.iter().enumerate() {
                now += Duration::from_millis(*step);
                log.packed(block as u64, &[mark(slot, block as i64 + 1)]);
                log.sent(now, block as u64 + 1);
                sent_at.push(now);
                let committable = log.committable(now, slot).map_or(0, |mark| mark.end);
                for (index, at) in sent_at.iter().enumerate() {
                    let age = now.duration_since(*at);
                    if (index as i64) < committable {
                        prop_assert!(age >= DELAY);
                    }
                    if age >= DELAY + RESOLUTION {
                        prop_assert!((index as i64) < committable);
                    }
                }
                prop_assert!(log.slots[&slot].sent.len() <= 310);
            }
        }
    }
}
