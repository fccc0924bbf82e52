use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};

use super::*;
use crate::context::Reporter;
use crate::range::RangeReader;
use crate::settings::{ClientSettings, Role, SourceSettings};

/// The numbers that were answered, and whether the record is there.
#[derive(Clone, Default)]
struct Answers(Arc<Mutex<Vec<(usize, bool)>>>);

impl ClientContext for Answers {}

impl ProducerContext for Answers {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        self.0.lock().unwrap().push((number, result.is_ok()));
    }
}

fn producer(brokers: &str, more: &[(&str, &str)]) -> (TopicProducer<Answers>, Answers) {
    let answers = Answers::default();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("linger.ms", "1");
    for (name, value) in more {
        config.set(*name, *value);
    }
    let client: BaseProducer<Answers> = config.create_with_context(answers.clone()).unwrap();
    (TopicProducer::new(client), answers)
}

fn wait_for(producer: &TopicProducer<Answers>, answers: &Answers, count: usize) {
    let start = Instant::now();
    while answers.0.lock().unwrap().len() < count {
        assert!(start.elapsed() < Duration::from_secs(20), "{count} answers come");
        producer.client().poll(Duration::from_millis(10));
    }
}

fn outgoing(topic: &str, number: usize) -> Outgoing<'_> {
    Outgoing { topic, partition: Some(0), key: None, value: None, timestamp: 1, headers: None, number }
}

/// As a consumer of the binding shows a record; names of headers are text there.
type Seen = (Option<Vec<u8>>, Option<Vec<u8>>, Option<i64>, Vec<(String, Option<Vec<u8>>)>);

fn read(brokers: &str, topic: &str, count: usize) -> Vec<Seen> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", "t").create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    (0..count)
        .map(|_| {
            let message = consumer.poll(Duration::from_secs(20)).expect("a record comes").unwrap();
            let headers = message.headers().map_or(Vec::new(), |headers| {
                let value = |value: &[u8]| value.to_vec();
                headers.iter().map(|header| (header.key.to_owned(), header.value.map(value))).collect()
            });
            let bytes = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
            (bytes(message.key()), bytes(message.payload()), message.timestamp().to_millis(), headers)
        })
        .collect()
}

#[test]
fn every_field_arrives_as_it_was_and_every_number_is_answered_once() {
    let mock = MockCluster::new(1).unwrap();
    let brokers = mock.bootstrap_servers();
    let (mut producer, answers) = producer(&brokers, &[]);
    let mut headers = Headers::with_capacity(1);
    headers.push(b"h", Some(b"one"));
    headers.push(b"h", None);
    headers.push(b"", Some(b""));
    let full = Outgoing { key: Some(b"k"), value: Some(b"v"), headers: Some(headers), ..outgoing("t", 7) };
    producer.send(full).unwrap();
    producer.send(Outgoing { key: Some(b""), value: Some(b""), timestamp: -1, ..outgoing("t", 8) }).unwrap();
    producer.send(Outgoing { timestamp: 1_600_000_000_000, ..outgoing("t", usize::MAX) }).unwrap();
    wait_for(&producer, &answers, 3);
    assert_eq!(*answers.0.lock().unwrap(), [(7, true), (8, true), (usize::MAX, true)]);
    let bytes = |bytes: &[u8]| Some(bytes.to_vec());
    let expected = [
        (
            bytes(b"k"),
            bytes(b"v"),
            Some(1),
            vec![("h".to_owned(), bytes(b"one")), ("h".to_owned(), None), (String::new(), bytes(b""))],
        ),
        (bytes(b""), bytes(b""), None, vec![]),
        (None, None, Some(1_600_000_000_000), vec![]),
    ];
    assert_eq!(read(&brokers, "t", 3), expected);
}

#[test]
fn without_a_partition_the_key_decides_and_zero_is_now() {
    let mock = MockCluster::new(1).unwrap();
    let brokers = mock.bootstrap_servers();
    mock.create_topic("t", 1, 1).unwrap();
    let (mut producer, answers) = producer(&brokers, &[]);
    let record = Outgoing { partition: None, key: Some(b"k"), timestamp: 0, ..outgoing("t", 1) };
    producer.send(record).unwrap();
    wait_for(&producer, &answers, 1);
    let time = read(&brokers, "t", 1)[0].2.unwrap();
    assert!(time > 1_700_000_000_000, "{time}");
}

#[test]
fn what_is_not_taken_says_why_and_is_not_answered() {
    let mock = MockCluster::new(1).unwrap();
    let limits =
        [("queue.buffering.max.messages", "2"), ("linger.ms", "60000"), ("message.max.bytes", "1000")];
    let (mut producer, answers) = producer(&mock.bootstrap_servers(), &limits);
    let headers = || {
        let mut headers = Headers::with_capacity(1);
        headers.push(b"h", Some(b"given back when the record is not taken"));
        Some(headers)
    };
    for number in 0..2 {
        producer.send(Outgoing { headers: headers(), ..outgoing("t", number) }).unwrap();
    }
    let full = producer.send(Outgoing { headers: headers(), ..outgoing("t", 2) });
    assert_eq!(full, Err(Code::QueueFull));
    let large = [0; 2000];
    let too_large = producer.send(Outgoing { value: Some(&large), headers: headers(), ..outgoing("t", 3) });
    assert_eq!(too_large, Err(Code::MessageSizeTooLarge));
    for name in ["a\0b", &"n".repeat(513)] {
        assert_eq!(producer.send(outgoing(name, 4)), Err(Code::InvalidArgument));
    }
    producer.client().purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
    wait_for(&producer, &answers, 2);
    drop(producer);
    assert_eq!(*answers.0.lock().unwrap(), [(0, false), (1, false)]);
}

#[test]
fn names_of_headers_may_be_any_bytes_but_zeros() {
    let mock = MockCluster::new(1).unwrap();
    let brokers = mock.bootstrap_servers();
    let (mut producer, answers) = producer(&brokers, &[]);
    let mut headers = Headers::with_capacity(1);
    headers.push(&[b'x', 0xff, 0xfe], Some(b"v"));
    producer.send(Outgoing { headers: Some(headers), ..outgoing("t", 1) }).unwrap();
    wait_for(&producer, &answers, 1);
    // The binding's consumer cannot show such a name; the link's own reader can.
    let source = SourceSettings { group: "t".into(), max_record_bytes: 1 << 20, queue_bytes: 1 << 20 };
    let settings = ClientSettings::plaintext([brokers], "t");
    let (reading, asking) =
        (settings.build(&Role::Replay(source)).unwrap(), settings.build(&Role::Admin).unwrap());
    let mut reader =
        RangeReader::new(&reading, &asking, Reporter::new("t", "replay"), 10, Duration::from_secs(5))
            .unwrap();
    reader.assign("t", 0, 0).unwrap();
    let start = Instant::now();
    let seen = loop {
        let batch = reader.read(Duration::from_millis(100));
        let record = batch.iter().find_map(Result::ok);
        if let Some(record) = record {
            break record.headers().map(|header| header.name.to_vec()).collect::<Vec<_>>();
        }
        assert!(start.elapsed() < Duration::from_secs(20), "the record comes");
    };
    assert_eq!(seen, [[b'x', 0xff, 0xfe]]);
}
