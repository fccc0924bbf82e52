//! A run is recorded call by call. After every prefix of it, as a kill and as a power cut leave it, the spool must open and
//! hold what was promised at that point: after a kill everything appended, after a power cut everything durable; never a wrong
//! frame, never one twice, always in order.
//!
//! After a power cut a call that was not followed by a sync of its file (or, for names, of the directory) may be done, not done,
//! or half done. Names are done in order, as journals do them; writes to a file in any choice of them.

use std::collections::BTreeSet;

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::memory::{Call, Note, State};
use super::*;
use crate::Span;

/// What was promised up to a point of the run.
#[derive(Debug, Default, Clone, Copy)]
struct Promised {
    appended: u64,
    durable: u64,
    settling: u64,
}

/// Appends, syncs, settles, checkpoints, opens again; noting each promise after it was made.
fn recorded_run(seed: u64, options: &Options, steps: usize) -> MemoryDisk {
    let (mut rng, disk) = (rng(seed), MemoryDisk::default());
    let mut opened = open_with(&disk, options.clone());
    let (mut spans, mut next): (Vec<Span>, u64) = (Vec::new(), 0);
    let always = options.fsync == Fsync::Always;
    for _ in 0..steps {
        match rng.next_u32() % 16 {
            0..=10 => {
                spans.extend(append(&mut opened, [next]));
                next += 1;
                disk.note(Note::Appended(next));
                if always {
                    disk.note(Note::Durable(next));
                }
            }
            11 | 12 => {
                opened.spool.sync().unwrap();
                disk.note(Note::Durable(next));
            }
            13 | 14 => {
                let up_to = rng.next_u64() % (next + 1);
                for span in &spans[..up_to as usize] {
                    opened.spool.settle(*span).unwrap();
                }
                let lowest = opened.spool.lowest();
                disk.note(Note::Settling(spans.iter().filter(|span| span.end <= lowest).count() as u64));
                opened.spool.checkpoint(&next.to_be_bytes()).unwrap();
            }
            _ => {
                // As a kill: the handles go without their last sync, which `Never` leaves out.
                let killed = MemoryDisk::of(disk.state());
                let report = open_with(&killed, options.clone()).report;
                assert!(report.findings.is_empty(), "{:?}", report.findings);
            }
        }
    }
    disk
}

