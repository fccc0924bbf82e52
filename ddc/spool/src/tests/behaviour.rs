//! What readers, settling, trimming and syncing do when nothing fails.

use super::*;
use crate::{Bytes, Span};

#[test]
fn what_is_appended_is_read_in_order_now_and_after_a_restart() {
    let disk = MemoryDisk::default();
    let mut opened = open(&disk);
    let spans = append(&mut opened, 0..50);
    assert!(spans.windows(2).all(|pair| pair[0].end == pair[1].start));
    assert_eq!(numbers(&read_all(&mut opened.reader)), Vec::from_iter(0..50));
    assert!(disk.state().segments().len() > 5);
    assert!(spans.iter().zip(0..).all(|(span, n)| number_of(&opened.spool.read(span.start).unwrap()) == n));
    let stats = opened.spool.stats();
    assert_eq!((stats.frames, stats.end), (50, spans[49].end));
    let files: usize = disk.state().segments().iter().map(|name| disk.state().file(name).len()).sum();
    assert_eq!(stats.bytes, files as u64);
    drop(opened);

    let mut opened = open(&disk);
    assert!(opened.report.findings.is_empty(), "{:?}", opened.report.findings);
    assert_eq!(
        (opened.report.frames, opened.report.end, opened.report.bytes),
        (50, spans[49].end, files as u64)
    );
    assert_eq!(append(&mut opened, 50..51)[0].start, spans[49].end);
    assert_eq!(numbers(&read_all(&mut opened.reader)), Vec::from_iter(0..51));
    assert!(spans.iter().zip(0..).all(|(span, n)| number_of(&opened.spool.read(span.start).unwrap()) == n));
    assert_eq!(opened.spool.stats().frames, 51);
}

#[test]
fn nothing_is_read_from_the_disk_while_the_reader_keeps_up_and_one_behind_joins_again() {
    let disk = MemoryDisk::default();
    let mut opened = open_with(&disk, Options { tail_bytes: 3000, ..options() });
    let opening = opened.spool.stats().counts.disk_reads;
    for n in 0..100 {
        append(&mut opened, [n]);
        assert_eq!(numbers(&read_all(&mut opened.reader)), [n]);
    }
    let stats = opened.spool.stats();
    assert_eq!((stats.counts.disk_reads, stats.tail_bytes), (opening, 0), "passed frames leave the memory");
    append(&mut opened, 100..200);
    assert!(opened.spool.stats().tail_bytes > 1000 && opened.spool.stats().tail_bytes <= 3000);
    assert_eq!(numbers(&read_all(&mut opened.reader)), Vec::from_iter(100..200));
    let behind = opened.spool.stats().counts.disk_reads;
    assert!(behind > opening);
    append(&mut opened, 200..203);
    assert_eq!(numbers(&read_all(&mut opened.reader)), [200, 201, 202]);
    assert_eq!(opened.spool.stats().counts.disk_reads, behind);
}

#[test]
fn shared_bytes_are_shared() {
    let mut opened = open_with(&MemoryDisk::default(), Options { tail_bytes: 10_000, ..options() });
    let bytes = Bytes::from(payload(4));
    let span = opened.appender.append_bytes(&head(4), &bytes).unwrap();
    assert_eq!(opened.spool.read(span.start).unwrap().payload.as_ptr(), bytes.as_ptr());
    let parts = payload(5);
    let span = opened.appender.append(&head(5), &[&parts[..3], &[], &parts[3..]]).unwrap();
    assert_eq!(number_of(&opened.spool.read(span.start).unwrap()), 5);
}

