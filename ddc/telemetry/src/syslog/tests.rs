//! Real sockets: collectors that are slow, away, refusing, restarting, or replaced; and what that costs who logs.

use std::io::{Read, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tracing::Dispatch;
use tracing_subscriber::layer::SubscriberExt as _;

use super::message::ELEMENT;
use super::rfc5424::parse;
use super::socket::Timing;
use super::{Facility, MAX_BYTES, MAX_MESSAGES, MAX_TARGETS, Syslog, Target, start, start_with};
use crate::{Identity, ProcessMetrics};

/// As the default, only faster.
fn fast() -> Timing {
    Timing {
        write: Duration::from_millis(50),
        pause_min: Duration::from_millis(10),
        pause_max: Duration::from_millis(200),
        ..Timing::default()
    }
}

/// A process with one target.
struct Process {
    dispatch: Dispatch,
    syslog: Syslog,
    metrics: Arc<ProcessMetrics>,
}

impl Process {
    fn new(target: &str) -> Self {
        Self::with(target, fast())
    }

    fn with(target: &str, timing: Timing) -> Self {
        let metrics = Arc::new(ProcessMetrics::default());
        let identity = Identity { process: "egress-plant-a".into(), site: None };
        let targets = [target.parse().unwrap()];
        let (layer, syslog) = start_with(&targets, Facility::default(), &identity, &metrics, timing).unwrap();
        Self { dispatch: Dispatch::new(tracing_subscriber::registry().with(layer)), syslog, metrics }
    }

    /// Logs a message for each number; no call may wait for a collector.
    fn log(&self, numbers: std::ops::Range<u64>, padding: usize) {
        let (padding, mut slowest, count) =
            ("x".repeat(padding), Duration::ZERO, numbers.end - numbers.start);
        let start = Instant::now();
        tracing::dispatcher::with_default(&self.dispatch, || {
            for number in numbers {
                let before = Instant::now();
                tracing::info!(number, "{padding}");
                slowest = slowest.max(before.elapsed());
            }
        });
        // A busy machine takes the processor away now and then. A call that waited for a collector would take 50 ms at least, and here
        // are hundreds and thousands of calls.
        assert!(start.elapsed() < Duration::from_secs(3) + Duration::from_micros(200) * count as u32);
        assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    }

    fn sent(&self) -> u64 {
        self.metrics.syslog_messages_sent.value()
    }

    fn dropped(&self) -> u64 {
        self.metrics.syslog_messages_dropped.value()
    }

    fn wait_for(&self, what: &str, reached: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !reached(self) {
            let (sent, dropped) = (self.sent(), self.dropped());
            assert!(start.elapsed() < Duration::from_secs(20), "{what}: sent {sent}, dropped {dropped}");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The number in a message, which must be a sound one of ours.
fn number(message: &[u8]) -> u64 {
    let message = str::from_utf8(message).unwrap();
    let parsed = parse(message).unwrap_or_else(|error| panic!("{error}: {message}"));
    assert_eq!((parsed.app.as_deref(), parsed.msgid.as_deref()), (Some("ddc-egress"), Some("tests")));
    parsed.elements[ELEMENT]["number"].parse().unwrap()
}

fn ascending(numbers: &[u64]) -> bool {
    numbers.windows(2).all(|pair| pair[0] < pair[1])
}

/// Takes a stream apart by octet counting; returns the numbers and what is left of an incomplete frame.
fn frames(mut bytes: &[u8]) -> (Vec<u64>, &[u8]) {
    let mut numbers = Vec::new();
    while let Some(blank) = bytes.iter().position(|byte| *byte == b' ') {
        let length: usize =
            str::from_utf8(&bytes[..blank]).unwrap().parse().expect("a length, not the rest of a frame");
        let Some(message) = bytes.get(blank + 1..blank + 1 + length) else { break };
        numbers.push(number(message));
        bytes = &bytes[blank + 1 + length..];
    }
    (numbers, bytes)
}

fn read_for(stream: &mut impl Read, until: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let (mut all, mut part, start) = (Vec::new(), vec![0; 1 << 16], Instant::now());
    while !until(&all) && start.elapsed() < Duration::from_secs(20) {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(read) => all.extend_from_slice(&part[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            // A connection given up while this end did not read: the kernel throws away what it still held.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error}"),
        }
    }
    all
}

fn accept(listener: &TcpListener) -> TcpStream {
    let start = Instant::now();
    loop {
        if let Some(stream) = try_accept(listener) {
            return stream;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "nobody connects");
        thread::sleep(Duration::from_millis(1));
    }
}

fn try_accept(listener: &TcpListener) -> Option<TcpStream> {
    listener.set_nonblocking(true).unwrap();
    let (stream, _) = listener.accept().ok()?;
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    Some(stream)
}

fn receive(socket: &UnixDatagram, count: usize) -> Vec<u64> {
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut buffer = vec![0; 1 << 16];
    (0..count)
        .map(|_| {
            let read = socket.recv(&mut buffer).unwrap();
            number(&buffer[..read])
        })
        .collect()
}

#[test]
fn udp_delivers_each_message_in_a_datagram() {
    let collector = UdpSocket::bind("127.0.0.1:0").unwrap();
    collector.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let process = Process::new(&format!("udp://{}", collector.local_addr().unwrap()));
    // No more than a receive buffer holds, should this thread not come to read in time.
    process.log(0..20, 4000);
    let mut buffer = vec![0; 1 << 16];
    for expected in 0..20 {
        let read = collector.recv(&mut buffer).unwrap();
        assert!(read <= 2048, "{read}");
        assert_eq!(number(&buffer[..read]), expected);
    }
    process.syslog.flush(Duration::from_secs(5));
    assert_eq!((process.sent(), process.dropped()), (20, 0));
}

/// Over loopback a refused datagram is known at once: nothing is lost while the collector restarts, as long as the queue holds.
#[test]
fn udp_waits_for_a_collector_that_comes_later() {
    let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let process = Process::new(&format!("udp://{address}"));
    process.log(0..100, 0);
    thread::sleep(Duration::from_millis(300));
    assert_eq!((process.sent(), process.dropped()), (0, 0));
    let collector = UdpSocket::bind(address).unwrap();
    collector.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut buffer = vec![0; 1 << 16];
    for expected in 0..100 {
        let read = collector.recv(&mut buffer).unwrap();
        assert_eq!(number(&buffer[..read]), expected);
    }
    process.wait_for("all sent", |process| process.sent() == 100);
    assert_eq!(process.dropped(), 0);
}

#[test]
fn tcp_counts_octets() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let process = Process::new(&format!("tcp://{}", listener.local_addr().unwrap()));
    process.log(0..200, 9000);
    let mut stream = accept(&listener);
    process.syslog.flush(Duration::from_millis(1));
    let bytes = read_for(&mut stream, |bytes| frames(bytes).0.len() == 200 - process.dropped() as usize);
    let (numbers, rest) = frames(&bytes);
    assert!(ascending(&numbers) && rest.is_empty());
    process.wait_for("all sent", |process| process.sent() + process.dropped() == 200);
    assert_eq!(numbers.len() as u64, process.sent());
}

/// An absent collector: what the queue holds waits, the oldest beyond it are dropped and counted, and a stop does not wait.
#[test]
fn nobody_listens() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let process = Process::new(&format!("tcp://{address}"));
    process.log(0..5000, 0);
    process.wait_for("a full queue", |process| process.dropped() >= 5000 - MAX_MESSAGES as u64 - 1);
    assert!(process.dropped() <= 5000 - MAX_MESSAGES as u64);
    let start = Instant::now();
    process.syslog.flush(Duration::from_secs(10));
    process.syslog.stop(Duration::from_secs(10));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!((process.sent(), process.dropped()), (0, 5000), "every message is counted");
    process.log(5000..5001, 0);
    assert_eq!(process.dropped(), 5001, "also one logged after the end");
}

/// A collector that accepts and never reads: socket buffers full, queue full, nobody waits; what it got is sound when it reads on.
#[test]
fn tcp_reader_stands_still() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let process = Process::new(&format!("tcp://{}", listener.local_addr().unwrap()));
    let mut stream = accept_after(&process, &listener);
    let mut logged = 1;
    // The kernel's buffers grow to some megabytes on loopback.
    while process.dropped() < 500 {
        process.log(logged..logged + 500, 7000);
        logged += 500;
        thread::sleep(Duration::from_millis(20));
        assert!(logged < 100_000, "the buffers never fill");
    }
    let sent_while_stalled = process.sent();
    assert!(sent_while_stalled < logged - 500);
    let bytes = read_for(&mut stream, |bytes| {
        process.sent() + process.dropped() == logged && {
            let (numbers, rest) = frames(bytes);
            rest.is_empty() && numbers.last() == Some(&(logged - 1))
        }
    });
    let (numbers, rest) = frames(&bytes);
    assert!(ascending(&numbers) && rest.is_empty());
    assert_eq!((numbers.len() as u64, process.sent() + process.dropped()), (process.sent(), logged));
    assert_eq!(numbers.last(), Some(&(logged - 1)), "the newest stay");
}

/// Message 0 makes the writer connect.
fn accept_after(process: &Process, listener: &TcpListener) -> TcpStream {
    process.log(0..1, 0);
    accept(listener)
}

/// A writer that gives a stalled connection up inside a frame sends that frame again, whole, over the next connection.
#[test]
fn a_frame_torn_by_a_reconnect_is_sent_again_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let timing = Timing { stall: Duration::from_millis(300), ..fast() };
    let process = Process::with(&format!("tcp://{}", listener.local_addr().unwrap()), timing);
    let mut old = accept_after(&process, &listener);
    let mut logged = 1;
    // Until the buffers are full and the writer has given the connection up.
    let mut new = loop {
        process.log(logged..logged + 500, 7000);
        logged += 500;
        thread::sleep(Duration::from_millis(20));
        assert!(logged < 200_000, "the buffers never fill");
        if let Some(stream) = try_accept(&listener) {
            break stream;
        }
    };
    let on_old = read_for(&mut old, |_| false);
    let (first, torn) = frames(&on_old);
    assert!(!torn.is_empty(), "the buffers were full inside a frame");
    let on_new = read_for(&mut new, |bytes| frames(bytes).0.last() == Some(&(logged - 1)));
    let (second, rest) = frames(&on_new);
    assert!(rest.is_empty() && ascending(&first) && ascending(&second));
    assert!(
        first.last() < second.first(),
        "the torn frame is the first one of the new connection, and nothing comes twice"
    );
    process.wait_for("all counted", |process| process.sent() + process.dropped() == logged);
    // What the kernel held of the old connection may be lost with it, unseen.
    assert!((first.len() + second.len()) as u64 <= process.sent());
}

#[test]
fn tcp_collector_restarts() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let process = Process::new(&format!("tcp://{address}"));
    process.log(0..10, 0);
    let mut stream = accept(&listener);
    let before = read_for(&mut stream, |bytes| frames(bytes).0.len() == 10);
    assert_eq!(frames(&before).0, (0..10).collect::<Vec<_>>());
    drop((stream, listener));
    // Not one of these is written into the dead connection.
    process.log(10..300, 0);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(process.sent(), 10);
    let listener = TcpListener::bind(address).unwrap();
    let mut stream = accept(&listener);
    let after = read_for(&mut stream, |bytes| frames(bytes).0.len() == 290);
    assert_eq!(frames(&after).0, (10..300).collect::<Vec<_>>());
    process.wait_for("all counted", |process| process.sent() == 300);
    assert_eq!(process.dropped(), 0);
}

