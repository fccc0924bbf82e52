//! The reporter over real sockets: collectors that are there, absent, refusing, slow; one link and hundreds.
#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ddc_telemetry::statsd::{DATAGRAM, Reporter};
use ddc_telemetry::{ProcessMetrics, Registry};

/// A collector that keeps every datagram.
struct Collector {
    socket: UdpSocket,
}

impl Collector {
    fn bind(address: &str) -> Self {
        let socket = UdpSocket::bind(address).expect("a free port on loopback");
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        Self { socket }
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// Everything that comes until `done` or until it is silent after that; fails when nothing is done within the time.
    fn read_until(&self, done: impl Fn() -> bool) -> Vec<String> {
        let began = Instant::now();
        let mut datagrams = Vec::new();
        let mut buffer = vec![0; 65_536];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(len) => {
                    assert!(len <= DATAGRAM, "a datagram of {len} bytes");
                    datagrams.push(String::from_utf8(buffer[..len].to_vec()).unwrap());
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if done() {
                        return datagrams;
                    }
                }
                Err(error) => panic!("{error}"),
            }
            assert!(began.elapsed() < Duration::from_mins(1), "the reporter is not done");
        }
    }
}

/// Lines of datagrams; each ends with a newline, so that a collector may join them.
fn lines(datagrams: &[String]) -> Vec<&str> {
    assert!(datagrams.iter().all(|datagram| datagram.ends_with('\n') && !datagram.contains('\r')));
    datagrams.iter().flat_map(|datagram| datagram.lines()).collect()
}

/// Sums of all counter lines, by what stands before and after the value.
fn counters(datagrams: &[String]) -> BTreeMap<String, (f64, usize)> {
    let mut sums = BTreeMap::<_, (f64, usize)>::new();
    for line in lines(datagrams) {
        let (name, body) = line.split_once(':').unwrap();
        let (value, rest) = body.split_once('|').unwrap();
        if let Some(tags) = rest.strip_prefix("c|") {
            let sum = sums.entry(format!("{name}|{tags}")).or_default();
            sum.0 += value.parse::<f64>().unwrap();
            sum.1 += 1;
        }
    }
    sums
}

const PACKETS: &str = "ddc.egress.packets_received|#link:a,side:egress";

fn sent(process: &ProcessMetrics) -> (u64, u64) {
    (process.statsd_datagrams_sent.value(), process.statsd_datagrams_dropped.value())
}

#[test]
fn each_collector_gets_everything_and_the_stop_sends_the_rest() {
    let registry = Registry::default();
    let egress = registry.egress("a").unwrap();
    let (one, two) = (Collector::bind("127.0.0.1:0"), Collector::bind("[::1]:0"));
    let reporter = Reporter::start(registry.clone(), vec![one.address(), two.address()]).unwrap();
    let process = registry.process();
    while process.statsd_datagrams_sent.value() == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    egress.packets_received.add(40);
    std::thread::sleep(Duration::from_millis(1_500));
    egress.packets_received.add(2);
    let stopping = Instant::now();
    reporter.stop();
    assert!(stopping.elapsed() < Duration::from_millis(500), "{:?}", stopping.elapsed());

    for collector in [one, two] {
        let datagrams = collector.read_until(|| true);
        let counters = counters(&datagrams);
        let (sum, times) = counters[PACKETS];
        assert!((sum - 42.0).abs() < f64::EPSILON, "{sum}");
        assert!((3..=4).contains(&times), "flushed at once, each second and at the end, not {times} times");
        let first = lines(&datagrams)
            .into_iter()
            .find(|line| line.starts_with("ddc.egress.packets_received:"))
            .unwrap()
            .to_owned();
        assert_eq!(first, "ddc.egress.packets_received:0|c|#link:a,side:egress", "a counter begins with 0");
        let (_, all) = counters["ddc.process_ticks|#process:test"];
        assert_eq!(all, times, "what did not change is repeated");
    }
    assert_eq!(process.statsd_datagrams_dropped.value(), 0);
    let all = process.statsd_datagrams_sent.value();
    std::thread::sleep(Duration::from_millis(1_200));
    assert_eq!(process.statsd_datagrams_sent.value(), all, "nothing is sent after the stop");
}

