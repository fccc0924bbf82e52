//! Which faults strike when: a pure function of seed and duration.
//!
//! Two lanes run side by side. In the one, what happens to processes, brokers, disks, keys, clocks and topics: one fault
//! at a time, each with a time to recover behind it. In the other, the weather on the link. So every fault of the one
//! meets every weather sooner or later. Within a lane each kind comes once before any comes again, in an order that the
//! seed decides: a short run is as varied as it can be.

use std::time::Duration;

use super::dice::Dice;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say it; what each does is in `what`")]
pub enum Kind {
    IngressKilled,
    EgressKilled,
    IngressFrozen,
    EgressFrozen,
    IngressRestarted,
    EgressRestarted,
    SourceKilled,
    DestinationKilled,
    SourceFrozen,
    DestinationFrozen,
    SourceRestarted,
    DestinationRestarted,
    DiskFilled,
    KeyRolled,
    IngressClockBack,
    EgressClockBack,
    PartitionsAdded,
    TopicRecreated,
    DatagramsDropped,
    LinkCut,
    DatagramsDelayed,
    DatagramsReordered,
    DatagramsDuplicated,
}

/// What a kind is about.
struct Trait {
    kind: Kind,
    name: &'static str,
    what: &'static str,
    /// How long it lasts, in milliseconds.
    hold: (u64, u64),
    /// How long undoing it takes, about, in milliseconds.
    cost: u64,
    /// What else the seed decides of it: percent, seconds, milliseconds; see `what`.
    strength: (u64, u64),
    weather: bool,
}

const fn row(
    kind: Kind,
    name: &'static str,
    what: &'static str,
    hold: (u64, u64),
    cost: u64,
    strength: (u64, u64),
) -> Trait {
    Trait { kind, name, what, hold, cost, strength, weather: false }
}

const fn weather(kind: Kind, name: &'static str, what: &'static str, strength: (u64, u64)) -> Trait {
    Trait { kind, name, what, hold: (500, 5_000), cost: 0, strength, weather: true }
}

/// All of them, in the order of [`Kind`].
const KINDS: [Trait; 23] = [
    row(Kind::IngressKilled, "ingress killed", "SIGKILL, started again", (100, 3_000), 2_000, (0, 0)),
    row(Kind::EgressKilled, "egress killed", "SIGKILL, started again", (100, 3_000), 2_000, (0, 0)),
    row(Kind::IngressFrozen, "ingress frozen", "SIGSTOP, SIGCONT", (200, 8_000), 500, (0, 0)),
    row(Kind::EgressFrozen, "egress frozen", "SIGSTOP, SIGCONT", (200, 8_000), 500, (0, 0)),
    row(Kind::IngressRestarted, "ingress restarted", "SIGTERM, started again", (0, 1_000), 3_000, (0, 0)),
    row(Kind::EgressRestarted, "egress restarted", "SIGTERM, started again", (0, 1_000), 3_000, (0, 0)),
    row(Kind::SourceKilled, "source broker killed", "SIGKILL, started again", (200, 4_000), 7_000, (0, 0)),
    row(
        Kind::DestinationKilled,
        "destination broker killed",
        "SIGKILL, started again",
        (200, 4_000),
        7_000,
        (0, 0),
    ),
    row(Kind::SourceFrozen, "source broker frozen", "SIGSTOP, SIGCONT", (500, 8_000), 500, (0, 0)),
    row(Kind::DestinationFrozen, "destination broker frozen", "SIGSTOP, SIGCONT", (500, 8_000), 500, (0, 0)),
    row(
        Kind::SourceRestarted,
        "source broker restarted",
        "SIGTERM, started again",
        (0, 1_000),
        6_000,
        (0, 0),
    ),
    row(
        Kind::DestinationRestarted,
        "destination broker restarted",
        "SIGTERM, started again",
        (0, 1_000),
        6_000,
        (0, 0),
    ),
    row(
        Kind::DiskFilled,
        "egress's disk full",
        "a small tmpfs, filled and emptied",
        (500, 6_000),
        200,
        (0, 0),
    ),
    row(
        Kind::KeyRolled,
        "link key rolled",
        "new id at the egress, at the ingress and active, old one away",
        (2_000, 4_000),
        1_000,
        (0, 0),
    ),
    row(
        Kind::IngressClockBack,
        "ingress's clock set back",
        "by some seconds to two hours, then right again; every other time with a restart meanwhile",
        (2_500, 6_000),
        2_500,
        (10, 7_200),
    ),
    row(
        Kind::EgressClockBack,
        "egress's clock set back",
        "by some seconds to two hours, then right again; every other time with a restart meanwhile",
        (2_500, 6_000),
        2_500,
        (10, 7_200),
    ),
    row(Kind::PartitionsAdded, "partitions added", "one more at the source", (0, 0), 500, (0, 0)),
    row(
        Kind::TopicRecreated,
        "topic deleted and made again",
        "at the source, at least 3 s between",
        (3_000, 5_000),
        3_000,
        (0, 0),
    ),
    weather(Kind::DatagramsDropped, "datagrams dropped", "1 to 40 %", (1, 40)),
    weather(Kind::LinkCut, "link cut", "all datagrams dropped", (100, 100)),
    weather(Kind::DatagramsDelayed, "datagrams delayed", "all by 20 to 400 ms", (20, 400)),
    weather(Kind::DatagramsReordered, "datagrams reordered", "each by 0 to 10 … 200 ms", (10, 200)),
    weather(
        Kind::DatagramsDuplicated,
        "datagrams duplicated",
        "10 to 100 %, the copy up to 300 ms later",
        (10, 100),
    ),
];

