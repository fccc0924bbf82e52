//! A destination that is away for a minute while records go on coming: how fast the spool is emptied when it is back.
//!
//! Records of 1000 random bytes come at 20 MB/s all the time, also while the spool is emptied. The destination is a broker of
//! its own, killed with SIGKILL and started again on its data. Time counts from its first answer.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use ddc_e2e::broker::free_block;
use ddc_e2e::cluster::Cluster;

use crate::Options;
use crate::load::{self, PARTITIONS};
use crate::pair::{Pair, Plan};
use crate::table::Table;
use crate::throughput::records_in;

const TOPIC: &str = "measure-outage";
const VALUE: usize = 1000;
/// Records per second: 20 MB/s.
const ARRIVAL: u64 = 20_000;
/// Records that come at once, each millisecond.
const BURST: u64 = ARRIVAL / 1000;
const AWAY: Duration = Duration::from_mins(1);
/// Before the destination goes, so that everything flows.
const WARM: Duration = Duration::from_secs(8);
/// The spool counts as empty when no more waits than what comes in this time.
const CAUGHT_UP: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const TELL_EVERY: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_mins(5);

/// Measures and reports.
pub(crate) fn measure(options: &Options, table: &mut Table) {
    let source = Cluster::new(&options.source);
    if source.partitions(TOPIC).is_some() {
        source.delete(TOPIC);
    }
    source.create(TOPIC, PARTITIONS, &[("retention.ms", "-1")]);
    let destination = Broker::start(options);
    let away = Cluster::new(&destination.address);
    away.create(&format!("away-{TOPIC}"), PARTITIONS, &[("retention.ms", "-1")]);
    let mut pair = Pair::start(
        options,
        &Plan {
            name: "away",
            source: &options.source,
            destination: &destination.address,
            topic: TOPIC,
            start_at: "earliest",
            rate: &options.rate,
            linger: "5ms",
            buffer: "64MiB",
            delivery: "exactly_once",
            collector: None,
        },
    );
    pair.start_ingress();
    pair.ingress().wait("the ingress is ready", || pair.ingress().is_ready());
    let load = Load::start(&options.source);
    let delivered = || pair.egress.metric("ddc_egress_records_delivered_total");
    thread::sleep(WARM);
    destination.kill();
    eprintln!("measure: destination away after {} records", delivered());
    thread::sleep(AWAY);
    let waiting = pair.egress.metric("ddc_egress_spool_bytes");
    destination.run();
    let (back, before) = (Instant::now(), delivered());
    eprintln!("measure: destination back; {:.0} MB wait in the spool", waiting / 1e6);
    let enough = ARRIVAL as f64 * CAUGHT_UP.as_secs_f64();
    let mut told = (back, before);
    while load.sent() as f64 - delivered() > enough {
        assert!(back.elapsed() < LONGEST, "the spool is not empty; the egress says:\n{}", pair.egress.log());
        thread::sleep(LOOK_EVERY);
        if told.0.elapsed() >= TELL_EVERY {
            let now = (Instant::now(), delivered());
            let rate = (now.1 - told.1) * VALUE as f64 / (now.0 - told.0).as_secs_f64() / 1e6;
            eprintln!("measure: back since {:.0} s, {rate:.0} MB/s", back.elapsed().as_secs_f64());
            told = now;
        }
    }
    let (seconds, drained) = (back.elapsed().as_secs_f64(), delivered() - before);
    let sent = load.end();
    pair.egress.wait("everything is delivered", || delivered() >= sent as f64);
    assert_eq!(
        records_in(&destination.address, &format!("away-{TOPIC}")),
        sent,
        "records at the destination"
    );
    let rate = drained * VALUE as f64 / seconds / 1e6;
    let arrival = ARRIVAL as f64 * VALUE as f64 / 1e6;
    table.ratio(
        "destination away 60 s at 20 MB/s, nothing lost: rate of delivery until caught up ÷ rate of arrival (goal: ≥ 3)",
        rate / arrival,
    );
    table.figure(
        "the same: rate of delivery; time; most memory of the egress",
        format!("{rate:.0} MB/s; {seconds:.1} s; {:.0} MiB", pair.egress.mib("VmHWM")),
    );
    drop(pair);
    source.delete(TOPIC);
}

/// Produces at a constant rate until it is ended.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: thread::JoinHandle<()>,
}

impl Load {
    fn start(brokers: &str) -> Load {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (brokers, stopped, count) = (brokers.to_owned(), Arc::clone(&stop), Arc::clone(&sent));
        let thread = thread::spawn(move || {
            let begin = Instant::now();
            let due = |sent: u64| begin + Duration::from_micros(sent * 1_000_000 / ARRIVAL);
            load::pour(&brokers, TOPIC, VALUE, |index| {
                count.store(index, Relaxed);
                // A sleep for each record would cost more than the record.
                if index % BURST == 0 {
                    thread::sleep(due(index).saturating_duration_since(Instant::now()));
                }
                !stopped.load(Relaxed)
            });
        });
        Load { stop, sent, thread }
    }

    fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// How many there are in the end.
    fn end(self) -> u64 {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap();
        self.sent.load(Relaxed)
    }
}

/// The destination; killed when dropped.
struct Broker {
    address: String,
    version: String,
    port: u16,
    directory: tempfile::TempDir,
}

impl Broker {
    fn start(options: &Options) -> Broker {
        let home = options.kafka_home.file_name().unwrap().to_string_lossy().into_owned();
        let version = home.trim_start_matches("kafka-").to_owned();
        let port = free_block(2);
        let directory = tempfile::tempdir().unwrap();
        let broker = Broker { address: format!("127.0.0.1:{port}"), version, port, directory };
        broker.run();
        broker
    }

    /// Starts it and waits until it answers.
    fn run(&self) {
        self.script(&["start", NAME, &self.version, &self.port.to_string()]);
    }

    fn kill(&self) {
        self.script(&["kill", NAME]);
    }

    fn script(&self, arguments: &[&str]) {
        let script: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kafka-dev/kafka.sh");
        let done =
            Command::new(script).args(arguments).arg("--dir").arg(self.directory.path()).output().unwrap();
        assert!(done.status.success(), "kafka.sh {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

const NAME: &str = "measure-away";

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}
