//! Reads both clusters to their ends and compares every record and every field.
//!
//! What is at the source is the truth. A record at the destination says by its last three headers which one it is; it
//! must be equal in all else. [`compare`] is pure, and its tests show that it finds what it is for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ddc_kafka::lifeline::Lifeline;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientConfig, Offset, Timestamp, TopicPartitionList};

use ddc_progress::ProgressTable;

use crate::cluster::Cluster;
use crate::proxy::Link;
use crate::wait;

const CALL: Duration = Duration::from_secs(10);
/// Nothing more may come in this time once all is there.
const QUIET: Duration = Duration::from_millis(400);
/// How long nothing must come behind what looks like the end of a partition.
const QUIET_END: Duration = Duration::from_millis(100);
/// The same when nobody has said that it is the end.
const SILENCE: Duration = Duration::from_secs(2);

/// Header names, and values that may be null.
pub type HeaderList = Vec<(String, Option<Vec<u8>>)>;

/// A record as it stands in a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Where it stands.
    pub partition: i32,
    /// Where it stands.
    pub offset: i64,
    /// `None` is null.
    pub key: Option<Vec<u8>>,
    /// `None` is null.
    pub value: Option<Vec<u8>>,
    /// In order.
    pub headers: HeaderList,
    /// With its kind.
    pub timestamp: Timestamp,
}

/// Offsets of a source partition that the egress named as missing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// The topic at the source.
    pub topic: String,
    /// The partition at the source.
    pub partition: i32,
    /// First offset.
    pub first: i64,
    /// Last offset, included.
    pub last: i64,
    /// Records in it, when known.
    pub records: Option<u64>,
    /// Why.
    pub reason: String,
}

/// Reads one topic from its beginning, as far as it goes; goes on where it stopped.
pub struct Reader {
    consumer: BaseConsumer,
    lifeline: Lifeline,
    topic: String,
    next: BTreeMap<i32, i64>,
    /// Where to begin, in partitions where that is not the beginning.
    begin: BTreeMap<i32, i64>,
    /// Everything read so far.
    pub rows: Vec<Row>,
}

impl Reader {
    /// Of the cluster's plaintext listener. The topic need not be there yet.
    pub fn new(cluster: &Cluster, topic: &str) -> Reader {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", cluster.brokers())
            .set("group.id", "e2e-reader")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false")
            .set("enable.partition.eof", "true")
            .set("fetch.queue.backoff.ms", "1")
            .set("fetch.wait.max.ms", "20")
            .set("reconnect.backoff.max.ms", "500")
            .create()
            .unwrap();
        Reader {
            consumer,
            lifeline: Lifeline::default(),
            topic: topic.to_owned(),
            next: BTreeMap::new(),
            begin: BTreeMap::new(),
            rows: Vec::new(),
        }
    }

    /// Reads what is there now. An error: the cluster does not answer or lacks the topic.
    pub fn read(&mut self) -> Result<(), String> {
        self.lifeline.look(&self.consumer);
        let metadata =
            self.consumer.fetch_metadata(Some(&self.topic), CALL).map_err(|error| error.to_string())?;
        let found = metadata.topics().first().ok_or("no such topic")?;
        if let Some(error) = found.error() {
            return Err(format!("{error:?}"));
        }
        let (mut ends, mut begins, mut new) = (BTreeMap::new(), BTreeMap::new(), TopicPartitionList::new());
        for partition in found.partitions() {
            let (low, high) = self
                .consumer
                .fetch_watermarks(&self.topic, partition.id(), CALL)
                .map_err(|error| error.to_string())?;
            if !self.next.contains_key(&partition.id()) {
                let low = self.begin.get(&partition.id()).copied().unwrap_or(low);
                new.add_partition_offset(&self.topic, partition.id(), Offset::Offset(low)).unwrap();
                begins.insert(partition.id(), low);
            }
            ends.insert(partition.id(), high);
        }
        if new.count() > 0 {
            self.consumer.incremental_assign(&new).map_err(|error| error.to_string())?;
            // Only now: a partition of this topic that has no leader yet ends the call before it is assigned.
            self.next.append(&mut begins);
        }
        let (start, mut ended, mut last) = (Instant::now(), BTreeSet::new(), Instant::now());
        loop {
            let mut behind = ends.iter().filter(|(partition, end)| self.next[partition] < **end).peekable();
            if behind.peek().is_none() {
                return Ok(());
            }
            // What ends transactions has an offset and is no record, nor is what was aborted: where nothing more comes, it was that. An
            // end told before this call can be an old one, and one that was told is not told again: so a moment is waited.
            let quiet =
                if behind.all(|(partition, _)| ended.contains(partition)) { QUIET_END } else { SILENCE };
            if last.elapsed() > quiet {
                self.next.extend(ends);
                return Ok(());
            }
            if start.elapsed() > CALL {
                return Err(format!("read up to {:?} of {ends:?}", self.next));
            }
            match self.consumer.poll(Duration::from_millis(20)) {
                None => {}
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(ended.insert(partition)),
                Some(Err(error)) => return Err(error.to_string()),
                Some(Ok(message)) => {
                    last = Instant::now();
                    self.next.insert(message.partition(), message.offset() + 1);
                    self.rows.push(row(&message));
                }
            }
        }
    }
}

