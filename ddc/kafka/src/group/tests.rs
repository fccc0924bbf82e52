use super::*;
use crate::settings::{ClientSettings, Role, SourceSettings};
use rdkafka::Offset;
use rdkafka::Timestamp;
use rdkafka::message::{Header, Headers as _, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::types::RDKafkaApiKey;
use std::collections::BTreeMap;
use std::time::Instant;

type Mock = MockCluster<'static, DefaultProducerContext>;

/// A record with everything that must survive.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Copied {
    offset: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp: Timestamp,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

fn config(mock: &Mock, group: &str) -> ClientConfig {
    let role =
        Role::Source(SourceSettings { group: group.into(), max_record_bytes: 1 << 20, queue_bytes: 8 << 20 });
    ClientSettings::plaintext([mock.bootstrap_servers()], "t").build(&role).unwrap()
}

fn member(mock: &Mock, group: &str) -> GroupMember {
    GroupMember::new(&config(mock, group), Reporter::new("t", "source"), 100).unwrap()
}

fn produce(mock: &Mock, topic: &str, partition: i32, from: u64, count: u64) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", mock.bootstrap_servers()).set("linger.ms", "1");
    let producer: BaseProducer = config.create().unwrap();
    for number in from..from + count {
        let value = vec![b'v'; (number % 50) as usize];
        let key = number.to_string();
        let mut record: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(topic).partition(partition).timestamp(1_600_000_000_000 + number as i64);
        if number % 7 != 1 {
            record = record.payload(&value);
        }
        if number % 5 != 1 {
            record = record.key(if number % 5 == 2 { b"" } else { key.as_bytes() });
        }
        if number % 3 == 0 {
            let headers = OwnedHeaders::new()
                .insert(Header { key: "h", value: Some(key.as_bytes()) })
                .insert(Header { key: "h", value: None::<&[u8]> })
                .insert(Header { key: "empty", value: Some(b"" as &[u8]) });
            record = record.headers(headers);
        }
        producer.send(record).unwrap();
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(10)).unwrap();
}

/// Runs the member for a while, answering every rebalance with offset 0 for what was never read.
struct Run {
    member: GroupMember,
    records: BTreeMap<i32, Vec<Copied>>,
    assigned: Vec<i32>,
    commits: Vec<CommitId>,
    errors: Vec<crate::batch::ReadError>,
}

impl Run {
    fn new(member: GroupMember) -> Run {
        Run {
            member,
            records: BTreeMap::new(),
            assigned: Vec::new(),
            commits: Vec::new(),
            errors: Vec::new(),
        }
    }

    fn turn(&mut self) {
        while let Some(event) = self.member.serve() {
            match event {
                GroupEvent::Assigned(mut partitions) => {
                    for element in partitions.elements() {
                        self.assigned.push(element.partition());
                    }
                    partitions.set_all_offsets(Offset::Beginning).unwrap();
                    self.member.assign(&partitions).unwrap();
                }
                GroupEvent::Revoked { partitions, .. } => {
                    self.member.release(&partitions).unwrap();
                    for element in partitions.elements() {
                        self.assigned.retain(|partition| *partition != element.partition());
                    }
                }
                GroupEvent::Committed(result) => {
                    assert!(result.is_complete(), "{result:?}");
                    self.commits.push(result.id);
                }
                GroupEvent::Failed(error) => {
                    assert!(crate::errors::classify(&error).is_temporary(), "{error}");
                }
                stray @ GroupEvent::Stray { .. } => panic!("{stray:?}"),
            }
        }
        for item in self.member.read(Duration::from_millis(10)).iter() {
            match item {
                Ok(record) => {
                    assert!(
                        self.assigned.contains(&record.partition()),
                        "a record of a partition that is not ours"
                    );
                    let copied = Copied {
                        offset: record.offset(),
                        key: record.key().map(<[u8]>::to_vec),
                        value: record.value().map(<[u8]>::to_vec),
                        timestamp: record.timestamp(),
                        headers: record
                            .headers()
                            .map(|h| (h.name.to_vec(), h.value.map(<[u8]>::to_vec)))
                            .collect(),
                    };
                    self.records.entry(record.partition()).or_default().push(copied);
                }
                Err(error) => self.errors.push(error),
            }
        }
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&Run) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !done(self) {
            assert!(Instant::now() < deadline, "{what}: not within 30 s; have {}", self.count());
            self.turn();
        }
    }

    fn count(&self) -> usize {
        self.records.values().map(Vec::len).sum()
    }
}

