//! What is said of a chunk, and what changes that without a chunk.

use ddc_link::receiver::MAX_PARTITIONS;

use super::*;

#[test]
fn partitions_are_bounded() {
    let mut bench = Bench::new();
    bench.claim(0, "b", 9);
    for partition in 0..MAX_PARTITIONS as i32 {
        bench.judge(partition, 7, None);
    }
    assert_eq!(bench.owners.len(), MAX_PARTITIONS);
    assert_eq!(bench.judge(-1, 7, None), Verdict::Wait, "the lost one makes way");
    assert_eq!(bench.judge(-2, 7, None), Verdict::Refused(Refusal::TableFull));
    assert_eq!(bench.owners.len(), MAX_PARTITIONS);
}

#[test]
fn parked_until_the_other_has_caught_up_or_its_time_is_over() {
    for catches_up in [true, false] {
        let mut bench = Bench::new();
        bench.progress(1, "b", 3, 50);
        let until = bench.now + TIMEOUT;
        assert_eq!(bench.judge(1, 7, Some(99)), Verdict::Parked { until });
        bench.now += TIMEOUT / 2;
        assert_eq!(bench.judge(1, 7, Some(110)), Verdict::Parked { until }, "a later chunk changes nothing");
        bench.progress(1, "b", 3, 99);
        assert_eq!((bench.run(), bench.owners.next_deadline()), (vec![], Some(until)));
        if catches_up {
            bench.progress(1, "b", 3, 100);
            assert_eq!(bench.run(), ["claim 7 of 1", "fence b", "read", "write 1 from 100"]);
        } else {
            bench.now = until;
            assert_eq!(bench.run(), ["claim 7 of 1", "fence b", "read", "write 1 from 99"]);
        }
        assert_eq!(bench.owners.next_deadline(), None);
    }
}

#[test]
fn nobody_waits_for_what_is_not_missing() {
    let mut bench = Bench::new();
    bench.progress(1, "b", 3, 50);
    bench.progress(2, "a", 3, 50);
    assert_eq!(bench.judge(1, 7, Some(49)), Verdict::Wait, "it has everything before");
    assert_eq!(bench.judge(1, 7, None), Verdict::Wait);
    assert_eq!(bench.judge(2, 7, Some(99)), Verdict::Wait, "it is this link's own");
    assert_eq!(bench.judge(3, 7, Some(99)), Verdict::Wait, "nobody wrote it");
}

#[test]
fn while_parked_others_go_on_and_a_greater_claim_ends_it() {
    let mut bench = Bench::new();
    bench.progress(1, "b", 3, 50);
    bench.judge(1, 7, Some(99));
    assert_eq!(bench.judge(2, 7, None), Verdict::Wait);
    assert_eq!(bench.run(), ["claim 7 of 2", "read", "write 2 from 0"]);
    bench.claim(1, "c", 8);
    assert_eq!(bench.run(), ["lost 1 to c 8"]);
    assert_eq!(bench.judge(1, 7, Some(99)), not_owner("c", 8, true), "it was never claimed");
    let until = bench.now + TIMEOUT;
    assert_eq!(bench.judge(1, 9, Some(99)), Verdict::Parked { until }, "a later epoch begins anew");
}

#[test]
fn what_another_link_has_under_a_greater_epoch_is_not_even_claimed() {
    let mut bench = Bench::new();
    bench.claim(1, "b", 9);
    bench.progress(2, "b", 9, 50);
    for partition in [1, 2] {
        assert_eq!(bench.judge(partition, 7, None), not_owner("b", 9, true));
        assert_eq!(bench.judge(partition, 9, None), not_owner("b", 9, true));
    }
    assert_eq!(bench.run(), [""; 0]);
}

#[test]
fn an_owner_that_sees_a_greater_claim_stops() {
    let mut bench = Bench::owning(7);
    bench.claim(1, "b", 6);
    assert_eq!(bench.run(), [""; 0]);
    bench.claim(1, "b", 8);
    assert_eq!(bench.run(), ["lost 1 to b 8"]);
    assert!(!bench.owners.may_write(&key(1)));
    assert_eq!(bench.judge(1, 7, None), not_owner("b", 8, false));
}

#[test]
fn a_record_of_a_later_version_stops_the_owner_too() {
    for kind in [Kind::Progress, Kind::Claim(link("b"))] {
        let mut bench = Bench::owning(7);
        bench.put(1, kind, br#"{"format":2}"#);
        assert_eq!(bench.run(), ["refused 1"]);
        assert!(matches!(bench.judge(1, 7, None), Verdict::Refused(_)));
        assert!(matches!(bench.judge(1, 8, None), Verdict::Refused(_)));
        assert_eq!(bench.run(), [""; 0], "nothing is written over it");
        bench.progress(1, "a", 7, 60);
        bench.claim(1, "b", 1);
        assert_eq!(bench.judge(1, 8, None), Verdict::Wait, "somebody has mended it");
    }
}

#[test]
fn which_chunks_are_part_of_the_chain() {
    let mut bench = Bench::owning(7);
    let chain = |owner: &str, epoch, number| {
        Some(Chain { owner: link(owner), epoch: Epoch(epoch), session: session(number) })
    };
    let set_back = Verdict::Write { holes_only: false, set_back: true };
    for (chain, epoch, number, verdict) in [
        (None, 7, 5, WRITE),
        (chain("a", 7, 5), 7, 5, WRITE),
        (chain("a", 6, 5), 7, 5, WRITE),
        (chain("a", 6, 5), 7, 4, WRITE),
        (chain("b", 6, 9), 7, 5, WRITE),
        // Below the chain's epoch: only this link itself, in a newer session, can be the owner.
        (chain("a", 7, 5), 6, 5, HOLES_ONLY),
        (chain("a", 7, 5), 6, 4, HOLES_ONLY),
        (chain("a", 7, 5), 6, 6, set_back),
        (chain("b", 6, 4), 5, 6, HOLES_ONLY),
        (chain("b", 6, 4), 6, 6, HOLES_ONLY),
    ] {
        let got = bench.judge_after(chain.as_ref(), 1, ChunkKind::Live, epoch, None, number);
        assert_eq!(got, verdict, "{chain:?} {epoch} {number}");
    }
    assert_eq!(bench.replay(1), HOLES_ONLY);
    assert_eq!(bench.run(), [""; 0]);
}

#[test]
fn a_replay_makes_nobody_an_owner() {
    let mut bench = Bench::new();
    assert_eq!(bench.replay(1), Verdict::NotOwner { owner: None, epoch: None, alarm: false });
    bench.progress(1, "b", 3, 50);
    assert_eq!(bench.replay(1), not_owner("b", 3, false));
    assert!(bench.owners.is_empty());
    bench.progress(2, "a", 3, 50);
    bench.claim(2, "b", 2);
    assert_eq!(bench.replay(2), Verdict::Wait, "who was the owner goes on");
    assert_eq!(bench.run(), ["claim 3 of 2", "fence b", "read", "write 2 from 50"]);
    assert_eq!(bench.replay(2), HOLES_ONLY);
}
