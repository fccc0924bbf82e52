//! A topic followed from its beginning: transactions in every state, compaction, re-creation, restarts.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ddc_e2e::broker::Broker;
use ddc_e2e::cluster::Cluster;
use ddc_e2e::wait::{timed, until};
use ddc_kafka::context::Reporter;
use ddc_kafka::settings::ClientSettings;
use ddc_kafka::topic_log::{TopicLog, TopicLogError};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::LIMIT;

/// Nothing may move in this time.
const STANDS: Duration = Duration::from_millis(1500);

/// A broker that compacts without waiting.
fn broker(line: &'static str) -> &'static Broker {
    static BROKERS: [OnceLock<Broker>; 2] = [OnceLock::new(), OnceLock::new()];
    BROKERS[usize::from(line == "4")].get_or_init(|| {
        timed(&format!("a broker, Kafka {line}"), || {
            let broker = Broker::start_with(&format!("log-{line}"), line, &["log.cleaner.backoff.ms=100"]);
            broker.wait_ready();
            broker
        })
    })
}

/// A topic with one partition, followed.
struct Followed {
    cluster: Cluster,
    topic: String,
    log: TopicLog,
    seen: Vec<(i64, String, Option<String>)>,
}

impl Followed {
    fn new(broker: &Broker, topic: &str, config: &[(&str, &str)]) -> Followed {
        Cluster::new(&broker.plaintext()).create(topic, 1, config);
        Followed::open(broker, topic)
    }

    fn open(broker: &Broker, topic: &str) -> Followed {
        let settings = ClientSettings::plaintext([broker.plaintext()], "e2e");
        let log = TopicLog::open(&settings, topic, Reporter::new("e2e", "progress")).unwrap();
        Followed {
            cluster: Cluster::new(&broker.plaintext()),
            topic: topic.to_owned(),
            log,
            seen: Vec::new(),
        }
    }

    fn poll(&mut self, wait: Duration) -> Result<usize, TopicLogError> {
        let seen = &mut self.seen;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        self.log.poll(wait, |offset, key, value| {
            seen.push((offset, key.map(text).unwrap_or_default(), value.map(text)));
        })
    }

    fn end(&self) -> i64 {
        until("the end of the log is told", LIMIT, || self.log.high_watermark(Duration::from_secs(2)))
    }

    /// Reads to the end that the log has now; how long it took.
    fn read(&mut self) -> Duration {
        let (end, start) = (self.end(), Instant::now());
        while self.log.position() < end {
            assert!(start.elapsed() < LIMIT, "position {} of {end}", self.log.position());
            self.poll(Duration::from_millis(200)).unwrap();
        }
        start.elapsed()
    }

    fn ends_at(&self, offset: i64) {
        until("the log ends there", LIMIT, || match self.end() {
            end if end == offset => Ok(()),
            end => Err(format!("{end}, not {offset}")),
        });
    }

    /// The offsets seen since the last call.
    fn offsets(&mut self) -> Vec<i64> {
        self.seen.drain(..).map(|(offset, ..)| offset).collect()
    }

    fn until_refused(&mut self) -> TopicLogError {
        let start = Instant::now();
        loop {
            if let Err(error) = self.poll(Duration::from_millis(100)) {
                println!("{:>7.2} s  {error}", start.elapsed().as_secs_f64());
                assert!(!error.is_passing());
                assert_eq!(self.poll(Duration::ZERO), Err(error.clone()), "it stays");
                return error;
            }
            assert!(start.elapsed() < LIMIT, "nothing was noticed");
        }
    }
}

fn producer(broker: &Broker, transactional_id: Option<&str>) -> BaseProducer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", broker.plaintext())
        .set("linger.ms", "0")
        .set("enable.idempotence", "true");
    if let Some(id) = transactional_id {
        config.set("transactional.id", id);
    }
    let producer: BaseProducer = config.create().unwrap();
    if transactional_id.is_some() {
        producer.init_transactions(LIMIT).unwrap();
    }
    producer
}

fn send(producer: &BaseProducer, topic: &str, records: &[(&str, Option<&str>)]) {
    for (key, value) in records {
        let mut record: BaseRecord<'_, str, str> = BaseRecord::to(topic).partition(0).key(key);
        record.payload = *value;
        producer.send(record).unwrap();
    }
    // `flush` would wait 100 ms at a time.
    until("the records are acknowledged", LIMIT, || {
        producer.poll(Duration::from_millis(1));
        if producer.in_flight_count() == 0 { Ok(()) } else { Err(producer.in_flight_count()) }
    });
}

