//! The Kafka tables of both sides: brokers, security, and what librdkafka can be told besides.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::choices;
use crate::config::units::Span;
use crate::config::values::{Broker, FilePath, LinkName, Pattern, TopicName, TopicPattern, TopicPrefix};

/// The Kafka cluster that is read.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct RawKafkaSource {
    #[serde(flatten)]
    pub(crate) client: RawKafkaClient,
    /// The consumer group. Ingresses of one group share the partitions. Without it: `ddc-` and the link's name.
    pub(crate) group: Option<String>,
    /// The topics to carry: names, or regular expressions (POSIX extended) that begin with `^`.
    #[schemars(example = ["orders"], length(min = 1))]
    pub(crate) topics: Vec<TopicPattern>,
    /// Where a group without any commit begins. A group that has commits goes on from them, and begins new partitions at
    /// their start.
    #[serde(default = "default_start_at")]
    pub(crate) start_at: StartAt,
    /// How long a record must have been sent before its offset is committed. After a crash or a takeover what was sent in
    /// this time is sent again; the time must exceed what it takes to notice a dead egress and stop the ingress.
    #[serde(default = "default_commit_delay")]
    pub(crate) commit_delay: Span,
    /// How far back `ddc rewind` and `ddc pause --since` can go: for so long it is remembered where each partition stood. At
    /// least `commit_delay`; without it 5 minutes, or `commit_delay` if that is longer.
    #[schemars(example = "5min")]
    pub(crate) history: Option<Span>,
    /// What a planned stop commits.
    #[serde(default = "default_commit_on_stop")]
    pub(crate) commit_on_stop: CommitOnStop,
    /// Tells a re-created topic from its predecessor on brokers without topic ids (before 2.8): raise it by one after
    /// re-creating a topic.
    #[serde(default)]
    pub(crate) topic_epoch: u64,
}

fn default_start_at() -> StartAt {
    StartAt::Earliest
}

fn default_commit_delay() -> Span {
    Span(Duration::from_secs(30))
}

fn default_commit_on_stop() -> CommitOnStop {
    CommitOnStop::Delayed
}

choices! {
    /// Where a consumer group without any commit begins.
    StartAt {
        /// With the oldest record.
        Earliest = "earliest",
        /// With the next record that is written.
        Latest = "latest",
        /// Nowhere: a group without a commit is an error.
        Committed = "committed",
    }
}

choices! {
    /// What a planned stop commits.
    CommitOnStop {
        /// Only what `commit_delay` allows: nothing is lost when the egress is dead, the overlap is sent again.
        Delayed = "delayed",
        /// All that was sent: nothing is sent again, but what the egress did not get is not sent again either.
        Sent = "sent",
    }
}

/// The Kafka cluster that is written.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct RawKafkaSink {
    #[serde(flatten)]
    pub(crate) client: RawKafkaClient,
    /// What is put before every topic's name.
    #[serde(default = "no_prefix")]
    pub(crate) topic_prefix: TopicPrefix,
    /// Topics that get another name: source topic = destination topic. The prefix is not put before these.
    #[serde(default)]
    pub(crate) rename: BTreeMap<String, TopicName>,
    /// Patterns that give topics another name; the first that matches counts, after `rename` and instead of the prefix.
    #[serde(default)]
    pub(crate) rename_regex: Vec<RawRenameRegex>,
    /// Which partition a record goes to.
    #[serde(default = "default_partition")]
    pub(crate) partition: PartitionMode,
    /// Whether missing topics are created, with the source's number of partitions. If not, they are reported and waited
    /// for.
    #[serde(default = "yes")]
    pub(crate) create_topics: bool,
    /// The replication factor of created topics; -1 is the broker's default.
    #[serde(default = "default_replication_factor")]
    #[schemars(range(min = -1, max = 32767))]
    pub(crate) replication_factor: i32,
    /// Whether the headers `sourceTopic`, `sourcePartition` and `sourceOffset` are added to each record.
    #[serde(default = "yes")]
    pub(crate) provenance: bool,
    /// What happens to a record that arrives after the gap it belongs to was reported.
    #[serde(default = "default_late")]
    pub(crate) late: LateRecords,
    /// What happens to a record whose timestamp the destination refuses (`message.timestamp.before.max.ms` and
    /// `message.timestamp.after.max.ms` of the topic; Kafka 4 refuses what is more than an hour ahead).
    #[serde(default = "default_bad_timestamp")]
    pub(crate) bad_timestamp: BadTimestamp,
    /// How long a stop waits for the destination to take what is buffered.
    #[serde(default = "default_drain_timeout")]
    pub(crate) drain_timeout: Span,
    /// How often a record may be at the destination.
    #[serde(default = "default_delivery")]
    pub(crate) delivery: DeliveryMode,
    /// How long a transaction of `delivery = "exactly_once"` gathers records at most; it ends earlier when nothing more waits. Readers
    /// (`isolation.level = read_committed`) see records when it ends.
    #[serde(default = "default_transaction_interval")]
    pub(crate) transaction_interval: Span,
    /// The name under which the topic `ddc-progress` at the destination keeps how far each partition is delivered. By default the
    /// link's name; links of which one may take over from another have the same.
    #[schemars(example = &"plant")]
    pub(crate) set: Option<LinkName>,
    /// How long the link that wrote a partition before is given to write what it still has, before this one takes over.
    #[serde(default = "default_takeover_timeout")]
    pub(crate) takeover_timeout: Span,
    /// How long, after a start of the egress, a partition whose first records leave a gap is left alone: an ingress that is sent back
    /// meanwhile (`ddc rewind`) sends what is missing in order, and nothing is reported. With 0 gaps are reported at once.
    #[serde(default = "default_rewind_wait")]
    pub(crate) rewind_wait: Span,
    /// What to do at a start when `ddc-progress` knows nothing of this set, and the spool says that there was something.
    #[serde(default = "default_lost_progress")]
    pub(crate) lost_progress: LostProgress,
}

