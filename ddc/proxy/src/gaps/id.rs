//! The name of a gap: the same for the same offsets, wherever and whenever it is computed.

use std::fmt;
use std::str::FromStr;

use ddc_link::receiver::{OffsetRange, PartitionKey};
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Tells the hash from any other use of the same fields.
const DOMAIN: &str = "ddc gap 1";

/// 128 bits of SHA-256 over link, stream, topic, topic id, partition and range; written as 32 hexadecimal digits.
///
/// Consumers use it as the key that makes reports idempotent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GapId(pub [u8; 16]);

impl GapId {
    /// The name of a range. Each field is preceded by its length, so that no two ranges read alike.
    pub fn of(link: &str, key: &PartitionKey, range: OffsetRange) -> Self {
        let mut context = Context::new(&SHA256);
        let topic_id = key.topic_id.to_string();
        let partition = key.partition.to_be_bytes();
        let (first, last) = (range.first.to_be_bytes(), range.last.to_be_bytes());
        let fields: [&[u8]; 8] = [
            DOMAIN.as_bytes(),
            link.as_bytes(),
            key.stream.as_bytes(),
            key.topic.as_bytes(),
            topic_id.as_bytes(),
            &partition,
            &first,
            &last,
        ];
        for field in fields {
            context.update(&(field.len() as u64).to_be_bytes());
            context.update(field);
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&context.finish().as_ref()[..16]);
        Self(bytes)
    }
}

/// A text that is no gap's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a gap's id is 32 hexadecimal digits, in lower case")]
pub struct GapIdError;

impl FromStr for GapId {
    type Err = GapIdError;

    fn from_str(text: &str) -> Result<Self, GapIdError> {
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(GapIdError),
        };
        if text.len() != 32 {
            return Err(GapIdError);
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for GapId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for GapId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GapId({self})")
    }
}

impl Serialize for GapId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GapId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::text::deserialize(deserializer)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;
    use ddc_wire::TopicId;

    fn id(link: &str, stream: &str, topic: &str, id: TopicId, partition: i32, range: (i64, i64)) -> GapId {
        let key = PartitionKey { stream: stream.into(), topic: topic.into(), topic_id: id, partition };
        GapId::of(link, &key, OffsetRange { first: range.0, last: range.1 })
    }

    /// Written down once, by `python3` (hashlib), so that no later version changes the name of a gap:
    /// `sha256(b"".join(len(f).to_bytes(8, "big") + f for f in fields)).hexdigest()[:32]`.
    #[test]
    fn the_name_of_a_range_never_changes() {
        let golden = id("plant-a", "", "orders", TopicId::Uuid([0xAB; 16]), 3, (100, 199));
        assert_eq!(golden.to_string(), "40490b553a4f9d70f35bf745d1471a2e");
    }

    #[test]
    fn whatever_differs_gives_another_name() {
        let uuid = TopicId::Uuid([1; 16]);
        let names = [
            id("a", "", "t", uuid, 0, (1, 2)),
            id("b", "", "t", uuid, 0, (1, 2)),
            id("a", "t", "", uuid, 0, (1, 2)),
            id("a", "", "u", uuid, 0, (1, 2)),
            id("at", "", "", uuid, 0, (1, 2)),
            id("a", "", "t", TopicId::Configured(1), 0, (1, 2)),
            id("a", "", "t", uuid, 1, (1, 2)),
            id("a", "", "t", uuid, 0, (1, 3)),
            id("a", "", "t", uuid, 0, (0, 2)),
        ];
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len());
        for name in names {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        for wrong in ["", "g", "é", &"a".repeat(31), &"a".repeat(33), &"A".repeat(32), &"é".repeat(16)] {
            assert!(wrong.parse::<GapId>().is_err(), "{wrong}");
        }
    }
}
