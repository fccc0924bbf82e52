//! Source partitions by number, so that a record in flight names its partition in four bytes.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use ddc_link::receiver::PartitionKey;
use ddc_wire::TopicId;

use super::missing::SourcePartition;

/// Partitions (of any life of a topic) that have a number. When the table is full, `deliver` waits until nothing is
/// in flight and begins a new one.
pub(crate) const MAX_PARTITIONS: usize = 200_000;

/// The table. Numbers are given once and stay.
#[derive(Debug, Default)]
pub(crate) struct Partitions {
    hasher: RandomState,
    /// Hash of the name → the numbers that have it. Hashed by hand, so that a look-up allocates nothing.
    by_hash: HashMap<u64, Vec<u32>>,
    names: Vec<(Arc<SourcePartition>, PartitionKey)>,
}

impl Partitions {
    /// The number of a partition; a new one if need be. `None`: the table is full.
    pub(crate) fn slot(
        &mut self,
        stream: &str,
        topic: &str,
        topic_id: TopicId,
        partition: i32,
    ) -> Option<u32> {
        let hash = self.hasher.hash_one((stream, topic, topic_id, partition));
        let slots = self.by_hash.entry(hash).or_default();
        let names = &self.names;
        let known = slots.iter().copied().find(|&slot| {
            let (_, key) = &names[slot as usize];
            key.partition == partition
                && key.topic_id == topic_id
                && key.topic == topic
                && key.stream == stream
        });
        if known.is_some() {
            return known;
        }
        if names.len() >= MAX_PARTITIONS {
            return None;
        }
        let slot = names.len() as u32;
        slots.push(slot);
        let name = SourcePartition {
            stream: stream.to_owned(),
            topic: topic.to_owned(),
            topic_id: topic_id.to_string(),
            partition,
        };
        let key = PartitionKey { stream: stream.to_owned(), topic: topic.to_owned(), topic_id, partition };
        self.names.push((Arc::new(name), key));
        Some(slot)
    }

    /// The key of a number that [`Self::slot`] gave.
    pub(crate) fn key(&self, slot: u32) -> Option<&PartitionKey> {
        self.names.get(slot as usize).map(|(_, key)| key)
    }

    /// The name of a number that [`Self::slot`] gave.
    pub(crate) fn name(&self, slot: u32) -> Option<&Arc<SourcePartition>> {
        self.names.get(slot as usize).map(|(name, _)| name)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_one_number() {
        let mut partitions = Partitions::default();
        let mut slots = Vec::new();
        for _ in 0..2 {
            for topic in ["a", "b"] {
                for id in [TopicId::Configured(0), TopicId::Uuid([1; 16])] {
                    for partition in 0..3 {
                        slots.push(partitions.slot("", topic, id, partition).unwrap());
                    }
                }
            }
        }
        assert_eq!(slots[..12], slots[12..]);
        assert_eq!(slots[..12].iter().collect::<std::collections::BTreeSet<_>>().len(), 12);
        let name = partitions.name(slots[7]).unwrap();
        assert_eq!((name.topic.as_str(), name.partition, name.topic_id.as_str()), ("b", 1, "epoch-0"));
        assert!(partitions.name(12).is_none());
    }
}
