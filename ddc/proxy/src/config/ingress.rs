//! A validated ingress: a source and a link that sends.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ddc_kafka::settings::{ClientSettings, Role, SourceSettings};
use ddc_wire::KeyId;

use super::Side;
use super::common::{
    Admin, BASE_MEMORY, Checker, LinkKey, LinkSettings, Log, MemoryItem, RECORDS_IN_FLIGHT, Seal, admin,
    keys, link, record_size,
};
use super::dead_letters::{DeadLetters, dead_letters};
use super::kafka::client;
use super::raw::{
    CommitOnStop, Compression, RawIngress, RawIngressLink, RawKafkaSource, StartAt, default_rate,
};
use super::telemetry::{Telemetry, telemetry};
use super::udp::{UdpSource, udp_source};
use super::units::{BitRate, ByteSize, Rate, Span};
use super::values::{FecCode, LinkName, TopicName, TopicPattern};

/// The source side of one link.
#[derive(Debug, Clone)]
pub struct IngressConfig {
    /// Name, number, path.
    pub link: LinkSettings,
    /// Where datagrams go: a unicast, multicast or broadcast address.
    pub target: SocketAddr,
    /// The local address to send from; of the target's family.
    pub source_address: Option<IpAddr>,
    /// What the pacer holds.
    pub rate: Rate,
    /// The longest burst, as time on the wire at `rate`.
    pub burst: Duration,
    /// What may wait packed; full = Kafka is paused, UDP datagrams are dropped and counted.
    pub buffer: ByteSize,
    /// The active key, or none.
    pub seal: Seal<LinkKey>,
    /// Forward error correction.
    pub fec: Fec,
    /// How records become blocks.
    pub pack: Pack,
    /// Where records come from.
    pub source: Source,
    /// Where refused records are kept.
    pub dead_letters: Option<DeadLetters>,
    /// The admin listener.
    pub admin: Admin,
    /// The log.
    pub log: Log,
    /// Where measurements and messages go.
    pub telemetry: Telemetry,
}

/// Forward error correction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fec {
    /// k + r of a full block.
    pub code: FecCode,
    /// D: over how many blocks neighbouring datagrams are spread, 1 to 64.
    pub interleave: u8,
    /// When an incomplete group of blocks is sent.
    pub interleave_span: Duration,
}

/// How records become blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pack {
    /// How long a record may wait for others.
    pub linger: Duration,
    /// How blocks are compressed.
    pub compression: Compression,
    /// The level of zstd, 1 to 19.
    pub level: i32,
    /// The largest record, in bytes.
    pub max_record_bytes: ByteSize,
}

/// Where records come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A consumer group's share of a Kafka cluster.
    Kafka(Box<KafkaSource>),
    /// UDP datagrams.
    Udp(UdpSource),
}

/// A member of a consumer group.
#[derive(Debug, Clone)]
pub struct KafkaSource {
    /// How the cluster is reached.
    pub client: ClientSettings,
    /// The consumer group.
    pub group: String,
    /// Names and patterns, never empty.
    pub topics: Vec<TopicPattern>,
    /// Where a group without commits begins.
    pub start_at: StartAt,
    /// How long a record must have been sent before its offset is committed.
    pub commit_delay: Duration,
    /// How far back a rewind can go; at least `commit_delay`.
    pub history: Duration,
    /// What a planned stop commits.
    pub commit_on_stop: CommitOnStop,
    /// Stands for the topic id on brokers that have none.
    pub topic_epoch: u64,
}

/// The longest commit delay: the positions of this time are kept in memory.
const LONGEST_COMMIT_DELAY: Duration = Duration::from_hours(1);

/// How far back a rewind can go when nothing is written.
const HISTORY: Duration = Duration::from_mins(5);

/// The longest history: more is a case for `ddc replay`, which names what it sends.
const LONGEST_HISTORY: Duration = Duration::from_hours(24);

/// What librdkafka may have fetched and not handed over yet.
const FETCH_QUEUE: ByteSize = ByteSize::mib(16);

/// What a replay holds: 4 MiB fetched, 4 MiB that wait for the link, what is packed and confirmed together, its client.
const REPLAY_MEMORY: ByteSize = ByteSize::mib(16);

/// Waiting longer than this for the link is worth a notice when the source cannot wait.
const STALE: Duration = Duration::from_secs(10);

/// The egress's default `window`: what interleaving must not exceed unless both sides know.
const DEFAULT_WINDOW: ByteSize = ByteSize::mib(32);

