//! No room, no disk, no sync: what is refused, what goes, and how it goes on.

use super::*;
use crate::{Counts, Lost, ReadError, Refused, Span, Why};

/// Room for four segments of about five frames.
fn tight(when_full: WhenFull) -> Options {
    Options { max_bytes: 4 * (8192 + 1000), when_full, ..options() }
}

fn try_append(opened: &mut Opened, number: u64) -> Result<Span, Refused> {
    opened.appender.append(&head(number), &[&payload(number)])
}

#[test]
fn a_full_spool_refuses_the_newest_until_a_whole_segment_fits_again() {
    let disk = MemoryDisk::default();
    let mut opened = open_with(&disk, tight(WhenFull::DropNewest));
    let mut spans = Vec::new();
    let refused = loop {
        match try_append(&mut opened, spans.len() as u64) {
            Ok(span) => spans.push(span),
            Err(refused) => break refused,
        }
    };
    assert!(
        matches!(refused, Refused::Full { used, limit } if used <= limit && limit == tight(WhenFull::DropNewest).max_bytes)
    );
    let stats = opened.spool.stats();
    assert!(stats.bytes <= 4 * 9192 && stats.bytes > 3 * 9192 && stats.refusing.is_some());
    assert!(opened.spool.condemned().is_none(), "the newest is dropped, not the oldest");
    // One frame settled is not enough, a segment is.
    let first_end: u64 = disk.state().segments()[1].strip_suffix(".seg").unwrap().parse().unwrap();
    opened.spool.settle(spans[0]).unwrap();
    opened.spool.checkpoint(b"").unwrap();
    assert!(try_append(&mut opened, 1000).is_err());
    opened.spool.settle_below(first_end).unwrap();
    assert!(try_append(&mut opened, 1000).is_err(), "not before it is trimmed");
    opened.spool.checkpoint(b"").unwrap();
    try_append(&mut opened, 1000).unwrap();
    let stats = opened.spool.stats();
    assert_eq!((stats.counts.refused_full, stats.refusing), (3, None));
    let there: Vec<u64> =
        (0..spans.len() as u64).filter(|&n| spans[n as usize].start >= first_end).chain([1000]).collect();
    let all = read_all(&mut opened.reader);
    assert!(matches!(all[0], Next::Skipped(_)), "the reader had not read what somebody settled");
    assert_eq!(numbers(&all), there);
}

#[test]
fn the_oldest_goes_once_the_caller_knows_what_is_lost_with_it() {
    let disk = MemoryDisk::default();
    let mut opened = open_with(&disk, tight(WhenFull::DropOldest));
    let (mut lost, mut settled) = (Vec::new(), Vec::new());
    for n in 0..200 {
        let span = try_append(&mut opened, n).unwrap();
        // Every third is settled at once.
        if n % 3 == 0 {
            opened.spool.settle(span).unwrap();
            settled.push(n);
        }
        while let Some(mut condemned) = opened.spool.condemned() {
            assert_eq!(condemned.why(), Why::Room);
            while let Some(next) = condemned.next_lost().unwrap() {
                match next {
                    Lost::Frame(frame) => lost.push(number_of(&frame)),
                    Lost::Damaged(damage) => panic!("{damage}"),
                }
            }
            condemned.let_go().unwrap();
        }
        assert!(opened.spool.stats().bytes <= 4 * 9192);
    }
    let stats = opened.spool.stats();
    assert_eq!((stats.counts.refused_full, stats.counts.dropped_frames), (0, lost.len() as u64));
    let mut held = numbers(&read_all(&mut opened.reader));
    held.retain(|n| n % 3 != 0);
    assert!(lost.len() > 50 && !held.is_empty());
    let all: Vec<u64> = lost.into_iter().chain(held).collect();
    assert_eq!(
        all,
        Vec::from_iter((0..200).filter(|n| n % 3 != 0)),
        "each is lost by name, or held; never both"
    );
}

