//! Streams of UDP datagrams from end to end, over real sockets and threads: every datagram that is sent is delivered as it
//! was, or counted, with the reason, where it was lost.
//!
//! ```text
//!  test ─▶ ingress (source.udp) ─▶ Relay (loses some) ─▶ egress (sink.udp) ─▶ Receiver per stream
//! ```
#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ddc_proxy::config::{Config, EgressConfig, IngressConfig, Sink, Source};
use ddc_proxy::egress::{self, Egress};
use ddc_proxy::ingress::{self, Ingress};
use ddc_telemetry::Registry;
use ddc_telemetry::notify::Watchdog;
use ddc_telemetry::reasons::{KafkaErrorReason, MissingReason, SourceDropReason, Thread};
use ddc_udp::{ReceiveBatch, ReceiverOptions, ReceiverSocket, SenderOptions, SenderSocket};

const PATIENCE: Duration = Duration::from_mins(1);
/// What no test needs to wait for longer: that nothing more comes.
const QUIET: Duration = Duration::from_millis(300);

/// A socket whose datagrams are kept, in order.
struct Receiver {
    address: SocketAddr,
    kept: Arc<Mutex<Vec<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    fn open() -> Self {
        Self::open_at("127.0.0.1:0".parse().unwrap())
    }

    fn open_at(address: SocketAddr) -> Self {
        let mut socket = ReceiverSocket::open(&ReceiverOptions::new(address)).unwrap();
        let (kept, stop) = (Arc::<Mutex<Vec<Vec<u8>>>>::default(), Arc::<AtomicBool>::default());
        let (keep, stopping, address) = (Arc::clone(&kept), Arc::clone(&stop), socket.local_addr());
        let thread = thread::spawn(move || {
            let mut batch = ReceiveBatch::with_room(65_536);
            while !stopping.load(Ordering::Relaxed) {
                socket.receive(&mut batch, Duration::from_millis(20)).unwrap();
                keep.lock().unwrap().extend(batch.datagrams().map(|datagram| datagram.bytes.to_vec()));
            }
            assert_eq!(socket.socket_drops(), 0, "the test's own socket was too slow");
        });
        Self { address, kept, stop, thread: Some(thread) }
    }

    fn count(&self) -> usize {
        self.kept.lock().unwrap().len()
    }

    #[track_caller]
    fn wait_for(&self, count: usize) {
        wait(&format!("{count} datagrams"), || self.count() >= count);
    }

    fn close(mut self) -> Vec<Vec<u8>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        std::mem::take(&mut self.kept.lock().unwrap())
    }
}

/// The diode: passes datagrams on, and loses one in so many.
struct Relay {
    address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
    lost: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    fn open(target: SocketAddr, lose_one_in: Option<u64>) -> Self {
        let mut socket = ReceiverSocket::open(&ReceiverOptions::new("127.0.0.1:0".parse().unwrap())).unwrap();
        let address = socket.local_addr();
        let (target, lost, stop) =
            (Arc::new(Mutex::new(target)), Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (to, losing, stopping) = (Arc::clone(&target), Arc::clone(&lost), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut batch = ReceiveBatch::new();
            let mut state = 0x9E37_79B9_7F4A_7C15_u64;
            let mut out: Option<SenderSocket> = None;
            while !stopping.load(Ordering::Relaxed) {
                socket.receive(&mut batch, Duration::from_millis(20)).unwrap();
                let target = *to.lock().unwrap();
                if out.as_ref().is_none_or(|out| out.target() != target) {
                    out = Some(SenderSocket::open(&SenderOptions::new(target)).unwrap());
                }
                let passed: Vec<&[u8]> = batch
                    .datagrams()
                    .map(|datagram| &*datagram.bytes)
                    .filter(|_| {
                        state ^= state << 13;
                        state ^= state >> 7;
                        state ^= state << 17;
                        let lose = lose_one_in.is_some_and(|one_in| state.is_multiple_of(one_in));
                        losing.fetch_add(u64::from(lose), Ordering::Relaxed);
                        !lose
                    })
                    .collect();
                let mut left = &passed[..];
                while !left.is_empty() {
                    // Nobody there: lost, as on a diode.
                    let sent = out.as_ref().unwrap().send(left).unwrap_or(left.len());
                    left = &left[sent..];
                }
            }
            assert_eq!(socket.socket_drops(), 0, "the test's own relay was too slow");
        });
        Self { address, target, lost, stop, thread: Some(thread) }
    }

    fn lead_to(&self, target: SocketAddr) {
        *self.target.lock().unwrap() = target;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking(), "the relay failed");
    }
}

fn key(directory: &Path) -> String {
    let path = directory.join("key");
    if !path.exists() {
        let mut file =
            std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path).unwrap();
        writeln!(file, "{}", "5a".repeat(32)).unwrap();
    }
    path.display().to_string()
}

