//! One 100-byte record alone, `linger = 0`: how long until it is there.
//!
//! End to end, from the call of `produce` to the arrival at a consumer, three ways: source broker only (what Kafka
//! itself takes), through the bare loop, through DDC. What DDC adds is the third less the second.
//!
//! The link's own part is measured in this process: pack, protect, seal, send ═ UDP, loopback ═ receive, open, recover,
//! unpack, beside a bare datagram of the same size between the same sockets, in turns.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ddc_e2e::broker::free_block;
use ddc_e2e::cluster::Cluster;
use ddc_e2e::reaper;
use ddc_link::keys::{Keyring, LinkKey, SealMode};
use ddc_link::receiver::{Event, Receiver, ReceiverConfig, Unpacker};
use ddc_link::sender::{
    Compression, Datagrams, PackConfig, Packer, PartitionStart, Sender, SenderConfig, Step,
};
use ddc_udp::{ReceiveBatch, ReceiverOptions, ReceiverSocket, SenderOptions, SenderSocket};
use ddc_wire::{Chunks, Epoch, KeyId, LinkId, Session, Timestamp, TopicId};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::Options;
use crate::load::{self, Numbers, PARTITIONS};
use crate::pair::{Pair, Plan};
use crate::table::{Table, quantile};

const SIZE: usize = 100;
/// Records of one way and turn.
const RECORDS: usize = 60;
/// Datagrams of the link's own part.
const DATAGRAMS: usize = 2000;
/// Between two records: long enough that each finds the line idle.
const PAUSE: Duration = Duration::from_millis(40);
const LONGEST: Duration = Duration::from_secs(10);

/// Measures and reports; the pair also tells what it takes when idle.
pub(crate) fn measure(options: &Options, table: &mut Table) {
    link(table);
    end_to_end(options, table);
}

// --- end to end -------------------------------------------------------------------------------------------------------

fn end_to_end(options: &Options, table: &mut Table) {
    let (source, destination) = (Cluster::new(&options.source), Cluster::new(&options.destination));
    let topic = "measure-lone";
    let topics = [(&source, topic), (&destination, "bare-measure-lone"), (&destination, "lone-measure-lone")];
    for (cluster, topic) in topics {
        // A run that was ended leaves topics behind.
        if cluster.partitions(topic).is_some() {
            cluster.delete(topic);
        }
        cluster.create(topic, PARTITIONS, &[]);
    }
    let plan = Plan {
        name: "lone",
        source: &options.source,
        destination: &options.destination,
        topic,
        start_at: "latest",
        rate: &options.rate,
        linger: "0ms",
        buffer: "64MiB",
        delivery: "exactly_once",
        collector: None,
    };
    let mut pair = Pair::start(options, &plan);
    pair.start_ingress();
    pair.ingress().wait("the ingress is ready", || pair.ingress().is_ready());
    let mut bare = Command::new(std::env::current_exe().unwrap())
        .args(["bare", &options.source, &options.destination, topic, "bare-measure-lone", "0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    reaper::watch(&bare);
    let mut ready = String::new();
    BufReader::new(bare.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready.trim(), "ready", "the bare loop runs");

    let producer: ThreadedProducer<_> =
        ClientConfig::new().set("bootstrap.servers", &options.source).set("linger.ms", "0").create().unwrap();
    let ways = [
        ("the source broker alone", options.source.as_str(), topic),
        ("bare loop", options.destination.as_str(), "bare-measure-lone"),
        ("DDC", options.destination.as_str(), "lone-measure-lone"),
    ];
    let consumers = ways.map(|(_, brokers, topic)| tail(brokers, topic));
    let mut times: [Vec<f64>; 3] = Default::default();
    // Each record goes all three ways at once, so all three are timed on the same records: one consumer at a time listens.
    for turn in 0..options.rounds {
        for (way, consumer) in consumers.iter().enumerate() {
            for number in 0..RECORDS {
                let time = lone(&producer, topic, consumer, (turn * 3 + way) * RECORDS + number);
                // The first ones of all make connections and codecs warm.
                if turn > 0 || number >= 10 {
                    times[way].push(time);
                }
            }
        }
    }
    let medians: Vec<f64> = times.iter_mut().map(|times| quantile(times, 0.5)).collect();
    table.ratio("a lone record, produce to arrival: DDC ÷ bare loop", medians[2] / medians[1]);
    for ((name, ..), times) in ways.iter().zip(&mut times) {
        let (p50, p99) = (quantile(times, 0.5), quantile(times, 0.99));
        table.figure(
            format!("a lone {SIZE}-byte record, linger = 0, produce to arrival, {name}: p50, p99"),
            format!("{:.2} ms, {:.2} ms", p50 * 1e3, p99 * 1e3),
        );
    }
    let _ = bare.kill();
    let _ = bare.wait();
    reaper::ended(&bare);
    crate::memory::idle(&pair, table);
    drop(pair);
    for (cluster, topic) in topics {
        cluster.delete(topic);
    }
}

/// Produces one record and waits for it; seconds.
fn lone(
    producer: &ThreadedProducer<rdkafka::producer::DefaultProducerContext>,
    topic: &str,
    consumer: &BaseConsumer,
    number: usize,
) -> f64 {
    // Whatever other ways' turns left here.
    while consumer.poll(Duration::from_millis(20)).is_some() {}
    std::thread::sleep(PAUSE);
    let key = format!("{number:08}");
    let value = load::value(SIZE);
    let start = Instant::now();
    let record = BaseRecord::to(topic).partition(0).key(&key).payload(&value);
    producer.send(record).map_err(|(error, _)| error).expect("the source takes a record");
    loop {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100))
            && message.key() == Some(key.as_bytes())
        {
            break;
        }
        assert!(start.elapsed() < LONGEST, "a lone record did not arrive");
    }
    let seconds = start.elapsed().as_secs_f64();
    producer.flush(LONGEST).expect("the source acknowledges");
    seconds
}

