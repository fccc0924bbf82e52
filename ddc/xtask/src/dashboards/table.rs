//! The parts of Grafana's JSON that only tables have: the queries' answers are joined by their labels, and each becomes a column.

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::model::{Panel, Target};
use super::panel::{letter, mappings, thresholds};

/// The name a query's value has after the join.
fn column(index: usize) -> String {
    format!("Value #{}", letter(index))
}

/// Joins the answers by site and link, names the columns and puts them in the order of the queries.
pub(super) fn transformations(panel: &Panel) -> Value {
    let mut hidden = Map::new();
    hidden.insert("Time".to_owned(), true.into());
    let mut names = Map::new();
    for (label, name) in LABELS {
        names.insert(label.to_owned(), name.into());
    }
    let mut order = Map::new();
    for (index, (label, _)) in LABELS.into_iter().enumerate() {
        order.insert(label.to_owned(), index.into());
    }
    for (index, target) in panel.targets.iter().enumerate() {
        if target.hide_value {
            hidden.insert(column(index), true.into());
        } else {
            names.insert(column(index), target.legend.into());
            order.insert(column(index), (LABELS.len() + index).into());
        }
    }
    json!([
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {"excludeByName": hidden, "renameByName": names, "indexByName": order}},
    ])
}

/// Labels that are columns, and their headings.
const LABELS: [(&str, &str); 3] = [("link", "Link"), ("site", "Site"), ("state", "Source")];

/// Each column's unit, colours and words; a click on a link leads to its page.
pub(super) fn overrides(panel: &Panel) -> anyhow::Result<Value> {
    let mut list = vec![json!({
        "matcher": {"id": "byName", "options": "Link"},
        "properties": [{"id": "links", "value": [{
            "title": "This link",
            "url": "/d/ddc-link?var-link=${__value.text}&${site:queryparam}&${datasource:queryparam}&${__url_time_range}",
            "targetBlank": false
        }]}]
    })];
    for target in panel.targets.iter().filter(|target| !target.hide_value) {
        list.push(json!({
            "matcher": {"id": "byName", "options": target.legend},
            "properties": properties(target)?
        }));
    }
    Ok(list.into())
}

fn properties(target: &Target) -> anyhow::Result<Vec<Value>> {
    let unit = target.query.unit.with_context(|| format!("column {:?} has no unit", target.legend))?;
    let mut list = vec![json!({"id": "unit", "value": unit})];
    if !target.steps.is_empty() {
        list.push(json!({"id": "thresholds", "value": thresholds(&target.steps)}));
        list.push(json!({"id": "color", "value": {"mode": "thresholds"}}));
    }
    if !target.words.is_empty() {
        list.push(json!({"id": "mappings", "value": mappings(&target.words)}));
    }
    if !target.steps.is_empty() || !target.words.is_empty() {
        list.push(json!({"id": "custom.cellOptions", "value": {"type": "color-text"}}));
    }
    Ok(list)
}
