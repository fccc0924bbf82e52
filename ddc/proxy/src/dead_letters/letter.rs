//! A dead letter: a refused record as it was, why it was refused, and where it came from.
//!
//! In a topic the letter has the record's key, value and headers, in order; behind them come headers of its own
//! ([`Letter::headers`]). Its timestamp is the time of the refusal: the topic must not refuse it for the record's, and
//! retention counts from when people could know of it. In a file it is a line of JSON (module `line`).

use std::fmt;

use ddc_link::receiver::PartitionKey;
use ddc_telemetry::cells::Label as _;
use ddc_telemetry::reasons::DeadLetterReason;
use ddc_wire::{ChunkHeader, Record, RecordHeader, Timestamp as RecordTime, TopicId};

use crate::config::Side;
use crate::gaps::Timestamp;
use crate::sink::headers::{SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TOPIC};

/// Why: a value of the metric's label.
pub const ERROR: &str = "ddcError";
/// The same in words, as the destination or DDC say it.
pub const ERROR_TEXT: &str = "ddcErrorText";
/// When, by the clock of the host that refused it: RFC 3339, UTC.
pub const REFUSED_AT: &str = "ddcRefusedAt";
/// Who: the link's name, `/`, and `ingress` or `egress`.
pub const REFUSED_BY: &str = "ddcRefusedBy";
/// The topic that it was meant for; not at the ingress.
pub const DESTINATION_TOPIC: &str = "ddcDestinationTopic";
/// Which life of the source topic.
pub const SOURCE_TOPIC_ID: &str = "sourceTopicId";
/// The record's timestamp in ms since 1970; null when it had none.
pub const SOURCE_TIMESTAMP: &str = "sourceTimestamp";
/// `CreateTime` or `LogAppendTime`; not there when it had no timestamp.
pub const SOURCE_TIMESTAMP_TYPE: &str = "sourceTimestampType";
/// The length of a key that was left out, in bytes.
pub const KEY_LEFT_OUT: &str = "ddcKeyBytes";
/// The length of a value that was left out, in bytes.
pub const VALUE_LEFT_OUT: &str = "ddcValueBytes";
/// The length of headers that were left out, names and values, in bytes.
pub const HEADERS_LEFT_OUT: &str = "ddcHeaderBytes";

/// Characters of an error's text that are kept.
const LONGEST_TEXT: usize = 1000;
/// A key, or all headers together, up to this length stay when a letter loses its value.
const KEPT_WITHOUT_PAYLOAD: usize = 16 << 10;

/// A refused record. Its `Debug` shows lengths, never what is in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Letter {
    /// Where it came from.
    pub source: Source,
    /// The topic that it was meant for, where that is known.
    pub destination_topic: Option<String>,
    /// Why it was refused.
    pub reason: DeadLetterReason,
    /// The same in words: one line without control characters, never with anything of the record in it.
    pub error: String,
    /// When.
    pub refused_at: Timestamp,
    /// By which link.
    pub link: String,
    /// By which side of it.
    pub side: Side,
    /// The key, or null.
    pub key: Option<Vec<u8>>,
    /// The value; null is a tombstone, unless `left_out` says otherwise.
    pub value: Option<Vec<u8>>,
    /// Names and values, in order.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// What the record had and the letter has not.
    pub left_out: LeftOut,
}

/// A place in a source topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The source's stream; empty when there is only one.
    pub stream: String,
    /// The topic at the source.
    pub topic: String,
    /// Which life of the topic.
    pub topic_id: TopicId,
    /// The partition at the source.
    pub partition: i32,
    /// The offset at the source.
    pub offset: i64,
    /// The record's timestamp.
    pub timestamp: Option<RecordTime>,
}

/// Lengths of what is not in the letter, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Of the key.
    pub key: Option<u64>,
    /// Of the value.
    pub value: Option<u64>,
    /// Of the headers, names and values.
    pub headers: Option<u64>,
}

impl LeftOut {
    /// Whether anything is.
    pub fn is_any(&self) -> bool {
        self.key.is_some() || self.value.is_some() || self.headers.is_some()
    }
}

/// Who refuses: fixed for a link's side.
#[derive(Debug, Clone)]
pub struct Refuser {
    /// The link's name.
    pub link: String,
    /// The side.
    pub side: Side,
}

/// What was refused and why, beside the record itself.
#[derive(Debug, Clone, Copy)]
pub struct Refusal<'a> {
    /// The topic that it was meant for, where that is known.
    pub destination_topic: Option<&'a str>,
    /// Why.
    pub reason: DeadLetterReason,
    /// The same in words; nothing of the record may be in it.
    pub error: &'a str,
    /// When.
    pub at: Timestamp,
}

