//! Every way to break the shipped files, and every start that cannot succeed, is found and named.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::read_to_string;
use std::process::Command;

use support::{output, pipeline, real_vector};

const SOURCE: [&str; 2] = ["vector.yaml", "exporter.yaml"];
const DESTINATION: [&str; 3] = ["vector.yaml", "exporter.yaml", "destination.yaml"];

/// A copy of the shipped files with one text replaced in one of them; what `validate` says about it.
fn broken(file: &str, from: &str, to: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    for name in DESTINATION {
        let mut text = read_to_string(pipeline().join(name)).unwrap();
        if name == file {
            assert!(text.contains(from), "{file} has no {from}");
            text = text.replacen(from, to, 1);
        }
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_ddc-vector-double"))
        .env("DDC_VECTOR_DIR", pipeline())
        .arg("validate")
        .args(DESTINATION)
        .current_dir(&directory)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78), "{to} in {file} was not found");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn every_way_to_break_them_is_found_and_named() {
    let auth = "    auth: { strategy: basic, user: a, pasword: b }\n    flush_period_secs";
    for (file, from, to, message) in [
        (
            "exporter.yaml",
            "suppress_timestamp",
            "supress_timestamp",
            "exporter.yaml: sinks.exporter: unknown key `supress_timestamp`; did you mean `suppress_timestamp`?",
        ),
        (
            "exporter.yaml",
            "    flush_period_secs",
            auth,
            "exporter.yaml: sinks.exporter.auth: unknown key `pasword`; did you mean `password`?",
        ),
        (
            "exporter.yaml",
            "127.0.0.1:9598",
            "0.0.0.0:9598",
            "exporter.yaml: sinks.exporter.address: `0.0.0.0:9598` listens on every address",
        ),
        (
            "exporter.yaml",
            "[bounded]",
            "[bounded, statsd]",
            "exporter.yaml: sinks.exporter.inputs: reads the source `statsd` directly and so bypasses `here_metrics`",
        ),
        (
            "exporter.yaml",
            "[bounded]",
            "[bouned]",
            "sinks.exporter.inputs: unknown input `bouned`; did you mean `bounded`?",
        ),
        (
            "exporter.yaml",
            "[bounded]",
            "[logs_out]",
            "`logs_out` carries log events, a prometheus_exporter takes metrics",
        ),
        ("exporter.yaml", "0.00025, 0.0005", "0.0005, 0.00025", "sinks.exporter.buckets: must grow"),
        (
            "exporter.yaml",
            ":-3600}",
            ":-an hour}",
            "sinks.exporter.flush_period_secs: must be a whole number",
        ),
        (
            "vector.yaml",
            ":-127.0.0.1:8125}",
            "}",
            "environment variable DDC_STATSD_LISTEN is not set and has no default",
        ),
        (
            "vector.yaml",
            ":-127.0.0.1:8125}",
            ":-localhost}",
            "sources.statsd.address: `localhost` is no address:port",
        ),
        (
            "vector.yaml",
            "mode: udp",
            "mode: upd",
            "sources.statsd.mode: unknown mode `upd`; did you mean `udp`?",
        ),
        (
            "vector.yaml",
            "type: statsd",
            "type: statd",
            "sources.statsd: unknown type `statd`; did you mean `statsd`?",
        ),
        (
            "vector.yaml",
            "inputs: [\"*_metrics\"]",
            "inputs: [\"*_metrics\", bounded]",
            "transforms.metrics.inputs: reads what comes out of itself",
        ),
        (
            "vector.yaml",
            "[metrics, host, vector_self]",
            "[metrics, host]",
            "transforms.vector_self: nobody reads this output",
        ),
        ("vector.yaml", ", logs.dropped]", "]", "transforms.logs.dropped: nobody reads this output"),
        ("vector.yaml", "'.severity == \"warning\"'", "'.severity'", "the condition must give true or false"),
        ("vector.yaml", "'.severity == \"warning\"'", "'.severity =='", "syntax error"),
        ("vector.yaml", "vrl/metrics.vrl", "vrl/metric.vrl", "vrl/metric.vrl cannot be read"),
        ("vector.yaml", "codec: json", "codec: jsn", "sinks.console.encoding.codec: must be one of json"),
        ("vector.yaml", "  console:\n", "  logs:\n", "sinks.logs: another component has this name already"),
        ("vector.yaml", "sinks:\n", "sink:\n", "unknown key `sink`; did you mean `sinks`?"),
        ("vector.yaml", "sources:\n", "sources: {\n", "is no YAML"),
        ("destination.yaml", "[statsd_diode]", "[statsd]", "sources.statsd_diode: nobody reads this output"),
        (
            "destination.yaml",
            "diode_metrics:",
            "metrics_diode:",
            "transforms.metrics_diode: nobody reads this output",
        ),
    ] {
        let said = broken(file, from, to);
        assert!(said.contains(message), "{to} in {file}: {said}");
    }
}

