//! Standard error behind a bounded queue: a reader of it that is slow or stopped costs lines, never time.
//!
//! `tracing-appender` carries the lines to its thread. It bounds their number only, so both number and bytes are counted here, before.
//! What has no room is dropped, as is what standard error refuses: the oldest lines stay, since the first ones of a storm say why.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::MakeWriter;

use crate::ProcessMetrics;

/// The most lines that wait for standard error.
pub const MAX_LINES: usize = 8192;
/// The most bytes of these lines.
pub const MAX_LINE_BYTES: usize = 4 << 20;

/// Makes the queue and its thread. Lines are written until the guard is dropped, which waits for those that wait, a second at most.
pub(super) fn lines_to<W: Write + Send + 'static>(
    out: W,
    metrics: &Arc<ProcessMetrics>,
) -> (LineWriter, WorkerGuard) {
    let waiting = Arc::new(Waiting { metrics: Arc::clone(metrics), ..Waiting::default() });
    let (queue, guard) = NonBlockingBuilder::default()
        // One more, for the word that ends the thread: the queue itself is never full, what comes before it is.
        .buffered_lines_limit(MAX_LINES + 1)
        .lossy(true)
        .finish(Out { out, waiting: Arc::clone(&waiting) });
    let refused = queue.error_counter();
    (LineWriter { queue, waiting, refused, refused_before: Arc::default() }, guard)
}

/// Where the formatting layer writes a line, with one call each. Never waits.
#[derive(Debug, Clone)]
pub(super) struct LineWriter {
    queue: NonBlocking,
    waiting: Arc<Waiting>,
    /// Lines that the queue did not take: none while its thread runs.
    refused: ErrorCounter,
    refused_before: Arc<AtomicUsize>,
}

/// What is on its way to the thread.
#[derive(Debug, Default)]
struct Waiting {
    lines: AtomicUsize,
    bytes: AtomicUsize,
    /// Lines ever taken, and lines ever written or refused by `out`.
    taken: AtomicU64,
    done: AtomicU64,
    metrics: Arc<ProcessMetrics>,
}

impl Waiting {
    /// Room for a line, if there is.
    fn reserve(&self, bytes: usize) -> bool {
        let lines = self.lines.fetch_add(1, Ordering::Relaxed) + 1;
        let all = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let fits = lines <= MAX_LINES && all <= MAX_LINE_BYTES;
        if !fits {
            self.release(bytes);
        }
        fits
    }

    fn release(&self, bytes: usize) {
        self.lines.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl LineWriter {
    /// Waits until the lines taken before are written, at most for `within`.
    pub(super) fn flush(&self, within: Duration) {
        let (goal, until) = (self.waiting.taken.load(Ordering::Acquire), Instant::now() + within);
        while self.waiting.done.load(Ordering::Acquire) < goal && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Takes what the queue itself refused over into the metric, each line once.
    fn count_refused(&self) {
        let now = self.refused.dropped_lines();
        let before = self.refused_before.fetch_max(now, Ordering::Relaxed);
        if now > before {
            self.waiting.metrics.log_lines_dropped.add((now - before) as u64);
        }
    }
}

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.waiting.reserve(line.len()) {
            self.waiting.taken.fetch_add(1, Ordering::Release);
            self.queue.write_all(line)?;
            self.count_refused();
        } else {
            self.waiting.metrics.log_lines_dropped.inc();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LineWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// The other end of the queue: the appender's thread writes each line with one call of `write_all`.
struct Out<W> {
    out: W,
    waiting: Arc<Waiting>,
}

impl<W: Write> Write for Out<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        if self.out.write_all(line).is_err() {
            self.waiting.metrics.log_lines_dropped.inc();
        }
        self.waiting.release(line.len());
        self.waiting.done.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Takes a line only when it is let.
    struct Gate(mpsc::Receiver<()>, mpsc::Sender<Vec<u8>>);

    impl Write for Gate {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            let _ = self.1.send(line.to_vec());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (LineWriter, WorkerGuard, Arc<ProcessMetrics>, mpsc::Sender<()>, mpsc::Receiver<Vec<u8>>) {
        let (let_through, let_in) = mpsc::channel();
        let (sender, lines) = mpsc::channel();
        let metrics = Arc::new(ProcessMetrics::default());
        let (writer, guard) = lines_to(Gate(let_in, sender), &metrics);
        (writer, guard, metrics, let_through, lines)
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_and_no_time() {
        let (mut writer, guard, metrics, let_through, lines) = gated();
        let start = Instant::now();
        let surplus = 1000;
        for number in 0..MAX_LINES + surplus {
            writer.write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        assert_eq!(metrics.log_lines_dropped.value(), surplus as u64);
        drop(let_through);
        writer.flush(Duration::from_secs(10));
        let written: Vec<_> = lines.try_iter().collect();
        assert_eq!(written.len(), MAX_LINES, "what was taken is written");
        assert_eq!(written[0], b"0\n", "the first lines stay");
        writer.write_all(b"again\n").unwrap();
        drop(guard);
        assert_eq!(lines.try_iter().collect::<Vec<_>>(), [b"again\n"], "the guard waits for the last line");
        writer.write_all(b"too late\n").unwrap();
        assert_eq!(metrics.log_lines_dropped.value(), surplus as u64 + 1);
    }

    #[test]
    fn long_lines_are_bounded_by_their_bytes() {
        let (mut writer, _guard, metrics, let_through, lines) = gated();
        let line = vec![b'x'; 1 << 20];
        for _ in 0..10 {
            writer.write_all(&line).unwrap();
        }
        assert_eq!(metrics.log_lines_dropped.value(), 10 - (MAX_LINE_BYTES >> 20) as u64);
        drop(let_through);
        writer.flush(Duration::from_secs(10));
        assert_eq!(lines.try_iter().count(), MAX_LINE_BYTES >> 20);
        assert_eq!(writer.waiting.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_standard_error_refuses_is_counted() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let metrics = Arc::new(ProcessMetrics::default());
        let (mut writer, guard) = lines_to(Closed, &metrics);
        for _ in 0..3 {
            writer.write_all(b"x\n").unwrap();
        }
        writer.flush(Duration::from_secs(10));
        drop(guard);
        assert_eq!(metrics.log_lines_dropped.value(), 3);
    }
}