impl Kind {
    /// All kinds.
    pub fn all() -> impl Iterator<Item = Kind> {
        KINDS.iter().map(|row| row.kind)
    }

    fn row(self) -> &'static Trait {
        &KINDS[self as usize]
    }

    /// As reports call it.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// What is done.
    pub fn what(self) -> &'static str {
        self.row().what
    }

    /// Whether it strikes the link, not a process.
    pub fn is_weather(self) -> bool {
        self.row().weather
    }
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// When it strikes, from the begin of the run; later, when what came before took longer.
    pub at: Duration,
    /// What.
    pub kind: Kind,
    /// How long it lasts.
    pub hold: Duration,
    /// Percent, seconds or milliseconds; see [`Kind::what`].
    pub strength: u32,
    /// For what is left to chance in it.
    pub chance: u64,
}

/// All faults of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Of processes, disks, keys, clocks, topics: one after the other.
    pub things: Vec<Fault>,
    /// Of the link: one after the other, beside the others.
    pub weather: Vec<Fault>,
    /// The least time between the end of a fault and the begin of the next in `things`.
    pub recovery: Duration,
}

/// Nothing happens before: both sides are at work then.
const FIRST: Duration = Duration::from_secs(2);
/// Runs shorter than this have little time to recover between faults, so that they see many kinds.
const SHORT: Duration = Duration::from_mins(5);

impl Plan {
    /// The plan of a seed; all faults end before `length`, as far as times can be foreseen.
    pub fn new(seed: u64, length: Duration) -> Plan {
        let recovery = if length < SHORT { (1_000, 3_000) } else { (3_000, 8_000) };
        let calm = if length < SHORT { (1_000, 4_000) } else { (3_000, 12_000) };
        Plan {
            things: lane(&mut Dice::new(seed, 1), length, recovery, false),
            weather: lane(&mut Dice::new(seed, 2), length, calm, true),
            recovery: Duration::from_millis(recovery.0),
        }
    }

    /// How many faults of this kind.
    pub fn count(&self, kind: Kind) -> usize {
        self.things.iter().chain(&self.weather).filter(|fault| fault.kind == kind).count()
    }
}