impl IngressConfig {
    /// The memory that this link may use, by purpose.
    pub fn memory(&self) -> Vec<MemoryItem> {
        let records = ByteSize(self.largest_record().0 * RECORDS_IN_FLIGHT);
        let read = match &self.source {
            Source::Kafka(_) => MemoryItem { purpose: "fetched from Kafka", size: FETCH_QUEUE },
            Source::Udp(source) => MemoryItem { purpose: "datagrams of one read", size: source.read_bytes() },
        };
        let replay = matches!(self.source, Source::Kafka(_))
            .then_some(MemoryItem { purpose: "a replay, while one is under way", size: REPLAY_MEMORY });
        let items = vec![
            MemoryItem { purpose: "process", size: BASE_MEMORY },
            read,
            MemoryItem { purpose: "packed, waiting for the link ([link] buffer)", size: self.buffer },
            MemoryItem { purpose: "blocks being sent (FEC, interleave)", size: self.blocks_in_flight() },
            MemoryItem { purpose: "3 × the largest record", size: records },
        ];
        items
            .into_iter()
            .chain(replay)
            .chain(self.dead_letters.as_ref().map(|_| DeadLetters::memory()))
            .collect()
    }

    /// The largest record that is packed.
    pub fn largest_record(&self) -> ByteSize {
        match &self.source {
            Source::Kafka(_) => self.pack.max_record_bytes,
            Source::Udp(source) => source.max_datagram,
        }
    }

    /// The Kafka client that this link reads with, if it does.
    pub fn kafka(&self) -> Option<(&ClientSettings, Role)> {
        match &self.source {
            Source::Kafka(source) => Some((&source.client, source.role(self.pack.max_record_bytes))),
            Source::Udp(_) => None,
        }
    }

    /// Every Kafka client of this link: the table that it is written in, its settings, what it is for.
    pub fn clients(&self) -> Vec<(&'static str, &ClientSettings, Role)> {
        let source = self.kafka().map(|(client, role)| ("source.kafka", client, role));
        let letters = self.dead_letters.as_ref().and_then(DeadLetters::topic).zip(self.kafka());
        let letters = letters.map(|(_, (client, _))| ("dead_letters", client, DeadLetters::role()));
        source.into_iter().chain(letters).collect()
    }

    /// What 2·D blocks take: the symbols that may be on their way at once, at both ends of the link.
    fn blocks_in_flight(&self) -> ByteSize {
        let symbols = u64::from(self.fec.code.source) + u64::from(self.fec.code.repair);
        ByteSize(
            2 * u64::from(self.fec.interleave) * symbols * self.link.mtu.symbol_size(self.target.ip()) as u64,
        )
    }
}

pub(crate) fn validate(raw: RawIngress, checker: &mut Checker<'_>) -> Option<Box<IngressConfig>> {
    let RawIngress {
        link: raw_link,
        source,
        dead_letters: raw_letters,
        admin: raw_admin,
        log,
        telemetry: raw_telemetry,
    } = raw;
    let target = raw_link.target.0;
    let settings = link(&raw_link.common, checker, target.ip(), "target");
    let source_address = raw_link.source_address.map(|address| address.0);
    if let Some(address) = source_address.filter(|address| address.is_ipv4() != target.is_ipv4()) {
        let message =
            format!("`source_address` in [link]: {address} and the target {target} are of two IP versions");
        checker.problem(&["link", "source_address"], message);
    }
    if target.ip().is_unspecified() {
        let message = format!("`target` in [link]: {target} names no host; for example \"198.18.0.2:7401\"");
        checker.problem(&["link", "target"], message);
    }
    let rate = rate(&raw_link, checker);
    let seal = keys(&raw_link.common, checker);
    let seal = active(&raw_link, seal, checker);
    let (burst, buffer, pack, fec) = (raw_link.burst, raw_link.buffer, raw_link.pack, raw_link.fec);
    if burst.0 > Duration::from_millis(100) {
        let message = format!("`burst` in [link]: {burst} is longer than 100ms; for example \"250us\"");
        checker.problem(&["link", "burst"], message);
    }
    at_most(checker, &["link", "fec", "interleave_span"], fec.interleave_span, Duration::from_secs(1));
    at_most(checker, &["link", "pack", "linger"], pack.linger, Duration::from_mins(1));
    if !(ByteSize::mib(1)..=ByteSize::mib(64 << 10)).contains(&buffer) {
        let message = format!("`buffer` in [link]: {buffer} is out of range; it can be 1MiB to 64GiB");
        checker.problem(&["link", "buffer"], message);
    }
    if source.udp.is_none() {
        record_size(checker, &["link", "pack"], pack.max_record_bytes, buffer, "[link] buffer");
    }
    let telemetry = telemetry(raw_telemetry, checker);
    let admin = admin(&raw_admin, Side::Ingress, raw_link.common.id, checker);
    let source = match (source.kafka, source.udp) {
        (Some(kafka), None) => {
            let name = &raw_link.common.name;
            let source = kafka_source(kafka, name, checker, pack.linger, pack.max_record_bytes);
            Some(Source::Kafka(Box::new(source)))
        }
        (None, Some(udp)) => Some(Source::Udp(udp_source(udp, target, checker))),
        // Said already: see `one_end`.
        _ => None,
    };

    let kafka = match &source {
        Some(Source::Kafka(source)) => Some(&**source),
        _ => None,
    };
    let dead_letters = raw_letters
        .filter(|_| source.is_some())
        .and_then(|raw| dead_letters(raw, kafka.map(|source| &source.client), checker));
    if let (Some(topic), Some(kafka)) = (dead_letters.as_ref().and_then(DeadLetters::topic), kafka) {
        no_circle(topic, &kafka.topics, checker);
    }
    let config = IngressConfig {
        link: settings,
        target,
        source_address,
        rate,
        burst: burst.0,
        buffer,
        seal: seal?,
        fec: Fec { code: fec.code, interleave: fec.interleave, interleave_span: fec.interleave_span.0 },
        pack: Pack {
            linger: pack.linger.0,
            compression: pack.compression,
            level: pack.level,
            max_record_bytes: pack.max_record_bytes,
        },
        source: source?,
        dead_letters,
        admin,
        log: log.into(),
        telemetry,
    };
    if config.blocks_in_flight() > DEFAULT_WINDOW {
        checker.notice(
            &["link", "fec"],
            format!(
                "2 × interleave blocks take {}: set `window` in the egress's [link.receive] to at least that (its default is {DEFAULT_WINDOW})",
                config.blocks_in_flight().rounded()
            ),
        );
    }
    stale(&config, checker);
    if config.fec.code.repair == 0 {
        checker.notice(&["link", "fec", "code"], "no repair symbols: every lost datagram is a lost block");
    }
    Some(Box::new(config))
}