/// The portable twin: the same partitions by plain `poll`.
fn by_poll(mock: &Mock, topic: &str, partitions: i32, count: usize) -> BTreeMap<i32, Vec<Copied>> {
    let consumer: BaseConsumer = config(mock, "twin").create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let mut records: BTreeMap<i32, Vec<Copied>> = BTreeMap::new();
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut left = count;
    while left > 0 {
        assert!(Instant::now() < deadline, "{left} records missing");
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message.unwrap();
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers.iter().map(|h| (h.key.as_bytes().to_vec(), h.value.map(<[u8]>::to_vec))).collect()
        });
        records.entry(message.partition()).or_default().push(Copied {
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            timestamp: message.timestamp(),
            headers,
        });
        left -= 1;
    }
    records
}

#[test]
fn batches_hold_exactly_what_poll_reads() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("t", 3, 1).unwrap();
    for partition in 0..3 {
        produce(&mock, "t", partition, 0, 500);
    }
    let mut run = Run::new(member(&mock, "g"));
    run.member.subscribe(&["t"]).unwrap();
    run.until("all records", |run| run.count() >= 1500);
    let twin = by_poll(&mock, "t", 3, 1500);
    assert_eq!(run.records, twin);
    let first = &twin[&0];
    // The fields that are easily confused, so that the two cannot be wrong together.
    assert_eq!((first[1].key.as_deref(), first[1].value.as_deref()), (None, None));
    assert_eq!((first[7].key.as_deref(), first[7].value.as_deref()), (Some(&b""[..]), Some(&b"vvvvvvv"[..])));
    assert_eq!(first[50].value.as_deref(), None);
    assert_eq!(first[100].value.as_deref(), Some(&b""[..]));
    assert_eq!(first[3].timestamp, Timestamp::CreateTime(1_600_000_000_003));
    assert_eq!(
        first[3].headers,
        [(b"h".to_vec(), Some(b"3".to_vec())), (b"h".to_vec(), None), (b"empty".to_vec(), Some(Vec::new()))]
    );
    assert!(first[4].headers.is_empty());
    assert!(run.errors.is_empty());
}

#[test]
fn partitions_move_between_members_and_each_record_keeps_its_order() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("t", 4, 1).unwrap();
    let mut first = Run::new(member(&mock, "g"));
    first.member.subscribe(&["t"]).unwrap();
    for partition in 0..4 {
        produce(&mock, "t", partition, 0, 200);
    }
    first.until("the first member alone", |run| run.count() >= 800);
    assert_eq!(first.assigned.len(), 4);

    let mut second = Run::new(member(&mock, "g"));
    second.member.subscribe(&["t"]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(40);
    while second.assigned.len() != 2 || first.assigned.len() != 2 {
        assert!(Instant::now() < deadline, "{:?} {:?}", first.assigned, second.assigned);
        first.turn();
        second.turn();
    }
    // What was taken away is not read any more; what stayed goes on where it was (cooperative).
    let read_before: BTreeMap<i32, usize> =
        first.records.iter().map(|(p, records)| (*p, records.len())).collect();
    for partition in 0..4 {
        produce(&mock, "t", partition, 200, 100);
    }
    let kept = first.assigned.clone();
    first.until("what stayed", |run| kept.iter().all(|p| run.records[p].len() >= 300));
    second.until("what moved", |run| run.count() >= 600);
    for (partition, records) in &first.records {
        let expected = if kept.contains(partition) { 300 } else { read_before[partition] };
        assert_eq!(records.len(), expected, "partition {partition}");
        assert!(records.iter().enumerate().all(|(i, record)| record.offset == i as i64));
    }
    for records in second.records.values() {
        assert!(records.iter().enumerate().all(|(i, record)| record.offset == i as i64));
    }

    // The second leaves at once; the first takes its partitions back, through the queue again.
    drop(second);
    let gone: Vec<i32> = (0..4).filter(|partition| !kept.contains(partition)).collect();
    first.until("what came back", |run| gone.iter().all(|p| run.records[p].len() >= read_before[p] + 300));
}

#[test]
fn a_rewind_without_a_rebalance_reads_again_in_order() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("t", 1, 1).unwrap();
    produce(&mock, "t", 0, 0, 300);
    let mut run = Run::new(member(&mock, "g"));
    run.member.subscribe(&["t"]).unwrap();
    run.until("the first pass", |run| run.count() >= 300);
    for pass in 2..=6 {
        // Released and taken up at once: librdkafka's stop arrives after our attach.
        let mut list = TopicPartitionList::new();
        list.add_partition("t", 0);
        run.member.release(&list).unwrap();
        list.set_all_offsets(Offset::Offset(100)).unwrap();
        run.member.assign(&list).unwrap();
        run.records.clear();
        run.until("another pass", |run| run.count() >= 200);
        let offsets: Vec<i64> = run.records[&0].iter().map(|record| record.offset).collect();
        assert_eq!(offsets, (100..300).collect::<Vec<_>>(), "pass {pass}");
    }
}

