//! The page of one link: every field in words, as lines that the screen scrolls.

use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::format::{bytes, percent, seconds, short, sparkline, utc};
use super::history::WINDOW;
use super::list::{cells, heartbeat, left};
use super::screen::{Colors, wrap};
use super::view::{Common, Count, Egress, Ingress, Link, Reason};

/// Topics whose lag is shown; the JSON has all.
const TOPICS: usize = 8;
/// Blanks before continued lines.
const INDENT: &str = "    ";

/// The lines of a link's page.
pub(super) fn lines(link: &Link, width: usize, colors: Colors) -> Vec<Line<'static>> {
    let mut page = Page { lines: Vec::new(), width, colors };
    if let Some(side) = &link.ingress {
        page.side("ingress", &side.common, side.source_state.as_deref());
    }
    if let Some(side) = &link.egress {
        page.side("egress", &side.common, None);
    }
    page.flow(link);
    if let Some(egress) = &link.egress {
        page.loss(egress);
        page.heading("LATENCY (of the last samples)");
        let latency = &egress.latency;
        page.latency("sink", latency.sink_p50_seconds, latency.sink_p99_seconds);
        page.latency("end to end", latency.end_to_end_p50_seconds, latency.end_to_end_p99_seconds);
        page.latency("link (heartbeats)", latency.transit_p50_seconds, latency.transit_p99_seconds);
    }
    page.source(link);
    page.sessions(link);
    if let Some(egress) = &link.egress {
        page.gaps(egress);
    }
    page.lines
}

struct Page {
    lines: Vec<Line<'static>>,
    width: usize,
    colors: Colors,
}

impl Page {
    fn heading(&mut self, text: &str) {
        if !self.lines.is_empty() {
            self.lines.push(Line::default());
        }
        self.lines.push(Line::styled(text.to_owned(), Style::new().add_modifier(Modifier::BOLD)));
    }

    fn text(&mut self, text: &str, style: Style) {
        for line in wrap(text, self.width, INDENT) {
            self.lines.push(Line::styled(line, style));
        }
    }

    fn plain(&mut self, text: &str) {
        self.text(text, Style::new());
    }

    fn side(&mut self, side: &str, common: &Common, source_state: Option<&str>) {
        let mut facts = vec![common.state.words().to_owned()];
        if common.maintenance == Some(true) {
            facts.push("maintenance".to_owned());
        }
        facts.extend(source_state.map(|state| format!("source {state}")));
        facts.push(format!("up {}", seconds(common.uptime_seconds)));
        facts.push(format!("cpu {}", percent(common.process_cpu_ratio)));
        facts.push(bytes(common.process_memory_bytes));
        let threads: Vec<String> = common
            .thread_cpu_ratio
            .iter()
            .map(|thread| format!("{} {}", thread.thread, percent(Some(thread.ratio))))
            .collect();
        if !threads.is_empty() {
            facts.push(format!("threads {}", threads.join(", ")));
        }
        facts.extend(common.version.as_ref().map(|version| format!("version {version}")));
        facts.extend(common.site.as_ref().map(|site| format!("site {site}")));
        let style = self.colors.state(common.state);
        let text = format!("{} {}  {}", left(side, 8), common.address, facts.join(" · "));
        self.text(&text, style);
        for reason in &common.reasons {
            self.text(&format!("  ! {reason}"), style);
        }
    }

    fn flow(&mut self, link: &Link) {
        self.heading("RATE");
        let sides = [
            ("sent", link.ingress.as_ref().map(|side| &side.common)),
            ("delivered", link.egress.as_ref().map(|side| &side.common)),
        ];
        for (what, common) in sides {
            let Some(common) = common else { continue };
            let received = if what == "sent" { "sent" } else { "received" };
            self.rate(&format!("records/s {what}"), common.records_per_second, &common.sparks.records);
            self.rate(&format!("bit/s {received}"), common.bits_per_second, &common.sparks.bits);
            self.rate(
                &format!("datagrams/s {received}"),
                common.datagrams_per_second,
                &common.sparks.datagrams,
            );
        }
        if let Some(ingress) = &link.ingress {
            let limit = ingress.rate_limit_bits_per_second;
            let limit = limit.map_or_else(|| "none known".to_owned(), |limit| short(Some(limit)) + "bit/s");
            let overhead = percent(ingress.repair_symbol_ratio);
            self.plain(&format!("  rate limit {limit}, repair symbols are {overhead} of all symbols sent"));
        }
    }

    fn rate(&mut self, what: &str, now: Option<f64>, past: &[Option<f64>]) {
        let room = self.width.saturating_sub(35).min(WINDOW);
        let text = format!("  {} {:>7}  {}", left(what, 22), short(now), sparkline(past, room));
        self.lines.push(Line::raw(text));
    }

