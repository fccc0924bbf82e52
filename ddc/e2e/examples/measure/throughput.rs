//! Records per second from broker to broker, and CPU time per million records of every process on the way.

use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ddc_e2e::cluster::Cluster;

use crate::Options;
use crate::load::{self, PARTITIONS};
use crate::pair::{Pair, Plan};
use crate::table::{Table, median, thousands};

const TOPIC: &str = "measure";
/// Between two looks at what the egress has delivered; a round takes seconds.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Records that have not come after so long of nothing were lost.
const SILENCE: Duration = Duration::from_secs(15);

/// One round's figures.
#[derive(Default)]
struct Rounds {
    bare_rate: Vec<f64>,
    bare_cpu: Vec<f64>,
    rate: Vec<f64>,
    ingress_cpu: Vec<f64>,
    egress_cpu: Vec<f64>,
    telemetry: Vec<f64>,
    memory: Vec<(f64, f64)>,
}

/// Takes what the proxies tell, so that it costs what it costs with a collector.
struct Collector {
    address: SocketAddr,
    received: Arc<AtomicU64>,
}

impl Collector {
    fn start() -> Collector {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let received = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&received);
        // Ends with the process: it only waits.
        std::thread::spawn(move || {
            let mut datagram = [0; 2048];
            while socket.recv(&mut datagram).is_ok() {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        Collector { address, received }
    }

    fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// Fills the source, then measures both ways, round by round.
pub(crate) fn measure(options: &Options, table: &mut Table) {
    let (source, destination) = (Cluster::new(&options.source), Cluster::new(&options.destination));
    // A run that was ended leaves topics behind.
    for cluster in [&source, &destination] {
        remove_leftovers(cluster);
    }
    source.create(TOPIC, PARTITIONS, &[("retention.ms", "-1")]);
    eprintln!("measure: {} records of {} bytes into the source", options.records, options.size);
    load::fill(&options.source, TOPIC, options.records, options.size, false);
    let mut rounds = Rounds::default();
    for round in 0..options.rounds {
        bare(options, &destination, &format!("bare{round}-{TOPIC}"), &mut rounds);
        pair(options, &destination, &format!("ddc{round}"), &mut rounds);
    }
    source.delete(TOPIC);
    report(options, rounds, table);
}

fn remove_leftovers(cluster: &Cluster) {
    let prefixes = (0..9).flat_map(|round| [format!("bare{round}-"), format!("ddc{round}-")]);
    for prefix in prefixes.chain([String::new()]) {
        let topic = format!("{prefix}{TOPIC}");
        if cluster.partitions(&topic).is_some() {
            cluster.delete(&topic);
        }
    }
}

fn bare(options: &Options, destination: &Cluster, topic: &str, rounds: &mut Rounds) {
    destination.create(topic, PARTITIONS, &[("retention.ms", "-1")]);
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["bare", &options.source, &options.destination, TOPIC, topic, &options.records.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let figures: Vec<f64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let [seconds, cpu] = figures[..] else {
        panic!("the bare loop says seconds and CPU-seconds, not {text:?}")
    };
    rounds.bare_rate.push(options.records as f64 / seconds);
    rounds.bare_cpu.push(cpu / options.records as f64 * 1e6);
    finish(options, destination, topic, "bare loop");
    eprintln!("measure: bare loop {seconds:.2} s, {cpu:.2} CPU-s");
}

fn pair(options: &Options, destination: &Cluster, name: &str, rounds: &mut Rounds) {
    let topic = format!("{name}-{TOPIC}");
    destination.create(&topic, PARTITIONS, &[("retention.ms", "-1")]);
    let collector = Collector::start();
    let mut pair = Pair::start(
        options,
        &Plan {
            name,
            source: &options.source,
            destination: &options.destination,
            topic: TOPIC,
            start_at: "earliest",
            rate: &options.rate,
            linger: "5ms",
            buffer: "64MiB",
            collector: Some(collector.address),
        },
    );
    pair.start_ingress();
    let (mut start, mut moved, mut before) = (Instant::now(), Instant::now(), 0.0);
    let wanted = options.records as f64;
    loop {
        std::thread::sleep(LOOK_EVERY);
        let delivered = pair.egress.metric("ddc_egress_records_delivered_total");
        if delivered == 0.0 {
            start = Instant::now();
        }
        if delivered >= wanted {
            break;
        }
        if delivered > before || delivered == 0.0 {
            (moved, before) = (Instant::now(), delivered);
        }
        if moved.elapsed() > SILENCE {
            let log = pair.egress.log();
            panic!("{delivered} of {wanted} records were delivered, then no more; the egress says:\n{log}");
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let (ingress, egress) = (pair.ingress().cpu(), pair.egress.cpu());
    rounds.rate.push(wanted / seconds);
    rounds.ingress_cpu.push(ingress / wanted * 1e6);
    rounds.egress_cpu.push(egress / wanted * 1e6);
    let telemetry = pair.ingress().telemetry_cpu() + pair.egress.telemetry_cpu();
    assert!(collector.received() > 0, "no StatsD datagram has come");
    rounds.telemetry.push(telemetry / (ingress + egress));
    rounds.memory.push((pair.ingress().mib("VmHWM"), pair.egress.mib("VmHWM")));
    finish(options, destination, &topic, "ddc");
    eprintln!("measure: ddc {seconds:.2} s, ingress {ingress:.2} CPU-s, egress {egress:.2} CPU-s");
}

/// Whether every record is there once; then the topic goes, so that the broker has its memory for the next round.
fn finish(options: &Options, destination: &Cluster, topic: &str, who: &str) {
    let there = records_in(&options.destination, topic);
    assert_eq!(there, options.records, "{who}: records at the destination");
    destination.delete(topic);
}

fn records_in(brokers: &str, topic: &str) -> u64 {
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    let consumer: BaseConsumer =
        rdkafka::ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    (0..PARTITIONS)
        .map(|partition| {
            let (low, high) =
                consumer.fetch_watermarks(topic, partition as i32, Duration::from_secs(10)).unwrap();
            (high - low) as u64
        })
        .sum()
}

fn report(options: &Options, rounds: Rounds, table: &mut Table) {
    let both = rounds.ingress_cpu.iter().zip(&rounds.egress_cpu).map(|(a, b)| a + b);
    let cpu_ratio = median(both.zip(&rounds.bare_cpu).map(|(both, bare)| both / bare).collect());
    let rate_ratio =
        median(rounds.rate.iter().zip(&rounds.bare_rate).map(|(ddc, bare)| ddc / bare).collect());
    table.ratio("CPU time of ingress and egress together ÷ bare loop (goal later: ≤ 1.6)", cpu_ratio);
    let share = format!("{:.3} %", median(rounds.telemetry) * 100.0);
    table.figure(
        "CPU time of the threads for StatsD and syslog, of all of both sides (goal: < 1 %)".to_owned(),
        share,
    );
    table.ratio("records per second ÷ bare loop", rate_ratio);
    let size = options.size;
    table.figure(format!("bare loop, {size}-byte records: records/s"), thousands(median(rounds.bare_rate)));
    table.figure("DDC, the same records: records/s", thousands(median(rounds.rate)));
    let cpu = |values| format!("{:.2} s", median(values));
    table.figure("bare loop: CPU time per million records", cpu(rounds.bare_cpu));
    table.figure("ingress: CPU time per million records", cpu(rounds.ingress_cpu));
    table.figure("egress: CPU time per million records", cpu(rounds.egress_cpu));
    let (ingress, egress): (Vec<f64>, Vec<f64>) = rounds.memory.into_iter().unzip();
    table.figure("ingress: most memory meanwhile", format!("{:.0} MiB", median(ingress)));
    table.figure("egress: most memory meanwhile", format!("{:.0} MiB", median(egress)));
}
