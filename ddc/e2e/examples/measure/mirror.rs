//! Apache Kafka's MirrorMaker 2, which brings the same records from the same broker to the other: what people use today between
//! clusters that can both be reached.
//!
//! It runs as its own start script runs it (the same Java options, 2 GiB of heap at most) in dedicated mode, one task, at least
//! once, with everything switched off that is not copying: heartbeats, checkpoints, the sync of configurations and ACLs. Its
//! start is told apart, and CPU time is counted from its first record on.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ddc_e2e::reaper;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::Options;
use crate::load::PARTITIONS;
use crate::pair::{cpu_seconds, mib};

/// What `kafka-run-class.sh` and `connect-mirror-maker.sh` of Kafka's distribution give.
const JVM: [&str; 7] = [
    "-Xms256M",
    "-Xmx2G",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
];
/// Topics that it makes.
const REPLICATED: [&str; 6] = [
    "checkpoints.topic",
    "heartbeats.topic",
    "offset-syncs.topic",
    "offset.storage",
    "config.storage",
    "status.storage",
];
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_mins(10);

/// What one run took.
pub(crate) struct Run {
    /// From its start to its first record at the destination, in seconds.
    pub(crate) start: f64,
    /// CPU-seconds until then.
    pub(crate) start_cpu: f64,
    /// From its first record to the last, in seconds.
    pub(crate) seconds: f64,
    /// CPU-seconds of that time.
    pub(crate) cpu: f64,
    /// MiB at most.
    pub(crate) memory: f64,
}

/// Copies `topic`; at the destination `ALIAS.` stands before it. The alias must be new, since it names what MirrorMaker remembers.
pub(crate) fn run(options: &Options, topic: &str, alias: &str) -> Run {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mm2.properties");
    fs::write(&file, properties(options, topic, alias)).unwrap();
    let begun = Instant::now();
    let process = start(options, directory.path(), &file);
    let consumer: BaseConsumer =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &options.destination).create().unwrap();
    let copy = format!("{alias}.{topic}");
    let (mut first, mut start_cpu) = (None, 0.0);
    loop {
        std::thread::sleep(LOOK_EVERY);
        let log = || fs::read_to_string(directory.path().join("mm2.log")).unwrap_or_default();
        assert!(begun.elapsed() < LONGEST, "MirrorMaker 2 is not done; its log:\n{}", log());
        let copied = high_watermarks(&consumer, &copy);
        if copied > 0 && first.is_none() {
            first = Some(Instant::now());
            start_cpu = cpu_seconds(process.0.id());
        }
        if copied >= options.records {
            break;
        }
    }
    let first = first.expect("there is a first record before the last");
    let run = Run {
        start: (first - begun).as_secs_f64(),
        start_cpu,
        seconds: first.elapsed().as_secs_f64(),
        cpu: cpu_seconds(process.0.id()) - start_cpu,
        memory: mib(process.0.id(), "VmHWM"),
    };
    let Run { start, seconds, cpu, .. } = run;
    eprintln!(
        "measure: MirrorMaker 2 {seconds:.2} s after {start:.1} s, {cpu:.2} CPU-s after {start_cpu:.1}"
    );
    run
}

fn properties(options: &Options, topic: &str, alias: &str) -> String {
    let Options { source, destination, .. } = options;
    let flow = format!("{alias}->destination");
    // One broker each.
    let replication: String = REPLICATED.map(|what| format!("{what}.replication.factor=1\n")).concat();
    format!(
        "clusters={alias},destination\n{alias}.bootstrap.servers={source}\ndestination.bootstrap.servers={destination}\n\
         {flow}.enabled=true\ndestination->{alias}.enabled=false\n{flow}.topics={topic}\nreplication.factor=1\n{replication}\
         emit.heartbeats.enabled=false\nemit.checkpoints.enabled=false\nsync.group.offsets.enabled=false\n\
         sync.topic.configs.enabled=false\nsync.topic.acls.enabled=false\nrefresh.topics.enabled=false\n\
         refresh.groups.enabled=false\n"
    )
}

/// Killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        reaper::ended(&self.0);
    }
}

fn start(options: &Options, directory: &Path, file: &Path) -> Process {
    let log = fs::File::create(directory.join("mm2.log")).unwrap();
    let child = Command::new("java")
        .args(JVM)
        .args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp"])
        .arg(format!("{}/lib/*", options.kafka_home.display()))
        .arg("org.apache.kafka.connect.mirror.MirrorMaker")
        .arg(file)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("java can be run");
    reaper::watch(&child);
    Process(child)
}

fn high_watermarks(consumer: &BaseConsumer, topic: &str) -> u64 {
    let end = |partition| {
        let marks = consumer.fetch_watermarks(topic, partition as i32, Duration::from_secs(10));
        // Until it is made there is none.
        marks.map_or(0, |(_, high)| high as u64)
    };
    (0..PARTITIONS).map(end).sum()
}
