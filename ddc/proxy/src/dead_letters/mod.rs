//! Dead letters: records that one side refuses for ever, kept there with the reason, where they came from, and when.
//!
//! ```text
//!  refused for ever ─▶ [Letter] ─┬─ topic: key, value and headers as they were, and headers of the letter
//!                                └─ directory: a line of JSON in a bounded file ([`store`])
//!  cannot be kept ─▶ without its payload ─▶ `on_failure`: a gap, by name, as without dead letters; or wait
//! ```
//!
//! A kept letter settles its offset as a delivered record does, so it must be safe first: written in the transaction, or
//! acknowledged, or fsynced ([`DeadLetters::sync`]) before the offset is committed. Here nothing is produced and nothing
//! is committed: the ingress's source (`source::letters`) and the egress's engine do that.

pub mod letter;
pub mod line;
pub(crate) mod preflight;
pub mod reading;
pub mod store;
pub mod verdict;

use std::io;
use std::time::Duration;

use ddc_telemetry::reasons::DeadLetterFailure;
use ddc_wire::{ChunkHeader, Record};
use rdkafka::types::RDKafkaErrorCode as Code;

pub use letter::{Letter, Refusal, Refuser};
pub use store::{NotKept, Store, StoreError};
pub use verdict::{Clamped, Outcome, clamped, verdict};

use crate::config::{self, DeadLetterPlace, LinkName, OnFailure, Side};

/// How often a letter is given to a topic that is missing or forbids it, before `on_failure` holds.
pub const ATTEMPTS: u32 = 3;
/// Between two of these.
pub const BACK_OFF: Duration = Duration::from_secs(1);

/// Where a link's side keeps its dead letters.
#[derive(Debug)]
pub struct DeadLetters {
    by: Refuser,
    on_failure: OnFailure,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Topic(String),
    Directory(Store),
}

/// What to do about a letter that a topic did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Give it again, after [`BACK_OFF`].
    Again,
    /// Give this one instead, at once: the same without its payload.
    Instead(Box<Letter>),
    /// It will not be kept: the record is a gap.
    Gap,
}

impl DeadLetters {
    /// Opens what `[dead_letters]` names: a directory is locked and its torn end cut off; of a topic nothing is asked.
    pub fn open(config: &config::DeadLetters, link: &LinkName, side: Side) -> Result<Self, StoreError> {
        let place = match &config.place {
            DeadLetterPlace::Topic(topic) => Place::Topic(topic.as_str().to_owned()),
            DeadLetterPlace::Directory { path, max_size } => {
                let store = Store::open(path, max_size.bytes(), link.as_str(), side)?;
                if store.cut() > 0 {
                    tracing::warn!(
                        link = link.as_str(),
                        bytes = store.cut(),
                        directory = %path.display(),
                        "the newest file of dead letters had a torn end, as a crash leaves it; it was cut off"
                    );
                }
                Place::Directory(store)
            }
        };
        let by = Refuser { link: link.as_str().to_owned(), side };
        Ok(Self { by, on_failure: config.on_failure, place })
    }

    /// The topic, when letters go to one: whoever calls produces them himself, for the egress in the transaction.
    pub fn topic(&self) -> Option<&str> {
        match &self.place {
            Place::Topic(topic) => Some(topic),
            Place::Directory(_) => None,
        }
    }

    /// Who refuses.
    pub fn by(&self) -> &Refuser {
        &self.by
    }

    /// What happens when a letter cannot be kept.
    pub fn on_failure(&self) -> OnFailure {
        self.on_failure
    }

    /// The letter of a record that came over the link.
    pub fn letter(&self, record: &Record<'_>, chunk: &ChunkHeader<'_>, refusal: Refusal<'_>) -> Letter {
        Letter::of_record(&self.by, record, chunk, refusal)
    }

    /// Writes a letter to the directory; it is safe after the next [`Self::sync`]. Where there is a topic, nothing is done.
    pub fn append(&mut self, letter: &Letter) -> Result<(), NotKept> {
        match &mut self.place {
            Place::Directory(store) => store.append(letter),
            Place::Topic(_) => Ok(()),
        }
    }

