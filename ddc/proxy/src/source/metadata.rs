//! What a commit says besides its offset: where the partition's chain stood there.
//!
//! Kafka keeps a string with each committed offset. Ours holds what the next owner of the partition needs to go on
//! with the chain: `1;<topic id>;<epoch>;<origin>;<previous or ->;<count>`. Metadata that is missing or somebody
//! else's is no error: the chain then begins anew at the committed offset.

use std::fmt;
use std::str::FromStr;

use ddc_wire::{Epoch, TopicId};

/// Where the chain of a partition stood at a committed offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitMetadata {
    /// The life of the topic that the offset belongs to.
    pub topic_id: TopicId,
    /// The epoch of the owner that committed.
    pub epoch: Epoch,
    /// First offset ever to be read in this life of the topic under this group.
    pub origin: i64,
    /// Last offset sent below the committed one.
    pub previous: Option<i64>,
    /// Records sent below the committed offset.
    pub count: u64,
}

const VERSION: &str = "1";

impl fmt::Display for CommitMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION};{};{};{};", self.topic_id, self.epoch, self.origin)?;
        match self.previous {
            Some(previous) => write!(f, "{previous};{}", self.count),
            None => write!(f, "-;{}", self.count),
        }
    }
}

/// A string that this version did not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreign;

impl FromStr for CommitMetadata {
    type Err = Foreign;

    fn from_str(text: &str) -> Result<Self, Foreign> {
        fn number<T: FromStr>(part: &str) -> Result<T, Foreign> {
            part.parse().map_err(|_| Foreign)
        }
        let parts: Vec<&str> = text.splitn(7, ';').collect();
        let [VERSION, id, epoch, origin, previous, count] = parts[..] else { return Err(Foreign) };
        let metadata = Self {
            topic_id: topic_id(id)?,
            epoch: Epoch(number(epoch)?),
            origin: number(origin)?,
            previous: if previous == "-" { None } else { Some(number(previous)?) },
            count: number(count)?,
        };
        let sane = metadata.origin >= 0
            && metadata.previous.is_none_or(|previous| (0..i64::MAX).contains(&previous));
        if sane { Ok(metadata) } else { Err(Foreign) }
    }
}

fn topic_id(text: &str) -> Result<TopicId, Foreign> {
    if let Some(epoch) = text.strip_prefix("epoch-") {
        return epoch.parse().map(TopicId::Configured).map_err(|_| Foreign);
    }
    if text.len() != 32 || !text.is_ascii() {
        return Err(Foreign);
    }
    let mut bytes = [0; 16];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| Foreign)?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| Foreign)?;
    }
    Ok(TopicId::Uuid(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(
            uuid: Option<[u8; 16]>,
            number: u64,
            origin in 0i64..,
            previous in proptest::option::of(0..i64::MAX),
            count: u64,
        ) {
            let topic_id = uuid.map_or(TopicId::Configured(number), TopicId::Uuid);
            let metadata = CommitMetadata { topic_id, epoch: Epoch(number), origin, previous, count };
            prop_assert_eq!(metadata.to_string().parse(), Ok(metadata));
            prop_assert!(metadata.to_string().len() < 4096, "Kafka's offset.metadata.max.bytes");
        }

        #[test]
        fn anything_else_is_foreign_or_ours(text in ".{0,80}") {
            if let Ok(metadata) = text.parse::<CommitMetadata>() {
                prop_assert_eq!(metadata.to_string().parse(), Ok(metadata));
            }
        }
    }

    #[test]
    fn foreign_metadata() {
        for text in [
            "",
            "NO_METADATA",
            "2;epoch-0;1;2;3;4",
            "1;epoch-0;1;2;3",
            "1;epoch-0;1;2;3;4;5",
            "1;zz;1;2;3;4",
            "1;epoch-0;1;-2;3;4",
            "1;epoch-0;1;2;-3;4",
        ] {
            assert_eq!(text.parse::<CommitMetadata>(), Err(Foreign), "{text:?}");
        }
    }
}