#[test]
fn a_condemned_segment_that_nobody_lets_go_stays_and_the_newest_is_refused() {
    let mut opened = open_with(&MemoryDisk::default(), tight(WhenFull::DropOldest));
    let mut n = 0;
    while try_append(&mut opened, n).is_ok() {
        drop(opened.spool.condemned());
        n += 1;
    }
    assert_eq!(numbers(&read_all(&mut opened.reader)), Vec::from_iter(0..n));
    opened.spool.condemned().unwrap().let_go().unwrap();
    try_append(&mut opened, n).unwrap();
}

#[test]
fn one_refusal_drops_one_segment_and_an_error_of_the_disk_none() {
    let disk = MemoryDisk::default();
    let mut opened = open_with(&disk, Options { when_full: WhenFull::DropOldest, ..options() });
    append(&mut opened, 0..40);
    disk.faults(|faults| faults.write = true);
    assert_eq!(try_append(&mut opened, 40).unwrap_err().as_str(), "spool_error");
    assert!(opened.spool.condemned().is_none(), "dropping frames would not help");
    disk.faults(|faults| (faults.write, faults.room) = (false, Some(0)));
    assert_eq!(try_append(&mut opened, 40).unwrap_err().as_str(), "disk_full");
    let mut dropped = 0;
    while let Some(condemned) = opened.spool.condemned() {
        condemned.let_go().unwrap();
        dropped += 1;
    }
    assert_eq!(dropped, 1);
    try_append(&mut opened, 40).unwrap();
    assert!(opened.spool.condemned().is_none());
}

#[test]
fn what_was_let_go_is_not_given_any_more_even_if_its_file_is_still_there() {
    let disk = MemoryDisk::default();
    let mut opened = open_with(&disk, Options { tail_bytes: 100_000, ..tight(WhenFull::DropOldest) });
    let mut spans = Vec::new();
    while let Ok(span) = try_append(&mut opened, spans.len() as u64) {
        spans.push(span);
    }
    disk.faults(|faults| faults.sync = true);
    let condemned = opened.spool.condemned().unwrap();
    let gone = condemned.span();
    assert!(condemned.let_go().is_err(), "no checkpoint, so the file stays");
    assert!(opened.spool.stats().checkpoint_error.is_some() && disk.state().segments().len() == 4);
    assert!(matches!(opened.spool.read(spans[0].start), Err(ReadError::Absent(0))));
    let all = read_all(&mut opened.reader);
    assert_eq!(all[0], Next::Skipped(gone));
    let there = (0..spans.len() as u64).filter(|&n| spans[n as usize].start >= gone.end);
    assert_eq!(numbers(&all), Vec::from_iter(there));
    disk.faults(|faults| faults.sync = false);
    opened.spool.checkpoint(b"").unwrap();
    assert_eq!(disk.state().segments().len(), 3);
}

#[test]
fn what_is_too_old_goes_whatever_the_policy() {
    let options = Options { max_age: Some(Duration::from_secs(1)), ..options() };
    let mut opened = open_with(&MemoryDisk::default(), options);
    append(&mut opened, 0..12);
    assert!(opened.spool.condemned().is_none());
    std::thread::sleep(Duration::from_millis(1100));
    let first = opened.spool.condemned().unwrap();
    assert_eq!((first.why(), first.span().start), (Why::Age, 0));
    first.let_go().unwrap();
    append(&mut opened, 12..13);
    while let Some(condemned) = opened.spool.condemned() {
        condemned.let_go().unwrap();
    }
    assert_eq!(
        numbers(&read_all(&mut opened.reader)).last(),
        Some(&12),
        "the newest segment is never too old"
    );
}

#[test]
fn a_disk_full_at_any_byte_refuses_one_frame_and_hurts_no_other() {
    // Each byte of some frames, a sample of the bytes of headers.
    let rooms =
        (0..8192).step_by(331).chain(8192..9192).chain((9192..17_000).step_by(331)).chain(17_000..17_800);
    for room in rooms {
        let disk = MemoryDisk::default();
        let mut opened = open_with(&disk, Options { tail_bytes: 500, ..options() });
        disk.faults(|faults| faults.room = Some(room));
        let mut kept = Vec::new();
        for n in 0..14 {
            match try_append(&mut opened, n) {
                Ok(_) => kept.push(n),
                Err(refused) => assert_eq!(refused.as_str(), "disk_full"),
            }
        }
        assert!(kept.len() < 14, "room {room}");
        disk.faults(|faults| faults.room = None);
        kept.extend(14..20);
        append(&mut opened, 14..20);
        assert_eq!(opened.spool.stats().refusing, None);
        assert_eq!(numbers(&read_all(&mut opened.reader)), kept, "room {room}");
        let killed = MemoryDisk::of(disk.state());
        let mut opened = open(&killed);
        assert!(opened.report.findings.is_empty(), "room {room}: {:?}", opened.report.findings);
        assert_eq!(numbers(&read_all(&mut opened.reader)), kept, "room {room}");
    }
}

