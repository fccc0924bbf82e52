//! What brokers say when they refuse a record, and a dead letter in a transaction: what `ddc_proxy::dead_letters` relies on,
//! with plain producers, without a link.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ddc_e2e::broker::Pair;
use ddc_e2e::cluster::Cluster;
use ddc_e2e::produce::now_millis;
use ddc_kafka::produce::{Headers, Outgoing, TopicProducer};
use ddc_proxy::config::{DeadLetterPlace, DeadLetters as Settings, OnFailure, Side};
use ddc_proxy::dead_letters::letter::Source;
use ddc_proxy::dead_letters::{DeadLetters, Letter, Next, Outcome, Refusal, verdict};
use ddc_proxy::gaps::Timestamp;
use ddc_telemetry::reasons::DeadLetterReason;
use ddc_wire::{RecordHeader, TopicId};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Headers as _, Message as _};
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

use crate::{LIMIT, clusters};

const CALL: Duration = Duration::from_secs(20);

type Answers = Arc<Mutex<Vec<(usize, Option<Code>)>>>;

struct Collecting(Answers);

impl ClientContext for Collecting {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Collecting {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let code = result.as_ref().err().map(|(error, _)| error.rdkafka_error_code().unwrap_or(Code::Fail));
        self.0.lock().unwrap().push((number, code));
    }
}

/// A producer whose records of one partition go in one request.
struct Requests {
    client: TopicProducer<Collecting>,
    answers: Answers,
    sent: usize,
}

impl Requests {
    fn new(cluster: &Cluster, transactional_id: Option<&str>) -> Self {
        let answers = Answers::default();
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", cluster.brokers())
            .set("enable.idempotence", "true")
            .set("linger.ms", "300")
            .set("message.max.bytes", "18000000");
        if let Some(id) = transactional_id {
            config.set("transactional.id", id);
        }
        let client: BaseProducer<Collecting> =
            config.create_with_context(Collecting(Arc::clone(&answers))).unwrap();
        if transactional_id.is_some() {
            client.init_transactions(CALL).unwrap();
        }
        Self { client: TopicProducer::new(client), answers, sent: 0 }
    }

    fn send(&mut self, topic: &str, record: &Plain) {
        self.hand_over(Outgoing {
            topic,
            partition: Some(0),
            key: record.key.then_some(b"k"),
            value: Some(&record.value),
            timestamp: record.timestamp,
            headers: None,
            number: self.sent,
        });
    }

    fn send_letter(&mut self, topic: &str, letter: &Letter) {
        let mut headers = Headers::with_capacity(0);
        for (name, value) in letter.headers() {
            headers.push(&name, value.as_deref());
        }
        self.hand_over(Outgoing {
            topic,
            partition: Some(0),
            key: letter.key.as_deref(),
            value: letter.value.as_deref(),
            timestamp: letter.millis(),
            headers: Some(headers),
            number: self.sent,
        });
    }

    fn hand_over(&mut self, record: Outgoing<'_>) {
        self.client.send(record).unwrap();
        self.sent += 1;
    }

    /// What was answered since the last call, in the order of sending.
    fn answers(&self) -> Vec<Option<Code>> {
        let begun = Instant::now();
        while self.client.client().in_flight_count() > 0 {
            assert!(begun.elapsed() < LIMIT, "{} without an answer", self.client.client().in_flight_count());
            self.client.client().poll(Duration::from_millis(1));
        }
        let mut answers = std::mem::take(&mut *self.answers.lock().unwrap());
        answers.sort_by_key(|(number, _)| *number);
        answers.into_iter().map(|(_, code)| code).collect()
    }
}

#[derive(Clone)]
struct Plain {
    key: bool,
    value: Vec<u8>,
    timestamp: i64,
}

fn good() -> Plain {
    Plain { key: true, value: b"v".to_vec(), timestamp: now_millis() }
}

/// Random, so that no compression makes it fit.
fn large() -> Plain {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let value = (0..300_000).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    });
    Plain { value: value.collect(), ..good() }
}

