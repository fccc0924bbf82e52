//! Random walks over the takeover protocol: is every record written once, in order, and nothing missing in the end?
//!
//! One to three links with up to three partitions each; ownership moves at random with rising epochs; every egress
//! crashes, stands still, loses answers of commits, has transactions aborted by itself and by the broker, and does its
//! steps in any order with all others. In *whole* walks nothing is lost on the way, and what is written must be exactly
//! what was sent. In walks *with gaps* chunks are lost and ownership moves beyond what is written: holes are
//! made, and filled by replays that come through any link.
//!
//! `SIM_SEED=n` walks once; `SIM_SCENARIOS=n` changes how often it is walked.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what is meant")]

mod broker;
mod egress;
mod source;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ddc_wire::{ChunkKind, Epoch, Session};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{LinkName, ProgressTable, SetName};
use broker::Broker;
use egress::{Egress, Trouble};
use source::{Chunk, Ownership, key, records};

const LINKS: usize = 3;
const PARTITIONS: usize = 3;
/// Offsets of each partition.
const LAST: i64 = 14;
/// The takeover's time-out; a step takes a millisecond.
const TIMEOUT: u64 = 20;
/// The broker's transaction time-out, in steps.
const TRANSACTION_TIMEOUT: u64 = 80;
/// In the end everything is written after so many steps of each egress.
const PATIENCE: u64 = 3000;

/// A step of the protocol that is left out, to see that the check can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Skip {
    Nothing,
    /// Claims are not written.
    Claim,
    /// Claims of others are not read.
    ReadClaims,
    /// Nobody is fenced.
    Fence,
    /// Progress is not read after a fence.
    ReadAfterFence,
    /// A fenced egress goes on where it was.
    Recheck,
    /// What is open when the reading begins is not waited for.
    Watermark,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Whole,
    WithGaps,
}

#[test]
fn whole_walks_write_each_record_once_and_in_order() {
    walks(Kind::Whole, 12_000);
}

#[test]
fn walks_with_gaps_write_each_record_once() {
    walks(Kind::WithGaps, 12_000);
}

/// Each step is needed: without it, some walks go wrong.
#[test]
fn without_any_one_step_walks_go_wrong() {
    use Skip::{Claim, Fence, ReadAfterFence, ReadClaims, Recheck, Watermark};
    for skip in [Claim, ReadClaims, Fence, ReadAfterFence, Recheck, Watermark] {
        let wrong = (0..6000).filter(|seed| {
            catch_unwind(AssertUnwindSafe(|| walk(Kind::Whole, *seed, skip)))
                .is_ok_and(|result| result.is_err())
        });
        let wrong = wrong.take(3).count();
        assert!(wrong >= 3, "{skip:?} was left out, and {wrong} of 6000 walks noticed");
    }
}

fn walks(kind: Kind, walks: u64) {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SCENARIOS").unwrap_or(walks),
    };
    for seed in seeds {
        let result = catch_unwind(AssertUnwindSafe(|| walk(kind, seed, Skip::Nothing)));
        let result = result.unwrap_or_else(|_| Err("it panicked, see above".to_owned()));
        if let Err(wrong) = result {
            panic!("SIM_SEED={seed} ({kind:?}): {wrong}");
        }
    }
}

struct World {
    rng: ChaCha8Rng,
    kind: Kind,
    broker: Broker,
    egresses: Vec<Egress>,
    /// Until when each stands still.
    paused: Vec<u64>,
    ownerships: Vec<Option<Ownership>>,
    /// The greatest epoch of each partition, and how far it was sent.
    epochs: Vec<u64>,
    sent: Vec<i64>,
    sessions: u64,
    /// Reads the topic at once.
    observer: (ProgressTable, usize),
    step: u64,
}

fn walk(kind: Kind, seed: u64, skip: Skip) -> Result<(), String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (links, partitions) = (rng.random_range(1..=LINKS), rng.random_range(1..=PARTITIONS));
    let steps = rng.random_range(30..300);
    let mut world = World {
        rng,
        kind,
        broker: Broker::default(),
        egresses: (0..links).map(|number| Egress::new(number, skip)).collect(),
        paused: vec![0; links],
        ownerships: vec![None; partitions],
        epochs: vec![0; partitions],
        sent: vec![0; partitions],
        sessions: 0,
        observer: (ProgressTable::new(set()), 0),
        step: 0,
    };
    for _ in 0..steps {
        world.happen();
    }
    world.finish()?;
    world.check()
}