/// A letter must not be read as a record: it would be refused again, and become a letter again, for ever.
fn no_circle(topic: &TopicName, topics: &[TopicPattern], checker: &mut Checker<'_>) {
    let reads = |pattern: &TopicPattern| {
        let matches =
            || regex::Regex::new(pattern.as_str()).is_ok_and(|regex| regex.is_match(topic.as_str()));
        if pattern.is_pattern() { matches() } else { pattern.as_str() == topic.as_str() }
    };
    if let Some(pattern) = topics.iter().find(|pattern| reads(pattern)) {
        let message = format!(
            "`topic` in [dead_letters]: {topic} is read by {pattern} of `topics` in [source.kafka], so that letters would become letters again; choose a name that it does not match"
        );
        checker.problem(&["dead_letters", "topic"], message);
    }
}

/// A datagram that waits long is carried all the same; whoever reads measurements or messages should know.
fn stale(config: &IngressConfig, checker: &mut Checker<'_>) {
    if let (Source::Udp(_), Rate::Limited(rate)) = (&config.source, config.rate) {
        let seconds = config.buffer.0 * 8 / rate.bits_per_second();
        if seconds >= STALE.as_secs() {
            checker.notice(
                &["link", "buffer"],
                format!(
                    "buffer = \"{}\" holds what rate = \"{rate}\" sends in {seconds} s: so late can datagrams be when more come than are sent; a smaller buffer drops them earlier",
                    config.buffer
                ),
            );
        }
    }
}

fn at_most(checker: &mut Checker<'_>, path: &[&str], value: Span, most: Duration) {
    if value.0 > most
        && let Some((key, table)) = path.split_last()
    {
        let message = format!("`{key}` in [{}]: {value} is longer than {}", table.join("."), Span(most));
        checker.problem(path, message);
    }
}

fn rate(raw: &RawIngressLink, checker: &mut Checker<'_>) -> Rate {
    if raw.rate == Rate::Unlimited {
        checker.notice(
            &["link", "rate"],
            "rate = \"unlimited\": what the diode and the egress cannot take is lost; measure the clean rate and write that",
        );
    }
    let Some(delay) = raw.send_delay_ms else { return raw.rate };
    let path = ["link", "send_delay_ms"];
    if checker.is_written(&["link", "rate"]) {
        checker.problem(
            &path,
            "`send_delay_ms` in [link]: `rate` is written too; keep one of them, better `rate`",
        );
        return raw.rate;
    }
    let Some(rate) = BitRate::from_send_delay(delay) else {
        let message = format!(
            "`send_delay_ms` in [link]: a delay of {delay} ms stands for no rate between 16kbit/s and 1000Gbit/s; write `rate`, for example rate = \"{}\"",
            default_rate()
        );
        checker.problem(&path, message);
        return raw.rate;
    };
    let message = format!(
        "send_delay_ms = {delay} is taken as rate = \"{rate}\" (65,507 bytes each {delay} ms); write that instead"
    );
    checker.notice(&path, message);
    Rate::Limited(rate)
}