/// Reads partition 0 from its end on.
fn tail(brokers: &str, topic: &str) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "measure-tail")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::End).unwrap();
    consumer.assign(&list).unwrap();
    // Until it knows where the end is.
    assert!(consumer.poll(Duration::from_secs(2)).is_none());
    consumer
}

// --- the link ---------------------------------------------------------------------------------------------------------

/// A link without Kafka: the same state machines and sockets that the proxies use.
fn link(table: &mut Table) {
    let address: SocketAddr = ([127, 0, 0, 1], free_block(1)).into();
    let (mut bare, mut crossed) = (Vec::new(), Vec::new());
    let (arrived, arrivals) = mpsc::sync_channel(1);
    let mut listening = ReceiverSocket::open(&ReceiverOptions::new(address)).unwrap();
    let socket = SenderSocket::open(&SenderOptions::new(address)).unwrap();
    let receiving = std::thread::spawn(move || {
        let mut receiver = receiver();
        let mut unpacker = Unpacker::new(1 << 20).unwrap();
        let mut batch = ReceiveBatch::new();
        loop {
            let wait = receiver.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
            let count = listening.receive(&mut batch, wait.unwrap_or(PAUSE).min(PAUSE)).unwrap();
            for datagram in batch.datagrams().take(count) {
                if datagram.bytes.starts_with(b"bare") {
                    let _ = arrived.send(Instant::now());
                    continue;
                }
                if datagram.bytes == b"end" {
                    return;
                }
                // Repair symbols that come after their block is whole are refused; that is as it should be.
                let _ = receiver.handle(Instant::now(), wall_micros(), datagram.source, datagram.bytes);
                // Looked at after each datagram: the first one of four holds the record.
                while let Some(event) = receiver.poll(Instant::now()) {
                    if let Event::Batch(released) = event {
                        let raw = unpacker.unpack(&released).unwrap();
                        if Chunks::new(raw).flatten().map(|chunk| chunk.record_count).sum::<u32>() == 1 {
                            let _ = arrived.send(Instant::now());
                        }
                        receiver.recycle(released.into_buffer());
                    }
                }
            }
        }
    });
    let now = Instant::now();
    let (mut packer, mut sender) = (packer(now), sender(now));
    let slot = packer.assign(start()).unwrap();
    let value = load::value(SIZE);
    let mut out = Datagrams::new();
    let mut numbers = Numbers(3);
    let mut same = vec![0; 4];
    for number in 0..DATAGRAMS {
        // Apart by an odd time, so that no timer of the kernel keeps step with them.
        std::thread::sleep(Duration::from_micros(500 + numbers.next() % 500));
        let time = Timestamp::Create(number as i64);
        let begin = Instant::now();
        packer.push(begin, slot, number as i64, Some(time), None, Some(&value), std::iter::empty()).unwrap();
        let block = packer.poll(begin, true).expect("linger is 0");
        sender.push(begin, block.bytes, block.full, block.records).unwrap();
        while sender.poll(begin, &mut out) == Step::Send {
            let datagrams: Vec<&[u8]> = out.iter().collect();
            same.resize(datagrams[0].len(), 0);
            let mut left = &datagrams[..];
            while !left.is_empty() {
                left = &left[socket.send(left).unwrap()..];
            }
        }
        let there: Instant = arrivals.recv_timeout(LONGEST).expect("the record crosses loopback");
        crossed.push(there.duration_since(begin).as_secs_f64());

        std::thread::sleep(Duration::from_micros(500 + numbers.next() % 500));
        same[..4].copy_from_slice(b"bare");
        let begin = Instant::now();
        socket.send(&[&same]).unwrap();
        let there = arrivals.recv_timeout(LONGEST).expect("a datagram crosses loopback");
        bare.push(there.duration_since(begin).as_secs_f64());
    }
    socket.send(&[b"end"]).unwrap();
    receiving.join().unwrap();
    let (link_p50, bare_p50) = (quantile(&mut crossed, 0.5), quantile(&mut bare, 0.5));
    table.figure(
        "the link alone, pack to unpack over loopback: p50, p99",
        format!("{:.3} ms, {:.3} ms", link_p50 * 1e3, quantile(&mut crossed, 0.99) * 1e3),
    );
    table.figure(
        "a bare datagram of the same size, one way: p50, p99",
        format!("{:.3} ms, {:.3} ms", bare_p50 * 1e3, quantile(&mut bare, 0.99) * 1e3),
    );
    table.figure(
        "the link above the bare datagram, p50 (goal: < 0.3 ms)",
        format!("{:.3} ms", (link_p50 - bare_p50) * 1e3),
    );
    let wire = sender.totals().bytes as f64 / DATAGRAMS as f64;
    table.figure("datagrams of a lone record, FEC 64+8 (goal: < 4 KB)", format!("{wire:.0} bytes"));
}

