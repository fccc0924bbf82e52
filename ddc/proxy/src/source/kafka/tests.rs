//! The source against a mock cluster, with a link thread played by hand.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread::JoinHandle;

use crossbeam_channel::Receiver;
use ddc_kafka::settings::{ClientSettings, Role, SourceSettings};
use ddc_link::sender::{Compression, PackConfig};
use ddc_telemetry::Registry;
use ddc_telemetry::notify::Watchdog;
use ddc_telemetry::reasons::Thread;
use ddc_wire::{ChunkHeader, Chunks, Content, Prelude};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::*;
use crate::config::{CommitOnStop, Config, Source};
use crate::source::metadata::CommitMetadata;

pub(super) type Mock = MockCluster<'static, DefaultProducerContext>;

const PATIENCE: Duration = Duration::from_secs(40);

fn config(directory: &Path, brokers: &str) -> IngressConfig {
    let key = directory.join("key");
    let mut file =
        std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&key).unwrap();
    writeln!(file, "{}", "07".repeat(32)).unwrap();
    let text = format!(
        "[link]\nname = \"t\"\nid = 1\ntarget = \"127.0.0.1:7401\"\nstate_dir = \"{0}/state\"\nrate = \"unlimited\"\n\
         active_key = 1\n[[link.keys]]\nid = 1\nfile = \"{1}\"\n[source.kafka]\nbrokers = [\"{brokers}\"]\n\
         group = \"g\"\ntopics = [\"t\"]\ncommit_on_stop = \"sent\"\n",
        directory.display(),
        key.display(),
    );
    let loaded = crate::config::parse(&directory.join("ingress.toml"), &text, None, &|_| None).unwrap();
    let Config::Ingress(config) = loaded.config else { panic!("an ingress") };
    config
}

/// A source that runs, and the far end of its blocks.
pub(super) struct Run {
    pub(super) shared: Arc<Shared>,
    pub(super) metrics: Arc<LinkMetrics<IngressMetrics>>,
    pub(super) rewinds: Arc<Rewinds>,
    pub(super) pauses: Arc<Pauses>,
    blocks: Receiver<PackedBlock>,
    thread: JoinHandle<()>,
    watchdog: Watchdog,
    taken: u64,
    pub(super) records: u64,
    /// Chunks of records that were taken, in blocks of one fragment.
    pub(super) chunks: Vec<Chunk>,
    directory: Arc<tempfile::TempDir>,
}

/// What a chunk says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) partition: i32,
    pub(super) epoch: u64,
    pub(super) origin: i64,
    pub(super) previous: Option<i64>,
    pub(super) end: i64,
    pub(super) count: u64,
    pub(super) offsets: Vec<i64>,
}

pub(super) fn settings(config: &mut IngressConfig) -> &mut Settings {
    let Source::Kafka(settings) = &mut config.source else { panic!("Kafka") };
    settings
}

