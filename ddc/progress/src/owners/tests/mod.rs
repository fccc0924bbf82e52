//! The steps of a takeover one by one: which action comes when, and which must not.
#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

mod verdicts;

use ddc_link::receiver::Position;
use ddc_wire::{ChunkKind, Session, TopicId};

use super::*;
use crate::name::SetName;

const TIMEOUT: Duration = Duration::from_secs(5);

/// The egress of link `a`, its topic, and a clock.
struct Bench {
    owners: Owners,
    table: ProgressTable,
    end: i64,
    now: Instant,
}

fn link(name: &str) -> LinkName {
    name.parse().unwrap()
}

fn set() -> SetName {
    "plant".parse().unwrap()
}

fn key(partition: i32) -> PartitionKey {
    let (stream, topic) = (String::new(), "orders".to_owned());
    PartitionKey { stream, topic, topic_id: TopicId::Configured(0), partition }
}

fn session(number: u64) -> Session {
    Session::new(number, 0)
}

fn progress(owner: &str, epoch: u64, next: i64) -> Progress {
    let position = Position::stored(next, Epoch(epoch), 0, 0, Vec::new()).unwrap();
    Progress { owner: link(owner), session: session(5), position }
}

const WRITE: Verdict = Verdict::Write { holes_only: false, set_back: false };
const HOLES_ONLY: Verdict = Verdict::Write { holes_only: true, set_back: false };

impl Bench {
    fn new() -> Self {
        Self::with(true)
    }

    /// Started, nothing judged yet.
    fn with(fencing: bool) -> Self {
        let owners = Owners::new(OwnersConfig { link: link("a"), takeover_timeout: TIMEOUT, fencing });
        let mut bench = Self { owners, table: ProgressTable::new(set()), end: 0, now: Instant::now() };
        assert_eq!(bench.judge(1, 1, None), Verdict::Wait, "nothing is judged before the topic is read");
        assert_eq!(bench.run(), ["rebuild", "read", "started"]);
        bench
    }

    fn put(&mut self, partition: i32, kind: Kind, value: &[u8]) {
        self.end += 1;
        let key = RecordKey { set: set(), partition: key(partition), kind }.encode();
        self.table.apply(self.end, Some(&key), Some(value));
    }

    fn claim(&mut self, partition: i32, name: &str, epoch: u64) {
        self.put(partition, Kind::Claim(link(name)), &encode_claim(Epoch(epoch)));
    }

    fn progress(&mut self, partition: i32, owner: &str, epoch: u64, next: i64) {
        self.put(partition, Kind::Progress, &progress(owner, epoch, next).encode());
    }

    fn judge(&mut self, partition: i32, epoch: u64, previous: Option<i64>) -> Verdict {
        self.judge_after(None, partition, ChunkKind::Live, epoch, previous, 5)
    }

    fn replay(&mut self, partition: i32) -> Verdict {
        self.judge_after(None, partition, ChunkKind::Replay, 0, None, 5)
    }

    fn judge_after(
        &mut self,
        chain: Option<&Chain>,
        partition: i32,
        kind: ChunkKind,
        epoch: u64,
        previous: Option<i64>,
        number: u64,
    ) -> Verdict {
        let heading = Heading { kind, epoch: Epoch(epoch), previous, session: session(number) };
        self.owners.judge(&self.table, chain, &key(partition), &heading, self.now)
    }

    fn poll(&mut self) -> Option<Action> {
        self.owners.poll(&self.table, self.now)
    }

    /// Answers the action on its way.
    fn answer(&mut self, outcome: Outcome) {
        let ticket = self.owners.issued.unwrap();
        self.owners.answer(ticket, outcome, self.now);
    }

    /// Does everything there is to do, and says what it was.
    fn run(&mut self) -> Vec<String> {
        let mut done = Vec::new();
        while let Some(action) = self.poll() {
            done.push(self.name(&action));
            if let Action::CommitClaims(_, claims) = &action {
                for ClaimToCommit { key, epoch } in claims {
                    self.claim(key.partition, "a", epoch.0);
                }
            }
            if !matches!(action, Action::Notice(_)) {
                match self.poll() {
                    None => {}
                    Some(notice @ Action::Notice(_)) => done.push(self.name(&notice)),
                    Some(_) => panic!("one action at a time"),
                }
                self.answer(Outcome::Done);
            }
            assert!(done.len() < 5000, "no end");
        }
        done
    }

    fn name(&self, action: &Action) -> String {
        match action {
            Action::Rebuild(_) => "rebuild".to_owned(),
            Action::ReadToEnd(_) => "read".to_owned(),
            Action::Fence(_, link) => format!("fence {link}"),
            Action::CommitClaims(_, claims) if claims.len() == 1 => {
                let (key, value) = self.owners.encode(&self.table, &claims[0]);
                let key = RecordKey::decode(&key).unwrap();
                assert_eq!((key.kind, value), (Kind::Claim(link("a")), encode_claim(claims[0].epoch)));
                format!("claim {} of {}", claims[0].epoch, key.partition.partition)
            }
            Action::CommitClaims(_, claims) => format!("{} claims", claims.len()),
            Action::Notice(Notice::Started) => "started".to_owned(),
            Action::Notice(Notice::MayWrite { key, progress }) => {
                let next = progress.as_ref().map_or(0, |progress| progress.position.next());
                format!("write {} from {next}", key.partition)
            }
            Action::Notice(Notice::Lost { key, to, epoch }) => {
                format!("lost {} to {to} {epoch}", key.partition)
            }
            Action::Notice(Notice::Refused { key, .. }) => format!("refused {}", key.partition),
        }
    }