fn row(message: &impl Message) -> Row {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
    });
    Row {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
        timestamp: message.timestamp(),
    }
}

/// What the progress topic at the destination of a link says of it now; nothing when it is not there.
pub fn progress(link: &Link) -> ProgressTable {
    let mut table = ProgressTable::new(link.name().parse().unwrap());
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", link.destination())
        .set("group.id", "e2e-progress")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("ddc-progress", 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let start = Instant::now();
    while start.elapsed() < CALL {
        match consumer.poll(QUIET_END) {
            Some(Ok(message)) => drop(table.apply(message.offset(), message.key(), message.payload())),
            Some(Err(KafkaError::PartitionEOF(_))) => break,
            Some(Err(_)) | None => {}
        }
    }
    table
}

/// What a comparison found. Partitions and offsets are the source's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Records at the source.
    pub sent: usize,
    /// Records at the destination.
    pub received: usize,
    /// At the source and not at the destination.
    pub lost: BTreeSet<(i32, i64)>,
    /// At the destination more than once.
    pub duplicated: Vec<(i32, i64)>,
    /// Behind a later one of its partition.
    pub out_of_order: Vec<(i32, i64)>,
    /// Which field of which record differs; records that nobody sent are here too.
    pub mismatched: Vec<String>,
}

impl Outcome {
    /// Whether all of it arrived, once, in order, unchanged.
    #[track_caller]
    pub fn assert_intact(&self) {
        self.assert_sound();
        assert!(self.lost.is_empty(), "{} lost: {:?}", self.lost.len(), spans(&self.lost));
    }

    /// Whether what arrived arrived once, in order, unchanged.
    #[track_caller]
    pub fn assert_sound(&self) {
        assert!(self.sent > 0, "nothing was sent: the test proves nothing");
        let few = &self.mismatched[..self.mismatched.len().min(5)];
        assert!(few.is_empty(), "{} differ: {few:#?}", self.mismatched.len());
        assert!(self.duplicated.is_empty(), "{} twice: {:?}", self.duplicated.len(), self.duplicated);
        assert!(self.out_of_order.is_empty(), "out of order: {:?}", self.out_of_order);
    }
}

/// Offsets as ranges, to be read by people: `partition: first..last`.
pub fn spans(offsets: &BTreeSet<(i32, i64)>) -> Vec<String> {
    let mut spans: Vec<(i32, i64, i64)> = Vec::new();
    for &(partition, offset) in offsets {
        match spans.last_mut() {
            Some((same, _, last)) if *same == partition && *last + 1 == offset => *last = offset,
            _ => spans.push((partition, offset, offset)),
        }
    }
    spans.iter().map(|(partition, first, last)| format!("{partition}: {first}..={last}")).collect()
}

/// The offsets that ranges name.
pub fn offsets_of(named: &[Named]) -> BTreeSet<(i32, i64)> {
    named
        .iter()
        .flat_map(|range| (range.first..=range.last).map(|offset| (range.partition, offset)))
        .collect()
}

/// Compares a topic at both ends. Partitions are kept; every record bears its provenance.
pub fn compare(topic: &str, source: &[Row], destination: &[Row]) -> Outcome {
    let sent: BTreeMap<(i32, i64), &Row> =
        source.iter().map(|row| ((row.partition, row.offset), row)).collect();
    let mut outcome = Outcome { sent: source.len(), received: destination.len(), ..Outcome::default() };
    let (mut seen, mut highest) = (BTreeSet::new(), BTreeMap::new());
    for arrived in destination {
        let at = format!("{topic}: destination {}[{}]", arrived.partition, arrived.offset);
        let Some((own, late, from, place)) = provenance(&arrived.headers) else {
            outcome.mismatched.push(format!("{at} has no provenance: {:?}", arrived.headers));
            continue;
        };
        let Some(original) = sent.get(&place).filter(|_| from == topic) else {
            outcome.mismatched.push(format!("{at} says it is {from} {place:?}, which was not sent"));
            continue;
        };
        if place.0 != arrived.partition {
            outcome.mismatched.push(format!("{at} was in partition {}", place.0));
        }
        outcome.mismatched.extend(
            differences(original, arrived, own)
                .into_iter()
                .map(|field| format!("{at}, source {place:?}: {field}")),
        );
        if !seen.insert(place) {
            outcome.duplicated.push(place);
            continue;
        }
        let highest = highest.entry(place.0).or_insert(-1);
        if place.1 < *highest && !late {
            outcome.out_of_order.push(place);
        }
        *highest = place.1.max(*highest);
    }
    outcome.lost = sent.keys().filter(|place| !seen.contains(place)).copied().collect();
    outcome
}