/// Streams `a` and `b` on ports that the kernel chooses.
fn ingress_config(directory: &Path, target: SocketAddr, link: &str, source: &str) -> IngressConfig {
    let text = format!(
        "[link]\nname = \"t\"\nid = 1\ntarget = \"{target}\"\nstate_dir = \"{0}/ingress\"\n{link}\n\
         [[link.keys]]\nid = 1\nfile = \"{1}\"\n[source.udp]\n{source}\n\
         streams = {{ a = \"127.0.0.1:9\", b = \"127.0.0.1:10\" }}\n",
        directory.display(),
        key(directory),
    );
    let loaded = ddc_proxy::config::parse(&directory.join("ingress.toml"), &text, None, &|_| None).unwrap();
    let Config::Ingress(mut config) = loaded.config else { panic!("an ingress") };
    let Source::Udp(source) = &mut config.source else { panic!("UDP") };
    for stream in &mut source.streams {
        stream.address.set_port(0);
    }
    config
}

fn egress_config(directory: &Path, streams: &[(&str, SocketAddr)], sink: &str) -> EgressConfig {
    let streams: Vec<String> =
        streams.iter().map(|(name, address)| format!("{name} = \"{address}\"")).collect();
    let text = format!(
        "[link]\nname = \"t\"\nid = 1\nlisten = \"127.0.0.1:7401\"\nstate_dir = \"{0}/egress\"\n\
         [[link.keys]]\nid = 1\nfile = \"{1}\"\n[sink.udp]\nstreams = {{ {2} }}\n{sink}\n",
        directory.display(),
        key(directory),
        streams.join(", "),
    );
    let loaded = ddc_proxy::config::parse(&directory.join("egress.toml"), &text, None, &|_| None).unwrap();
    let Config::Egress(mut config) = loaded.config else { panic!("an egress") };
    assert!(matches!(config.sink, Sink::Udp(_)));
    config.listen = "127.0.0.1:0".parse().unwrap();
    config
}

fn start_ingress(config: IngressConfig) -> (Ingress, Vec<SocketAddr>) {
    let options = ingress::Options { registry: Registry::default(), watchdog: Watchdog::new(None) };
    let ingress = ingress::start(config, &options).unwrap();
    let mut addresses = Vec::new();
    wait("the streams", || {
        let status = ddc_proxy::admin::AdminState::status(&ingress.view());
        let listen = |name: &str| status["notes"]["streams"][name]["listen"].as_str()?.parse().ok();
        addresses = ["a", "b"].iter().filter_map(|name| listen(name)).collect();
        addresses.len() == 2
    });
    (ingress, addresses)
}

fn start_egress(config: EgressConfig) -> Egress {
    egress::start(config, &egress::Options { registry: Registry::default(), watchdog: Watchdog::new(None) })
        .unwrap()
}

#[track_caller]
fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// What no compression makes smaller, different for each number.
fn noise(number: u64, length: usize) -> Vec<u8> {
    let mut state = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(next).collect()
}

fn drops(ingress: &Ingress) -> [u64; 3] {
    let drops = &ingress.metrics().source_drops;
    [SourceDropReason::TooLarge, SourceDropReason::BufferFull, SourceDropReason::Kernel]
        .map(|reason| drops.value(reason))
}

/// Both sides run, all is still: everything that was packed is settled.
fn settled(ingress: &Ingress, egress: &Egress) -> bool {
    let packed = ingress.metrics().records_packed.value();
    egress.metrics().records_delivered.value() + egress.metrics().records_missing.total() >= packed
}

