//! A validated egress: a link that receives and a sink.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use ddc_kafka::settings::{ClientSettings, Role, SinkSettings};
use ddc_progress::SetName;

use super::Side;
use super::common::{
    Admin, BASE_MEMORY, Checker, LinkKey, LinkSettings, Log, MemoryItem, RECORDS_IN_FLIGHT, Seal, admin,
    keys, link, record_size,
};
use super::dead_letters::{DeadLetters, dead_letters};
use super::kafka::client;
use super::raw::{
    BadTimestamp, DeliveryMode, LateRecords, LostProgress, PartitionMode, RawEgress, RawKafkaSink,
    RawMissingRecords, RawRenameRegex,
};
use super::spool::{SpoolConfig, spool};
use super::telemetry::{Telemetry, telemetry};
use super::udp::{UdpSink, udp_sink};
use super::units::{ByteSize, Span};
use super::values::{LinkName, TopicName, TopicPrefix};

/// The destination side of one link.
#[derive(Debug, Clone)]
pub struct EgressConfig {
    /// Name, number, path.
    pub link: LinkSettings,
    /// Where datagrams arrive.
    pub listen: SocketAddr,
    /// The multicast group to join; of the address's family.
    pub multicast_group: Option<IpAddr>,
    /// All keys of the link, or none.
    pub seal: Seal<Vec<LinkKey>>,
    /// How datagrams become records again.
    pub receive: Receive,
    /// What may be held in memory between link and destination; without a spool, full = drop, counted, reported.
    pub buffer: ByteSize,
    /// What was received and is not settled, on disk; `None`: in memory only.
    pub spool: Option<Box<SpoolConfig>>,
    /// Where records go.
    pub sink: Sink,
    /// The topic that gets what becomes of gaps.
    pub missing_records: Option<MissingRecords>,
    /// Where refused records are kept.
    pub dead_letters: Option<DeadLetters>,
    /// The admin listener.
    pub admin: Admin,
    /// The log.
    pub log: Log,
    /// Where measurements and messages go.
    pub telemetry: Telemetry,
}

/// How datagrams become records again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receive {
    /// How long a late datagram is waited for.
    pub reorder_timeout: Duration,
    /// The memory for incomplete blocks.
    pub window: ByteSize,
    /// The largest record, in bytes.
    pub max_record_bytes: ByteSize,
}

/// Where records go.
#[derive(Debug, Clone)]
pub enum Sink {
    /// A Kafka cluster.
    Kafka(Box<KafkaSink>),
    /// UDP datagrams.
    Udp(UdpSink),
}

/// A Kafka cluster that is written.
#[derive(Debug, Clone)]
pub struct KafkaSink {
    /// How the cluster is reached.
    pub client: ClientSettings,
    /// What is put before every topic's name that is not renamed.
    pub topic_prefix: TopicPrefix,
    /// Source topic → destination topic.
    pub rename: BTreeMap<TopicName, TopicName>,
    /// Patterns, in order; the first that matches counts.
    pub rename_regex: Vec<RenameRegex>,
    /// Which partition a record goes to.
    pub partition: PartitionMode,
    /// Whether missing topics are created.
    pub create_topics: bool,
    /// Of created topics; `None` is the broker's default.
    pub replication_factor: Option<u16>,
    /// Whether the provenance headers are added.
    pub provenance: bool,
    /// What happens to records that arrive after their gap was reported.
    pub late: LateRecords,
    /// What happens to records whose timestamp the destination refuses.
    pub bad_timestamp: BadTimestamp,
    /// How long a stop waits for the destination.
    pub drain_timeout: Duration,
    /// How often a record may be at the destination.
    pub delivery: DeliveryMode,
    /// How long a transaction gathers records.
    pub transaction_interval: Duration,
    /// Under which name progress is kept.
    pub set: SetName,
    /// The link's name as the progress topic has it.
    pub link: ddc_progress::LinkName,
    /// How long a partition is left to the link that wrote it before.
    pub takeover_timeout: Duration,
    /// How long a partition waits, after a start, for its ingress to go back to a gap.
    pub rewind_wait: Duration,
    /// What to do when progress is gone.
    pub lost_progress: LostProgress,
}

