//! Answers of listeners become links: who owns which side, what changed when, how it is.
//!
//! Pure: time is an argument, nothing is asked or drawn here.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::history::{Counter, History, WINDOW};
use super::page::{Key, MAX_LINKS, Page, Process, Series, Side};
use super::status::{Readiness, Status};
use super::target::Target;
use super::view::{Link, Listener, State, View};

/// Ticks of a process that have not moved for so long: a thread hangs. The process counts them several times a second.
const STALL: Duration = Duration::from_secs(5);

/// What a listener answered. `at` is when its metrics had come.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) at: Instant,
    /// The page, or why there is none.
    pub(super) metrics: Result<Page, String>,
    pub(super) ready: Option<Readiness>,
    pub(super) status: Option<Status>,
}

/// Everything that was learnt so far.
pub(super) struct Model {
    targets: Vec<TargetState>,
    pub(super) sides: BTreeMap<Key, SideState>,
    interval: Duration,
}

struct TargetState {
    target: Target,
    /// It has answered as a ddc admin listener at least once.
    answered: bool,
    problem: Option<String>,
    own: Option<Key>,
    ticks: Change,
}

/// One side of one link.
pub(super) struct SideState {
    owner: usize,
    /// Another process says that it is this side too.
    rival: Option<usize>,
    pub(super) address: String,
    pub(super) process: Process,
    pub(super) series: Series,
    pub(super) history: History,
    pub(super) ready: Option<Readiness>,
    pub(super) status: Option<Status>,
    pub(super) heartbeats: Change,
    pub(super) sparks: [VecDeque<Option<f64>>; 3],
    last_answer: Instant,
    pub(super) state: State,
    pub(super) reasons: Vec<String>,
}

/// A counter, and when this reader saw it change.
#[derive(Debug, Clone, Default)]
pub(super) struct Change {
    value: Option<f64>,
    since: Option<Instant>,
    last: Option<Instant>,
    /// A change was seen, not only a first value.
    pub(super) seen: bool,
}

impl Change {
    pub(super) fn take(&mut self, at: Instant, value: Option<f64>) {
        self.last = Some(at);
        if value != self.value || self.since.is_none() {
            self.seen = self.value.is_some() && value.is_some();
            self.value = value;
            self.since = Some(at);
        }
    }

    /// How long it has stood still; none when the value is not known.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        self.value?;
        Some(now.saturating_duration_since(self.since?))
    }

    /// How long it was seen to stand still, up to the last sample.
    fn stood(&self) -> Option<Duration> {
        self.age(self.last?)
    }
}

impl Model {
    pub(super) fn new(targets: Vec<Target>, interval: Duration) -> Self {
        let targets = targets
            .into_iter()
            .map(|target| TargetState {
                target,
                answered: false,
                problem: Some("has not answered yet".to_owned()),
                own: None,
                ticks: Change::default(),
            })
            .collect();
        Self { targets, sides: BTreeMap::new(), interval }
    }

    /// Whether any listener has answered.
    pub(super) fn any_answered(&self) -> bool {
        self.targets.iter().any(|target| target.answered)
    }

    /// Takes what listener `index` answered.
    pub(super) fn take(&mut self, index: usize, answer: Answer) {
        let Some(target) = self.targets.get_mut(index) else { return };
        let page = match answer.metrics {
            Ok(page) => page,
            Err(problem) => {
                target.problem = Some(problem);
                self.sides.values_mut().filter(|side| side.owner == index).for_each(SideState::miss);
                return;
            }
        };
        target.answered = true;
        target.problem = None;
        target.ticks.take(answer.at, page.process.ticks);
        let named = answer.status.as_ref().and_then(|status| status.key.clone());
        // A page with one side only can belong to no other.
        let only = page.sides.keys().next().filter(|_| page.sides.len() == 1).cloned();
        if let Some(own) = named.or_else(|| target.own.clone()).or(only) {
            target.own = Some(own);
        }
        let own = target.own.clone();
        self.sides.retain(|key, side| side.owner != index || page.sides.contains_key(key));
        for (key, series) in page.sides {
            let is_own = own.as_ref() == Some(&key);
            if !self.may_take(index, &key, is_own, &page.process) {
                continue;
            }
            let address = self.targets[index].target.name.clone();
            let side = self.sides.entry(key.clone()).or_insert_with(|| SideState::new(index, answer.at));
            (side.owner, side.address, side.last_answer) = (index, address, answer.at);
            side.ready = answer.ready.clone().filter(|_| is_own);
            side.status = answer.status.clone().filter(|_| is_own);
            side.sample(key.1, answer.at, page.process.clone(), series, self.interval / 4);
        }
    }

    /// The pages of one process have all its links; each side is taken from one listener only, its own if there is one.
    fn may_take(&mut self, index: usize, key: &Key, is_own: bool, process: &Process) -> bool {
        let links = self.sides.len();
        let Some(side) = self.sides.get_mut(key) else { return links < 2 * MAX_LINKS };
        if side.owner == index {
            return true;
        }
        let owner = &self.targets[side.owner];
        if owner.problem.is_some() {
            return true;
        }
        let same_process = process.instance.is_some() && process.instance == side.process.instance;
        if same_process {
            return is_own && owner.own.as_ref() != Some(key);
        }
        side.rival = Some(index);
        false
    }

