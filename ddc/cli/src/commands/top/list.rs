//! The list of links: one row each, as many columns as fit. Used by the screen and by the table of `--once`.

use std::cmp::Reverse;
use std::ops::Range;

use ratatui::text::Span;

use super::format::{UNKNOWN, bytes, percent, seconds, short, sparkline};
use super::history::WINDOW;
use super::view::{Common, Link, Listener, State, View};

/// A column: its title, the least width of its cells, what it shows.
struct Column {
    title: &'static str,
    width: usize,
    cell: fn(&Link) -> String,
}

/// In the order of the screen. The first six are always shown; the others from left to right while there is room.
const COLUMNS: [Column; 15] = [
    Column { title: "LINK", width: 14, cell: |link| link.link.clone() },
    Column { title: "STATE", width: 9, cell: |link| state(link).to_owned() },
    Column { title: "REC/S", width: 6, cell: |link| short(flow(link, |common| common.records_per_second)) },
    Column { title: "BIT/S", width: 6, cell: |link| short(flow(link, |common| common.bits_per_second)) },
    Column { title: "LOSS", width: 6, cell: |link| percent(loss(link)) },
    Column { title: "MISSING", width: 7, cell: |link| short(missing(link)) },
    Column { title: "LAG", width: 6, cell: |link| short(lag(link)) },
    Column { title: "P99", width: 6, cell: |link| seconds(latency(link)) },
    Column { title: "HEART", width: 6, cell: heartbeat },
    Column { title: "FEC", width: 6, cell: |link| percent(repaired(link)) },
    Column { title: "PKT/S", width: 6, cell: |link| short(flow(link, |common| common.datagrams_per_second)) },
    Column { title: "QUEUE", width: 9, cell: |link| bytes(queue(link)) },
    Column { title: "CLOCK", width: 6, cell: |link| seconds(clock(link)) },
    Column { title: "SESS", width: 4, cell: |link| short(sessions(link)) },
    Column { title: "KEY", width: 4, cell: |link| short(key(link)) },
];
/// Columns that are shown however narrow the screen is.
const ALWAYS: usize = 6;
/// Blanks between columns.
const GAP: usize = 1;
/// The widest a link's name gets on a screen.
const WIDEST_NAME: usize = 32;
/// A narrower sparkline says nothing.
const LEAST_SPARK: usize = 12;
/// With so many columns there, a sparkline says more than the next ones.
const BEFORE_SPARK: usize = 9;

/// Titles and rows of one width.
pub(super) struct List {
    pub(super) titles: String,
    pub(super) rows: Vec<String>,
}

/// The list for a screen of `width` columns, with the rows of the links in `range` only.
pub(super) fn list(view: &View, width: usize, range: Range<usize>) -> List {
    let mut columns = COLUMNS.len();
    let needed =
        |columns: usize| COLUMNS[..columns].iter().map(|column| column.width + GAP).sum::<usize>() - GAP;
    let spark = |columns: usize| if columns > BEFORE_SPARK { GAP + LEAST_SPARK } else { 0 };
    while columns > ALWAYS && needed(columns) + spark(columns) > width {
        columns -= 1;
    }
    let spare = width.saturating_sub(needed(columns));
    let shown = &view.links[range.start.min(view.links.len())..range.end.min(view.links.len())];
    let longest = shown.iter().map(|link| cells(&link.link)).max().unwrap_or(0).min(WIDEST_NAME);
    let name = COLUMNS[0].width + longest.saturating_sub(COLUMNS[0].width).min(spare);
    let spare = (spare + COLUMNS[0].width - name).saturating_sub(GAP);
    let spark = Some(spare.min(WINDOW)).filter(|spark| *spark >= LEAST_SPARK);
    let row = |link: Option<&Link>| {
        let mut row = String::new();
        for (index, column) in COLUMNS[..columns].iter().enumerate() {
            let text = link.map_or_else(|| column.title.to_owned(), column.cell);
            match index {
                0 => row += &left(&text, name),
                1 => row += &(" ".to_owned() + &left(&text, column.width)),
                _ => row += &(" ".to_owned() + &right(&text, column.width)),
            }
        }
        if let Some(spark) = spark {
            row.push(' ');
            row += &link.map_or_else(|| left("RECORDS/S", spark), |link| sparkline(records(link), spark));
        }
        row
    };
    List { titles: row(None), rows: shown.iter().map(|link| row(Some(link))).collect() }
}

