//! Grafana's JSON of one panel.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::json::{RUNBOOKS, id, source};
use super::model::{Panel, Target, View};
use super::query::row;

/// The panel at its place. Fails when it names a metric that the catalogue lacks, or has no unit.
pub(super) fn render(panel: &Panel, place: &Value) -> anyhow::Result<Value> {
    ensure!(panel.targets.len() <= 26, "more than 26 queries: split it");
    let mut fields = json!({
        "defaults": {
            "unit": unit(panel)?,
            "color": {"mode": if panel.steps.is_empty() { "palette-classic" } else { "thresholds" }},
            "thresholds": thresholds(&panel.steps),
            "mappings": mappings(&panel.words),
            "custom": custom(panel.view),
        },
        "overrides": [],
    });
    let mut made = json!({
        "id": id(panel.title),
        "type": kind(panel.view),
        "title": panel.title,
        "description": description(panel)?,
        "gridPos": place,
        "datasource": source(),
        "targets": panel.targets.iter().enumerate().map(|(n, t)| query(panel, n, t)).collect::<Vec<_>>(),
        "options": options(panel),
        "links": panel.runbooks.iter().map(|alert| json!({
            "title": format!("Runbook {alert}"), "url": format!("{RUNBOOKS}/{alert}.md"), "targetBlank": true
        })).collect::<Vec<_>>(),
    });
    if panel.view == View::Number {
        fields["defaults"]["custom"].take();
        if let Some(defaults) = fields["defaults"].as_object_mut() {
            defaults.remove("custom");
        }
    }
    if panel.view == View::Table {
        fields["overrides"] = super::table::overrides(panel)?;
        made["transformations"] = super::table::transformations(panel);
    }
    made["fieldConfig"] = fields;
    Ok(made)
}

/// The panel's unit, or that of its first query.
fn unit(panel: &Panel) -> anyhow::Result<&'static str> {
    let first = panel.targets.first().context("no query")?;
    let units: Vec<_> = panel.targets.iter().filter_map(|target| target.query.unit).collect();
    match panel.unit.or(first.query.unit) {
        Some(unit) => {
            let mixed = panel.view != View::Table && panel.unit.is_none() && units.iter().any(|u| *u != unit);
            ensure!(!mixed, "its queries have the units {units:?}: name the panel's, or split it");
            Ok(unit)
        }
        None => bail!("no unit: the first metric has none (a time stamp, or not in the catalogue)"),
    }
}

fn kind(view: View) -> &'static str {
    match view {
        View::Lines | View::Stack => "timeseries",
        View::Number => "stat",
        View::States => "state-timeline",
        View::Table => "table",
    }
}

/// What the panel says, and the help of each metric in it.
fn description(panel: &Panel) -> anyhow::Result<String> {
    let mut text = panel.about.to_owned();
    let mut seen = Vec::new();
    for name in panel.targets.iter().flat_map(|target| &target.query.metrics) {
        if seen.contains(name) {
            continue;
        }
        seen.push(*name);
        let row = row(name)
            .with_context(|| format!("no metric {name} in the catalogue (ddc/telemetry/src/catalogue.rs)"))?;
        // Writing to a String cannot fail.
        let _ = write!(text, "\n\n`{name}`: {}", row.help);
    }
    Ok(text)
}

fn query(panel: &Panel, index: usize, target: &Target) -> Value {
    let instant = panel.view == View::Table;
    let mut query = json!({
        "refId": letter(index),
        "datasource": source(),
        "editorMode": "code",
        "expr": target.query.expr,
        "legendFormat": target.legend,
        "instant": instant,
        "range": !instant,
        "format": if instant { "table" } else { "time_series" },
    });
    if let Some(step) = panel.step {
        query["interval"] = step.into();
    }
    query
}

/// A query's letter in its panel.
pub(crate) fn letter(index: usize) -> String {
    // At most 26, held by `panel`.
    char::from(b'A' + index as u8).to_string()
}

pub(super) fn thresholds(steps: &[(f64, &str)]) -> Value {
    let mut list = vec![json!({"color": steps.first().map_or("green", |step| step.1), "value": null})];
    list.extend(steps.iter().skip(1).map(|(from, color)| json!({"color": color, "value": from})));
    json!({"mode": "absolute", "steps": list})
}

pub(super) fn mappings(words: &[(&str, &str, &str)]) -> Value {
    if words.is_empty() {
        return json!([]);
    }
    let options: BTreeMap<_, _> = words
        .iter()
        .enumerate()
        .map(|(index, (value, text, color))| {
            ((*value).to_owned(), json!({"text": text, "color": color, "index": index}))
        })
        .collect();
    json!([{"type": "value", "options": options}])
}

fn custom(view: View) -> Value {
    let stacking = json!({"mode": if view == View::Stack { "normal" } else { "none" }, "group": "A"});
    match view {
        View::Lines | View::Stack => json!({
            "drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 1, "showPoints": "never",
            "fillOpacity": if view == View::Stack { 40 } else { 8 }, "gradientMode": "none", "spanNulls": false,
            "axisPlacement": "auto", "axisLabel": "", "axisSoftMin": 0, "stacking": stacking,
        }),
        View::States => json!({"fillOpacity": 70, "lineWidth": 0}),
        View::Table => json!({"align": "auto", "inspect": false}),
        View::Number => Value::Null,
    }
}

fn options(panel: &Panel) -> Value {
    let tooltip = json!({"mode": "multi", "sort": "desc"});
    match panel.view {
        View::Lines | View::Stack => json!({
            "tooltip": tooltip,
            "legend": {
                "displayMode": "table", "placement": "bottom", "showLegend": true,
                "calcs": ["lastNotNull", "max"], "sortBy": "Max", "sortDesc": true
            },
        }),
        View::Number => json!({
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
            "colorMode": if panel.steps.is_empty() && panel.words.is_empty() { "none" } else { "value" },
            "graphMode": "none", "justifyMode": "auto", "orientation": "auto",
            "textMode": if panel.names_only { "name" } else { "auto" },
        }),
        View::States => json!({
            "mergeValues": true, "showValue": "auto", "alignValue": "left", "rowHeight": 0.8,
            "tooltip": tooltip,
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []},
        }),
        View::Table => json!({
            "showHeader": true, "cellHeight": "sm",
            "sortBy": [{"displayName": "Link", "desc": false}],
        }),
    }
}