#[test]
fn only_what_is_below_the_lowest_unsettled_frame_is_trimmed() {
    let disk = MemoryDisk::default();
    let mut opened = open(&disk);
    let spans = append(&mut opened, 0..60);
    let before = disk.state().segments().len();
    for span in spans.iter().skip(1) {
        opened.spool.settle(*span).unwrap();
    }
    assert_eq!(opened.spool.checkpoint(b"t").unwrap(), 0);
    assert_eq!(disk.state().segments().len(), before, "frame 0 holds everything back");
    assert_eq!(number_of(&opened.spool.read(spans[0].start).unwrap()), 0);
    opened.spool.settle(spans[0]).unwrap();
    assert_eq!(disk.state().segments().len(), before, "not before the checkpoint says so");
    assert_eq!(opened.spool.checkpoint(b"u").unwrap(), spans[59].end);
    assert_eq!(disk.state().segments().len(), 1, "the one that is appended to stays");
    assert!(matches!(opened.spool.read(spans[0].start), Err(crate::ReadError::Absent(0))));
    let mut late = opened.spool.reader_at(spans[3].start);
    assert!(matches!(late.next(NOW).unwrap(), Next::Skipped(Span { start, .. }) if start == spans[3].start));
    drop((opened, late));
    let mut opened = open(&disk);
    assert_eq!((opened.report.lowest, opened.report.table.as_slice()), (spans[59].end, &b"u"[..]));
    assert!(opened.report.findings.is_empty());
    assert_eq!(opened.reader.next(NOW).unwrap(), Next::Nothing);
    assert_eq!(append(&mut opened, [60])[0].start, spans[59].end, "positions go on");
}

#[test]
fn the_highest_block_of_each_session_survives_trimming_and_kills() {
    let disk = MemoryDisk::default();
    let mut opened = open(&disk);
    let spans = append(&mut opened, 0..40);
    opened.spool.settle_below(spans[39].end).unwrap();
    opened.spool.checkpoint(b"").unwrap();
    append(&mut opened, 40..42);
    let known = |opened: &Opened| {
        let mut marks: Vec<_> =
            opened.report.sessions.iter().map(|mark| (mark.session[0], mark.block)).collect();
        marks.sort_unstable();
        marks
    };
    let killed = MemoryDisk::of(disk.state());
    assert_eq!(known(&open(&killed)), [(0, 39), (1, 40), (2, 41)]);
    // Without the checkpoint the last segment's header knows, as of its beginning.
    let mut state = disk.state();
    state.names.remove("checkpoint");
    let opened = open(&MemoryDisk::of(state));
    assert_eq!(known(&opened), [(0, 39), (1, 40), (2, 41)]);
    assert_eq!(opened.report.findings, [crate::Finding::NoCheckpoint]);
}

#[test]
fn durable_is_what_was_synced() {
    let disk = MemoryDisk::default();
    let mut opened = open(&disk);
    assert_eq!(opened.spool.synced(), 0);
    let spans = append(&mut opened, 0..30);
    assert_eq!(opened.spool.synced(), 0);
    assert!(opened.spool.stats().durable_lag > NOW);
    opened.spool.sync().unwrap();
    assert_eq!((opened.spool.synced(), opened.spool.stats().durable_lag), (spans[29].end, NOW));
    let syncs = opened.spool.stats().counts.fsyncs;
    opened.spool.sync().unwrap();
    assert_eq!(opened.spool.stats().counts.fsyncs, syncs + 1, "only the segment that is appended to");
}

/// Each fsync that is counted, whichever way it came about, is told with its time.
#[test]
fn how_long_an_fsync_took_is_told() {
    for fsync in [Fsync::Always, Fsync::Never] {
        let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let tells = std::sync::Arc::clone(&told);
        let fsync_observer = crate::FsyncObserver::new(move |took| tells.lock().unwrap().push(took));
        let mut opened = open_with(&MemoryDisk::default(), Options { fsync, fsync_observer, ..options() });
        append(&mut opened, 0..5);
        opened.spool.sync().unwrap();
        let counted = opened.spool.stats().counts.fsyncs;
        assert_eq!(told.lock().unwrap().len() as u64, counted, "{fsync:?}");
        assert!(counted >= if fsync == Fsync::Always { 5 } else { 1 });
        assert!(told.lock().unwrap().iter().all(|took| *took < Duration::from_secs(10)));
    }
}