impl Run {
    pub(super) fn start(brokers: &str, change: impl FnOnce(&mut IngressConfig)) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), brokers, change)
    }

    /// As a process that goes on with the state of a former one.
    pub(super) fn start_in(
        directory: Arc<tempfile::TempDir>,
        brokers: &str,
        change: impl FnOnce(&mut IngressConfig),
    ) -> Self {
        let mut config = config(directory.path(), brokers);
        change(&mut config);
        let settings = settings(&mut config).clone();
        let registry = Registry::default();
        let metrics = registry.ingress("t").unwrap();
        let shared = Arc::new(Shared::new());
        let state = Arc::new(StateDir::open(&config.link.state_dir).unwrap());
        let (sender, blocks) = crossbeam_channel::bounded(65_536);
        let pack = PackConfig {
            stream: String::new(),
            symbol_size: 1412,
            source_symbols: 64,
            linger: Duration::from_millis(1),
            compression: Compression::None,
            max_record_bytes: 1 << 20,
            ledger_interval: Duration::from_secs(30),
            ledger_changed: Duration::from_secs(1),
            max_partitions: 100,
        };
        let config = Arc::new(config);
        let rewinds = Arc::new(Rewinds::new(Arc::clone(&config), Arc::clone(&shared)));
        let pauses = Arc::new(Pauses::open("t", Arc::clone(&state)).unwrap());
        let role = Role::Source(SourceSettings {
            group: settings.group.clone(),
            max_record_bytes: 1 << 20,
            queue_bytes: 8 << 20,
        });
        let client = ClientSettings::plaintext([brokers], "t").build(&role).unwrap();
        let reporter = Reporter::new("t", "source");
        let source = KafkaSource::new(Parts {
            member: GroupMember::new(&client, reporter.clone(), BATCH_RECORDS).unwrap(),
            reporter,
            packer: Packer::new(pack, Instant::now()).unwrap(),
            blocks: sender,
            shared: Arc::clone(&shared),
            state,
            metrics: Arc::clone(&metrics),
            config,
            settings,
            replay: None,
            rewinds: Arc::clone(&rewinds),
            pauses: Arc::clone(&pauses),
        })
        .unwrap();
        let watchdog = Watchdog::new(None);
        let tick = watchdog.register("source", Instant::now()).unwrap();
        let thread = std::thread::spawn(move || source.run(&tick, Duration::from_secs(5)));
        Self {
            shared,
            metrics,
            rewinds,
            pauses,
            blocks,
            thread,
            watchdog,
            taken: 0,
            records: 0,
            chunks: Vec::new(),
            directory,
        }
    }

    pub(super) fn directory(&self) -> Arc<tempfile::TempDir> {
        Arc::clone(&self.directory)
    }

    /// Takes what waits, as the link thread does, without sending it.
    pub(super) fn take(&mut self) {
        while let Ok(block) = self.blocks.recv_timeout(Duration::from_millis(10)) {
            self.shared.queued_bytes.fetch_sub(block.bytes.len() as u64, Ordering::Relaxed);
            self.taken += 1;
            self.records += u64::from(block.records);
            self.note_chunks(&block);
        }
    }

    fn note_chunks(&mut self, block: &PackedBlock) {
        let (prelude, body) = Prelude::decode(&block.bytes).unwrap();
        if prelude.content != Content::Records || prelude.fragments != 1 {
            return;
        }
        for chunk in Chunks::new(body) {
            let chunk = chunk.unwrap();
            let offsets = chunk.records.map(|record| record.unwrap().offset).collect();
            let ChunkHeader { partition, epoch, origin, previous, end, count, .. } = chunk.header;
            self.chunks.push(Chunk { partition, epoch: epoch.0, origin, previous, end, count, offsets });
        }
    }

    /// Takes and sends what waits.
    pub(super) fn send(&mut self) {
        self.take();
        self.shared.sent_blocks.store(self.taken, Ordering::Release);
    }

    pub(super) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(!self.thread.is_finished(), "{what}: the source has ended");
            assert!(Instant::now() < deadline, "{what}: {:?}", self.shared.problems());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops; the time it took.
    pub(super) fn stop(mut self) -> Duration {
        let start = Instant::now();
        self.shared.stop.store(true, Ordering::Relaxed);
        while !self.thread.is_finished() {
            self.send();
            assert!(start.elapsed() < PATIENCE, "the stop hangs");
        }
        self.thread.join().unwrap();
        start.elapsed()
    }
}

pub(super) fn mock(partitions: i32) -> Mock {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("t", partitions, 1).unwrap();
    mock
}

pub(super) fn produce(mock: &Mock, partition: i32, count: usize, bytes: usize) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", mock.bootstrap_servers()).create().unwrap();
    for number in 0..count {
        let value = vec![number as u8; bytes];
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to("t").partition(partition).payload(&value);
        producer.send(record).unwrap();
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(20)).unwrap();
}