fn default_delivery() -> DeliveryMode {
    DeliveryMode::ExactlyOnce
}

fn default_transaction_interval() -> Span {
    Span(Duration::from_millis(100))
}

fn default_takeover_timeout() -> Span {
    Span(Duration::from_secs(5))
}

fn default_rewind_wait() -> Span {
    Span(Duration::ZERO)
}

fn default_lost_progress() -> LostProgress {
    LostProgress::Refuse
}

fn no_prefix() -> TopicPrefix {
    TopicPrefix::default()
}

fn default_partition() -> PartitionMode {
    PartitionMode::Keep
}

fn yes() -> bool {
    true
}

fn default_replication_factor() -> i32 {
    -1
}

fn default_late() -> LateRecords {
    LateRecords::Mark
}

fn default_bad_timestamp() -> BadTimestamp {
    BadTimestamp::DeadLetter
}

fn default_drain_timeout() -> Span {
    Span(Duration::from_secs(20))
}

/// One pattern that gives topics another name.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct RawRenameRegex {
    /// A regular expression that must match the whole name of the source topic.
    #[schemars(example = "orders-(.*)")]
    pub(crate) pattern: Pattern,
    /// The destination topic; `$1` or `${name}` stands for what a group matched.
    #[schemars(example = "plant-a.orders.$1")]
    pub(crate) replacement: String,
}

choices! {
    /// How often a record may be at the destination.
    DeliveryMode {
        /// Once: records and progress in one transaction. Needs transactions at the destination, and readers with
        /// `isolation.level = read_committed`.
        ExactlyOnce = "exactly_once",
        /// Cheaper, without transactions: after a crash of the egress, records of its last second come twice.
        AtLeastOnce = "at_least_once",
    }
}

choices! {
    /// What an egress does whose progress is gone.
    LostProgress {
        /// It writes nothing and says so: what was delivered before would be delivered again if it is sent again.
        Refuse = "refuse",
        /// It begins anew. To be set for one start, when you know that the topic was lost or removed.
        Accept = "accept",
    }
}

choices! {
    /// Which partition a record goes to.
    PartitionMode {
        /// The one it had; the destination topic needs at least as many.
        Keep = "keep",
        /// The one its key hashes to, as Kafka's own producer does it. Order holds per key only.
        Hash = "hash",
    }
}

choices! {
    /// What happens to a record that arrives after the gap it belongs to was reported.
    LateRecords {
        /// It is written, with the header `ddcLate`.
        Mark = "mark",
        /// It is dropped and counted.
        Drop = "drop",
    }
}

choices! {
    /// What happens to a record whose timestamp the destination refuses.
    BadTimestamp {
        /// It is a dead letter; without `[dead_letters]` a gap, by name.
        DeadLetter = "dead_letter",
        /// It is written with the time of its writing; the header `sourceTimestamp` keeps its own.
        Clamp = "clamp",
    }
}

