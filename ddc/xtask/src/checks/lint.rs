//! What Grafana's dashboard-linter asks of dashboards, as far as it fits ours, and what we ask besides.
//!
//! Taken over: data source and its variable, variables that reload when the time changes and ask in valid PromQL, titles,
//! descriptions and units of panels, panels with queries, valid PromQL, `$__rate_interval`, counters only as rates, no editing.
//! Not taken over: its rules for `job` and `instance`. Ours is the other way round: key on site, side, link and process. And no
//! series counts twice: the nearest aggregation around each of our metrics is `max` or `min`.
//!
//! These checks read the JSON files, not the descriptions they are made from.

use std::collections::BTreeSet;

use ddc_telemetry::catalogue::all;
use ddc_telemetry::cells::Kind;
use serde_json::Value;

use super::known::Known;
use super::{File, Finding, places};
use crate::promql::parse;
use crate::queries::{Choice, fill};

/// Panels that Grafana 10 to 12 draw themselves. `graph`, `singlestat` and `table-old` are gone.
const PANELS: [&str; 4] = ["timeseries", "stat", "state-timeline", "table"];
/// Grafana's ids of the units we use; grafana/check.py compares them with Grafana's own list.
pub(super) const UNITS: [&str; 17] = [
    "none",
    "short",
    "percentunit",
    "bytes",
    "Bps",
    "bps",
    "pps",
    "s",
    "dtdurations",
    "dateTimeFromNow",
    "bool_yes_no",
    "eps",
    "cps",
    "recps",
    "mps",
    "ops",
    "dateTimeAsIso",
];
/// What Grafana 10 to 12 read without a migration that loses something.
const SCHEMAS: std::ops::RangeInclusive<u64> = 39..=41;
/// The only data source a page may name: the one its reader chose.
const SOURCE: &str = "${datasource}";
/// Functions that make a rate of a counter.
const RATES: [&str; 3] = ["rate", "irate", "increase"];

/// Everything that is wrong in these dashboards.
pub(super) fn check(files: &[File], known: &Known) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut uids = BTreeSet::new();
    for file in files {
        let page: Value = match serde_json::from_str(&file.text) {
            Ok(page) => page,
            Err(error) => {
                findings.push(Finding::new(&file.path, format!("is not JSON: {error}")));
                continue;
            }
        };
        let mut say = |place: &str, what: String| {
            let place = if place.is_empty() { file.path.clone() } else { format!("{}, {place}", file.path) };
            findings.push(Finding::new(place, what));
        };
        of_page(&page, &mut say);
        if !uids.insert(page["uid"].to_string()) {
            say("", format!("has the uid {} of another dashboard", page["uid"]));
        }
        variables(&page, known, &mut say);
        for annotation in list(&page["annotations"]["list"]) {
            source(annotation, "annotation", &mut say);
            expression(annotation, "annotation", known, &mut say);
        }
        let panels = list(&page["panels"]);
        for (title, what) in places::check(panels) {
            say(&format!("panel {title:?}"), what);
        }
        let mut ids = BTreeSet::new();
        for panel in panels {
            let place = format!("panel {}", panel["title"]);
            if !panel["id"].is_u64() || !ids.insert(panel["id"].to_string()) {
                say(&place, format!("has no id of its own: {}", panel["id"]));
            }
            if panel["type"] != "row" {
                of_panel(panel, &place, known, &mut say);
            }
        }
    }
    findings
}

type Say<'a> = dyn FnMut(&str, String) + 'a;

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn of_page(page: &Value, say: &mut Say<'_>) {
    if !text(page, "uid").starts_with("ddc-")
        || text(page, "title").is_empty()
        || text(page, "description").is_empty()
    {
        say("", "wants a uid that begins with `ddc-`, a title and a description".to_owned());
    }
    if page["editable"] != false {
        say("", "can be edited: what is changed in Grafana would be lost with the next release; set editable to false".to_owned());
    }
    if !page["schemaVersion"].as_u64().is_some_and(|version| SCHEMAS.contains(&version)) {
        say("", format!("has schemaVersion {}, wanted {SCHEMAS:?}", page["schemaVersion"]));
    }
    if !list(&page["tags"]).iter().any(|tag| tag == "ddc") {
        say("", "lacks the tag ddc, by which the pages link each other".to_owned());
    }
    let linked = list(&page["links"])
        .iter()
        .any(|link| link["type"] == "dashboards" && list(&link["tags"]).contains(&"ddc".into()));
    if !linked {
        say("", "does not link the other pages (a link of type dashboards with the tag ddc)".to_owned());
    }
    if list(&page["panels"]).is_empty() {
        say("", "has no panels".to_owned());
    }
}

fn source(of: &Value, place: &str, say: &mut Say<'_>) {
    if of["datasource"]["uid"] != SOURCE || of["datasource"]["type"] != "prometheus" {
        say(
            place,
            format!("asks {} instead of the data source that the reader chose, {SOURCE}", of["datasource"]),
        );
    }
}

fn variables(page: &Value, known: &Known, say: &mut Say<'_>) {
    let variables = list(&page["templating"]["list"]);
    let chosen = variables.first().is_some_and(|first| {
        first["type"] == "datasource"
            && first["name"] == "datasource"
            && first["query"] == "prometheus"
            && first["label"] == "Data source"
    });
    if !chosen {
        say("", "the first variable must be `datasource`, of type datasource for prometheus, with the label Data source".to_owned());
    }
    for variable in variables.iter().filter(|variable| variable["type"] == "query") {
        let place = format!("variable {}", variable["name"]);
        source(variable, &place, say);
        if variable["refresh"] != 2 {
            say(&place, "does not ask again when the time changes: set refresh to 2".to_owned());
        }
        if text(variable, "label").is_empty() {
            say(&place, "has no label".to_owned());
        }
        if variable["includeAll"] == true && variable["allValue"] != ".*" {
            say(
                &place,
                "leaves out series without the label when all are chosen: set allValue to .*".to_owned(),
            );
        }
        let query = text(&variable["query"], "query");
        let asked = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let Some((selector, label)) = asked.and_then(|asked| asked.rsplit_once(',')) else {
            say(&place, format!("{query:?} is not label_values(METRIC, LABEL)"));
            continue;
        };
        let asked = format!("count by ({}) ({selector})", label.trim());
        for what in known.check(&fill(&asked, &Choice::default(), None)) {
            say(&place, format!("{what}; in: {query}"));
        }
    }
}

