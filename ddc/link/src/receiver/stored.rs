//! The table of positions as it is written to the state directory: JSON, refused whole when anything in it is wrong.

use ddc_wire::{Epoch, TopicId};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::gaps::OffsetRange;
use super::position::Position;
use super::positions::{MAX_PARTITIONS, PartitionKey, Positions};

/// The version of the written form.
pub const FORMAT: u32 = 1;

/// A written table that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PositionsError {
    /// Written by another version.
    #[error(
        "positions have format {found}, this program reads format {FORMAT}; use the version that wrote them, or \
         remove the file: what is then not known to be delivered is named as missing"
    )]
    Format {
        /// The format found.
        found: u32,
    },
    /// More partitions than the table holds.
    #[error("positions name {found} partitions, at most {MAX_PARTITIONS} are possible")]
    TooMany {
        /// Partitions found.
        found: usize,
    },
    /// An entry that contradicts itself or another.
    #[error("position of topic `{topic}`, partition {partition}: {problem}")]
    Entry {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// What is wrong.
        problem: &'static str,
    },
}

/// The written form. `format` comes first, so that another version is refused before its entries are read.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(deserialize_with = "known_format")]
    format: u32,
    positions: Vec<WrittenPosition>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPosition {
    stream: String,
    topic: String,
    /// 32 hexadecimal digits, or `epoch-N`.
    topic_id: String,
    partition: i32,
    next: i64,
    epoch: u64,
    origin: i64,
    count: u64,
    holes: Vec<(i64, i64)>,
}

fn known_format<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        FORMAT => Ok(FORMAT),
        found => Err(D::Error::custom(PositionsError::Format { found })),
    }
}

impl Serialize for Positions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let positions = self.iter().map(|(key, position)| WrittenPosition {
            stream: key.stream.clone(),
            topic: key.topic.clone(),
            topic_id: key.topic_id.to_string(),
            partition: key.partition,
            next: position.next,
            epoch: position.epoch.0,
            origin: position.origin,
            count: position.count,
            holes: position.holes.iter().map(|hole| (hole.first, hole.last)).collect(),
        });
        Written { format: FORMAT, positions: positions.collect() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Positions {
    /// What is read is of a former life: gaps found next have the reason `restart`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        Self::try_from(written).map_err(D::Error::custom)
    }
}

impl TryFrom<Written> for Positions {
    type Error = PositionsError;

    fn try_from(written: Written) -> Result<Self, PositionsError> {
        let found = written.positions.len();
        if found > MAX_PARTITIONS {
            return Err(PositionsError::TooMany { found });
        }
        let mut positions = Self::default();
        for entry in written.positions {
            let (topic, partition) = (entry.topic.clone(), entry.partition);
            let wrong = |problem| PositionsError::Entry { topic, partition, problem };
            let (key, position) = match entry.parse() {
                Ok(read) => read,
                Err(problem) => return Err(wrong(problem)),
            };
            if positions.get(&key).is_some() {
                return Err(wrong("appears twice"));
            }
            positions.insert(key, position);
        }
        Ok(positions)
    }
}

impl WrittenPosition {
    fn parse(self) -> Result<(PartitionKey, Position), &'static str> {
        let topic_id = self.topic_id.parse::<TopicId>();
        let topic_id = topic_id.map_err(|_| "its topic_id is neither 32 hexadecimal digits nor epoch-N")?;
        if self.partition < 0 {
            return Err("its partition is negative");
        }
        let holes = self.holes.iter().map(|&(first, last)| OffsetRange { first, last }).collect();
        let position = Position::stored(self.next, Epoch(self.epoch), self.origin, self.count, holes)?;
        let key =
            PartitionKey { stream: self.stream, topic: self.topic, topic_id, partition: self.partition };
        Ok((key, position))
    }
}
