//! The metrics as StatsD lines, in DogStatsD's dialect: `ddc.egress.packets_received:17|c|#link:plant-a,side:egress`.
//!
//! | kind | line | rule |
//! |---|---|---|
//! | counter | `name:delta\|c` | what was added since the flush before; 0 at first and whenever nothing was added, so that the series is there from the start and stays |
//! | gauge | `name:value\|g` | the value itself. A sign means "add" to every StatsD server, so a negative value follows a 0, in one datagram |
//! | histogram | `name:mean\|h\|@rate` | one line for each bucket that something was added to, standing for `n` observations |
//!
//! A histogram's line says "this value, sampled at this rate": a server counts it 1/rate times. Vector takes the integer part of
//! 1/rate, others round, so the rate is 1/(n + 0.25): both arrive at n. The value is the mean of what was added to the bucket, and
//! what rounding and clamping take from the sum is owed to the next line: the sum stays within a nanosecond per observation.
//! A histogram that never observed anything is sent as `0|h|@2`: Vector counts it half a time, cut to 0, and so shows the series from
//! the start. Other servers may take it for one observation of 0; it is not sent any more once there is a real one.
//!
//! Nothing here knows sockets: tests read the lines.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::cells::{BOUNDS, BUCKETS, Kind, Sample, Snapshot, Value};
use crate::exposition::{Family, Registry};

/// The most observations one line stands for, as far as Vector was seen to count rightly; more become several lines.
pub const MAX_WEIGHT: u64 = 1_000_000;

/// The longest label value that is sent, in bytes; Kafka's topic names, the longest there are, have at most 249.
const MAX_LABEL: usize = 249;

/// Lines of one flush. A unit is what must stay in one datagram: a line, or the two of a negative gauge.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    text: String,
    /// Where each unit ends in `text`.
    ends: Vec<usize>,
}

impl Batch {
    /// Forgets the lines, keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    /// Every unit, without a newline at its end.
    pub(crate) fn units(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.text[start..*end])
    }

    /// Bytes on the wire, the newlines between units included.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len() + self.ends.len()
    }

    fn end(&mut self) {
        self.ends.push(self.text.len());
    }
}

/// What was told of each series that is sent as differences.
///
/// Bounded by the registry: there are as many as it has series of counters and histograms.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    told: HashMap<Box<str>, Told>,
    /// Name and tags of the series at hand.
    key: String,
}

#[derive(Debug)]
enum Told {
    Count(u64),
    /// Nanoseconds.
    Time(u64),
    Histogram(Box<ToldHistogram>),
}

#[derive(Debug, Default)]
struct ToldHistogram {
    snapshot: Snapshot,
    /// Seconds of each bucket's sum that no line has carried yet.
    owed: [f64; BUCKETS],
}

impl Lines {
    /// Adds a line for every series of the registry, with what has changed since the last call.
    pub(crate) fn render(&mut self, registry: &Registry, batch: &mut Batch) {
        registry.visit(|family| self.family(family, batch));
    }

    /// The same with the example values of the catalogue.
    pub(crate) fn render_examples(&mut self, registry: &Registry, batch: &mut Batch) {
        registry.visit_examples(|family| self.family(family, batch));
    }

    fn family(&mut self, family: &Family<'_>, batch: &mut Batch) {
        let (name, kind) = (family.descriptor.statsd_name(), family.descriptor.kind);
        family.read(|labels, more, sample| {
            self.key.clear();
            self.key.push_str(&name);
            for (n, (key, value)) in labels.iter().chain(more).enumerate() {
                self.key.push_str(if n == 0 { "|#" } else { "," });
                self.key.push_str(key);
                self.key.push(':');
                push_label_value(&mut self.key, value);
            }
            let tags = &self.key[name.len()..];
            match (kind, sample) {
                (_, Sample::Histogram(snapshot)) => {
                    let Told::Histogram(told) = self.told.entry_for(&self.key, Told::histogram) else {
                        return;
                    };
                    histogram(batch, &name, tags, snapshot, told);
                }
                (Kind::Counter, Sample::One(Value::Float(seconds))) => {
                    let Told::Time(told) = self.told.entry_for(&self.key, || Told::Time(0)) else { return };
                    let nanos = (seconds * 1e9).round() as u64;
                    let delta = nanos.saturating_sub(*told);
                    *told += delta;
                    line(batch, &name, delta as f64 / 1e9, "c", tags);
                }
                (Kind::Counter, Sample::One(value)) => {
                    let Told::Count(told) = self.told.entry_for(&self.key, || Told::Count(0)) else { return };
                    let count = value.count();
                    line(batch, &name, count.wrapping_sub(*told), "c", tags);
                    *told = count;
                }
                (_, Sample::One(value)) => gauge(batch, &name, tags, value),
            }
        });
    }
}

