//! The StatsD reporter: one thread that sends what has changed to a list of collectors, once a second.
//!
//! ```text
//!   registry ─► lines: one per series ─► cadence: datagrams of ≤ 1432 bytes ─┬─► 127.0.0.1:8125  Vector of this host
//!   (atomics)   (deltas, gauges, buckets)                                    └─► 127.0.0.1:8126  a telemetry link, to the far side
//! ```
//! Collectors get the same lines. One that is absent, refuses or is slow costs nothing but what `ddc_statsd_datagrams_dropped_total`
//! counts: sockets never block and nothing is kept for later; a counter's delta that was lost is lost to that collector. The data path
//! is not touched: the thread reads its atomics.
//!
//! A process with many links has more to say than a socket's receive buffer of the usual 208 KiB holds. So datagrams go out in
//! bursts of [`BURST`], spread over the better part of the second.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::exposition::Registry;

pub(crate) mod lines;
mod target;

pub use lines::MAX_WEIGHT;
pub use target::DATAGRAM;

use lines::{Batch, Lines};
use target::Target;

/// The time between two flushes.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Datagrams sent to a collector without a pause: some 40 KiB of its receive buffer as the kernel counts.
pub const BURST: u64 = 16;

/// Over how much time the bursts of one flush are spread, roughly.
const SPREAD: Duration = Duration::from_millis(600);
/// Bounds of the pause between two bursts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// The running reporter. Dropping it does the same as [`Reporter::stop`].
#[derive(Debug)]
pub struct Reporter {
    running: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Reporter {
    /// Starts the thread `ddc-statsd`, which flushes at once, so that every counter begins with a 0, and then each second. Without
    /// targets there is no thread. A collector that cannot be reached is no error here: it may come later.
    pub fn start(registry: Registry, targets: Vec<SocketAddr>) -> io::Result<Self> {
        if targets.is_empty() {
            return Ok(Self { running: None });
        }
        let (stop, stopped) = channel::<()>();
        let thread = thread::Builder::new().name("ddc-statsd".to_owned()).spawn(move || {
            let mut flusher = Flusher::new(registry, &targets);
            loop {
                let began = Instant::now();
                flusher.flush();
                // After a flush that took longer than the interval the next one is due at once.
                match stopped.recv_timeout(INTERVAL.saturating_sub(began.elapsed())) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            flusher.flush();
        })?;
        Ok(Self { running: Some((stop, thread)) })
    }

    /// Sends what has changed since the last flush and ends the thread. Takes a moment; with hundreds of links about a second.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            // The thread ends by itself; if it panicked, the panic was told where it happened.
            let _ = thread.join();
        }
    }
}

/// What the thread does each second.
struct Flusher {
    registry: Registry,
    lines: Lines,
    batch: Batch,
    targets: Vec<Target>,
}

impl Flusher {
    fn new(registry: Registry, targets: &[SocketAddr]) -> Self {
        let targets = targets.iter().copied().map(Target::new).collect();
        Self { registry, lines: Lines::default(), batch: Batch::default(), targets }
    }

    fn flush(&mut self) {
        let Self { registry, lines, batch, targets } = self;
        let process = registry.process();
        batch.clear();
        // All lines first: the registry is locked against new links while it is read, and must not be while we pause.
        lines.render(registry, batch);
        let pause = pause(batch.bytes());
        let mut burst = 0;
        for target in targets.iter_mut() {
            target.begin(process);
        }
        for unit in batch.units() {
            // Collectors get equal lines, so their datagrams come at the same time: one count serves all.
            burst += targets.iter_mut().map(|target| target.emit(unit, process)).max().unwrap_or(0);
            if burst >= BURST {
                burst = 0;
                thread::sleep(pause);
            }
        }
        for target in targets.iter_mut() {
            target.end(process);
        }
    }
}

/// How long to wait after each burst of a flush of that many bytes.
fn pause(bytes: usize) -> Duration {
    let bursts = (bytes / (DATAGRAM * BURST as usize)).max(1);
    (SPREAD / bursts as u32).clamp(PAUSES.0, PAUSES.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one process may have at most goes out within its second; what little processes say needs no second burst.
    #[test]
    fn bursts_fit_the_second() {
        for bytes in [0, 20_000, 150_000, 1_400_000, 5_000_000] {
            let bursts = (bytes / (DATAGRAM * BURST as usize)) as u32;
            assert!(pause(bytes) * bursts <= Duration::from_millis(700), "{bytes}");
            assert!(pause(bytes) >= PAUSES.0);
        }
        let registry = crate::vectors::example(&[crate::Side::Ingress, crate::Side::Egress]);
        let (mut lines, mut batch) = (Lines::default(), Batch::default());
        lines.render(&registry, &mut batch);
        assert!(
            batch.bytes() < DATAGRAM * BURST as usize,
            "a process with one link is one burst: {}",
            batch.bytes()
        );
    }

    /// The cost of rendering, printed; the bound is far above what a debug build on a busy machine takes.
    #[test]
    fn rendering_is_cheap() {
        let registry = Registry::default();
        for n in 0..50 {
            registry.ingress(&format!("link-{n}")).unwrap();
            registry.egress(&format!("link-{n}")).unwrap();
        }
        let (mut lines, mut batch) = (Lines::default(), Batch::default());
        lines.render(&registry, &mut batch);
        let count = batch.units().count();
        let began = crate::process::thread_cpu();
        for _ in 0..10 {
            batch.clear();
            lines.render(&registry, &mut batch);
        }
        let each = crate::process::thread_cpu().saturating_sub(began) / 10 / count as u32;
        println!("{count} lines, {each:?} each");
        assert!(each < Duration::from_micros(50), "{each:?}");
    }
}