fn rng(seed: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

/// Opens what is left and compares it with what was promised. Frames from `must` on downwards to the settled ones are there.
fn check(state: State, options: &Options, promised: Promised, must: u64, context: &str) {
    let disk = MemoryDisk::of(state);
    let mut opened = open_with(&disk, options.clone());
    let all = read_all(&mut opened.reader);
    let numbers = numbers(&all);
    assert!(
        numbers.windows(2).all(|pair| pair[0] < pair[1]),
        "{context}: out of order or twice: {numbers:?}"
    );
    let there = BTreeSet::from_iter(numbers.iter().copied());
    for number in promised.settling..must {
        let findings = &opened.report.findings;
        assert!(
            there.contains(&number),
            "{context}: {number} of {promised:?} is lost: {numbers:?} {findings:?}"
        );
    }
    // What was being appended when it ended may be there, nothing beyond.
    assert!(
        numbers.iter().all(|&number| number <= promised.appended),
        "{context}: from nowhere: {numbers:?}"
    );
    // Blocks of frames that are there are not forgotten.
    for &number in &numbers {
        let known = opened.report.sessions.iter().find(|mark| mark.session == head(number).session);
        assert!(known.is_some_and(|mark| mark.block >= number), "{context}: block of {number} is forgotten");
    }
    // It goes on, and what is appended now comes after everything else.
    append(&mut opened, [1_000_000]);
    opened.spool.sync().unwrap();
    drop(opened);
    let mut again = open_with(&MemoryDisk::of(disk.state()), options.clone());
    let all_again = read_all(&mut again.reader);
    let expected: Vec<u64> = numbers.into_iter().chain([1_000_000]).collect();
    assert_eq!(self::numbers(&all_again), expected, "{context}: after one more frame");
    let lossy: Vec<_> = again
        .report
        .findings
        .iter()
        .filter(|finding| matches!(finding, crate::Finding::TornTail { .. }))
        .collect();
    assert!(lossy.is_empty(), "{context}: a cut tail is reported once: {lossy:?}");
}

/// Each prefix of a run, with what was promised there.
fn prefixes(calls: &[Call], mut each: impl FnMut(usize, &[Call], Promised)) {
    let mut promised = Promised::default();
    for (at, call) in calls.iter().enumerate() {
        match call {
            Call::Note(Note::Appended(next)) => promised.appended = *next,
            Call::Note(Note::Durable(next)) => promised.durable = *next,
            Call::Note(Note::Settling(below)) => promised.settling = *below,
            _ => each(at + 1, &calls[..=at], promised),
        }
    }
}

#[test]
fn a_kill_at_any_call_loses_nothing_that_was_appended() {
    for seed in 0..6 {
        let options = options();
        let disk = recorded_run(seed, &options, 120);
        prefixes(&disk.calls(), |at, calls, promised| {
            let mut state = State::default();
            for call in calls {
                state.apply(call);
            }
            check(state.clone(), &options, promised, promised.appended, &format!("seed {seed} call {at}"));
            // The last write half done: the process was killed in the middle of it.
            if let Some(Call::Write(file, offset, bytes)) = calls.last() {
                for part in [1, bytes.len() / 2, bytes.len() - 1] {
                    let mut state = State::default();
                    calls[..calls.len() - 1].iter().for_each(|call| state.apply(call));
                    state.apply(&Call::Write(*file, *offset, bytes[..part].to_vec()));
                    let context = format!("seed {seed} call {at} cut at {part}");
                    check(state, &options, promised, promised.appended, &context);
                }
            }
        });
    }
}

/// What may be on the disk after a power cut, one choice of many.
fn after_power_cut(calls: &[Call], rng: &mut TestRng, style: u32) -> State {
    let last_sync =
        |number: usize| calls.iter().rposition(|call| matches!(call, Call::Sync(file) if *file == number));
    let names_synced = calls.iter().rposition(|call| matches!(call, Call::SyncDirectory));
    let pending = calls.len() - names_synced.map_or(0, |at| at + 1);
    // How many of the calls behind the last sync of the directory had reached the journal.
    let journal =
        calls.len() - pending + [0, pending, rng.next_u32() as usize % (pending + 1)][style as usize % 3];
    let mut state = State::default();
    for (at, call) in calls.iter().enumerate() {
        match call {
            Call::Write(file, offset, bytes) if last_sync(*file).is_none_or(|synced| synced < at) => {
                match (style / 3, rng.next_u32() % 4) {
                    (0, _) | (2, 0) => {}
                    (1, _) | (2, 1) => state.apply(call),
                    // Half of it, or the length without the content.
                    (_, 2) => {
                        let part = rng.next_u32() as usize % (bytes.len() + 1);
                        state.apply(&Call::Write(*file, *offset, bytes[..part].to_vec()));
                    }
                    _ => state.apply(&Call::Write(*file, *offset, vec![0; bytes.len()])),
                }
            }
            Call::SetLen(file, _)
                if last_sync(*file).is_none_or(|synced| synced < at) && rng.next_u32().is_multiple_of(2) => {}
            Call::Create(..) | Call::Rename(..) | Call::Remove(_) if at >= journal => {}
            call => state.apply(call),
        }
    }
    state
}

#[test]
fn a_power_cut_at_any_call_loses_nothing_that_was_durable() {
    for (seed, fsync) in
        [(1, options().fsync), (2, options().fsync), (3, options().fsync), (4, Fsync::Always)]
    {
        let options = Options { fsync, ..options() };
        let disk = recorded_run(seed, &options, 100);
        let mut rng = rng(seed + 100);
        prefixes(&disk.calls(), |at, calls, promised| {
            for style in 0..9 {
                let state = after_power_cut(calls, &mut rng, style);
                let context = format!("seed {seed} call {at} style {style}");
                check(state, &options, promised, promised.durable, &context);
            }
        });
    }
}

/// The checks above are worth something: a spool that forgets to sync loses durable frames in them.
#[test]
#[should_panic(expected = "is lost")]
fn a_sync_that_does_nothing_is_noticed() {
    let disk = recorded_run(1, &options(), 100);
    let mut rng = rng(5);
    let calls: Vec<Call> = disk.calls().into_iter().filter(|call| !matches!(call, Call::Sync(_))).collect();
    prefixes(&calls, |at, calls, promised| {
        check(
            after_power_cut(calls, &mut rng, 1),
            &options(),
            promised,
            promised.durable,
            &format!("call {at}"),
        );
    });
}

#[test]
fn positions_are_not_given_out_twice_for_what_was_settled() {
    let disk = MemoryDisk::default();
    let mut opened = open(&disk);
    append(&mut opened, 0..3);
    opened.spool.sync().unwrap();
    let spans = append(&mut opened, 3..6);
    opened.spool.settle_below(spans[1].end).unwrap();
    opened.spool.checkpoint(b"").unwrap();
    // The power is cut: nothing that was not synced is there, but the checkpoint is.
    let state = after_power_cut(&disk.calls(), &mut rng(0), 0);
    let mut opened = open(&MemoryDisk::of(state));
    let findings = &opened.report.findings;
    let missing = Span { start: spans[1].end, end: spans[2].end };
    assert!(findings.contains(&crate::Finding::Missing(missing)), "{findings:?}");
    assert_eq!(append(&mut opened, [9])[0].start, spans[2].end);
    assert_eq!(numbers(&read_all(&mut opened.reader)), [9]);
    assert_eq!(opened.spool.lowest(), spans[2].end, "what is missing need not be settled");
}