fn of_panel(panel: &Value, place: &str, known: &Known, say: &mut Say<'_>) {
    let kind = text(panel, "type");
    if !PANELS.contains(&kind) {
        say(place, format!("is of type {kind:?}; known are {}", PANELS.join(", ")));
    }
    if text(panel, "title").is_empty() || text(panel, "description").is_empty() {
        say(place, "wants a title and a description".to_owned());
    }
    let overridden = list(&panel["fieldConfig"]["overrides"]).iter().flat_map(|one| list(&one["properties"]));
    let units = overridden.filter(|property| property["id"] == "unit").map(|property| &property["value"]);
    for unit in units.chain([&panel["fieldConfig"]["defaults"]["unit"]]) {
        if !unit.as_str().is_some_and(|unit| UNITS.contains(&unit)) {
            say(place, format!("has the unit {unit}, which is not one of {}", UNITS.join(", ")));
        }
    }
    source(panel, place, say);
    let targets = list(&panel["targets"]);
    if targets.is_empty() {
        say(place, "asks nothing: it has no targets".to_owned());
    }
    let mut letters = BTreeSet::new();
    for target in targets {
        let place = format!("{place}, query {}", text(target, "refId"));
        if !letters.insert(text(target, "refId")) {
            say(&place, "its refId is there twice".to_owned());
        }
        source(target, &place, say);
        expression(target, &place, known, say);
    }
}

/// The rules for one `expr`.
fn expression(target: &Value, place: &str, known: &Known, say: &mut Say<'_>) {
    let expr = text(target, "expr");
    let mut wrong = known.check(&fill(expr, &Choice::default(), None));
    for window in expr.split('[').skip(1).filter_map(|rest| rest.split_once(']')).map(|(window, _)| window) {
        if window != "$__rate_interval" && window != "$__range" {
            wrong.push(format!("has the fixed range [{window}]: take $__rate_interval, or $__range for sums over the time shown"));
        }
    }
    // What is filled in has no dollar sign, so these are found in the text itself.
    if let Ok(found) = parse(&fill(expr, &Choice::none(), None)) {
        for selector in found.selectors.iter().filter(|selector| !selector.metric.is_empty()) {
            let name = &selector.metric;
            let asks = |label: &str, variable: &str| {
                selector.matchers.iter().any(|m| m.label == label && m.value.starts_with(variable))
            };
            if !asks("site", "$site") {
                wrong.push(format!("{name} is not limited to the chosen sites: site=~\"$site\""));
            }
            let Some(row) = known.row(name) else { continue };
            if row.label_keys().any(|key| key == "link") && !asks("link", "$link") {
                wrong.push(format!("{name} is not limited to the chosen links: link=~\"$link\""));
            }
            if !matches!(selector.reducer.as_deref(), Some("max" | "min")) {
                wrong.push(format!(
                    "{name} is reduced by {}: a series that also came across the diode would count twice; take max or min first",
                    selector.reducer.as_deref().unwrap_or("nothing")
                ));
            }
            if row.kind != Kind::Gauge && !selector.function.is_some_and(|function| RATES.contains(&function))
            {
                wrong.push(format!("{name} only grows: take rate or increase of it"));
            }
            if row.kind == Kind::Gauge && selector.function.is_some_and(|function| RATES.contains(&function))
            {
                wrong.push(format!("{name} goes up and down: rate and increase are for counters"));
            }
        }
    }
    for what in wrong {
        say(place, format!("{what}; in: {expr}"));
    }
}

/// Metrics of the catalogue that no panel shows.
pub(super) fn every_metric_is_shown(files: &[File]) -> Vec<Finding> {
    let mut shown = BTreeSet::new();
    for page in files.iter().filter_map(|file| serde_json::from_str::<Value>(&file.text).ok()) {
        for target in list(&page["panels"]).iter().flat_map(|panel| list(&panel["targets"])) {
            if let Ok(found) = parse(&fill(text(target, "expr"), &Choice::default(), None)) {
                shown.extend(found.selectors.into_iter().map(|selector| selector.metric));
            }
        }
    }
    all()
        .filter(|row| {
            let name = row.prometheus_name();
            let parts =
                [name.clone(), format!("{name}_bucket"), format!("{name}_sum"), format!("{name}_count")];
            !parts.iter().any(|part| shown.contains(part))
        })
        .map(|row| {
            let what = format!(
                "no panel shows {}: add it to a page in ddc/xtask/src/dashboards",
                row.prometheus_name()
            );
            Finding::new("grafana/dashboards", what)
        })
        .collect()
}

/// The runbooks that a page links, as paths in the repository.
pub(super) fn runbook_links(text: &str) -> BTreeSet<String> {
    let Ok(page) = serde_json::from_str::<Value>(text) else { return BTreeSet::new() };
    list(&page["panels"])
        .iter()
        .flat_map(|panel| list(&panel["links"]))
        .filter_map(|link| link["url"].as_str()?.strip_prefix("${docs}").map(str::to_owned))
        .collect()
}

#[cfg(test)]
#[path = "lint_tests.rs"]
mod tests;