#[test]
fn nothing_of_a_released_partition_is_read_afterwards() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("t", 2, 1).unwrap();
    for partition in 0..2 {
        produce(&mock, "t", partition, 0, 2000);
    }
    let mut run = Run::new(member(&mock, "g"));
    run.member.subscribe(&["t"]).unwrap();
    run.until("some records of each", |run| run.records.len() == 2);
    // The one that has just begun has records that were fetched and not read.
    let taken = i32::from(run.records[&0].len() >= run.records[&1].len());
    let other = 1 - taken;
    let seen = run.records[&taken].len();
    assert!(seen < 2000, "the test needs records that were fetched and not read");
    let mut list = TopicPartitionList::new();
    list.add_partition("t", taken);
    run.member.release(&list).unwrap();
    produce(&mock, "t", other, 2000, 500);
    run.until("the rest of the other", |run| run.records[&other].len() >= 2500);
    assert_eq!(run.records[&taken].len(), seen);
}

/// A caller without room leaves a batch in the middle and serves the group meanwhile.
#[test]
fn what_a_batch_keeps_is_read_next_unless_its_partition_was_released() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("t", 2, 1).unwrap();
    for partition in 0..2 {
        produce(&mock, "t", partition, 0, 400);
    }
    let mut member = member(&mock, "g");
    let mut list = TopicPartitionList::new();
    for partition in 0..2 {
        list.add_partition_offset("t", partition, Offset::Beginning).unwrap();
    }
    member.assign(&list).unwrap();
    let mut offsets = [Vec::new(), Vec::new()];
    let mut step = 0;
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut read = |member: &mut GroupMember, offsets: &mut [Vec<i64>; 2]| {
        assert!(Instant::now() < deadline, "{offsets:?}");
        while let Some(event) = member.serve() {
            assert!(!matches!(event, GroupEvent::Stray { .. }), "{event:?}");
        }
        let batch = member.read(Duration::from_millis(10));
        step += 1;
        let most = [batch.len(), 0, batch.len() / 2, 1][step % 4];
        for record in batch.iter().take(most) {
            let record = record.unwrap();
            offsets[record.partition() as usize].push(record.offset());
        }
        batch.keep(most);
    };
    while offsets.iter().any(|offsets| offsets.len() < 100) {
        read(&mut member, &mut offsets);
    }
    // Released with kept records, then taken up again from an earlier offset: nothing of the kept ones comes.
    member
        .release(&{
            let mut gone = TopicPartitionList::new();
            gone.add_partition("t", 0);
            gone
        })
        .unwrap();
    let before = offsets[0].len();
    for _ in 0..20 {
        read(&mut member, &mut offsets);
    }
    assert_eq!(offsets[0].len(), before, "a released partition is not read");
    let mut again = TopicPartitionList::new();
    again.add_partition_offset("t", 0, Offset::Offset(5)).unwrap();
    member.assign(&again).unwrap();
    while offsets[0].len() < before + 395 || offsets[1].len() < 400 {
        read(&mut member, &mut offsets);
    }
    assert_eq!(offsets[1], (0..400).collect::<Vec<_>>());
    assert_eq!(offsets[0][..before], (0..before as i64).collect::<Vec<_>>());
    assert_eq!(offsets[0][before..], (5..400).collect::<Vec<_>>());
}

#[test]
fn a_commit_that_is_refused_or_unanswered_says_so() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("t", 1, 1).unwrap();
    let mut run = Run::new(member(&mock, "g"));
    run.member.subscribe(&["t"]).unwrap();
    run.until("the assignment", |run| !run.assigned.is_empty());
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("t", 0, Offset::Offset(1)).unwrap();
    mock.request_errors(RDKafkaApiKey::OffsetCommit, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION]);
    let refused = run.member.commit_and_wait(&list, Duration::from_secs(5)).unwrap();
    assert!(!refused.is_complete(), "{refused:?}");

    mock.broker_down(1).unwrap();
    let start = Instant::now();
    match run.member.commit_and_wait(&list, Duration::from_secs(1)) {
        Ok(result) => assert!(!result.is_complete(), "{result:?}"),
        Err(error) => assert!(error.verdict().is_temporary(), "{error}"),
    }
    assert!(start.elapsed() < Duration::from_secs(3));
    mock.broker_up(1).unwrap();
}