#[test]
fn boundaries_and_order_hold_over_two_streams_and_loss_is_repaired() {
    const COUNT: u64 = 20_000;
    let directory = tempfile::tempdir().unwrap();
    let receivers = [Receiver::open(), Receiver::open()];
    let targets = [("a", receivers[0].address), ("b", receivers[1].address)];
    let egress = start_egress(egress_config(directory.path(), &targets, ""));
    let relay = Relay::open(egress.view().local_addr(), Some(100));
    let (ingress, streams) =
        start_ingress(ingress_config(directory.path(), relay.address, "rate = \"600Mbit/s\"", ""));

    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut sent = [Vec::new(), Vec::new()];
    let mut oversize = 0;
    for number in 0..COUNT {
        let which = (number % 2) as usize;
        // Every length from nothing to the bound, both ends often.
        let length = match number % 10 {
            0 => 0,
            1 => 8192,
            _ => (number.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40) as usize % 8193,
        };
        let datagram = noise(number, length);
        socket.send_to(&datagram, streams[which]).unwrap();
        sent[which].push(datagram);
        if number % 1000 == 500 {
            socket.send_to(&noise(number, 8193), streams[which]).unwrap();
            oversize += 1;
        }
        // Some 250 Mbit/s, which small machines carry in a debug build.
        if number.is_multiple_of(16) {
            thread::sleep(Duration::from_millis(2));
        }
    }
    wait("everything is settled", || {
        settled(&ingress, &egress) && ingress.metrics().records_packed.value() == COUNT
    });
    thread::sleep(QUIET);
    assert_eq!(drops(&ingress), [oversize, 0, 0]);
    assert!(ingress.metrics().common.thread_cpu_seconds.value(Thread::Source) > Duration::ZERO);
    assert_eq!(ingress.metrics().records_read.value(), COUNT + oversize);
    let (lost, repaired) = (relay.lost.load(Ordering::Relaxed), egress.metrics().symbols_repaired.value());
    println!("          {lost} link datagrams lost, {repaired} symbols repaired");
    assert!(lost > 300 && repaired > 100, "{lost} lost, {repaired} repaired: the test proves little");
    assert!(ingress.join());
    let summary = egress.join();
    assert!(summary.sound && summary.drained, "{summary:?}");
    assert_eq!((summary.records_delivered, summary.records_missing), (COUNT, 0));
    for (receiver, sent) in receivers.into_iter().zip(sent) {
        let received = receiver.close();
        assert_eq!(received.len(), sent.len());
        let wrong = received.iter().zip(&sent).position(|(received, sent)| received != sent);
        assert_eq!(wrong, None, "the first datagram that is not as it was sent");
    }
}

#[test]
fn an_absent_target_and_an_unknown_stream_are_counted_and_hold_up_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let egress = start_egress(egress_config(directory.path(), &[("a", closed)], ""));
    let relay = Relay::open(egress.view().local_addr(), None);
    let (ingress, streams) = start_ingress(ingress_config(directory.path(), relay.address, "", ""));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let send = |which: usize, count: u64| {
        for number in 0..count {
            socket.send_to(&noise(number, 300), streams[which]).unwrap();
        }
    };
    let metrics = Arc::clone(egress.metrics());
    let refused = || metrics.records_missing.value(MissingReason::Refused);

    send(0, 500);
    wait("refusals", || refused() == 500);
    assert_eq!(metrics.records_delivered.value(), 0);
    assert_eq!(metrics.sink_errors.value(KafkaErrorReason::Connection), 500);
    let named = format!("nobody listens on {closed}");
    wait("the reason", || egress.view().ready().is_err_and(|why| why.iter().any(|why| why.contains(&named))));
    // Neighbours are one range, however many batches they came in.
    assert!(egress.view().missing().len() <= 5, "{:?}", egress.view().missing());

    send(1, 300);
    wait("what is not named is refused", || refused() == 800);
    assert!(metrics.sink_errors.value(KafkaErrorReason::UnknownTopic) > 0);
    let missing = egress.view().missing();
    assert!(
        missing.iter().any(|range| range.partition.topic == "b" && range.reason == "refused"),
        "{missing:?}"
    );

    let receiver = Receiver::open_at(closed);
    send(0, 200);
    receiver.wait_for(200);
    wait("the trouble is over", || egress.view().ready().is_ok());
    let status = egress.view().status();
    assert_eq!(status["sink"]["streams"]["a"], closed.to_string());
    assert!(ingress.join());
    let summary = egress.join();
    assert_eq!((summary.records_delivered, summary.records_missing), (200, 800));
    assert_eq!(receiver.close().len(), 200, "nothing that was refused comes after all");
}

#[test]
fn a_restart_of_the_egress_names_exactly_what_came_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let receivers = [Receiver::open(), Receiver::open()];
    let targets = [("a", receivers[0].address), ("b", receivers[1].address)];
    let egress = start_egress(egress_config(directory.path(), &targets, ""));
    let relay = Relay::open(egress.view().local_addr(), None);
    let (ingress, streams) = start_ingress(ingress_config(directory.path(), relay.address, "", ""));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let send = |which: usize, count: u64| {
        for number in 0..count {
            socket.send_to(&noise(number, 100), streams[which]).unwrap();
        }
        let all = ingress.metrics().records_packed.value();
        wait("all is sent", || ingress.metrics().records_sent.value() >= all.max(count));
    };
    send(0, 100);
    send(1, 10);
    receivers[0].wait_for(100);
    receivers[1].wait_for(10);
    assert_eq!(egress.join().records_missing, 0);

    // Nobody is there, then somebody is again.
    let before = ingress.metrics().records_packed.value();
    for number in 0..50 {
        socket.send_to(&noise(number, 100), streams[0]).unwrap();
    }
    wait("sent into the void", || ingress.metrics().records_sent.value() == before + 50);
    thread::sleep(QUIET);
    let egress = start_egress(egress_config(directory.path(), &targets, ""));
    relay.lead_to(egress.view().local_addr());
    send(0, 100);
    send(1, 10);
    receivers[0].wait_for(200);
    receivers[1].wait_for(20);
    wait("the hole is named", || egress.metrics().records_missing.total() > 0);
    assert_eq!(egress.metrics().records_missing.value(MissingReason::Restart), 50);
    assert_eq!(egress.metrics().records_missing.total(), 50);
    let missing = egress.view().missing();
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert_eq!((missing[0].partition.topic.as_str(), missing[0].first, missing[0].last), ("a", 100, 149));
    egress.join();

    // A restart without loss names nothing.
    let egress = start_egress(egress_config(directory.path(), &targets, ""));
    relay.lead_to(egress.view().local_addr());
    send(0, 5);
    receivers[0].wait_for(205);
    assert!(ingress.join());
    let summary = egress.join();
    assert_eq!((summary.records_delivered, summary.records_missing), (5, 0));
}