/// The key that seals, out of all.
fn active(
    raw: &RawIngressLink,
    seal: Option<Seal<Vec<LinkKey>>>,
    checker: &mut Checker<'_>,
) -> Option<Seal<LinkKey>> {
    let known = || raw.common.keys.iter().map(|key| key.id.to_string()).collect::<Vec<_>>().join(", ");
    match raw.active_key {
        Some(id) if !raw.common.keys.is_empty() && !raw.common.keys.iter().any(|key| key.id == id) => {
            let message =
                format!("`active_key` in [link]: there is no key {id} in [[link.keys]]; known: {}", known());
            checker.problem(&["link", "active_key"], message);
        }
        None if raw.common.keys.len() > 1 => {
            let message = format!(
                "missing key `active_key` in [link]: there are several keys ({}); for example: active_key = {}",
                known(),
                raw.common.keys[0].id
            );
            checker.problem(&["link", "keys"], message);
        }
        _ => {}
    }
    match seal? {
        Seal::None => Some(Seal::None),
        Seal::Aes256Gcm(keys) => {
            let wanted = raw.active_key.map(KeyId);
            let mut keys = keys.into_iter().filter(|key| wanted.is_none_or(|id| id == key.id));
            keys.next().map(Seal::Aes256Gcm)
        }
    }
}

fn kafka_source(
    raw: RawKafkaSource,
    link: &LinkName,
    checker: &mut Checker<'_>,
    linger: Span,
    max_record_bytes: ByteSize,
) -> KafkaSource {
    let delay = raw.commit_delay;
    let path = ["source", "kafka", "commit_delay"];
    if delay.0 > LONGEST_COMMIT_DELAY {
        checker.problem(&path, format!("`commit_delay` in [source.kafka]: {delay} is longer than 3600s"));
    } else if delay < linger {
        let message = format!(
            "`commit_delay` in [source.kafka]: {delay} is shorter than the {linger} that `linger` keeps a record; for example \"30s\""
        );
        checker.problem(&path, message);
    } else if delay.0 < Duration::from_secs(5) {
        let message = format!(
            "commit_delay = \"{delay}\": what was sent to a dead egress before that time is not sent again; a dead egress is noticed within seconds at best"
        );
        checker.notice(&path, message);
    }
    let history = raw.history.unwrap_or(Span(HISTORY.max(delay.0)));
    let path = ["source", "kafka", "history"];
    if history.0 > LONGEST_HISTORY {
        let message =
            format!("`history` in [source.kafka]: {history} is longer than 86400s; for example \"5min\"");
        checker.problem(&path, message);
    } else if history < delay {
        let message = format!(
            "`history` in [source.kafka]: {history} is shorter than `commit_delay`, {delay}: leave it out, or write at least that"
        );
        checker.problem(&path, message);
    }
    let group = raw.group.unwrap_or_else(|| format!("ddc-{link}"));
    if group.trim().is_empty() || group.len() > 255 {
        checker.problem(
            &["source", "kafka", "group"],
            format!("`group` in [source.kafka]: {group:?} is no group: 1 to 255 characters; for example \"ddc-{link}\""),
        );
    }
    let role = role(&group, max_record_bytes);
    KafkaSource {
        client: client(raw.client, link, &role, &["source", "kafka"], checker),
        group,
        topics: raw.topics,
        start_at: raw.start_at,
        commit_delay: delay.0,
        history: history.0,
        commit_on_stop: raw.commit_on_stop,
        topic_epoch: raw.topic_epoch,
    }
}

impl KafkaSource {
    /// How a client is set up that reads ranges again, without the group: as the source's, with a queue of its own.
    pub fn replay_role(&self, max_record_bytes: ByteSize, queue: ByteSize) -> Role {
        Role::Replay(SourceSettings {
            group: self.group.clone(),
            max_record_bytes: max_record_bytes.bytes(),
            queue_bytes: queue.bytes(),
        })
    }

    /// How its client is set up: `source.client.build(&source.role(config.pack.max_record_bytes))`.
    pub fn role(&self, max_record_bytes: ByteSize) -> Role {
        role(&self.group, max_record_bytes)
    }
}

fn role(group: &str, max_record_bytes: ByteSize) -> Role {
    Role::Source(SourceSettings {
        group: group.to_owned(),
        max_record_bytes: max_record_bytes.bytes(),
        queue_bytes: FETCH_QUEUE.bytes(),
    })
}
