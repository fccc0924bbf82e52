//! When the next datagram may leave: bits on the wire against a rate, with a bounded burst.
//!
//! ```text
//!  debt (bits)   ▲ a datagram adds its bits, never above the burst     ╱│╲    ╱│
//!                │ time takes them away at the rate, never below 0    ╱ │ ╲__╱ │
//! ```
//!
//! A leaky bucket in whole numbers (bits × 10⁹, so that a nanosecond at any rate is exact): over
//! any window of length t no more than rate · t + burst bits leave, and idle time earns no more
//! than the burst. It knows no sockets and does not sleep; it says when.

use std::time::{Duration, Instant};

/// Ethernet's own bytes around an IP packet: preamble 8, header 14, checksum 4, gap 12.
const ETHERNET_OVERHEAD: usize = 8 + 14 + 4 + 12;
/// What the smallest Ethernet frame occupies, preamble and gap included.
const ETHERNET_MINIMUM: usize = 84;
const UDP_OVERHEAD: usize = 8;
const NANOS: u128 = 1_000_000_000;

/// Bytes that a datagram of `payload` bytes occupies on an Ethernet; `ip_overhead` is 20 or 40.
pub fn wire_bytes(payload: usize, ip_overhead: usize) -> usize {
    (payload + UDP_OVERHEAD + ip_overhead + ETHERNET_OVERHEAD).max(ETHERNET_MINIMUM)
}

/// Holds a sender to a rate. See the module's text for what it promises.
#[derive(Debug, Clone)]
pub struct Pacer {
    /// Bits per second; `None` is unlimited.
    rate: Option<u64>,
    burst: Duration,
    /// Bits × 10⁹ that were sent and whose time has not passed yet, as of `updated`.
    debt: u128,
    updated: Instant,
}

impl Pacer {
    /// A pacer of `rate` bits per second on the wire (`None` = unlimited; 0 is taken as 1), whose
    /// bursts are at most `burst` of wire time or one datagram, whichever is larger.
    pub fn new(rate: Option<u64>, burst: Duration, now: Instant) -> Self {
        Self { rate: rate.map(|bits| bits.max(1)), burst, debt: 0, updated: now }
    }

    /// The rate in bits per second; `None` is unlimited.
    pub fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// Changes the rate from `now` on. What was sent before is still paid for, in bits.
    pub fn set_rate(&mut self, now: Instant, rate: Option<u64>) {
        self.settle(now);
        self.rate = rate.map(|bits| bits.max(1));
        if self.rate.is_none() {
            self.debt = 0;
        }
    }

    /// Takes a datagram of `wire_bytes`, or says when to come back.
    ///
    /// The time is one at which half a burst may leave, so that a waiting sender sends several
    /// datagrams per wake-up; a call before it is answered by the rate alone.
    pub fn admit(&mut self, now: Instant, wire_bytes: usize) -> Result<(), Instant> {
        let Some(rate) = self.rate else { return Ok(()) };
        self.settle(now);
        let cost = wire_bytes as u128 * 8 * NANOS;
        let burst = u128::from(rate) * self.burst.as_nanos();
        let limit = burst.max(cost);
        if self.debt + cost <= limit {
            self.debt += cost;
            return Ok(());
        }
        let target = (limit - cost).min(limit / 2);
        let wait = (self.debt - target).div_ceil(u128::from(rate));
        Err(now + Duration::from_nanos(wait.min(u128::from(u64::MAX)) as u64))
    }

    /// Whether a datagram of `wire_bytes` could leave now; changes nothing.
    pub fn could_send(&self, now: Instant, wire_bytes: usize) -> bool {
        self.clone().admit(now, wire_bytes).is_ok()
    }

