//! Where refused records are kept.

use std::path::PathBuf;

use ddc_kafka::settings::{ClientSettings, Role, SinkSettings};

use super::common::{Checker, MemoryItem};
use super::raw::{OnFailure, RawDeadLetters};
use super::units::ByteSize;
use super::values::TopicName;

/// The smallest directory: a letter of a few hundred KiB and room to notice.
const LEAST_SIZE: ByteSize = ByteSize::mib(1);
/// What an ingress may hold of letters that its topic has not acknowledged; one letter more may be on its way.
pub(crate) const QUEUE: ByteSize = ByteSize::mib(16);

/// `[dead_letters]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetters {
    /// Where they are kept.
    pub place: DeadLetterPlace,
    /// What happens when one cannot be kept.
    pub on_failure: OnFailure,
}

/// Where dead letters are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadLetterPlace {
    /// In a topic of this side's cluster.
    Topic(TopicName),
    /// In files.
    Directory {
        /// The directory; it need not be there.
        path: PathBuf,
        /// The most that the files take together.
        max_size: ByteSize,
    },
}

impl DeadLetters {
    /// The topic, if there is one.
    pub fn topic(&self) -> Option<&TopicName> {
        match &self.place {
            DeadLetterPlace::Topic(topic) => Some(topic),
            DeadLetterPlace::Directory { .. } => None,
        }
    }

    /// The directory, if there is one.
    pub fn directory(&self) -> Option<&std::path::Path> {
        match &self.place {
            DeadLetterPlace::Topic(_) => None,
            DeadLetterPlace::Directory { path, .. } => Some(path),
        }
    }

    /// How the producer of an ingress's letters is set up. What the ingress refuses may be larger than any record it carries:
    /// the topic decides what is too large.
    pub fn role() -> Role {
        Role::Sink(SinkSettings {
            max_record_bytes: super::common::LARGEST_RECORD.bytes(),
            queue_bytes: QUEUE.bytes(),
            // One letter is on its way at a time: there is nothing to wait for.
            linger: std::time::Duration::ZERO,
            transactional_id: None,
        })
    }

    /// The memory that it takes.
    pub(crate) fn memory() -> MemoryItem {
        MemoryItem { purpose: "dead letters that are not settled ([dead_letters])", size: QUEUE }
    }
}

/// Checks the table. `client`: the cluster that a topic lies in; `None` when this side's end is not Kafka.
pub(crate) fn dead_letters(
    raw: RawDeadLetters,
    client: Option<&ClientSettings>,
    checker: &mut Checker<'_>,
) -> Option<DeadLetters> {
    let RawDeadLetters { topic, directory, max_size, on_failure } = raw;
    let Some(client) = client else {
        checker.problem(
            &["dead_letters"],
            "[dead_letters] needs Kafka at this side's end: a datagram that is not taken is counted and gone; remove the table",
        );
        return None;
    };
    if checker.is_written(&["dead_letters", "max_size"]) && directory.is_none() {
        let message =
            "`max_size` in [dead_letters] bounds `directory`, which is not there; a topic has its own limits";
        checker.problem(&["dead_letters", "max_size"], message);
    }
    if max_size < LEAST_SIZE {
        let message = format!(
            "`max_size` in [dead_letters]: {max_size} is less than {LEAST_SIZE}; for example \"1GiB\""
        );
        checker.problem(&["dead_letters", "max_size"], message);
    }
    let place = match (topic, directory) {
        (Some(topic), None) => {
            if let Err(errors) = client.build(&DeadLetters::role()) {
                for error in errors.iter() {
                    let message =
                        format!("`topic` in [dead_letters]: its producer cannot be set up: {error}");
                    checker.problem(&["dead_letters", "topic"], message);
                }
            }
            DeadLetterPlace::Topic(topic)
        }
        (None, Some(directory)) => {
            let path = checker.place("dead_letters", "directory", &directory);
            DeadLetterPlace::Directory { path, max_size }
        }
        (both, _) => {
            let message = if both.is_some() {
                "[dead_letters] has `topic` and `directory`; keep one of them"
            } else {
                "[dead_letters] has neither `topic` nor `directory`; for example: directory = \"/var/lib/ddc/plant-a/dead-letters\""
            };
            checker.problem(&["dead_letters", "directory"], message);
            return None;
        }
    };
    Some(DeadLetters { place, on_failure })
}
