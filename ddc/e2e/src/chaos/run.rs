//! A run from its first record to the verdict: faults, healing, drain, reports, one replay, comparison.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::faults::{Struck, strike, weather_of};
use super::judge::{Delivery, Evidence, Finding, Reported, Reports, unsound};
use super::plan::{Fault, Plan};
use super::relay::{Passed, Relay, Weather};
use super::world::{LIMIT, Setup, World};
use crate::wait;

/// Nothing more comes when nothing came for so long.
const QUIET: Duration = Duration::from_secs(3);
/// The ingress tells all its positions every 30 s: what is missing is reported by then, and some more on a busy machine.
const REPORTED: Duration = Duration::from_secs(75);
/// The egress writes positions and gap journal each second.
const WRITTEN: Duration = Duration::from_secs(3);

/// A fault as it went.
#[derive(Debug, Clone)]
pub struct Event {
    /// As planned.
    pub fault: Fault,
    /// When it struck, from the begin of the run.
    pub began: Duration,
    /// When all was whole again.
    pub ended: Duration,
    /// How it went.
    pub struck: Struck,
}

/// What a run found.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// What the load did: without a sound load there is no verdict.
    pub unsound: Finding,
    /// Before the replay.
    pub reports: Reports,
    /// After it.
    pub delivery: Delivery,
    /// After it: what is still reported as missing.
    pub left_open: Finding,
    /// Records at the source, all lives of all topics.
    pub sent: u64,
    /// Gaps that the replay was asked for, as ranges.
    pub ranges: usize,
    /// What `ddc replay` said.
    pub replay: String,
}