#[test]
fn an_offset_that_is_gone_is_an_error_in_its_partition() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("t", 1, 1).unwrap();
    produce(&mock, "t", 0, 0, 10);
    let mut member = member(&mock, "g");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("t", 0, Offset::Offset(1_000)).unwrap();
    member.assign(&list).unwrap();
    let mut run = Run::new(member);
    run.assigned.push(0);
    run.until("the error", |run| !run.errors.is_empty());
    let error = &run.errors[0];
    assert_eq!((error.topic.as_str(), error.partition), ("t", 0), "{error}");
    assert_eq!(error.verdict().reason, "offset_gone", "{error}");
    assert_eq!(run.count(), 0);
}

#[test]
fn the_end_of_a_partition_is_an_item_where_asked_for() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("t", 1, 1).unwrap();
    produce(&mock, "t", 0, 0, 10);
    let mut config = config(&mock, "g");
    config.set("enable.partition.eof", "true");
    let mut member = GroupMember::new(&config, Reporter::new("t", "source"), 100).unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("t", 0, Offset::Beginning).unwrap();
    member.assign(&list).unwrap();
    let mut run = Run::new(member);
    run.assigned.push(0);
    run.until("the end", |run| !run.errors.is_empty());
    assert_eq!(run.count(), 10);
    assert_eq!((run.errors[0].verdict().reason, run.errors[0].offset), ("end_of_partition", 10));
}

#[test]
fn commits_carry_metadata_and_are_reported() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("t", 1, 1).unwrap();
    produce(&mock, "t", 0, 0, 10);
    let mut run = Run::new(member(&mock, "g"));
    run.member.subscribe(&["t"]).unwrap();
    run.until("records", |run| run.count() >= 10);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("t", 0, Offset::Offset(7)).unwrap();
    for mut element in list.elements() {
        element.set_metadata("v1 id epoch");
    }
    let first = run.member.commit(&list).unwrap();
    let waited = run.member.commit_and_wait(&list, Duration::from_secs(5)).unwrap();
    assert!(waited.is_complete() && waited.id > first, "{waited:?}");
    let partition = &waited.partitions[0];
    assert_eq!((partition.topic.as_str(), partition.partition, partition.offset), ("t", 0, 7));
    run.until("the first commit", |run| !run.commits.is_empty());
    assert_eq!(run.commits, [first]);
    let committed = run.member.consumer().committed(Duration::from_secs(5)).unwrap();
    let element = committed.find_partition("t", 0).unwrap();
    assert_eq!((element.offset(), element.metadata()), (Offset::Offset(7), "v1 id epoch"));
}

/// A member that is dropped leaves at once, whatever it has not answered.
#[test]
fn dropping_never_hangs() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("t", 2, 1).unwrap();
    produce(&mock, "t", 0, 0, 1000);

    let unused = member(&mock, "g1");
    let subscribed = member(&mock, "g2");
    subscribed.subscribe(&["t"]).unwrap();
    let mut unanswered = member(&mock, "g3");
    unanswered.subscribe(&["t"]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while unanswered.unanswered.is_none() {
        assert!(Instant::now() < deadline);
        drop(unanswered.serve());
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut reading = Run::new(member(&mock, "g4"));
    reading.member.subscribe(&["t"]).unwrap();
    reading.until("a record", |run| run.count() > 0);

    for (name, member) in [
        ("unused", unused),
        ("subscribed", subscribed),
        ("unanswered", unanswered),
        ("reading", reading.member),
    ] {
        let start = Instant::now();
        drop(member);
        assert!(start.elapsed() < Duration::from_secs(5), "{name}: {:?}", start.elapsed());
    }
}

#[test]
fn a_batch_that_is_leaked_is_freed_with_the_next() {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("t", 1, 1).unwrap();
    produce(&mock, "t", 0, 0, 300);
    let mut member = member(&mock, "g");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("t", 0, Offset::Beginning).unwrap();
    member.assign(&list).unwrap();
    let mut read = 0;
    let deadline = Instant::now() + Duration::from_secs(20);
    while read < 300 {
        assert!(Instant::now() < deadline);
        let batch = member.read(Duration::from_millis(20));
        read += batch.len();
        std::mem::forget(batch);
        drop(member.serve());
    }
    // Neither a hang nor a crash at the end.
    drop(member);
}

#[test]
fn everything_can_be_moved_to_its_thread() {
    fn sendable<T: Send>() {}
    sendable::<GroupMember>();
    sendable::<crate::topic_id::TopicIds>();
    sendable::<crate::admin::Admin>();
}
