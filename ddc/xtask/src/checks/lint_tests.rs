//! Each rule of the linter fails on a page that breaks it, and only then.

use serde_json::json;

use super::super::rules::Rules;
use super::*;

/// A page without a fault.
fn good() -> Value {
    let source = json!({"type": "prometheus", "uid": "${datasource}"});
    json!({
        "uid": "ddc-t", "title": "T", "description": "D", "editable": false, "schemaVersion": 39, "tags": ["ddc"],
        "links": [{"type": "dashboards", "tags": ["ddc"]}],
        "annotations": {"list": [{"datasource": source, "expr": "max by (link) (ALERTS{site=~\"$site\"})"}]},
        "templating": {"list": [
            {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus"},
            {"type": "query", "name": "site", "label": "Site", "datasource": source, "refresh": 2, "includeAll": true,
             "allValue": ".*", "query": {"query": "label_values(ddc_process_ticks_total, site)"}}
        ]},
        "panels": [{
            "id": 1, "type": "timeseries", "title": "P", "description": "D", "datasource": source,
            "gridPos": {"x": 0, "y": 0, "w": 24, "h": 8},
            "fieldConfig": {"defaults": {"unit": "pps"}, "overrides": []},
            "targets": [{"refId": "A", "datasource": source, "expr": EXPR}]
        }]
    })
}

const EXPR: &str =
    r#"max by (link) (rate(ddc_egress_packet_loss_total{site=~"$site",link=~"$link"}[$__rate_interval]))"#;

fn findings(pages: &[Value]) -> Vec<String> {
    let known = Known::new(&Rules::default(), "");
    let files: Vec<_> = pages
        .iter()
        .enumerate()
        .map(|(n, page)| File { path: format!("{n}.json"), text: page.to_string() })
        .collect();
    check(&files, &known).iter().map(ToString::to_string).collect()
}

/// `pointer` of a good page becomes `value`; one finding has `part` in it.
#[track_caller]
fn breaks(pointer: &str, value: Value, part: &str) {
    let mut page = good();
    *page.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer} in the page")) = value;
    let found = findings(&[page]);
    assert!(found.iter().any(|f| f.contains(part) && f.starts_with("0.json")), "{pointer}: {found:?}");
}

#[test]
fn a_page_without_a_fault_passes() {
    assert_eq!(findings(&[good()]), Vec::<String>::new());
}

#[test]
fn pages() {
    breaks("/uid", json!("x"), "uid");
    breaks("/description", json!(""), "description");
    breaks("/editable", json!(true), "can be edited");
    breaks("/schemaVersion", json!(16), "schemaVersion");
    breaks("/tags", json!([]), "lacks the tag");
    breaks("/links", json!([]), "does not link");
    breaks("/panels", json!([]), "has no panels");
    assert!(findings(&[good(), good()]).iter().any(|f| f.contains("of another dashboard")));
    let broken = File { path: "x.json".into(), text: "{".into() };
    assert!(check(&[broken], &Known::new(&Rules::default(), ""))[0].to_string().contains("not JSON"));
}

#[test]
fn variables_and_sources() {
    breaks("/templating/list/0/name", json!("ds"), "first variable");
    breaks("/templating/list/1/refresh", json!(1), "refresh");
    breaks("/templating/list/1/label", json!(""), "no label");
    breaks("/templating/list/1/allValue", json!(""), "allValue");
    breaks("/templating/list/1/query/query", json!("query_result(x)"), "label_values");
    breaks(
        "/templating/list/1/query/query",
        json!("label_values(ddc_no_total, site)"),
        "not in the catalogue",
    );
    breaks("/templating/list/1/query/query", json!("label_values(ddc_ready, colour)"), "`colour`");
    let other = json!({"type": "prometheus", "uid": "mine"});
    for place in [
        "/panels/0/datasource",
        "/panels/0/targets/0/datasource",
        "/annotations/list/0/datasource",
        "/templating/list/1/datasource",
    ] {
        breaks(place, other.clone(), "instead of the data source");
    }
}

#[test]
fn panels() {
    breaks("/panels/0/type", json!("graph"), "is of type");
    breaks("/panels/0/title", json!(""), "title");
    breaks("/panels/0/description", json!(""), "description");
    breaks("/panels/0/fieldConfig/defaults/unit", json!("parsec"), "parsec");
    breaks(
        "/panels/0/fieldConfig/overrides",
        json!([{"properties": [{"id": "unit", "value": "ell"}]}]),
        "ell",
    );
    breaks("/panels/0/targets", json!([]), "asks nothing");
    breaks("/panels/0/id", Value::Null, "no id");
    breaks("/panels/0/gridPos/x", json!(20), "does not fit");
    let mut twice = good();
    let target = twice["panels"][0]["targets"][0].clone();
    twice["panels"][0]["targets"] = json!([target, target]);
    assert!(findings(&[twice]).iter().any(|f| f.contains("twice")));
}

#[test]
fn expressions() {
    let expr = |expr: &str, part: &str| breaks("/panels/0/targets/0/expr", json!(expr), part);
    expr("sum(", "is not PromQL");
    expr("max by (link) (nonsense)", "neither ours");
    expr(&EXPR.replace("packet_loss", "nonsense"), "not in the catalogue");
    expr(&EXPR.replace("$__rate_interval", "5m"), "fixed range [5m]");
    expr(&EXPR.replace("max by", "sum by"), "count twice");
    expr(&EXPR.replace("max by (link) (", "(").replace("max", ""), "reduced by nothing");
    expr(
        r#"max by (link) (ddc_egress_packet_loss_total{site=~"$site",link=~"$link"})"#,
        "take rate or increase",
    );
    expr(&EXPR.replace("packet_loss_total", "queue_bytes"), "are for counters");
    expr(&EXPR.replace(r#",link=~"$link""#, ""), "chosen links");
    expr(&EXPR.replace(r#"site=~"$site","#, ""), "chosen sites");
    expr(&EXPR.replace("site=~", "job=~"), "key on site");
}

#[test]
fn a_metric_without_a_panel_is_named() {
    let file = File { path: "x.json".into(), text: good().to_string() };
    let found = every_metric_is_shown(&[file]);
    assert!(found.iter().any(|f| f.to_string().contains("ddc_ingress_packets_sent_total")));
    assert!(!found.iter().any(|f| f.to_string().contains("ddc_egress_packet_loss_total")));
}

#[test]
fn our_own_pages_pass() {
    let files: Vec<_> = crate::dashboards::all()
        .iter()
        .map(|page| File {
            path: page.name.to_owned(),
            text: crate::dashboards::json::render(page).expect("our own description"),
        })
        .collect();
    let known = Known::new(&Rules::default(), "");
    let found: Vec<_> = check(&files, &known).iter().map(ToString::to_string).collect();
    assert_eq!(found, Vec::<String>::new());
    assert_eq!(every_metric_is_shown(&files), Vec::new());
}