    fn settle(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.updated).as_nanos();
        if elapsed == 0 {
            return;
        }
        self.debt = self.debt.saturating_sub(elapsed * u128::from(self.rate.unwrap_or(0)));
        self.updated = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_datagrams_count_as_the_smallest_frame() {
        assert_eq!(wire_bytes(1472, 20), 1538);
        assert_eq!(wire_bytes(1, 20), 84);
        assert_eq!(wire_bytes(18, 20), 84);
        assert_eq!(wire_bytes(19, 20), 85);
        assert_eq!(wire_bytes(1452, 40), 1538);
    }

    #[test]
    fn unlimited_never_waits() {
        let now = Instant::now();
        let mut pacer = Pacer::new(None, Duration::ZERO, now);
        assert!((0..100_000).all(|_| pacer.admit(now, 9216).is_ok()));
    }

    #[test]
    fn without_burst_one_datagram_at_a_time() {
        let start = Instant::now();
        // 100 kbit/s: 1,250 bytes take 100 ms.
        let mut pacer = Pacer::new(Some(100_000), Duration::ZERO, start);
        assert_eq!(pacer.admit(start, 1250), Ok(()));
        let next = start + Duration::from_millis(100);
        assert_eq!(pacer.admit(start, 1250), Err(next));
        assert!(pacer.admit(start + Duration::from_nanos(99_999_999), 1250).is_err());
        assert_eq!(pacer.admit(next, 1250), Ok(()));
        let idle = next + Duration::from_hours(1);
        assert_eq!(pacer.admit(idle, 1250), Ok(()), "an hour of idling earns one datagram");
        assert!(pacer.admit(idle, 1250).is_err(), "and no more");
    }

    #[test]
    fn a_steady_sender_reaches_the_rate() {
        let start = Instant::now();
        let mut pacer = Pacer::new(Some(800_000_000), Duration::from_micros(250), start);
        let (mut now, mut sent) = (start, 0u64);
        while now < start + Duration::from_secs(1) {
            match pacer.admit(now, 1538) {
                Ok(()) => sent += 1538 * 8,
                Err(at) => now = at,
            }
        }
        let most = 800_000_000 + 200_000 + 1538 * 8;
        assert!(sent > 799_900_000 && sent <= most, "{sent} bits in a second");
    }

    proptest! {
        /// Over any window: bits ≤ rate · t + the larger of burst and one datagram.
        #[test]
        fn the_bound_holds_over_every_window(
            mut rate in 1_000u64..200_000_000_000,
            burst_micros in 0u64..2_000,
            steps in prop::collection::vec((84usize..9300, 0u64..300_000, 0u8..40), 1..300),
        ) {
            let start = Instant::now();
            let burst = Duration::from_micros(burst_micros);
            let mut pacer = Pacer::new(Some(rate), burst, start);
            let mut now = start;
            // (time, bits) since the rate last changed; a change starts a new series of windows.
            let mut sent: Vec<(Instant, u128)> = Vec::new();
            for (bytes, nanos, act) in steps {
                now += Duration::from_nanos(nanos);
                if act == 0 {
                    rate = rate / 2 + 500;
                    pacer.set_rate(now, Some(rate));
                    sent.clear();
                }
                match pacer.admit(now, bytes) {
                    Ok(()) => sent.push((now, bytes as u128 * 8)),
                    Err(at) => {
                        prop_assert!(at > now);
                        if act % 2 == 0 {
                            now = at;
                            prop_assert_eq!(pacer.admit(now, bytes), Ok(()), "its own deadline is kept");
                            sent.push((now, bytes as u128 * 8));
                        }
                    }
                }
                let largest = sent.iter().map(|(_, bits)| *bits).max().unwrap_or(0);
                let mut bits = 0;
                for (at, len) in sent.iter().rev() {
                    bits += len;
                    let window = (now - *at).as_nanos();
                    let allowed = u128::from(rate) * (window + burst.as_nanos());
                    prop_assert!(bits * NANOS <= allowed.max(u128::from(rate) * window + largest * NANOS));
                }
            }
        }
    }
}