/// A collector that takes every connection and closes it is not hammered, though each connection seems a success.
#[test]
fn connections_closed_at_once_are_not_hammered() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let timing =
        Timing { pause_min: Duration::from_millis(100), pause_max: Duration::from_secs(5), ..fast() };
    let process = Process::with(&format!("tcp://{}", listener.local_addr().unwrap()), timing);
    listener.set_nonblocking(true).unwrap();
    let (mut connections, start, mut logged) = (0, Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(2) {
        process.log(logged..logged + 10, 0);
        logged += 10;
        while listener.accept().is_ok() {
            connections += 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
    assert!((2..=12).contains(&connections), "{connections}");
}

#[test]
fn a_talking_collector_is_not_listened_to() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let process = Process::new(&format!("tcp://{}", listener.local_addr().unwrap()));
    let mut stream = accept_after(&process, &listener);
    for round in 0..20 {
        stream.write_all(&[b'x'; 2000]).unwrap();
        process.log(1 + round * 10..11 + round * 10, 0);
        process.syslog.flush(Duration::from_secs(5));
    }
    let bytes = read_for(&mut stream, |bytes| frames(bytes).0.len() == 201);
    assert_eq!(frames(&bytes).0, (0..201).collect::<Vec<_>>());
}

/// A datagram socket whose reader stands still: its short queue fills, then ours; nobody waits.
#[test]
fn unix_datagram_reader_stands_still() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let collector = UnixDatagram::bind(&path).unwrap();
    let process = Process::new(&format!("unixgram://{}", path.display()));
    process.log(0..5000, 100);
    process.wait_for("a full queue", |process| process.dropped() > 1000);
    process.syslog.flush(Duration::from_millis(200));
    let dropped = process.dropped();
    let numbers = receive(&collector, 5000 - dropped as usize);
    assert!(ascending(&numbers));
    assert_eq!(numbers.last(), Some(&4999));
    process.wait_for("all counted", |process| process.sent() + process.dropped() == 5000);
    assert_eq!(process.dropped(), dropped);
}

