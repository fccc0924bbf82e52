//! The dashboards' queries with Grafana's variables filled in, for whoever runs them against a Prometheus.

use clap::Args;
use serde::Serialize;

use crate::dashboards::model::{Panel, Variable};
use crate::dashboards::{self, json};

/// What the variables stand for.
#[derive(Args, Debug, Clone)]
pub(crate) struct Choice {
    /// The site, as a regular expression; every site by default
    #[arg(long, default_value = ".*")]
    site: String,
    /// The link, as a regular expression; every link by default
    #[arg(long, default_value = ".*")]
    link: String,
    /// The process, as a regular expression; every process by default
    #[arg(long, default_value = ".*")]
    process: String,
    /// The time that a page shows
    #[arg(long, default_value = "5m")]
    range: String,
}

impl Default for Choice {
    fn default() -> Self {
        let any = || ".*".to_owned();
        Self { site: any(), link: any(), process: any(), range: "5m".to_owned() }
    }
}

impl Choice {
    /// Leaves the variables where they are.
    pub(crate) fn none() -> Self {
        let word = |name: &str| format!("${name}");
        Self { site: word("site"), link: word("link"), process: word("process"), ..Self::default() }
    }
}

/// One query, ready for `/api/v1/query`.
#[derive(Debug, Serialize)]
struct Filled {
    /// The page's uid.
    dashboard: String,
    panel: String,
    /// The query's letter in its panel, or what else asks: `variable`, `annotation`.
    query: String,
    expr: String,
    /// Whether a healthy run may give nothing.
    allowed_empty: bool,
    /// Why it may.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
    /// The labels that its legend names. What stands in for absent series (`or on (site, link) 0 * …`) may lack its own one.
    labels: Vec<String>,
}

/// Prints one JSON object for each query, and for each variable.
pub(crate) fn print(choice: &Choice) -> anyhow::Result<()> {
    for query in all(choice) {
        println!("{}", serde_json::to_string(&query)?);
    }
    Ok(())
}

/// Every variable but those of Grafana's own that stand in a range.
pub(crate) fn fill(expr: &str, choice: &Choice, step: Option<&str>) -> String {
    // Grafana takes four times the step, at least; 15 s is what it takes on a page of an hour with 2 s scrapes.
    let window = match step {
        None => "15s",
        Some("5s") => "20s",
        Some(_) => "60s",
    };
    expr.replace("$__rate_interval", window)
        .replace("$__interval", step.unwrap_or("15s"))
        .replace("$__range", &choice.range)
        .replace("$site", &choice.site)
        .replace("$link", &choice.link)
        .replace("$process", &choice.process)
}

fn all(choice: &Choice) -> Vec<Filled> {
    let mut out = Vec::new();
    for dashboard in dashboards::all() {
        let uid = json::uid(&dashboard);
        for variable in dashboard.variables {
            let (metric, label, why) = match variable {
                Variable::Site => ("ddc_process_ticks_total", "site", Some("a site is optional")),
                Variable::OneLink | Variable::Links => ("ddc_ready", "link", None),
                Variable::Processes => ("ddc_process_ticks_total", "process", None),
            };
            out.push(Filled {
                dashboard: uid.clone(),
                panel: format!("variable {label}"),
                query: "variable".to_owned(),
                expr: format!(r#"count by ({label}) ({metric}{{{label}!=""}})"#),
                allowed_empty: why.is_some(),
                why,
                labels: vec![label.to_owned()],
            });
        }
        out.push(Filled {
            dashboard: uid.clone(),
            panel: "alerts".to_owned(),
            query: "annotation".to_owned(),
            expr: fill(&json::alerts_expression(&dashboard), choice, None),
            allowed_empty: true,
            why: Some("no alert fires in a healthy run"),
            labels: Vec::new(),
        });
        for panel in dashboard.rows.iter().flat_map(|row| &row.panels) {
            out.extend(of_panel(&uid, panel, choice));
        }
    }
    out
}

fn of_panel(uid: &str, panel: &Panel, choice: &Choice) -> Vec<Filled> {
    panel
        .targets
        .iter()
        .enumerate()
        .map(|(index, target)| Filled {
            dashboard: uid.to_owned(),
            panel: panel.title.to_owned(),
            query: dashboards::panel::letter(index),
            expr: fill(&target.query.expr, choice, panel.step),
            allowed_empty: target.may_be_empty.is_some(),
            why: target.may_be_empty,
            labels: legend_labels(target.legend),
        })
        .collect()
}

/// `{{link}} {{reason}}` → `link`, `reason`
fn legend_labels(legend: &str) -> Vec<String> {
    legend
        .split("{{")
        .skip(1)
        .filter_map(|rest| rest.split_once("}}"))
        .map(|(label, _)| label.trim().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_variable_is_left() {
        let choice = Choice { site: "north".into(), link: "plant-a".into(), ..Choice::default() };
        let all = all(&choice);
        assert!(all.len() > 150, "{}", all.len());
        for query in &all {
            assert!(!query.expr.contains('$'), "{query:?}");
            crate::promql::parse(&query.expr).unwrap_or_else(|error| panic!("{error}: {query:?}"));
            assert_eq!(query.allowed_empty, query.why.is_some(), "{query:?}");
        }
        assert!(all.iter().any(|q| q.expr.contains(r#"link=~"plant-a""#) && q.expr.contains("[15s]")));
        // Few may be empty: each is a hole in the test that runs them.
        let empty: Vec<_> = all.iter().filter(|q| q.allowed_empty && q.query.len() == 1).collect();
        assert!(empty.len() <= 4, "{empty:?}");
    }

    #[test]
    fn legends_name_labels() {
        assert_eq!(legend_labels("{{link}} {{reason}}"), ["link", "reason"]);
        assert!(legend_labels("sent").is_empty());
    }
}