/// What the group has committed.
pub(super) fn committed(mock: &Mock, partitions: i32) -> BTreeMap<i32, (i64, CommitMetadata)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", mock.bootstrap_servers())
        .set("group.id", "g")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition("t", partition);
    }
    let list = consumer.committed_offsets(list, Duration::from_secs(10)).unwrap();
    let offset = |offset| if let Offset::Offset(offset) = offset { Some(offset) } else { None };
    list.elements()
        .iter()
        .filter_map(|e| Some((e.partition(), (offset(e.offset())?, e.metadata().parse().unwrap()))))
        .collect()
}

#[test]
fn what_was_sent_is_committed_at_the_stop_and_nothing_before() {
    let mock = mock(3);
    for partition in 0..3 {
        produce(&mock, partition, 100, 50);
    }
    let mut run = Run::start(&mock.bootstrap_servers(), |_| {});
    run.until("all records", |run| {
        run.take();
        run.records == 300
    });
    assert_eq!((run.metrics.records_read.value(), run.metrics.records_packed.value()), (300, 300));
    run.until("what is packed and not sent is lag", |run| run.metrics.consumer_lag.total() == Some(300.0));
    assert!(run.metrics.common.thread_cpu_seconds.value(Thread::Source) > Duration::ZERO);
    let starts = committed(&mock, 3);
    assert!(starts.values().all(|(offset, _)| *offset == 0) && starts.len() == 3, "{starts:?}");
    run.stop();
    for (partition, (offset, metadata)) in committed(&mock, 3) {
        assert_eq!((offset, metadata.previous, metadata.count), (100, Some(99), 100), "{partition}");
        assert_eq!(metadata.epoch, starts[&partition].1.epoch);
    }
}

#[test]
fn blocks_that_the_link_lost_are_read_again_and_not_committed_before() {
    let mock = mock(2);
    for partition in 0..2 {
        produce(&mock, partition, 200, 50);
    }
    let mut run =
        Run::start(&mock.bootstrap_servers(), |config| settings(config).commit_delay = Duration::ZERO);
    run.until("the first pass", |run| {
        run.take();
        run.records == 400
    });
    // As the link thread does at a clock jump: the loss first, then the numbers that pass it.
    run.shared.blocks_lost.fetch_add(run.taken, Ordering::Release);
    run.shared.sent_blocks.store(run.taken, Ordering::Release);
    let before = committed(&mock, 2);
    run.until("the second pass", |run| {
        run.take();
        run.records == 800
    });
    std::thread::sleep(Duration::from_millis(1500));
    let again = committed(&mock, 2);
    for (partition, (offset, metadata)) in &again {
        assert_eq!(*offset, 0, "partition {partition}: lost blocks were committed");
        assert!(metadata.epoch > before[partition].1.epoch, "a new epoch");
    }
    run.send();
    run.until("commits of what was sent now", |run| {
        run.send();
        committed(&mock, 2).values().all(|(offset, _)| *offset == 200)
    });
    run.stop();
}

/// A link that takes nothing must not keep the group from moving partitions to a link that does.
#[test]
fn the_group_is_served_while_nothing_can_be_sent() {
    let mock = mock(2);
    for partition in 0..2 {
        produce(&mock, partition, 300, 20_000);
    }
    let small = |config: &mut IngressConfig| config.buffer.0 = 1 << 20;
    let mut first = Run::start(&mock.bootstrap_servers(), small);
    first.until("the buffer is full", |run| run.metrics.kafka_paused.value() == 1);
    let (read, assigned) = (first.metrics.records_read.value(), first.metrics.assigned_partitions.value());
    assert!(read < 600 && assigned == 2, "{read} {assigned}");

    let second = Run::start(&mock.bootstrap_servers(), |config| {
        small(config);
        // What it sends is young, so nothing of it is committed, and the first begins where it does.
        settings(config).commit_on_stop = CommitOnStop::Delayed;
    });
    first.until("a partition moves", |first| {
        first.metrics.assigned_partitions.value() == 1 && second.metrics.assigned_partitions.value() == 1
    });
    assert_eq!(first.shared.sent_blocks.load(Ordering::Relaxed), 0, "the first link still sends nothing");
    second.stop();
    first.until("it comes back", |run| {
        run.send();
        run.metrics.assigned_partitions.value() == 2
    });
    // The lag of both is worked out by then.
    std::thread::sleep(Duration::from_millis(1200));
    first.until("all its records are read once more room comes", |run| {
        run.send();
        run.shared.lag.load(Ordering::Relaxed) == 0
    });
    first.stop();
    let ends: Vec<i64> = committed(&mock, 2).values().map(|(offset, _)| *offset).collect();
    assert_eq!(ends, [300, 300]);
}