    /// What was appended is on disk when this returns: to be called before offsets are committed. After an error they must
    /// not be, and it is called again later.
    pub fn sync(&mut self) -> io::Result<()> {
        match &mut self.place {
            Place::Directory(store) => store.sync(),
            Place::Topic(_) => Ok(()),
        }
    }

    /// Bytes of the letters in the directory, for the metric.
    pub fn bytes(&mut self) -> Option<u64> {
        match &mut self.place {
            Place::Directory(store) => Some(store.measure()),
            Place::Topic(_) => None,
        }
    }

    /// What to do about a letter that its topic did not take. `attempts`: how often it was given. The letter must have been
    /// the only one of its produce request, since a broker judges all of a request (see [`verdict()`]).
    pub fn after(&self, letter: &Letter, code: Code, attempts: u32) -> Next {
        match verdict(code, true) {
            // Passes by itself, or the producer must be built anew first.
            Outcome::Again | Outcome::Fenced | Outcome::Rebuild if !is_forbidden(code) => Next::Again,
            Outcome::Refused(_) => {
                letter.without_payload().map_or(Next::Gap, |letter| Next::Instead(Box::new(letter)))
            }
            _ if self.on_failure == OnFailure::Wait || attempts < ATTEMPTS => Next::Again,
            _ => Next::Gap,
        }
    }
}

/// Why a topic did not take a letter, as the metric has it.
pub fn failure_of(code: Code) -> DeadLetterFailure {
    match verdict(code, true) {
        Outcome::Topic => DeadLetterFailure::UnknownTopic,
        Outcome::Refused(_) => DeadLetterFailure::Refused,
        _ if is_forbidden(code) => DeadLetterFailure::Authorization,
        _ => DeadLetterFailure::Other,
    }
}

/// The same of a directory.
pub fn failure_of_store(error: &NotKept) -> DeadLetterFailure {
    match error {
        NotKept::Full { .. } => DeadLetterFailure::Full,
        NotKept::Disk(_) => DeadLetterFailure::Disk,
    }
}