/// A topic that gets what becomes of gaps, in a cluster of its own.
#[derive(Debug, Clone)]
pub struct MissingRecords {
    /// How the cluster is reached.
    pub client: ClientSettings,
    /// The topic.
    pub topic: TopicName,
}

impl MissingRecords {
    /// How its producer is set up.
    pub fn role() -> Role {
        Role::Sink(SinkSettings {
            max_record_bytes: LARGEST_EVENT.bytes(),
            queue_bytes: EVENT_QUEUE.bytes(),
            linger: PRODUCE_LINGER,
            transactional_id: None,
        })
    }
}

/// More than a gap with all its ranges takes as JSON.
const LARGEST_EVENT: ByteSize = ByteSize::mib(1);
/// What may be on its way to `[missing_records]`.
const EVENT_QUEUE: ByteSize = ByteSize::mib(4);

/// A read-ahead of 1 MiB, and some 8 MiB of settled ranges at worst.
const SPOOL_TABLES: ByteSize = ByteSize::mib(10);

/// One pattern that renames topics.
#[derive(Debug, Clone)]
pub struct RenameRegex {
    /// Matches the whole name.
    pub pattern: regex::Regex,
    /// The destination, with `$1` for what a group matched.
    pub replacement: String,
}

/// What may be with librdkafka, not acknowledged by the destination; it takes at least two of the largest records.
const PRODUCE_QUEUE: ByteSize = ByteSize::mib(32);

/// Half of `transaction.timeout.ms`, after which the broker itself would end it.
const LONGEST_TRANSACTION: Duration = Duration::from_secs(5);

/// A UDP sink has nothing on its way: this only bounds what waits in the queue.
const UDP_DRAIN: Duration = Duration::from_secs(5);

/// How long librdkafka waits for more records of a partition: throughput for a delay nobody sees behind a link.
const PRODUCE_LINGER: Duration = Duration::from_millis(5);

impl EgressConfig {
    /// The Kafka client that this link writes with, if it does.
    pub fn kafka(&self) -> Option<(&ClientSettings, Role)> {
        match &self.sink {
            Sink::Kafka(sink) => Some((&sink.client, KafkaSink::role(self.receive.max_record_bytes))),
            Sink::Udp(_) => None,
        }
    }

    /// The name under which progress is kept; without Kafka the link's.
    pub fn set(&self) -> &str {
        match &self.sink {
            Sink::Kafka(sink) => sink.set.as_str(),
            Sink::Udp(_) => self.link.name.as_str(),
        }
    }

    /// Every Kafka client of this link: the table that it is written in, its settings, what it is for.
    pub fn clients(&self) -> Vec<(&'static str, &ClientSettings, Role)> {
        let sink = self.kafka().map(|(client, role)| ("sink.kafka", client, role));
        let missing = self.missing_records.as_ref();
        let missing = missing.map(|missing| ("missing_records", &missing.client, MissingRecords::role()));
        sink.into_iter().chain(missing).collect()
    }

    /// How long a stop waits for the destination.
    pub fn drain_timeout(&self) -> Duration {
        match &self.sink {
            Sink::Kafka(sink) => sink.drain_timeout,
            Sink::Udp(_) => UDP_DRAIN,
        }
    }

