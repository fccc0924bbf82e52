//! `ddc check --connect` against real brokers: what a mock cluster cannot answer (topic ids, topics' configurations,
//! refused passwords). Nothing is changed by asking, which is looked at as well.

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use ddc_e2e::broker::{Pair, free_block};
use ddc_e2e::cluster::Cluster;
use ddc_e2e::proxy::binary;
use tempfile::TempDir;

/// The source and the destination may take 10 s each; the rest is start-up on a busy machine.
const BOUND: Duration = Duration::from_secs(40);

struct Answer {
    code: i32,
    out: String,
    errors: String,
}

/// Asks for both sides of a link in one call. `source` and `destination` are what follows `[source.kafka]` and
/// `[sink.kafka]`; files that they name lie in `directory`.
fn check(directory: &TempDir, name: &str, source: &str, destination: &str) -> Answer {
    let link = format!("[link]\nname = \"{name}\"\nid = 8\nseal = \"none\"\nstate_dir = ");
    let target = "\"127.0.0.1:7401\"";
    for (side, text) in [
        ("ingress", format!("{link}\"in\"\ntarget = {target}\n[source.kafka]\n{source}\n")),
        ("egress", format!("{link}\"out\"\nlisten = {target}\n[sink.kafka]\n{destination}\n")),
    ] {
        fs::write(directory.path().join(format!("{side}.toml")), text).unwrap();
    }
    let begun = Instant::now();
    let output = Command::new(binary())
        .current_dir(directory.path())
        .args(["check", "--connect", "-c", "ingress.toml", "egress.toml"])
        .output()
        .expect("ddc can be run");
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    for side in ["in", "out"] {
        assert!(!directory.path().join(side).exists(), "the check has made a state directory");
    }
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Answer { code: output.status.code().unwrap(), out: text(output.stdout), errors: text(output.stderr) }
}

/// A key and its values in TOML.
fn list(key: &str, values: &[&str]) -> String {
    format!("{key} = {values:?}\n")
}

impl Answer {
    /// Exactly one line begins so and holds all of `parts`.
    #[track_caller]
    fn assert_line(&self, beginning: &str, parts: &[&str]) {
        let fits = |line: &&str| line.starts_with(beginning) && parts.iter().all(|part| line.contains(part));
        let found = self.out.lines().chain(self.errors.lines()).filter(fits).count();
        assert_eq!(found, 1, "{beginning:?} with {parts:?}:\n{}\n{}", self.out, self.errors);
    }
}

#[test]
fn every_trap_of_a_destination_is_named_and_nothing_is_changed() {
    let pair = Pair::kafka_4();
    let (source, destination) =
        (Cluster::new(&pair.source.plaintext()), Cluster::new(&pair.destination.plaintext()));
    source.create("check-orders", 3, &[]);
    destination.create(
        "copy.check-orders",
        3,
        &[
            ("message.timestamp.type", "LogAppendTime"),
            ("retention.ms", "86400000"),
            ("message.timestamp.after.max.ms", "3600000"),
            ("message.timestamp.before.max.ms", "600000"),
            ("max.message.bytes", "1000012"),
        ],
    );
    let reads = list("brokers", &[source.brokers()])
        + &list("topics", &["check-orders", "check-absent", "^check-nothing-.*"]);
    let writes = list("brokers", &[destination.brokers()]) + "topic_prefix = \"copy.\"";
    let directory = tempfile::tempdir().unwrap();
    let answer = check(&directory, "check-traps", &reads, &writes);
    assert_eq!((answer.code, answer.errors.as_str()), (0, ""), "warnings do not fail: {}", answer.out);

    let source_says = |severity: &str| format!("link check-traps, source: {severity}: ");
    answer.assert_line(&source_says("ok"), &["brokers", source.brokers(), "answer", "plaintext"]);
    answer.assert_line(&source_says("ok"), &["topic check-orders has 3 partitions, topic id "]);
    assert!(!answer.out.contains("no topic id"), "{}", answer.out);
    answer.assert_line(&source_says("warning"), &["topic check-absent does not exist", "create it"]);
    answer.assert_line(&source_says("warning"), &["pattern ^check-nothing-.* matches no topic"]);
    answer.assert_line(&source_says("ok"), &["group ddc-check-traps", "no commits: starts at earliest"]);

    let warning = "link check-traps, destination: warning: topic copy.check-orders: ";
    answer.assert_line(warning, &["LogAppendTime", "set CreateTime"]);
    answer.assert_line(warning, &["retention.ms is 1 days", "raise it"]);
    answer.assert_line(warning, &["message.timestamp.after.max.ms", "1 h"]);
    answer.assert_line(warning, &["message.timestamp.before.max.ms", "10 min"]);
    answer.assert_line(warning, &["max.message.bytes is 1000012", "max_record_bytes"]);
    let warnings = answer.out.lines().filter(|line| line.contains(": warning: ")).count();
    assert_eq!(warnings, 7, "nothing else is complained of: {}", answer.out);

    assert_eq!(source.partitions("check-absent"), None, "asking must not create");
    assert_eq!(destination.partitions("copy.check-absent"), None, "asking must not create");
    let again = check(&directory, "check-traps", &reads, &writes);
    again.assert_line(&source_says("ok"), &["no commits: starts at earliest"]);
}