fn is_forbidden(code: Code) -> bool {
    use ddc_kafka::errors::{Kind, classify_code};
    matches!(classify_code(code).kind, Kind::Authorization)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;
    use ddc_telemetry::reasons::DeadLetterReason;
    use ddc_wire::TopicId;

    fn letters(on_failure: OnFailure) -> DeadLetters {
        let place = DeadLetterPlace::Topic("dead".parse().unwrap());
        let config = config::DeadLetters { place, on_failure };
        DeadLetters::open(&config, &"plant-a".parse().unwrap(), Side::Egress).unwrap()
    }

    fn letter(key: usize, value: usize, header: usize) -> Letter {
        let by = Refuser { link: "plant-a".into(), side: Side::Egress };
        let source = letter::Source {
            stream: String::new(),
            topic: "orders".into(),
            topic_id: TopicId::Configured(4),
            partition: 3,
            offset: 4711,
            timestamp: Some(ddc_wire::Timestamp::LogAppend(17)),
        };
        let refusal = Refusal {
            destination_topic: Some("plant.orders"),
            reason: DeadLetterReason::TooLarge,
            error: "Broker: Message size too large\nand more",
            at: "2026-03-01T08:15:30.250Z".parse().unwrap(),
        };
        let (key, value, header) = (vec![1; key], vec![2; value], vec![3; header]);
        let own = [
            ddc_wire::RecordHeader { name: b"h", value: Some(&header) },
            ddc_wire::RecordHeader { name: b"sourceOffset", value: Some(b"not ours") },
            ddc_wire::RecordHeader { name: b"h", value: None },
        ];
        Letter::new(&by, source, Some(&key), Some(&value), own.into_iter(), refusal)
    }

    fn headers(letter: &Letter) -> Vec<(String, Option<String>)> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        letter.headers().into_iter().map(|(name, value)| (text(name), value.map(text))).collect()
    }

    #[test]
    fn headers_are_the_records_own_then_the_letters() {
        let expected = [
            ("h", Some("\u{3}")),
            ("sourceOffset", Some("not ours")),
            ("h", None),
            ("ddcError", Some("too_large")),
            ("ddcErrorText", Some("Broker: Message size too large and more")),
            ("ddcRefusedAt", Some("2026-03-01T08:15:30.250Z")),
            ("ddcRefusedBy", Some("plant-a/egress")),
            ("ddcDestinationTopic", Some("plant.orders")),
            ("sourceTopic", Some("orders")),
            ("sourcePartition", Some("3")),
            ("sourceOffset", Some("4711")),
            ("sourceTopicId", Some("epoch-4")),
            ("sourceTimestamp", Some("17")),
            ("sourceTimestampType", Some("LogAppendTime")),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.map(str::to_owned)));
        assert_eq!(headers(&letter(2, 3, 1)), expected);
        assert_eq!(letter(2, 3, 1).millis(), 1_772_352_930_250, "the time of the refusal, not the record's");
    }

    #[test]
    fn without_its_payload_a_letter_says_what_it_had() {
        let small = letter(10, 100_000, 1).without_payload().unwrap();
        assert_eq!((small.key.as_deref(), &small.value, small.headers.len()), (Some(&[1; 10][..]), &None, 3));
        assert!(headers(&small).contains(&("ddcValueBytes".into(), Some("100000".into()))));
        assert_eq!(small.without_payload(), None, "it cannot become smaller still");
        let bare = letter(20_000, 1, 30_000).without_payload().unwrap();
        assert_eq!((&bare.key, &bare.value, bare.headers.len()), (&None, &None, 0));
        assert_eq!((bare.left_out.key, bare.left_out.value), (Some(20_000), Some(1)));
        assert_eq!(bare.left_out.headers, Some(30_000 + 1 + 1 + 12 + 8));
        assert!(bare.payload_bytes() == 0 && bare.source == letter(1, 1, 1).source);
        let mut tombstone = letter(1, 1, 1);
        tombstone.value = None;
        assert_eq!(tombstone.without_payload(), None, "it has nothing that could be left out");
    }

    /// Whatever a topic answers, a letter is not given for ever: unless it passes by itself, or somebody wants to wait.
    #[test]
    fn a_letter_is_given_again_a_bounded_number_of_times() {
        for code in [
            Code::MessageSizeTooLarge,
            Code::InvalidRecord,
            Code::InvalidTimestamp,
            Code::PolicyViolation,
            Code::UnknownTopicOrPartition,
            Code::UnknownTopic,
            Code::InvalidTopic,
            Code::TopicAuthorizationFailed,
            Code::ClusterAuthorizationFailed,
        ] {
            let letters = letters(OnFailure::Gap);
            let (mut letter, mut attempts, mut bodies) = (letter(1, 9, 1), 0, 1);
            loop {
                attempts += 1;
                assert!(attempts <= ATTEMPTS + 1, "{code:?}");
                match letters.after(&letter, code, attempts) {
                    Next::Again => {}
                    Next::Instead(other) => {
                        (letter, bodies) = (*other, bodies + 1);
                        assert!(bodies <= 2, "{code:?}");
                    }
                    Next::Gap => break,
                }
            }
        }
        let wait = letters(OnFailure::Wait);
        assert_eq!(wait.after(&letter(1, 9, 1), Code::UnknownTopicOrPartition, 1_000_000), Next::Again);
        assert_eq!(wait.after(&letter(1, 9, 1), Code::TopicAuthorizationFailed, 1_000_000), Next::Again);
        let refused = letter(1, 9, 1).without_payload().unwrap();
        assert_eq!(wait.after(&refused, Code::MessageSizeTooLarge, 1), Next::Gap, "waiting would not help");
        for code in
            [Code::BrokerTransportFailure, Code::NotEnoughReplicas, Code::MessageTimedOut, Code::PurgeQueue]
        {
            assert_eq!(
                letters(OnFailure::Gap).after(&letter(1, 9, 1), code, 1_000_000),
                Next::Again,
                "{code:?}"
            );
        }
    }
}
