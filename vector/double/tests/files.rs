//! The shipped files: every combination is valid, their tests pass, every variable has a default and is documented.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

use support::{output, pipeline, real_vector};

const SOURCE: [&str; 2] = ["vector.yaml", "exporter.yaml"];
const DESTINATION: [&str; 3] = ["vector.yaml", "exporter.yaml", "destination.yaml"];
const TESTS: [&str; 3] = ["tests/metrics.yaml", "tests/logs.yaml", "tests/destination.yaml"];

fn secrets() -> Vec<(&'static str, String)> {
    vec![("DDC_EXPORTER_USER", "u".into()), ("DDC_EXPORTER_PASSWORD", "p".into())]
}

/// What `validate` says; a real Vector opens what the files name, so it gets free ports.
fn validate(files: &[&str]) -> Result<(), String> {
    let mut variables = secrets();
    let directory = tempfile::tempdir().unwrap();
    if real_vector() {
        let at = || format!("127.0.0.1:{}", support::free_port());
        for name in ["DDC_STATSD_LISTEN", "DDC_SYSLOG_LISTEN", "DDC_EXPORTER_LISTEN", "DDC_VECTOR_API_LISTEN"]
        {
            variables.push((name, at()));
        }
        variables.push(("DDC_SYSLOG_SOCKET", directory.path().join("s").display().to_string()));
    }
    let output = output(&[&["validate"], files].concat(), &variables);
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn files_of(folder: &str, ending: &str) -> Vec<String> {
    let mut files: Vec<String> = std::fs::read_dir(pipeline().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(ending))
        .map(|name| if folder == "." { name } else { format!("{folder}/{name}") })
        .collect();
    files.sort();
    files
}

fn snippets() -> Vec<String> {
    [files_of("snippets", ".yaml"), files_of("snippets/diode", ".yaml")].concat()
}

#[test]
fn every_combination_is_valid() {
    assert_eq!(validate(&SOURCE), Ok(()));
    assert_eq!(validate(&DESTINATION), Ok(()));
    assert_eq!(validate(&["vector.yaml", "exporter-auth.yaml"]), Ok(()));
    assert_eq!(validate(&["vector.yaml", "exporter-auth.yaml", "destination.yaml"]), Ok(()));
    let snippets = snippets();
    assert!(snippets.len() >= 5);
    for snippet in &snippets {
        assert_eq!(validate(&[&SOURCE[..], &[snippet]].concat()), Ok(()), "{snippet}");
    }
}

#[test]
fn their_tests_pass_with_and_without_a_site() {
    for site in ["", "north"] {
        let files = [&["test"], &DESTINATION[..], &TESTS[..]].concat();
        let output = output(&files, &[("DDC_SITE", site.into())]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        if !real_vector() {
            assert!(text.contains("\n32 passed, 0 failed\n"), "{text}");
        }
    }
}

#[test]
fn every_transform_and_every_output_has_a_test() {
    let mut inserted = BTreeSet::new();
    let mut extracted = BTreeSet::new();
    for file in TESTS {
        for line in read_to_string(pipeline().join(file)).unwrap().lines() {
            let value = |key: &str| {
                line.trim_start_matches(['-', ' ']).strip_prefix(key).map(|name| name.trim().to_owned())
            };
            inserted.extend(value("insert_at:"));
            extracted.extend(value("extract_from:"));
            if let Some(list) = value("no_outputs_from:") {
                extracted.extend(list.trim_matches(['[', ']']).split(", ").map(ToOwned::to_owned));
            }
        }
    }
    let config =
        ddc_vector_double::config::load(&paths(&DESTINATION), |name| std::env::var(name).ok()).config;
    for name in config.transforms.keys().filter(|name| !["bounded", "logs_out"].contains(&name.as_str())) {
        assert!(inserted.contains(name), "no test inserts at {name}");
    }
    let (topology, _) = ddc_vector_double::topology::build(&config);
    for name in topology.readers.keys().filter(|name| {
        !config.sources.contains_key(*name) && !name.starts_with("here_") && !name.starts_with("diode_")
    }) {
        assert!(extracted.contains(name), "no test looks at {name}");
    }
}

fn paths(files: &[&str]) -> Vec<PathBuf> {
    files.iter().map(|file| pipeline().join(file)).collect()
}

/// `NAME` of every `${NAME…}` in a file, with what follows it.
fn variables(file: &Path) -> Vec<(String, String)> {
    let text = read_to_string(file).unwrap();
    text.split("${")
        .skip(1)
        .map(|rest| {
            let (inner, _) = rest.split_once('}').unwrap();
            let end = inner.find([':', '-', '?']).unwrap_or(inner.len());
            (inner[..end].to_owned(), inner[end..].to_owned())
        })
        .collect()
}

#[test]
fn every_variable_has_a_default_and_is_documented() {
    let readme = read_to_string(pipeline().join("README.md")).unwrap();
    let mut used = BTreeSet::from(["DDC_SITE".to_owned()]);
    for file in [files_of(".", ".yaml"), snippets()].concat() {
        for (name, modifier) in variables(&pipeline().join(&file)) {
            let secret = ["DDC_EXPORTER_USER", "DDC_EXPORTER_PASSWORD"].contains(&name.as_str());
            assert!(modifier.starts_with(if secret { ":?" } else { ":-" }), "{file}: {name}{modifier}");
            if let Some(default) = modifier.strip_prefix(":-") {
                let row = format!("| `{name}` | `{default}` |");
                assert!(readme.contains(&row), "{file}: README.md has no row {row}");
            }
            used.insert(name);
        }
    }
    for word in
        readme.split(|c: char| !c.is_ascii_uppercase() && c != '_').filter(|word| word.starts_with("DDC_"))
    {
        assert!(used.contains(word), "README.md names {word}, which no file uses");
    }
    for name in used {
        assert!(readme.contains(&name), "README.md does not name {name}");
    }
}

/// `vector test` names its sources NAME-source-UUID, and expands stars afterwards: these must not match, or an event reaches a transform twice.
#[test]
fn no_star_takes_in_the_sources_of_vector_test() {
    let config =
        ddc_vector_double::config::load(&paths(&DESTINATION), |name| std::env::var(name).ok()).config;
    let inputs = config
        .transforms
        .values()
        .flat_map(|t| &t.inputs)
        .chain(config.sinks.values().flat_map(|s| &s.inputs));
    let patterns: Vec<&String> = inputs.filter(|input| input.contains('*')).collect();
    assert_eq!(patterns, ["*_metrics", "*_logs"]);
    for name in config.transforms.keys() {
        for pattern in &patterns {
            assert!(
                !ddc_vector_double::topology::matches(pattern, &format!("{name}-source-0")),
                "{pattern}: {name}"
            );
        }
    }
}

#[test]
fn every_listener_is_on_loopback_unless_a_variable_says_otherwise() {
    for file in [files_of(".", ".yaml"), snippets()].concat() {
        for line in read_to_string(pipeline().join(&file)).unwrap().lines() {
            assert!(!line.contains("0.0.0.0") && !line.contains("[::]"), "{file}: {line}");
            if let Some(address) = line.trim().strip_prefix("address:") {
                assert!(address.contains(":-127.0.0.1:"), "{file}: {line}");
            }
        }
    }
}

/// VRL functions that Vector 0.43 has (its VRL is about 0.20) as well as the crate here: the oldest and the newest that must compile these files.
const FUNCTIONS: [&str; 20] = [
    "del",
    "ends_with",
    "exists",
    "filter",
    "format_timestamp",
    "get_env_var",
    "includes",
    "length",
    "map_values",
    "match",
    "merge",
    "object",
    "parse_json",
    "replace",
    "starts_with",
    "string",
    "truncate",
    "is_empty",
    "assert_eq",
    "assert",
];

#[test]
fn vrl_uses_only_functions_that_old_and_new_versions_have() {
    let files = files_of("vrl", ".vrl");
    assert!(files.len() >= 9);
    for file in files {
        for line in read_to_string(pipeline().join(&file)).unwrap().lines() {
            let code = line.split('#').next().unwrap();
            for (at, _) in code.match_indices('(') {
                let before = code[..at].trim_end_matches('!');
                let name = before.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
                let keyword = name.is_empty() || name == "if";
                // The groups of a regular expression are no calls.
                let pattern =
                    before.contains("r'") && !before[before.find("r'").unwrap() + 2..].contains('\'');
                assert!(keyword || pattern || FUNCTIONS.contains(&name), "{file}: {name} in {line}");
            }
        }
    }
}

#[test]
fn buckets_and_labels_are_the_catalogues() {
    let vectors = read_to_string(pipeline().join("../ddc/telemetry/tests/vectors.json")).unwrap();
    let vectors: serde_json::Value = serde_json::from_str(&vectors).unwrap();
    let (mut bounds, mut labels) = (BTreeSet::new(), BTreeSet::new());
    for series in vectors["expect"].as_array().unwrap() {
        let inner =
            series.as_str().unwrap().split_once('{').unwrap().1.rsplit_once('}').unwrap().0.to_owned();
        for (key, value) in inner.split(',').filter_map(|label| label.split_once('=')) {
            if key == "le" {
                bounds.insert(value.trim_matches('"').to_owned());
            } else {
                labels.insert(key.to_owned());
            }
        }
    }
    for file in ["exporter.yaml", "exporter-auth.yaml"] {
        let text = read_to_string(pipeline().join(file)).unwrap();
        let line = text.lines().find_map(|line| line.trim().strip_prefix("buckets: [")).unwrap();
        let mut written: BTreeSet<String> =
            line.trim_end_matches(']').split(", ").map(ToOwned::to_owned).collect();
        written.insert("+Inf".into());
        assert_eq!(written, bounds, "{file}");
    }
    let rename = read_to_string(pipeline().join("vrl/metrics.vrl")).unwrap();
    for label in labels {
        assert!(rename.contains(&format!("\"{label}\"")), "vrl/metrics.vrl drops the label {label}");
    }
}

#[test]
fn both_exporters_differ_only_in_the_password() {
    let lines = |file: &str| -> Vec<String> {
        let text = read_to_string(pipeline().join(file)).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#')).map(ToOwned::to_owned);
        lines.collect()
    };
    let (plain, secret) = (lines("exporter.yaml"), lines("exporter-auth.yaml"));
    let more: Vec<&str> =
        secret.iter().filter(|line| !plain.contains(line)).map(|line| line.trim()).collect();
    assert_eq!(secret.len() - plain.len(), 4);
    assert_eq!(more[..2], ["auth:", "strategy: basic"]);
}
