//! From what is wanted to what is done: what can be read, and what is known to be gone without reading. Pure.
//!
//! ```text
//!  wanted:         first ………………………………………………………………… last
//!  in the log:            low ……………………………… high                     topic id as today's?
//!  done:           [ gone │ read …………………… ]  not there yet: cut, and said
//! ```

use ddc_kafka::errors::Kind;
use ddc_kafka::topic_id::{TopicError, TopicFacts};
use ddc_wire::TopicId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::request::Wanted;

/// What is done for one range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planned {
    /// The range; its end may be cut, see `cut`.
    pub(super) wanted: Wanted,
    /// The life of the topic that it is answered for.
    pub(super) topic_id: TopicId,
    /// Partitions of the topic; 0 when unknown.
    pub(super) partition_count: u32,
    /// Where reading begins; `None`: everything is gone and nothing is read.
    pub(super) read_from: Option<i64>,
    /// Why something is known to be gone without reading.
    pub(super) gone: Option<Gone>,
    /// The first offset that was asked for and is not in the log yet: it is not answered for.
    pub(super) cut: Option<i64>,
}

/// Why offsets are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gone {
    /// Below the start of the log: deleted, by retention or by hand.
    Deleted,
    /// Of an older topic of the same name, which was deleted.
    OlderTopic,
}

/// Why a range cannot be replayed. Nothing of the request is sent then.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The brokers say no to the topic.
    #[error("topic {topic}: {error}; {}", error.verdict().advice)]
    Topic {
        /// The topic.
        topic: String,
        /// Their words.
        error: TopicError,
    },
    /// The topic has an id in the request and none at the brokers.
    #[error("topic {0}: the range names a topic id and the brokers tell none now; ask again when they do")]
    IdUnknown(String),
    /// There is no such partition.
    #[error("{topic}[{partition}] does not exist: the topic has {count} partitions")]
    Partition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// How many there are.
        count: u32,
    },
    /// Nothing of it is in the log yet.
    #[error(
        "{topic}[{partition}] {first} to {last}: the log ends before offset {high}; there is nothing to send yet"
    )]
    BeyondEnd {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// First offset.
        first: i64,
        /// Last offset.
        last: i64,
        /// The offset behind the last one that can be read.
        high: i64,
    },
}

/// What the brokers say of a topic, as far as a plan needs it.
pub(super) type TopicAnswer = Result<TopicFacts, TopicError>;

/// Whether a range is gone as a whole, because its topic is not the one of today; else in which life it is read.
pub(super) fn life(wanted: &Wanted, answer: &TopicAnswer, topic_epoch: u64) -> Result<Life, PlanError> {
    let topic = || wanted.topic.clone();
    let facts = match (answer, wanted.topic_id) {
        (Ok(facts), _) => facts,
        // It was deleted, and with it everything that had this id.
        (Err(error), Some(id)) if error.verdict().kind == Kind::UnknownTopic => return Ok(Life::Older(id)),
        (Err(error), _) => return Err(PlanError::Topic { topic: topic(), error: error.clone() }),
    };
    let today = facts.id.map_or(TopicId::Configured(topic_epoch), |id| TopicId::Uuid(id.to_bytes()));
    match wanted.topic_id {
        // Brokers do not lose ids: one that tells none is no proof of another life.
        Some(TopicId::Uuid(_)) if facts.id.is_none() => Err(PlanError::IdUnknown(topic())),
        Some(id) if id != today => Ok(Life::Older(id)),
        _ if wanted.partition as u32 >= facts.partitions => {
            Err(PlanError::Partition { topic: topic(), partition: wanted.partition, count: facts.partitions })
        }
        _ => Ok(Life::Today { topic_id: today, partition_count: facts.partitions }),
    }
}

/// In which life of its topic a range lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// In that of today.
    Today {
        /// Its id.
        topic_id: TopicId,
        /// Partitions.
        partition_count: u32,
    },
    /// In one that is over.
    Older(TopicId),
}