/// A daemon that starts anew makes another socket under the same path; also while the old one is still open.
#[test]
fn unix_datagram_path_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let process = Process::new(&format!("unixgram://{}", path.display()));
    process.log(0..10, 0);
    thread::sleep(Duration::from_millis(100));
    assert_eq!(process.sent(), 0, "there is no socket yet");
    let old = UnixDatagram::bind(&path).unwrap();
    assert_eq!(receive(&old, 10), (0..10).collect::<Vec<_>>());
    std::fs::remove_file(&path).unwrap();
    let new = UnixDatagram::bind(&path).unwrap();
    process.log(10..20, 0);
    assert_eq!(receive(&new, 10), (10..20).collect::<Vec<_>>());
    drop(new);
    process.log(20..30, 0);
    thread::sleep(Duration::from_millis(100));
    std::fs::remove_file(&path).unwrap();
    let newest = UnixDatagram::bind(&path).unwrap();
    assert_eq!(receive(&newest, 10), (20..30).collect::<Vec<_>>());
    process.wait_for("all counted", |process| process.sent() == 30);
    assert_eq!(process.dropped(), 0);
}

fn lines(listener: &UnixListener, count: usize) -> Vec<u64> {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let complete = |bytes: &[u8]| bytes.split(|byte| *byte == b'\n').count() > count;
    let bytes = read_for(&mut stream, complete);
    assert_eq!(bytes.last(), Some(&b'\n'));
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(number).collect()
}