/// Sends six records in one request, these among them; returns what is said of each.
fn refused(cluster: &Cluster, id: &str, topic: &str, bad: &[(usize, Plain)]) -> Vec<Option<Code>> {
    let six = |requests: &mut Requests| {
        for number in 0..6 {
            let bad = bad.iter().find(|(at, _)| *at == number);
            requests.send(topic, &bad.map_or_else(good, |(_, record)| record.clone()));
        }
        requests.answers()
    };
    let mut idempotent = Requests::new(cluster, None);
    let said = six(&mut idempotent);
    println!("          {topic}, of six in a request: {said:?}");
    if said.iter().any(Option::is_some) {
        assert!(idempotent.client.client().client().fatal_error().is_none());
        idempotent.send(topic, &good());
        assert_eq!(idempotent.answers(), [None], "an idempotent producer goes on");
    }
    let mut transactional = Requests::new(cluster, Some(id));
    transactional.client.client().begin_transaction().unwrap();
    assert_eq!(six(&mut transactional), said, "the same in a transaction");
    let committed = transactional.client.client().commit_transaction(CALL);
    if said.iter().all(Option::is_none) {
        committed.unwrap();
        return said;
    }
    // Every refusal ends the transaction.
    println!("          {}", committed.unwrap_err());
    transactional.client.client().abort_transaction(CALL).unwrap();
    // librdkafka 2.12.1 has counted the refused records: the first transaction after the abort fails too
    // (OUT_OF_ORDER_SEQUENCE_NUMBER), with the answer `PurgeQueue`; its abort raises the epoch, and then all is well.
    let mut failed = Vec::new();
    for _ in 0..4 {
        transactional.client.client().begin_transaction().unwrap();
        transactional.send(topic, &good());
        let said = transactional.answers();
        match transactional.client.client().commit_transaction(CALL) {
            Ok(()) => {
                assert_eq!(said, [None]);
                break;
            }
            Err(error) => {
                println!("          and the next: {said:?}, {error}");
                failed.push(said);
                transactional.client.client().abort_transaction(CALL).unwrap();
            }
        }
    }
    assert_eq!(failed, [vec![Some(Code::PurgeQueue)]], "one more is lost, and no other");
    assert!(transactional.client.client().client().fatal_error().is_none());
    said
}

fn facts(pair: &Pair, after_max_by_default: bool) {
    let (_, cluster) = clusters(pair);
    let (old, ahead) = (now_millis() - 7_200_000, now_millis() + 7_200_000);
    let at = |timestamp: i64| Plain { timestamp, ..good() };
    let all = |code: Option<Code>| vec![code; 6];
    let create = |topic: &str, config: &[(&str, &str)]| cluster.create(topic, 1, config);
    create("r-before", &[("message.timestamp.before.max.ms", "3600000")]);
    create("r-after", &[("message.timestamp.after.max.ms", "3600000")]);
    create("r-default", &[]);
    create("r-compacted", &[("cleanup.policy", "compact")]);
    create("r-small", &[("max.message.bytes", "100000")]);
    let say = |topic: &str, bad: &[(usize, Plain)]| refused(&cluster, topic, topic, bad);

    let timestamp = Some(Code::InvalidTimestamp);
    assert_eq!(say("r-before", &[(2, at(old))]), all(timestamp), "one: said of each");
    assert_eq!(say("r-after", &[(2, at(ahead))]), all(timestamp));
    let (bad, other) = (Some(Code::InvalidRecord), Some(Code::InvalidDifferentRecord));
    let two = say("r-before", &[(2, at(old)), (4, at(old))]);
    assert_eq!(two, [other, other, bad, other, bad, other], "two: said of these, but not why");
    let by_default = if after_max_by_default { timestamp } else { None };
    assert_eq!(say("r-default", &[(2, at(ahead))]), all(by_default), "Kafka 4: an hour ahead");
    assert_eq!(say("r-default", &[(2, at(1))]), all(None), "no limit in the past by default");
    assert_eq!(say("r-before", &[(2, at(-1))]), all(None), "no timestamp is never refused");
    let keyless = Plain { key: false, ..good() };
    assert_eq!(say("r-compacted", &[(2, keyless)]), all(Some(Code::InvalidRecord)));
    assert_eq!(say("r-small", &[(2, large())]), all(Some(Code::MessageSizeTooLarge)));

    // Alone a record gets the reason that is its own.
    for (topic, record, reason) in [
        ("r-before", at(old), DeadLetterReason::InvalidTimestamp),
        ("r-after", at(ahead), DeadLetterReason::InvalidTimestamp),
        ("r-compacted", Plain { key: false, ..good() }, DeadLetterReason::InvalidRecord),
        ("r-small", large(), DeadLetterReason::TooLarge),
    ] {
        let mut requests = Requests::new(&cluster, None);
        requests.send(topic, &record);
        let answers = requests.answers();
        let [Some(code)] = answers[..] else { panic!("{topic}: {answers:?}") };
        assert_eq!((verdict(code, true), verdict(code, false)), (Outcome::Refused(reason), Outcome::Alone));
    }
}

#[test]
fn what_kafka_4_says_of_a_refused_record() {
    facts(Pair::kafka_4(), true);
}

#[test]
fn what_kafka_3_says_of_a_refused_record() {
    facts(Pair::kafka_3(), false);
}

/// A record as a `read_committed` consumer gets it.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<String>)>,
    millis: Option<i64>,
}

fn committed(cluster: &Cluster, topic: &str) -> Vec<Seen> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.brokers())
        .set("group.id", "e2e-committed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let (mut seen, begun) = (Vec::new(), Instant::now());
    loop {
        assert!(begun.elapsed() < LIMIT, "no end of {topic}");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Err(KafkaError::PartitionEOF(_))) => return seen,
            Some(Err(error)) => println!("          {error}"),
            None => {}
            Some(Ok(message)) => seen.push(Seen {
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
                headers: message.headers().map_or_else(Vec::new, |headers| {
                    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
                    headers.iter().map(|header| (header.key.to_owned(), header.value.map(text))).collect()
                }),
                millis: message.timestamp().to_millis(),
            }),
        }
    }
}

