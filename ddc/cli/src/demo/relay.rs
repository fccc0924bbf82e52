//! A diode that loses datagrams: takes them from the ingress, drops a share of them, hands the rest to the egress.
//!
//! ```text
//!  ingress ══▶ relay (drops by seed and number) ══▶ egress
//! ```
//!
//! Which datagrams are dropped depends on the seed and on their number only, so a run with the same seed and the same
//! traffic loses the same ones. What the relay's own socket could not take is counted apart and never passed off as planned.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use ddc_udp::{ReceiveBatch, ReceiverOptions, ReceiverSocket, SenderOptions, SenderSocket};

use super::records::Random;

/// How long a stop may go unseen.
const WAIT: Duration = Duration::from_millis(50);

/// A running relay; stops when dropped.
pub(super) struct Relay {
    listen: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    seen: AtomicU64,
    dropped: AtomicU64,
    overrun: AtomicU64,
}

/// What went through, in datagrams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) seen: u64,
    /// Dropped on purpose.
    pub(super) dropped: u64,
    /// Lost because the relay was too slow.
    pub(super) overrun: u64,
}

/// Decides which datagrams are dropped.
struct Dice {
    random: Random,
    /// Numbers below this are dropped.
    below: u64,
}

impl Dice {
    /// `share` is 0 … 1.
    fn new(seed: u64, share: f64) -> Self {
        Self { random: Random(seed), below: (share * u64::MAX as f64) as u64 }
    }

    fn drops(&mut self) -> bool {
        self.random.next() < self.below
    }
}

impl Relay {
    /// Listens on a free port of loopback, hands on to `target`.
    pub(super) fn start(target: SocketAddr, share: f64, seed: u64) -> anyhow::Result<Self> {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket =
            ReceiverSocket::open(&ReceiverOptions::new(listen)).context("the relay that loses datagrams")?;
        let sender =
            SenderSocket::open(&SenderOptions::new(target)).context("the relay that loses datagrams")?;
        let listen = socket.local_addr();
        let shared = Arc::new(Shared::default());
        let inside = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("ddc-demo-relay".into())
            .spawn(move || run(socket, &sender, Dice::new(seed, share), &inside))?;
        Ok(Self { listen, shared, thread: Some(thread) })
    }

    /// Where the ingress sends to.
    pub(super) fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// What went through so far.
    pub(super) fn passed(&self) -> Passed {
        Passed {
            seen: self.shared.seen.load(Relaxed),
            dropped: self.shared.dropped.load(Relaxed),
            overrun: self.shared.overrun.load(Relaxed),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; the records that it no longer passed on count as lost.
            let _ = thread.join();
        }
    }
}

fn run(mut socket: ReceiverSocket, sender: &SenderSocket, mut dice: Dice, shared: &Shared) {
    let mut batch = ReceiveBatch::new();
    while !shared.stop.load(Relaxed) {
        match socket.receive(&mut batch, WAIT) {
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "the relay cannot read its socket");
                thread::sleep(WAIT);
                continue;
            }
        }
        shared.overrun.store(socket.socket_drops(), Relaxed);
        let seen = batch.len() as u64;
        let kept: Vec<&[u8]> =
            batch.datagrams().filter_map(|datagram| (!dice.drops()).then_some(&*datagram.bytes)).collect();
        shared.seen.fetch_add(seen, Relaxed);
        shared.dropped.fetch_add(seen - kept.len() as u64, Relaxed);
        pass_on(sender, &kept, shared);
    }
}

fn pass_on(sender: &SenderSocket, datagrams: &[&[u8]], shared: &Shared) {
    let mut left = datagrams;
    while !left.is_empty() && !shared.stop.load(Relaxed) {
        match sender.send(left) {
            Ok(sent) => left = &left[sent..],
            // Loopback refuses for want of memory at most, which passes.
            Err(error) => {
                tracing::debug!(%error, "the relay tries again");
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn the_dice_keep_to_share_and_seed() {
        let draw = |seed, share| {
            let mut dice = Dice::new(seed, share);
            (0..100_000).map(|_| dice.drops()).collect::<Vec<_>>()
        };
        let dropped = |draws: &[bool]| draws.iter().filter(|drop| **drop).count();
        assert_eq!(dropped(&draw(1, 0.0)), 0);
        for (share, low, high) in [(0.01, 900, 1100), (0.5, 49_000, 51_000), (0.999, 99_800, 99_960)] {
            let count = dropped(&draw(1, share));
            assert!((low..high).contains(&count), "{share}: {count}");
        }
        assert_eq!(draw(3, 0.2), draw(3, 0.2));
        assert_ne!(draw(3, 0.2), draw(4, 0.2));
    }

    #[test]
    fn what_is_not_dropped_passes_unchanged_and_in_order() {
        let egress = UdpSocket::bind("127.0.0.1:0").unwrap();
        egress.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let relay = Relay::start(egress.local_addr().unwrap(), 0.3, 9).unwrap();
        let ingress = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut dice = Dice::new(9, 0.3);
        let mut expected = Vec::new();
        for number in 0..100u32 {
            ingress.send_to(&number.to_be_bytes(), relay.listen()).unwrap();
            if !dice.drops() {
                expected.push(number);
            }
        }
        let mut buffer = [0; 16];
        for number in &expected {
            let length = egress.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..length], number.to_be_bytes());
        }
        let passed = relay.passed();
        assert_eq!(passed, Passed { seen: 100, dropped: 100 - expected.len() as u64, overrun: 0 });
        assert!(passed.dropped > 10);
    }
}