    /// Owns partition 1 under this epoch.
    fn owning(epoch: u64) -> Self {
        let mut bench = Self::new();
        assert_eq!(bench.judge(1, epoch, None), Verdict::Wait);
        bench.run();
        assert_eq!(bench.judge(1, epoch, None), WRITE);
        bench
    }
}

fn not_owner(owner: &str, epoch: u64, alarm: bool) -> Verdict {
    Verdict::NotOwner { owner: Some(link(owner)), epoch: Some(Epoch(epoch)), alarm }
}

#[test]
fn alone_there_is_nobody_to_fence() {
    let mut bench = Bench::new();
    assert_eq!(bench.judge(1, 7, Some(99)), Verdict::Wait);
    assert_eq!(bench.run(), ["claim 7 of 1", "read", "write 1 from 0"]);
    assert_eq!(bench.judge(1, 7, Some(99)), WRITE);
    assert_eq!(bench.run(), [""; 0]);
    assert_eq!(bench.judge(1, 8, Some(99)), Verdict::Wait, "a new epoch is claimed anew");
    assert_eq!(bench.run(), ["claim 8 of 1", "read", "write 1 from 0"]);
    assert_eq!(bench.judge(1, 8, Some(99)), WRITE);
}

#[test]
fn a_restart_is_a_takeover_from_oneself() {
    let mut bench = Bench::new();
    bench.claim(1, "a", 9);
    bench.progress(1, "a", 7, 50);
    // Nobody waits for itself, and a claim never falls.
    assert_eq!(bench.judge(1, 7, Some(99)), Verdict::Wait);
    assert_eq!(bench.run(), ["claim 9 of 1", "read", "write 1 from 50"]);
    assert_eq!(bench.judge(1, 7, Some(99)), WRITE);
}

#[test]
fn who_is_known_is_fenced_before_reading_and_who_is_found_is_fenced_after_it() {
    let mut bench = Bench::new();
    bench.claim(1, "b", 3);
    bench.judge(1, 7, None);
    let claims = bench.poll().unwrap();
    assert_eq!(bench.name(&claims), "claim 7 of 1");
    bench.claim(1, "a", 7);
    bench.answer(Outcome::Done);
    let fence = bench.poll().unwrap();
    assert_eq!(bench.name(&fence), "fence b");
    bench.answer(Outcome::Done);
    let read = bench.poll().unwrap();
    assert_eq!(bench.name(&read), "read");
    bench.claim(1, "c", 4);
    bench.claim(1, "b", 5);
    bench.progress(1, "b", 5, 40);
    bench.answer(Outcome::Done);
    assert_eq!(bench.run(), ["fence b", "fence c", "read", "write 1 from 40"]);
    // The same claims again are no reason to fence again.
    bench.owners.lost_producer();
    assert_eq!(bench.run(), ["rebuild", "read", "write 1 from 40"]);
    bench.claim(1, "c", 6);
    bench.owners.lost_producer();
    assert_eq!(bench.run(), ["rebuild", "fence c", "read", "write 1 from 40"]);
}

/// A fence protects only what was claimed before it: the other link reads, finds no claim on the rest, and goes on.
#[test]
fn a_fence_for_one_partition_is_none_for_another() {
    let mut bench = Bench::new();
    bench.claim(1, "b", 3);
    bench.claim(2, "b", 3);
    bench.judge(1, 7, None);
    assert_eq!(bench.judge(2, 2, None), not_owner("b", 3, true), "known, and the other's");
    assert_eq!(bench.run(), ["claim 7 of 1", "fence b", "read", "write 1 from 0"]);
    bench.judge(2, 8, None);
    assert_eq!(bench.run(), ["claim 8 of 2", "fence b", "read", "write 2 from 0"]);
}

#[test]
fn a_thousand_partitions_are_one_round() {
    let mut bench = Bench::new();
    for partition in 0..1000 {
        bench.claim(partition, if partition % 2 == 0 { "b" } else { "c" }, 3);
        assert_eq!(bench.judge(partition, 7, None), Verdict::Wait);
    }
    let done = bench.run();
    assert_eq!(done[..4], ["1000 claims", "fence b", "fence c", "read"]);
    assert_eq!(done.len(), 1004);
    assert!((0..1000).all(|partition| bench.owners.may_write(&key(partition))));
    bench.owners.lost_producer();
    assert!((0..1000).all(|partition| !bench.owners.may_write(&key(partition))));
    assert_eq!(bench.run()[..2], ["rebuild", "read"]);
    assert!((0..1000).all(|partition| bench.owners.may_write(&key(partition))));
}