fn bind(path: &Path) -> UnixListener {
    let _ = std::fs::remove_file(path);
    UnixListener::bind(path).unwrap()
}

#[test]
fn unix_stream_sends_lines_and_follows_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let process = Process::new(&format!("unix://{}", path.display()));
    process.log(0..10, 0);
    thread::sleep(Duration::from_millis(100));
    let collector = bind(&path);
    assert_eq!(lines(&collector, 10), (0..10).collect::<Vec<_>>());
    // It closed behind the tenth line; another one takes the path.
    drop(collector);
    process.log(10..20, 0);
    let collector = bind(&path);
    assert_eq!(lines(&collector, 10), (10..20).collect::<Vec<_>>());
    process.wait_for("all counted", |process| process.sent() == 20);
    assert_eq!(process.dropped(), 0);
}

/// The old collector keeps its connection, but no longer has the path: the next messages go where the path leads.
#[test]
fn unix_stream_leaves_a_collector_whose_path_was_taken() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let old = bind(&path);
    let process = Process::new(&format!("unix://{}", path.display()));
    process.log(0..1, 0);
    let (mut kept, _) = old.accept().unwrap();
    kept.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert_eq!(number(read_for(&mut kept, |bytes| bytes.ends_with(b"\n")).trim_ascii_end()), 0);
    let new = bind(&path);
    thread::sleep(Duration::from_millis(1100));
    process.log(1..11, 0);
    assert_eq!(lines(&new, 10), (1..11).collect::<Vec<_>>());
}

/// A listener whose backlog is full makes connecting wait: for the writer, not for who logs nor for a stop.
#[test]
fn unix_backlog_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let collector = bind(&path);
    rustix::net::listen(&collector, 0).unwrap();
    let _first = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let process = Process::new(&format!("unix://{}", path.display()));
    process.log(0..2000, 0);
    thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    process.syslog.stop(Duration::from_millis(300));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(process.sent(), 0);
}

#[test]
fn a_stop_sends_what_waits() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let process = Process::new(&format!("tcp://{}", listener.local_addr().unwrap()));
    process.log(0..1000, 0);
    process.syslog.stop(Duration::from_secs(10));
    assert_eq!((process.sent(), process.dropped()), (1000, 0));
    let bytes = read_for(&mut accept(&listener), |_| false);
    assert_eq!(frames(&bytes).0, (0..1000).collect::<Vec<_>>());
}

/// A stop while the reader stands still is over in time, and what did not get out is counted.
#[test]
fn a_stop_does_not_wait_for_a_stalled_reader() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let _collector = UnixDatagram::bind(&path).unwrap();
    let process = Process::new(&format!("unixgram://{}", path.display()));
    process.log(0..3000, 0);
    process.wait_for("a stall", |process| process.dropped() > 0);
    let start = Instant::now();
    process.syslog.stop(Duration::from_millis(300));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    process.wait_for("all counted", |process| process.sent() + process.dropped() == 3000);
}

/// Long messages: the bound in bytes is reached before the one in number.
#[test]
fn waiting_bytes_are_bounded() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let process = Process::new(&format!("tcp://{address}"));
    process.log(0..1000, 8000);
    let waiting = 1000 - process.dropped();
    assert!(waiting as usize * 8000 <= MAX_BYTES + 8000, "{waiting}");
    assert!(waiting as usize > MAX_BYTES / 9000, "{waiting}");
}

#[test]
fn the_number_of_targets_is_bounded() {
    let target: Target = "udp://127.0.0.1:9".parse().unwrap();
    let targets = vec![target; MAX_TARGETS + 1];
    let metrics = Arc::new(ProcessMetrics::default());
    let error = start(&targets, Facility::default(), &Identity::default(), &metrics).unwrap_err();
    assert!(error.to_string().contains("at most 8"), "{error}");
}