impl World {
    fn happen(&mut self) {
        self.pass_time();
        let partition = self.rng.random_range(0..self.ownerships.len());
        let egress = self.rng.random_range(0..self.egresses.len());
        match self.rng.random_range(0..1000) {
            0..30 => self.rebalance(partition, egress),
            30..36 => self.set_back(partition),
            36..60 => self.egresses[egress].crash(),
            60..80 => self.paused[egress] = self.step + self.rng.random_range(1..150),
            80..90 if self.kind == Kind::WithGaps => self.replay(partition, egress),
            90..250 => self.send(partition),
            _ => self.step_egress(egress),
        }
    }

    fn pass_time(&mut self) {
        self.step += 1;
        self.broker.expire(self.step.saturating_sub(TRANSACTION_TIMEOUT));
        let (table, reader) = &mut self.observer;
        while let Some((next, record)) = self.broker.read(*reader) {
            if let Some((key, value)) = record {
                table.apply(*reader as i64, Some(key), Some(value));
            }
            *reader = next;
        }
    }

    fn step_egress(&mut self, egress: usize) {
        if self.paused[egress] <= self.step {
            let trouble = Trouble { lost_answer: 0.05, abort: 0.05 };
            self.egresses[egress].step(&mut self.broker, &mut self.rng, trouble, self.step);
        }
    }

    /// The partition's new owner begins at a committed offset: in whole walks at nothing that a dead egress has lost.
    fn rebalance(&mut self, partition: usize, link: usize) {
        let last = if self.kind == Kind::Whole { self.next(partition) } else { self.sent[partition] };
        self.epochs[partition] += 1;
        let (epoch, at) = (Epoch(self.epochs[partition] * 10), self.rng.random_range(0..=last));
        let new = self.rng.random_bool(0.5);
        let session = self.session(new);
        self.ownerships[partition] = Some(Ownership { link, epoch, session, at });
    }

    /// The owner's ingress comes back with a lower epoch: its state is lost and its clock was set back.
    fn set_back(&mut self, partition: usize) {
        let next = self.next(partition);
        let Some(ownership) = &self.ownerships[partition] else { return };
        let (table, _) = &self.observer;
        let name = link(ownership.link);
        let owner = table.progress(&key(partition)).is_some_and(|progress| progress.owner == name);
        let claim = table.claim(&key(partition), &name);
        let greatest = table.claims(&key(partition)).map(|(_, epoch)| epoch).max();
        if !owner || claim != greatest || claim != Some(ownership.epoch) {
            return;
        }
        let at = self.rng.random_range(0..=next);
        let epoch = Epoch(ownership.epoch.0 - self.rng.random_range(1..=3).min(ownership.epoch.0));
        let session = self.session(true);
        let ownership = self.ownerships[partition].as_mut().unwrap();
        (ownership.session, ownership.epoch, ownership.at) = (session, epoch, at);
    }

    fn send(&mut self, partition: usize) {
        let offsets = self.rng.random_range(1..4);
        let Some(ownership) = &mut self.ownerships[partition] else { return };
        if ownership.at >= LAST {
            return;
        }
        let chunk = ownership.send(partition, offsets);
        let egress = &mut self.egresses[ownership.link];
        self.sent[partition] = self.sent[partition].max(chunk.end);
        let lost = self.kind == Kind::WithGaps && self.rng.random_bool(0.1);
        if !lost {
            egress.spool.push(chunk);
        }
    }

    /// A range is read again, and comes through any link.
    fn replay(&mut self, partition: usize, link: usize) {
        let next = self.sent[partition];
        let end = self.rng.random_range(0..=next);
        let base = self.rng.random_range(0..=end);
        self.replay_range(partition, link, base, end);
    }

    fn replay_range(&mut self, partition: usize, link: usize, base: i64, end: i64) {
        let (epoch, session) = (Epoch(1), self.session(false));
        let (previous, kind) = ((base > 0).then(|| base - 1), ChunkKind::Replay);
        let chunk = Chunk { partition, kind, epoch, session, previous, end, in_transaction: false };
        self.egresses[link].spool.push(chunk);
    }

    fn session(&mut self, new: bool) -> Session {
        self.sessions += u64::from(new);
        Session::new(self.sessions, 0)
    }

