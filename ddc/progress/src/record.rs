//! The records of the topic: keys and values as bytes, both JSON in one spelling each.
//!
//! ```text
//!  progress  ["plant","","orders","0f…2a",3]                    {"format":1,"owner":"plant-a","session":"00…","epoch":…,
//!                                                                "origin":0,"next":120,"count":117,"holes":[[5,9]]}
//!  claim     ["plant","","orders","0f…2a",3,"claim","plant-a"]  {"format":1,"epoch":…}
//! ```
//!
//! Compaction compares keys as bytes, so a key in another spelling would be another record: only the spelling that
//! is written here is read. The same rule holds for values: what is read and written again is the same bytes. The
//! shape of keys never changes; the version of a value is its `format`. A null value forgets what its key names.

use ddc_link::receiver::{OffsetRange, PartitionKey, Position};
use ddc_wire::{Epoch, MAX_NAME_LEN, Session};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::name::{LinkName, SetName};

/// The version of the values.
pub const FORMAT: u64 = 1;
/// Most bytes of a key: stream and topic of 255 bytes each may be control characters, which JSON writes as six bytes.
pub const MAX_KEY_LEN: usize = 4096;
/// Most bytes of a value: 1024 holes of 42 bytes each, and what stands around them.
pub const MAX_VALUE_LEN: usize = 44 << 10;

/// What a record of the topic is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordKey {
    /// The set of links.
    pub set: SetName,
    /// The partition at the source. The topic's name is part of it, since topics without ids share configured ones.
    pub partition: PartitionKey,
    /// What is said of the partition.
    pub kind: Kind,
}

/// What a record says of its partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    /// How far it is settled.
    Progress,
    /// The greatest epoch under which this link has claimed it.
    Claim(LinkName),
}

/// A key that no link of any set has written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no key of a progress topic: {0}")]
pub struct NotAKey(String);

/// A value under one of our keys that this program cannot use.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// Written by a later version.
    #[error("it has format {found}, this program reads format {FORMAT}; use the version that wrote it")]
    Format {
        /// The format found.
        found: u64,
    },
    /// Longer than any value of this format.
    #[error("it has {found} bytes, at most {MAX_VALUE_LEN} are possible")]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// Not what this format says.
    #[error("it is damaged ({0}); find out who else writes to the topic")]
    Damaged(String),
}

impl RecordKey {
    /// The key as it stands in the topic.
    pub fn encode(&self) -> Vec<u8> {
        let PartitionKey { stream, topic, topic_id, partition } = &self.partition;
        let (set, topic_id) = (&self.set, topic_id.to_string());
        let written = match &self.kind {
            Kind::Progress => serde_json::to_vec(&(set, stream, topic, topic_id, partition)),
            Kind::Claim(link) => {
                serde_json::to_vec(&(set, stream, topic, topic_id, partition, "claim", link))
            }
        };
        // Texts and numbers can always be written into a vector.
        written.unwrap_or_default()
    }

    /// Reads a key; refuses what [`Self::encode`] would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotAKey> {
        if bytes.len() > MAX_KEY_LEN {
            return Err(NotAKey(format!("{} bytes", bytes.len())));
        }
        let read = match serde_json::from_slice::<ProgressForm>(bytes) {
            Ok((set, stream, topic, id, partition)) => (set, stream, topic, id, partition, Kind::Progress),
            Err(_) => match serde_json::from_slice::<ClaimForm>(bytes) {
                Ok((set, stream, topic, id, partition, word, link)) if word == "claim" => {
                    (set, stream, topic, id, partition, Kind::Claim(link))
                }
                Ok(_) => return Err(NotAKey("its sixth part is not `claim`".to_owned())),
                Err(error) => return Err(NotAKey(error.to_string())),
            },
        };
        let (set, stream, topic, topic_id, partition, kind) = read;
        let wrong = |what: &str| NotAKey(what.to_owned());
        if stream.len() > MAX_NAME_LEN || topic.len() > MAX_NAME_LEN || partition < 0 {
            return Err(wrong("a name is too long or the partition negative"));
        }
        let topic_id = topic_id.parse().map_err(|_| wrong("its fourth part is no topic id"))?;
        let key = Self { set, partition: PartitionKey { stream, topic, topic_id, partition }, kind };
        if key.encode() == bytes { Ok(key) } else { Err(wrong("spelt otherwise")) }
    }
}

