//! Cells with one more label: a state among several, a reading for each value, CPU time of each thread, a level for each topic.

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::{Describe, Emit, Kind, Label, LabelSet, Metric, Reading, Side, Value};

/// Which state of several something is in: 1 for that state, 0 for the others. *Absent* until it is first told.
pub struct States<L: Label> {
    /// Index of the state and one; 0: not told.
    state: AtomicU64,
    label: PhantomData<L>,
}

impl<L: Label> States<L> {
    /// Replaces the state.
    #[inline]
    pub fn set(&self, state: L) {
        self.state.store(state.index() as u64 + 1, Relaxed);
    }

    /// The state, `None` before the first.
    pub fn value(&self) -> Option<L> {
        let state = self.state.load(Relaxed) as usize;
        L::ALL.get(state.checked_sub(1)?).copied()
    }
}

impl<L: Label> Default for States<L> {
    fn default() -> Self {
        Self { state: AtomicU64::new(0), label: PhantomData }
    }
}

impl<L: Label> fmt::Debug for States<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("States").field(&self.value().map(Label::as_str)).finish()
    }
}

impl<L: Label> Describe for States<L> {
    const KIND: Kind = Kind::Gauge;
    const BY: Option<LabelSet> = Some(L::SET);
}

impl<L: Label> Metric for States<L> {
    fn read(&self, side: Option<Side>, emit: &mut Emit<'_>) {
        let Some(state) = self.value() else { return };
        for value in occurring::<L>(side) {
            let is = value.index() == state.index();
            emit(&[(L::KEY, value.as_str())], Value::Unsigned(u64::from(is)).into());
        }
    }

    fn example(&self, n: u64, side: Option<Side>, emit: &mut Emit<'_>) {
        let states = Self::default();
        states.set(L::ALL[n as usize % L::ALL.len()]);
        states.read(side, emit);
    }
}

/// One [`Reading`] for each value of a label; each is absent until it is set.
pub struct Readings<L: Label> {
    cells: Box<[Reading]>,
    label: PhantomData<L>,
}

impl<L: Label> Readings<L> {
    /// Replaces the reading of `of`; NaN makes it absent.
    #[inline]
    pub fn set(&self, of: L, value: f64) {
        self.cells[of.index()].set(value);
    }

    /// Sets the reading of `of` to seconds since 1970.
    pub fn set_time(&self, of: L, at: SystemTime) {
        self.cells[of.index()].set_time(at);
    }

    /// Makes the reading of `of` absent.
    pub fn clear(&self, of: L) {
        self.cells[of.index()].clear();
    }

    /// The reading of `of`, `None` when there is none.
    pub fn value(&self, of: L) -> Option<f64> {
        self.cells[of.index()].value()
    }
}

impl<L: Label> Default for Readings<L> {
    fn default() -> Self {
        Self { cells: L::ALL.iter().map(|_| Reading::default()).collect(), label: PhantomData }
    }
}

impl<L: Label> fmt::Debug for Readings<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(L::ALL.iter().map(|of| (of.as_str(), self.value(*of)))).finish()
    }
}

impl<L: Label> Describe for Readings<L> {
    const KIND: Kind = Kind::Gauge;
    const BY: Option<LabelSet> = Some(L::SET);
}

impl<L: Label> Metric for Readings<L> {
    fn read(&self, side: Option<Side>, emit: &mut Emit<'_>) {
        for of in occurring::<L>(side) {
            if let Some(value) = self.value(of) {
                emit(&[(L::KEY, of.as_str())], Value::Float(value).into());
            }
        }
    }

    fn example(&self, n: u64, side: Option<Side>, emit: &mut Emit<'_>) {
        let readings = Self::default();
        for of in L::ALL {
            readings.set(*of, n as f64 + of.index() as f64 + 0.25);
        }
        readings.read(side, emit);
    }
}

/// CPU time of each thread, told by the thread itself: a counter of seconds. It begins at 0 and is exposed from then on.
pub struct CpuTimes<L: Label> {
    /// Nanoseconds.
    cells: Box<[AtomicU64]>,
    label: PhantomData<L>,
}

impl<L: Label> CpuTimes<L> {
    /// Says how much CPU time the thread `of` has used since its start, as [`crate::process::thread_cpu`] tells it.
    /// Never goes back: a smaller time than before is passed over.
    #[inline]
    pub fn set(&self, of: L, used: Duration) {
        // 64 bits of nanoseconds are 584 years of CPU time.
        self.cells[of.index()].fetch_max(used.as_nanos() as u64, Relaxed);
    }

