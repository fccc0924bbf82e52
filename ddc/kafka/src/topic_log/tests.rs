//! With librdkafka's mock cluster, which has neither topic ids nor isolation; ddc/e2e/tests/progress_topic.rs goes on with
//! real brokers.

use super::*;
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::types::RDKafkaApiKey;

type Mock = MockCluster<'static, DefaultProducerContext>;
type Seen = Vec<(i64, Option<Vec<u8>>, Option<Vec<u8>>)>;

const LIMIT: Duration = Duration::from_secs(20);

fn mock(topic: &str) -> Mock {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic(topic, 1, 1).unwrap();
    mock
}

fn produce(mock: &Mock, topic: &str, records: &[(Option<&str>, Option<&str>)]) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", mock.bootstrap_servers()).set("linger.ms", "0");
    let producer: BaseProducer = config.create().unwrap();
    for (key, value) in records {
        let mut record: BaseRecord<'_, str, str> = BaseRecord::to(topic).partition(0);
        record.key = *key;
        record.payload = *value;
        producer.send(record).unwrap();
        producer.flush(LIMIT).unwrap();
    }
}

fn open(brokers: &str, topic: &str) -> (TopicLog, Reporter) {
    let reporter = Reporter::new("t", "progress");
    let settings = ClientSettings::plaintext([brokers], "t");
    (TopicLog::open(&settings, topic, reporter.clone()).unwrap(), reporter)
}

fn read_to(log: &mut TopicLog, end: i64) -> Result<Seen, TopicLogError> {
    let (mut seen, deadline) = (Seen::new(), Instant::now() + LIMIT);
    while log.position() < end {
        assert!(Instant::now() < deadline, "position {} of {end}; {seen:?}", log.position());
        log.poll(Duration::from_millis(200), |offset, key, value| {
            seen.push((offset, key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec)));
        })?;
    }
    Ok(seen)
}

#[test]
fn everything_is_delivered_in_order_nulls_and_empties_apart() {
    let mock = mock("log");
    produce(
        &mock,
        "log",
        &[(Some("a"), Some("1")), (Some("a"), None), (None, Some("")), (Some(""), Some("2"))],
    );
    let (mut log, _) = open(&mock.bootstrap_servers(), "log");
    let end = log.high_watermark(LIMIT).unwrap();
    assert_eq!((end, log.position()), (4, 0));
    let bytes = |text: &str| Some(text.as_bytes().to_vec());
    let want = [
        (0, bytes("a"), bytes("1")),
        (1, bytes("a"), None),
        (2, None, bytes("")),
        (3, bytes(""), bytes("2")),
    ];
    assert_eq!(read_to(&mut log, end).unwrap(), want);
    assert_eq!(log.poll(Duration::ZERO, |_, _, _| panic!("nothing twice")), Ok(0));
    // What comes later is delivered later.
    produce(&mock, "log", &[(Some("b"), Some("3"))]);
    assert_eq!(log.high_watermark(LIMIT), Ok(5));
    assert_eq!(read_to(&mut log, 5).unwrap(), [(4, bytes("b"), bytes("3"))]);
    assert_eq!(log.position(), 5, "the end of the log moves it no further");
}

#[test]
fn an_empty_topic_is_read_at_once_and_waiting_is_bounded() {
    let mock = mock("log");
    let (mut log, _) = open(&mock.bootstrap_servers(), "log");
    assert_eq!(log.high_watermark(LIMIT), Ok(0));
    // Connected by now, so the time is the wait's own.
    log.poll(Duration::from_millis(500), |_, _, _| {}).unwrap();
    let start = Instant::now();
    assert_eq!(log.poll(Duration::from_millis(100), |_, _, _| {}), Ok(0));
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(90) && took < Duration::from_secs(2), "{took:?}");
    let start = Instant::now();
    assert_eq!(log.poll(Duration::ZERO, |_, _, _| {}), Ok(0));
    assert!(start.elapsed() < Duration::from_millis(50), "{:?}", start.elapsed());
    assert_eq!(log.position(), 0);
}

#[test]
fn a_call_delivers_a_bounded_number() {
    let mock = mock("log");
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", mock.bootstrap_servers());
    let producer: BaseProducer = config.create().unwrap();
    let total = MAX_POLL + 17;
    for number in 0..total {
        let key = number.to_string();
        while producer.send(BaseRecord::to("log").partition(0).key(&key).payload("v")).is_err() {
            producer.poll(Duration::from_millis(10));
        }
    }
    producer.flush(LIMIT).unwrap();
    let (mut log, _) = open(&mock.bootstrap_servers(), "log");
    let (mut next, deadline) = (0, Instant::now() + LIMIT);
    while next < total as i64 {
        assert!(Instant::now() < deadline);
        let count = log
            .poll(Duration::from_millis(100), |offset, _, _| {
                assert_eq!(offset, next, "no record is left out");
                next += 1;
            })
            .unwrap();
        assert!(count <= MAX_POLL);
        assert_eq!(log.position(), next);
    }
}

