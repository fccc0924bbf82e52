//! A letter as a line of a file: JSON that people can read, with a checksum at its end.
//!
//! ```json
//! {"refused_at":"2026-03-01T08:15:30.250Z","link":"plant-a","side":"egress","reason":"too_large","error":"…",
//!  "destination_topic":"orders","source":{"stream":"","topic":"orders","topic_id":"…","partition":3,"offset":4711,
//!  "timestamp":1772352930250,"timestamp_type":"CreateTime"},"key":"a2V5","value":null,
//!  "headers":[{"name":"trace","value":"MQ=="}],"left_out":{"key":null,"value":2097152,"headers":null},"crc32c":"1f2e3d4c"}
//! ```
//!
//! Key, values and header values are base64 (RFC 4648, with padding). A header's name that is not UTF-8 is `name_base64`.
//! `crc32c` is the CRC-32C of all bytes of the line before `,"crc32c"`, as eight hexadecimal digits. A reader is strict: each
//! key must be there and no other, and nothing that is shown to people may hold control characters.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ddc_telemetry::cells::Label as _;
use ddc_telemetry::reasons::DeadLetterReason;
use ddc_wire::Timestamp as RecordTime;
use serde::{Deserialize, Serialize};

use super::letter::{LeftOut, Letter, Source, time_type};
use crate::config::{LinkName, Side, TopicName};
use crate::gaps::Timestamp;

/// No line is longer, in bytes, its end included: the largest record (256 MiB) in base64, and what stands around it.
pub const MAX_LINE: usize = (256 << 20) / 3 * 4 + (16 << 20);
/// What stands before the checksum, and behind it.
const BEFORE_SUM: &str = ",\"crc32c\":\"";
const AFTER_SUM: &str = "\"}";
/// Longest text that a reader takes for a stream or an error.
const LONGEST_TEXT: usize = 8 << 10;

/// Why a line is no letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    /// Not as long as written, or changed since.
    #[error("the line is torn, or was changed since it was written: its checksum does not fit")]
    Sum,
    /// Whole, and not what this version writes.
    #[error("the line is whole, but no dead letter of this version: {0}")]
    Content(String),
}

/// Appends the letter as a line.
pub fn write(letter: &Letter, text: &mut Vec<u8>) {
    let begin = text.len();
    // Texts, numbers and strings as keys: this cannot fail.
    let _ = serde_json::to_writer(&mut *text, &Written::from(letter));
    // The closing brace comes after the checksum.
    text.pop();
    let sum = crc32c::crc32c(&text[begin..]);
    text.extend_from_slice(format!("{BEFORE_SUM}{sum:08x}{AFTER_SUM}\n").as_bytes());
}

/// Whether a line, its newline included, is as it was written. Cheaper than [`parse`].
pub fn is_whole(line: &[u8]) -> bool {
    content(line).is_some()
}

/// Reads a line, its newline included.
pub fn parse(line: &[u8]) -> Result<Letter, BadLine> {
    let content = content(line).ok_or(BadLine::Sum)?;
    let mut json = content.to_vec();
    json.push(b'}');
    let written: Written =
        serde_json::from_slice(&json).map_err(|error| BadLine::Content(error.to_string()))?;
    written.letter().map_err(BadLine::Content)
}