/// Nobody listens at first: that is counted and costs no time; another collector misses nothing; who comes later gets what is new.
#[test]
fn a_collector_that_refuses_is_counted_and_may_come_later() {
    let registry = Registry::default();
    let egress = registry.egress("a").unwrap();
    let absent = Collector::bind("127.0.0.1:0").address();
    let present = Collector::bind("127.0.0.1:0");
    let reporter = Reporter::start(registry.clone(), vec![absent, present.address()]).unwrap();
    egress.packets_received.add(7);
    std::thread::sleep(Duration::from_millis(2_300));
    let (_, dropped) = sent(registry.process());
    assert!(dropped > 0, "what was refused is counted");

    let late = Collector::bind(&absent.to_string());
    std::thread::sleep(Duration::from_millis(1_200));
    egress.packets_received.add(5);
    reporter.stop();
    let heard = counters(&late.read_until(|| true));
    assert!(
        heard[PACKETS].0 >= 5.0 && heard[PACKETS].0 < 12.0,
        "{:?}: what is new, not what is old",
        heard[PACKETS]
    );
    let heard = present.read_until(|| true);
    assert!((counters(&heard)[PACKETS].0 - 12.0).abs() < f64::EPSILON);

    let (sent, dropped) = sent(registry.process());
    assert!(dropped < sent, "{dropped} of {sent}");
    // Three flushes were refused, each datagram of them counted once, one flush more or less.
    let flush = heard.len() as u64 / counters(&heard)[PACKETS].1 as u64;
    assert!((flush..=5 * flush).contains(&dropped), "{dropped} dropped, {flush} in a flush");
}

/// A collector that never reads: the kernel drops, the reporter goes on and stops at once.
#[test]
fn a_collector_that_does_not_read_slows_nothing() {
    let registry = Registry::default();
    for n in 0..64 {
        registry.egress(&format!("link-{n}")).unwrap();
    }
    let deaf = Collector::bind("127.0.0.1:0");
    let began = Instant::now();
    let reporter = Reporter::start(registry.clone(), vec![deaf.address(); 4]).unwrap();
    std::thread::sleep(Duration::from_millis(2_500));
    reporter.stop();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(sent(registry.process()).0 > 1_000, "{:?}", sent(registry.process()));
}

#[test]
fn no_route_is_counted_and_not_fatal() {
    let registry = Registry::default();
    registry.egress("a").unwrap();
    // The address of documentation networks with the port that nobody may send to.
    let nowhere: SocketAddr = "[2001:db8::1]:1".parse().unwrap();
    let reporter = Reporter::start(registry.clone(), vec![nowhere, "127.0.0.1:0".parse().unwrap()]).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    reporter.stop();
    assert!(sent(registry.process()).1 >= 2, "{:?}", sent(registry.process()));
}

#[test]
fn without_targets_there_is_nothing_to_do() {
    let registry = Registry::default();
    Reporter::start(registry.clone(), Vec::new()).unwrap().stop();
    assert_eq!(sent(registry.process()), (0, 0));
}

/// 200 links, both sides, every metric: all lines of every flush arrive through a receive buffer of the usual size, no datagram is
/// too large, and a flush fits its second.
#[test]
fn hundreds_of_links_arrive_whole() {
    let registry = Registry::default();
    for n in 0..200 {
        let link = format!("a-link-with-a-longer-name-{n}");
        let ingress = registry.ingress(&link).unwrap();
        ingress.consumer_lag.set_all([("orders", 1.0), ("invoices", 2.0)]);
        let egress = registry.egress(&link).unwrap();
        egress.clock_difference_seconds.set(-0.25);
        for micros in [50, 800, 3_000, 40_000, 2_000_000] {
            egress.sink_latency_seconds.observe(Duration::from_micros(micros));
        }
    }
    // A reader that a busy machine does not run for long loses datagrams whatever the sender does: so there are three attempts.
    let whole = (0..3).find_map(|_| {
        let before = sent(registry.process());
        let datagrams = send_and_read(&registry);
        let after = sent(registry.process());
        assert_eq!(after.1, 0, "the kernel took all");
        let missing = after.0 - before.0 - datagrams.len() as u64;
        println!("{missing} of {} datagrams were lost", after.0 - before.0);
        (missing == 0).then_some(datagrams)
    });
    let datagrams = whole.expect("what was sent has arrived");
    let counters = counters(&datagrams);
    let (_, flushes) = counters["ddc.process_ticks|#process:test"];
    assert!((3..=4).contains(&flushes), "{flushes} flushes in 2.6 s and one at the end");
    assert!(counters.values().all(|(_, times)| *times == flushes), "each series is in each flush");
    assert_eq!(counters.keys().filter(|key| key.starts_with("ddc.ingress.packets_sent|")).count(), 200);
    let (datagrams, lines) = (datagrams.len() / flushes, lines(&datagrams).len() / flushes);
    println!("{datagrams} datagrams, {lines} lines in each of {flushes} flushes");
}

fn send_and_read(registry: &Registry) -> Vec<String> {
    let collector = Collector::bind("127.0.0.1:0");
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| collector.read_until(|| ended.load(Relaxed)));
        let reporter = Reporter::start(registry.clone(), vec![collector.address()]).unwrap();
        std::thread::sleep(Duration::from_millis(2_600));
        let stopping = Instant::now();
        reporter.stop();
        assert!(stopping.elapsed() < Duration::from_secs(3), "{:?}", stopping.elapsed());
        ended.store(true, Relaxed);
        reading.join().unwrap()
    })
}
