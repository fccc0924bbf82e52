//! One collector: a connected, non-blocking UDP socket with cadence's buffered sink before it.
//!
//! A datagram that a collector on this host refuses shows as an error of the *next* send: that datagram is then still in the sink's
//! buffer, so it is sent by a second attempt, and the one before is counted as dropped. After any other error the socket is closed, what
//! is left of the flush is counted, and the next flush opens another. Nothing here waits.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use cadence::{BufferedUdpMetricSink, MetricSink as _};

use crate::ProcessMetrics;
use crate::log::RateLimit;

/// The most bytes of a datagram: what fits an Ethernet frame with IPv4, IPv6 or a tunnel's header around it.
pub const DATAGRAM: usize = 1432;

/// How often trouble with one collector is logged.
const LOG_EVERY: Duration = Duration::from_mins(1);

/// A collector and what is known of it.
pub(super) struct Target {
    address: SocketAddr,
    open: Option<Open>,
    /// Bytes of this flush that there was no socket for.
    unsent: usize,
    /// What went wrong in this flush, if anything did.
    trouble: Option<io::Error>,
    /// Whether the last flush had trouble.
    was_troubled: bool,
    limit: RateLimit<()>,
}

struct Open {
    sink: BufferedUdpMetricSink,
    /// The sink's socket, to ask it for errors.
    socket: UdpSocket,
    /// Datagrams of this sink that are in `ddc_statsd_datagrams_sent_total`.
    counted: u64,
}

impl Open {
    fn new(address: SocketAddr) -> io::Result<Self> {
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(address)?;
        socket.set_nonblocking(true)?;
        let sink = BufferedUdpMetricSink::with_capacity(address, socket.try_clone()?, DATAGRAM)
            .map_err(io::Error::other)?;
        Ok(Self { sink, socket, counted: 0 })
    }
}

impl Target {
    pub(super) fn new(address: SocketAddr) -> Self {
        let limit = RateLimit::new(LOG_EVERY);
        Self { address, open: None, unsent: 0, trouble: None, was_troubled: false, limit }
    }

    /// Before the lines of a flush: makes sure that there is a socket, and learns what became of the last datagram.
    pub(super) fn begin(&mut self, process: &ProcessMetrics) {
        match &self.open {
            Some(_) => self.ask(process),
            None => match Open::new(self.address) {
                Ok(open) => self.open = Some(open),
                Err(error) => self.trouble = Some(error),
            },
        }
    }

    /// Adds a unit of lines; sends the buffer when it does not fit any more. Returns how many datagrams were sent.
    pub(super) fn emit(&mut self, unit: &str, process: &ProcessMetrics) -> u64 {
        if !self.attempt(process, |sink| sink.emit(unit).map(|_| ())) {
            self.unsent += unit.len() + 1;
        }
        self.count_sent(process)
    }

    /// After the lines of a flush: sends what is buffered, counts what could not be sent, says so.
    pub(super) fn end(&mut self, process: &ProcessMetrics) {
        self.attempt(process, BufferedUdpMetricSink::flush);
        self.count_sent(process);
        self.ask(process);
        process.statsd_datagrams_dropped.add(self.unsent.div_ceil(DATAGRAM) as u64);
        self.unsent = 0;
        self.tell();
    }

    /// Does something with the sink, twice if the first attempt tells that an earlier datagram was refused.
    fn attempt(
        &mut self,
        process: &ProcessMetrics,
        work: impl Fn(&BufferedUdpMetricSink) -> io::Result<()>,
    ) -> bool {
        let Some(open) = &self.open else { return false };
        let error = match work(&open.sink) {
            Ok(()) => return true,
            Err(error) => error,
        };
        // Either way one datagram is lost: the refused one, or the one in the buffer.
        process.statsd_datagrams_dropped.inc();
        let again = error.kind() == io::ErrorKind::ConnectionRefused && work(&open.sink).is_ok();
        self.trouble = Some(error);
        if !again {
            self.count_sent(process);
            self.open = None;
        }
        again
    }