#[test]
fn a_full_disk_still_takes_a_checkpoint_and_trimming_makes_room() {
    let disk = MemoryDisk::default();
    let mut opened = open(&disk);
    let spans = append(&mut opened, 0..30);
    assert!(disk.state().names.contains_key("reserve"));
    disk.faults(|faults| faults.room = Some(0));
    assert!(matches!(try_append(&mut opened, 30), Err(Refused::DiskFull(_))));
    opened.spool.settle_below(spans[29].end).unwrap();
    let table = vec![7; 1000];
    opened.spool.checkpoint(&table).unwrap();
    assert_eq!(disk.state().segments().len(), 0, "all of them were closed and settled");
    assert!(disk.state().names.contains_key("reserve"), "made again, of what was trimmed");
    append(&mut opened, [30]);
    assert_eq!(open(&MemoryDisk::of(disk.state())).report.table, table);
}

#[test]
fn a_half_written_frame_that_cannot_be_cut_off_hurts_nothing() {
    let disk = MemoryDisk::default();
    let mut opened = open(&disk);
    append(&mut opened, 0..2);
    disk.faults(|faults| (faults.write, faults.set_len) = (true, true));
    for n in 2..5 {
        assert_eq!(try_append(&mut opened, n).unwrap_err().as_str(), "spool_error");
    }
    disk.faults(|faults| (faults.write, faults.set_len) = (false, false));
    append(&mut opened, 5..8);
    assert_eq!(numbers(&read_all(&mut opened.reader)), [0, 1, 5, 6, 7]);
    let mut opened = open(&MemoryDisk::of(disk.state()));
    assert!(opened.report.findings.is_empty(), "{:?}", opened.report.findings);
    assert_eq!(numbers(&read_all(&mut opened.reader)), [0, 1, 5, 6, 7]);
}

#[test]
fn after_a_failure_the_disk_is_left_alone_for_a_while() {
    let disk = MemoryDisk::default();
    let mut opened = open_with(&disk, Options { retry_after: Duration::from_millis(800), ..options() });
    disk.faults(|faults| faults.room = Some(0));
    assert!(try_append(&mut opened, 0).is_err());
    disk.faults(|faults| faults.room = None);
    assert!(try_append(&mut opened, 0).is_err() && opened.appender.retry_in() > NOW);
    std::thread::sleep(opened.appender.retry_in());
    try_append(&mut opened, 0).unwrap();
    let counts = opened.spool.stats().counts;
    assert_eq!(counts, Counts { refused_disk_full: 2, write_errors: 1, ..counts });
    // Room that was made is used at once, and a refusal without a look at the disk asks for no more of it.
    let options =
        Options { retry_after: Duration::from_hours(1), when_full: WhenFull::DropOldest, ..options() };
    let mut opened = open_with(&disk, options);
    append(&mut opened, 1..20);
    disk.faults(|faults| faults.room = Some(0));
    assert!(try_append(&mut opened, 20).is_err());
    opened.spool.condemned().unwrap().let_go().unwrap();
    disk.faults(|faults| faults.room = Some(20_000));
    append(&mut opened, [20]);
    disk.faults(|faults| faults.room = Some(0));
    assert!(try_append(&mut opened, 21).is_err());
    opened.spool.condemned().unwrap().let_go().unwrap();
    disk.faults(|faults| faults.room = Some(0));
    let looks = |opened: &Opened| opened.spool.stats().counts.write_errors;
    let before = looks(&opened);
    assert!(try_append(&mut opened, 21).is_err() && looks(&opened) == before + 1, "it looks again, in vain");
    let condemned = opened.spool.condemned().expect("it wants more room");
    assert!(try_append(&mut opened, 21).is_err() && looks(&opened) == before + 1, "now it does not look");
    condemned.let_go().unwrap();
    assert!(opened.spool.condemned().is_none(), "what was refused without a look wants nothing");
}