#[test]
fn claims_of_one_transaction_are_bounded() {
    let mut bench = Bench::new();
    for partition in 0..=MAX_CLAIMS as i32 {
        bench.judge(partition, 7, None);
    }
    let steps: Vec<_> = bench.run().into_iter().filter(|step| !step.starts_with("write")).collect();
    assert_eq!(steps, ["4096 claims", "read", "claim 7 of 4096", "read"]);
}

#[test]
fn a_greater_or_equal_claim_found_by_reading_means_lost() {
    for (epoch, greater) in [(8, true), (7, true), (6, false)] {
        let mut bench = Bench::new();
        bench.judge(1, 7, None);
        bench.poll();
        bench.claim(1, "a", 7);
        bench.answer(Outcome::Done);
        bench.poll();
        bench.claim(1, "b", epoch);
        bench.answer(Outcome::Done);
        if greater {
            assert_eq!(bench.run(), [format!("lost 1 to b {epoch}")]);
            assert_eq!(
                bench.judge(1, 7, None),
                not_owner("b", epoch, false),
                "it had the partition once: no alarm"
            );
            assert_eq!(bench.judge(1, 9, None), Verdict::Wait);
            assert_eq!(bench.run(), ["claim 9 of 1", "fence b", "read", "write 1 from 0"]);
        } else {
            assert_eq!(bench.run(), ["fence b", "read", "write 1 from 0"]);
        }
    }
}

#[test]
fn a_lost_producer_repeats_what_it_must() {
    // Before the claim is committed: the claim as well. After it: only reading and fencing.
    let mut bench = Bench::owning(7);
    bench.judge(2, 7, None);
    let claim = bench.poll().unwrap();
    assert_eq!(bench.name(&claim), "claim 7 of 2");
    bench.answer(Outcome::LostProducer);
    assert!(!bench.owners.may_write(&key(1)), "the owner of another partition may have fenced it");
    bench.claim(1, "b", 9);
    assert_eq!(bench.run(), ["rebuild", "claim 7 of 2", "read", "lost 1 to b 9", "write 2 from 0"]);
    bench.owners.lost_producer();
    let rebuild = bench.poll().unwrap();
    assert_eq!(bench.name(&rebuild), "rebuild");
    bench.owners.lost_producer();
    assert_eq!(bench.run(), ["rebuild", "read", "write 2 from 0"]);
}

#[test]
fn what_may_be_written_is_not_when_the_producer_is_lost_before_it_is_said() {
    let mut bench = Bench::new();
    bench.judge(1, 7, None);
    bench.judge(2, 7, None);
    for step in ["2 claims", "read"] {
        let action = bench.poll().unwrap();
        assert_eq!(bench.name(&action), step);
        bench.answer(Outcome::Done);
    }
    let notice = bench.poll().unwrap();
    assert_eq!(bench.name(&notice), "write 1 from 0");
    assert_eq!(bench.judge(2, 7, None), Verdict::Wait, "it is not yet said");
    bench.owners.lost_producer();
    assert_eq!(bench.run(), ["rebuild", "read", "write 1 from 0", "write 2 from 0"]);
}

#[test]
fn late_answers_are_passed_over() {
    let mut bench = Bench::owning(7);
    bench.judge(2, 7, None);
    let Some(Action::CommitClaims(old, _)) = bench.poll() else { panic!("no claim") };
    bench.owners.lost_producer();
    let Some(Action::Rebuild(_)) = bench.poll() else { panic!("no rebuild") };
    bench.owners.answer(old, Outcome::Done, bench.now);
    bench.answer(Outcome::Done);
    assert_eq!(bench.run()[0], "claim 7 of 2", "the claim is not taken for committed");
}

#[test]
fn what_failed_is_done_again_after_a_while() {
    let mut bench = Bench::new();
    bench.claim(1, "b", 3);
    bench.judge(1, 7, None);
    for step in ["claim 7 of 1", "fence b", "read"] {
        for outcome in [Outcome::Failed, Outcome::Done] {
            let action = bench.poll().unwrap();
            assert_eq!(bench.name(&action), step);
            bench.answer(outcome);
            if outcome == Outcome::Failed {
                assert_eq!(
                    (bench.poll(), bench.owners.next_deadline()),
                    (None, Some(bench.now + RETRY_AFTER))
                );
                bench.now += RETRY_AFTER;
            }
        }
    }
    assert_eq!(bench.run(), ["write 1 from 0"]);
}

#[test]
fn without_fencing_a_takeover_claims_and_reads() {
    let mut bench = Bench::with(false);
    bench.claim(1, "b", 3);
    bench.judge(1, 7, None);
    assert_eq!(bench.run(), ["claim 7 of 1", "read", "write 1 from 0"]);
    bench.claim(1, "b", 8);
    assert_eq!(bench.run(), ["lost 1 to b 8"], "the only way to learn of it");
}
