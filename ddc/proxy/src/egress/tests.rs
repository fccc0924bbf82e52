//! A real sender over a real socket, an egress, a mock cluster, a consumer that compares.
#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ddc_link::keys::{LinkKey, SealMode};
use ddc_link::receiver::Position;
use ddc_link::sender::{
    Compression, Datagrams, HeartbeatFacts, PackConfig, Packer, PartitionStart, Sender, SenderConfig, Slot,
    Step,
};
use ddc_progress::{Applied, ProgressTable};
use ddc_telemetry::cells::Label as _;
use ddc_telemetry::notify::Watchdog;
use ddc_telemetry::reasons::{DropReason, MissingReason, SourceState as Told, SpoolRefusal, Thread};
use ddc_udp::clock::wall_clock_micros;
use ddc_wire::{Epoch, KeyId, LinkId, RecordHeader, Session, SourceState, Timestamp, TopicId};
use rdkafka::bindings::rd_kafka_resp_err_t as Injected;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::RDKafkaApiKey;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

mod datagrams;
mod gaps;
mod rewind_wait;

use super::*;
use crate::config::{ByteSize, Config, KafkaSink, LateRecords, PartitionMode};

const KEY: [u8; 32] = [7; 32];
const SYMBOL: usize = 1412;
const PATIENCE: Duration = Duration::from_secs(30);

type Mock = MockCluster<'static, DefaultProducerContext>;

fn config(directory: &Path, brokers: &str) -> EgressConfig {
    config_of(directory, brokers, "exactly_once")
}

/// Delivers at least once, so that records and progress go in requests one after the other: for what is injected into the next
/// so many requests. What a broker refuses in a transaction is tested with brokers.
fn config_in_turns(directory: &Path, brokers: &str) -> EgressConfig {
    config_of(directory, brokers, "at_least_once")
}

fn config_of(directory: &Path, brokers: &str, delivery: &str) -> EgressConfig {
    let rest = format!(
        "[sink]\nbuffer = \"64MiB\"\n[sink.kafka]\nbrokers = [\"{brokers}\"]\ndelivery = \"{delivery}\"\n\
         create_topics = false\ndrain_timeout = \"10s\"\n[sink.kafka.rename]\norders = \"site-a-orders\"\n"
    );
    config_with(directory, &rest)
}

/// An egress with these tables besides `[link]`; on a port that is free.
fn config_with(directory: &Path, rest: &str) -> EgressConfig {
    let key = directory.join("key");
    if !key.exists() {
        let mut file =
            OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&key).unwrap();
        let digits = "07".repeat(KEY.len());
        writeln!(file, "{digits}").unwrap();
    }
    let text = format!(
        "[link]\nname = \"t\"\nid = 1\nlisten = \"127.0.0.1:7401\"\nstate_dir = \"{0}/state\"\nsocket_buffer = \"4MiB\"\n\
         [[link.keys]]\nid = 1\nfile = \"{1}\"\n{rest}",
        directory.display(),
        key.display(),
    );
    let loaded = crate::config::parse(&directory.join("egress.toml"), &text, None, &|_| None).unwrap();
    let Config::Egress(mut config) = loaded.config else { panic!("an egress") };
    config.listen = "127.0.0.1:0".parse().unwrap();
    config
}

fn kafka(config: &mut EgressConfig) -> &mut KafkaSink {
    let Sink::Kafka(sink) = &mut config.sink else { panic!("Kafka") };
    sink
}

fn options() -> Options {
    Options { registry: Registry::default(), watchdog: Watchdog::new(None) }
}

fn mock(topics: &[(&str, i32)]) -> Mock {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("ddc-progress", 1, 1).unwrap();
    for (topic, partitions) in topics {
        mock.create_topic(topic, *partitions, 1).unwrap();
    }
    mock
}

/// One ingress's link end, driven by hand.
struct TestSender {
    packer: Packer,
    sender: Sender,
    socket: UdpSocket,
    datagrams: Datagrams,
    /// Which datagrams of those that follow are not sent; by their number from the start.
    lose: Box<dyn FnMut(usize) -> bool>,
    sent: usize,
    now: Instant,
}

