//! Looks at where dead letters would go before there is one. Changes nothing.

use std::path::Path;
use std::time::Duration;

use ddc_kafka::admin::{Admin, TimestampType, TopicConfig};
use ddc_kafka::context::Reporter;
use ddc_kafka::settings::{ClientSettings, Role};

use super::reading;
use crate::config::{ByteSize, LinkName, Side, TopicName};
use crate::sink::preflight::{Finding, Severity};

/// A directory that is fuller than this is worth a warning, in per cent.
const NEARLY_FULL: u64 = 80;

/// Asks a cluster that has answered already about the topic; takes at most twice `patience`.
pub(crate) fn topic(
    client: &ClientSettings,
    link: &LinkName,
    topic: &TopicName,
    max_record_bytes: ByteSize,
    patience: Duration,
) -> Vec<Finding> {
    let unknown = |why: String| {
        vec![found(Severity::Warning, format!("dead letters: topic {topic} cannot be looked at: {why}"))]
    };
    let native = match client.build(&Role::Admin) {
        Ok(native) => native,
        Err(error) => return unknown(error.to_string()),
    };
    let admin = match Admin::new(&native, Reporter::new(link.as_str(), "check")) {
        Ok(admin) => admin,
        Err(error) => return unknown(error.to_string()),
    };
    match admin.partition_counts(&[topic.as_str()], patience) {
        Err(error) => return unknown(error.to_string()),
        Ok(counts) if counts.get(topic.as_str()).is_none_or(Option::is_none) => {
            let text = format!(
                "dead letters: topic {topic} does not exist, or this client may not see it; create it, and allow this client Describe and Write"
            );
            return vec![found(Severity::Problem, text)];
        }
        Ok(_) => {}
    }
    match admin.topic_configs(&[topic.as_str()], patience) {
        Err(error) => unknown(error.to_string()),
        Ok(answers) => answers
            .into_iter()
            .flat_map(|(_, answer)| match answer {
                Ok(config) => judge(topic, &config, max_record_bytes.bytes()),
                Err(error) => unknown(error.to_string()),
            })
            .collect(),
    }
}

/// What the topic's configuration would do to letters.
fn judge(topic: &TopicName, config: &TopicConfig, max_record_bytes: u64) -> Vec<Finding> {
    let mut findings = vec![found(Severity::Good, format!("dead letters: topic {topic} is there"))];
    let mut say = |severity, text: String| {
        findings.push(found(severity, format!("dead letters: topic {topic}: {text}")));
    };
    if config.cleanup_policy.as_deref().is_some_and(|policy| policy.contains("compact")) {
        say(
            Severity::Problem,
            "cleanup.policy is compact: it refuses letters without a key, and of letters with one key only the latest stays; set it to delete".into(),
        );
    }
    if config.timestamp_type == Some(TimestampType::LogAppendTime) {
        say(
            Severity::Good,
            "message.timestamp.type=LogAppendTime does no harm: the record's own time is in a header".into(),
        );
    }
    if let Some(limit) = config.max_message_bytes.filter(|&limit| limit < max_record_bytes) {
        say(
            Severity::Warning,
            format!(
                "max.message.bytes is {limit}, less than max_record_bytes ({max_record_bytes}); larger letters lose their value, and say so"
            ),
        );
    }
    findings
}

/// What is in the directory, whether it is ours, and how full it is.
pub(crate) fn directory(path: &Path, max_size: ByteSize, link: &LinkName, side: Side) -> Vec<Finding> {
    let shown = path.display();
    let files = match reading::files(path) {
        Ok(files) => files,
        Err(error) => return vec![found(Severity::Problem, error.to_string())],
    };
    let whose = format!("{link}/{side}");
    if let Some(other) = files.iter().find(|file| file.whose != whose) {
        let text = format!(
            "{} is of link {}, not of {whose}: each side of a link needs its own `directory` in [dead_letters]",
            other.path.display(),
            other.whose
        );
        return vec![found(Severity::Problem, text)];
    }
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    let text =
        format!("dead letters: {bytes} bytes in {} files in {shown}, of {max_size} at most", files.len());
    if bytes >= max_size.bytes() / 100 * NEARLY_FULL {
        return vec![found(Severity::Warning, format!("{text}; carry files away and remove them"))];
    }
    vec![found(Severity::Good, text)]
}

fn found(severity: Severity, text: String) -> Finding {
    Finding { severity, text }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;

    fn texts(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_topic_that_would_lose_letters_is_named() {
        let topic = "dead".parse().unwrap();
        let said = |config: &TopicConfig| texts(&judge(&topic, config, 1000)).join("\n");
        let good = TopicConfig { max_message_bytes: Some(1000), ..TopicConfig::default() };
        assert_eq!(said(&good), "ok: dead letters: topic dead is there");
        let compact = TopicConfig { cleanup_policy: Some("compact,delete".into()), ..TopicConfig::default() };
        assert!(said(&compact).contains("problem: dead letters: topic dead: cleanup.policy"));
        let small = TopicConfig { max_message_bytes: Some(999), ..TopicConfig::default() };
        assert!(said(&small).contains("warning: ") && said(&small).contains("999"));
    }

    #[test]
    fn a_directory_is_ours_empty_or_nearly_full() {
        let temporary = tempfile::tempdir().unwrap();
        let link = "plant-a".parse().unwrap();
        let said = |max: ByteSize| texts(&directory(temporary.path(), max, &link, Side::Egress)).join("\n");
        assert!(said(ByteSize::mib(1)).starts_with("ok: dead letters: 0 bytes in 0 files"));
        let head = |link: &str| {
            format!(
                "{{\"kind\":\"ddc-dead-letters\",\"format\":1,\"link\":\"{link}\",\"side\":\"egress\"}}\n"
            )
        };
        let file = temporary.path().join("dead-letters-00000001.jsonl");
        std::fs::write(&file, head("plant-a")).unwrap();
        assert!(said(ByteSize::mib(1)).starts_with("ok: "));
        assert!(
            said(ByteSize(50)).starts_with("warning: ") && said(ByteSize(50)).contains("carry files away")
        );
        std::fs::write(&file, head("plant-b")).unwrap();
        assert!(
            said(ByteSize::mib(1)).starts_with("problem: ")
                && said(ByteSize::mib(1)).contains("plant-b/egress")
        );
        let missing = directory(&temporary.path().join("none"), ByteSize::mib(1), &link, Side::Egress);
        assert_eq!(missing[0].severity, Severity::Good);
    }
}