    /// The memory that this link may use, by purpose.
    pub fn memory(&self) -> Vec<MemoryItem> {
        let records = ByteSize(self.receive.max_record_bytes.0 * RECORDS_IN_FLIGHT);
        let mut items = vec![
            MemoryItem { purpose: "process", size: BASE_MEMORY },
            MemoryItem { purpose: "incomplete blocks ([link.receive] window)", size: self.receive.window },
            MemoryItem { purpose: "waiting for the destination ([sink] buffer)", size: self.buffer },
        ];
        if self.spool.is_some() {
            items.push(MemoryItem {
                purpose: "reading [spool], and what of it is settled",
                size: SPOOL_TABLES,
            });
        }
        if matches!(self.sink, Sink::Kafka(_)) {
            items.push(MemoryItem { purpose: "with Kafka, not acknowledged", size: PRODUCE_QUEUE });
        }
        if self.missing_records.is_some() {
            items.push(MemoryItem { purpose: "with Kafka for [missing_records]", size: EVENT_QUEUE });
        }
        items.extend(self.dead_letters.as_ref().map(|_| DeadLetters::memory()));
        items.push(MemoryItem { purpose: "3 × the largest record", size: records });
        items
    }
}

pub(crate) fn validate(raw: RawEgress, checker: &mut Checker<'_>) -> Option<Box<EgressConfig>> {
    let RawEgress {
        link: raw_link,
        sink,
        spool: raw_spool,
        missing_records,
        dead_letters: raw_letters,
        admin: raw_admin,
        log,
        telemetry: raw_telemetry,
    } = raw;
    let listen = raw_link.listen.0;
    let settings = link(&raw_link.common, checker, listen.ip(), "listen");
    let multicast_group = raw_link.multicast_group.map(|group| group.0);
    if let Some(group) = multicast_group {
        let path = ["link", "multicast_group"];
        if !group.is_multicast() {
            let message = format!(
                "`multicast_group` in [link]: {group} is no multicast address; for example \"239.18.0.1\""
            );
            checker.problem(&path, message);
        } else if group.is_ipv4() != listen.is_ipv4() {
            let message = format!(
                "`multicast_group` in [link]: {group} and listen = \"{listen}\" are of two IP versions"
            );
            checker.problem(&path, message);
        }
    } else if listen.ip().is_multicast() {
        let message = format!(
            "`listen` in [link]: {listen} is a multicast address; write listen = \"{}:{}\" and multicast_group = \"{}\"",
            if listen.is_ipv4() { "0.0.0.0" } else { "[::]" },
            listen.port(),
            listen.ip()
        );
        checker.problem(&["link", "listen"], message);
    }
    let seal = keys(&raw_link.common, checker);
    let receive = raw_link.receive;
    let path = ["link", "receive", "reorder_timeout"];
    if !(Span(Duration::from_millis(1))..=Span(Duration::from_secs(10))).contains(&receive.reorder_timeout) {
        let message = format!(
            "`reorder_timeout` in [link.receive]: {} is out of range; it can be 1ms to 10s",
            receive.reorder_timeout
        );
        checker.problem(&path, message);
    }
    if !(ByteSize::mib(4)..=ByteSize::mib(4 << 10)).contains(&receive.window) {
        let message =
            format!("`window` in [link.receive]: {} is out of range; it can be 4MiB to 4GiB", receive.window);
        checker.problem(&["link", "receive", "window"], message);
    }
    record_size(checker, &["link", "receive"], receive.max_record_bytes, sink.buffer, "[sink] buffer");
    let telemetry = telemetry(raw_telemetry, checker);
    let admin = admin(&raw_admin, Side::Egress, raw_link.common.id, checker);
    let buffer = sink.buffer;
    let no_spool = match (&seal, &sink.kafka) {
        (Some(Seal::None), _) => Some("seal = \"none\" writes nothing that came from the link to a disk"),
        (_, None) => Some("[sink.udp] never waits for a destination"),
        _ => None,
    };
    let spool = spool(&raw_spool, &settings, receive.max_record_bytes, no_spool, checker).map(Box::new);
    let sink = match (sink.kafka, sink.udp) {
        (Some(kafka), None) => {
            let sink = kafka_sink(kafka, &raw_link.common.name, receive.max_record_bytes, checker);
            Some(Sink::Kafka(Box::new(sink)))
        }
        (None, Some(udp)) => Some(Sink::Udp(udp_sink(udp, listen, checker))),
        // Said already: see `one_end`.
        _ => None,
    };

    let missing_records = missing_records.map(|RawMissingRecords { client: raw, topic }| MissingRecords {
        client: client(raw, &raw_link.common.name, &MissingRecords::role(), &["missing_records"], checker),
        topic,
    });

    let kafka = match &sink {
        Some(Sink::Kafka(sink)) => Some(&**sink),
        _ => None,
    };
    // Without a sink that is sound, what is wrong with it is said; a client is needed to say more.
    let dead_letters = raw_letters
        .filter(|_| sink.is_some())
        .and_then(|raw| dead_letters(raw, kafka.map(|sink| &sink.client), checker));
    if let Some(topic) = dead_letters.as_ref().and_then(DeadLetters::topic)
        && kafka.is_some_and(|sink| sink.rename.values().any(|to| to == topic))
    {
        let message = format!(
            "`topic` in [dead_letters]: [sink.kafka.rename] writes records to {topic} too; choose another topic"
        );
        checker.problem(&["dead_letters", "topic"], message);
    }
    Some(Box::new(EgressConfig {
        link: settings,
        listen,
        multicast_group,
        seal: seal?,
        receive: Receive {
            reorder_timeout: receive.reorder_timeout.0,
            window: receive.window,
            max_record_bytes: receive.max_record_bytes,
        },
        buffer,
        spool,
        sink: sink?,
        missing_records,
        dead_letters,
        admin,
        log: log.into(),
        telemetry,
    }))
}

