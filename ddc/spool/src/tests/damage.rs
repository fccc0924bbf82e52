//! Bits that flip, places that cannot be read, files that vanish: only what was hit is lost, and it is named exactly.

use super::*;
use crate::frame::FRAME_HEADER;
use crate::header::HEADER_AREA;
use crate::{Finding, ReadError, Span};

/// A spool of some segments, all of it on disk, and its spans.
fn small() -> (MemoryDisk, Vec<Span>) {
    let disk = MemoryDisk::default();
    let mut opened = open(&disk);
    let spans = append(&mut opened, 0..20);
    (disk, spans)
}

#[test]
fn a_flipped_bit_anywhere_costs_the_frame_hit_and_no_other() {
    let (disk, spans) = small();
    let state = disk.state();
    let names = state.segments();
    assert!(names.len() > 3);
    let last = names.last().unwrap();
    for name in &names {
        let base: u64 = name.strip_suffix(".seg").unwrap().parse().unwrap();
        let len = state.clone().file(name).len();
        // Of the headers a sample: that each byte of a copy counts is shown beside the code.
        for at in (0..HEADER_AREA as usize).step_by(97).chain(HEADER_AREA as usize..len) {
            let mut state = state.clone();
            state.file(name)[at] ^= 1 << (at % 8);
            let mut opened = open(&MemoryDisk::of(state));
            let all = read_all(&mut opened.reader);
            let context = format!("{name} byte {at}");
            if (at as u64) < HEADER_AREA {
                assert_eq!(numbers(&all), Vec::from_iter(0..20), "{context}");
                assert_eq!(
                    opened.report.findings,
                    [Finding::HeaderCopy { segment: name.clone() }],
                    "{context}"
                );
                continue;
            }
            let position = base + at as u64 - HEADER_AREA;
            let hit =
                spans.iter().position(|span| (span.start..span.end).contains(&position)).unwrap() as u64;
            assert_eq!(numbers(&all), Vec::from_iter((0..20).filter(|&n| n != hit)), "{context}");
            let told: Vec<_> = all
                .iter()
                .filter_map(|next| if let Next::Damaged(damage) = next { Some(damage) } else { None })
                .collect();
            if hit == 19 {
                // At the very end a damaged frame looks like a torn one.
                let cut = opened.report.findings.iter().find_map(|finding| match finding {
                    Finding::TornTail { segment, offset, bytes, .. } => Some((segment, *offset, *bytes)),
                    _ => None,
                });
                let offset = HEADER_AREA + spans[19].start - base;
                assert_eq!(cut, Some((last, offset, spans[19].bytes())), "{context}");
                assert!(told.is_empty());
                continue;
            }
            assert_eq!(told.len(), 1, "{context}");
            assert_eq!((told[0].span, &told[0].segment), (spans[hit as usize], name), "{context}");
            assert_eq!(told[0].offset, HEADER_AREA + spans[hit as usize].start - base, "{context}");
            let header_hit = position < spans[hit as usize].start + FRAME_HEADER as u64 - 4;
            assert_eq!(told[0].head, (!header_hit).then(|| head(hit)), "{context}");
            let single = opened.spool.read(spans[hit as usize].start);
            assert!(matches!(single, Err(ReadError::Damaged(damage)) if damage == *told[0]), "{context}");
            assert_eq!(opened.spool.stats().counts.damaged, 2, "{context}");
        }
    }
}

#[test]
fn a_torn_tail_is_cut_at_the_byte_and_told_once() {
    let (disk, spans) = small();
    let last = disk.state().segments().pop().unwrap();
    let base: u64 = last.strip_suffix(".seg").unwrap().parse().unwrap();
    let offset = HEADER_AREA + spans[19].start - base;
    for kept in 1..spans[19].bytes() {
        let mut state = disk.state();
        state.file(&last).truncate((offset + kept) as usize);
        let disk = MemoryDisk::of(state);
        let report = open(&disk).report;
        let frames = u64::from(kept >= FRAME_HEADER as u64);
        let torn = Finding::TornTail { segment: last.clone(), offset, bytes: kept, frames };
        // The checkpoint of its start does not know of the frame, so nothing else is missed.
        assert_eq!((report.findings, report.end, report.frames), (vec![torn], spans[19].start, 19));
        assert_eq!(disk.state().file(&last).len() as u64, offset);
        let mut again = open(&disk);
        assert!(again.report.findings.is_empty(), "{:?}", again.report.findings);
        assert_eq!(numbers(&read_all(&mut again.reader)), Vec::from_iter(0..19));
    }
}