    /// What is to be shown now.
    pub(super) fn view(&mut self, now: Instant) -> View {
        self.judge(now);
        let mut links: BTreeMap<&str, Link> = BTreeMap::new();
        for ((name, side), state) in &self.sides {
            let link = links.entry(name).or_insert_with(|| Link {
                link: name.clone(),
                state: State::Ready,
                ..Link::default()
            });
            link.state = link.state.max(state.state);
            match side {
                Side::Ingress => link.ingress = Some(state.ingress()),
                Side::Egress => link.egress = Some(state.egress(now)),
            }
        }
        let listeners = self.targets.iter().filter(|target| target.answered || !target.target.guessed);
        View {
            format: 1,
            version: env!("CARGO_PKG_VERSION"),
            interval_seconds: self.interval.as_secs_f64(),
            listeners: listeners.map(TargetState::view).collect(),
            links: links.into_values().collect(),
        }
    }

    fn judge(&mut self, now: Instant) {
        for ((name, kind), side) in &mut self.sides {
            let owner = &self.targets[side.owner];
            let ago = |since: Instant| now.saturating_duration_since(since).as_secs();
            side.reasons.clear();
            if let Some(problem) = &owner.problem {
                side.state = State::Silent;
                side.reasons.push(format!("{problem}; its last answer came {} s ago", ago(side.last_answer)));
                continue;
            }
            if let Some(rival) = side.rival {
                let (one, other) = (&owner.target.name, &self.targets[rival].target.name);
                side.reasons.push(format!(
                    "two processes say they are the {} of {name}: {one}, which is shown, and {other}",
                    kind.as_str()
                ));
            }
            if let Some(age) = owner.ticks.stood().filter(|age| *age >= STALL) {
                side.state = State::Stalled;
                side.reasons.push(format!("a thread of the process hangs: no tick for {} s", age.as_secs()));
                continue;
            }
            // Its own listener says why; the metric, which is on every page of the process, only whether.
            let ready = side.ready.as_ref().map(|readiness| readiness.ready);
            side.state = match ready.or_else(|| Some(side.series.get("ddc_ready")? > 0.0)) {
                Some(true) => State::Ready,
                Some(false) => State::NotReady,
                None => State::Unknown,
            };
            if let Some(readiness) = side.ready.as_ref().filter(|readiness| !readiness.ready) {
                side.reasons.extend(readiness.reasons.iter().cloned());
            }
        }
    }
}

impl TargetState {
    fn view(&self) -> Listener {
        Listener {
            address: self.target.name.clone(),
            answers: self.problem.is_none(),
            problem: self.problem.clone(),
            link: self.own.as_ref().map(|(link, _)| link.clone()),
            side: self.own.as_ref().map(|(_, side)| side.as_str()),
        }
    }
}

impl SideState {
    fn new(owner: usize, now: Instant) -> Self {
        Self {
            owner,
            rival: None,
            address: String::new(),
            process: Process::default(),
            series: Series::default(),
            history: History::default(),
            ready: None,
            status: None,
            heartbeats: Change::default(),
            sparks: Default::default(),
            last_answer: now,
            state: State::Unknown,
            reasons: Vec::new(),
        }
    }

    fn sample(&mut self, side: Side, at: Instant, process: Process, series: Series, least: Duration) {
        self.history.push(at, &process, &series, least);
        self.heartbeats.take(at, series.get("ddc_egress_heartbeats_received_total"));
        (self.process, self.series) = (process, series);
        let rates =
            Self::rates(side).map(|(counter, factor)| self.history.rate(counter).map(|rate| rate * factor));
        self.spark(rates);
    }

    /// A sample that did not come.
    fn miss(&mut self) {
        self.history.miss();
        self.spark([None; 3]);
    }

    /// Whether the last sample that was asked for came.
    pub(super) fn is_fresh(&self) -> bool {
        self.state != State::Silent
    }

    fn spark(&mut self, rates: [Option<f64>; 3]) {
        for (spark, rate) in self.sparks.iter_mut().zip(rates) {
            if spark.len() >= WINDOW {
                spark.pop_front();
            }
            spark.push_back(rate);
        }
    }

    /// Records, bits and datagrams of a side, with the factor of each.
    pub(super) fn rates(side: Side) -> [(Counter, f64); 3] {
        let names = match side {
            Side::Ingress => [
                "ddc_ingress_records_sent_total",
                "ddc_ingress_bytes_sent_total",
                "ddc_ingress_packets_sent_total",
            ],
            Side::Egress => [
                "ddc_egress_records_delivered_total",
                "ddc_egress_bytes_received_total",
                "ddc_egress_packets_received_total",
            ],
        };
        [((names[0], None), 1.0), ((names[1], None), 8.0), ((names[2], None), 1.0)]
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
pub(super) mod tests;