#[test]
fn the_thread_syncs_within_the_interval_and_always_means_before_the_append_returns() {
    let interval = Fsync::Interval(Duration::from_millis(20));
    let mut opened = open_with(&MemoryDisk::default(), Options { fsync: interval, ..options() });
    let end = append(&mut opened, 0..20)[19].end;
    let begun = std::time::Instant::now();
    while opened.spool.synced() < end {
        assert!(begun.elapsed() < Duration::from_secs(10), "the thread does not sync");
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut opened = open_with(&MemoryDisk::default(), Options { fsync: Fsync::Always, ..options() });
    for n in 0..20 {
        let end = append(&mut opened, [n])[0].end;
        assert_eq!(opened.spool.synced(), end);
    }
    let disk = MemoryDisk::default();
    let mut opened = open_with(&disk, Options { fsync: Fsync::Never, ..options() });
    append(&mut opened, 0..20);
    assert_eq!((opened.spool.synced(), opened.spool.stats().counts.fsyncs), (0, 0));
    drop(opened);
    // A later life does not know more.
    let opened = open_with(&disk, Options { fsync: Fsync::Never, ..options() });
    assert_eq!(opened.spool.synced(), 0);
    drop(opened);
    let opened = open(&disk);
    assert_eq!(opened.spool.synced(), 0);
    opened.spool.sync().unwrap();
    assert_eq!(opened.spool.synced(), opened.spool.end());
}

#[test]
fn two_threads_and_the_end() {
    let disk = MemoryDisk::default();
    let Opened { spool, mut appender, mut reader, .. } =
        open_with(&disk, Options { tail_bytes: 2000, max_bytes: 1 << 30, ..options() });
    let writer = std::thread::spawn(move || {
        for n in 0..2000 {
            appender.append(&head(n), &[&payload(n)]).unwrap();
        }
    });
    let mut next = 0;
    loop {
        match reader.next(Duration::from_secs(20)).unwrap() {
            Next::Frame(frame) => {
                assert_eq!(number_of(&frame), next);
                spool.settle(frame.span).unwrap();
                if next % 100 == 0 {
                    spool.checkpoint(b"").unwrap();
                }
                next += 1;
            }
            Next::Closed => break,
            other => panic!("{other:?}"),
        }
    }
    writer.join().unwrap();
    assert_eq!((next, spool.lowest()), (2000, spool.end()));
}

#[test]
fn settling_is_bounded_and_checked() {
    let mut opened = open_with(&MemoryDisk::default(), Options { max_islands: 2, ..options() });
    let spans = append(&mut opened, 0..8);
    opened.spool.settle(spans[2]).unwrap();
    opened.spool.settle(spans[4]).unwrap();
    assert!(matches!(opened.spool.settle(spans[6]), Err(crate::SettleError::TooManyIslands(2))));
    assert!(!opened.spool.is_settled(spans[6]) && opened.spool.is_settled(spans[4]));
    let beyond = Span { start: spans[7].start, end: spans[7].end + 1 };
    assert!(matches!(opened.spool.settle(beyond), Err(crate::SettleError::Beyond { .. })));
    assert!(opened.spool.checkpoint(&vec![0; crate::MAX_TABLE + 1]).is_err());
}

#[test]
fn the_age_of_the_oldest_frame_grows_until_it_is_settled_and_downtime_does_not_count() {
    let disk = MemoryDisk::default();
    let begun = std::time::Instant::now();
    let mut opened = open(&disk);
    let span = append(&mut opened, [1])[0];
    std::thread::sleep(Duration::from_millis(30));
    assert!(opened.spool.stats().oldest_age >= Duration::from_millis(30));
    opened.spool.checkpoint(b"").unwrap();
    drop(opened);
    let held = begun.elapsed();
    std::thread::sleep(Duration::from_millis(300));
    let again = std::time::Instant::now();
    let opened = open(&disk);
    let age = opened.spool.stats().oldest_age;
    assert!(age >= Duration::from_millis(30) && age <= held + again.elapsed(), "{age:?} of {held:?}");
    opened.spool.settle(span).unwrap();
    assert_eq!(opened.spool.stats().oldest_age, NOW);
}
