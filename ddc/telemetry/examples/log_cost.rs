//! What one log call costs the thread that logs, with syslog on and collectors in every condition.
//!
//! ```text
//! cargo run --release -p ddc-telemetry --example log_cost 2>/dev/null
//! ```
//! Calls come in bursts of 200 with a pause between them, as the proxies log, so that the writers' threads catch up; the pause is
//! not counted. The last line floods without pauses: what does not fit is dropped.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot run should panic")]

use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ddc_telemetry::log::{self, LogFormat, LogLevel};
use ddc_telemetry::syslog::{self, Facility, Target};
use ddc_telemetry::{Identity, ProcessMetrics};
use tracing::Dispatch;
use tracing_subscriber::layer::SubscriberExt as _;

const BURST: u64 = 200;
const BURSTS: u64 = 200;

fn main() {
    let collector = UdpSocket::bind("127.0.0.1:0").unwrap();
    let live = format!("udp://{}", collector.local_addr().unwrap());
    thread::spawn(move || while collector.recv(&mut [0; 4096]).is_ok() {});
    let absent = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let stalled = std::env::temp_dir().join(format!("ddc-log-cost-{}", std::process::id()));
    let _stalled = UnixDatagram::bind(&stalled).unwrap();
    let (absent, stalled) = (format!("tcp://{absent}"), format!("unixgram://{}", stalled.display()));

    with("no target", &[]);
    with("one live target (UDP)", &[&live]);
    with("two live targets (UDP)", &[&live, &live]);
    with("an absent target (TCP), queue full", &[&absent]);
    with("a stalled target (Unix datagram), queue full", &[&stalled]);

    let metrics = Arc::new(ProcessMetrics::default());
    let targets: [Target; 1] = [live.parse().unwrap()];
    let identity = Identity::default();
    let log =
        log::init(&LogLevel::default(), LogFormat::Text, &targets, Facility::default(), &identity, &metrics)
            .unwrap();
    println!("{:>8.0} ns  stderr as text and one live target, as in a proxy", measure(BURSTS));
    println!("{:>8.1} ns  a call below the level", disabled());
    let start = Instant::now();
    burst(1_000_000);
    let each = start.elapsed().as_nanos() as f64 / 1e6;
    let (syslog, stderr) = (metrics.syslog_messages_dropped.value(), metrics.log_lines_dropped.value());
    println!(
        "{each:>8.0} ns  the same without a pause: dropped of 1,000,000: {syslog} messages, {stderr} lines"
    );
    drop(log);
    let _ = std::fs::remove_file(stalled.trim_start_matches("unixgram://"));
}

fn with(what: &str, targets: &[&str]) {
    let targets: Vec<Target> = targets.iter().map(|target| target.parse().unwrap()).collect();
    let metrics = Arc::new(ProcessMetrics::default());
    let (layer, _syslog) =
        syslog::start(&targets, Facility::default(), &Identity::default(), &metrics).unwrap();
    let dispatch = Dispatch::new(tracing_subscriber::registry().with(layer));
    let cost = tracing::dispatcher::with_default(&dispatch, || {
        burst(5000);
        measure(BURSTS)
    });
    println!("{cost:>8.0} ns  {what}");
}

/// Nanoseconds per call.
fn measure(bursts: u64) -> f64 {
    let mut spent = Duration::ZERO;
    for _ in 0..bursts {
        let start = Instant::now();
        burst(BURST);
        spent += start.elapsed();
        thread::sleep(Duration::from_millis(5));
    }
    spent.as_nanos() as f64 / (bursts * BURST) as f64
}

fn burst(calls: u64) {
    for offset in 0..calls {
        tracing::warn!(link = "plant-a", topic = "orders", partition = 3, offset, "records are missing");
    }
}

fn disabled() -> f64 {
    let start = Instant::now();
    for offset in 0..1_000_000 {
        tracing::debug!(link = "plant-a", offset, "not wanted");
    }
    start.elapsed().as_nanos() as f64 / 1e6
}
