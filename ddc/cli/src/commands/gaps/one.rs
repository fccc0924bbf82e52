//! All of one gap, and what to do about it.

use std::fmt::Write;

use ddc_proxy::gaps::{Gap, GapState};
use ddc_telemetry::cells::Label as _;
use ddc_telemetry::reasons::MissingReason;

use super::LinkGaps;
use crate::exit::{Exit, Failure};

/// The page of the gap whose id begins so.
pub(super) fn page(links: &[LinkGaps], prefix: &str) -> Result<String, Failure> {
    let all = links.iter().flat_map(|link| link.gaps.iter().map(move |gap| (link, gap)));
    let found: Vec<_> = all.filter(|(_, gap)| gap.id.to_string().starts_with(prefix)).collect();
    match found[..] {
        [] => {
            Err(Failure::new(Exit::Usage, format!("no gap begins with {prefix}; see: ddc gaps list --all")))
        }
        [(link, gap)] => Ok(one(link, gap)),
        _ => {
            let line = format!("{} gaps begin with {prefix}; give more of the id", found.len());
            Err(Failure::new(Exit::Usage, line))
        }
    }
}

fn one(link: &LinkGaps, gap: &Gap) -> String {
    let mut page = String::new();
    let mut row = |label: &str, value: &str| {
        // Writing into a String cannot fail.
        let _ = writeln!(page, "{label:<11}{value}");
    };
    let unknown = || "unknown".to_owned();
    row("gap", &gap.id.to_string());
    row("link", &format!("{} (id {})", link.place.link, link.place.link_id));
    row("session", &gap.session.map_or_else(unknown, |session| session.to_string()));
    if !gap.stream.is_empty() {
        row("stream", &gap.stream);
    }
    row("topic", &format!("{} (id {})", gap.topic, gap.topic_id));
    row("partition", &gap.partition.to_string());
    row("offsets", &format!("{} to {}, {} in all", gap.first, gap.last, gap.range().offsets()));
    row("records", &gap.records.map_or_else(unknown, |records| records.to_string()));
    let (name, meaning) = MissingReason::SET.values[gap.reason.index()];
    row("reason", &format!("{name}: {meaning}"));
    row("found", &gap.found_at.to_string());
    let since = gap.closed_at.map(|at| format!(" since {at}")).unwrap_or_default();
    row("state", &format!("{}{since}", gap.state.as_str()));
    for range in &gap.open {
        row("missing", &format!("{} to {}", range.first, range.last));
    }
    for range in &gap.given_up {
        row("given up", &format!("{} to {}: not taken any more if it comes", range.first, range.last));
    }
    if gap.state == GapState::Open {
        page.push_str(
            "\nTo bring it over, at the source side (with the path of the ingress's file there):\n\n",
        );
        for range in &gap.open {
            let _ = writeln!(
                page,
                "ddc replay -c /etc/ddc/ingress-{}.toml --topic {} --partition {} --from {} --to {}",
                link.place.link, gap.topic, gap.partition, range.first, range.last
            );
        }
    }
    page
}