impl Told {
    fn histogram() -> Self {
        Self::Histogram(Box::default())
    }
}

/// A map whose entries are made without owning the key first: nearly always the entry is there.
trait EntryFor {
    fn entry_for(&mut self, key: &str, new: impl FnOnce() -> Told) -> &mut Told;
}

impl EntryFor for HashMap<Box<str>, Told> {
    fn entry_for(&mut self, key: &str, new: impl FnOnce() -> Told) -> &mut Told {
        if !self.contains_key(key) {
            self.insert(key.into(), new());
        }
        self.get_mut(key).expect("it was there or was put there above")
    }
}

fn line(batch: &mut Batch, name: &str, value: impl std::fmt::Display, kind: &str, tags: &str) {
    // Writing to a String cannot fail, here and below.
    let _ = write!(batch.text, "{name}:{value}|{kind}{tags}");
    batch.end();
}

fn gauge(batch: &mut Batch, name: &str, tags: &str, value: Value) {
    let negative = match value {
        Value::Float(x) if !x.is_finite() => return, // no server takes it
        Value::Float(x) => x < 0.0,
        Value::Signed(n) => n < 0,
        Value::Unsigned(_) => false,
    };
    if negative {
        let _ = write!(batch.text, "{name}:0|g{tags}\n{name}:{value}|g{tags}");
        batch.end();
    } else {
        // Minus zero would have a sign, too.
        let value = if value == Value::Float(0.0) { Value::Unsigned(0) } else { value };
        line(batch, name, value, "g", tags);
    }
}

fn histogram(batch: &mut Batch, name: &str, tags: &str, now: &Snapshot, told: &mut ToldHistogram) {
    if now.count() == 0 {
        let _ = write!(batch.text, "{name}:0|h|@2{tags}");
        batch.end();
        return;
    }
    let delta = now.since(&told.snapshot);
    told.snapshot = *now;
    for bucket in 0..BUCKETS {
        told.owed[bucket] += delta.bucket_sum(bucket);
        let mut left = delta.bucket_count(bucket);
        if left == 0 {
            continue;
        }
        let mean = value_in_bucket(bucket, told.owed[bucket] / left as f64);
        told.owed[bucket] -= mean * left as f64;
        while left > 0 {
            let n = left.min(MAX_WEIGHT);
            left -= n;
            let _ = write!(batch.text, "{name}:{mean}|h");
            if n > 1 {
                let _ = write!(batch.text, "|@{}", 1.0 / (n as f64 + 0.25));
            }
            batch.text.push_str(tags);
            batch.end();
        }
    }
}

/// The value nearest to `mean` that a server puts into that bucket, in whole nanoseconds.
fn value_in_bucket(bucket: usize, mean: f64) -> f64 {
    let least = bucket.checked_sub(1).map_or(0.0, |below| BOUNDS[below] + 1e-9);
    let most = BOUNDS.get(bucket).copied().unwrap_or(f64::MAX);
    let nanos = (mean.clamp(least, most) * 1e9).round() / 1e9;
    nanos.clamp(least, most)
}

/// Adds a label's value without what has a meaning in a line. Configuration refuses such names, so this is a second wall.
fn push_label_value(text: &mut String, value: &str) {
    let cut = value.floor_char_boundary(MAX_LABEL);
    text.extend(value[..cut].chars().map(|c| match c {
        ',' | ':' | '|' | '#' | '@' => '_',
        c if c.is_control() => '_',
        c => c,
    }));
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
