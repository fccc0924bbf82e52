//! Records per second from broker to broker, and CPU time per million records of every process on the way: the bare loop, DDC with both
//! promises of delivery, and MirrorMaker 2, in turns.

use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ddc_e2e::cluster::Cluster;

use crate::Options;
use crate::load::{self, PARTITIONS};
use crate::mirror;
use crate::pair::{Pair, Plan};
use crate::table::{Table, median, thousands};

const TOPIC: &str = "measure";
/// Between two looks at what the egress has delivered; a round takes seconds.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Records that have not come after so long of nothing were lost.
const SILENCE: Duration = Duration::from_secs(15);

/// Figures of each contestant, one a round.
#[derive(Default)]
struct Rounds {
    bare: Vec<Run>,
    exactly_once: Vec<PairRun>,
    at_least_once: Vec<PairRun>,
    mirror: Vec<mirror::Run>,
}

/// What a process took.
struct Run {
    /// From the first record to the last.
    seconds: f64,
    /// Of the whole process, its start included.
    cpu: f64,
}

/// What both sides of a link took.
struct PairRun {
    seconds: f64,
    ingress_cpu: f64,
    egress_cpu: f64,
    /// Of the threads that carry metrics and logs away.
    telemetry_cpu: f64,
    /// MiB at most, ingress and egress.
    memory: [f64; 2],
}

impl PairRun {
    fn cpu(&self) -> f64 {
        self.ingress_cpu + self.egress_cpu
    }
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

/// Fills the source, then measures every way, round by round; MirrorMaker 2 only when asked for, since it takes most of the time.
pub(crate) fn measure(options: &Options, with_mirror: bool, table: &mut Table) {
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
        rounds.bare.push(bare(options, &destination, &format!("bare{round}-{TOPIC}")));
        let name = |promise| format!("{promise}{round}");
        rounds.exactly_once.push(pair(options, &destination, &name("once"), "exactly_once"));
        rounds.at_least_once.push(pair(options, &destination, &name("least"), "at_least_once"));
        if with_mirror {
            let topic = format!("mm{round}.{TOPIC}");
            rounds.mirror.push(mirror::run(options, TOPIC, &name("mm")));
            finish(options, &destination, &topic, "MirrorMaker 2");
        }
    }
    source.delete(TOPIC);
    report(options, &rounds, table);
}

fn remove_leftovers(cluster: &Cluster) {
    let prefixes = (0..9).flat_map(|round| {
        ["bare0-", "once0-", "least0-", "mm0."].map(|prefix| prefix.replace('0', &format!("{round}")))
    });
    for prefix in prefixes.chain([String::new()]) {
        let topic = format!("{prefix}{TOPIC}");
        if cluster.partitions(&topic).is_some() {
            cluster.delete(&topic);
        }
    }
}

fn bare(options: &Options, destination: &Cluster, topic: &str) -> Run {
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
    finish(options, destination, topic, "bare loop");
    eprintln!("measure: bare loop {seconds:.2} s, {cpu:.2} CPU-s");
    Run { seconds, cpu }
}

fn pair(options: &Options, destination: &Cluster, name: &str, delivery: &str) -> PairRun {
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
            delivery,
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
    let run = PairRun {
        seconds: start.elapsed().as_secs_f64(),
        ingress_cpu: pair.ingress().cpu(),
        egress_cpu: pair.egress.cpu(),
        telemetry_cpu: pair.ingress().telemetry_cpu() + pair.egress.telemetry_cpu(),
        memory: [pair.ingress().mib("VmHWM"), pair.egress.mib("VmHWM")],
    };
    assert!(collector.received() > 0, "no StatsD datagram has come");
    finish(options, destination, &topic, "ddc");
    let PairRun { seconds, ingress_cpu, egress_cpu, .. } = run;
    eprintln!(
        "measure: ddc {delivery} {seconds:.2} s, ingress {ingress_cpu:.2} CPU-s, egress {egress_cpu:.2} CPU-s"
    );
    run
}

/// Whether every record is there once; then the topic goes, so that the broker has its memory for the next round.
fn finish(options: &Options, destination: &Cluster, topic: &str, who: &str) {
    let there = records_in(&options.destination, topic);
    assert_eq!(there, options.records, "{who}: records at the destination");
    destination.delete(topic);
}

