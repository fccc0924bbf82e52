//! What can be wrong with the settings of a Kafka client, in words an operator can act on.

use crate::binary::Need;

/// Everything that is wrong with some settings; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct SettingsErrors(pub(super) Vec<SettingsError>);

impl SettingsErrors {
    /// One by one, in a stable order.
    pub fn iter(&self) -> impl Iterator<Item = &SettingsError> {
        self.0.iter()
    }
}

/// One mistake in the settings of a Kafka client. Keys are relative to the table of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message beside each variant says what its fields hold")]
pub enum SettingsError {
    #[error("`{key}` is missing: {why}")]
    Missing { key: &'static str, why: &'static str },
    #[error("`{key}` has no effect: {why}")]
    Unused { key: &'static str, why: &'static str },
    #[error("brokers: `{broker}` is not one host:port; write a list: [\"host1:9092\", \"host2:9092\"]")]
    InvalidBroker { broker: String },
    #[error("property `{key}` cannot be set: {reason}")]
    Protected { key: String, reason: &'static str },
    #[error("properties `{first}` and `{second}` are two names of the same setting; keep one")]
    Twice { first: String, second: String },
    #[error("librdkafka has no property `{key}`{}", suggest(.nearest.as_deref()))]
    UnknownProperty { key: String, nearest: Option<String> },
    #[error("property `{key}`: {text}")]
    InvalidValue { key: String, text: String },
    #[error("`{key}`: this ddc {}", .need.advice())]
    Lacking { key: String, need: Need },
    #[error("librdkafka refuses these settings: {text}")]
    Refused { text: String },
}

fn suggest(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}
