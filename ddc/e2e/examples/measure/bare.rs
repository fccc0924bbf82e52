//! The bare loop: what every bridge from Kafka to Kafka must at least do.
//!
//! One thread reads with rdkafka's `BaseConsumer` and hands each record to a `BaseProducer`: key, value, headers,
//! timestamp and partition as they are, and the three provenance headers. The clients have the settings that DDC's own
//! ends have. It commits nothing, checks nothing, and a crash of it loses and doubles records.

use std::io::Write as _;
use std::time::{Duration, Instant};

use ddc_kafka::settings::{ClientSettings, Role, SinkSettings, SourceSettings};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};

use crate::load::PARTITIONS;
use crate::pair::cpu_seconds;

/// Answers of the broker are fetched after so many records, as in DDC's sink.
const SERVICE_EVERY: u64 = 256;
const MAX_RECORD_BYTES: u64 = 16 << 20;

/// `bare SOURCE DESTINATION FROM TO RECORDS`: copies so many records and prints seconds (from the first one read to the last
/// one acknowledged) and CPU-seconds (all of the process). 0 records: from the topic's end on, for ever; prints `ready`.
pub(crate) fn main(arguments: &[String]) {
    let [source, destination, from, to, records] = arguments else {
        panic!("bare SOURCE DESTINATION FROM TO RECORDS")
    };
    let records: u64 = records.parse().unwrap();
    let consumer = consumer(source, from, if records == 0 { Offset::End } else { Offset::Beginning });
    let producer = producer(destination);
    if records == 0 {
        // The first poll starts the fetchers; where the end is, is known soon after.
        let _ = consumer.poll(Duration::from_secs(2));
        println!("ready");
        std::io::stdout().flush().unwrap();
    }
    let (mut copied, mut start) = (0, Instant::now());
    let mut digits = String::new();
    while records == 0 || copied < records {
        let Some(message) = consumer.poll(Duration::from_millis(10)) else {
            producer.poll(Duration::ZERO);
            continue;
        };
        let message = message.expect("the source can be read");
        if copied == 0 {
            start = Instant::now();
        }
        copied += 1;
        let own = message.headers();
        let mut headers =
            OwnedHeaders::new_with_capacity(own.map_or(0, rdkafka::message::Headers::count) + 3);
        for header in own.into_iter().flat_map(|own| own.iter()) {
            headers = headers.insert(header);
        }
        headers = headers.insert(Header { key: "sourceTopic", value: Some(message.topic()) });
        headers = headers.insert(Header {
            key: "sourcePartition",
            value: Some(text(&mut digits, message.partition().into())),
        });
        headers =
            headers.insert(Header { key: "sourceOffset", value: Some(text(&mut digits, message.offset())) });
        let mut record: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(to).partition(message.partition()).headers(headers);
        record.key = message.key();
        record.payload = message.payload();
        record.timestamp = message.timestamp().to_millis();
        while let Err((error, back)) = producer.send(record) {
            assert_eq!(error.rdkafka_error_code(), Some(Code::QueueFull), "the destination can be written");
            producer.poll(Duration::from_millis(1));
            record = back;
        }
        if copied % SERVICE_EVERY == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::from_millis(1));
    }
    println!("{} {}", start.elapsed().as_secs_f64(), cpu_seconds(std::process::id()));
}

fn text(digits: &mut String, number: i64) -> &str {
    use std::fmt::Write as _;
    digits.clear();
    // Writing into a String cannot fail.
    let _ = write!(digits, "{number}");
    digits
}

fn consumer(brokers: &str, topic: &str, offset: Offset) -> BaseConsumer {
    let role = Role::Source(SourceSettings {
        group: "measure-bare".to_owned(),
        max_record_bytes: MAX_RECORD_BYTES,
        queue_bytes: 16 << 20,
    });
    let consumer: BaseConsumer =
        ClientSettings::plaintext([brokers], "measure-bare").build(&role).unwrap().create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition as i32, offset).unwrap();
    }
    consumer.assign(&list).unwrap();
    consumer
}

fn producer(brokers: &str) -> BaseProducer {
    let role = Role::Sink(SinkSettings {
        max_record_bytes: MAX_RECORD_BYTES,
        queue_bytes: 32 << 20,
        linger: Duration::from_millis(5),
        transactional_id: None,
    });
    ClientSettings::plaintext([brokers], "measure-bare").build(&role).unwrap().create().unwrap()
}