/// Kafka 4 refuses timestamps more than 1 h ahead unless told otherwise; Kafka 3 does not.
#[test]
fn a_default_topic_of_kafka_4_is_warned_of() {
    let pair = Pair::kafka_4();
    let (source, destination) =
        (Cluster::new(&pair.source.plaintext()), Cluster::new(&pair.destination.plaintext()));
    source.create("check-default", 1, &[]);
    destination.create("check-default", 1, &[("max.message.bytes", "17000000")]);
    let reads = list("brokers", &[source.brokers()]) + &list("topics", &["check-default"]);
    let writes = list("brokers", &[destination.brokers()]);
    let answer = check(&tempfile::tempdir().unwrap(), "check-default", &reads, &writes);
    assert_eq!((answer.code, answer.errors.as_str()), (0, ""), "{}", answer.out);
    answer.assert_line(
        "link check-default, destination: warning: topic check-default: ",
        &["message.timestamp.after.max.ms", "more than 1 h ahead"],
    );
    let warnings = answer.out.lines().filter(|line| line.contains(": warning: ")).count();
    assert_eq!(warnings, 1, "{}", answer.out);
}

#[test]
fn who_is_refused_or_finds_nobody_gets_69_and_the_reason() {
    let pair = Pair::kafka_4();
    let source = Cluster::new(&pair.source.plaintext());
    source.create("check-refused", 1, &[]);
    let nobody = format!("127.0.0.1:{}", free_block(1));
    let directory = tempfile::tempdir().unwrap();
    for (name, password) in [("wrong", "not the password\n"), ("right", "ddc-secret\n")] {
        // Only its owner may read it, or it is refused.
        let path = directory.path().join(name);
        fs::write(&path, password).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let reads = |password: &str| {
        list("brokers", &[&pair.source.sasl_plaintext()])
            + &list("topics", &["check-refused"])
            + "[source.kafka.security]\nprotocol = \"sasl_plaintext\"\n[source.kafka.security.sasl]\n\
               mechanism = \"SCRAM-SHA-512\"\nusername = \"ddc\"\n"
            + &format!("password_file = \"{password}\"\n")
    };
    let answer = check(&directory, "check-refused", &reads("wrong"), &list("brokers", &[&nobody]));
    assert_eq!(answer.code, 69, "{}{}", answer.out, answer.errors);
    assert_eq!(answer.errors.lines().count(), 2, "one line each: {}", answer.errors);
    answer.assert_line("ddc: link check-refused, source: problem: ", &["check username and password_file"]);
    answer.assert_line("ddc: link check-refused, destination: problem: ", &[&nobody, "no broker answers"]);
    assert!(!answer.errors.contains("not the password") && !answer.out.contains("not the password"));

    let writes = list("brokers", &[&pair.destination.plaintext()]);
    let answer = check(&directory, "check-refused", &reads("right"), &writes);
    assert_eq!((answer.code, answer.errors.as_str()), (0, ""), "{}", answer.out);
    answer.assert_line("link check-refused, source: ok: ", &["brokers", "answer", "sasl_plaintext"]);
}