/// The table of `--once`: every column but the sparkline, names in full, and what is wrong below.
pub(super) fn table(view: &View) -> String {
    let mut columns: Vec<Vec<String>> = COLUMNS
        .iter()
        .map(|column| {
            let cells = view.links.iter().map(|link| (column.cell)(link));
            std::iter::once(column.title.to_owned()).chain(cells).collect()
        })
        .collect();
    for (index, column) in columns.iter_mut().enumerate() {
        let width = column.iter().map(|cell| cells(cell)).max().unwrap_or(0);
        for cell in column.iter_mut() {
            *cell = if index < 2 { left(cell, width) } else { right(cell, width) };
        }
    }
    let mut text = String::new();
    for row in 0..=view.links.len() {
        let cells: Vec<&str> =
            columns.iter().filter_map(|column| column.get(row)).map(String::as_str).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    for link in &view.links {
        for reason in reasons(link) {
            text.extend([link.link.as_str(), ": ", &reason, "\n"]);
        }
    }
    for line in problems(view) {
        text.extend([&line, "\n"]);
    }
    text
}

/// Why a link is not ready, each line beginning with the side; the worse side first.
pub(super) fn reasons(link: &Link) -> Vec<String> {
    let mut sides: Vec<(&str, &Common)> = [
        link.ingress.as_ref().map(|side| ("ingress", &side.common)),
        link.egress.as_ref().map(|side| ("egress", &side.common)),
    ]
    .into_iter()
    .flatten()
    .collect();
    sides.sort_by_key(|(_, common)| Reverse(common.state));
    let of = |(side, common): (&str, &Common)| {
        common.reasons.iter().map(|reason| format!("{side}: {reason}")).collect::<Vec<_>>()
    };
    sides.into_iter().flat_map(of).collect()
}

/// Listeners that belong to no link that is shown.
pub(super) fn problems(view: &View) -> Vec<String> {
    let shown =
        |listener: &&Listener| !view.links.iter().any(|link| Some(&link.link) == listener.link.as_ref());
    let listeners = view.listeners.iter().filter(shown);
    listeners
        .filter_map(|listener| Some(format!("{}: {}", listener.address, listener.problem.as_ref()?)))
        .collect()
}

fn state(link: &Link) -> &'static str {
    let maintained =
        [link.ingress.as_ref().map(|side| &side.common), link.egress.as_ref().map(|side| &side.common)]
            .into_iter()
            .flatten()
            .any(|common| common.maintenance == Some(true));
    match link.state {
        State::Ready if maintained => "maintain",
        state => state.words(),
    }
}

/// At the destination, where it counts; at the source when the destination is not seen.
fn flow(link: &Link, rate: fn(&Common) -> Option<f64>) -> Option<f64> {
    let at = |common: Option<&Common>| common.and_then(rate);
    at(link.egress.as_ref().map(|side| &side.common))
        .or_else(|| at(link.ingress.as_ref().map(|side| &side.common)))
}

fn records(link: &Link) -> &[Option<f64>] {
    let sides =
        [link.egress.as_ref().map(|side| &side.common), link.ingress.as_ref().map(|side| &side.common)];
    sides.into_iter().flatten().map(|common| common.sparks.records.as_slice()).next().unwrap_or_default()
}

fn loss(link: &Link) -> Option<f64> {
    link.egress.as_ref()?.loss.path_ratio
}

fn missing(link: &Link) -> Option<f64> {
    link.egress.as_ref()?.loss.missing_records.total
}

fn repaired(link: &Link) -> Option<f64> {
    link.egress.as_ref()?.loss.repaired_block_ratio
}

fn lag(link: &Link) -> Option<f64> {
    let own = link.ingress.as_ref().and_then(|ingress| ingress.lag_records);
    own.or_else(|| link.egress.as_ref()?.heartbeat.source_lag_records)
}

fn latency(link: &Link) -> Option<f64> {
    let latency = &link.egress.as_ref()?.latency;
    latency.end_to_end_p99_seconds.or(latency.sink_p99_seconds)
}

fn clock(link: &Link) -> Option<f64> {
    link.egress.as_ref()?.heartbeat.clock_difference_seconds
}

fn sessions(link: &Link) -> Option<f64> {
    link.egress.as_ref()?.sessions_open
}

fn queue(link: &Link) -> Option<f64> {
    flow(link, |common| common.queue_bytes)
}

fn key(link: &Link) -> Option<f64> {
    flow(link, |common| common.key_id)
}

/// The age, `>` before it when no heartbeat was seen since this reader began to look.
pub(super) fn heartbeat(link: &Link) -> String {
    let Some(heartbeat) = link.egress.as_ref().map(|egress| &egress.heartbeat) else {
        return UNKNOWN.to_owned();
    };
    match heartbeat.age_seconds {
        Some(age) if !heartbeat.seen => format!(">{}", seconds(Some(age.floor()))),
        age => seconds(age),
    }
}

/// Cells that a text takes on a terminal.
pub(super) fn cells(text: &str) -> usize {
    Span::raw(text).width()
}

/// Exactly `width` cells: filled on the right, or cut with an ellipsis.
pub(super) fn left(text: &str, width: usize) -> String {
    let mut cut = cut(text, width);
    cut.extend(std::iter::repeat_n(' ', width.saturating_sub(cells(&cut))));
    cut
}

/// Exactly `width` cells: filled on the left, or cut.
fn right(text: &str, width: usize) -> String {
    let cut = cut(text, width);
    " ".repeat(width.saturating_sub(cells(&cut))) + &cut
}

fn cut(text: &str, width: usize) -> String {
    if cells(text) <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    for character in text.chars() {
        if cells(&out) + cells(character.encode_utf8(&mut [0; 4])) + 1 > width {
            break;
        }
        out.push(character);
    }
    if width > 0 {
        out.push('…');
    }
    out
}