fn packer(now: Instant) -> Packer {
    let config = PackConfig {
        stream: String::new(),
        symbol_size: 1412,
        source_symbols: 64,
        linger: Duration::ZERO,
        compression: Compression::Zstd(1),
        max_record_bytes: 1 << 20,
        // Ledgers would be datagrams of their own; a link sends one a second.
        ledger_interval: Duration::from_hours(1),
        ledger_changed: Duration::from_hours(1),
        max_partitions: 1,
    };
    Packer::new(config, now).unwrap()
}

fn start() -> PartitionStart {
    PartitionStart {
        topic: Arc::from("measure"),
        topic_id: TopicId::Configured(0),
        partition: 0,
        partition_count: 1,
        epoch: Epoch(1),
        origin: 0,
        previous: None,
        count: 0,
        next: 0,
    }
}

fn sender(now: Instant) -> Sender {
    let config = SenderConfig {
        link_id: LinkId(1),
        key_id: KeyId(1),
        key: LinkKey::new([1; 32]),
        seal: SealMode::Aes256Gcm,
        session: Session::new(wall_micros(), 1),
        code: ddc_fec::Code::DEFAULT,
        symbol_size: 1412,
        interleave: 1,
        interleave_span: Duration::ZERO,
        rate: None,
        burst: Duration::ZERO,
        ip_overhead: 20,
    };
    Sender::new(config, now).unwrap()
}

fn receiver() -> Receiver {
    let mut keyring = Keyring::default();
    keyring.insert(KeyId(1), LinkKey::new([1; 32]));
    let config = ReceiverConfig {
        link_id: LinkId(1),
        keyring,
        seal: SealMode::Aes256Gcm,
        reorder_timeout: Duration::from_millis(50),
        window_bytes: 4 << 20,
        max_batch_bytes: 1 << 20,
        build_micros: 0,
    };
    Receiver::new(config, Instant::now(), &[])
}

fn wall_micros() -> u64 {
    ddc_udp::clock::wall_clock_micros()
}
