//! The one-way path: what it does to datagrams, from a seed.

use std::collections::BinaryHeap;
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Virtual time since the start of a scenario.
pub(crate) type Time = Duration;

/// What can go wrong on the path, as probabilities per datagram.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    pub(crate) loss: f64,
    /// Begins a burst of 1 to `burst_len` losses.
    pub(crate) burst: f64,
    pub(crate) burst_len: u32,
    pub(crate) duplicate: f64,
    pub(crate) corrupt: f64,
    pub(crate) truncate: f64,
    /// A datagram of long ago comes again.
    pub(crate) replay: f64,
    /// Bytes of nobody come.
    pub(crate) forge: f64,
    pub(crate) delay: Duration,
    /// Up to this much more for a datagram that is overtaken.
    pub(crate) jitter: Duration,
    pub(crate) reorder: f64,
}

impl Weather {
    pub(crate) fn any(rng: &mut ChaCha8Rng) -> Self {
        let mut often =
            |share: f64, most: f64| if rng.random_bool(share) { rng.random_range(0.0..most) } else { 0.0 };
        Self {
            loss: often(0.6, 0.3),
            burst: often(0.3, 0.02),
            duplicate: often(0.4, 0.2),
            corrupt: often(0.4, 0.1),
            truncate: often(0.3, 0.05),
            replay: often(0.3, 0.1),
            forge: often(0.3, 0.05),
            reorder: often(0.5, 0.3),
            burst_len: rng.random_range(1..120),
            delay: Duration::from_micros(rng.random_range(20..30_000)),
            jitter: Duration::from_micros(rng.random_range(1..80_000)),
        }
    }
}

/// A datagram on its way, ordered by its arrival, the earliest greatest.
#[derive(Debug, PartialEq, Eq)]
struct Flight {
    at: Time,
    serial: u64,
    from: u16,
    bytes: Vec<u8>,
}

impl Ord for Flight {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.serial).cmp(&(self.at, self.serial))
    }
}

impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The path.
pub(crate) struct Diode {
    pub(crate) weather: Weather,
    /// Nothing passes before this time.
    pub(crate) cut_until: Time,
    burst_left: u32,
    flights: BinaryHeap<Flight>,
    serial: u64,
    old: Vec<(u16, Vec<u8>)>,
    pub(crate) lost: u64,
    pub(crate) sent: u64,
}

impl Diode {
    pub(crate) fn new(weather: Weather) -> Self {
        Self {
            weather,
            cut_until: Time::ZERO,
            burst_left: 0,
            flights: BinaryHeap::new(),
            serial: 0,
            old: Vec::new(),
            lost: 0,
            sent: 0,
        }
    }

    /// From now on nothing is lost, only delayed.
    pub(crate) fn clear_up(&mut self) {
        self.weather = Weather { delay: Duration::from_millis(1), ..Weather::default() };
        self.cut_until = Time::ZERO;
        self.burst_left = 0;
    }

    pub(crate) fn send(&mut self, rng: &mut ChaCha8Rng, now: Time, from: u16, datagram: &[u8]) {
        let weather = self.weather;
        self.sent += 1;
        if self.old.len() < 64 {
            self.old.push((from, datagram.to_vec()));
        } else if rng.random_bool(0.02) {
            let at = rng.random_range(0..self.old.len());
            self.old[at] = (from, datagram.to_vec());
        }
        if rng.random_bool(weather.replay) {
            let at = rng.random_range(0..self.old.len());
            let (from, bytes) = self.old[at].clone();
            self.fly(rng, now, from, bytes);
        }
        if rng.random_bool(weather.forge) {
            let mut bytes: Vec<u8> = (0..rng.random_range(0..200)).map(|_| rng.random()).collect();
            if rng.random_bool(0.7) {
                // As far as a header goes, it looks like ours.
                let head = datagram.len().min(bytes.len()).min(44);
                bytes[..head].copy_from_slice(&datagram[..head]);
                if head > 8 && rng.random_bool(0.5) {
                    let at = rng.random_range(4..head);
                    bytes[at] ^= 1 << rng.random_range(0..8u32);
                }
            }
            self.fly(rng, now, 666, bytes);
        }
        if now < self.cut_until {
            self.lost += 1;
            return;
        }
        if self.burst_left == 0 && rng.random_bool(weather.burst) {
            self.burst_left = rng.random_range(1..=weather.burst_len);
        }
        if self.burst_left > 0 || rng.random_bool(weather.loss) {
            self.burst_left = self.burst_left.saturating_sub(1);
            self.lost += 1;
            return;
        }
        if rng.random_bool(weather.duplicate) {
            self.fly(rng, now, from, datagram.to_vec());
        }
        let mut bytes = datagram.to_vec();
        if rng.random_bool(weather.corrupt) {
            let at = rng.random_range(0..bytes.len());
            bytes[at] ^= 1 << rng.random_range(0..8u32);
            self.lost += 1;
        } else if rng.random_bool(weather.truncate) {
            bytes.truncate(rng.random_range(0..bytes.len()));
            self.lost += 1;
        }
        self.fly(rng, now, from, bytes);
    }

    fn fly(&mut self, rng: &mut ChaCha8Rng, now: Time, from: u16, bytes: Vec<u8>) {
        let late = if rng.random_bool(self.weather.reorder) {
            self.weather.jitter.mul_f64(rng.random_range(0.0..1.0))
        } else {
            Duration::ZERO
        };
        self.serial += 1;
        self.flights.push(Flight { at: now + self.weather.delay + late, serial: self.serial, from, bytes });
    }

    pub(crate) fn next_arrival(&self) -> Option<Time> {
        self.flights.peek().map(|flight| flight.at)
    }

    pub(crate) fn arrive(&mut self, now: Time) -> Option<(u16, Vec<u8>)> {
        if self.flights.peek()?.at > now {
            return None;
        }
        self.flights.pop().map(|flight| (flight.from, flight.bytes))
    }
}