    fn loss(&mut self, egress: &Egress) {
        let loss = &egress.loss;
        self.heading("LOSS                            in all   per s");
        let path = format!("{} of the last samples", percent(loss.path_ratio));
        self.count("path, net of late", &loss.path, &path);
        self.count("socket drops", &loss.socket_drops, "part of the path's");
        self.count("seal rejects", &loss.seal_rejects, "");
        self.count("other rejects", &loss.other_rejects, &reasons(&loss.rejects_by_reason, "seal"));
        let share = format!("{} of blocks needed repair", percent(loss.repaired_block_ratio));
        self.good("repaired symbols", &loss.repaired_symbols, &share);
        self.count("unrepairable blocks", &loss.unrepairable_blocks, "");
        self.count("lost blocks", &loss.lost_blocks, "");
        self.count("missing records", &loss.missing_records, &reasons(&loss.missing_by_reason, ""));
    }

    fn count(&mut self, what: &str, count: &Count, note: &str) {
        let bad = count.total.is_some_and(|total| total > 0.0);
        let style = if bad { self.colors.loss(count.per_second) } else { Style::new() };
        self.counted(what, count, note, style);
    }

    /// A count that is no loss.
    fn good(&mut self, what: &str, count: &Count, note: &str) {
        self.counted(what, count, note, Style::new());
    }

    fn counted(&mut self, what: &str, count: &Count, note: &str, style: Style) {
        let figures =
            format!("  {} {:>7} {:>7}", left(what, 28), short(count.total), short(count.per_second));
        let room = self.width.saturating_sub(cells(&figures) + 2);
        let note = if note.is_empty() { String::new() } else { format!("  {}", left(note, room)) };
        self.lines
            .push(Line::from(vec![Span::styled(figures, style), Span::raw(note.trim_end().to_owned())]));
    }

    fn latency(&mut self, what: &str, median: Option<f64>, high: Option<f64>) {
        let text = format!("  {} p50 {:>6}   p99 {:>6}", left(what, 18), seconds(median), seconds(high));
        self.lines.push(Line::raw(text));
    }

    fn source(&mut self, link: &Link) {
        self.heading("SOURCE AND QUEUES");
        if let Some(ingress) = &link.ingress {
            self.lag(ingress);
        }
        if let Some(egress) = &link.egress {
            let lag = short(egress.heartbeat.source_lag_records);
            let queue = bytes(egress.common.queue_bytes);
            self.plain(&format!("  lag {lag} records by the last heartbeat; {queue} wait for the sink"));
        }
    }

    fn lag(&mut self, ingress: &Ingress) {
        let queue = bytes(ingress.common.queue_bytes);
        let paused = if ingress.kafka_paused == Some(true) {
            "; the source is paused: the buffer is full"
        } else {
            ""
        };
        self.plain(&format!(
            "  lag {} records; {queue} wait for the link{paused}",
            short(ingress.lag_records)
        ));
        let topics: Vec<String> = ingress
            .lag_by_topic
            .iter()
            .take(TOPICS)
            .map(|topic| format!("{} {}", topic.topic, short(Some(topic.records))))
            .collect();
        if !topics.is_empty() {
            self.plain(&format!("  by topic: {}", topics.join(", ")));
        }
        for (what, count) in [
            ("send errors", &ingress.send_errors),
            ("datagrams not sent", &ingress.send_drops),
            ("records skipped", &ingress.records_skipped),
        ] {
            if count.total.is_some_and(|total| total > 0.0) {
                self.count(what, count, "");
            }
        }
    }

    fn sessions(&mut self, link: &Link) {
        self.heading("LINK");
        if let Some(egress) = &link.egress {
            let told = &egress.heartbeat;
            let state = told.source_state.as_deref().unwrap_or("unknown");
            let clock = seconds(told.clock_difference_seconds);
            let age = heartbeat(link);
            self.plain(&format!("  last heartbeat {age} ago: source {state}; clock difference {clock}"));
        }
        for (side, common) in [
            ("ingress", link.ingress.as_ref().map(|side| &side.common)),
            ("egress", link.egress.as_ref().map(|side| &side.common)),
        ] {
            let Some(common) = common else { continue };
            for session in &common.sessions {
                let key = session.key_id.map_or_else(|| "-".to_owned(), |key| key.to_string());
                let from =
                    session.source.as_ref().map(|source| format!(" from {source}")).unwrap_or_default();
                self.plain(&format!("  {side}: session {}, key {key}{from}", session.id));
            }
            if common.sessions.is_empty() {
                self.plain(&format!("  {side}: no session known, key {}", short(common.key_id)));
            }
        }
    }

    fn gaps(&mut self, egress: &Egress) {
        self.heading("LAST GAPS");
        if egress.gaps.is_empty() {
            self.plain("  none reported");
        }
        for gap in &egress.gaps {
            let number =
                |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
            let records = gap.records.map_or_else(|| "unknown".to_owned(), |records| records.to_string());
            let text = format!(
                "  {}  {}/{} offsets {}..{}: {records} records, {}",
                utc(gap.found_at_millis),
                gap.topic,
                number(gap.partition),
                number(gap.first),
                number(gap.last),
                gap.reason
            );
            self.plain(&text);
        }
    }
}

/// The reasons of a count in one line, without one that has a line of its own.
fn reasons(reasons: &[Reason], without: &str) -> String {
    let shown = reasons.iter().filter(|reason| reason.reason != without);
    let texts: Vec<String> =
        shown.map(|reason| format!("{} {}", reason.reason, short(Some(reason.total)))).collect();
    texts.join(", ")
}
