//! docs/top.md lists exactly the fields of the JSON and the columns of the list.

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::collections::BTreeSet;

use serde_json::Value;

use super::list::list;
use super::model::tests::both;

const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/top.md"));

/// The paths of all values that are no objects or lists.
fn leaves(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                leaves(value, &format!("{path}{dot}{name}"), found);
            }
        }
        Value::Array(values) => {
            assert!(!values.is_empty(), "{path} is empty in the fixture: its fields cannot be checked");
            for value in values {
                leaves(value, &format!("{path}[]"), found);
            }
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}

#[test]
fn the_documented_fields_are_the_fields() {
    let (mut model, now) = both();
    let mut view = model.view(now);
    // The one list that the fixture leaves empty: this side is ready.
    view.links[0].ingress.as_mut().unwrap().common.reasons.push("x".to_owned());
    let mut found = BTreeSet::new();
    leaves(&serde_json::to_value(&view).unwrap(), "", &mut found);
    let (ingress, egress) = ("links[].ingress.", "links[].egress.");
    let is_common = |path: &str| {
        found.contains(&path.replacen(ingress, egress, 1))
            && found.contains(&path.replacen(egress, ingress, 1))
    };
    let fields: BTreeSet<String> = found
        .iter()
        .map(|path| {
            let plain = path.replacen(ingress, "links[].*.", 1).replacen(egress, "links[].*.", 1);
            if is_common(path) { plain } else { path.clone() }
        })
        .collect();
    let documented: Vec<&str> =
        PAGE.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let documented_once: BTreeSet<String> = documented.iter().map(|field| (*field).to_owned()).collect();
    assert_eq!(documented.len(), documented_once.len(), "a field is documented twice");
    assert_eq!(documented_once, fields);
}

#[test]
fn the_documented_columns_are_the_columns() {
    let (mut model, now) = both();
    let titles = list(&model.view(now), 400, 0..1).titles;
    let columns: BTreeSet<&str> = titles.split_whitespace().filter(|title| *title != "LINK").collect();
    let section = PAGE.split("## Columns").nth(1).unwrap().split("##").next().unwrap();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let documented: BTreeSet<&str> =
        cells.flat_map(|cell| cell.split(", ")).filter(|cell| *cell != "column").collect();
    assert_eq!(documented, columns);
}