type ProgressForm = (SetName, String, String, String, i32);
type ClaimForm = (SetName, String, String, String, i32, String, LinkName);

/// How far a partition is settled, and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The link whose egress wrote it.
    pub owner: LinkName,
    /// The session that brought the last chunk of the chain.
    pub session: Session,
    /// Where the partition stands; its epoch is that of the last chunk of the chain.
    pub position: Position,
}

impl Progress {
    /// The value as it stands in the topic; at most [`MAX_VALUE_LEN`] bytes.
    pub fn encode(&self) -> Vec<u8> {
        let position = &self.position;
        let form = ProgressValue {
            format: FORMAT,
            owner: self.owner.clone(),
            session: self.session.to_string(),
            epoch: position.epoch().0,
            origin: position.origin(),
            next: position.next(),
            count: position.count(),
            holes: position.holes().iter().map(|hole| (hole.first, hole.last)).collect(),
        };
        // Texts and numbers can always be written into a vector.
        serde_json::to_vec(&form).unwrap_or_default()
    }

    /// Reads a value; refuses what [`Self::encode`] would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let form: ProgressValue = read(bytes)?;
        let damaged = |what: &str| Unreadable::Damaged(what.to_owned());
        let holes = form.holes.into_iter().map(|(first, last)| OffsetRange { first, last }).collect();
        let position = Position::stored(form.next, Epoch(form.epoch), form.origin, form.count, holes);
        let progress = Self {
            owner: form.owner,
            session: form.session.parse().map_err(|_| damaged("its session is not 24 hexadecimal digits"))?,
            position: position.map_err(damaged)?,
        };
        if progress.encode() == bytes { Ok(progress) } else { Err(damaged("spelt otherwise")) }
    }
}

/// The value of a claim as it stands in the topic.
pub fn encode_claim(epoch: Epoch) -> Vec<u8> {
    // Numbers can always be written into a vector.
    serde_json::to_vec(&ClaimValue { format: FORMAT, epoch: epoch.0 }).unwrap_or_default()
}

/// Reads the value of a claim; refuses what [`encode_claim`] would not have written.
pub fn decode_claim(bytes: &[u8]) -> Result<Epoch, Unreadable> {
    let form: ClaimValue = read(bytes)?;
    let epoch = Epoch(form.epoch);
    if encode_claim(epoch) == bytes {
        Ok(epoch)
    } else {
        Err(Unreadable::Damaged("spelt otherwise".to_owned()))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProgressValue {
    format: u64,
    owner: LinkName,
    /// 24 hexadecimal digits.
    session: String,
    epoch: u64,
    origin: i64,
    next: i64,
    count: u64,
    /// First and last offset of each.
    holes: Vec<(i64, i64)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimValue {
    format: u64,
    epoch: u64,
}

/// All that is asked of a value of any version.
#[derive(Deserialize)]
struct AnyValue {
    format: u64,
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Unreadable> {
    match serde_json::from_slice::<AnyValue>(bytes) {
        Ok(AnyValue { format: FORMAT }) if bytes.len() > MAX_VALUE_LEN => {
            Err(Unreadable::TooLong { found: bytes.len() })
        }
        Ok(AnyValue { format: FORMAT }) => {
            serde_json::from_slice(bytes).map_err(|error| Unreadable::Damaged(error.to_string()))
        }
        Ok(AnyValue { format: found }) => Err(Unreadable::Format { found }),
        Err(error) => Err(Unreadable::Damaged(error.to_string())),
    }
}

#[cfg(test)]
mod tests;
