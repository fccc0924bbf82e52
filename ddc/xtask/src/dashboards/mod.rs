//! Grafana's dashboards, made from descriptions in Rust and the catalogue of metrics.
//!
//! A description names metrics and says what to see; units and help texts are the catalogue's. One module for each page, in the
//! order in which an operator opens them; `parts` has what several pages ask. `cargo xtask dashboards` writes
//! grafana/dashboards and grafana/PANELS.md, `cargo xtask check` compares and lints them.

#![allow(clippy::wildcard_imports, reason = "pages are written in the words of `model` and `parts`")]

mod egress;
mod fleet;
mod hosts;
mod ingress;
pub(crate) mod json;
mod link;
pub(crate) mod model;
pub(crate) mod panel;
mod parts;
pub(crate) mod query;
mod table;

use std::fmt::Write as _;

use model::{Dashboard, View};

/// All pages, in the order in which an operator opens them.
pub(crate) fn all() -> Vec<Dashboard> {
    vec![fleet::dashboard(), link::dashboard(), ingress::dashboard(), egress::dashboard(), hosts::dashboard()]
}

/// The list of pages and panels as Markdown: the body of grafana/PANELS.md.
pub(crate) fn page() -> String {
    let mut text = String::from("# Dashboards and panels\n\n");
    text.push_str("Units and the help of each metric stand in the panels themselves.\n");
    for dashboard in all() {
        let panels: usize = dashboard.rows.iter().map(|row| row.panels.len()).sum();
        // Writing to a String cannot fail, here and below.
        let _ = write!(
            text,
            "\n## {} (`{}`, {panels} panels)\n\n{}\n\n| row | panel | kind | what it shows | runbooks |\n|---|---|---|---|---|\n",
            dashboard.title,
            json::uid(&dashboard),
            dashboard.about
        );
        for row in &dashboard.rows {
            for panel in &row.panels {
                let runbooks: Vec<_> = panel
                    .runbooks
                    .iter()
                    .map(|alert| format!("[{alert}](../docs/runbooks/{alert}.md)"))
                    .collect();
                let _ = writeln!(
                    text,
                    "| {} | {} | {} | {} | {} |",
                    row.title,
                    panel.title,
                    word(panel.view),
                    panel.about.replace('|', "\\|"),
                    runbooks.join(", ")
                );
            }
        }
    }
    text
}

fn word(view: View) -> &'static str {
    match view {
        View::Lines => "lines",
        View::Stack => "areas",
        View::Number => "number",
        View::States => "states",
        View::Table => "table",
    }
}
