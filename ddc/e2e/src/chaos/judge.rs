//! Compares both clusters record by record, and both with what the egress reported. Pure.
//!
//! The source is the truth. Of a life of a topic that was ended by deleting it, the tail that the ingress had not read yet is
//! nobody's: a record that comes before one that arrived or was reported must have arrived or be reported like any other.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::tail::Seen;

/// What the egress promises: chosen by its `delivery`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Each record once.
    ExactlyOnce,
    /// A crash of the egress may double what was delivered just before it, or report it as missing.
    AtLeastOnce,
}

/// From when to when, since the begin of the run.
pub type Window = (Duration, Duration);

/// Which record: topic, how many topics of this name were there before, partition and offset at the source.
pub type Place = (Arc<str>, u32, i32, i64);

/// Offsets that the egress reported as missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// The topic at the source.
    pub topic: Arc<str>,
    /// Its life; `None`: a topic id that nobody knows.
    pub life: Option<u32>,
    /// The partition.
    pub partition: i32,
    /// First offset.
    pub first: i64,
    /// Last offset, included.
    pub last: i64,
    /// Why.
    pub reason: String,
}

/// What is true, and what is said.
pub struct Evidence {
    /// Everything that was ever at the source, by topic.
    pub source: Vec<(Arc<str>, Vec<Seen>)>,
    /// Everything at the destination, by topic of the destination, each partition in order.
    pub destination: Vec<(Arc<str>, Vec<Seen>)>,
    /// What the egress says is missing.
    pub reported: Vec<Reported>,
    /// Lives of topics that were ended.
    pub ended: HashSet<(Arc<str>, u32)>,
    /// What is promised.
    pub promise: Promise,
    /// When the egress crashed, from shortly before each to some time after its return.
    pub crashes: Vec<Window>,
}

/// How many, and the first few in words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finding {
    /// How many.
    pub count: u64,
    /// The first few.
    pub examples: Vec<String>,
}

/// Examples that are kept of each.
const EXAMPLES: usize = 12;

impl Finding {
    fn add(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(example());
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.count)?;
        self.examples.iter().try_for_each(|example| write!(f, "\n    {example}"))
    }
}

/// What is judged when all has arrived that will by itself, before the replay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reports {
    /// Reported missing but present.
    pub present: Finding,
    /// Missing but not reported.
    pub unreported: Finding,
    /// Missing, whether reported or not.
    pub missing: u64,
    /// Reported though present, by a crash, where only at least once is promised.
    pub excused: u64,
}

/// What is judged after the replay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivery {
    /// At the source and not at the destination.
    pub lost: Finding,
    /// At the destination more than once.
    pub duplicated: Finding,
    /// Behind a later one of its partition, and not marked as late.
    pub out_of_order: Finding,
    /// Another key, value, headers, timestamp or partition; or a record that nobody sent.
    pub wrong: Finding,
    /// Twice, by a crash, where only at least once is promised.
    pub excused: u64,
    /// Marked as late.
    pub late: u64,
}

impl Evidence {
    /// Reports against what is there.
    pub fn reports(&self) -> Reports {
        let (truth, arrived) = (self.truth(), self.arrived());
        let mut said: HashMap<Place, &str> = HashMap::new();
        let mut reports = Reports::default();
        for range in &self.reported {
            for offset in range.first..=range.last {
                let Some(life) = range.life else {
                    reports.present.add(|| {
                        format!("{}[{}] {offset}: of a topic that never was", range.topic, range.partition)
                    });
                    continue;
                };
                said.insert((Arc::clone(&range.topic), life, range.partition, offset), &range.reason);
            }
        }
        for (place, reason) in &said {
            match arrived.get(place) {
                Some(copies) if *reason == "restart" && self.by_crash(copies[0]) => reports.excused += 1,
                Some(_) => reports.present.add(|| format!("{} ({reason})", named(place))),
                None if !truth.contains_key(place) => {
                    reports
                        .present
                        .add(|| format!("{} ({reason}): there never was such a record", named(place)));
                }
                None => {}
            }
        }
        let mut last_known: BTreeMap<(&Arc<str>, u32, i32), i64> = BTreeMap::new();
        for (topic, life, partition, offset) in arrived.keys().chain(said.keys()) {
            let last = last_known.entry((topic, *life, *partition)).or_insert(-1);
            *last = (*last).max(*offset);
        }
        for place in truth.keys().filter(|place| !arrived.contains_key(*place)) {
            let (topic, life, partition, offset) = place;
            let last = last_known.get(&(topic, *life, *partition)).copied().unwrap_or(-1);
            if self.ended.contains(&(Arc::clone(topic), *life)) && *offset > last {
                continue;
            }
            reports.missing += 1;
            if !said.contains_key(place) {
                reports.unreported.add(|| named(place));
            }
        }
        reports
    }