/// What the checksum covers, if it fits.
fn content(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\n")?.strip_suffix(AFTER_SUM.as_bytes())?;
    let (content, sum) = line.split_at_checked(line.len().checked_sub(8)?)?;
    let content = content.strip_suffix(BEFORE_SUM.as_bytes())?;
    (format!("{:08x}", crc32c::crc32c(content)).as_bytes() == sum).then_some(content)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    refused_at: Timestamp,
    link: String,
    side: String,
    reason: String,
    error: String,
    #[serde(deserialize_with = "nullable")]
    destination_topic: Option<String>,
    source: WrittenSource,
    #[serde(deserialize_with = "nullable")]
    key: Option<String>,
    #[serde(deserialize_with = "nullable")]
    value: Option<String>,
    headers: Vec<WrittenHeader>,
    left_out: WrittenLeftOut,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSource {
    stream: String,
    topic: String,
    topic_id: String,
    partition: i32,
    offset: i64,
    #[serde(deserialize_with = "nullable")]
    timestamp: Option<i64>,
    #[serde(deserialize_with = "nullable")]
    timestamp_type: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenHeader {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name_base64: Option<String>,
    #[serde(deserialize_with = "nullable")]
    value: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLeftOut {
    #[serde(deserialize_with = "nullable")]
    key: Option<u64>,
    #[serde(deserialize_with = "nullable")]
    value: Option<u64>,
    #[serde(deserialize_with = "nullable")]
    headers: Option<u64>,
}

/// A value or null; the key must be there, which serde does not ask of an `Option` by itself.
fn nullable<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

fn encoded(bytes: Option<&Vec<u8>>) -> Option<String> {
    bytes.map(|bytes| STANDARD.encode(bytes))
}

fn decoded(what: &str, text: Option<String>) -> Result<Option<Vec<u8>>, String> {
    text.map(|text| STANDARD.decode(text).map_err(|error| format!("`{what}`: {error}"))).transpose()
}

impl From<&Letter> for Written {
    fn from(letter: &Letter) -> Self {
        let Source { stream, topic, topic_id, partition, offset, timestamp } = &letter.source;
        Self {
            refused_at: letter.refused_at,
            link: letter.link.clone(),
            side: letter.side.to_string(),
            reason: letter.reason.as_str().to_owned(),
            error: letter.error.clone(),
            destination_topic: letter.destination_topic.clone(),
            source: WrittenSource {
                stream: stream.clone(),
                topic: topic.clone(),
                topic_id: topic_id.to_string(),
                partition: *partition,
                offset: *offset,
                timestamp: timestamp.map(RecordTime::millis),
                timestamp_type: timestamp.map(|time| time_type(time).to_owned()),
            },
            key: encoded(letter.key.as_ref()),
            value: encoded(letter.value.as_ref()),
            headers: letter.headers.iter().map(header).collect(),
            left_out: WrittenLeftOut {
                key: letter.left_out.key,
                value: letter.left_out.value,
                headers: letter.left_out.headers,
            },
        }
    }
}

fn header((name, value): &(Vec<u8>, Option<Vec<u8>>)) -> WrittenHeader {
    let value = encoded(value.as_ref());
    match std::str::from_utf8(name) {
        Ok(name) => WrittenHeader { name: Some(name.to_owned()), name_base64: None, value },
        Err(_) => WrittenHeader { name: None, name_base64: encoded(Some(name)), value },
    }
}

impl Written {
    fn letter(self) -> Result<Letter, String> {
        let side = match self.side.as_str() {
            "ingress" => Side::Ingress,
            "egress" => Side::Egress,
            _ => return Err("`side` is neither ingress nor egress".into()),
        };
        let reason = DeadLetterReason::from_name(&self.reason).ok_or("`reason` is not known")?;
        self.link.parse::<LinkName>().map_err(|error| format!("`link`: {error}"))?;
        plain("error", &self.error)?;
        if let Some(topic) = &self.destination_topic {
            // Also a name that no topic can have, which is why the record was refused.
            plain("destination_topic", topic)?;
        }
        let headers: Result<Vec<_>, String> = self.headers.into_iter().map(WrittenHeader::header).collect();
        let WrittenLeftOut { key, value, headers: left_out_headers } = self.left_out;
        let letter = Letter {
            source: self.source.source()?,
            destination_topic: self.destination_topic,
            reason,
            error: self.error,
            refused_at: self.refused_at,
            link: self.link,
            side,
            key: decoded("key", self.key)?,
            value: decoded("value", self.value)?,
            headers: headers?,
            left_out: LeftOut { key, value, headers: left_out_headers },
        };
        let contradicts = (letter.left_out.key.is_some() && letter.key.is_some())
            || (letter.left_out.value.is_some() && letter.value.is_some())
            || (letter.left_out.headers.is_some() && !letter.headers.is_empty());
        if contradicts { Err("it has what `left_out` says it has not".into()) } else { Ok(letter) }
    }
}

impl WrittenSource {
    fn source(self) -> Result<Source, String> {
        plain("stream", &self.stream)?;
        self.topic.parse::<TopicName>().map_err(|error| format!("`topic`: {error}"))?;
        let topic_id = self.topic_id.parse().map_err(|error| format!("`topic_id`: {error}"))?;
        if self.partition < 0 || self.offset < 0 {
            return Err("partitions and offsets are not negative".into());
        }
        let timestamp = match (self.timestamp, self.timestamp_type.as_deref()) {
            (None, None) => None,
            (Some(millis), Some("CreateTime")) => Some(RecordTime::Create(millis)),
            (Some(millis), Some("LogAppendTime")) => Some(RecordTime::LogAppend(millis)),
            _ => return Err("`timestamp` and `timestamp_type` do not fit together".into()),
        };
        Ok(Source {
            stream: self.stream,
            topic: self.topic,
            topic_id,
            partition: self.partition,
            offset: self.offset,
            timestamp,
        })
    }
}

impl WrittenHeader {
    fn header(self) -> Result<(Vec<u8>, Option<Vec<u8>>), String> {
        let name = match (self.name, self.name_base64) {
            (Some(name), None) => name.into_bytes(),
            (None, Some(name)) => {
                let name = decoded("name_base64", Some(name))?.unwrap_or_default();
                if std::str::from_utf8(&name).is_ok() {
                    return Err("a header's name that is UTF-8 is written as `name`".into());
                }
                name
            }
            _ => return Err("a header has `name` or `name_base64`".into()),
        };
        Ok((name, decoded("value", self.value)?))
    }
}

/// What people are shown must be a line of bounded length.
fn plain(key: &str, text: &str) -> Result<(), String> {
    if text.len() > LONGEST_TEXT {
        return Err(format!("`{key}` is longer than {LONGEST_TEXT} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("`{key}` has control characters"));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
pub(super) mod tests;