fn kafka_sink(
    raw: RawKafkaSink,
    link: &LinkName,
    max_record_bytes: ByteSize,
    checker: &mut Checker<'_>,
) -> KafkaSink {
    if raw.drain_timeout.0 > Duration::from_mins(10) {
        let message = format!("`drain_timeout` in [sink.kafka]: {} is longer than 600s", raw.drain_timeout);
        checker.problem(&["sink", "kafka", "drain_timeout"], message);
    }
    if raw.replication_factor == 0 {
        checker.problem(
            &["sink", "kafka", "replication_factor"],
            "`replication_factor` in [sink.kafka]: 0 is no factor; write -1 for the broker's default",
        );
    }
    for (key, span, least, most) in [
        ("transaction_interval", raw.transaction_interval, Duration::from_millis(5), LONGEST_TRANSACTION),
        ("takeover_timeout", raw.takeover_timeout, Duration::ZERO, Duration::from_mins(10)),
        ("rewind_wait", raw.rewind_wait, Duration::ZERO, Duration::from_mins(10)),
    ] {
        if span.0 < least || span.0 > most {
            let (least, most) = (Span(least), Span(most));
            let message = format!("`{key}` in [sink.kafka]: {span} is not between {least} and {most}");
            checker.problem(&["sink", "kafka", key], message);
        }
    }
    let mut rename = BTreeMap::new();
    for (from, to) in raw.rename {
        match from.parse::<TopicName>() {
            Ok(from) => {
                rename.insert(from, to);
            }
            Err(error) => {
                let message = format!("`{from}` in [sink.kafka.rename]: {error}");
                checker.problem(&["sink", "kafka", "rename", &from], message);
            }
        }
    }
    let rename_regex = raw
        .rename_regex
        .iter()
        .enumerate()
        .filter_map(|(number, raw)| {
            let result = rename_pattern(raw);
            checker.take(&["sink", "kafka", "rename_regex", &number.to_string()], result)
        })
        .collect();
    let replication_factor = u16::try_from(raw.replication_factor).ok();
    let client = client(raw.client, link, &role(max_record_bytes), &["sink", "kafka"], checker);
    KafkaSink {
        client,
        topic_prefix: raw.topic_prefix,
        rename,
        rename_regex,
        partition: raw.partition,
        create_topics: raw.create_topics,
        replication_factor,
        provenance: raw.provenance,
        late: raw.late,
        bad_timestamp: raw.bad_timestamp,
        drain_timeout: raw.drain_timeout.0,
        delivery: raw.delivery,
        transaction_interval: raw.transaction_interval.0,
        set: progress_name(raw.set.as_ref().unwrap_or(link)),
        link: progress_name(link),
        takeover_timeout: raw.takeover_timeout.0,
        rewind_wait: raw.rewind_wait.0,
        lost_progress: raw.lost_progress,
    }
}

