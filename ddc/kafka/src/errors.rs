//! What an error of Kafka or librdkafka means to an operator.
//!
//! [`classify`] maps every code to a [`Verdict`]: what kind of trouble, a short stable reason for metrics and
//! logs (a bounded set, see [`REASONS`]), and what to do. It decides nothing: whether a record is tried again
//! or stepped over is the caller's rule, which reads the kind.

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;

/// The kinds of trouble that call for different answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Passes by itself or when the cluster is mended: try again, with bounds on the rate.
    Temporary,
    /// The cluster does not believe who we are (password, certificate, TLS, Kerberos).
    Authentication,
    /// The cluster knows us and forbids this.
    Authorization,
    /// The topic or partition does not exist (or is not visible to us).
    UnknownTopic,
    /// The destination's size limit refuses it. A broker judges the whole produce batch, so every record of a
    /// batch gets this error: produce each again alone before one of them is called too large.
    RecordTooLarge,
    /// This record will never be accepted: step over it and report it.
    RecordRefused,
    /// The offset to read is not in the log (retention, deletion, a re-created topic): the source decides where
    /// that partition goes on; nothing else is touched.
    OffsetGone,
    /// Another client took our place; rebuild the client and join again.
    Fenced,
    /// This client can do no more as it is configured; rebuild it, after the cause is mended.
    Fatal,
}

/// A judged error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What kind of trouble.
    pub kind: Kind,
    /// A stable short name, one of [`REASONS`]; a metric's label.
    pub reason: &'static str,
    /// What to do about it, for a log line.
    pub advice: &'static str,
}

impl Verdict {
    /// Whether the same request may succeed later without anybody changing it.
    pub fn is_temporary(&self) -> bool {
        self.kind == Kind::Temporary
    }
}

/// Judges an error of rdkafka.
pub fn classify(error: &KafkaError) -> Verdict {
    match error {
        KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) | KafkaError::Nul(_) => CONFIGURATION,
        KafkaError::Canceled => CLOSED,
        KafkaError::Transaction(error) if error.is_fatal() => fatal_of(error.code()),
        KafkaError::MessageConsumptionFatal(code) => fatal_of(*code),
        other => code_of(other).map_or(OTHER, classify_code),
    }
}

/// The code inside an error, also where rdkafka's own accessor has none (admin operations).
pub fn code_of(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        KafkaError::PartitionEOF(_) => Some(Code::PartitionEOF),
        other => other.rdkafka_error_code(),
    }
}