    /// The CPU time last told.
    pub fn value(&self, of: L) -> Duration {
        Duration::from_nanos(self.cells[of.index()].load(Relaxed))
    }
}

impl<L: Label> Default for CpuTimes<L> {
    fn default() -> Self {
        Self { cells: L::ALL.iter().map(|_| AtomicU64::default()).collect(), label: PhantomData }
    }
}

impl<L: Label> fmt::Debug for CpuTimes<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(L::ALL.iter().map(|of| (of.as_str(), self.value(*of)))).finish()
    }
}

impl<L: Label> Describe for CpuTimes<L> {
    const KIND: Kind = Kind::Counter;
    const BY: Option<LabelSet> = Some(L::SET);
}

impl<L: Label> Metric for CpuTimes<L> {
    fn read(&self, side: Option<Side>, emit: &mut Emit<'_>) {
        for of in occurring::<L>(side) {
            emit(&[(L::KEY, of.as_str())], Value::Float(self.value(of).as_secs_f64()).into());
        }
    }

    fn example(&self, n: u64, side: Option<Side>, emit: &mut Emit<'_>) {
        let times = Self::default();
        for of in L::ALL {
            times.set(*of, Duration::from_millis(n * 500 + of.index() as u64 * 250));
        }
        times.read(side, emit);
    }
}

/// The values of a label that can occur on that side.
pub(super) fn occurring<L: Label>(side: Option<Side>) -> impl Iterator<Item = L> {
    L::ALL.iter().copied().filter(move |value| side.is_none_or(|side| value.occurs_on(side)))
}

/// The most topics that have a series of their own; it bounds what a pattern of topics can do to the collector.
pub const MAX_TOPICS: usize = 64;

/// The label value that stands for all topics beyond [`MAX_TOPICS`].
pub const OTHER_TOPICS: &str = "other";

/// A level for each topic. The first [`MAX_TOPICS`] names ever told keep a series each, all others are added up in
/// [`OTHER_TOPICS`]; so the number of series is bounded for the life of the process.
///
/// A topic that was told once and is not told any more reads 0, not nothing: a collector that is sent values (StatsD)
/// would keep showing the last one. Told once a second by one thread, read by few: a lock is cheap enough here.
#[derive(Debug, Default)]
pub struct ByTopic(Mutex<Topics>);

#[derive(Debug, Default)]
struct Topics {
    /// Names and levels in the order in which they were first told.
    named: Vec<(Box<str>, f64)>,
    /// The sum over all others; `None` as long as there never was one.
    other: Option<f64>,
    /// Whether the levels are known.
    known: bool,
}