    /// What is there against what should be.
    pub fn delivery(&self) -> Delivery {
        let truth = self.truth();
        let mut delivery = Delivery::default();
        let mut seen: HashMap<Place, Vec<&Seen>> = HashMap::new();
        for (topic, rows) in &self.destination {
            let mut highest: HashMap<(Arc<str>, i32), (u32, i64)> = HashMap::new();
            for row in rows {
                let at = || format!("destination {topic}[{}] {}", row.partition, row.offset);
                let Some((place, late)) = place_of(row) else {
                    delivery.wrong.add(|| format!("{}: no provenance, or no mark", at()));
                    continue;
                };
                let Some(original) = truth.get(&place) else {
                    delivery.wrong.add(|| format!("{}: {} was never sent", at(), named(&place)));
                    continue;
                };
                for field in differences(original, row) {
                    delivery.wrong.add(|| format!("{}: {}: another {field}", at(), named(&place)));
                }
                delivery.late += u64::from(late);
                let copies = seen.entry(place.clone()).or_default();
                copies.push(row);
                if copies.len() > 1 {
                    if self.by_crash(copies[0]) {
                        delivery.excused += 1;
                    } else {
                        delivery.duplicated.add(|| {
                            let times: Vec<_> = copies.iter().map(|copy| copy.at.as_secs_f64()).collect();
                            format!("{} at {times:.1?} s", named(&place))
                        });
                    }
                    continue;
                }
                let (from, life, partition, offset) = place;
                let highest = highest.entry((from, partition)).or_insert((life, offset));
                if (life, offset) < *highest && !late {
                    delivery
                        .out_of_order
                        .add(|| format!("{} (life {life}, offset {offset}) behind {highest:?}", at()));
                }
                *highest = (life, offset).max(*highest);
            }
        }
        for place in truth.keys().filter(|place| !seen.contains_key(*place)) {
            if !self.ended.contains(&(Arc::clone(&place.0), place.1)) {
                delivery.lost.add(|| named(place));
            }
        }
        delivery
    }

    fn truth(&self) -> BTreeMap<Place, &Seen> {
        let place = |topic: &Arc<str>, row: &Seen| {
            let life = row.mark.map_or(0, |mark| mark.life);
            (Arc::clone(topic), life, row.partition, row.offset)
        };
        let all = self.source.iter().flat_map(|(topic, rows)| rows.iter().map(move |row| (topic, row)));
        all.map(|(topic, row)| (place(topic, row), row)).collect()
    }

    fn arrived(&self) -> HashMap<Place, Vec<&Seen>> {
        let mut arrived: HashMap<Place, Vec<&Seen>> = HashMap::new();
        for row in self.destination.iter().flat_map(|(_, rows)| rows) {
            if let Some((place, _)) = place_of(row) {
                arrived.entry(place).or_default().push(row);
            }
        }
        arrived
    }

    /// Whether a crash of the egress explains that it does not remember to have delivered this.
    fn by_crash(&self, first: &Seen) -> bool {
        self.promise == Promise::AtLeastOnce
            && self.crashes.iter().any(|(from, to)| (*from..=*to).contains(&first.at))
    }
}

/// Where a record of the destination comes from, and whether it is marked as late.
fn place_of(row: &Seen) -> Option<(Place, bool)> {
    let from = row.from.as_ref()?;
    Some(((Arc::clone(&from.topic), row.mark?.life, from.partition, from.offset), from.late))
}

fn named((topic, life, partition, offset): &Place) -> String {
    format!("{topic}[{partition}] {offset}, life {life}")
}

fn differences(original: &Seen, row: &Seen) -> impl Iterator<Item = &'static str> {
    [
        ("key", original.key == row.key),
        ("value", original.value == row.value),
        ("headers", original.headers == row.headers),
        ("timestamp", original.timestamp == row.timestamp),
        ("partition", original.partition == row.partition),
        // Would hide a mix-up of lives or a collision of the hashes above.
        ("mark", original.mark == row.mark && row.intact),
    ]
    .into_iter()
    .filter_map(|(field, same)| (!same).then_some(field))
}

/// What is wrong with the load itself: then nothing else can be judged. Each partition of each life must hold as many records
/// as were acknowledged, in their order, each as it was written.
pub fn unsound(topic: &str, life: u32, written: &[u64], rows: &[Seen]) -> Finding {
    let mut finding = Finding::default();
    let mut next: BTreeMap<i32, u64> = (0..written.len() as i32).map(|partition| (partition, 0)).collect();
    for row in rows {
        let sequence = next.entry(row.partition).or_insert(0);
        let expected = super::mark::Mark { life, partition: row.partition, sequence: *sequence };
        if row.mark != Some(expected) || !row.intact {
            finding.add(|| {
                format!("source {topic}[{}] {}: {:?} for {expected:?}", row.partition, row.offset, row.mark)
            });
        }
        *sequence += 1;
    }
    for (partition, found) in next {
        let acknowledged = written.get(partition as usize).copied().unwrap_or(0);
        if found != acknowledged {
            finding.add(|| {
                format!(
                    "source {topic}[{partition}], life {life}: {found} records, {acknowledged} acknowledged"
                )
            });
        }
    }
    finding
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