/// Answers of the broker take so long that the second member's rebalance meets the first one's start.
#[test]
fn a_partition_that_is_revoked_while_it_starts_neither_hangs_nor_begins() {
    let mock = mock(4);
    let mut first = Run::start(&mock.bootstrap_servers(), |_| {});
    first.until("the group is joined", |run| run.metrics.rebalances.value() > 0);
    mock.broker_round_trip_time(1, Duration::from_millis(700)).unwrap();
    let mut second = Run::start(&mock.bootstrap_servers(), |_| {});
    second.until("both have two", |second| {
        first.metrics.assigned_partitions.value() == 2 && second.metrics.assigned_partitions.value() == 2
    });
    mock.broker_round_trip_time(1, Duration::ZERO).unwrap();
    for partition in 0..4 {
        produce(&mock, partition, 10, 10);
    }
    first.until("every record once", |first| {
        first.send();
        second.send();
        first.records + second.records == 40
    });
    assert_eq!((first.records, second.records), (20, 20));
    first.stop();
    second.stop();
}

#[test]
fn brokers_that_are_away_are_named_and_neither_hang_the_thread_nor_its_stop() {
    let mut run = Run::start("127.0.0.1:1", |_| {});
    let ticks = ddc_telemetry::cells::Counter::default();
    let start = Instant::now();
    run.until("a sentence", |run| {
        run.watchdog.poll(Instant::now(), &ticks).unwrap();
        assert_eq!(run.watchdog.stalled(Instant::now(), Duration::from_secs(1)), []);
        run.shared.problems().iter().any(|problem| problem.contains("no broker answers"))
    });
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    assert!(run.shared.problems().iter().any(|p| p.contains("no partition is assigned: group g, topics t")));
    assert_eq!(run.metrics.records_read.value(), 0);
    let took = run.stop();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn an_outage_is_a_problem_only_as_long_as_it_lasts() {
    let mock = mock(1);
    let mut run = Run::start(&mock.bootstrap_servers(), |_| {});
    run.until("it reads", |run| run.shared.source_state() == SourceState::Running);
    run.until("no problem", |run| run.shared.problems().is_empty());
    mock.broker_down(1).unwrap();
    run.until("the outage is named", |run| !run.shared.problems().is_empty());
    mock.broker_up(1).unwrap();
    produce(&mock, 0, 10, 10);
    run.until("it goes on and says so", |run| {
        run.send();
        run.records == 10 && run.shared.problems().is_empty()
    });
    run.stop();
}

#[test]
fn start_at_committed_waits_for_a_commit_and_then_goes_on() {
    let mock = mock(1);
    produce(&mock, 0, 10, 10);
    let mut run = Run::start(&mock.bootstrap_servers(), |config| {
        settings(config).start_at = crate::config::StartAt::Committed;
        settings(config).commit_on_stop = CommitOnStop::Delayed;
    });
    run.until("it says what is missing", |run| {
        run.shared.problems().iter().any(|problem| problem.contains("has committed nothing"))
    });
    run.take();
    assert_eq!(run.records, 0);
    run.stop();
    assert!(committed(&mock, 1).is_empty(), "a start that was not allowed was committed");
}