fn in_a_transaction(pair: &Pair) {
    let (_, cluster) = clusters(pair);
    cluster.create("t-orders", 1, &[("message.timestamp.before.max.ms", "3600000")]);
    cluster.create("t-dead", 1, &[]);
    cluster.create("t-dead-small", 1, &[("max.message.bytes", "100000")]);
    let settings = |topic: &str| Settings {
        place: DeadLetterPlace::Topic(topic.parse().unwrap()),
        on_failure: OnFailure::Gap,
    };
    let letters = DeadLetters::open(&settings("t-dead"), &"plant-a".parse().unwrap(), Side::Egress).unwrap();
    let source = Source {
        stream: String::new(),
        topic: "orders".into(),
        topic_id: TopicId::Configured(3),
        partition: 5,
        offset: 4711,
        timestamp: Some(ddc_wire::Timestamp::Create(17)),
    };
    let refusal = Refusal {
        destination_topic: Some("t-orders"),
        reason: DeadLetterReason::InvalidTimestamp,
        error: &Code::InvalidTimestamp.to_string(),
        at: Timestamp::now(),
    };
    let own =
        [RecordHeader { name: b"trace", value: Some(b"1") }, RecordHeader { name: b"trace", value: None }];
    let value = large().value;
    let letter = Letter::new(letters.by(), source, Some(b"key"), Some(&value), own.into_iter(), refusal);

    // What refuses the record ends the transaction; the span is written again with the letter, in one transaction.
    let mut requests = Requests::new(&cluster, Some("t-engine"));
    requests.client.client().begin_transaction().unwrap();
    requests.send("t-orders", &Plain { timestamp: 17, ..good() });
    assert_eq!(requests.answers(), [Some(Code::InvalidTimestamp)]);
    requests.client.client().abort_transaction(CALL).unwrap();
    let mut attempts = 0;
    loop {
        attempts += 1;
        assert!(attempts < 4);
        requests.client.client().begin_transaction().unwrap();
        requests.send("t-orders", &good());
        requests.send_letter(letters.topic().unwrap(), &letter);
        let said = requests.answers();
        // As far as a consumer can tell nothing is there before the commit, whatever was acknowledged.
        assert_eq!((committed(&cluster, "t-dead"), committed(&cluster, "t-orders")), (vec![], vec![]));
        if requests.client.client().commit_transaction(CALL).is_ok() {
            assert_eq!(said, [None, None]);
            break;
        }
        requests.client.client().abort_transaction(CALL).unwrap();
    }
    assert_eq!(committed(&cluster, "t-orders").len(), 1);
    let header = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
    let seen = committed(&cluster, "t-dead");
    let expected = Seen {
        key: Some(b"key".to_vec()),
        value: Some(value),
        headers: vec![
            header("trace", "1"),
            ("trace".to_owned(), None),
            header("ddcError", "invalid_timestamp"),
            header("ddcErrorText", &Code::InvalidTimestamp.to_string()),
            header("ddcRefusedAt", &letter.refused_at.to_string()),
            header("ddcRefusedBy", "plant-a/egress"),
            header("ddcDestinationTopic", "t-orders"),
            header("sourceTopic", "orders"),
            header("sourcePartition", "5"),
            header("sourceOffset", "4711"),
            header("sourceTopicId", "epoch-3"),
            header("sourceTimestamp", "17"),
            header("sourceTimestampType", "CreateTime"),
        ],
        millis: Some(letter.millis()),
    };
    assert_eq!(seen, [expected]);

    // A topic that does not take it gets it without its payload; then it is over, whatever it says.
    let mut requests = Requests::new(&cluster, None);
    requests.send_letter("t-dead-small", &letter);
    let said = requests.answers();
    assert_eq!(said, [Some(Code::MessageSizeTooLarge)]);
    let Next::Instead(small) = letters.after(&letter, said[0].unwrap(), 1) else {
        panic!("it is given again")
    };
    requests.send_letter("t-dead-small", &small);
    assert_eq!(requests.answers(), [None]);
    let seen = committed(&cluster, "t-dead-small");
    assert_eq!((seen.len(), &seen[0].value, seen[0].key.as_deref()), (1, &None, Some(&b"key"[..])));
    assert!(seen[0].headers.contains(&header("ddcValueBytes", "300000")));
    assert_eq!(letters.after(&small, Code::MessageSizeTooLarge, 2), Next::Gap);
}

#[test]
fn a_letter_is_committed_with_the_records_or_not_at_all_on_kafka_4() {
    in_a_transaction(Pair::kafka_4());
}

#[test]
fn a_letter_is_committed_with_the_records_or_not_at_all_on_kafka_3() {
    in_a_transaction(Pair::kafka_3());
}
