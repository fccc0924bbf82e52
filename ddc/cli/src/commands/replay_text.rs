//! What `ddc replay` prints.

use std::fmt::Write as _;

use ddc_proxy::config::Span;
use ddc_proxy::replay::{DryRun, Gone, RangeReport, Report, State};
use serde::Deserialize;

use super::replay::bytes;

/// Ranges that are printed; all are in the answer of the admin listener.
const SHOWN: usize = 50;
/// Stretches without records that are printed of one range.
const SHOWN_GONE: usize = 10;

/// What would be done.
pub(super) fn dry(found: &DryRun) -> String {
    let mut text = String::new();
    for range in found.ranges.iter().take(SHOWN) {
        let _ = writeln!(text, "{range}");
    }
    more(&mut text, found.ranges.len());
    if found.merged > 0 {
        let _ = writeln!(text, "{} ranges overlapped or touched and were joined", found.merged);
    }
    let _ = writeln!(text, "up to {} records would be sent; {} offsets are gone", found.readable, found.gone);
    if let Some(wire) = found.wire_bytes.filter(|_| found.readable > 0) {
        let _ = write!(text, "about {} on the wire", bytes(wire));
        match found.takes {
            // To the second: it is an estimate.
            Some(takes) => {
                let takes = Span(std::time::Duration::from_secs(takes.as_secs().max(1)));
                let _ = writeln!(text, ", {takes} at half of the link's rate");
            }
            None => text.push_str("; the link's rate is unlimited\n"),
        }
    } else if found.readable > 0 {
        text.push_str("how many bytes that are is not known: no record could be read\n");
    }
    text.push_str("nothing was sent\n");
    text
}

/// One line while it goes on.
pub(super) fn progress(report: &Report) -> String {
    format!(
        "{}: {} of {} offsets, {} records, {} offsets gone\n",
        report.state.as_str(),
        report.offsets_sent,
        report.offsets,
        report.records,
        report.offsets_gone
    )
}

/// The answer about all replays, as far as it is used.
#[derive(Deserialize)]
pub(super) struct Known {
    pub(super) replays: Vec<Summary>,
}

/// One of them.
#[derive(Deserialize)]
pub(super) struct Summary {
    id: String,
    by: String,
    state: State,
    problem: Option<String>,
    ranges: u64,
    offsets: u64,
    offsets_sent: u64,
    offsets_gone: u64,
    records: u64,
}

/// One line about a replay.
pub(super) fn line(one: &Summary) -> String {
    let Summary { id, by, ranges, offsets, offsets_sent, offsets_gone, records, .. } = one;
    let problem = one.problem.as_ref().map(|problem| format!("; {problem}")).unwrap_or_default();
    format!(
        "{id}: {}: {offsets_sent} of {offsets} offsets in {ranges} ranges, {records} records, {offsets_gone} offsets gone; asked for by {by}{problem}\n",
        one.state.as_str()
    )
}

/// How it ended, range by range.
pub(super) fn summary(report: &Report) -> String {
    let mut text = progress(report);
    for range in report.ranges.iter().take(SHOWN) {
        self::range(&mut text, range);
    }
    more(&mut text, report.ranges.len());
    if report.merged > 0 {
        let _ = writeln!(text, "{} ranges overlapped or touched and were joined", report.merged);
    }
    if report.gone_not_named > 0 {
        let _ = writeln!(text, "{} further offsets are gone and not named one by one", report.gone_not_named);
    }
    text
}

fn range(text: &mut String, range: &RangeReport) {
    // Writing into a String cannot fail.
    let _ = write!(
        text,
        "  {}[{}] {} to {}: {} records",
        range.topic, range.partition, range.from, range.to, range.records
    );
    let gone: Vec<String> = range
        .gone
        .iter()
        .take(SHOWN_GONE)
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    if !gone.is_empty() {
        let more = if range.gone.len() > SHOWN_GONE { ", …" } else { "" };
        let why = if range.gone_because == Some(Gone::OlderTopic) { " (an older topic)" } else { "" };
        let _ = write!(text, "; gone{why}: {}{more}", gone.join(", "));
    }
    if !range.not_carried.is_empty() {
        let _ = write!(text, "; too large for the link: {:?}", range.not_carried);
    }
    match range.not_yet {
        Some(at) if at <= range.to => {
            let _ = write!(text, "; not in the log yet: {at}-{}", range.to);
        }
        _ if range.next <= range.to => {
            let _ = write!(text, "; not sent: {}-{}", range.next, range.to);
        }
        _ => {}
    }
    text.push('\n');
}

fn more(text: &mut String, ranges: usize) {
    if ranges > SHOWN {
        let _ = writeln!(text, "  and {} more ranges", ranges - SHOWN);
    }
}