impl TestSender {
    fn new(to: SocketAddr, code: (usize, usize)) -> Self {
        let now = Instant::now();
        let pack = PackConfig {
            stream: String::new(),
            symbol_size: SYMBOL,
            source_symbols: code.0,
            linger: Duration::ZERO,
            compression: Compression::None,
            max_record_bytes: 1 << 20,
            ledger_interval: Duration::from_secs(30),
            ledger_changed: Duration::from_secs(1),
            max_partitions: 100,
        };
        let config = SenderConfig {
            link_id: LinkId(1),
            key_id: KeyId(1),
            key: LinkKey::new(KEY),
            seal: SealMode::Aes256Gcm,
            session: Session::new(wall_clock_micros(), 1),
            code: ddc_fec::Code::new(code.0, code.1).unwrap(),
            symbol_size: SYMBOL,
            interleave: 1,
            interleave_span: Duration::from_millis(20),
            rate: None,
            burst: Duration::from_micros(250),
            ip_overhead: 20,
        };
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(to).unwrap();
        Self {
            packer: Packer::new(pack, now).unwrap(),
            sender: Sender::new(config, now).unwrap(),
            socket,
            datagrams: Datagrams::default(),
            lose: Box::new(|_| false),
            sent: 0,
            now,
        }
    }

    fn assign(&mut self, topic: &str, partition: i32, next: i64, previous: Option<(i64, u64)>) -> Slot {
        let start = PartitionStart {
            topic: topic.into(),
            topic_id: TopicId::Uuid([9; 16]),
            partition,
            partition_count: 3,
            epoch: Epoch(wall_clock_micros()),
            origin: 0,
            previous: previous.map(|(previous, _)| previous),
            count: previous.map_or(0, |(_, count)| count),
            next,
        };
        self.packer.assign(start).unwrap()
    }

