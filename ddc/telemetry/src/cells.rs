//! The atomics behind the metrics: what the hot path adds to and the exposition reads.
//!
//! Every operation is one relaxed atomic instruction: no lock, no allocation, no ordering with other memory. A reader
//! may therefore see one counter of a pair moved and the other not yet; rates over seconds do not care.
//! A thread that works in bursts adds once per burst, which also keeps two threads from fighting for a cache line.
//!
//! Which metrics exist is said in [`crate::catalogue`], not here. Durations are in [`Histogram`], what has one more label in
//! [`States`], [`Readings`], [`CpuTimes`] and [`ByTopic`] (which alone has a lock: it is told once a second).

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

mod histogram;
mod labelled;

pub use histogram::{BOUNDS, BUCKETS, Histogram, HistogramBuffer, LONGEST, Snapshot};
pub use labelled::{ByTopic, CpuTimes, MAX_TOPICS, OTHER_TOPICS, Readings, States};

/// Only goes up; begins at 0 when the process starts and is exposed from then on, so that the first rise is seen.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`; wraps after 2^64, which no rate here reaches.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// The count so far.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A whole number that goes up and down and is known from the start: a queue's bytes, open sessions. Begins at 0.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Replaces the value.
    #[inline]
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// Adds `n`; several threads may add and subtract side by side.
    #[inline]
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Subtracts `n`.
    #[inline]
    pub fn sub(&self, n: i64) {
        self.0.fetch_sub(n, Relaxed);
    }

    /// The value now.
    pub fn value(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// A number that was measured or told by the other side, in the catalogue's unit. *Absent* until it is first set, since 0 would be
/// a lie: the age of a heartbeat that never came is not 56 years. Whole numbers are exact up to 2^53.
pub struct Reading(AtomicU64);

impl Reading {
    /// Replaces the value; NaN makes the reading absent again.
    #[inline]
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }

    /// Sets seconds since 1970; a time before that is kept as a negative number.
    pub fn set_time(&self, at: SystemTime) {
        self.set(match at.duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_secs_f64(),
            Err(before) => -before.duration().as_secs_f64(),
        });
    }

    /// Makes the reading absent: what it told is no longer known.
    pub fn clear(&self) {
        self.set(f64::NAN);
    }

    /// The value, `None` when there is none.
    pub fn value(&self) -> Option<f64> {
        let value = f64::from_bits(self.0.load(Relaxed));
        (!value.is_nan()).then_some(value)
    }
}

impl Default for Reading {
    fn default() -> Self {
        Self(AtomicU64::new(f64::NAN.to_bits()))
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reading").field(&self.value()).finish()
    }
}

/// One [`Counter`] for each value of a label with a fixed list of values.
pub struct Counters<L: Label> {
    cells: Box<[Counter]>,
    label: PhantomData<L>,
}

impl<L: Label> Counters<L> {
    /// Adds `n` to the counter of `value`.
    #[inline]
    pub fn add(&self, value: L, n: u64) {
        self.cells[value.index()].add(n);
    }

    /// Adds one to the counter of `value`.
    #[inline]
    pub fn inc(&self, value: L) {
        self.add(value, 1);
    }

    /// The count of one label value.
    pub fn value(&self, value: L) -> u64 {
        self.cells[value.index()].value()
    }

    /// The sum over all label values.
    pub fn total(&self) -> u64 {
        self.cells.iter().map(Counter::value).sum()
    }
}

impl<L: Label> Default for Counters<L> {
    fn default() -> Self {
        Self { cells: L::ALL.iter().map(|_| Counter::default()).collect(), label: PhantomData }
    }
}

impl<L: Label> fmt::Debug for Counters<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(L::ALL.iter().map(|value| (value.as_str(), self.value(*value)))).finish()
    }
}

/// Which proxy of a link a series speaks of: the label `side`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Kafka → link.
    Ingress,
    /// Link → Kafka.
    Egress,
}

impl Side {
    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// A label whose values are an enum: bounded by construction. Made by `labels!` in [`crate::reasons`].
pub trait Label: Copy + Sized + 'static {
    /// The label's key.
    const KEY: &'static str;
    /// Every value, in the order of their indices.
    const ALL: &'static [Self];
    /// The same list for the documentation.
    const SET: LabelSet;

    /// Position in [`Label::ALL`].
    fn index(self) -> usize;

    /// The label value: lower case, words joined by `_`.
    fn as_str(self) -> &'static str;

    /// Whether this value can occur on that side; where it cannot, no series is exposed for it.
    fn occurs_on(self, _side: Side) -> bool {
        true
    }

    /// The value of that name.
    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|value| value.as_str() == name)
    }
}

/// A label with its values, described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LabelSet {
    /// The Rust enum's name, which tells apart labels of the same key.
    pub name: &'static str,
    /// The label's key.
    pub key: &'static str,
    /// Value and what it means.
    pub values: &'static [(&'static str, &'static str)],
}