fn transactions(line: &'static str) {
    let broker = broker(line);
    let mut followed = Followed::new(broker, &format!("transactions-{line}"), &[]);
    let topic = followed.topic.clone();
    let (writer, plain) = (producer(broker, Some(&topic)), producer(broker, None));
    let put = |producer: &BaseProducer, keys: &[&str]| {
        let records: Vec<_> = keys.iter().map(|key| (*key, Some("v"))).collect();
        send(producer, &topic, &records);
    };

    writer.begin_transaction().unwrap();
    put(&writer, &["a", "b", "c"]);
    writer.commit_transaction(LIMIT).unwrap();
    // Three records and a marker.
    followed.ends_at(4);
    println!("{:>7.3} s  the first reading", followed.read().as_secs_f64());
    assert_eq!((followed.offsets(), followed.log.position()), (vec![0, 1, 2], 4));

    // Aborted: nothing is delivered, and the position goes past all of it.
    writer.begin_transaction().unwrap();
    put(&writer, &["never", "never"]);
    writer.abort_transaction(LIMIT).unwrap();
    // The answer to the end of a transaction does not wait for its marker.
    followed.ends_at(7);
    println!("{:>7.3} s  past an aborted transaction", followed.read().as_secs_f64());
    assert_eq!((followed.offsets(), followed.log.position()), (vec![], 7));

    // Open: what lies before it is delivered, and nothing behind its first record.
    put(&plain, &["before"]);
    writer.begin_transaction().unwrap();
    put(&writer, &["open"]);
    put(&plain, &["behind"]);
    // The open transaction counts.
    followed.ends_at(10);
    let start = Instant::now();
    while start.elapsed() < STANDS {
        followed.poll(Duration::from_millis(100)).unwrap();
        assert!(followed.log.position() <= 8, "the position has passed an open transaction");
    }
    assert_eq!((followed.offsets(), followed.log.position()), (vec![7], 8));
    writer.commit_transaction(LIMIT).unwrap();
    followed.ends_at(11);
    println!("{:>7.3} s  past a transaction that was open", followed.read().as_secs_f64());
    assert_eq!((followed.offsets(), followed.log.position()), (vec![8, 9], 11));

    // Left open by a writer that is dead: fencing it ends it, as a takeover does.
    writer.begin_transaction().unwrap();
    put(&writer, &["dead"]);
    let fencer = producer(broker, Some(&topic));
    assert_eq!(followed.end(), 13, "fencing has waited for the marker");
    println!("{:>7.3} s  past a transaction that was fenced", followed.read().as_secs_f64());
    assert_eq!((followed.offsets(), followed.log.position()), (vec![], 13));
    put(&writer, &["too late"]);
    assert!(writer.commit_transaction(LIMIT).is_err(), "it was fenced");
    fencer.begin_transaction().unwrap();
    put(&fencer, &["mine"]);
    fencer.commit_transaction(LIMIT).unwrap();
    followed.read();
    assert_eq!(followed.seen.iter().map(|(_, key, _)| key.as_str()).collect::<Vec<_>>(), ["mine"]);
}

#[test]
fn transactions_on_kafka_4() {
    transactions("4");
}

#[test]
fn transactions_on_kafka_3() {
    transactions("3");
}

const KEYS: [&str; 10] = ["k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9"];

/// Whatever the cleaner has removed: every key's last value is seen, and the position reaches the end.
fn compacted(line: &'static str) {
    let broker = broker(line);
    let config = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "100"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("delete.retention.ms", "0"),
    ];
    let mut followed = Followed::new(broker, &format!("compacted-{line}"), &config);
    let topic = followed.topic.clone();
    let writer = producer(broker, Some(&topic));
    let mut last = BTreeMap::new();
    let mut round = |number: u32| {
        writer.begin_transaction().unwrap();
        // Half of the keys end as tombstones; every third round is aborted.
        let value = format!("v{number}");
        let records = KEYS.map(|key| (key, (number < 20 || key < "k5").then_some(value.as_str())));
        send(&writer, &topic, &records);
        if number % 3 != 2 {
            last.extend(records.map(|(key, value)| (key.to_owned(), value.map(str::to_owned))));
        }
        let ended =
            if number % 3 == 2 { writer.abort_transaction(LIMIT) } else { writer.commit_transaction(LIMIT) };
        ended.unwrap();
    };
    for number in 0..30 {
        round(number);
    }
    let total = followed.end();
    let mut number = 30;
    // The cleaner takes whole segments, and the newest never: more rounds roll it.
    let fresh = until("the cleaner has removed most of it", LIMIT, || {
        round(number);
        number += 1;
        let mut fresh = Followed::open(broker, &topic);
        fresh.read();
        if fresh.seen.len() < 100 { Ok(fresh) } else { Err(format!("{} records are left", fresh.seen.len())) }
    });
    println!("          {} records are left of {total} offsets, {number} rounds", fresh.seen.len());
    let values = |seen: &[(i64, String, Option<String>)]| -> BTreeMap<String, Option<String>> {
        seen.iter().map(|(_, key, value)| (key.clone(), value.clone())).collect()
    };
    // A tombstone may be gone with what it removed.
    let living = |map: BTreeMap<String, Option<String>>| -> BTreeMap<String, String> {
        map.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    };
    followed.read();
    assert_eq!(followed.log.position(), followed.end());
    assert_eq!(living(values(&fresh.seen)), living(last.clone()), "read after compaction");
    assert_eq!(living(values(&followed.seen)), living(last), "followed all the while");
    assert!(fresh.seen.is_sorted_by(|a, b| a.0 < b.0), "in order, nothing twice");
}

