//! The diode of a chaos run: takes datagrams from the ingress, drops, delays, reorders and duplicates some, and hands the
//! others to the egress.
//!
//! ```text
//!  ingress ══▶ socket ─ fate of each datagram, by seed ─▶ those that wait, by time ══▶ egress
//! ```
//!
//! What becomes of a datagram depends on the weather, the seed and how many came before it. What the relay could not
//! take or keep is counted apart: it is lost like any other, but nobody planned it.

use std::collections::BinaryHeap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ddc_udp::{ReceiveBatch, ReceiverOptions, ReceiverSocket};

use super::dice::Dice;

/// How long a stop or another weather may go unseen.
const WAIT: Duration = Duration::from_millis(20);
/// Most bytes that wait in the relay: half a second of the fastest link that a chaos run has.
const HELD_BYTES: usize = 32 << 20;

/// What happens to datagrams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weather {
    /// Of a million, how many are dropped.
    pub drop: u32,
    /// Every datagram comes so much later.
    pub delay: Duration,
    /// And up to so much later still, each by itself: they overtake each other.
    pub jitter: Duration,
    /// Of a million, how many come twice, the copy up to [`Self::echo`] later.
    pub duplicate: u32,
    /// See `duplicate`.
    pub echo: Duration,
}

impl Weather {
    /// What becomes of the next datagram: how much later it comes, and its copy. Empty: it is dropped.
    pub fn fate(&self, dice: &mut Dice) -> [Option<Duration>; 2] {
        // Always the same number of draws, so that one weather does not shift the next one's luck.
        let (dropped, doubled) = (dice.hits(self.drop), dice.hits(self.duplicate));
        let late = self.delay + within(self.jitter, dice);
        let echo = late + within(self.echo, dice);
        if dropped { [None, None] } else { [Some(late), doubled.then_some(echo)] }
    }
}

fn within(span: Duration, dice: &mut Dice) -> Duration {
    Duration::from_micros(dice.below(span.as_micros() as u64 + 1))
}

/// What went through, in datagrams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passed {
    /// Came from the ingress.
    pub seen: u64,
    /// Dropped as the weather said.
    pub dropped: u64,
    /// Sent to the egress, copies included.
    pub sent: u64,
    /// Lost because the relay could not take or keep them.
    pub overrun: u64,
}

/// A running relay; stops when dropped.
pub struct Relay {
    listen: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    weather: Mutex<Weather>,
    seen: AtomicU64,
    dropped: AtomicU64,
    sent: AtomicU64,
    unkept: AtomicU64,
    socket_drops: AtomicU64,
}

impl Relay {
    /// Listens on a free port of loopback and hands on to `target`.
    pub fn start(target: SocketAddr, seed: u64) -> Relay {
        let socket = ReceiverSocket::open(&ReceiverOptions::new(SocketAddr::from(([127, 0, 0, 1], 0))))
            .expect("a socket on loopback");
        let out = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (listen, shared) = (socket.local_addr(), Arc::new(Shared::default()));
        let inside = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("relay".into())
            .spawn(move || run(socket, &out, target, Dice::new(seed, 3), &inside))
            .unwrap();
        Relay { listen, shared, thread: Some(thread) }
    }

    /// Where the ingress sends to.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// From now on the weather is this; what waits still comes as it would have.
    pub fn set(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
    }

    /// What went through so far.
    pub fn passed(&self) -> Passed {
        Passed {
            seen: self.shared.seen.load(Relaxed),
            dropped: self.shared.dropped.load(Relaxed),
            sent: self.shared.sent.load(Relaxed),
            overrun: self.shared.unkept.load(Relaxed) + self.shared.socket_drops.load(Relaxed),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || matches!(ended, Some(Ok(()))), "the relay ended well");
    }
}

/// A datagram on its way. The one that is due first is the greatest: a [`BinaryHeap`] hands that out.
#[derive(PartialEq, Eq)]
struct Waiting {
    due: Instant,
    number: u64,
    bytes: Box<[u8]>,
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// What waits to be handed on.
#[derive(Default)]
struct Line {
    heap: BinaryHeap<Waiting>,
    bytes: usize,
    number: u64,
}

impl Line {
    /// `false`: there is no room.
    fn push(&mut self, due: Instant, bytes: &[u8]) -> bool {
        if self.bytes + bytes.len() > HELD_BYTES {
            return false;
        }
        self.number += 1;
        self.bytes += bytes.len();
        self.heap.push(Waiting { due, number: self.number, bytes: bytes.into() });
        true
    }

    /// The next that is due.
    fn pop(&mut self, now: Instant) -> Option<Box<[u8]>> {
        let due = self.heap.peek()?.due;
        let waiting = if due <= now { self.heap.pop() } else { None }?;
        self.bytes -= waiting.bytes.len();
        Some(waiting.bytes)
    }