/// What a metric is to those who read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up; falls to 0 when the process starts again.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations by size, in the buckets of [`BOUNDS`].
    Histogram,
}

impl Kind {
    /// Prometheus' word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The value of one series, in the exactness it was kept in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A count.
    Unsigned(u64),
    /// A level.
    Signed(i64),
    /// A measured number.
    Float(f64),
}

impl Value {
    /// A count as it was kept; for other values the nearest count.
    pub(crate) fn count(self) -> u64 {
        match self {
            Self::Unsigned(n) => n,
            Self::Signed(n) => n.max(0) as u64,
            Self::Float(x) => x as u64,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned(n) => n.fmt(f),
            Self::Signed(n) => n.fmt(f),
            Self::Float(x) if x.is_infinite() => f.write_str(if *x > 0.0 { "+Inf" } else { "-Inf" }),
            Self::Float(x) => x.fmt(f),
        }
    }
}

/// What a series reads.
#[derive(Debug, Clone, Copy)]
pub enum Sample<'a> {
    /// One number.
    One(Value),
    /// Counts and sums of all buckets.
    Histogram(&'a Snapshot),
}

impl From<Value> for Sample<'_> {
    fn from(value: Value) -> Self {
        Self::One(value)
    }
}

/// Takes the series of a metric: its labels beside `link` and `side`, and what it reads. A series of a counter or histogram is
/// emitted at each reading and at the same place, so that a reader may remember by position what it read before.
pub type Emit<'a> = dyn FnMut(&[(&str, &str)], Sample<'_>) + 'a;

/// A type that a row of the catalogue can have; what the catalogue says about kind and labels follows from it.
pub trait Describe: Metric + Default {
    /// What the metric is to its readers.
    const KIND: Kind;
    /// The label with a fixed list of values, if it has one.
    const BY: Option<LabelSet> = None;
    /// Keys of labels whose values are fixed for the life of the process.
    const FIXED: &'static [&'static str] = &[];
    /// Whether it has the label `topic`, of at most [`MAX_TOPICS`] values and [`OTHER_TOPICS`].
    const BY_TOPIC: bool = false;
}

/// A metric that can be read.
pub trait Metric {
    /// Emits every series this metric has on that side (`None`: a metric of the process); none while its value is absent.
    fn read(&self, side: Option<Side>, emit: &mut Emit<'_>);

    /// Emits every series this metric can have on that side, with made-up values that follow from `n` (1 to 1,000): what the test
    /// vectors are made of and what the series are counted by. What the metric holds plays no part.
    fn example(&self, n: u64, side: Option<Side>, emit: &mut Emit<'_>);
}

impl Describe for Counter {
    const KIND: Kind = Kind::Counter;
}

impl Metric for Counter {
    fn read(&self, _side: Option<Side>, emit: &mut Emit<'_>) {
        emit(&[], Value::Unsigned(self.value()).into());
    }

    fn example(&self, n: u64, _side: Option<Side>, emit: &mut Emit<'_>) {
        emit(&[], Value::Unsigned(n).into());
    }
}

impl Describe for Gauge {
    const KIND: Kind = Kind::Gauge;
}

impl Metric for Gauge {
    fn read(&self, _side: Option<Side>, emit: &mut Emit<'_>) {
        emit(&[], Value::Signed(self.value()).into());
    }

    fn example(&self, n: u64, _side: Option<Side>, emit: &mut Emit<'_>) {
        emit(&[], Value::Signed(n as i64).into());
    }
}

impl Describe for Reading {
    const KIND: Kind = Kind::Gauge;
}

impl Metric for Reading {
    fn read(&self, _side: Option<Side>, emit: &mut Emit<'_>) {
        if let Some(value) = self.value() {
            emit(&[], Value::Float(value).into());
        }
    }

    /// Each other example is negative, since that needs care on the way.
    fn example(&self, n: u64, _side: Option<Side>, emit: &mut Emit<'_>) {
        let value = n as f64 + 0.5;
        emit(&[], Value::Float(if n.is_multiple_of(2) { value } else { -value }).into());
    }
}

impl<L: Label> Describe for Counters<L> {
    const KIND: Kind = Kind::Counter;
    const BY: Option<LabelSet> = Some(L::SET);
}

impl<L: Label> Metric for Counters<L> {
    fn read(&self, side: Option<Side>, emit: &mut Emit<'_>) {
        for value in labelled::occurring::<L>(side) {
            emit(&[(L::KEY, value.as_str())], Value::Unsigned(self.value(value)).into());
        }
    }

    fn example(&self, n: u64, side: Option<Side>, emit: &mut Emit<'_>) {
        let counters = Self::default();
        for value in L::ALL {
            counters.add(*value, n + value.index() as u64);
        }
        counters.read(side, emit);
    }
}

#[cfg(test)]
mod tests;