#[test]
fn a_new_life_of_the_ingress_goes_on_and_nothing_is_taken_for_a_repetition() {
    let directory = tempfile::tempdir().unwrap();
    let receivers = [Receiver::open(), Receiver::open()];
    let targets = [("a", receivers[0].address), ("b", receivers[1].address)];
    let egress = start_egress(egress_config(directory.path(), &targets, ""));
    let relay = Relay::open(egress.view().local_addr(), None);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for life in 1..=3 {
        let (ingress, streams) = start_ingress(ingress_config(directory.path(), relay.address, "", ""));
        for number in 0..40 {
            socket.send_to(&noise(number, 200), streams[0]).unwrap();
        }
        // Not waited for: a stop takes what waits in the kernel, packs and sends it.
        assert!(ingress.join());
        receivers[0].wait_for(life * 40);
    }
    thread::sleep(QUIET);
    assert_eq!(egress.metrics().records_duplicate.value(), 0);
    let summary = egress.join();
    assert_eq!((summary.records_delivered, summary.records_missing), (120, 0));
    let [a, b] = receivers;
    let life: Vec<Vec<u8>> = (0..40).map(|number| noise(number, 200)).collect();
    assert_eq!(a.close(), [&life[..], &life[..], &life[..]].concat());
    assert_eq!(b.close(), Vec::<Vec<u8>>::new());
}

/// More than the link carries: memory stays bounded, and every datagram is delivered or counted.
#[test]
fn a_flood_is_bounded_and_every_datagram_is_accounted_for() {
    const COUNT: u64 = 60_000;
    const BUFFER: i64 = 1 << 20;
    let directory = tempfile::tempdir().unwrap();
    let receivers = [Receiver::open(), Receiver::open()];
    let targets = [("a", receivers[0].address), ("b", receivers[1].address)];
    let egress = start_egress(egress_config(directory.path(), &targets, ""));
    let relay = Relay::open(egress.view().local_addr(), None);
    // Uncompressed, since the flood is one datagram again and again.
    let link = "rate = \"20Mbit/s\"\nbuffer = \"1MiB\"\npack.compression = \"none\"";
    let (ingress, streams) = start_ingress(ingress_config(directory.path(), relay.address, link, ""));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let datagram = noise(1, 1000);
    let mut most = 0;
    let begun = Instant::now();
    for number in 0..COUNT {
        socket.send_to(&datagram, streams[(number % 2) as usize]).unwrap();
        most = most.max(ingress.metrics().queue_bytes.value());
    }
    let flood = begun.elapsed();
    let accounted = || {
        let dropped: u64 = drops(&ingress).iter().sum();
        dropped + egress.metrics().records_delivered.value() + egress.metrics().records_missing.total()
    };
    wait("every datagram is accounted for", || accounted() == COUNT);
    thread::sleep(Duration::from_secs(1));
    assert_eq!(accounted(), COUNT, "and stays so");
    let [too_large, full, kernel] = drops(&ingress);
    let delivered = egress.metrics().records_delivered.value();
    println!(
        "          {COUNT} in {flood:?}: {delivered} delivered, {full} buffer_full, {kernel} kernel; most queued {most}"
    );
    assert_eq!(too_large, 0);
    assert!(full > 1000, "the buffer must have been full: {full}");
    assert!(most > BUFFER / 2 && most <= BUFFER, "{most} bytes were queued");
    assert!(delivered > 500, "what fits is carried: {delivered}");
    assert_eq!(egress.metrics().records_missing.total(), 0, "nothing is lost behind the bound");
    // It has recovered: what comes now is carried.
    let before = [receivers[0].count(), receivers[1].count()];
    socket.send_to(b"after the flood", streams[1]).unwrap();
    receivers[1].wait_for(before[1] + 1);
    assert!(ingress.join() && egress.join().drained);
    let [a, b] = receivers;
    assert_eq!(b.close().last().unwrap(), b"after the flood");
    assert!(a.close().iter().all(|received| *received == datagram));
}
