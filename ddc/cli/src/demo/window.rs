//! How much may be on its way in each partition: a bound for embedded clusters, which keep little.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts weights (see `Plan::weight`) per slot. One thread produces, one verifies.
#[derive(Debug)]
pub(super) struct Window {
    /// `None`: no bound.
    most: Option<u64>,
    slots: Vec<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    produced: AtomicU64,
    settled: AtomicU64,
}

impl Window {
    pub(super) fn new(slots: usize, most: Option<u64>) -> Self {
        Self { most, slots: (0..slots).map(|_| Slot::default()).collect() }
    }

    /// Takes room for a record; `false`: there is none now. A record heavier than the whole bound passes alone.
    pub(super) fn take(&self, slot: usize, weight: u64) -> bool {
        let slot = &self.slots[slot];
        let produced = slot.produced.load(Relaxed);
        let on_the_way = produced.saturating_sub(slot.settled.load(Relaxed));
        if self.most.is_some_and(|most| on_the_way > 0 && on_the_way + weight > most) {
            return false;
        }
        slot.produced.store(produced + weight, Relaxed);
        true
    }

    /// Everything up to this weight has arrived, or was passed over.
    pub(super) fn settle(&self, slot: usize, weight: u64) {
        self.slots[slot].settled.fetch_max(weight, Relaxed);
    }

    /// Nothing of what was produced is on its way any more: what has not arrived is lost.
    pub(super) fn settle_all(&self) {
        for slot in &self.slots {
            slot.settled.fetch_max(slot.produced.load(Relaxed), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_slot_waits_for_its_own_records() {
        let window = Window::new(2, Some(100));
        assert!(window.take(0, 60) && window.take(0, 40) && !window.take(0, 1));
        assert!(window.take(1, 500), "alone, whatever it weighs");
        assert!(!window.take(1, 1));
        window.settle(0, 60);
        assert!(window.take(0, 60) && !window.take(0, 1));
        window.settle(0, 30);
        assert!(!window.take(0, 1), "settling never goes back");
        window.settle_all();
        assert!(window.take(0, 100) && window.take(1, 100));
        let open = Window::new(1, None);
        assert!(open.take(0, u64::MAX / 2) && open.take(0, 1000));
    }
}
