//! A run as a page of Markdown: what struck, what was found, how it can be run again.

use std::fmt::Write as _;
use std::time::Duration;

use super::faults::Struck;
use super::judge::Promise;
use super::plan::Kind;
use super::run::{Event, Outcome};

/// The page.
pub fn markdown(outcome: &Outcome) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut page, outcome);
    page
}

fn write(page: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let Outcome { setup, verdict, .. } = outcome;
    let seconds = outcome.length.as_secs();
    let clean = if verdict.is_clean() { "all counters zero" } else { "FAILED" };
    writeln!(page, "# Chaos: seed {}, {seconds} s: {clean}\n", setup.seed)?;
    writeln!(page, "`make chaos SECONDS={seconds} SEED={}`\n", setup.seed)?;
    for why in &outcome.unable {
        writeln!(page, "**This machine could not do it all: {why}**\n")?;
    }
    let promise = match setup.promise {
        Promise::ExactlyOnce => "exactly once",
        Promise::AtLeastOnce => "at least once",
    };
    let passed = outcome.passed;
    let [set_up, faulty, rest] = outcome.took;
    writeln!(page, "| what | |\n|---|---|")?;
    writeln!(page, "| promise | {promise} |")?;
    writeln!(page, "| records at the source | {} |", verdict.sent)?;
    writeln!(page, "| faults | {} of {} kinds |", struck(outcome, None), kinds(outcome))?;
    writeln!(
        page,
        "| datagrams | {} seen, {} dropped, {} sent, {} more than the relay could take |",
        passed.seen, passed.dropped, passed.sent, passed.overrun
    )?;
    writeln!(
        page,
        "| missing before the replay | {} records, {} ranges |",
        verdict.reports.missing, verdict.ranges
    )?;
    writeln!(page, "| marked as late | {} |", verdict.delivery.late)?;
    writeln!(
        page,
        "| excused by crashes of the egress | {} twice, {} reported though present |",
        verdict.delivery.excused, verdict.reports.excused
    )?;
    writeln!(
        page,
        "| time | {:?} set-up, {:?} faults, {:?} drain, replay, comparison |\n",
        Seconds(set_up),
        Seconds(faulty),
        Seconds(rest)
    )?;
    writeln!(page, "## Result\n\n| counter | |\n|---|---|")?;
    for (name, finding) in verdict.counters() {
        writeln!(page, "| {name} | {} |", finding.count)?;
    }
    writeln!(page, "\n## Faults\n\n| kind | what | struck | skipped | longest |\n|---|---|---|---|---|")?;
    for kind in Kind::all() {
        let events: Vec<&Event> = outcome.events.iter().filter(|event| event.fault.kind == kind).collect();
        let skipped = events.iter().filter(|event| matches!(event.struck, Struck::Skipped(_))).count();
        let longest = events.iter().map(|event| event.ended.saturating_sub(event.began)).max();
        let longest = longest.map_or("-".to_owned(), |longest| format!("{:.1} s", longest.as_secs_f64()));
        let struck = events.len() - skipped;
        writeln!(page, "| {} | {} | {struck} | {skipped} | {longest} |", kind.name(), kind.what())?;
    }
    for (name, finding) in verdict.counters().into_iter().filter(|(_, finding)| finding.count > 0) {
        writeln!(page, "\n## {name}: {}\n", finding.count)?;
        for example in &finding.examples {
            writeln!(page, "- {example}")?;
        }
    }
    writeln!(page, "\n## In time\n\n| from | to | fault | |\n|---|---|---|---|")?;
    for event in &outcome.events {
        let (Struck::Done(said) | Struck::Skipped(said)) = &event.struck;
        let (from, to) = (event.began.as_secs_f64(), event.ended.as_secs_f64());
        writeln!(page, "| {from:.1} s | {to:.1} s | {} | {said} |", event.fault.kind.name())?;
    }
    Ok(())
}

struct Seconds(Duration);

impl std::fmt::Debug for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} s", self.0.as_secs_f64())
    }
}

/// How many faults struck, of this kind or of all.
fn struck(outcome: &Outcome, kind: Option<Kind>) -> usize {
    let done = |event: &&Event| matches!(event.struck, Struck::Done(_));
    outcome
        .events
        .iter()
        .filter(done)
        .filter(|event| kind.is_none_or(|kind| kind == event.fault.kind))
        .count()
}

fn kinds(outcome: &Outcome) -> usize {
    Kind::all().filter(|kind| struck(outcome, Some(*kind)) > 0).count()
}