impl ByTopic {
    /// Replaces all levels; a topic named twice is added up.
    pub fn set_all<'a>(&self, levels: impl IntoIterator<Item = (&'a str, f64)>) {
        let mut topics = self.lock();
        topics.known = true;
        topics.named.iter_mut().for_each(|(_, level)| *level = 0.0);
        topics.other = topics.other.map(|_| 0.0);
        for (topic, level) in levels {
            topics.add(topic, level);
        }
    }

    /// Makes all levels absent: they are not known at the moment.
    pub fn clear(&self) {
        self.lock().known = false;
    }

    /// The sum over all topics, `None` while it is not known.
    pub fn total(&self) -> Option<f64> {
        let topics = self.lock();
        let named: f64 = topics.named.iter().map(|(_, level)| level).sum();
        topics.known.then(|| named + topics.other.unwrap_or(0.0))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Topics> {
        // Every state between two of its statements is a valid one, so a panic elsewhere does no harm.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Topics {
    fn add(&mut self, topic: &str, level: f64) {
        if topic != OTHER_TOPICS {
            if let Some((_, known)) = self.named.iter_mut().find(|(name, _)| **name == *topic) {
                *known += level;
                return;
            }
            if self.named.len() < MAX_TOPICS {
                self.named.push((topic.into(), level));
                return;
            }
        }
        *self.other.get_or_insert(0.0) += level;
    }
}

impl Describe for ByTopic {
    const KIND: Kind = Kind::Gauge;
    const BY_TOPIC: bool = true;
}

impl Metric for ByTopic {
    fn read(&self, _side: Option<Side>, emit: &mut Emit<'_>) {
        let topics = self.lock();
        if !topics.known {
            return;
        }
        for (topic, level) in &topics.named {
            emit(&[("topic", topic)], Value::Float(*level).into());
        }
        if let Some(level) = topics.other {
            emit(&[("topic", OTHER_TOPICS)], Value::Float(level).into());
        }
    }

    /// One topic by name, and the rest.
    fn example(&self, n: u64, side: Option<Side>, emit: &mut Emit<'_>) {
        let topics = Self::default();
        topics.set_all([("orders.eu-1", n as f64), (OTHER_TOPICS, 0.0)]);
        topics.read(side, emit);
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::cells::Sample;
    use crate::reasons::{Certificate, SourceState, Thread};

    fn series(metric: &dyn Metric, side: Side) -> Vec<(String, String)> {
        let mut all = Vec::new();
        metric.read(Some(side), &mut |labels, sample| match sample {
            Sample::One(value) => all.push((labels[0].1.to_owned(), value.to_string())),
            Sample::Histogram(_) => panic!("not a number"),
        });
        all
    }

    fn pairs(series: &[(String, String)]) -> Vec<(&str, &str)> {
        series.iter().map(|(label, value)| (label.as_str(), value.as_str())).collect()
    }

    #[test]
    fn exactly_one_state_is_1_and_none_before_the_first() {
        let states = States::<SourceState>::default();
        assert_eq!(series(&states, Side::Egress), []);
        for state in SourceState::ALL {
            states.set(*state);
            let series = series(&states, Side::Egress);
            assert_eq!(series.len(), SourceState::ALL.len());
            for (label, value) in pairs(&series) {
                assert_eq!(value == "1", label == state.as_str(), "{label} {value}");
            }
        }
    }

    #[test]
    fn each_reading_is_absent_by_itself() {
        let readings = Readings::<Certificate>::default();
        assert_eq!(series(&readings, Side::Ingress), []);
        readings.set_time(Certificate::Ca, UNIX_EPOCH + Duration::from_secs(7));
        readings.set(Certificate::Client, 8.0);
        assert_eq!(pairs(&series(&readings, Side::Ingress)), [("ca", "7"), ("client", "8")]);
        readings.clear(Certificate::Ca);
        assert_eq!(pairs(&series(&readings, Side::Egress)), [("client", "8")]);
    }

    #[test]
    fn cpu_time_is_there_from_the_start_for_the_threads_of_the_side_and_never_falls() {
        let times = CpuTimes::<Thread>::default();
        assert_eq!(pairs(&series(&times, Side::Ingress)), [("source", "0"), ("link", "0")]);
        times.set(Thread::Sink, Duration::from_millis(1_500));
        times.set(Thread::Sink, Duration::from_millis(1_400));
        assert_eq!(pairs(&series(&times, Side::Egress)), [("receive", "0"), ("sink", "1.5")]);
    }

    #[test]
    fn topics_are_named_up_to_the_bound_and_summed_beyond() {
        let lag = ByTopic::default();
        assert_eq!((lag.total(), series(&lag, Side::Ingress).len()), (None, 0));
        let names: Vec<String> = (0..MAX_TOPICS + 10).map(|n| format!("t{n}")).collect();
        lag.set_all(names.iter().map(|name| (name.as_str(), 2.0)));
        let all = series(&lag, Side::Ingress);
        assert_eq!(all.len(), MAX_TOPICS + 1);
        assert_eq!(pairs(&all)[0], ("t0", "2"));
        assert_eq!(pairs(&all)[MAX_TOPICS], ("other", "20"));
        assert_eq!(lag.total(), Some(148.0));

        // Names keep their series whoever comes later, also a topic that is really called so.
        lag.set_all([("late", 1.0), ("other", 4.0), ("t0", 3.0), ("t0", 1.0)]);
        let all = series(&lag, Side::Ingress);
        assert_eq!((pairs(&all)[0], pairs(&all)[1]), (("t0", "4"), ("t1", "0")));
        assert_eq!(pairs(&all)[MAX_TOPICS], ("other", "5"));
        assert_eq!(all.len(), MAX_TOPICS + 1);

        lag.clear();
        assert_eq!((lag.total(), series(&lag, Side::Ingress).len()), (None, 0));
        lag.set_all([]);
        assert_eq!(lag.total(), Some(0.0));
        assert_eq!(series(&lag, Side::Ingress).len(), MAX_TOPICS + 1);
    }
}