/// Names of links and of sets have one form everywhere.
fn progress_name<T: FromStr<Err = ddc_progress::NotAName>>(name: &LinkName) -> T {
    #[expect(clippy::expect_used, reason = "a test holds both crates to the same form")]
    name.as_str().parse().expect("the form of a link's name is that of ddc-progress")
}

fn role(max_record_bytes: ByteSize) -> Role {
    Role::Sink(sink_settings(max_record_bytes))
}

fn sink_settings(max_record_bytes: ByteSize) -> SinkSettings {
    SinkSettings {
        max_record_bytes: max_record_bytes.bytes(),
        queue_bytes: PRODUCE_QUEUE.bytes(),
        linger: PRODUCE_LINGER,
        transactional_id: None,
    }
}

/// Anchors the pattern: half a name is never meant. Groups that the replacement names must exist.
fn rename_pattern(raw: &RawRenameRegex) -> Result<RenameRegex, String> {
    let pattern = regex::Regex::new(&format!("^(?:{})$", raw.pattern)).map_err(|_| {
        format!("`pattern` in [[sink.kafka.rename_regex]]: {:?} is too large", raw.pattern.to_string())
    })?;
    let references = regex::Regex::new(r"\$(?:\{([^}]*)\}|(\w+))").map_err(|error| error.to_string())?;
    let text = &raw.replacement;
    for reference in references.captures_iter(text) {
        let name = reference.get(1).or_else(|| reference.get(2)).map_or("", |name| name.as_str());
        let known = match name.parse::<usize>() {
            Ok(number) => number < pattern.captures_len(),
            Err(_) => pattern.capture_names().flatten().any(|group| group == name),
        };
        if !known {
            return Err(format!(
                "`replacement` in [[sink.kafka.rename_regex]]: {text:?} names the group {name:?}, which the pattern does not have; write ${{1}} when text follows the number"
            ));
        }
    }
    // What is left besides the groups must be fit for a topic.
    if references.replace_all(text, "x").parse::<TopicName>().is_err() {
        return Err(format!("`replacement` in [[sink.kafka.rename_regex]]: {text:?} makes no topic name"));
    }
    Ok(RenameRegex { pattern, replacement: text.clone() })
}

impl KafkaSink {
    /// How its producer is set up: `sink.client.build(&KafkaSink::role(config.receive.max_record_bytes))`.
    pub fn role(max_record_bytes: ByteSize) -> Role {
        role(max_record_bytes)
    }

    /// How the egress's producer is set up: in transactions under an id of its own, where they are wanted.
    pub fn producer(&self, max_record_bytes: ByteSize) -> Role {
        let transactional = self.delivery == DeliveryMode::ExactlyOnce;
        Role::Sink(SinkSettings {
            transactional_id: transactional.then(|| ddc_progress::transactional_id(&self.set, &self.link)),
            ..sink_settings(max_record_bytes)
        })
    }

    /// The destination topic of a source topic: `rename`, else the first pattern, else the prefix.
    ///
    /// The result can be no valid topic name when a prefix or a pattern makes it too long.
    pub fn destination(&self, source: &str) -> String {
        let renamed = source.parse::<TopicName>().ok().and_then(|topic| self.rename.get(&topic).cloned());
        if let Some(topic) = renamed {
            return topic.as_str().to_owned();
        }
        for rule in &self.rename_regex {
            if rule.pattern.is_match(source) {
                return rule.pattern.replace(source, rule.replacement.as_str()).into_owned();
            }
        }
        format!("{}{source}", self.topic_prefix)
    }
}