/// Judges a bare code, as delivery reports, metadata and admin results carry it.
pub fn classify_code(code: Code) -> Verdict {
    match code {
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::NetworkException
        | Code::BrokerDestroy
        | Code::DestroyBroker
        | Code::UnknownBroker
        | Code::NodeUpdate
        | Code::RebootstrapRequired => UNREACHABLE,
        Code::Resolve => DNS,
        Code::OperationTimedOut | Code::TimedOutQueue | Code::RequestTimedOut | Code::MessageTimedOut => {
            TIMED_OUT
        }
        Code::QueueFull => QUEUE_FULL,
        Code::ThrottlingQuotaExceeded => THROTTLED,

        Code::SSL => TLS,
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnacceptableCredential
        | Code::DelegationTokenExpired
        | Code::DelegationTokenNotFound
        | Code::DelegationTokenAuthDisabled
        | Code::DelegationTokenOwnerMismatch
        | Code::DelegationTokenRequestNotAllowed
        | Code::InvalidPrincipalType
        | Code::PrincipalDeserializationFailure => CREDENTIALS,
        Code::UnsupportedSASLMechanism | Code::IllegalSASLState | Code::SecurityDisabled => SASL_MECHANISM,
        Code::TopicAuthorizationFailed => TOPIC_FORBIDDEN,
        Code::GroupAuthorizationFailed => GROUP_FORBIDDEN,
        Code::TransactionalIdAuthorizationFailed => TRANSACTION_FORBIDDEN,
        Code::ClusterAuthorizationFailed | Code::DelegationTokenAuthorizationFailed => CLUSTER_FORBIDDEN,

        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::UnknownTopicId => UNKNOWN_TOPIC,
        Code::InvalidTopic => INVALID_TOPIC,

        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => TOO_LARGE,

        Code::InvalidTimestamp => INVALID_TIMESTAMP,
        Code::InvalidRecord | Code::InvalidMessage | Code::BadMessage | Code::BadCompression => {
            INVALID_RECORD
        }
        Code::PolicyViolation => POLICY,
        Code::UnsupportedForMessageFormat => OLD_FORMAT,
        // The record itself is sound: another one of its batch was refused (KIP-467).
        Code::InvalidDifferentRecord => NEIGHBOUR,

        Code::Fenced
        | Code::ProducerFenced
        | Code::InvalidProducerEpoch
        | Code::TransactionCoordinatorFenced
        | Code::FencedInstanceId
        | Code::UnreleasedInstanceId => FENCED,
        // The group goes on without us until we join again, which librdkafka does by itself.
        Code::IllegalGeneration
        | Code::UnknownMemberId
        | Code::RebalanceInProgress
        | Code::AssignmentLost
        | Code::FencedMemberEpoch
        | Code::StaleMemberEpoch
        | Code::MemberIdRequired
        | Code::PollExceeded
        | Code::AssignPartitions
        | Code::RevokePartitions => REBALANCE,

        Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::NoOffset | Code::LogTruncation => OFFSET_GONE,
        Code::PartitionEOF => END_OF_PARTITION,

        Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::BrokerNotAvailable
        | Code::ReplicaNotAvailable
        | Code::PreferredLeaderNotAvailable
        | Code::EligibleLeadersNotAvailable
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        | Code::OffsetNotAvailable
        | Code::ListenerNotFound
        | Code::NotController
        | Code::StaleControllerEpoch
        | Code::StaleBrokerEpoch => NO_LEADER,
        Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator
        | Code::WaitingForCoordinator
        | Code::ConcurrentTransactions => NO_COORDINATOR,
        Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend | Code::ISRInsufficient => FEW_REPLICAS,
        Code::KafkaStorageError | Code::LogDirNotFound => BROKER_DISK,

        Code::Fatal
        | Code::CriticalSystemResource
        | Code::GaplessGuarantee
        | Code::Inconsistent
        | Code::OutOfOrderSequenceNumber
        | Code::InvalidProducerIdMapping
        | Code::InvalidTransactionalState => BROKEN_CLIENT,
        Code::InvalidArgument
        | Code::InvalidConfig
        | Code::InvalidRequiredAcks
        | Code::InvalidGroupId
        | Code::InvalidSessionTimeout
        | Code::InconsistentGroupProtocol
        | Code::UnsupportedAssignor
        | Code::UnsupportedCompressionType
        | Code::InvalidReplicationFactor
        | Code::InvalidReplicaAssignment
        | Code::InvalidPartitions
        | Code::GroupMaxSizeReached
        | Code::OffsetMetadataTooLarge
        | Code::NotConfigured
        | Code::UnknownProtocol => CONFIGURATION,
        Code::InvalidTransactionTimeout => TRANSACTION_TIMEOUT,
        Code::UnsupportedVersion | Code::UnsupportedFeature | Code::NotImplemented | Code::InvalidRequest => {
            UNSUPPORTED
        }
        Code::PurgeQueue | Code::PurgeInflight => CLOSED,
        _ => OTHER,
    }
}

/// A fatal error keeps its own reason where that says more than "fatal".
fn fatal_of(code: Code) -> Verdict {
    let verdict = classify_code(code);
    if verdict.kind == Kind::Temporary { BROKEN_CLIENT } else { verdict }
}

