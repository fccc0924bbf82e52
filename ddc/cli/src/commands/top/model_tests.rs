//! Recorded pages through the model: what is computed, whose it is, what a restart and a silence do.

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use super::super::status;
use super::super::target::Place;
use super::super::view::{Count, Egress, Ingress};
use super::*;

pub(in super::super) const EGRESS: [&str; 2] =
    [include_str!("fixtures/egress-1.prom"), include_str!("fixtures/egress-2.prom")];
const INGRESS: [&str; 2] = [include_str!("fixtures/ingress-1.prom"), include_str!("fixtures/ingress-2.prom")];
const SECOND: Duration = Duration::from_secs(1);

fn target(name: &str, guessed: bool) -> Target {
    Target { place: Place::Tcp(name.to_owned()), name: name.to_owned(), guessed }
}

fn answer(at: Instant, page: &str, ready: &str, status: &str) -> Answer {
    Answer { at, metrics: Page::parse(page), ready: status::readiness(ready), status: status::status(status) }
}

fn egress(at: Instant, page: &str) -> Answer {
    let reason = "destination 127.0.0.1:9092: Connection refused; check that the brokers run";
    let ready = format!("{{\"ready\":false,\"reasons\":[\"{reason}\"]}}");
    answer(at, page, &ready, include_str!("fixtures/egress-status.json"))
}

fn ingress(at: Instant, page: &str) -> Answer {
    answer(at, page, "{\"ready\":true,\"reasons\":[]}", include_str!("fixtures/ingress-status.json"))
}

fn failed(at: Instant, problem: &str) -> Answer {
    Answer { at, metrics: Err(problem.to_owned()), ready: None, status: None }
}

/// Both sides of one link, two samples a second apart: every field of the view has a value.
pub(in super::super) fn both() -> (Model, Instant) {
    let start = Instant::now();
    let targets =
        vec![target("127.0.0.1:9641", false), target("127.0.0.1:9661", false), target("host:1", false)];
    let mut model = Model::new(targets, SECOND);
    for n in 0..2 {
        let at = start + SECOND * n;
        model.take(0, ingress(at, INGRESS[n as usize]));
        model.take(1, egress(at, EGRESS[n as usize]));
    }
    model.take(2, failed(start, "nothing listens there (connection refused)"));
    (model, start + SECOND)
}

fn sides(view: &View) -> (&Ingress, &Egress) {
    (view.links[0].ingress.as_ref().unwrap(), view.links[0].egress.as_ref().unwrap())
}

fn count(total: f64, per_second: f64) -> Count {
    Count { total: Some(total), per_second: Some(per_second) }
}