    fn record(&mut self, slot: Slot, record: &Sent) {
        let headers =
            record.headers.iter().map(|(name, value)| RecordHeader { name, value: value.as_deref() });
        loop {
            let headers = headers.clone().collect::<Vec<_>>();
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            match self.packer.push(
                self.now,
                slot,
                record.offset,
                record.timestamp,
                key,
                value,
                headers.into_iter(),
            ) {
                Ok(()) => return,
                Err(ddc_link::sender::PackError::Full) => self.send(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Packs and sends everything that waits.
    fn flush(&mut self) {
        self.now += Duration::from_millis(5);
        self.packer.flush(self.now);
        self.send();
    }

    /// Sends the ledger that is due after half a minute.
    fn ledger(&mut self) {
        self.now += Duration::from_secs(31);
        self.send();
    }

    fn heartbeat(&mut self) {
        let facts = HeartbeatFacts {
            wall_clock_micros: wall_clock_micros(),
            lag: Some(5),
            source_state: SourceState::Running,
        };
        self.sender.heartbeat(self.now, facts);
        self.hand_out();
    }

    fn send(&mut self) {
        while let Some(block) = self.packer.poll(self.now, true) {
            self.sender.push(self.now, block.bytes, block.full, block.records).unwrap();
            self.hand_out();
        }
    }

    fn hand_out(&mut self) {
        loop {
            match self.sender.poll(self.now, &mut self.datagrams) {
                Step::Idle => return,
                Step::Wait(at) => self.now = at,
                Step::Send => {
                    for datagram in self.datagrams.iter() {
                        if !(self.lose)(self.sent) {
                            // Refused while no egress listens on the port: lost, as on a diode.
                            let _ = self.socket.send(datagram);
                        }
                        self.sent += 1;
                    }
                    // The egress's socket must not overflow: what is lost here is lost on purpose only.
                    thread::sleep(Duration::from_micros(300));
                }
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Sent {
    offset: i64,
    timestamp: Option<Timestamp>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Sent {
    fn plain(offset: i64, len: usize) -> Self {
        let timestamp = Some(Timestamp::Create(1_700_000_000_000 + offset));
        // Unlike each other, so that a mix-up shows.
        let value = (0..len as u64).map(|at| (at * 31 + offset as u64 * 17) as u8).collect();
        Self {
            offset,
            timestamp,
            key: Some(format!("k{offset}").into_bytes()),
            value: Some(value),
            headers: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Got {
    partition: i32,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp: Option<i64>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Got {
    fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(found, _)| found == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }

    fn source_offset(&self) -> i64 {
        self.header("sourceOffset").unwrap().parse().unwrap()
    }
}

fn read(mock: &Mock, topic: &str, partitions: i32, count: usize) -> Vec<Got> {
    read_from(&mock.bootstrap_servers(), topic, partitions, count)
}

/// Reads the topic until `count` records came or nothing comes for a while; then a moment longer, for those too many.
fn read_from(brokers: &str, topic: &str, partitions: i32, count: usize) -> Vec<Got> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let (mut records, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    let mut end = None;
    while Instant::now() < end.unwrap_or(deadline) {
        if records.len() >= count && end.is_none() {
            end = Some(Instant::now() + Duration::from_millis(300));
        }
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) else { continue };
        let headers = message.headers().map_or(Vec::new(), |headers| {
            headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
        });
        records.push(Got {
            partition: message.partition(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            timestamp: message.timestamp().to_millis(),
            headers,
        });
    }
    records
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// What the progress topic says, of the set of the link.
fn progress(mock: &Mock) -> ProgressTable {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", mock.bootstrap_servers())
        .set("group.id", "progress")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("ddc-progress", 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut table = ProgressTable::new("t".parse().unwrap());
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "the progress topic has no end");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let applied = table.apply(message.offset(), message.key(), message.payload());
                assert_eq!(applied, Applied::Taken);
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return table,
            Some(Err(_)) | None => {}
        }
    }
}

/// The position of the only partition there is.
fn position(mock: &Mock) -> Position {
    let table = progress(mock);
    assert_eq!(table.len(), 1);
    let (_, progress) = table.iter().next().unwrap();
    progress.position.clone()
}

fn offsets(records: &[Got], partition: i32) -> Vec<i64> {
    records.iter().filter(|got| got.partition == partition).map(Got::source_offset).collect()
}

#[test]
fn every_field_arrives_and_the_state_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let mock = mock(&[("site-a-orders", 3)]);
    let egress = start(config(directory.path(), &mock.bootstrap_servers()), &options()).unwrap();
    let view = egress.view();
    assert!(view.ready().unwrap_err().iter().any(|why| why.contains("no heartbeat")));
    let mut sender = TestSender::new(view.local_addr(), (64, 8));
    let records = vec![
        Sent { offset: 0, ..Sent::default() },
        Sent {
            offset: 1,
            key: Some(vec![]),
            value: Some(vec![]),
            timestamp: Some(Timestamp::Create(0)),
            ..Sent::default()
        },
        Sent {
            offset: 7,
            key: Some(vec![0xff, 0]),
            value: None,
            timestamp: Some(Timestamp::LogAppend(1_600_000_000_123)),
            headers: vec![
                (b"twice".to_vec(), Some(b"1".to_vec())),
                (b"null".to_vec(), None),
                (b"twice".to_vec(), Some(vec![])),
                ("größe".into(), Some(vec![0, 0xff])),
                (b"sourceTopic".to_vec(), Some(b"of the record itself".to_vec())),
            ],
        },
        Sent::plain(8, 300_000),
    ];
    for partition in 0..3 {
        let slot = sender.assign("orders", partition, 0, None);
        for record in &records {
            sender.record(slot, record);
        }
    }
    sender.heartbeat();
    sender.flush();
    let got = read(&mock, "site-a-orders", 3, 12);
    assert_eq!(got.len(), 12);
    for partition in 0..3 {
        let mine: Vec<_> = got.iter().filter(|got| got.partition == partition).collect();
        for (sent, got) in records.iter().zip(&mine) {
            assert_eq!((&got.key, &got.value), (&sent.key, &sent.value), "offset {}", sent.offset);
            let millis = sent.timestamp.map(Timestamp::millis);
            let expected = if millis == Some(0) { Some(1) } else { millis };
            assert_eq!(got.timestamp, expected, "offset {}", sent.offset);
            let mut headers: Vec<_> = sent
                .headers
                .iter()
                .map(|(name, value)| (String::from_utf8(name.clone()).unwrap(), value.clone()))
                .collect();
            for (name, value) in [
                ("sourceTopic", "orders".to_owned()),
                ("sourcePartition", partition.to_string()),
                ("sourceOffset", sent.offset.to_string()),
            ] {
                headers.push((name.to_owned(), Some(value.into_bytes())));
            }
            assert_eq!(got.headers, headers, "offset {}", sent.offset);
        }
    }
    let metrics = Arc::clone(egress.metrics());
    assert_eq!(metrics.common.ready.value(), 0, "not before it was found so");
    wait_for("ready", || crate::admin::AdminState::each_second(&view).is_ok());
    assert_eq!((metrics.common.ready.value(), metrics.common.link_maintenance.value()), (1, 0));
    view.health().unwrap();
    assert_eq!(metrics.source_state.value(), Some(Told::Running));
    assert_eq!(metrics.transit_latency_seconds.snapshot().count(), 1, "one heartbeat");
    let aged = metrics.end_to_end_latency_seconds.snapshot();
    assert_eq!(aged.count(), 6, "of each partition two have no time");
    assert!(aged.sum() > 6.0 * 86_399.0, "they are older than a day: {}", aged.sum());
    let status = view.status();
    assert_eq!(
        (&status["records"]["delivered"], &status["loss"]["missing_records"]),
        (&12.into(), &0.into()),
        "{status}"
    );
    assert_eq!(status["heartbeat"]["source"]["lag_records"], 5);
    assert_eq!(status["sessions"].as_object().unwrap().len(), 1);
    assert_eq!(view.metrics().matches("ddc_egress_records_delivered_total{").count(), 1);
    let table = progress(&mock);
    assert_eq!(table.iter().map(|(_, progress)| progress.position.next()).collect::<Vec<_>>(), [9; 3]);
    let summary = egress.join();
    assert_eq!(summary, Summary { sound: true, drained: true, records_delivered: 12, records_missing: 0 });
}

#[test]
fn order_is_kept_over_many_batches_and_rubbish_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mock = mock(&[("many", 3)]);
    let mut config = config(directory.path(), &mock.bootstrap_servers());
    kafka(&mut config).provenance = true;
    let egress = start(config, &options()).unwrap();
    let to = egress.view().local_addr();
    let mut sender = TestSender::new(to, (8, 2));
    let slots: Vec<_> = (0..3).map(|partition| sender.assign("many", partition, 0, None)).collect();
    // Two of every ten datagrams of a block are lost, and made good.
    sender.lose = Box::new(|number| number % 10 < 2);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.connect(to).unwrap();
    for offset in 0..2_000 {
        for slot in &slots {
            sender.record(*slot, &Sent::plain(offset, 500));
        }
        if offset % 50 == 0 {
            sender.flush();
            for rubbish in [&b""[..], b"x", b"DD", &[0; 1500], &[0xff; 9000]] {
                stranger.send(rubbish).unwrap();
            }
            stranger.send(&vec![7; 20_000]).unwrap();
        }
    }
    sender.flush();
    let got = read(&mock, "many", 3, 6_000);
    for partition in 0..3 {
        assert_eq!(offsets(&got, partition), (0..2_000).collect::<Vec<_>>());
    }
    let metrics = Arc::clone(egress.metrics());
    let summary = egress.join();
    assert!(summary.sound && summary.drained);
    assert_eq!((summary.records_delivered, summary.records_missing), (6_000, 0));
    // Acknowledged once, counted once; what came back would have been counted when it got through.
    let sink = metrics.sink_latency_seconds.snapshot();
    assert_eq!(sink.count(), 6_000);
    assert!(sink.sum() > 0.0 && sink.sum() < 6_000.0 * PATIENCE.as_secs_f64(), "{}", sink.sum());
    for thread in [Thread::Receive, Thread::Sink] {
        assert!(metrics.common.thread_cpu_seconds.value(thread) > Duration::ZERO, "{thread:?}");
    }
    assert!(metrics.symbols_repaired.value() > 0);
    assert!(metrics.common.dropped_packets.value(DropReason::Long) >= 40, "truncated ones are too long");
    assert!(metrics.common.dropped_packets.value(DropReason::Short) >= 120);
}

/// Sends `0..30` of a topic and loses `10..20`; the egress knows the gap when this returns.
fn lose_ten(egress: &Egress, topic: &str) {
    lose_ten_of(egress, topic, 0);
}

fn lose_ten_of(egress: &Egress, topic: &str, partition: i32) {
    let mut sender = TestSender::new(egress.view().local_addr(), (8, 0));
    let slot = sender.assign(topic, partition, 0, None);
    for offset in 0..30 {
        if offset == 10 || offset == 20 {
            sender.flush();
            sender.lose = Box::new(move |_| offset == 10);
        }
        sender.record(slot, &Sent::plain(offset, 100));
    }
    sender.flush();
    wait_for("the gap", || !egress.view().missing().is_empty());
}

/// A new owner sends these offsets again.
fn send_again(egress: &Egress, topic: &str, range: std::ops::Range<i64>) {
    send_again_of(egress, topic, 0, range);
}

fn send_again_of(egress: &Egress, topic: &str, partition: i32, range: std::ops::Range<i64>) {
    let mut again = TestSender::new(egress.view().local_addr(), (8, 0));
    let slot = again.assign(topic, partition, range.start, Some((range.start - 1, range.start as u64)));
    for offset in range {
        again.record(slot, &Sent::plain(offset, 100));
    }
    again.flush();
}

#[test]
fn what_is_lost_is_named_and_comes_late_when_it_comes() {
    let directory = tempfile::tempdir().unwrap();
    let mock = mock(&[("lossy", 1)]);
    let egress = start(config(directory.path(), &mock.bootstrap_servers()), &options()).unwrap();
    lose_ten(&egress, "lossy");
    let missing = egress.view().missing();
    let ranges: Vec<_> =
        missing.iter().map(|range| (range.first, range.last, range.records, range.reason)).collect();
    assert_eq!(ranges, [(10, 19, Some(10), "lost")]);
    assert_eq!(missing[0].partition.topic, "lossy");
    // A new owner sends an overlap: the hole fills, late; what is there already is skipped.
    send_again(&egress, "lossy", 5..35);
    let got = read(&mock, "lossy", 1, 35);
    let expected: Vec<i64> = (0..10).chain(20..30).chain(10..20).chain(30..35).collect();
    assert_eq!(offsets(&got, 0), expected);
    for got in &got {
        let late = (10..20).contains(&got.source_offset());
        assert_eq!(got.header("ddcLate"), late.then_some("true"), "{got:?}");
    }
    let metrics = Arc::clone(egress.metrics());
    let summary = egress.join();
    assert_eq!((summary.drained, summary.records_delivered, summary.records_missing), (true, 35, 10));
    assert_eq!((metrics.records_duplicate.value(), metrics.records_late.value()), (15, 10));
}

#[test]
fn a_lost_tail_is_known_from_the_ledger_and_late_can_be_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let mock = mock(&[("tail", 1)]);
    let mut config = config(directory.path(), &mock.bootstrap_servers());
    kafka(&mut config).late = LateRecords::Drop;
    let egress = start(config, &options()).unwrap();
    let mut sender = TestSender::new(egress.view().local_addr(), (8, 0));
    let slot = sender.assign("tail", 0, 0, None);
    sender.record(slot, &Sent::plain(0, 10));
    sender.flush();
    sender.lose = Box::new(|_| true);
    sender.record(slot, &Sent::plain(1, 10));
    sender.flush();
    sender.lose = Box::new(|_| false);
    sender.ledger();
    wait_for("the gap", || !egress.view().missing().is_empty());
    let missing = egress.view().missing();
    assert_eq!((missing[0].first, missing[0].last, missing[0].records), (1, 1, Some(1)));
    let mut again = TestSender::new(egress.view().local_addr(), (8, 0));
    let slot = again.assign("tail", 0, 0, None);
    for offset in 0..3 {
        again.record(slot, &Sent::plain(offset, 10));
    }
    again.flush();
    let got = read(&mock, "tail", 1, 2);
    assert_eq!(offsets(&got, 0), [0, 2], "the late one is dropped");
    let summary = egress.join();
    assert_eq!((summary.drained, summary.records_missing), (true, 1));
}

/// What comes while the destination is away, more than there is room for.
fn overflow(
    topic: &str,
    configure: impl FnOnce(&mut EgressConfig),
    is_full: impl Fn(&Egress) -> bool,
    has_room: impl Fn(&View) -> bool,
    reason: MissingReason,
) {
    let directory = tempfile::tempdir().unwrap();
    let mock = mock(&[(topic, 1)]);
    let mut config = config(directory.path(), &mock.bootstrap_servers());
    configure(&mut config);
    let egress = start(config, &options()).unwrap();
    let view = egress.view();
    let mut sender = TestSender::new(view.local_addr(), (64, 8));
    let slot = sender.assign(topic, 0, 0, None);
    sender.record(slot, &Sent::plain(0, 10));
    sender.flush();
    wait_for("the first record", || egress.metrics().records_delivered.value() == 1);
    mock.broker_down(1).unwrap();
    for offset in 1..60 {
        sender.record(slot, &Sent::plain(offset, 20_000));
        sender.flush();
    }
    wait_for("no room", || is_full(&egress));
    wait_for("not ready", || view.ready().unwrap_err().iter().any(|why| why.starts_with("destination ")));
    assert!(view.health().is_ok(), "waiting is no fault");
    mock.broker_up(1).unwrap();
    wait_for("what was kept", || {
        egress.metrics().queue_bytes.value() == 0
            && egress.metrics().records_delivered.value() > 1
            && has_room(&view)
    });
    sender.record(slot, &Sent::plain(60, 10));
    sender.flush();
    wait_for("the gap", || !view.missing().is_empty());
    let missing = view.missing();
    assert_eq!((missing.len(), missing[0].last, missing[0].reason), (1, 59, reason.as_str()), "{missing:?}");
    let got = read(&mock, topic, 1, 1 + missing[0].first as usize);
    let expected: Vec<i64> = (0..missing[0].first).chain([60]).collect();
    assert_eq!(offsets(&got, 0), expected);
    assert_eq!(egress.metrics().records_missing.value(reason), (60 - missing[0].first) as u64);
    let summary = egress.join();
    assert!(summary.drained);
    assert_eq!(summary.records_delivered + summary.records_missing, 61);
}

#[test]
fn a_full_buffer_drops_counts_and_names_and_an_outage_loses_nothing_else() {
    let configure = |config: &mut EgressConfig| {
        config.buffer = ByteSize(300_000);
        config.spool = None;
    };
    let is_full = |egress: &Egress| egress.metrics().common.buffer_full.value() > 0;
    overflow("full", configure, is_full, |_| true, MissingReason::BufferFull);
}

#[test]
fn a_full_spool_refuses_counts_and_names_and_an_outage_loses_nothing_else() {
    let configure = |config: &mut EgressConfig| {
        let spool = config.spool.as_mut().unwrap();
        spool.max_size = Some(ByteSize(300_000));
        spool.segment_size = Some(ByteSize(64 << 10));
        spool.max_batch_bytes = 60_000;
    };
    let is_full = |egress: &Egress| {
        egress.metrics().spool_batches_refused.value(SpoolRefusal::Full) > 0
            && egress.view().ready().unwrap_err().iter().any(|why| why.contains("the spool is full"))
    };
    let has_room = |view: &View| view.status()["spool"]["bytes"].as_u64() < Some(100_000);
    overflow("spool", configure, is_full, has_room, MissingReason::SpoolFull);
}

#[test]
fn a_refused_record_is_named_and_stepped_over() {
    let directory = tempfile::tempdir().unwrap();
    let mock = mock(&[("picky", 1)]);
    let egress = start(config_in_turns(directory.path(), &mock.bootstrap_servers()), &options()).unwrap();
    let mut sender = TestSender::new(egress.view().local_addr(), (64, 8));
    let slot = sender.assign("picky", 0, 0, None);
    sender.record(slot, &Sent::plain(0, 10));
    sender.flush();
    wait_for("the first record", || egress.metrics().records_delivered.value() == 1);
    // The batch of 1 to 4 is refused, then each half it is tried in, then 1 alone; the next answers are good.
    let refused = Injected::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    mock.request_errors(RDKafkaApiKey::Produce, &[refused; 3]);
    for offset in 1..5 {
        sender.record(slot, &Sent::plain(offset, 10));
    }
    sender.flush();
    let got = read(&mock, "picky", 1, 4);
    assert_eq!(offsets(&got, 0), [0, 2, 3, 4], "each once, in order");
    wait_for("the report", || !egress.view().missing().is_empty());
    let missing = egress.view().missing();
    assert_eq!(
        (missing.len(), missing[0].first, missing[0].last, missing[0].records, missing[0].reason),
        (1, 1, 1, Some(1), "refused")
    );
    let summary = egress.join();
    assert_eq!(
        (summary.sound, summary.drained, summary.records_delivered, summary.records_missing),
        (true, true, 4, 1)
    );
    let position = position(&mock);
    assert_eq!((position.next(), position.is_hole(1), position.is_hole(2)), (5, true, false));
}

#[test]
fn a_restart_goes_on_where_it_was_and_names_what_was_missed() {
    let directory = tempfile::tempdir().unwrap();
    let mock = mock(&[("again", 1)]);
    let first = start(config(directory.path(), &mock.bootstrap_servers()), &options()).unwrap();
    let mut sender = TestSender::new(first.view().local_addr(), (8, 2));
    let slot = sender.assign("again", 0, 0, None);
    let send = |sender: &mut TestSender, range: std::ops::Range<i64>| {
        for offset in range {
            sender.record(slot, &Sent::plain(offset, 50));
        }
        sender.flush();
    };
    send(&mut sender, 0..10);
    wait_for("delivery", || first.metrics().records_delivered.value() == 10);
    assert!(first.join().drained);
    send(&mut sender, 10..20);
    let second = start(config(directory.path(), &mock.bootstrap_servers()), &options()).unwrap();
    sender.socket.connect(second.view().local_addr()).unwrap();
    send(&mut sender, 20..30);
    wait_for("delivery", || second.metrics().records_delivered.value() == 10);
    let ranges: Vec<_> =
        second.view().missing().iter().map(|r| (r.first, r.last, r.records, r.reason)).collect();
    assert_eq!(ranges, [(10, 19, Some(10), "restart")]);
    assert_eq!(
        second.view().status()["sessions"].as_object().unwrap().values().next().unwrap()["continued"],
        true
    );
    // The second gap of the same life has another reason.
    sender.lose = Box::new(|_| true);
    send(&mut sender, 30..31);
    sender.lose = Box::new(|_| false);
    send(&mut sender, 31..32);
    wait_for("the gap", || second.view().missing().len() == 2);
    assert_eq!(second.view().missing()[1].reason, "lost");
    let got = read(&mock, "again", 1, 21);
    assert_eq!(offsets(&got, 0), (0..10).chain(20..30).chain([31]).collect::<Vec<_>>());
    assert!(second.join().drained);
}

#[test]
fn a_missing_topic_is_waited_for_and_a_missing_partition_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mock = mock(&[("narrow", 1)]);
    let egress = start(config(directory.path(), &mock.bootstrap_servers()), &options()).unwrap();
    let view = egress.view();
    let mut sender = TestSender::new(view.local_addr(), (8, 2));
    let narrow = sender.assign("narrow", 2, 0, None);
    let absent = sender.assign("absent", 0, 0, None);
    for offset in 0..5 {
        sender.record(narrow, &Sent::plain(offset, 10));
        sender.record(absent, &Sent::plain(offset, 10));
    }
    sender.flush();
    let waits = |why: &String| why.contains("topic absent does not exist");
    wait_for("the wait", || view.ready().unwrap_err().iter().any(waits));
    mock.create_topic("absent", 1, 1).unwrap();
    let got = read(&mock, "absent", 1, 5);
    assert_eq!(offsets(&got, 0), [0, 1, 2, 3, 4]);
    wait_for("the wait's end", || !view.ready().err().unwrap_or_default().iter().any(waits));
    wait_for("the report", || !view.missing().is_empty());
    let missing = view.missing();
    assert_eq!((missing.len(), missing[0].first, missing[0].last, missing[0].reason), (1, 0, 4, "refused"));
    assert_eq!((missing[0].partition.topic.as_str(), missing[0].partition.partition), ("narrow", 2));
    let summary = egress.join();
    assert_eq!((summary.drained, summary.records_delivered, summary.records_missing), (true, 5, 5));
}

#[test]
fn a_producer_beyond_repair_is_built_anew_and_nothing_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let mock = mock(&[("fatal", 1)]);
    let egress = start(config(directory.path(), &mock.bootstrap_servers()), &options()).unwrap();
    let mut sender = TestSender::new(egress.view().local_addr(), (64, 8));
    let slot = sender.assign("fatal", 0, 0, None);
    // librdkafka calls a sequence error of the first batch in flight fatal.
    mock.request_errors(RDKafkaApiKey::Produce, &[Injected::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]);
    for offset in 0..100 {
        sender.record(slot, &Sent::plain(offset, 100));
    }
    sender.flush();
    let got = read(&mock, "fatal", 1, 100);
    assert_eq!(offsets(&got, 0), (0..100).collect::<Vec<_>>());
    assert_eq!(egress.view().status()["sink"]["producer_rebuilds"], 1);
    let summary = egress.join();
    assert_eq!((summary.drained, summary.records_delivered, summary.records_missing), (true, 100, 0));
}

#[test]
fn keys_decide_the_partition_as_in_java() {
    let directory = tempfile::tempdir().unwrap();
    let mock = mock(&[("hashed", 3)]);
    let mut config = config(directory.path(), &mock.bootstrap_servers());
    kafka(&mut config).partition = PartitionMode::Hash;
    kafka(&mut config).provenance = false;
    let egress = start(config, &options()).unwrap();
    let mut sender = TestSender::new(egress.view().local_addr(), (8, 2));
    let slot = sender.assign("hashed", 1, 0, None);
    for offset in 0..60 {
        sender.record(
            slot,
            &Sent { key: Some(format!("k{}", offset % 20).into_bytes()), ..Sent::plain(offset, 10) },
        );
    }
    sender.flush();
    let got = read(&mock, "hashed", 3, 60);
    let mut places: BTreeMap<Vec<u8>, Vec<i32>> = BTreeMap::new();
    for got in &got {
        assert_eq!(got.headers, [], "no provenance");
        places.entry(got.key.clone().unwrap()).or_default().push(got.partition);
    }
    assert_eq!((got.len(), places.len()), (60, 20));
    for (key, partitions) in &places {
        let expected = (murmur2(key) & 0x7fff_ffff) % 3;
        assert!(partitions.iter().all(|partition| *partition as u32 == expected), "{key:?}: {partitions:?}");
    }
    assert!(egress.join().drained);
}

/// Kafka's murmur2, seed 0x9747b28c, over 4-byte little-endian words.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().unwrap()).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

#[test]
fn a_drain_that_cannot_end_is_given_up_in_time_and_said() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path(), "127.0.0.1:1");
    kafka(&mut config).drain_timeout = Duration::from_millis(500);
    let egress = start(config, &options()).unwrap();
    let mut sender = TestSender::new(egress.view().local_addr(), (8, 2));
    let slot = sender.assign("nowhere", 0, 0, None);
    sender.record(slot, &Sent::plain(0, 10));
    sender.flush();
    wait_for("a batch", || egress.metrics().blocks_received.value() > 0);
    let begun = Instant::now();
    let summary = egress.join();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!((summary.sound, summary.drained, summary.records_delivered), (true, false, 0));
}