#[test]
fn whole_frames_of_another_place_are_not_taken_for_frames_here() {
    let (disk, spans) = small();
    let mut state = disk.state();
    let names = state.segments();
    let base: u64 = names[1].strip_suffix(".seg").unwrap().parse().unwrap();
    let inside: Vec<_> = spans.iter().filter(|span| span.start >= base).take(2).copied().collect();
    // A recycled block of the disk: the first frames of segment 0 appear where those of segment 1 should be.
    let from = state.file(&names[0])[HEADER_AREA as usize..].to_vec();
    let to = HEADER_AREA as usize..(HEADER_AREA + inside[1].end - base) as usize;
    state.file(&names[1])[to.clone()].copy_from_slice(&from[..to.len()]);
    let mut opened = open(&MemoryDisk::of(state));
    let all = read_all(&mut opened.reader);
    let first = spans.iter().position(|span| *span == inside[0]).unwrap() as u64;
    assert_eq!(numbers(&all), Vec::from_iter((0..20).filter(|&n| n != first && n != first + 1)));
    let lost: u64 =
        all.iter().map(|next| if let Next::Damaged(damage) = next { damage.span.bytes() } else { 0 }).sum();
    assert_eq!(lost, inside[0].bytes() + inside[1].bytes());
}

#[test]
fn a_whole_segment_file_in_the_place_of_another_is_not_read() {
    let (disk, _) = small();
    let mut state = disk.state();
    let names = state.segments();
    let other = state.file(&names[1]).clone();
    *state.file(&names[2]) = other;
    let mut opened = open(&MemoryDisk::of(state));
    let misnamed = Finding::Misnamed { file: names[2].clone(), should_be: names[1].clone() };
    assert!(opened.report.findings.contains(&misnamed), "{:?}", opened.report.findings);
    let numbers = numbers(&read_all(&mut opened.reader));
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]) && numbers.len() > 10);
}

#[test]
fn a_missing_file_in_the_middle_is_named_with_its_positions() {
    let (disk, spans) = small();
    for gone in 0..disk.state().segments().len() - 1 {
        let mut state = disk.state();
        let names = state.segments();
        state.names.remove(&names[gone]);
        let base = |at: usize| names[at].strip_suffix(".seg").unwrap().parse::<u64>().unwrap();
        let missing = Span { start: base(gone), end: base(gone + 1) };
        let mut opened = open(&MemoryDisk::of(state));
        assert_eq!(opened.report.findings, [Finding::Missing(missing)]);
        let there = (0..20).filter(|&n| {
            let span = spans[n as usize];
            span.end <= missing.start || span.start >= missing.end
        });
        assert_eq!(numbers(&read_all(&mut opened.reader)), Vec::from_iter(there));
        // What is in no file need not be settled.
        spans.iter().filter(|span| span.end <= missing.start || span.start >= missing.end).for_each(|span| {
            opened.spool.settle(*span).unwrap();
        });
        assert_eq!(opened.spool.lowest(), spans[19].end);
    }
}

#[test]
fn a_segment_whose_header_is_gone_is_lost_by_name_and_trimmed_in_its_turn() {
    let (disk, spans) = small();
    let mut state = disk.state();
    let names = state.segments();
    state.file(&names[1])[..HEADER_AREA as usize].fill(0xee);
    let disk = MemoryDisk::of(state);
    let mut opened = open(&disk);
    let base = |at: usize| names[at].strip_suffix(".seg").unwrap().parse::<u64>().unwrap();
    let span = Span { start: base(1), end: base(2) };
    assert_eq!(opened.report.findings, [Finding::Header { segment: names[1].clone(), span }]);
    let all = read_all(&mut opened.reader);
    let damage: Vec<_> = all
        .iter()
        .filter_map(|next| if let Next::Damaged(damage) = next { Some(damage.span) } else { None })
        .collect();
    assert_eq!(damage, [span]);
    let there =
        (0..20).filter(|&n| spans[n as usize].end <= span.start || spans[n as usize].start >= span.end);
    assert_eq!(numbers(&all), Vec::from_iter(there));
    opened.spool.settle_below(spans[19].end).unwrap();
    opened.spool.checkpoint(b"").unwrap();
    assert!(disk.state().segments().is_empty(), "{:?}", disk.state().segments());
    // The same with the last one: it cannot be told from rubbish, so it is kept aside.
    let (disk, spans) = small();
    let mut state = disk.state();
    let last = state.segments().pop().unwrap();
    state.file(&last)[..HEADER_AREA as usize].fill(0xee);
    let disk = MemoryDisk::of(state);
    let mut opened = open(&disk);
    let aside = format!("{last}.bad");
    assert!(
        matches!(&opened.report.findings[0], Finding::SetAside { file, span } if *file == aside && span.end == spans[19].end)
    );
    assert!(disk.state().names.contains_key(&aside));
    assert_eq!(append(&mut opened, [50])[0].start, spans[19].end, "its positions are not used again");
}