macro_rules! verdicts {
    ($($name:ident: $kind:ident, $reason:literal, $advice:literal;)+) => {
        $(const $name: Verdict = Verdict { kind: Kind::$kind, reason: $reason, advice: $advice };)+
        /// Every reason [`classify`] can give: the bound of the metrics' label.
        pub const REASONS: &[&str] = &[$($reason),+];
    };
}

verdicts! {
    UNREACHABLE: Temporary, "unreachable", "no broker answers; check `brokers`, routes and firewalls, and that the cluster runs";
    DNS: Temporary, "dns", "a broker's name does not resolve here; check `brokers` and the brokers' advertised.listeners";
    TIMED_OUT: Temporary, "timed_out", "the brokers are slow or away; it is tried again";
    QUEUE_FULL: Temporary, "queue_full", "the local queue is full because the brokers take records slower than they come";
    THROTTLED: Temporary, "throttled", "a quota of the cluster slows this client; raise it or lower the rate";
    NO_LEADER: Temporary, "no_leader", "a partition has no leader or moves to another broker; it is tried again";
    NO_COORDINATOR: Temporary, "no_coordinator", "the group's coordinator starts or moves; it is tried again";
    FEW_REPLICAS: Temporary, "few_replicas", "fewer replicas are in sync than min.insync.replicas asks for; bring the brokers back";
    BROKER_DISK: Temporary, "broker_disk", "a broker cannot use its disk; look at the broker's log";
    REBALANCE: Temporary, "rebalance", "the consumer group is redistributing its partitions";
    NEIGHBOUR: Temporary, "neighbour_refused", "another record of the same produce batch was refused; this one is produced again";
    END_OF_PARTITION: Temporary, "end_of_partition", "nothing to do: the end of the partition was reached";
    CLOSED: Temporary, "closed", "the client is being closed";
    OTHER: Temporary, "other", "look at the text of the error; it is tried again";
    TLS: Authentication, "tls", "the TLS handshake failed; check ca_file, the client's certificate and key, the host name, and whether the listener speaks TLS";
    CREDENTIALS: Authentication, "credentials", "the cluster refuses user name or password; check username and password_file";
    SASL_MECHANISM: Authentication, "sasl_mechanism", "the listener does not offer this SASL mechanism; compare mechanism with its sasl.enabled.mechanisms";
    TOPIC_FORBIDDEN: Authorization, "topic_forbidden", "the cluster's ACLs forbid this topic; a source needs READ and DESCRIBE, a sink WRITE, DESCRIBE and, for create_topics, CREATE";
    GROUP_FORBIDDEN: Authorization, "group_forbidden", "the cluster's ACLs forbid this consumer group; it needs READ on the group";
    TRANSACTION_FORBIDDEN: Authorization, "transaction_forbidden", "the cluster's ACLs forbid this transactional id; it needs WRITE on transactional ids that begin with ddc.SET. (docs/acls.md), or set delivery = \"at_least_once\"";
    CLUSTER_FORBIDDEN: Authorization, "cluster_forbidden", "the cluster's ACLs forbid this operation; an idempotent producer on brokers before 3.0 needs IDEMPOTENT_WRITE";
    UNKNOWN_TOPIC: UnknownTopic, "unknown_topic", "the topic or partition does not exist; create it, or set create_topics = true at the egress";
    INVALID_TOPIC: UnknownTopic, "invalid_topic", "the name is not a valid topic name; check topics, topic_prefix and rename";
    TOO_LARGE: RecordTooLarge, "too_large", "raise max.message.bytes of the topic (and message.max.bytes of the brokers)";
    INVALID_TIMESTAMP: RecordRefused, "invalid_timestamp", "the topic's message.timestamp.before.max.ms or after.max.ms refuses the record's timestamp; widen them";
    INVALID_RECORD: RecordRefused, "invalid_record", "the broker refuses the record; a compacted topic refuses records without a key";
    POLICY: RecordRefused, "policy", "a policy of the cluster refuses this; look at the broker's create.topic.policy and quotas";
    OLD_FORMAT: RecordRefused, "old_format", "the topic's message format is too old for headers or timestamps; raise it";
    FENCED: Fenced, "fenced", "another client uses the same identity; make sure that only one process runs this link";
    OFFSET_GONE: OffsetGone, "offset_gone", "the offset to read is no longer in the log (retention, deletion, re-created topic); what is gone is reported";
    BROKEN_CLIENT: Fatal, "broken_client", "the client cannot go on and is built anew; look at the line before it";
    CONFIGURATION: Fatal, "configuration", "the cluster or librdkafka refuses a setting; correct it and restart";
    TRANSACTION_TIMEOUT: Fatal, "transaction_timeout", "the brokers' transaction.max.timeout.ms is less than the transaction.timeout.ms of this client (10 s); raise it";
    UNSUPPORTED: Fatal, "unsupported", "the brokers do not support this request; DDC needs Kafka 3.x or newer";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn reasons_are_unique_and_fit_a_label() {
        let unique: HashSet<_> = REASONS.iter().collect();
        assert_eq!(unique.len(), REASONS.len());
        for reason in REASONS {
            assert!(reason.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{reason}");
        }
    }

    #[test]
    fn what_must_be_retried_is_temporary() {
        for code in [
            Code::BrokerTransportFailure,
            Code::AllBrokersDown,
            Code::NotLeaderForPartition,
            Code::NotEnoughReplicas,
            Code::RequestTimedOut,
            Code::QueueFull,
            Code::InvalidDifferentRecord,
            Code::CoordinatorNotAvailable,
        ] {
            assert_eq!(classify_code(code).kind, Kind::Temporary, "{code:?}");
        }
    }

    #[test]
    fn what_will_never_pass_is_not_temporary() {
        for (code, kind) in [
            (Code::InvalidTimestamp, Kind::RecordRefused),
            (Code::InvalidRecord, Kind::RecordRefused),
            (Code::PolicyViolation, Kind::RecordRefused),
            (Code::MessageSizeTooLarge, Kind::RecordTooLarge),
            (Code::MessageBatchTooLarge, Kind::RecordTooLarge),
            (Code::SaslAuthenticationFailed, Kind::Authentication),
            (Code::SSL, Kind::Authentication),
            (Code::TopicAuthorizationFailed, Kind::Authorization),
            (Code::GroupAuthorizationFailed, Kind::Authorization),
            (Code::TransactionalIdAuthorizationFailed, Kind::Authorization),
            (Code::InvalidTransactionTimeout, Kind::Fatal),
            (Code::UnknownTopicOrPartition, Kind::UnknownTopic),
            (Code::UnknownTopic, Kind::UnknownTopic),
            (Code::ProducerFenced, Kind::Fenced),
            (Code::FencedInstanceId, Kind::Fenced),
            (Code::Fatal, Kind::Fatal),
            (Code::AutoOffsetReset, Kind::OffsetGone),
        ] {
            assert_eq!(classify_code(code).kind, kind, "{code:?}");
        }
    }

    #[test]
    fn an_admin_error_keeps_its_code() {
        // rdkafka's own accessor has none for admin operations.
        let error = KafkaError::AdminOp(Code::TopicAuthorizationFailed);
        assert_eq!(error.rdkafka_error_code(), None);
        assert_eq!(classify(&error).reason, "topic_forbidden");
    }

    #[test]
    fn a_fatal_error_is_never_retried_as_it_is() {
        let error = KafkaError::MessageConsumptionFatal(Code::RebalanceInProgress);
        assert_eq!(classify(&error).kind, Kind::Fatal);
        let error = KafkaError::MessageConsumptionFatal(Code::FencedInstanceId);
        assert_eq!(classify(&error).kind, Kind::Fenced);
    }
}