    /// Learns of a refusal that came after the last send.
    fn ask(&mut self, process: &ProcessMetrics) {
        let Some(open) = &self.open else { return };
        if let Ok(Some(error)) = open.socket.take_error() {
            process.statsd_datagrams_dropped.inc();
            self.trouble = Some(error);
        }
    }

    fn count_sent(&mut self, process: &ProcessMetrics) -> u64 {
        let Some(open) = &mut self.open else { return 0 };
        let sent = open.sink.stats().packets_sent;
        let new = sent - open.counted;
        open.counted = sent;
        process.statsd_datagrams_sent.add(new);
        new
    }

    fn tell(&mut self) {
        let collector = self.address;
        let trouble = self.trouble.take();
        let is_troubled = trouble.is_some();
        if let Some(error) = trouble {
            if let Some(suppressed) = self.limit.allow((), Instant::now()) {
                tracing::warn!(
                    event = "statsd_trouble", %collector, %error, suppressed,
                    "StatsD collector {collector}: {error}; is it running, and does [telemetry] statsd name its address? \
                     Metrics are lost to it until it takes them; /metrics has them all"
                );
            }
        } else if self.was_troubled {
            tracing::info!(event = "statsd_well", %collector, "StatsD collector {collector} takes datagrams again");
        }
        self.was_troubled = is_troubled;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap()
        }
    }

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn flush(target: &mut Target, process: &ProcessMetrics, lines: usize) {
        target.begin(process);
        for n in 0..lines {
            target.emit(&format!("{n:0700}:1|c"), process);
        }
        target.end(process);
    }

    fn counts(process: &ProcessMetrics) -> (u64, u64) {
        (process.statsd_datagrams_sent.value(), process.statsd_datagrams_dropped.value())
    }

    /// Two lines make a datagram here. Every datagram is counted once as sent and, since it was refused, once as dropped.
    #[test]
    fn refusals_are_counted_each_and_told_once_with_the_remedy() {
        let log = Log::default();
        let written = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || written.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            let free = UdpSocket::bind("127.0.0.1:0").unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            let (mut target, process) = (Target::new(address), ProcessMetrics::default());
            flush(&mut target, &process, 6);
            assert_eq!(counts(&process), (3, 3));
            flush(&mut target, &process, 2);
            flush(&mut target, &process, 1);
            assert_eq!(counts(&process), (5, 5));

            let listening = UdpSocket::bind(address).expect("the port is still free");
            flush(&mut target, &process, 4);
            flush(&mut target, &process, 2);
            assert_eq!(counts(&process), (8, 5), "nothing of what a listening collector is sent is dropped");
            listening.set_nonblocking(true).unwrap();
            let mut buffer = [0; DATAGRAM];
            let arrived = std::iter::from_fn(|| listening.recv(&mut buffer).ok()).count();
            assert_eq!(arrived, 3);

            let told = log.text();
            assert_eq!(told.matches("WARN").count(), 1, "{told}");
            assert!(told.contains(&format!("StatsD collector {address}: Connection refused")), "{told}");
            assert!(told.contains("is it running"), "{told}");
            assert_eq!(told.matches("takes datagrams again").count(), 1, "{told}");
        });
    }

    /// Where no socket can be had, all lines of the flush are counted in datagrams, and the next flush tries again.
    #[test]
    fn without_a_socket_everything_is_counted() {
        // Port 0 is nobody's.
        let (mut target, process) = (Target::new("127.0.0.1:0".parse().unwrap()), ProcessMetrics::default());
        flush(&mut target, &process, 9);
        let (sent, dropped) = counts(&process);
        assert_eq!(sent, 0);
        assert_eq!(dropped, 5, "nine lines of 704 bytes");
        flush(&mut target, &process, 9);
        assert_eq!(counts(&process).1, 10);
    }
}