impl Letter {
    /// Of a record as it stands at either side.
    pub fn new<'h>(
        by: &Refuser,
        source: Source,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = RecordHeader<'h>>,
        refusal: Refusal<'_>,
    ) -> Self {
        Self {
            source,
            destination_topic: refusal.destination_topic.map(str::to_owned),
            reason: refusal.reason,
            error: one_line(refusal.error),
            refused_at: refusal.at,
            link: by.link.clone(),
            side: by.side,
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            headers: headers.map(|header| (header.name.to_vec(), header.value.map(<[u8]>::to_vec))).collect(),
            left_out: LeftOut::default(),
        }
    }

    /// Of a record that came over the link.
    pub fn of_record(
        by: &Refuser,
        record: &Record<'_>,
        chunk: &ChunkHeader<'_>,
        refusal: Refusal<'_>,
    ) -> Self {
        let source = Source {
            stream: chunk.stream.to_owned(),
            topic: chunk.topic.to_owned(),
            topic_id: chunk.topic_id,
            partition: chunk.partition,
            offset: record.offset,
            timestamp: record.timestamp,
        };
        Self::new(by, source, record.key, record.value, record.headers.clone(), refusal)
    }

    /// Its timestamp in a topic, in ms since 1970.
    pub fn millis(&self) -> i64 {
        // At most to the year 9999, by its type.
        self.refused_at.millis() as i64
    }

    /// Its headers in a topic: the record's own, in order; then the letter's. A record's own header of the same name stays,
    /// before the letter's: the last one of a name is the letter's.
    pub fn headers(&self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let mut headers = self.headers.clone();
        let mut add = |name: &str, value: Option<&str>| {
            headers.push((name.into(), value.map(Into::into)));
        };
        let Source { stream: _, topic, topic_id, partition, offset, timestamp } = &self.source;
        add(ERROR, Some(self.reason.as_str()));
        add(ERROR_TEXT, Some(&self.error));
        add(REFUSED_AT, Some(&self.refused_at.to_string()));
        add(REFUSED_BY, Some(&format!("{}/{}", self.link, self.side)));
        if let Some(topic) = &self.destination_topic {
            add(DESTINATION_TOPIC, Some(topic));
        }
        for (name, length) in [
            (KEY_LEFT_OUT, self.left_out.key),
            (VALUE_LEFT_OUT, self.left_out.value),
            (HEADERS_LEFT_OUT, self.left_out.headers),
        ] {
            if let Some(length) = length {
                add(name, Some(&length.to_string()));
            }
        }
        add(SOURCE_TOPIC, Some(topic));
        add(SOURCE_PARTITION, Some(&partition.to_string()));
        add(SOURCE_OFFSET, Some(&offset.to_string()));
        add(SOURCE_TOPIC_ID, Some(&topic_id.to_string()));
        add(SOURCE_TIMESTAMP, timestamp.map(|time| time.millis().to_string()).as_deref());
        if let Some(time) = timestamp {
            add(SOURCE_TIMESTAMP_TYPE, Some(time_type(*time)));
        }
        headers
    }

    /// The same without the value, and without a key or headers that are large; `None` when nothing of the record is left
    /// to leave out.
    pub fn without_payload(&self) -> Option<Self> {
        if self.left_out.is_any() {
            return None;
        }
        let mut letter = Self {
            key: None,
            value: None,
            headers: Vec::new(),
            left_out: LeftOut::default(),
            ..self.clone_head()
        };
        letter.left_out.value = self.value.as_ref().map(|value| value.len() as u64);
        match &self.key {
            Some(key) if key.len() > KEPT_WITHOUT_PAYLOAD => letter.left_out.key = Some(key.len() as u64),
            key => letter.key.clone_from(key),
        }
        let headers = self.header_bytes();
        if headers > KEPT_WITHOUT_PAYLOAD {
            letter.left_out.headers = Some(headers as u64);
        } else {
            letter.headers.clone_from(&self.headers);
        }
        letter.left_out.is_any().then_some(letter)
    }

    /// Key, value and headers of the record, in bytes: what the letter takes in memory.
    pub fn payload_bytes(&self) -> usize {
        let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        len(&self.key) + len(&self.value) + self.header_bytes()
    }

    /// Whose partition, as gaps and positions name it.
    pub fn partition(&self) -> PartitionKey {
        PartitionKey {
            stream: self.source.stream.as_str().into(),
            topic: self.source.topic.as_str().into(),
            topic_id: self.source.topic_id,
            partition: self.source.partition,
        }
    }

    fn header_bytes(&self) -> usize {
        self.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len)).sum()
    }

    fn clone_head(&self) -> Self {
        Self {
            source: self.source.clone(),
            destination_topic: self.destination_topic.clone(),
            reason: self.reason,
            error: self.error.clone(),
            refused_at: self.refused_at,
            link: self.link.clone(),
            side: self.side,
            key: None,
            value: None,
            headers: Vec::new(),
            left_out: self.left_out,
        }
    }
}

impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Letter")
            .field("source", &self.source)
            .field("destination_topic", &self.destination_topic)
            .field("reason", &self.reason.as_str())
            .field("error", &self.error)
            .field("refused_at", &self.refused_at)
            .field("by", &format_args!("{}/{}", self.link, self.side))
            .field("payload_bytes", &self.payload_bytes())
            .field("left_out", &self.left_out)
            .finish_non_exhaustive()
    }
}

/// Kafka's word for where a timestamp comes from.
pub(super) fn time_type(time: RecordTime) -> &'static str {
    match time {
        RecordTime::Create(_) => "CreateTime",
        RecordTime::LogAppend(_) => "LogAppendTime",
    }
}

fn one_line(text: &str) -> String {
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    line.take(LONGEST_TEXT).collect()
}