pub(crate) type Provenance<'a> = (&'a [(String, Option<Vec<u8>>)], bool, &'a str, (i32, i64));

/// The record's own headers, whether it is marked as late, and where it comes from.
pub(crate) fn provenance(headers: &HeaderList) -> Option<Provenance<'_>> {
    let (own, last) = headers.split_at(headers.len().checked_sub(3)?);
    let text = |at: usize, name: &str| {
        let (found, value) = &last[at];
        (found == name).then_some(())?;
        std::str::from_utf8(value.as_deref()?).ok()
    };
    let topic = text(0, "sourceTopic")?;
    let place = (text(1, "sourcePartition")?.parse().ok()?, text(2, "sourceOffset")?.parse().ok()?);
    match own.split_last() {
        Some(((name, Some(value)), rest)) if name == "ddcLate" && value == b"true" => {
            Some((rest, true, topic, place))
        }
        _ => Some((own, false, topic, place)),
    }
}

fn differences(original: &Row, arrived: &Row, own: &[(String, Option<Vec<u8>>)]) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |what: &str, before: &dyn std::fmt::Debug, after: &dyn std::fmt::Debug, same: bool| {
        if !same {
            let short =
                |value: &dyn std::fmt::Debug| format!("{value:?}").chars().take(120).collect::<String>();
            found.push(format!("{what} {} became {}", short(before), short(after)));
        }
    };
    check("key", &original.key, &arrived.key, original.key == arrived.key);
    check("value", &original.value, &arrived.value, original.value == arrived.value);
    check("headers", &original.headers, &own, original.headers == own);
    // The value; what kind of time it is, is the topic's affair.
    let same = original.timestamp.to_millis() == arrived.timestamp.to_millis();
    check("timestamp", &original.timestamp, &arrived.timestamp, same);
    found
}

/// A topic on its way from one cluster to the other.
pub struct Crossing {
    topic: String,
    source: Reader,
    destination: Reader,
}

impl Crossing {
    /// The topic has the same name at both ends.
    pub fn new(source: &Cluster, destination: &Cluster, topic: &str) -> Crossing {
        Crossing::renamed(source, destination, topic, topic)
    }

    /// The topic has another name at the destination.
    pub fn renamed(source: &Cluster, destination: &Cluster, topic: &str, to: &str) -> Crossing {
        Crossing {
            topic: topic.to_owned(),
            source: Reader::new(source, topic),
            destination: Reader::new(destination, to),
        }
    }

    /// What is at the source.
    pub fn sent(&self) -> &[Row] {
        &self.source.rows
    }

    /// The next life of a topic that was deleted and created again at the source: what has arrived so far is not of it.
    pub fn next_life(&self, source: &Cluster, destination: &Cluster) -> Crossing {
        let mut next = Crossing::renamed(source, destination, &self.topic, &self.destination.topic);
        next.destination.begin.clone_from(&self.destination.next);
        next
    }

    /// What is at the destination.
    pub fn arrived(&self) -> &[Row] {
        &self.destination.rows
    }

    /// What is there and not there now. An error: a cluster does not answer, or lacks the topic.
    pub fn look(&mut self) -> Result<Outcome, String> {
        self.source.read().map_err(|error| format!("source: {error}"))?;
        self.destination.read().map_err(|error| format!("destination: {error}"))?;
        Ok(compare(&self.topic, &self.source.rows, &self.destination.rows))
    }

    /// Waits until at least so many records have arrived.
    #[track_caller]
    pub fn wait_for(&mut self, records: usize, limit: Duration) {
        wait::until(&format!("{records} records of {} cross", self.topic), limit, || {
            self.destination.read()?;
            let arrived = self.destination.rows.len();
            if arrived >= records { Ok(()) } else { Err(format!("{arrived} arrived")) }
        });
    }

