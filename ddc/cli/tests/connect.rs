//! `ddc check --connect`, the real binary against librdkafka's mock cluster: exit codes, and what goes to which output.

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;

fn check(directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ddc"));
    let output = command.current_dir(directory).arg("check").args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn files(source: &str, destination: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let common = "name = \"plant-a\"\nid = 1\nseal = \"none\"";
    let ingress = format!(
        "[link]\n{common}\ntarget = \"127.0.0.1:7401\"\nstate_dir = \"in\"\n[source.kafka]\n\
         brokers = [\"{source}\"]\ntopics = [\"orders\", \"absent\"]\n"
    );
    let egress = format!(
        "[link]\n{common}\nlisten = \"127.0.0.1:7401\"\nstate_dir = \"out\"\n[sink.kafka]\n\
         brokers = [\"{destination}\"]\ntopic_prefix = \"a.\"\n"
    );
    std::fs::write(directory.path().join("ingress.toml"), ingress).unwrap();
    std::fs::write(directory.path().join("egress.toml"), egress).unwrap();
    directory
}

fn line<'t>(text: &'t str, beginning: &str) -> &'t str {
    text.lines().find(|line| line.starts_with(beginning)).unwrap_or_else(|| panic!("{beginning:?} in {text}"))
}

#[test]
fn warnings_do_not_change_the_exit_code_and_each_names_link_and_topic() {
    let (source, destination) = (MockCluster::new(1).unwrap(), MockCluster::new(1).unwrap());
    source.create_topic("orders", 3, 1).unwrap();
    // The mock cluster makes no topics, and says so too late.
    destination.create_topic("ddc-progress", 1, 1).unwrap();
    let directory = files(&source.bootstrap_servers(), &destination.bootstrap_servers());
    let both = ["-c", "ingress.toml", "egress.toml", "--connect"];
    let (code, out, errors) = check(directory.path(), &both);
    assert_eq!((code, errors.as_str()), (0, ""), "{out}");
    assert!(line(&out, "link plant-a, source: ok: brokers ").contains("answer"), "{out}");
    line(&out, "link plant-a, source: ok: topic orders has 3 partitions");
    assert!(line(&out, "link plant-a, source: warning: topic absent ").contains("does not exist"), "{out}");
    line(&out, "link plant-a, source: ok: group ddc-plant-a may be used");
    // What the ingress would send decides what is looked at on the other side, under its name there.
    line(&out, "link plant-a, destination: ok: topic a.orders does not exist yet and will be created");
    assert!(!out.contains("a.absent"), "{out}");
    for left in ["in", "out"] {
        assert!(!directory.path().join(left).exists(), "the check has made {left}");
    }
}

#[test]
fn a_cluster_that_is_away_is_69_in_time_and_without_connect_nobody_asks() {
    let source = MockCluster::new(1).unwrap();
    source.create_topic("orders", 1, 1).unwrap();
    let directory = files(&source.bootstrap_servers(), "127.0.0.1:1");
    let both = ["-c", "ingress.toml", "egress.toml"];
    let (code, out, errors) = check(directory.path(), &both);
    assert_eq!((code, errors.as_str()), (0, ""), "{out}");
    assert!(!out.contains("link plant-a, "), "{out}");
    let begun = Instant::now();
    let (code, out, errors) = check(directory.path(), &[&both[..], &["--connect"]].concat());
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert_eq!(code, 69, "{out}{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(
        errors.starts_with("ddc: link plant-a, destination: problem: destination 127.0.0.1:1: "),
        "{errors}"
    );
    assert!(errors.contains("no broker answers"), "{errors}");
    line(&out, "link plant-a, source: ok: topic orders has 1 partitions");
}

#[test]
fn wrong_files_are_78_and_no_cluster_is_asked() {
    let directory = files("127.0.0.1:1", "127.0.0.1:1");
    std::fs::write(directory.path().join("egress.toml"), "[link]\n").unwrap();
    let begun = Instant::now();
    let (code, out, errors) = check(directory.path(), &["-c", "ingress.toml", "egress.toml", "--connect"]);
    assert_eq!(code, 78, "{out}{errors}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}: it has waited for brokers", begun.elapsed());
    assert!(!out.contains("link plant-a, ") && !errors.contains("127.0.0.1:1: "), "{out}{errors}");
}
