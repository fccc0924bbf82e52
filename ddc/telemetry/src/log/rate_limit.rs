//! The rate limit of repeated messages.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How many keys a [`RateLimit`] tells apart; what comes beyond shares one.
pub const MAX_KEYS: usize = 256;

/// Lets a message through at most once per interval and key, and counts what it held back.
///
/// One per thread, without a lock. Keys are small and cheap (`&'static str`, an enum, a pair of numbers); one that comes from the
/// network may be of any number: beyond [`MAX_KEYS`] keys inside one interval the rest share one.
///
/// ```
/// # use std::time::{Duration, Instant};
/// # use ddc_telemetry::log::RateLimit;
/// let mut limit = RateLimit::new(Duration::from_secs(10));
/// if let Some(suppressed) = limit.allow("seal", Instant::now()) {
///     tracing::warn!(reason = "seal", suppressed, "datagram refused");
/// }
/// ```
#[derive(Debug)]
pub struct RateLimit<K> {
    interval: Duration,
    keys: HashMap<K, Slot>,
    rest: Slot,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    logged_at: Option<Instant>,
    suppressed: u64,
}

impl Slot {
    fn is_due(&self, now: Instant, interval: Duration) -> bool {
        self.logged_at.is_none_or(|at| now.saturating_duration_since(at) >= interval)
    }

    fn allow(&mut self, now: Instant, interval: Duration) -> Option<u64> {
        if self.is_due(now, interval) {
            self.logged_at = Some(now);
            Some(std::mem::take(&mut self.suppressed))
        } else {
            self.suppressed += 1;
            None
        }
    }
}

impl<K: Eq + Hash + Clone> RateLimit<K> {
    /// At most one message per key and `interval`.
    pub fn new(interval: Duration) -> Self {
        Self { interval, keys: HashMap::with_capacity(MAX_KEYS), rest: Slot::default() }
    }

    /// `Some(n)`: log it, and say that `n` like it were held back before. `None`: don't.
    pub fn allow(&mut self, key: K, now: Instant) -> Option<u64> {
        if let Some(slot) = self.keys.get_mut(&key) {
            return slot.allow(now, self.interval);
        }
        if self.keys.len() >= MAX_KEYS && !self.make_room(now) {
            return self.rest.allow(now, self.interval);
        }
        let mut slot = Slot::default();
        let allowed = slot.allow(now, self.interval);
        self.keys.insert(key, slot);
        allowed
    }

    /// Forgets every key that is silent for an interval. What it held back is told with the next message of the shared key.
    /// The scan happens at most once per interval when it is in vain: `rest` is then not due.
    fn make_room(&mut self, now: Instant) -> bool {
        if !self.rest.is_due(now, self.interval) {
            return false;
        }
        let (interval, rest) = (self.interval, &mut self.rest);
        self.keys.retain(|_, slot| {
            let keep = !slot.is_due(now, interval);
            if !keep {
                rest.suppressed += slot.suppressed;
            }
            keep
        });
        self.keys.len() < MAX_KEYS
    }

    /// Calls `log` for each key (`None`: the shared one) that held messages back and whose interval is over, so that the end of a
    /// storm is told even if no such message comes again. To be called now and then.
    pub fn flush(&mut self, now: Instant, mut log: impl FnMut(Option<&K>, u64)) {
        let slots = self.keys.iter_mut().map(|(key, slot)| (Some(key), slot));
        for (key, slot) in slots.chain([(None, &mut self.rest)]) {
            if slot.suppressed > 0 && slot.is_due(now, self.interval) {
                slot.logged_at = Some(now);
                log(key, std::mem::take(&mut slot.suppressed));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    #[test]
    fn one_message_per_key_and_interval_and_the_rest_is_counted() {
        let (mut limit, start) = (RateLimit::new(INTERVAL), Instant::now());
        assert_eq!(limit.allow("seal", start), Some(0));
        for _ in 0..1_000 {
            assert_eq!(limit.allow("seal", start + INTERVAL / 2), None);
        }
        assert_eq!(limit.allow("magic", start + INTERVAL / 2), Some(0), "another key is free");
        assert_eq!(limit.allow("seal", start + INTERVAL), Some(1_000));
        assert_eq!(limit.allow("seal", start + INTERVAL), None);
        assert_eq!(limit.allow("seal", start), None, "a clock read earlier by another thread is harmless");
        assert_eq!(limit.allow("seal", start + INTERVAL * 2), Some(2));
    }

    #[test]
    fn keys_are_bounded_and_nothing_held_back_is_forgotten() {
        let (mut limit, start) = (RateLimit::new(INTERVAL), Instant::now());
        let mut told = 0;
        for key in 0..10_000 {
            told += limit.allow(key, start).map_or(0, |held_back| held_back + 1);
            assert!(limit.keys.len() <= MAX_KEYS);
        }
        assert_eq!(told, MAX_KEYS as u64 + 1, "each key once, and the shared one once");
        for _ in 0..7 {
            assert_eq!(limit.allow(3, start), None);
        }
        // An interval later the silent keys make room; all that was held back is told by and by.
        told += limit.allow(77_777, start + INTERVAL).map_or(0, |held_back| held_back + 1);
        limit.flush(start + INTERVAL, |_, held_back| told += held_back);
        assert_eq!(told, 10_000 + 7 + 1);
    }

    #[test]
    fn flush_tells_the_end_of_a_storm_once() {
        let (mut limit, start) = (RateLimit::new(INTERVAL), Instant::now());
        for _ in 0..5 {
            limit.allow("seal", start);
        }
        let mut told = Vec::new();
        limit.flush(start + INTERVAL / 2, |key, n| told.push((key.copied(), n)));
        assert_eq!(told, [], "not before the interval is over");
        limit.flush(start + INTERVAL, |key, n| told.push((key.copied(), n)));
        limit.flush(start + INTERVAL * 2, |key, n| told.push((key.copied(), n)));
        assert_eq!(told, [(Some("seal"), 4)]);
    }
}
