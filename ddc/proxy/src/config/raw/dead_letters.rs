//! The table of dead letters, the same on both sides.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::choices;
use crate::config::units::ByteSize;
use crate::config::values::{FilePath, TopicName};

/// Keeps records that this side refuses for ever (too large, not encodable, a timestamp the destination does not take, …) as
/// dead letters, each with the reason, where it came from and when; without this table they are gaps, named and not kept. One of
/// `topic` and `directory`; with Kafka at this side's end only. What is kept is counted, and logged without what is in it.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct RawDeadLetters {
    /// The topic to write them to, in the cluster of `[source.kafka]` or `[sink.kafka]`. It must be there; its
    /// `max.message.bytes` should let the largest record in. A letter that is too large for it loses its value, and says so.
    #[schemars(example = "ddc-dead-letters")]
    pub(crate) topic: Option<TopicName>,
    /// The directory to write them to, as files of JSON lines (docs/dead-letters.md); made with mode 0700 when it is missing.
    /// Every side of a link needs its own.
    pub(crate) directory: Option<FilePath>,
    /// The most that the files in `directory` take together. None is ever deleted by DDC: carry them away in time.
    #[serde(default = "default_max_size")]
    pub(crate) max_size: ByteSize,
    /// What happens when a letter cannot be kept: the directory is full, the topic is missing or forbidden.
    #[serde(default = "default_on_failure")]
    pub(crate) on_failure: OnFailure,
}

fn default_max_size() -> ByteSize {
    ByteSize::mib(1024)
}

fn default_on_failure() -> OnFailure {
    OnFailure::Gap
}

choices! {
    /// What happens when a dead letter cannot be kept.
    OnFailure {
        /// The record is stepped over and named, as without dead letters.
        Gap = "gap",
        /// This side tries again until it can be kept. Nothing behind the record is committed meanwhile, and soon nothing more read.
        Wait = "wait",
    }
}
