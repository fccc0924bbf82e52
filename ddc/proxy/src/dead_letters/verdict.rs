//! What a delivery report says about a record: again, alone, or never.
//!
//! Measured with librdkafka 2.12.1 against Kafka 3.9.2 and 4.3.1 (six records in one produce request; `ddc/e2e/tests/brokers/refusals.rs`
//! does it again): a broker writes all of a request's records of a partition or none, and the reports do not tell which one it
//! refuses.
//!
//! | refused in a request | what is reported of each record |
//! |----------------------|---------------------------------|
//! | one, for its timestamp | `InvalidTimestamp`, of all six, the sound ones too |
//! | two, for their timestamps | `InvalidRecord` of these two, `InvalidDifferentRecord` of the others |
//! | one without a key, in a compacted topic | `InvalidRecord`, of all six |
//! | one too large | `MessageSizeTooLarge`, of all six |
//! | a record *alone*, for its timestamp | `InvalidTimestamp` |
//!
//! So nothing is called refused before it was produced alone, and only the report of a record that was alone names the reason.

use ddc_kafka::errors::{Kind, classify_code};
use ddc_telemetry::reasons::DeadLetterReason;
use ddc_wire::Record;
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::config::BadTimestamp;

/// What a delivery report means for its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It passes by itself, or once the cluster is mended; or another record of the request was refused: again, after a pause.
    Again,
    /// It, or another record of its request, is refused for ever: again, in a request of its own.
    Alone,
    /// The topic or partition is not there: prepare it, then again.
    Topic,
    /// It will never be taken.
    Refused(DeadLetterReason),
    /// Another producer took our place.
    Fenced,
    /// This producer can do no more: build it anew, then again.
    Rebuild,
}

/// Judges the report of a record; `alone`: it was the only one of its produce request.
pub fn verdict(code: Code, alone: bool) -> Outcome {
    if code == Code::InvalidTopic {
        // Of the topic's name, so of each of its records.
        return Outcome::Refused(DeadLetterReason::TopicName);
    }
    let judged = classify_code(code);
    let reason = match judged.kind {
        Kind::RecordTooLarge => DeadLetterReason::TooLarge,
        Kind::RecordRefused => match judged.reason {
            "invalid_timestamp" => DeadLetterReason::InvalidTimestamp,
            "invalid_record" => DeadLetterReason::InvalidRecord,
            "policy" => DeadLetterReason::Policy,
            _ => DeadLetterReason::Other,
        },
        Kind::UnknownTopic => return Outcome::Topic,
        Kind::Fenced => return Outcome::Fenced,
        Kind::Fatal => return Outcome::Rebuild,
        Kind::Temporary | Kind::Authentication | Kind::Authorization | Kind::OffsetGone => {
            return Outcome::Again;
        }
    };
    if alone { Outcome::Refused(reason) } else { Outcome::Alone }
}

/// What a record is written with instead of the timestamp that the destination refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clamped {
    /// The timestamp to write, in ms since 1970.
    pub millis: i64,
    /// The value of the header [`SOURCE_TIMESTAMP`](super::letter::SOURCE_TIMESTAMP), which is added behind the others.
    pub original: String,
}

/// How a record is written once more that was refused for `reason`: with the time `now_millis`, when it is its timestamp
/// that is refused and `bad_timestamp = "clamp"`. `None`: not at all, it is a dead letter; so is one that is refused again.
pub fn clamped(
    mode: BadTimestamp,
    reason: DeadLetterReason,
    record: &Record<'_>,
    now_millis: i64,
) -> Option<Clamped> {
    if mode != BadTimestamp::Clamp || reason != DeadLetterReason::InvalidTimestamp {
        return None;
    }
    let original = record.timestamp?.millis().to_string();
    Some(Clamped { millis: now_millis.max(1), original })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_refused_in_company() {
        for (code, reason) in [
            (Code::MessageSizeTooLarge, DeadLetterReason::TooLarge),
            (Code::MessageBatchTooLarge, DeadLetterReason::TooLarge),
            (Code::InvalidTimestamp, DeadLetterReason::InvalidTimestamp),
            (Code::InvalidRecord, DeadLetterReason::InvalidRecord),
            (Code::PolicyViolation, DeadLetterReason::Policy),
            (Code::UnsupportedForMessageFormat, DeadLetterReason::Other),
        ] {
            assert_eq!(verdict(code, false), Outcome::Alone, "{code:?}");
            assert_eq!(verdict(code, true), Outcome::Refused(reason), "{code:?}");
        }
    }

    #[test]
    fn what_passes_or_is_not_the_records_fault_is_never_refused() {
        for (code, outcome) in [
            (Code::InvalidDifferentRecord, Outcome::Again),
            (Code::PurgeQueue, Outcome::Again),
            (Code::MessageTimedOut, Outcome::Again),
            (Code::NotEnoughReplicas, Outcome::Again),
            (Code::TopicAuthorizationFailed, Outcome::Again),
            (Code::UnknownTopicOrPartition, Outcome::Topic),
            (Code::UnknownPartition, Outcome::Topic),
            (Code::ProducerFenced, Outcome::Fenced),
            (Code::InvalidProducerEpoch, Outcome::Fenced),
            (Code::OutOfOrderSequenceNumber, Outcome::Rebuild),
            (Code::Fatal, Outcome::Rebuild),
        ] {
            assert_eq!((verdict(code, true), verdict(code, false)), (outcome, outcome), "{code:?}");
        }
    }

    #[test]
    fn only_a_refused_timestamp_is_clamped_and_only_by_option() {
        let record = |timestamp| Record {
            offset: 1,
            timestamp,
            key: None,
            value: None,
            headers: ddc_wire::Headers::default(),
        };
        let old = record(Some(ddc_wire::Timestamp::Create(5)));
        let refused = DeadLetterReason::InvalidTimestamp;
        let expected = Clamped { millis: 1000, original: "5".into() };
        assert_eq!(clamped(BadTimestamp::Clamp, refused, &old, 1000), Some(expected));
        assert_eq!(clamped(BadTimestamp::DeadLetter, refused, &old, 1000), None);
        assert_eq!(clamped(BadTimestamp::Clamp, DeadLetterReason::InvalidRecord, &old, 1000), None);
        assert_eq!(clamped(BadTimestamp::Clamp, refused, &record(None), 1000), None);
    }
}
