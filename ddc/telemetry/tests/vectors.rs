//! tests/vectors.json is what the code says: `VECTORS=write cargo test -p ddc-telemetry --test vectors` writes it anew.
#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::path::Path;

use ddc_telemetry::vectors::vectors;

#[test]
fn the_committed_vectors_are_those_of_the_catalogue() {
    let vectors = vectors();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors.json");
    let json = serde_json::json!({
        "about": "Generated from the catalogue by the test beside this file. `lines`: what the proxies send; an item with a newline \
                  in it stays in one datagram. `expect`: the series of Vector's exporter after the rename; compare labels as sets and \
                  values as numbers.",
        "lines": vectors.lines,
        "expect": vectors.expect,
    });
    let text = format!("{json:#}\n");
    if std::env::var_os("VECTORS").is_some_and(|what| what == "write") {
        std::fs::write(&file, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    // As values: the order of keys in the text depends on features that other crates of a build switch on.
    assert!(
        serde_json::from_str(&committed).is_ok_and(|committed: serde_json::Value| committed == json),
        "the catalogue has changed: VECTORS=write cargo test -p ddc-telemetry --test vectors"
    );
    for row in ddc_telemetry::catalogue::all() {
        let name = row.statsd_name();
        assert!(vectors.lines.iter().any(|line| line.starts_with(&format!("{name}:"))), "{name}");
        let name = row.prometheus_name();
        assert!(vectors.expect.iter().any(|line| line.starts_with(&name)), "{name}");
    }
}
