//! What the processes take: idle; with a link far slower than the source; with a destination that is away.

use std::process::Command;
use std::time::Duration;

use ddc_e2e::cluster::Cluster;

use crate::Options;
use crate::load::{self, PARTITIONS};
use crate::pair::{Pair, Plan};
use crate::table::Table;

/// How long idleness is watched.
const IDLE: Duration = Duration::from_secs(15);
/// Until what started before has settled: ledgers, commits.
const SETTLE: Duration = Duration::from_secs(3);
const TOPIC: &str = "measure-memory";
/// Random values: what waits packed is as large as what was read.
const VALUE: usize = 1000;
/// 160 MB, more than both buffers and librdkafka's queues hold.
const RECORDS: u64 = 160_000;

/// CPU and memory of a pair that has nothing to do.
pub(crate) fn idle(pair: &Pair, table: &mut Table) {
    std::thread::sleep(SETTLE);
    let sides = [("ingress", pair.ingress()), ("egress", &pair.egress)];
    let before = sides.map(|(_, process)| process.cpu());
    std::thread::sleep(IDLE);
    for ((side, process), before) in sides.iter().zip(before) {
        let share = (process.cpu() - before) / IDLE.as_secs_f64() * 100.0;
        table.figure(
            format!("{side}, idle: share of a core, memory (goal: < 1 %, < 64 MiB)"),
            format!("{share:.2} %, {:.0} MiB", process.mib("VmRSS")),
        );
    }
}

/// Both sides with full buffers, beside what `ddc check` prints.
pub(crate) fn measure(options: &Options, table: &mut Table) {
    let source = Cluster::new(&options.source);
    if source.partitions(TOPIC).is_some() {
        source.delete(TOPIC);
    }
    source.create(TOPIC, PARTITIONS, &[("retention.ms", "-1")]);
    eprintln!("measure: {RECORDS} records of {VALUE} random bytes into the source");
    load::fill(&options.source, TOPIC, RECORDS, VALUE, true);

    let mut pair = Pair::start(options, &plan(options, "slow", &options.destination, "20Mbit/s"));
    pair.start_ingress();
    let ingress = pair.ingress();
    ingress.wait("the buffer is full", || ingress.metric("ddc_ingress_kafka_paused") > 0.0);
    std::thread::sleep(Duration::from_secs(10));
    let (most, budget) = (ingress.mib("VmHWM"), bound(options, &pair, "ingress"));
    report(table, "ingress, link of 20 Mbit/s, its buffer of 64 MiB full", most, &budget);
    drop(pair);

    // Nobody listens there.
    let mut pair = Pair::start(options, &plan(options, "away", "127.0.0.1:9", "400Mbit/s"));
    pair.start_ingress();
    pair.egress.wait("the buffer is full", || pair.egress.metric("ddc_buffer_full_total") > 0.0);
    std::thread::sleep(Duration::from_secs(3));
    let (most, budget) = (pair.egress.mib("VmHWM"), bound(options, &pair, "egress"));
    report(table, "egress, destination away, its buffer of 64 MiB full", most, &budget);
    drop(pair);
    source.delete(TOPIC);
}

fn plan<'a>(options: &'a Options, name: &'a str, destination: &'a str, rate: &'a str) -> Plan<'a> {
    Plan {
        name,
        source: &options.source,
        destination,
        topic: TOPIC,
        start_at: "earliest",
        rate,
        linger: "5ms",
        buffer: "64MiB",
        delivery: "exactly_once",
        collector: None,
    }
}

fn report(table: &mut Table, what: &str, most: f64, budget: &str) {
    table.figure(format!("{what}: most memory; `ddc check` says"), format!("{most:.0} MiB; {budget}"));
}

/// What `ddc check` prints as the bound of memory.
fn bound(options: &Options, pair: &Pair, side: &str) -> String {
    let output = Command::new(&options.ddc).args(["check", "-c"]).arg(pair.file(side)).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.trim().strip_prefix("memory"));
    line.map_or_else(|| "nothing".to_owned(), |line| line.trim().to_owned())
}