    fn wait(&self, now: Instant) -> Duration {
        self.heap.peek().map_or(WAIT, |first| first.due.saturating_duration_since(now).min(WAIT))
    }
}

fn run(mut socket: ReceiverSocket, out: &UdpSocket, target: SocketAddr, mut dice: Dice, shared: &Shared) {
    let (mut batch, mut line) = (ReceiveBatch::new(), Line::default());
    while !shared.stop.load(Relaxed) {
        // An error passes, as that of a moment without memory: the next round looks again.
        let came = socket.receive(&mut batch, line.wait(Instant::now()));
        shared.socket_drops.store(socket.socket_drops(), Relaxed);
        let (now, weather) = (Instant::now(), *shared.weather.lock().unwrap_or_else(PoisonError::into_inner));
        for datagram in batch.datagrams().take(came.unwrap_or(0)) {
            shared.seen.fetch_add(1, Relaxed);
            let fate = weather.fate(&mut dice);
            if fate[0].is_none() {
                shared.dropped.fetch_add(1, Relaxed);
            }
            for late in fate.into_iter().flatten() {
                if !line.push(now + late, datagram.bytes) {
                    shared.unkept.fetch_add(1, Relaxed);
                }
            }
        }
        while let Some(bytes) = line.pop(Instant::now()) {
            // Refused while no egress listens: lost, as on a diode.
            if out.send_to(&bytes, target).is_ok() {
                shared.sent.fetch_add(1, Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(seed: u64, weather: Weather) -> Vec<[Option<Duration>; 2]> {
        let mut dice = Dice::new(seed, 3);
        (0..100_000).map(|_| weather.fate(&mut dice)).collect()
    }

    #[test]
    fn fair_weather_touches_nothing() {
        for fate in fates(1, Weather::default()) {
            assert_eq!(fate, [Some(Duration::ZERO), None]);
        }
    }

    #[test]
    fn shares_and_spans_are_kept() {
        let span = Duration::from_millis(80);
        let weather = Weather {
            drop: 300_000,
            delay: span,
            jitter: span,
            duplicate: 100_000,
            echo: Duration::from_millis(300),
        };
        let fates = fates(2, weather);
        let dropped = fates.iter().filter(|fate| fate[0].is_none()).count();
        let doubled = fates.iter().filter(|fate| fate[1].is_some()).count();
        assert!((29_000..31_000).contains(&dropped), "{dropped}");
        assert!((6_500..7_500).contains(&doubled), "{doubled}: a tenth of those that pass");
        for fate in &fates {
            assert!(fate[0].is_none_or(|late| late >= span && late <= 2 * span));
            assert!(fate[1] >= fate[0] || fate[1].is_none(), "a copy is never first");
        }
        assert_eq!(fates, super::tests::fates(2, weather));
        assert_ne!(fates, super::tests::fates(3, weather));
        let all = Weather { drop: 1_000_000, ..Weather::default() };
        assert!(super::tests::fates(1, all).iter().all(|fate| fate == &[None, None]));
    }

    /// What arrives of a hundred numbered datagrams.
    fn sent_through(weather: Weather, expected: usize) -> (Vec<u32>, Passed) {
        let egress = UdpSocket::bind("127.0.0.1:0").unwrap();
        egress.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let relay = Relay::start(egress.local_addr().unwrap(), 5);
        relay.set(weather);
        let ingress = UdpSocket::bind("127.0.0.1:0").unwrap();
        for number in 0..100u32 {
            ingress.send_to(&number.to_be_bytes(), relay.listen()).unwrap();
        }
        let mut buffer = [0; 16];
        let mut next = || {
            let length = egress.recv(&mut buffer).expect("a datagram comes");
            u32::from_be_bytes(buffer[..length].try_into().expect("unchanged"))
        };
        let arrived: Vec<u32> = (0..expected).map(|_| next()).collect();
        crate::wait::until_true("all are seen", Duration::from_secs(10), || relay.passed().seen == 100);
        egress.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(egress.recv(&mut [0; 16]).is_err(), "nothing more comes");
        (arrived, relay.passed())
    }

    #[test]
    fn datagrams_pass_late_doubled_overtaking_or_not() {
        let (arrived, passed) = sent_through(Weather::default(), 100);
        assert_eq!(arrived, (0..100).collect::<Vec<_>>(), "in order");
        assert_eq!(passed, Passed { seen: 100, dropped: 0, sent: 100, overrun: 0 });

        let begin = Instant::now();
        let delay = Duration::from_millis(150);
        let (arrived, _) = sent_through(Weather { delay, ..Weather::default() }, 100);
        assert_eq!(arrived, (0..100).collect::<Vec<_>>(), "still in order");
        assert!(begin.elapsed() >= delay);

        let (mut arrived, _) = sent_through(Weather { jitter: delay, ..Weather::default() }, 100);
        assert!(!arrived.is_sorted(), "they overtake each other");
        arrived.sort_unstable();
        assert_eq!(arrived, (0..100).collect::<Vec<_>>());

        let twice = Weather { duplicate: 1_000_000, echo: Duration::from_millis(30), ..Weather::default() };
        let (mut arrived, passed) = sent_through(twice, 200);
        arrived.sort_unstable();
        assert_eq!(arrived, (0..200).map(|number| number / 2).collect::<Vec<_>>());
        assert_eq!(passed.sent, 200);

        let (_, passed) = sent_through(Weather { drop: 1_000_000, ..Weather::default() }, 0);
        assert_eq!(passed, Passed { seen: 100, dropped: 100, sent: 0, overrun: 0 });
    }

    #[test]
    fn what_has_no_room_is_counted_and_room_comes_back() {
        let (mut line, now) = (Line::default(), Instant::now());
        let large = vec![0; HELD_BYTES / 2];
        assert!(line.push(now, &large) && line.push(now, &large));
        assert!(!line.push(now, &[0]));
        assert!(line.pop(now).is_some());
        assert!(line.push(now, &[0]));
    }
}