impl Life {
    /// What is done, with the watermarks of the partition (which are asked for today's topics only).
    pub(super) fn plan(self, wanted: Wanted, watermarks: (i64, i64)) -> Result<Planned, PlanError> {
        let (topic_id, partition_count) = match self {
            Self::Older(topic_id) => {
                let gone = Some(Gone::OlderTopic);
                return Ok(Planned {
                    wanted,
                    topic_id,
                    partition_count: 0,
                    read_from: None,
                    gone,
                    cut: None,
                });
            }
            Self::Today { topic_id, partition_count } => (topic_id, partition_count),
        };
        let (low, high) = watermarks;
        let Wanted { first, last, .. } = wanted;
        if first >= high.max(low) {
            let Wanted { topic, partition, .. } = wanted;
            return Err(PlanError::BeyondEnd { topic, partition, first, last, high });
        }
        let mut planned = Planned {
            wanted,
            topic_id,
            partition_count,
            read_from: (last >= low && low < high).then_some(first.max(low)),
            gone: (first < low).then_some(Gone::Deleted),
            cut: None,
        };
        if last >= high {
            planned.wanted.last = high - 1;
            planned.cut = Some(high);
        }
        Ok(planned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rdkafka::types::RDKafkaErrorCode as Code;

    const TODAY: TopicId = TopicId::Configured(3);

    fn wanted(topic_id: Option<TopicId>, first: i64, last: i64) -> Wanted {
        Wanted { topic: "orders".into(), topic_id, partition: 2, first, last }
    }

    #[expect(clippy::unnecessary_wraps, reason = "an answer as the brokers give it")]
    fn facts(partitions: u32) -> TopicAnswer {
        Ok(TopicFacts { id: None, partitions })
    }

    #[test]
    fn an_older_life_is_gone_and_doubt_is_not_a_proof() {
        let unknown = Err(TopicError { code: Code::UnknownTopicOrPartition, text: "?".into() });
        let away = Err(TopicError { code: Code::OperationTimedOut, text: "?".into() });
        let (old, uuid) = (TopicId::Configured(2), TopicId::Uuid([1; 16]));
        let of = |id: Option<TopicId>, answer: &TopicAnswer| life(&wanted(id, 0, 9), answer, 3);
        let today = Ok(Life::Today { topic_id: TODAY, partition_count: 4 });
        assert_eq!(of(None, &facts(4)), today);
        assert_eq!(of(Some(TODAY), &facts(4)), today);
        assert_eq!(of(Some(old), &facts(4)), Ok(Life::Older(old)));
        assert_eq!(of(Some(uuid), &unknown), Ok(Life::Older(uuid)), "deleted");
        assert_eq!(of(Some(uuid), &facts(4)), Err(PlanError::IdUnknown("orders".into())));
        assert!(matches!(of(None, &unknown), Err(PlanError::Topic { .. })), "which life is meant?");
        assert!(matches!(of(Some(uuid), &away), Err(PlanError::Topic { .. })), "away is not deleted");
        assert!(matches!(of(None, &facts(2)), Err(PlanError::Partition { count: 2, .. })));
        let planned = Life::Older(old).plan(wanted(Some(old), 0, 9), (0, 100)).unwrap();
        assert_eq!((planned.topic_id, planned.read_from, planned.gone), (old, None, Some(Gone::OlderTopic)));
    }

    proptest! {
        /// Against the log as it is: nothing at or above its end is answered for, nothing below its start is read, and
        /// everything else of the range is answered for.
        #[test]
        fn what_is_planned_is_what_the_log_can_tell(low in 0i64..60, len in 0i64..60, a in 0i64..140, b in 0i64..140) {
            let (high, first, last) = (low + len, a.min(b), a.max(b));
            let life = Life::Today { topic_id: TODAY, partition_count: 4 };
            match life.plan(wanted(None, first, last), (low, high)) {
                Err(PlanError::BeyondEnd { .. }) => prop_assert!(first >= high),
                Err(_) => prop_assert!(false),
                Ok(planned) => {
                    prop_assert!(first < high.max(low));
                    prop_assert_eq!(planned.wanted.first, first);
                    prop_assert_eq!(planned.wanted.last, last.min(high - 1));
                    prop_assert!(planned.wanted.last >= first);
                    prop_assert_eq!(planned.cut, (last >= high).then_some(high));
                    prop_assert_eq!(planned.gone.is_some(), first < low);
                    let readable = (first..=last).find(|offset| (low..high).contains(offset));
                    prop_assert_eq!(planned.read_from, readable);
                }
            }
        }
    }
}