    fn next(&self, partition: usize) -> i64 {
        let (table, _) = &self.observer;
        table.progress(&key(partition)).map_or(0, |progress| progress.position.next())
    }

    /// Nothing new happens: the last owners carry over what is left. The others may be dead by then.
    fn finish(&mut self) -> Result<(), String> {
        let partitions = self.ownerships.len();
        for partition in 0..partitions {
            if self.ownerships[partition].is_none() {
                let link = self.rng.random_range(0..self.egresses.len());
                self.rebalance(partition, link);
            }
            let ownership = self.ownerships[partition].as_mut().unwrap();
            // At least one chunk, if only to say that everything was sent.
            loop {
                self.egresses[ownership.link].spool.push(ownership.send(partition, 3));
                if ownership.at >= LAST {
                    break;
                }
            }
        }
        self.paused.fill(0);
        let owners: Vec<_> = self.ownerships.iter().flatten().map(|ownership| ownership.link).collect();
        let alive: Vec<_> = (0..self.egresses.len())
            .filter(|egress| owners.contains(egress) || self.rng.random_bool(0.5))
            .collect();
        for round in 0..PATIENCE {
            for egress in &alive {
                self.pass_time();
                let trouble = Trouble { lost_answer: 0.0, abort: 0.0 };
                self.egresses[*egress].step(&mut self.broker, &mut self.rng, trouble, self.step);
            }
            let is_open = |partition: &usize| {
                !self.is_complete(*partition) || !self.egresses[owners[*partition]].may_write(*partition)
            };
            let open: Vec<_> = (0..partitions).filter(is_open).collect();
            if open.is_empty() {
                return Ok(());
            }
            if self.kind == Kind::WithGaps && round % 100 == 99 {
                for partition in open {
                    self.replay_holes(partition, owners[partition]);
                }
            }
        }
        Err(format!("the last owners do not write everything: {:?} {:?}", self.ownerships, self.observer.0))
    }

    fn replay_holes(&mut self, partition: usize, owner: usize) {
        let (table, _) = &self.observer;
        let progress = table.progress(&key(partition));
        let holes = progress.map(|progress| progress.position.holes().to_vec()).unwrap_or_default();
        for hole in holes {
            self.replay_range(partition, owner, hole.first, hole.last + 1);
        }
    }

    fn is_complete(&self, partition: usize) -> bool {
        let (table, _) = &self.observer;
        table
            .progress(&key(partition))
            .is_some_and(|progress| progress.position.next() == LAST && progress.position.holes().is_empty())
    }

    fn check(&self) -> Result<(), String> {
        for partition in 0..self.ownerships.len() {
            let written: Vec<_> = self.broker.committed(partition).collect();
            let offsets = |late| {
                written.iter().filter(move |written| written.late == late).map(|written| written.offset)
            };
            let expected: Vec<_> = records(partition, 0..LAST).collect();
            let in_order: Vec<_> = offsets(false).collect();
            let mut all: Vec<_> = offsets(false).chain(offsets(true)).collect();
            all.sort_unstable();
            if all != expected || !in_order.is_sorted() {
                return Err(format!("partition {partition}: {written:?}"));
            }
            if self.kind == Kind::Whole && in_order != expected {
                return Err(format!("partition {partition} has late records without a gap: {written:?}"));
            }
            let (table, _) = &self.observer;
            let progress = table.progress(&key(partition)).ok_or("no progress")?;
            if self.kind == Kind::Whole && progress.position.count() != expected.len() as u64 {
                return Err(format!("partition {partition}: count is {}", progress.position.count()));
            }
        }
        let gaps: usize = self.egresses.iter().map(|egress| egress.gaps).sum();
        if self.kind == Kind::Whole && gaps > 0 { Err(format!("{gaps} gaps where none is")) } else { Ok(()) }
    }
}

fn set() -> SetName {
    static SET: OnceLock<SetName> = OnceLock::new();
    SET.get_or_init(|| "plant".parse().unwrap()).clone()
}

fn link(number: usize) -> LinkName {
    static LINK: OnceLock<Vec<LinkName>> = OnceLock::new();
    LINK.get_or_init(|| (0..LINKS).map(|number| format!("link-{number}").parse().unwrap()).collect())[number]
        .clone()
}

fn time(step: u64) -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now) + Duration::from_millis(step)
}
