//! After its own start an egress can leave a partition alone for a while whose first chunk leaves a gap: its ingress may be
//! about to be sent back (`ddc rewind`), and then everything comes in order, with nothing to report and nothing late.
//!
//! ```text
//!  unknown ── first chunk without a gap ──────────────────────────────────────────▶ over
//!     │ leaves a gap                                                                  ▲ ▲
//!     ▼                              `rewind_wait` has passed: the gap is reported    │ │
//!  waiting ───────────────────────────────────────────────────────────────────────────┘ │
//!     └── a chunk of a newer epoch that leaves none: the ingress went back ─────────────┘ older epochs fill holes at most
//! ```
//!
//! A state machine without I/O. Only the first gap of each partition is waited for, and only once in a life of the egress.
//! A chunk that a former life received and that leaves no gap says nothing: what was lost while no egress ran comes behind it.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use ddc_link::receiver::{MAX_PARTITIONS, PartitionKey};
use ddc_wire::Epoch;

/// What becomes of a chunk that would be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Advice {
    /// It is written.
    Go,
    /// It is held, and judged again when the wait is over.
    Wait,
    /// Its ingress went back since, and its records come again: it may fill holes, and nothing else.
    HolesOnly,
}

/// See the module's text. At most [`MAX_PARTITIONS`] in each table; what has no room does not wait.
#[derive(Debug)]
pub(super) struct RewindWait {
    wait: Duration,
    /// The epoch of the chunk that left the gap.
    waiting: HashMap<PartitionKey, Epoch>,
    /// When each wait ends, the first first: all take equally long.
    ends: VecDeque<(Instant, PartitionKey)>,
    /// Partitions that wait no more; and under which epoch their ingress went back.
    over: HashMap<PartitionKey, Option<Epoch>>,
}

impl RewindWait {
    /// Zero: nothing ever waits.
    pub(super) fn new(wait: Duration) -> Self {
        Self { wait, waiting: HashMap::new(), ends: VecDeque::new(), over: HashMap::new() }
    }

    /// Judges a live chunk or a ledger entry of the chain. `is_left_over`: a former life of this egress received it.
    pub(super) fn judge(
        &mut self,
        key: &PartitionKey,
        epoch: Epoch,
        is_left_over: bool,
        leaves_gap: impl FnOnce() -> bool,
        now: Instant,
    ) -> Advice {
        if self.wait.is_zero() {
            return Advice::Go;
        }
        if let Some(rewound) = self.over.get(key) {
            return if rewound.is_some_and(|rewound| epoch < rewound) {
                Advice::HolesOnly
            } else {
                Advice::Go
            };
        }
        match (self.waiting.get(key).copied(), leaves_gap()) {
            (Some(_), true) => Advice::Wait,
            (Some(first), false) => {
                if epoch > first {
                    self.waiting.remove(key);
                    self.over.insert(key.clone(), Some(epoch));
                }
                Advice::Go
            }
            (None, true) if self.waiting.len() < MAX_PARTITIONS => {
                self.waiting.insert(key.clone(), epoch);
                self.ends.push_back((now + self.wait, key.clone()));
                Advice::Wait
            }
            (None, leaves_gap) => {
                if (leaves_gap || !is_left_over) && self.over.len() < MAX_PARTITIONS {
                    self.over.insert(key.clone(), None);
                }
                Advice::Go
            }
        }
    }

    /// Ends the waits that are due, or `all`. Their partitions are to be judged again before anything else of them is.
    pub(super) fn over(&mut self, now: Instant, all: bool) -> Vec<PartitionKey> {
        let mut over = Vec::new();
        while let Some((end, _)) = self.ends.front()
            && (all || *end <= now)
            && let Some((_, key)) = self.ends.pop_front()
        {
            // Else its ingress went back meanwhile.
            if self.waiting.remove(&key).is_some() {
                self.over.insert(key.clone(), None);
                over.push(key);
            }
        }
        over
    }

