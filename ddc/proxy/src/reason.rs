//! What an error of either Kafka end is called in metrics.

use ddc_kafka::errors::{Kind, Verdict};
use ddc_telemetry::reasons::KafkaErrorReason;

/// The metric's label for a verdict.
pub(crate) fn reason(verdict: Verdict) -> KafkaErrorReason {
    match verdict.kind {
        Kind::Authentication => KafkaErrorReason::Authentication,
        Kind::Authorization => KafkaErrorReason::Authorization,
        Kind::UnknownTopic => KafkaErrorReason::UnknownTopic,
        Kind::RecordTooLarge => KafkaErrorReason::TooLarge,
        Kind::RecordRefused => KafkaErrorReason::Refused,
        Kind::OffsetGone => KafkaErrorReason::OffsetOutOfRange,
        Kind::Temporary if verdict.reason == "timed_out" => KafkaErrorReason::Timeout,
        Kind::Temporary if matches!(verdict.reason, "unreachable" | "dns") => KafkaErrorReason::Connection,
        Kind::Temporary | Kind::Fenced | Kind::Fatal => KafkaErrorReason::Other,
    }
}