#[test]
fn both_sides_become_one_link_with_rates_and_losses() {
    let (mut model, now) = both();
    let view = model.view(now);
    assert_eq!(view.links.len(), 1);
    let (ingress, egress) = sides(&view);
    assert_eq!((ingress.common.state, egress.common.state), (State::Ready, State::NotReady));
    assert_eq!(view.links[0].state, State::NotReady, "the worse of both");
    assert!(egress.common.reasons[0].starts_with("destination 127.0.0.1:9092"));
    assert_eq!(egress.common.records_per_second, Some(2000.0));
    assert_eq!(egress.common.bits_per_second, Some(10e6));
    assert_eq!(ingress.common.records_per_second, Some(2010.0));
    let loss = &egress.loss;
    assert_eq!(loss.path, count(130.0, 100.0), "lost less late");
    assert_eq!(loss.path_ratio, Some(0.1));
    assert_eq!((&loss.seal_rejects, &loss.other_rejects), (&count(5.0, 3.0), &count(3.0, 0.0)));
    assert_eq!(loss.missing_records, count(8.0, 2.0));
    assert_eq!(loss.missing_by_reason[0].reason, "lost");
    assert!(loss.rejects_by_reason.iter().all(|reason| reason.reason != "replay"), "zero is not listed");
    assert_eq!(loss.repaired_block_ratio, Some(0.25));
    assert_eq!(ingress.repair_symbol_ratio, Some(100.0 / 900.0));
    assert_eq!(ingress.lag_records, Some(15.0));
    assert_eq!(ingress.lag_by_topic[0].topic, "orders");
    assert_eq!((ingress.common.maintenance, egress.common.maintenance), (Some(true), Some(false)));
    assert_eq!(egress.common.certificate_expiry_timestamp_seconds, Some(1.8e9), "the earlier one");
    let median = egress.latency.sink_p50_seconds.unwrap();
    assert!((0.001..0.0025).contains(&median), "{median}");
    assert!((0.35 - egress.common.process_cpu_ratio.unwrap()).abs() < 1e-9);
    assert_eq!(egress.common.thread_cpu_ratio.len(), 2);
    assert_eq!(egress.heartbeat.source_state.as_deref(), Some("running"));
    assert_eq!(egress.common.site.as_deref(), Some("north"));
    assert_eq!(egress.gaps.len(), 2);
    let listeners: Vec<_> = view.listeners.iter().map(|listener| (listener.answers, listener.side)).collect();
    assert_eq!(listeners, [(true, Some("ingress")), (true, Some("egress")), (false, None)]);
}

#[test]
fn a_restart_shows_no_rate_and_never_a_negative_one() {
    let (mut model, mut now) = both();
    for (page, expected) in [(EGRESS[0], None), (EGRESS[1], Some(2000.0))] {
        now += SECOND;
        model.take(1, egress(now, page));
        let view = model.view(now);
        let (_, egress) = sides(&view);
        assert_eq!(egress.common.records_per_second, expected);
        assert!(egress.loss.path.per_second.is_none_or(|rate| rate >= 0.0));
        assert!(egress.common.sparks.records.iter().flatten().all(|rate| *rate >= 0.0));
    }
    // Another process with higher counters: as little a rate.
    now += SECOND;
    model.take(1, egress(now, &EGRESS[1].replace("abc-1", "abc-2").replace(" 3000\n", " 900000\n")));
    assert_eq!(sides(&model.view(now)).1.common.records_per_second, None);
}

#[test]
fn silence_is_told_with_its_reason_and_leaves_the_totals() {
    let (mut model, now) = both();
    model.take(1, failed(now + SECOND, "no answer within 3 s"));
    let view = model.view(now + 12 * SECOND);
    let (ingress, egress) = sides(&view);
    assert_eq!((ingress.common.state, egress.common.state), (State::Ready, State::Silent));
    assert_eq!(egress.common.reasons, ["no answer within 3 s; its last answer came 12 s ago"]);
    assert_eq!(egress.common.records_per_second, None);
    assert_eq!(egress.loss.missing_records.total, Some(8.0));
    assert_eq!(egress.heartbeat.age_seconds, None, "nobody can know");
    let momentary =
        [egress.common.queue_bytes, egress.sessions_open, egress.heartbeat.clock_difference_seconds];
    assert_eq!(momentary, [None; 3], "what was is not shown as what is");
    assert_eq!(
        super::super::list::reasons(&view.links[0])[0].split(':').next(),
        Some("egress"),
        "the worse first"
    );
    assert_eq!(egress.common.sparks.records.last(), Some(&None));
}

#[test]
fn heartbeats_and_ticks_are_judged_by_change_on_our_clock() {
    let start = Instant::now();
    let mut model = Model::new(vec![target("a:1", false)], SECOND);
    model.take(0, egress(start, EGRESS[0]));
    let heartbeat = |view: &View| view.links[0].egress.as_ref().unwrap().heartbeat.clone();
    let first = heartbeat(&model.view(start + SECOND));
    assert_eq!((first.seen, first.age_seconds), (false, Some(1.0)), "one value is no sign of life");
    for n in 1..9 {
        model.take(0, egress(start + n * SECOND, EGRESS[1]));
    }
    let view = model.view(start + 8 * SECOND);
    assert_eq!((heartbeat(&view).seen, heartbeat(&view).age_seconds), (true, Some(7.0)));
    // The ticks have stood for as long: the process hangs, whatever it says.
    assert_eq!(view.links[0].state, State::Stalled);
    let egress = view.links[0].egress.as_ref().unwrap();
    assert!(egress.common.reasons[0].contains("no tick for 7 s"));
}