    /// Waits until the last record of every partition is there, and then that nothing more comes.
    #[track_caller]
    pub fn settle(&mut self, limit: Duration) -> Outcome {
        let topic = self.topic.clone();
        wait::until(&format!("the end of {topic} crosses"), limit, || {
            let outcome = self.look()?;
            let mut ends = BTreeMap::new();
            for row in &self.source.rows {
                ends.entry(row.partition)
                    .and_modify(|end: &mut i64| *end = row.offset.max(*end))
                    .or_insert(row.offset);
            }
            let waiting: Vec<_> = ends.into_iter().filter(|end| outcome.lost.contains(end)).collect();
            if waiting.is_empty() {
                Ok(())
            } else {
                Err(format!(
                    "{} of {} records, ends {waiting:?} not",
                    outcome.sent - outcome.lost.len(),
                    outcome.sent
                ))
            }
        });
        std::thread::sleep(QUIET);
        let outcome = wait::until("both clusters answer", limit, || self.look());
        println!(
            "          {topic}: {} sent, {} received, {} lost, {} twice",
            outcome.sent,
            outcome.received,
            outcome.lost.len(),
            outcome.duplicated.len()
        );
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(partition: i32, offset: i64) -> Row {
        Row {
            partition,
            offset,
            key: Some(vec![1]),
            value: None,
            headers: vec![("a".into(), None), ("b".into(), Some(vec![]))],
            timestamp: Timestamp::CreateTime(7),
        }
    }

    /// As the egress would write it, `at` the destination.
    fn arrived(row: &Row, at: i64) -> Row {
        let mut headers = row.headers.clone();
        for (name, value) in [
            ("sourceTopic", "t".to_owned()),
            ("sourcePartition", row.partition.to_string()),
            ("sourceOffset", row.offset.to_string()),
        ] {
            headers.push((name.to_owned(), Some(value.into_bytes())));
        }
        Row { offset: at, headers, ..row.clone() }
    }

    #[test]
    fn what_is_equal_is_intact() {
        let source = [sent(0, 5), sent(0, 6), sent(1, 0)];
        let destination: Vec<Row> = source.iter().map(|row| arrived(row, 0)).collect();
        compare("t", &source, &destination).assert_intact();
    }

    #[test]
    fn one_dropped_record_is_found() {
        let source = [sent(0, 5), sent(0, 6), sent(1, 0)];
        let outcome = compare("t", &source, &[arrived(&source[0], 0), arrived(&source[2], 0)]);
        assert_eq!(outcome.lost, BTreeSet::from([(0, 6)]));
        assert_eq!(spans(&outcome.lost), ["0: 6..=6"]);
    }

    #[test]
    fn twice_and_out_of_order_are_found() {
        let source = [sent(0, 5), sent(0, 6)];
        let [a, b] = [arrived(&source[0], 0), arrived(&source[1], 1)];
        assert_eq!(compare("t", &source, &[a.clone(), b.clone(), b.clone()]).duplicated, [(0, 6)]);
        assert_eq!(compare("t", &source, &[b.clone(), a.clone()]).out_of_order, [(0, 5)]);
        let mut late = a;
        late.headers.insert(2, ("ddcLate".into(), Some(b"true".to_vec())));
        let outcome = compare("t", &source, &[b, late]);
        assert_eq!((outcome.out_of_order.len(), outcome.mismatched.len()), (0, 0), "marked as late");
    }

    /// What is said of a change, and the change.
    type Change<'a> = (&'a str, &'a dyn Fn(&mut Row));

    #[test]
    fn every_change_of_a_field_is_found() {
        let source = [sent(0, 5), sent(1, 5)];
        let changes: [Change<'_>; 11] = [
            ("key", &|row| row.key = None),
            ("key", &|row| row.key = Some(vec![])),
            ("value", &|row| row.value = Some(vec![])),
            ("timestamp", &|row| row.timestamp = Timestamp::CreateTime(8)),
            ("timestamp", &|row| row.timestamp = Timestamp::NotAvailable),
            ("headers", &|row| row.headers.swap(0, 1)),
            ("headers", &|row| row.headers[0].1 = Some(vec![])),
            ("headers", &|row| drop(row.headers.remove(1))),
            ("was not sent", &|row| row.headers[2].1 = Some(b"u".to_vec())),
            ("was in partition", &|row| row.partition = 1),
            ("no provenance", &|row| drop(row.headers.pop())),
        ];
        for (said, change) in changes {
            let mut row = arrived(&source[0], 0);
            change(&mut row);
            let outcome = compare("t", &source, &[row]);
            assert_eq!(outcome.mismatched.len(), 1, "{said}");
            assert!(outcome.mismatched[0].contains(said), "{said}: {:?}", outcome.mismatched);
        }
    }
}