#[test]
fn a_compacted_topic_on_kafka_4() {
    compacted("4");
}

#[test]
fn a_compacted_topic_on_kafka_3() {
    compacted("3");
}

/// Deleted; created again with as much, or more, in it: never taken for the same log.
fn another_life(line: &'static str) {
    let broker = broker(line);
    let fill =
        |topic: &str, count: usize| send(&producer(broker, None), topic, &vec![("k", Some("v")); count]);

    let mut followed = Followed::new(broker, &format!("deleted-{line}"), &[]);
    fill(&followed.topic, 5);
    followed.read();
    followed.cluster.delete(&followed.topic);
    assert!(matches!(followed.until_refused(), TopicLogError::Gone { .. }));

    let mut followed = Followed::new(broker, &format!("again-{line}"), &[]);
    fill(&followed.topic, 5);
    followed.read();
    until("its id is known", LIMIT, || {
        followed.poll(Duration::from_millis(20)).unwrap();
        followed.log.topic_id().ok_or("none")
    });
    followed.cluster.delete(&followed.topic);
    followed.cluster.create(&followed.topic, 1, &[]);
    fill(&followed.topic, 50);
    let error = followed.until_refused();
    assert!(matches!(error, TopicLogError::Recreated { .. } | TopicLogError::Cut { .. }), "{error}");

    // Nothing was in it: no offset tells, only the id.
    let mut followed = Followed::new(broker, &format!("empty-{line}"), &[]);
    let before = until("its id is known", LIMIT, || {
        followed.poll(Duration::from_millis(20)).unwrap();
        followed.log.topic_id().ok_or("none")
    });
    followed.cluster.delete(&followed.topic);
    followed.cluster.create(&followed.topic, 1, &[]);
    match followed.until_refused() {
        TopicLogError::Recreated { topic, before: old, now } => {
            assert_eq!((topic, old), (followed.topic.clone(), before));
            assert_ne!(now, before);
        }
        other => panic!("{other}"),
    }

    // The end of a shorter life is never taken for the end of this one, also before the id is heard of.
    let mut followed = Followed::new(broker, &format!("shorter-{line}"), &[]);
    fill(&followed.topic, 5);
    followed.read();
    followed.cluster.delete(&followed.topic);
    followed.cluster.create(&followed.topic, 1, &[]);
    fill(&followed.topic, 2);
    let error = until("the end is told", LIMIT, || match followed.log.high_watermark(LIMIT) {
        Err(passing) if passing.is_passing() => Err(passing),
        other => Ok(other),
    });
    assert!(matches!(error, Err(TopicLogError::Cut { position: 5, .. })), "{error:?}");
}

#[test]
fn another_life_of_the_topic_on_kafka_4() {
    another_life("4");
}

#[test]
fn another_life_of_the_topic_on_kafka_3() {
    another_life("3");
}

/// Records before a time are deleted, by hand or retention: what is left is read; an empty rest has its end, too.
#[test]
fn a_log_that_begins_later_is_read_from_there() {
    let broker = broker("4");
    let (cluster, topic) = (Cluster::new(&broker.plaintext()), "begins-later");
    cluster.create(topic, 1, &[]);
    send(&producer(broker, None), topic, &[("k", Some("v")); 10]);
    for (first, seen) in [(7, vec![7, 8, 9]), (10, vec![])] {
        cluster.delete_records(topic, 0, first);
        let mut followed = Followed::open(broker, topic);
        followed.read();
        assert_eq!((followed.offsets(), followed.log.position()), (seen, 10));
    }
}

#[test]
fn more_than_one_partition_is_refused() {
    let broker = broker("4");
    let mut followed = Followed::new(broker, "widened", &[]);
    followed.read();
    followed.cluster.add_partitions("widened", 2);
    assert!(matches!(followed.until_refused(), TopicLogError::Partitions { partitions: 2, .. }));
}

/// A broker that dies and comes back: nothing is lost, nothing delivered twice, and no error is final.
#[test]
fn a_restart_of_the_broker_passes() {
    let broker = broker("4");
    let mut followed = Followed::new(broker, "restart", &[]);
    let topic = followed.topic.clone();
    let writer = producer(broker, Some("restart"));
    let mut round = 0;
    let mut write = |count: usize| {
        for _ in 0..count {
            writer.begin_transaction().unwrap();
            send(&writer, &topic, &[("k", Some(&round.to_string()))]);
            writer.commit_transaction(LIMIT).unwrap();
            round += 1;
        }
        round
    };
    write(20);
    followed.read();
    timed("killed and started again", || {
        broker.kill();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(2) {
            assert_eq!(followed.poll(Duration::from_millis(100)), Ok(0));
        }
        broker.restart();
    });
    let total = write(20);
    timed("read on", || followed.read());
    let values: Vec<_> = followed.seen.iter().map(|(_, _, value)| value.clone().unwrap()).collect();
    let wanted: Vec<_> = (0..total).map(|number| number.to_string()).collect();
    assert_eq!(values, wanted);
}