#[test]
fn a_failed_fsync_is_never_believed_later() {
    let disk = MemoryDisk::default();
    let mut opened = open(&disk);
    let first = append(&mut opened, 0..2);
    opened.spool.sync().unwrap();
    let doubtful = append(&mut opened, 2..4);
    disk.faults(|faults| faults.sync = true);
    opened.spool.sync().unwrap_err();
    disk.faults(|faults| faults.sync = false);
    let segments = disk.state().segments().len();
    let after = append(&mut opened, 4..5);
    assert_eq!(disk.state().segments().len(), segments + 1, "it goes on in a new file");
    opened.spool.sync().unwrap();
    let stats = opened.spool.stats();
    assert_eq!(stats.doubtful, [Span { start: first[1].end, end: doubtful[1].end }]);
    assert_eq!((stats.durable, stats.counts.fsync_errors, stats.fsync_error), (after[0].end, 1, None));
    // The pages are still there, so they are read; a power cut would tell.
    assert_eq!(numbers(&read_all(&mut opened.reader)), Vec::from_iter(0..5));
    opened.spool.settle_below(doubtful[1].end).unwrap();
    opened.spool.checkpoint(b"").unwrap();
    assert!(opened.spool.stats().doubtful.is_empty());

    // A frame that was on its way into the file while its fsync failed is doubtful too, though the next one succeeds.
    let last = append(&mut opened, 20..21)[0];
    disk.faults(|faults| faults.sync = true);
    opened.spool.sync().unwrap_err();
    disk.faults(|faults| faults.sync = false);
    opened.spool.shared.log().roll = false;
    let on_its_way = append(&mut opened, 21..22)[0];
    opened.spool.sync().unwrap_err();
    assert_eq!(opened.spool.stats().doubtful, [Span { start: last.start, end: on_its_way.end }]);
    opened.spool.sync().unwrap();

    disk.faults(|faults| faults.sync_directory = true);
    let before = opened.spool.synced();
    append(&mut opened, 5..20);
    opened.spool.sync().unwrap_err();
    assert_eq!(opened.spool.synced(), before, "a file without a name is not durable");
    disk.faults(|faults| faults.sync_directory = false);
    opened.spool.sync().unwrap();
    assert_eq!(opened.spool.synced(), opened.spool.end());
}

#[test]
fn always_means_that_what_could_not_be_synced_was_not_appended() {
    let disk = MemoryDisk::default();
    let mut opened = open_with(&disk, Options { fsync: Fsync::Always, ..options() });
    append(&mut opened, 0..2);
    disk.faults(|faults| faults.sync = true);
    assert!(matches!(try_append(&mut opened, 2), Err(Refused::Io(_))));
    assert!(opened.spool.stats().fsync_error.is_some());
    disk.faults(|faults| faults.sync = false);
    append(&mut opened, 3..4);
    assert_eq!(numbers(&read_all(&mut opened.reader)), [0, 1, 3]);
    assert_eq!(opened.spool.stats().fsync_error, None);
    let mut opened = open(&MemoryDisk::of(disk.state()));
    assert_eq!(numbers(&read_all(&mut opened.reader)), [0, 1, 3]);
}

#[test]
fn a_frame_may_be_as_large_as_allowed_and_no_larger() {
    let mut opened = open(&MemoryDisk::default());
    let span = opened.appender.append(&head(1), &[&[5; 4000]]).unwrap();
    assert_eq!(opened.spool.read(span.start).unwrap().payload, vec![5; 4000]);
    let refused = opened.appender.append(&head(1), &[&[5; 4001]]).unwrap_err();
    assert_eq!(refused, Refused::TooLarge { bytes: 4001, limit: 4000 });
    let empty = opened.appender.append(&head(2), &[]).unwrap();
    assert_eq!(opened.spool.read(empty.start).unwrap().payload, Vec::<u8>::new());
    assert!(matches!(opened.spool.read(empty.end), Err(ReadError::Absent(_))));
}
