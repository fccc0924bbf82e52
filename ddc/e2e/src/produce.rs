//! Records of every kind, once or as a steady load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ddc_kafka::lifeline::Lifeline;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};

/// How long a source cluster may take for what was produced; a test kills and restarts it meanwhile.
const FLUSH: Duration = Duration::from_mins(1);

/// A record to be produced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// `None` is null.
    pub key: Option<Vec<u8>>,
    /// `None` is null: a tombstone.
    pub value: Option<Vec<u8>>,
    /// In order; names may repeat, values may be null.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since 1970.
    pub timestamp: i64,
}

/// Every kind of record that Kafka knows, in turn; `number` decides all fields.
pub fn any_kind(number: u64) -> Sample {
    let text = |what: &str| Some(format!("{what}-{number}").into_bytes());
    let bytes = |length: u64| {
        let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let next = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        Some((0..length).map(next).collect::<Vec<u8>>())
    };
    let header = |name: &str, value: Option<Vec<u8>>| (name.to_owned(), value);
    let key = match number % 5 {
        0 => None,
        1 => Some(Vec::new()),
        2 => bytes(1 + number % 300),
        _ => text("key"),
    };
    let value = match number % 7 {
        0 => None,
        1 => Some(Vec::new()),
        2 => bytes(1),
        3 => bytes(number * 37 % 4000),
        _ => text("value"),
    };
    let headers = match number % 6 {
        0 => vec![],
        1 => vec![header("one", text("h"))],
        2 => vec![header("twice", text("a")), header("other", None), header("twice", text("b"))],
        3 => vec![header("empty", Some(vec![])), header("null", None), header("", bytes(3))],
        // Names that the egress uses itself: the record's own stay, and come first.
        4 => vec![header("sourceOffset", text("not ours")), header("ddcLate", Some(b"false".to_vec()))],
        _ => vec![header("größe", bytes(200)), header("z", text("z")), header("a", text("a"))],
    };
    // Not in order, as clocks of producers are not; hours back, since brokers refuse the future.
    let timestamp = now_millis() - 3_600_000 - (number * 7919 % 600_000) as i64;
    Sample { key, value, headers, timestamp }
}

/// Milliseconds since 1970.
pub fn now_millis() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

/// Writes to one cluster, idempotent, in order, and forgets nothing: a cluster that is away is waited for.
pub struct Producer {
    inner: BaseProducer<Counting>,
    lifeline: Lifeline,
}

#[derive(Clone, Default)]
struct Counting {
    acknowledged: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl ClientContext for Counting {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Counting {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() { &self.acknowledged } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Producer {
    /// To the cluster's plaintext listener.
    pub fn new(brokers: &str) -> Producer {
        let inner = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "0")
            .set("message.max.bytes", "18000000")
            .set("linger.ms", "2")
            .set("reconnect.backoff.max.ms", "500")
            .create_with_context(Counting::default())
            .unwrap();
        Producer { inner, lifeline: Lifeline::default() }
    }

    /// Hands a record over; waits while there is no room.
    pub fn send(&self, topic: &str, partition: i32, sample: &Sample) {
        let headers = OwnedHeaders::new_with_capacity(sample.headers.len());
        let headers = sample.headers.iter().fold(headers, |headers, (name, value)| {
            headers.insert(Header { key: name, value: value.as_deref() })
        });
        let mut record: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(topic).partition(partition).timestamp(sample.timestamp);
        record.key = sample.key.as_deref();
        record.payload = sample.value.as_deref();
        record.headers = Some(headers).filter(|_| !sample.headers.is_empty());
        loop {
            match self.inner.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    self.serve(Duration::from_millis(5));
                    record = back;
                }
                Err((error, _)) => panic!("producing to {topic}[{partition}]: {error}"),
            }
        }
        self.serve(Duration::ZERO);
    }

    fn serve(&self, wait: Duration) {
        self.lifeline.look(&self.inner);
        self.inner.poll(wait);
    }

    /// Waits until the cluster has everything.
    pub fn flush(&self) {
        let start = Instant::now();
        while self.inner.in_flight_count() > 0 {
            assert!(start.elapsed() < FLUSH, "{} records unacknowledged", self.inner.in_flight_count());
            self.serve(Duration::from_millis(1));
        }
        let failed = self.inner.context().failed.load(Ordering::Relaxed);
        assert_eq!(failed, 0, "the source refused records of the test");
    }

    /// Writes `count` records of every kind to each partition in turn, and waits for the cluster.
    pub fn fill(&self, topic: &str, partitions: u32, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.send(topic, (number % u64::from(partitions)) as i32, &any_kind(number));
        }
        self.flush();
    }
}

/// A steady stream of records into a topic, from a thread of its own, until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts; `per_second` records go to the partitions in turn.
    pub fn start(brokers: &str, topic: &str, partitions: u32, per_second: u64) -> Load {
        let producer = Producer::new(brokers);
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counter, topic) = (Arc::clone(&stop), Arc::clone(&sent), topic.to_owned());
        let run = move || {
            let (start, mut number) = (Instant::now(), 0);
            while !stopped.load(Ordering::Relaxed) {
                let due = (start.elapsed().as_secs_f64() * per_second as f64) as u64;
                while number < due {
                    producer.send(&topic, (number % u64::from(partitions)) as i32, &any_kind(number));
                    number += 1;
                }
                counter.store(number, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(5));
            }
            // One more for each partition, so that the end of each can be waited for.
            for partition in 0..partitions {
                producer.send(&topic, partition as i32, &any_kind(number));
                number += 1;
            }
            producer.flush();
            counter.store(number, Ordering::Relaxed);
        };
        let thread = thread::Builder::new().name("load".into()).spawn(run).unwrap();
        Load { stop, sent, thread: Some(thread) }
    }

    /// Records handed over so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until so many more records were handed over.
    pub fn run_for(&self, records: u64) {
        let target = self.sent() + records;
        crate::wait::until("the load goes on", FLUSH, || {
            let sent = self.sent();
            if sent >= target { Ok(()) } else { Err(format!("{sent} of {target} records")) }
        });
    }

    /// Ends it and waits until the cluster has everything; the number of records.
    pub fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the load ends well");
        }
        self.sent()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