fn lane(dice: &mut Dice, length: Duration, between: (u64, u64), weather: bool) -> Vec<Fault> {
    let kinds: Vec<Kind> = Kind::all().filter(|kind| kind.is_weather() == weather).collect();
    let (mut faults, mut bag, mut at) = (Vec::new(), Vec::new(), FIRST);
    loop {
        if bag.is_empty() {
            bag.clone_from(&kinds);
            dice.shuffle(&mut bag);
        }
        // Invariant: filled just now, and there are kinds of both lanes.
        let Some(kind) = bag.pop() else { return faults };
        let row = kind.row();
        let hold = dice.millis(row.hold.0, row.hold.1);
        let (weakest, strongest) = row.strength;
        let strength = (weakest + dice.below(strongest - weakest + 1)) as u32;
        let end = at + hold + Duration::from_millis(row.cost);
        if end > length {
            return faults;
        }
        faults.push(Fault { at, kind, hold, strength, chance: dice.number() });
        at = end + dice.millis(between.0, between.1);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const MINUTE: Duration = Duration::from_mins(1);

    fn all(plan: &Plan) -> impl Iterator<Item = &Fault> {
        plan.things.iter().chain(&plan.weather)
    }

    fn kinds(plan: &Plan) -> BTreeSet<Kind> {
        all(plan).map(|fault| fault.kind).collect()
    }

    #[test]
    fn the_table_is_in_the_order_of_the_kinds() {
        for (index, row) in KINDS.iter().enumerate() {
            assert_eq!(row.kind as usize, index, "{}", row.name);
        }
    }

    #[test]
    fn a_seed_is_a_plan() {
        assert_eq!(Plan::new(7, HOUR), Plan::new(7, HOUR));
        assert_ne!(Plan::new(7, HOUR), Plan::new(8, HOUR));
        // A seed means the same tomorrow: a failure can be run again.
        let first = Plan::new(1, MINUTE).things[0];
        assert_eq!((first.at, first.kind.name()), (FIRST, "destination broker frozen"));
    }

    #[test]
    fn an_hour_has_every_kind_and_hundreds_of_faults() {
        for seed in 0..50 {
            let plan = Plan::new(seed, HOUR);
            assert_eq!(kinds(&plan).len(), KINDS.len(), "seed {seed}");
            assert!(plan.things.len() >= 200, "seed {seed}: {}", plan.things.len());
            assert!(plan.weather.len() >= 200, "seed {seed}: {}", plan.weather.len());
            for kind in Kind::all() {
                assert!(plan.count(kind) >= 8, "seed {seed}: {}", kind.name());
            }
        }
    }

    #[test]
    fn a_minute_has_eight_kinds() {
        for seed in 0..1000 {
            let plan = Plan::new(seed, MINUTE);
            assert!(kinds(&plan).len() >= 8, "seed {seed}: {:?}", kinds(&plan));
        }
    }

    #[test]
    fn faults_of_a_lane_leave_time_to_recover_and_end_in_time() {
        for (seed, length) in (0..200).flat_map(|seed| [(seed, MINUTE), (seed, HOUR)]) {
            let plan = Plan::new(seed, length);
            for lane in [&plan.things, &plan.weather] {
                for pair in lane.windows(2) {
                    let end = pair[0].at + pair[0].hold + Duration::from_millis(pair[0].kind.row().cost);
                    assert!(pair[1].at >= end + Duration::from_secs(1), "seed {seed}: {pair:?}");
                }
                assert!(lane.last().is_none_or(|last| last.at + last.hold <= length), "seed {seed}");
            }
            for fault in all(&plan) {
                let row = fault.kind.row();
                let hold = fault.hold.as_millis() as u64;
                assert!((row.hold.0..=row.hold.1).contains(&hold), "{fault:?}");
                assert!((row.strength.0..=row.strength.1).contains(&u64::from(fault.strength)), "{fault:?}");
            }
        }
    }

    #[test]
    fn no_time_no_faults() {
        let plan = Plan::new(1, Duration::from_secs(1));
        assert!(plan.things.is_empty() && plan.weather.is_empty());
    }
}
