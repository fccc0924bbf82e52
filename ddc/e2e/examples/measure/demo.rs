//! `ddc demo`: producer, both clusters (mocks), ingress, egress and the comparison of every field, in one process.

use std::process::{Command, Stdio};

use crate::Options;
use crate::table::{Table, median, thousands};

const RECORDS: &str = "1000000";
const SIZE: &str = "100";

/// Runs it once per round.
pub(crate) fn measure(options: &Options, table: &mut Table) {
    let rates = (0..options.rounds).map(|_| once(options)).collect();
    table.figure(
        format!("`ddc demo --records {RECORDS} --size {SIZE}`: records/s, compared with the original"),
        thousands(median(rates)),
    );
}

fn once(options: &Options) -> f64 {
    let output = Command::new(&options.ddc)
        .args(["demo", "--records", RECORDS, "--size", SIZE, "--json"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("ddc can be run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "the demo failed:\n{text}");
    let last = text.lines().last().expect("the demo prints its result");
    let result: serde_json::Value = serde_json::from_str(last).expect("the last line is JSON");
    eprintln!("measure: demo {last}");
    result["records_per_second"].as_f64().expect("records_per_second is a number")
}