#[test]
fn a_broker_that_is_away_is_told_and_passes() {
    let mock = mock("log");
    produce(&mock, "log", &[(Some("a"), Some("1"))]);
    let (mut log, reporter) = open(&mock.bootstrap_servers(), "log");
    read_to(&mut log, 1).unwrap();
    mock.broker_down(1).unwrap();
    let deadline = Instant::now() + LIMIT;
    while reporter.last_error().is_none() {
        assert!(Instant::now() < deadline, "the reporter was told nothing");
        log.poll(Duration::from_millis(50), |_, _, _| panic!("nobody is there")).unwrap();
    }
    let error = log.high_watermark(Duration::from_millis(300)).unwrap_err();
    assert!(error.is_passing(), "{error}");
    mock.broker_up(1).unwrap();
    produce(&mock, "log", &[(Some("a"), Some("2"))]);
    let seen = read_to(&mut log, 2).unwrap();
    assert_eq!(seen.len(), 1, "nothing is delivered twice after a reconnect: {seen:?}");
    assert!(reporter.last_error().is_none(), "it works again");
}

#[test]
fn fetch_errors_that_pass_are_counted_and_nothing_is_lost() {
    let mock = mock("log");
    produce(&mock, "log", &[(Some("a"), Some("1"))]);
    let (mut log, _) = open(&mock.bootstrap_servers(), "log");
    read_to(&mut log, 1).unwrap();
    let refuse = rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR;
    mock.request_errors(RDKafkaApiKey::Fetch, &[refuse; 3]);
    produce(&mock, "log", &[(Some("a"), Some("2")), (Some("b"), Some("3"))]);
    let seen = read_to(&mut log, 3).unwrap();
    assert_eq!(seen.iter().map(|(offset, ..)| *offset).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn an_error_of_the_partition_never_moves_the_position() {
    let mock = mock("log");
    let (mut log, _) = open(&mock.bootstrap_servers(), "log");
    produce(&mock, "log", &[(Some("a"), Some("1"))]);
    read_to(&mut log, 1).unwrap();
    let passing = |code: Code| ReadError {
        topic: "log".into(),
        partition: 0,
        offset: 1,
        code,
        text: "as librdkafka says".into(),
    };
    assert_eq!(log.judge(passing(Code::KafkaStorageError)), Ok(()));
    assert_eq!((log.position(), log.passing_errors()), (1, 1));
    for (code, what) in [
        (Code::TopicAuthorizationFailed, "READ and DESCRIBE"),
        (Code::AutoOffsetReset, "offset 1"),
        (Code::LogTruncation, "offset 1"),
        // No ids in the mock cluster: nobody else will say so.
        (Code::UnknownTopicOrPartition, "does not exist"),
    ] {
        let error = log.judge(passing(code)).unwrap_err();
        assert!(!error.is_passing() && error.to_string().contains(what), "{error}");
    }
    assert_eq!(log.position(), 1);
}

#[test]
fn what_the_brokers_say_of_the_topic_is_compared() {
    let mock = mock("log");
    let (mut log, _) = open(&mock.bootstrap_servers(), "log");
    let facts = |byte: u8, partitions| {
        let id = (byte > 0).then(|| TopicId::from_bytes([byte; 16]));
        Ok(TopicFacts { id, partitions })
    };
    assert_eq!(log.compare(facts(0, 1)), Ok(()), "a broker without ids");
    assert_eq!(log.compare(facts(1, 1)), Ok(()));
    assert_eq!(log.compare(facts(1, 1)), Ok(()));
    assert!(matches!(log.compare(facts(2, 1)), Err(TopicLogError::Recreated { .. })));
    assert!(matches!(log.compare(facts(1, 2)), Err(TopicLogError::Partitions { partitions: 2, .. })));
    let unknown = || Err(TopicError { code: Code::UnknownTopicOrPartition, text: "unknown".into() });
    assert_eq!(log.compare(unknown()), Ok(()), "one broker may not have heard of it yet");
    log.unknown_since = Instant::now().checked_sub(GONE_AFTER);
    assert!(matches!(log.compare(unknown()), Err(TopicLogError::Gone { .. })));
    assert_eq!(log.compare(facts(1, 1)), Ok(()));
    assert_eq!(log.compare(unknown()), Ok(()), "counted anew");
}

#[test]
fn a_topic_that_is_not_there_ends_in_an_error_that_stays() {
    let mock = MockCluster::new(1).unwrap();
    let mut settings = ClientSettings::plaintext([mock.bootstrap_servers()], "t");
    settings.properties.insert("client.rack".into(), "r".into());
    let mut log =
        TopicLog::open(&settings, "absent\0", Reporter::new("t", "progress")).map(drop).unwrap_err();
    assert!(matches!(log, TopicLogError::Client { .. }), "{log}");
    log = TopicLogError::Gone { topic: "absent".into() };
    let (mut follower, _) = open(&mock.bootstrap_servers(), "absent");
    follower.failed = Some(log.clone());
    assert_eq!(follower.poll(Duration::ZERO, |_, _, _| {}), Err(log.clone()));
    assert_eq!(follower.high_watermark(Duration::ZERO), Err(log));
}

#[test]
fn a_log_that_ends_before_the_position_is_another_log() {
    let mock = mock("log");
    let (mut log, _) = open(&mock.bootstrap_servers(), "log");
    log.position = 5;
    let error = log.high_watermark(LIMIT).unwrap_err();
    assert!(matches!(error, TopicLogError::Cut { position: 5, .. }), "{error}");
}

#[test]
fn a_cluster_that_is_away_costs_the_wait_and_no_more() {
    let (mut log, _) = open("127.0.0.1:1", "log");
    let start = Instant::now();
    assert_eq!(log.poll(Duration::from_millis(200), |_, _, _| {}), Ok(0));
    assert!(log.high_watermark(Duration::from_millis(500)).unwrap_err().is_passing());
    drop(log);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