/// What both Kafka ends need to reach their cluster.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct RawKafkaClient {
    /// The brokers to ask first, each as `host:port`.
    #[schemars(example = ["localhost:9092"], length(min = 1))]
    pub(crate) brokers: Vec<Broker>,
    #[serde(default)]
    pub(crate) security: RawSecurity,
    /// Any other setting of librdkafka (its CONFIGURATION.md lists them), for example `"socket.keepalive.enable" = true`.
    /// A secret is written as `{ file = "PATH" }` or `{ env = "NAME" }`. Settings that DDC makes itself are refused.
    #[serde(default)]
    pub(crate) properties: BTreeMap<String, RawProperty>,
}

/// How the connection to the cluster is protected.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(crate) struct RawSecurity {
    /// What the brokers' listener speaks.
    pub(crate) protocol: SecurityProtocol,
    pub(crate) sasl: Option<RawSasl>,
    pub(crate) tls: Option<RawTls>,
}

impl Default for RawSecurity {
    fn default() -> Self {
        Self { protocol: SecurityProtocol::Plaintext, sasl: None, tls: None }
    }
}

choices! {
    /// What a Kafka listener speaks.
    SecurityProtocol {
        /// Neither encryption nor authentication.
        Plaintext = "plaintext",
        /// TLS.
        Ssl = "ssl",
        /// SASL without encryption.
        SaslPlaintext = "sasl_plaintext",
        /// SASL over TLS.
        SaslSsl = "sasl_ssl",
    }
}

/// Authentication by SASL, for `sasl_plaintext` and `sasl_ssl`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct RawSasl {
    /// The mechanism. `GSSAPI` and `OAUTHBEARER` are passed through to librdkafka and not proven by our tests; their further
    /// settings (`sasl.kerberos.…`, `sasl.oauthbearer.…`) go into `properties`.
    #[schemars(example = "SCRAM-SHA-512")]
    pub(crate) mechanism: SaslMechanism,
    /// The user name, for PLAIN and SCRAM.
    pub(crate) username: Option<String>,
    /// A file that holds the password (one newline at its end is not part of it). Only its owner and groups of the process
    /// may read it.
    pub(crate) password_file: Option<FilePath>,
    /// The environment variable that holds the password; instead of `password_file`.
    pub(crate) password_env: Option<String>,
}

choices! {
    /// SASL's mechanisms.
    SaslMechanism {
        /// User and password, readable by who listens: use it over TLS.
        Plain = "PLAIN",
        /// User and password, never sent.
        ScramSha256 = "SCRAM-SHA-256",
        /// User and password, never sent.
        ScramSha512 = "SCRAM-SHA-512",
        /// Kerberos.
        Gssapi = "GSSAPI",
        /// A bearer token.
        Oauthbearer = "OAUTHBEARER",
    }
}

/// TLS, for `ssl` and `sasl_ssl`. All files are PEM.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(crate) struct RawTls {
    /// The certificates that may sign the brokers'. Without it: the system's.
    pub(crate) ca_file: Option<FilePath>,
    /// This client's certificate, for brokers that ask for one.
    pub(crate) certificate_file: Option<FilePath>,
    /// The private key of `certificate_file`. Only its owner and groups of the process may read it.
    pub(crate) key_file: Option<FilePath>,
    /// A file that holds the password of `key_file`.
    pub(crate) key_password_file: Option<FilePath>,
    /// The environment variable that holds the password of `key_file`.
    pub(crate) key_password_env: Option<String>,
    /// Whether a broker's certificate must name the host that was connected to.
    pub(crate) verify_hostname: bool,
}

impl Default for RawTls {
    fn default() -> Self {
        Self {
            ca_file: None,
            certificate_file: None,
            key_file: None,
            key_password_file: None,
            key_password_env: None,
            verify_hostname: true,
        }
    }
}

/// A value in a `properties` table.
#[derive(Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub(crate) enum RawProperty {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    /// Read from a file when the configuration is loaded.
    File {
        file: FilePath,
    },
    /// Read from the environment when the configuration is loaded.
    Env {
        env: String,
    },
}

/// The name by which [`super::super::walk`] knows a [`RawProperty`].
pub(crate) const PROPERTY_FORMAT: &str = "librdkafka-property";

impl JsonSchema for RawProperty {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        PROPERTY_FORMAT.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let source = |key: &str| {
            serde_json::json!({
                "type": "object",
                "properties": { key: { "type": "string" } },
                "required": [key],
                "additionalProperties": false,
            })
        };
        json_schema!({
            "format": PROPERTY_FORMAT,
            "anyOf": [{ "type": ["string", "number", "boolean"] }, source("file"), source("env")],
        })
    }
}