/// What a reader of committed records finds: offsets do not tell, since transactions have markers among them.
pub(crate) fn records_in(brokers: &str, topic: &str) -> u64 {
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::error::KafkaError;
    let consumer: BaseConsumer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "measure-count")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("fetch.queue.backoff.ms", "1")
        .create()
        .unwrap();
    let mut list = rdkafka::TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition as i32, rdkafka::Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let (mut records, mut ends) = (0, std::collections::HashSet::new());
    while ends.len() < PARTITIONS as usize {
        match consumer.poll(Duration::from_secs(10)).expect("an end of every partition comes") {
            Ok(_) => records += 1,
            Err(KafkaError::PartitionEOF(partition)) => {
                ends.insert(partition);
            }
            Err(error) => panic!("{topic} at the destination cannot be read: {error}"),
        }
    }
    records
}

fn report(options: &Options, rounds: &Rounds, table: &mut Table) {
    let Rounds { bare, exactly_once: ddc, at_least_once, mirror } = rounds;
    // Of the same round: what the machine did meanwhile is the same for both.
    let ratio = |a: Vec<f64>, b: Vec<f64>| median(a.into_iter().zip(b).map(|(a, b)| a / b).collect());
    let cpu = |runs: &[PairRun]| runs.iter().map(PairRun::cpu).collect::<Vec<_>>();
    let seconds = |runs: &[PairRun]| runs.iter().map(|run| run.seconds).collect::<Vec<_>>();
    let bare_cpu: Vec<_> = bare.iter().map(|run| run.cpu).collect();
    let bare_seconds: Vec<_> = bare.iter().map(|run| run.seconds).collect();
    table.ratio(
        "CPU time of ingress and egress together, exactly once ÷ bare loop (goal: ≤ 1.6)",
        ratio(cpu(ddc), bare_cpu.clone()),
    );
    if !mirror.is_empty() {
        // DDC's start is always counted: it takes no time.
        table.ratio(
            "the same ÷ MirrorMaker 2, its start included (goal: ≤ 0.2)",
            ratio(cpu(ddc), mirror.iter().map(|run| run.start_cpu + run.cpu).collect()),
        );
        table.ratio(
            "the same ÷ MirrorMaker 2 from its first record on",
            ratio(cpu(ddc), mirror.iter().map(|run| run.cpu).collect()),
        );
    }
    table.ratio("records per second, exactly once ÷ bare loop", ratio(bare_seconds.clone(), seconds(ddc)));
    table.ratio(
        "records per second, exactly once ÷ at least once (goal: ≥ 0.8)",
        ratio(seconds(at_least_once), seconds(ddc)),
    );
    table.ratio("CPU time, exactly once ÷ at least once", ratio(cpu(ddc), cpu(at_least_once)));
    let share = median(ddc.iter().map(|run| run.telemetry_cpu / run.cpu()).collect());
    table.figure(
        "CPU time of the threads for StatsD and syslog, of all of both sides (goal: < 1 %)".to_owned(),
        format!("{:.3} %", share * 100.0),
    );
    let records = options.records as f64;
    let rate = |seconds: Vec<f64>| thousands(records / median(seconds));
    let per_million = |cpu: Vec<f64>| format!("{:.2} s", median(cpu) / records * 1e6);
    let size = options.size;
    table.figure(format!("bare loop, {size}-byte records: records/s"), rate(bare_seconds));
    table.figure("DDC exactly once, the same records: records/s", rate(seconds(ddc)));
    table.figure("DDC at least once: records/s", rate(seconds(at_least_once)));
    table.figure("bare loop: CPU time per million records", per_million(bare_cpu));
    let side = |of: fn(&PairRun) -> f64| ddc.iter().map(of).collect::<Vec<_>>();
    table.figure("ingress: CPU time per million records", per_million(side(|run| run.ingress_cpu)));
    table.figure("egress: CPU time per million records", per_million(side(|run| run.egress_cpu)));
    let mib = |values| format!("{:.0} MiB", median(values));
    table.figure("ingress: most memory meanwhile (goal: ≤ 150 MB)", mib(side(|run| run.memory[0])));
    table.figure("egress: most memory meanwhile (goal: ≤ 150 MB)", mib(side(|run| run.memory[1])));
    if !mirror.is_empty() {
        let side = |of: fn(&mirror::Run) -> f64| mirror.iter().map(of).collect::<Vec<_>>();
        table.figure("MirrorMaker 2: records/s", rate(side(|run| run.seconds)));
        table.figure(
            "MirrorMaker 2: CPU time per million records from its first record on; its start, CPU time",
            format!("{}; {:.1} s", per_million(side(|run| run.cpu)), median(side(|run| run.start_cpu))),
        );
        table.figure("MirrorMaker 2: most memory", mib(side(|run| run.memory)));
        table.figure(
            "MirrorMaker 2: from its start to its first record",
            format!("{:.0} s", median(side(|run| run.start))),
        );
    }
}