#[test]
fn all_faults_are_reported_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    std::fs::write(&file, "sources: {a: {type: statsd, mode: udp, adress: x}}\nsinks: {b: {type: console, inputs: [c], encoding: {}}}\n").unwrap();
    let output = support::output(&["validate", file.to_str().unwrap()], &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    let faults = [
        "unknown key `adress`",
        "`address` is missing",
        "`codec` is missing",
        "unknown input `c`",
        "nobody reads",
    ];
    if !real_vector() {
        for fault in faults {
            assert!(said.contains(fault), "{fault}: {said}");
        }
    }
    assert_eq!(output.status.code(), Some(78));
    if !real_vector() {
        let output = support::output(&["validate", "--format", "json", file.to_str().unwrap()], &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        let faults: Vec<serde_json::Value> =
            said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let expected = serde_json::json!({
            "file": file, "place": "sources.a", "message": "unknown key `adress`; did you mean `address`?"
        });
        assert!(faults.contains(&expected), "{said}");
    }
}

#[test]
fn a_test_that_does_not_hold_fails_and_none_at_all_fails_too() {
    let directory = tempfile::tempdir().unwrap();
    let run = |old: &str, new: &str| {
        let text = read_to_string(pipeline().join("tests/metrics.yaml")).unwrap();
        assert!(text.contains(old));
        let file = directory.path().join("t.yaml");
        std::fs::write(&file, text.replacen(old, new, 1)).unwrap();
        let output = output(&[&["test"], &SOURCE[..], &[file.to_str().unwrap()]].concat(), &[]);
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert!(run("name", "name").0);
    for (old, new) in [
        ("\"ddc_ingress_packets_sent_total\"", "\"ddc_ingress_packets_sent\""),
        (
            "no_outputs_from: [metrics, bounded]",
            "no_outputs_from: [bounded]\n    outputs: [{extract_from: metrics}]",
        ),
        ("name: nginx.requests", "name: ddc.requests"),
        ("insert_at: here_metrics", "insert_at: metrics_from_nowhere"),
        ("assert_eq!(.type, \"counter\")", "assert_eq!(.type, \"gauge\")"),
    ] {
        let (passed, said) = run(old, new);
        assert!(!passed, "{new}: {said}");
    }
    if !real_vector() {
        assert!(!output(&[&["test"], &SOURCE[..]].concat(), &[]).status.success());
    }
}

#[test]
fn what_cannot_be_opened_ends_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let at = || format!("127.0.0.1:{}", support::free_port());
    let socket = directory.path().join("s").display().to_string();
    let variables = |exporter: String, tls: &str| {
        vec![
            ("DDC_STATSD_LISTEN", at()),
            ("DDC_SYSLOG_LISTEN", at()),
            ("DDC_VECTOR_API_LISTEN", at()),
            ("DDC_SYSLOG_SOCKET", socket.clone()),
            ("DDC_EXPORTER_LISTEN", exporter),
            ("DDC_EXPORTER_TLS", tls.into()),
        ]
    };
    let start =
        |variables: &[(&str, String)]| output(&["--config", SOURCE[0], "--config", SOURCE[1]], variables);
    let output = start(&variables(address.clone(), "false"));
    assert!(!output.status.success());
    assert!(
        real_vector()
            || String::from_utf8_lossy(&output.stderr).contains(&format!("cannot listen on tcp {address}"))
    );
    // The double refuses what it cannot do instead of serving the page in the clear.
    if !real_vector() {
        let output = start(&variables(at(), "true"));
        assert_eq!(output.status.code(), Some(78));
        assert!(String::from_utf8_lossy(&output.stderr).contains("no TLS"));
    }
}