#[test]
fn a_file_shorter_than_its_frames_loses_those_behind_its_end() {
    let (disk, spans) = small();
    let mut state = disk.state();
    let names = state.segments();
    let base: u64 = names[2].strip_suffix(".seg").unwrap().parse().unwrap();
    let at = spans.iter().position(|span| span.start == base).unwrap();
    // The second frame of segment 2 loses its last byte, and what is behind it is gone.
    state.file(&names[2]).truncate((HEADER_AREA + spans[at + 1].end - base - 1) as usize);
    let mut opened = open(&MemoryDisk::of(state));
    let next_base: u64 = names[3].strip_suffix(".seg").unwrap().parse().unwrap();
    let all = read_all(&mut opened.reader);
    let there = (0..20).filter(|&n| n as usize <= at || spans[n as usize].start >= next_base);
    assert_eq!(numbers(&all), Vec::from_iter(there));
    let torn = Span { start: spans[at + 1].start, end: spans[at + 1].end - 1 };
    assert!(
        all.iter().any(
            |next| matches!(next, Next::Damaged(damage) if damage.span == torn && damage.head.is_some())
        )
    );
    if torn.end + 1 < next_base {
        assert_eq!(opened.report.findings, [Finding::Missing(Span { start: torn.end, end: next_base })]);
    }
}

#[test]
fn a_place_that_cannot_be_read_is_tried_again_until_it_is_given_up() {
    let (disk, spans) = small();
    let name = disk.state().segments()[1].clone();
    let base: u64 = name.strip_suffix(".seg").unwrap().parse().unwrap();
    let at = spans.iter().position(|span| span.start == base).unwrap();
    for (from, to, whole_head) in [(70, 72, true), (3, 5, false)] {
        let mut opened = open(&disk);
        let start = HEADER_AREA + spans[at + 1].start - base;
        disk.faults(|faults| faults.read = Some((name.clone(), start + from, start + to)));
        let mut read = Vec::new();
        let error = loop {
            match opened.reader.next(NOW) {
                Ok(next) => read.push(next),
                Err(error) => break error,
            }
        };
        assert!(matches!(&error, ReadError::Io { segment, .. } if *segment == name), "{error}");
        assert!(opened.reader.next(NOW).is_err() && opened.reader.next(NOW).is_err());
        let position = opened.reader.position();
        assert!(read.iter().all(|next| matches!(next, Next::Frame(_))));
        // It comes back by itself: nothing is lost.
        disk.faults(|faults| faults.read = None);
        let mut all = read.clone();
        all.extend(read_all(&mut opened.reader));
        assert_eq!(numbers(&all), Vec::from_iter(0..20));
        // It does not: what is readable around it is not lost.
        disk.faults(|faults| faults.read = Some((name.clone(), start + from, start + to)));
        let mut reader = opened.spool.reader_at(position);
        let mut lost = Vec::new();
        let mut rest = Vec::new();
        loop {
            match reader.next(NOW) {
                Ok(Next::Nothing | Next::Closed) => break,
                Ok(next) => rest.push(next),
                Err(_) => lost.push(reader.skip().unwrap()),
            }
        }
        disk.faults(|faults| faults.read = None);
        let there = numbers(&rest);
        let hit = at as u64 + 1;
        assert!(!there.contains(&hit) && there.last() == Some(&19), "{there:?}");
        assert!(lost.iter().any(|damage| damage.head.is_some()) == whole_head, "{lost:?}");
        if whole_head {
            assert_eq!(lost.last().unwrap().span, spans[hit as usize]);
            assert_eq!(
                there,
                Vec::from_iter((number_of(&opened.spool.read(position).unwrap())..20).filter(|&n| n != hit))
            );
        }
    }
}

#[test]
fn rubbish_in_the_place_of_a_segment_never_panics() {
    let (disk, _) = small();
    let names = disk.state().segments();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for round in 0..300 {
        let strategy = proptest::collection::vec(proptest::num::u8::ANY, 0..10_000);
        let bytes = proptest::strategy::ValueTree::current(
            &proptest::strategy::Strategy::new_tree(&strategy, &mut runner).unwrap(),
        );
        let mut state = disk.state();
        let file = state.file(&names[round % names.len()]);
        match round % 3 {
            // Whole, behind a good header, or in the middle.
            0 => *file = bytes,
            1 => file.splice(HEADER_AREA as usize.., bytes).for_each(drop),
            _ => {
                let at = round * 7 % file.len();
                let len = bytes.len().min(file.len() - at);
                file[at..at + len].copy_from_slice(&bytes[..len]);
            }
        }
        let mut opened = open(&MemoryDisk::of(state));
        let numbers = numbers(&read_all(&mut opened.reader));
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
        append(&mut opened, [100]);
        assert_eq!(self::numbers(&read_all(&mut opened.reader)), [100]);
    }
}