#[test]
fn a_page_of_the_whole_process_does_not_give_every_listener_every_link() {
    let start = Instant::now();
    let page = EGRESS[0].to_owned() + &EGRESS[0].replace("plant-a", "plant-b");
    let status = include_str!("fixtures/egress-status.json");
    let other = status.replace("plant-a", "plant-b");
    let mut model = Model::new(vec![target("a:1", false), target("b:1", false)], SECOND);
    for n in 0..2 {
        let at = start + n * SECOND;
        model.take(0, answer(at, &page, "{\"ready\":true,\"reasons\":[]}", status));
        model.take(1, answer(at, &page, "{\"ready\":false,\"reasons\":[\"b waits\"]}", &other));
    }
    let view = model.view(start + SECOND);
    let all: Vec<_> = view
        .links
        .iter()
        .map(|link| {
            let common = &link.egress.as_ref().unwrap().common;
            (link.link.as_str(), common.address.as_str(), common.state, common.reasons.len())
        })
        .collect();
    assert_eq!(
        all,
        [("plant-a", "a:1", State::Ready, 0), ("plant-b", "b:1", State::NotReady, 1)],
        "each from its own listener, and no rival"
    );
    // With the listener of plant-b gone, the other one's page has it still.
    model.take(1, failed(start + 2 * SECOND, "gone"));
    model.take(0, answer(start + 2 * SECOND, &page, "{\"ready\":true,\"reasons\":[]}", status));
    let view = model.view(start + 2 * SECOND);
    let common = &view.links[1].egress.as_ref().unwrap().common;
    assert_eq!((common.address.as_str(), common.state), ("a:1", State::NotReady), "by ddc_ready, which is 0");
}

#[test]
fn two_processes_of_one_name_are_named_and_not_mixed() {
    let start = Instant::now();
    let mut model = Model::new(vec![target("a:1", false), target("b:1", false)], SECOND);
    for n in 0..2 {
        model.take(0, egress(start + n * SECOND, EGRESS[n as usize]));
        model.take(1, egress(start + n * SECOND, &EGRESS[0].replace("abc-1", "zzz-9")));
    }
    let view = model.view(start + SECOND);
    let (common, rate) = (&view.links[0].egress.as_ref().unwrap().common, Some(2000.0));
    assert_eq!((common.address.as_str(), common.records_per_second), ("a:1", rate));
    assert!(
        common.reasons[0].contains("two processes say they are the egress of plant-a: a:1"),
        "{common:?}"
    );
}

#[test]
fn links_that_are_gone_go_and_guessed_listeners_show_once_they_answer() {
    let start = Instant::now();
    let mut model = Model::new(vec![target("a:1", true), target("b:1", true)], SECOND);
    model.take(1, failed(start, "nothing listens there"));
    assert_eq!((model.view(start).listeners.len(), model.any_answered()), (0, false));
    model.take(0, egress(start, EGRESS[0]));
    let view = model.view(start);
    assert_eq!((view.listeners.len(), view.links.len(), model.any_answered()), (1, 1, true));
    model.take(0, egress(start + SECOND, &EGRESS[0].replace("plant-a", "plant-b")));
    let view = model.view(start);
    assert_eq!(view.links.iter().map(|link| link.link.as_str()).collect::<Vec<_>>(), ["plant-b"]);
    model.take(99, failed(start, "nobody"));
}