impl Verdict {
    /// The counters that must be zero, with their names.
    pub fn counters(&self) -> [(&'static str, &Finding); 8] {
        [
            ("lost", &self.delivery.lost),
            ("duplicated", &self.delivery.duplicated),
            ("out of order", &self.delivery.out_of_order),
            ("wrong", &self.delivery.wrong),
            ("reported missing but present", &self.reports.present),
            ("missing but not reported", &self.reports.unreported),
            ("still reported after the replay", &self.left_open),
            ("the load itself", &self.unsound),
        ]
    }

    /// Whether all of them are zero, of a run that proves something.
    pub fn is_clean(&self) -> bool {
        self.sent > 0 && self.counters().iter().all(|(_, finding)| finding.count == 0)
    }
}

/// A run and what came of it.
pub struct Outcome {
    /// How it was set up.
    pub setup: Setup,
    /// For how long faults were asked for.
    pub length: Duration,
    /// What was planned.
    pub plan: Plan,
    /// What happened, by time.
    pub events: Vec<Event>,
    /// What went over the link.
    pub passed: Passed,
    /// What this machine cannot do.
    pub unable: Vec<String>,
    /// How long it took: set-up, faults, the rest.
    pub took: [Duration; 3],
    /// What was found.
    pub verdict: Verdict,
}

/// Runs it.
pub fn run(setup: Setup, length: Duration) -> Outcome {
    let plan = Plan::new(setup.seed, length);
    let start = Instant::now();
    let mut world = World::start(setup);
    let set_up = start.elapsed();
    // The time of the run begins now, as that of all that was stamped before.
    let offset = world.now();
    tell(offset, &format!("records flow; seed {}, faults for {length:?}", world.setup.seed));
    let unable: Vec<String> =
        [world.disk.as_ref().err(), world.clocks.as_ref().err()].into_iter().flatten().cloned().collect();
    for why in &unable {
        tell(offset, &format!("!!! THIS MACHINE CANNOT DO IT ALL: {why}"));
    }
    let events = Arc::new(Mutex::new(Vec::new()));
    let weather = Forecast::start(&world, &plan, offset, &events);
    for fault in &plan.things {
        sleep_until(world.begin + offset + fault.at);
        world.assert_alive();
        let began = world.now();
        tell(began, &format!("{} …", fault.kind.name()));
        let struck = strike(&mut world, fault);
        note(&events, &world, fault, began, struck);
        // What took longer than planned leaves the next fault no shorter time to recover.
        thread::sleep(plan.recovery);
    }
    sleep_until(world.begin + offset + length);
    weather.stop();
    let healed = start.elapsed();
    let verdict = finish(&mut world);
    let passed = world.relay.passed();
    for proxy in [world.ingress.take(), world.egress.take()].into_iter().flatten() {
        proxy.stop();
    }
    let mut events = std::mem::take(&mut *events.lock().unwrap_or_else(PoisonError::into_inner));
    events.sort_by_key(|event: &Event| event.began);
    let took = [set_up, healed.saturating_sub(set_up), start.elapsed().saturating_sub(healed)];
    Outcome { setup: world.setup.clone(), length, plan, events, passed, unable, took, verdict }
}

fn note(events: &Mutex<Vec<Event>>, world: &World, fault: &Fault, began: Duration, struck: Struck) {
    let ended = world.now();
    let said = match &struck {
        Struck::Done(said) => said.clone(),
        Struck::Skipped(why) => format!("SKIPPED: {why}"),
    };
    tell(ended, &format!("{} over after {:.1?} {said}", fault.kind.name(), ended.saturating_sub(began)));
    let event = Event { fault: *fault, began, ended, struck };
    events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
}

/// A line of the run's log.
fn tell(at: Duration, text: &str) {
    println!("{:>7.1} s  {text}", at.as_secs_f64());
}

fn sleep_until(at: Instant) {
    thread::sleep(at.saturating_duration_since(Instant::now()));
}

/// The weather's thread.
struct Forecast {
    stop: Arc<AtomicBool>,
    relay: Arc<Relay>,
    thread: thread::JoinHandle<()>,
}

impl Forecast {
    fn start(world: &World, plan: &Plan, offset: Duration, events: &Arc<Mutex<Vec<Event>>>) -> Forecast {
        let (stop, relay) = (Arc::new(AtomicBool::new(false)), Arc::clone(&world.relay));
        let (stopped, inside, begin) = (Arc::clone(&stop), Arc::clone(&relay), world.begin);
        let (faults, events) = (plan.weather.clone(), Arc::clone(events));
        let run = move || {
            for fault in faults {
                sleep_until(begin + offset + fault.at);
                if stopped.load(Relaxed) {
                    return;
                }
                let began = begin.elapsed();
                let weather = weather_of(&fault);
                inside.set(weather);
                thread::sleep(fault.hold);
                inside.set(Weather::default());
                let said = format!("strength {}", fault.strength);
                let ended = begin.elapsed();
                tell(
                    ended,
                    &format!(
                        "    {} over after {:.1?}, {said}",
                        fault.kind.name(),
                        ended.saturating_sub(began)
                    ),
                );
                let event = Event { fault, began, ended, struck: Struck::Done(said) };
                events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
            }
        };
        let thread = thread::Builder::new().name("weather".into()).spawn(run).unwrap();
        Forecast { stop, relay, thread }
    }

