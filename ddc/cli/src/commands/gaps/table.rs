//! Gaps as a table for people: one a line, columns as wide as they must be.

use std::fmt::Write;

use ddc_telemetry::cells::Label as _;

use super::LinkGaps;

/// Digits of an id that are shown: enough for `ddc gaps show`.
const ID_DIGITS: usize = 12;

/// The columns.
pub(super) const TITLES: [&str; 11] =
    ["GAP", "LINK", "TOPIC", "PARTITION", "FIRST", "LAST", "MISSING", "RECORDS", "REASON", "FOUND", "STATE"];
/// Numbers stand to the right.
const RIGHT: [bool; 11] = [false, false, false, true, true, true, true, true, false, false, false];

/// All of it; below the gaps a line for each link.
pub(super) fn table(links: &[LinkGaps]) -> String {
    let mut rows: Vec<[String; 11]> = Vec::new();
    for link in links {
        for gap in &link.gaps {
            let topic = if gap.stream.is_empty() {
                gap.topic.clone()
            } else {
                format!("{}/{}", gap.stream, gap.topic)
            };
            rows.push([
                gap.id.to_string()[..ID_DIGITS].to_owned(),
                link.place.link.to_string(),
                topic,
                gap.partition.to_string(),
                gap.first.to_string(),
                gap.last.to_string(),
                gap.open_offsets().to_string(),
                gap.records.map_or_else(|| "-".to_owned(), |records| records.to_string()),
                gap.reason.as_str().to_owned(),
                gap.found_at.to_string(),
                gap.state.as_str().to_owned(),
            ]);
        }
    }
    let mut text = String::new();
    if !rows.is_empty() {
        let titles = TITLES.map(str::to_owned);
        let width = |column: usize| {
            rows.iter().chain([&titles]).map(|row| row[column].len()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..TITLES.len()).map(width).collect();
        for row in [&titles].into_iter().chain(&rows) {
            let cells = row.iter().zip(&widths).zip(RIGHT).map(|((cell, &width), right)| {
                if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            // Writing into a String cannot fail.
            let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
        text.push('\n');
    }
    for link in links {
        let counts = link.counts;
        let _ = writeln!(
            text,
            "link {}: {} open ({} offsets), {} given up, {} closed",
            link.place.link, counts.open, counts.open_offsets, counts.given_up, counts.closed
        );
        if let Some(remark) = &link.remark {
            let _ = writeln!(text, "{remark}");
        }
    }
    text
}