    /// Whether a partition waits.
    pub(super) fn is_waiting(&self, key: &PartitionKey) -> bool {
        self.waiting.contains_key(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(10);

    fn key(partition: i32) -> PartitionKey {
        PartitionKey { topic: "t".into(), partition, ..PartitionKey::default() }
    }

    /// Of this life, by partition, epoch, whether it leaves a gap.
    fn judge(machine: &mut RewindWait, partition: i32, epoch: u64, gap: bool, now: Instant) -> Advice {
        machine.judge(&key(partition), Epoch(epoch), false, || gap, now)
    }

    #[test]
    fn without_a_wait_nothing_waits_and_nothing_is_asked() {
        let mut machine = RewindWait::new(Duration::ZERO);
        let never = || panic!("there is no need to know");
        assert_eq!(machine.judge(&key(0), Epoch(1), false, never, Instant::now()), Advice::Go);
        assert!(machine.over(Instant::now() + WAIT, true).is_empty());
    }

    #[test]
    fn a_wait_ends_by_itself_and_comes_once() {
        let (mut machine, now) = (RewindWait::new(WAIT), Instant::now());
        let judge = |machine: &mut _, gap, at| judge(machine, 0, 1, gap, at);
        assert_eq!(judge(&mut machine, true, now), Advice::Wait);
        let later = now + WAIT * 99 / 100;
        assert_eq!(
            judge(&mut machine, true, later),
            Advice::Wait,
            "what follows of the chain waits behind it"
        );
        assert!(machine.over(later, false).is_empty());
        // However late it is: first those that wait are to be judged, in their order.
        assert_eq!(judge(&mut machine, true, now + 2 * WAIT), Advice::Wait);
        assert_eq!(machine.over(now + WAIT, false), [key(0)]);
        assert!(machine.over(now + 2 * WAIT, true).is_empty());
        assert_eq!(judge(&mut machine, true, now + WAIT), Advice::Go);
        assert_eq!(judge(&mut machine, true, now + 9 * WAIT), Advice::Go, "a later gap is reported at once");
    }

    #[test]
    fn an_ingress_that_goes_back_ends_the_wait_and_what_it_had_sent_fills_holes_at_most() {
        let (mut machine, now) = (RewindWait::new(WAIT), Instant::now());
        assert_eq!(judge(&mut machine, 0, 5, true, now), Advice::Wait);
        assert_eq!(judge(&mut machine, 0, 5, false, now), Advice::Go, "what is known already ends nothing");
        assert!(machine.is_waiting(&key(0)));
        assert_eq!(judge(&mut machine, 0, 6, true, now), Advice::Wait, "a rebalance is no way back");
        assert_eq!(judge(&mut machine, 0, 7, false, now), Advice::Go);
        assert!(!machine.is_waiting(&key(0)));
        for gap in [true, false] {
            assert_eq!(judge(&mut machine, 0, 5, gap, now), Advice::HolesOnly);
            assert_eq!(judge(&mut machine, 0, 6, gap, now), Advice::HolesOnly);
            assert_eq!(judge(&mut machine, 0, 7, gap, now), Advice::Go);
            assert_eq!(judge(&mut machine, 0, 8, gap, now), Advice::Go);
        }
        assert!(machine.over(now + WAIT, true).is_empty(), "there is nothing to name");
    }

    #[test]
    fn partitions_wait_each_for_itself() {
        let (mut machine, now) = (RewindWait::new(WAIT), Instant::now());
        assert_eq!(judge(&mut machine, 0, 1, false, now), Advice::Go);
        assert_eq!(judge(&mut machine, 0, 1, true, now), Advice::Go, "its first chunk left none");
        assert_eq!(judge(&mut machine, 1, 1, true, now), Advice::Wait);
        assert_eq!(judge(&mut machine, 2, 1, true, now + WAIT / 2), Advice::Wait);
        assert_eq!(machine.over(now + WAIT, false), [key(1)]);
        assert_eq!(machine.over(now + WAIT, true), [key(2)], "a stop waits for nothing");
    }

    /// What lay in the spool at the start belongs to the time before the gap.
    #[test]
    fn what_a_former_life_received_is_not_the_first_chunk() {
        let (mut machine, now) = (RewindWait::new(WAIT), Instant::now());
        assert_eq!(machine.judge(&key(0), Epoch(1), true, || false, now), Advice::Go);
        assert_eq!(judge(&mut machine, 0, 1, true, now), Advice::Wait);
        // Held by a former life that ended meanwhile.
        assert_eq!(machine.judge(&key(1), Epoch(1), true, || true, now), Advice::Wait);
    }
}
