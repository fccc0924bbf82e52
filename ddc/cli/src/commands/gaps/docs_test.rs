//! docs/gaps.md: its commands are commands, its columns and fields are those of the table and of the file.

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::collections::BTreeSet;

use clap::Parser as _;
use ddc_link::receiver::{OffsetRange, PartitionKey};
use ddc_proxy::gaps::{Gap, GapFile, Timestamp};
use ddc_telemetry::reasons::MissingReason;

use super::table::TITLES;

const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/gaps.md"));

/// The first cells of the rows under a heading, split at commas, without marks.
fn documented(heading: &str) -> BTreeSet<String> {
    let section = PAGE.split(&format!("\n## {heading}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let cells = rows.flat_map(|cell| cell.split(", "));
    cells
        .map(|cell| cell.replace('`', ""))
        .filter(|cell| !matches!(cell.as_str(), "column" | "field"))
        .collect()
}

#[test]
fn the_documented_commands_are_understood() {
    let commands: Vec<_> = PAGE.lines().filter(|line| line.starts_with("ddc gaps ")).collect();
    assert!(commands.len() >= 5, "{commands:?}");
    for command in commands {
        let words = command.split('#').next().unwrap().split_whitespace();
        if let Err(error) = crate::Arguments::try_parse_from(words) {
            panic!("{command}: {error}");
        }
    }
}

#[test]
fn the_documented_columns_are_the_columns() {
    assert_eq!(documented("The list"), TITLES.map(str::to_owned).into());
}

#[test]
fn the_documented_fields_are_the_fields() {
    let key = PartitionKey { topic: "t".into(), ..PartitionKey::default() };
    let range = OffsetRange { first: 1, last: 2 };
    let gap = Gap::found("plant-a", &key, range, None, MissingReason::Lost, None, Timestamp::now());
    let file = GapFile {
        site: None,
        link: "plant-a".parse().unwrap(),
        link_id: 1.into(),
        exported_at: Timestamp::now(),
        gaps: vec![gap],
    };
    let csv = String::from_utf8(file.to_csv().unwrap()).unwrap();
    let columns: BTreeSet<_> = csv.lines().next().unwrap().split(',').map(str::to_owned).collect();
    let value: serde_json::Value = serde_json::from_slice(&file.to_json().unwrap()).unwrap();
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let fields: BTreeSet<_> =
        keys(&value).into_iter().filter(|key| key != "gaps").chain(keys(&value["gaps"][0])).collect();
    assert_eq!(columns, fields, "CSV and JSON have the same");
    assert_eq!(documented("The gap file"), fields);
}
