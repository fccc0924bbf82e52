//! The records: keys and values as a plant sends them, fixed words and digits that change.

use std::time::Duration;

use ddc_kafka::lifeline::Lifeline;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

/// Partitions of every topic here.
pub(crate) const PARTITIONS: u32 = 4;

/// Fills `topic` with `records` values of `size` bytes and keys of 8, evenly over [`PARTITIONS`].
/// `random` values cannot be compressed.
pub(crate) fn fill(brokers: &str, topic: &str, records: u64, size: usize, random: bool) {
    produce(brokers, topic, size, random, |index| index < records);
}

/// The same with random values, for as long as `more` says so of the number of records so far.
pub(crate) fn pour(brokers: &str, topic: &str, size: usize, more: impl FnMut(u64) -> bool) {
    produce(brokers, topic, size, true, more);
}

fn produce(brokers: &str, topic: &str, size: usize, random: bool, mut more: impl FnMut(u64) -> bool) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("linger.ms", "20")
        .set("queue.buffering.max.messages", "200000")
        .create()
        .unwrap();
    let lifeline = Lifeline::default();
    let mut numbers = Numbers(1);
    let mut value = Vec::with_capacity(size);
    let mut index = 0;
    while more(index) {
        write_value(&mut value, &mut numbers, index, size, random);
        let key = format!("k{:07}", index % 10_000_000);
        let mut record = BaseRecord::to(topic)
            .partition((index % u64::from(PARTITIONS)) as i32)
            .key(key.as_str())
            .payload(value.as_slice());
        while let Err((error, back)) = producer.send(record) {
            assert_eq!(error.rdkafka_error_code(), Some(rdkafka::types::RDKafkaErrorCode::QueueFull));
            producer.poll(Duration::from_millis(1));
            lifeline.look(&producer);
            record = back;
        }
        index += 1;
        if index % 1000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_mins(2)).expect("the source broker takes the records");
}

/// One value as `fill` makes them.
pub(crate) fn value(size: usize) -> Vec<u8> {
    let mut value = Vec::new();
    write_value(&mut value, &mut Numbers(7), 1, size, false);
    value
}

fn write_value(value: &mut Vec<u8>, numbers: &mut Numbers, index: u64, size: usize, random: bool) {
    use std::io::Write as _;
    value.clear();
    if random {
        while value.len() < size {
            value.extend_from_slice(&numbers.next().to_le_bytes());
        }
    } else {
        let number = numbers.next();
        // Writing into a Vec cannot fail.
        let _ = write!(
            value,
            "{{\"sensor\":\"line-{:02}\",\"n\":{index},\"value\":{},\"unit\":\"mbar\",\"quality\":\"good\"}}",
            number >> 59,
            number % 10_000_000_000
        );
    }
    value.resize(size, b' ');
}

/// A generator (xorshift*, Marsaglia 2003 and Vigna 2016) that gives the same numbers in every run.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    /// The next one.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}