    fn stop(self) {
        self.stop.store(true, Relaxed);
        self.thread.join().expect("the weather ends well");
        self.relay.set(Weather::default());
    }
}

/// Heals, drains, holds reports against facts, replays once, compares.
fn finish(world: &mut World) -> Verdict {
    world.assert_alive();
    tell(world.now(), "all is healed; the load ends");
    let lives = end_load(world);
    let mut verdict = Verdict::default();
    for (name, life, written, rows) in &lives {
        verdict.sent += rows.len() as u64;
        let found = unsound(name, *life, written, rows);
        verdict.unsound.count += found.count;
        verdict.unsound.examples.extend(found.examples);
    }
    let mut evidence = Evidence {
        source: lives.into_iter().map(|(name, _, _, rows)| (name, rows)).collect(),
        destination: Vec::new(),
        reported: Vec::new(),
        ended: world.ended.clone(),
        promise: world.setup.promise,
        crashes: world.crashes.clone(),
    };
    drain(world);
    verdict.reports = settle_reports(world, &mut evidence);
    let (file, _, open) = world.reported();
    verdict.ranges = open;
    let reports = &verdict.reports;
    tell(
        world.now(),
        &format!(
            "{} records missing, {open} ranges reported; missing but not reported {}, reported but present {} (and {} by crashes)",
            reports.missing, reports.unreported.count, reports.present.count, reports.excused
        ),
    );
    // An empty gap file is refused, as it should be.
    if open > 0 {
        let path = file.to_str().expect("a path of ours");
        let (code, out, errors) = world.link.command(["replay", "-c", "ingress.toml", "--gaps", path]);
        verdict.replay = format!("{out}{errors}");
        assert_eq!(code, 0, "ddc replay: {}", verdict.replay);
        for line in verdict.replay.lines() {
            tell(world.now(), line);
        }
        let begin = Instant::now();
        while world.reported().2 > 0 && begin.elapsed() < REPORTED {
            thread::sleep(Duration::from_secs(1));
        }
    }
    wait_quiet(world);
    let (_, left, _) = world.reported();
    for range in left {
        let Reported { topic, partition, first, last, reason, life } = &range;
        let text = format!("{topic}[{partition}] {first}..={last} ({reason}), life {life:?}");
        verdict.left_open.count += 1;
        verdict.left_open.examples.push(text);
    }
    verdict.left_open.examples.truncate(12);
    evidence.destination = arrived(world);
    verdict.delivery = evidence.delivery();
    verdict
}

/// A life of a topic: its name, which life, how many records each partition got, all records.
type Life = (Arc<str>, u32, Vec<u64>, Vec<super::tail::Seen>);

fn end_load(world: &mut World) -> Vec<Life> {
    let mut lives = Vec::new();
    for topic in &mut world.topics {
        let written = topic.stream.take().expect("it lives").stop();
        let tail = topic.tail.take().expect("it lives");
        tail.sync(LIMIT);
        topic.ended.push((written, tail.rows()));
        for (life, (written, rows)) in std::mem::take(&mut topic.ended).into_iter().enumerate() {
            lives.push((Arc::clone(&topic.name), life as u32, written, rows));
        }
    }
    lives
}

/// Until everything that will cross by itself has crossed.
fn drain(world: &World) {
    world.ingress().wait_ready();
    world.egress().wait_ready();
    wait::until("the ingress has sent everything", LIMIT, || match &world.ingress().status()["source"] {
        source if source["lag_records"] == 0 => Ok(()),
        source => Err(source.to_string()),
    });
    wait::until("the egress has delivered everything", LIMIT, || {
        let status = world.egress().status();
        let (queue, sink) = (&status["queue"], &status["sink"]);
        let empty = queue["batches"] == 0 && sink["in_flight_records"] == 0;
        if empty { Ok(()) } else { Err(format!("{queue} {sink}")) }
    });
    wait_quiet(world);
    tell(world.now(), "drained");
}

fn wait_quiet(world: &World) {
    let count = || {
        world.arrivals.iter().for_each(|(_, tail)| tail.sync(LIMIT));
        world.arrivals.iter().map(|(_, tail)| tail.count()).sum::<usize>()
    };
    let (mut last, mut since) = (count(), Instant::now());
    let begin = Instant::now();
    while since.elapsed() < QUIET {
        assert!(begin.elapsed() < LIMIT, "records still arrive: {last}");
        thread::sleep(Duration::from_millis(200));
        let now = count();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
}

fn arrived(world: &World) -> Vec<(Arc<str>, Vec<super::tail::Seen>)> {
    world.arrivals.iter().map(|(name, tail)| (Arc::clone(name), tail.rows())).collect()
}

/// What is reported against what is missing, once the egress has had the time to find out.
fn settle_reports(world: &World, evidence: &mut Evidence) -> Reports {
    let begin = Instant::now();
    loop {
        thread::sleep(WRITTEN);
        wait_quiet(world);
        evidence.destination = arrived(world);
        evidence.reported = world.reported().1;
        let reports = evidence.reports();
        let agreed = reports.unreported.count == 0 && reports.present.count == 0;
        if agreed || begin.elapsed() > REPORTED {
            return reports;
        }
    }
}
