//! What only a real file system shows: locks, rights, a disk that is full.
//!
//! The full disk is a tmpfs of 4 MiB: it needs root, and says so by failing, since a test that skips itself proves nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ddc_spool::{Finding, Fsync, Head, Next, OpenError, Opened, Options, Reader, Refused, Spool, WhenFull};

fn options(directory: &Path) -> Options {
    Options {
        segment_bytes: 256 << 10,
        max_frame_bytes: 64 << 10,
        max_bytes: 1 << 30,
        retry_after: Duration::ZERO,
        fsync: Fsync::Interval(Duration::from_millis(10)),
        ..Options::new(directory, *b"real")
    }
}

fn append(opened: &mut Opened, number: u64) -> Result<ddc_spool::Span, Refused> {
    let head = Head { session: [1; 12], block: number, ..Head::default() };
    opened.appender.append(&head, &[&number.to_be_bytes(), &vec![number as u8; 20_000]])
}

fn rest(reader: &mut Reader) -> Vec<u64> {
    let mut all = Vec::new();
    loop {
        match reader.next(Duration::ZERO).unwrap() {
            Next::Frame(frame) => {
                let number = u64::from_be_bytes(*frame.payload.first_chunk().unwrap());
                assert!(
                    frame.payload[8..].iter().all(|&byte| byte == number as u8)
                        && frame.payload.len() == 20_008
                );
                all.push(number);
            }
            Next::Skipped(_) => {}
            Next::Nothing => return all,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn one_process_at_a_time_and_private_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b");
    let mut opened = Spool::open(options(&path)).unwrap();
    append(&mut opened, 1).unwrap();
    let error = Spool::open(options(&path)).unwrap_err();
    assert!(matches!(&error, OpenError::InUse(used) if *used == path), "{error}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    for entry in fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
    }
    // Whatever handle is the last one keeps it.
    let Opened { spool, appender, reader, .. } = opened;
    drop((spool, appender));
    assert!(Spool::open(options(&path)).is_err());
    drop(reader);
    let mut opened = Spool::open(options(&path)).unwrap();
    assert_eq!(rest(&mut opened.reader), [1]);
}

#[test]
fn a_place_that_is_no_directory_is_named_with_a_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, b"x").unwrap();
    let error = Spool::open(options(&path)).unwrap_err().to_string();
    assert!(error.contains(path.to_str().unwrap()) && error.contains("install -d -m 0700"), "{error}");
    let error = Spool::open(Options { segment_bytes: 1, ..options(&path) }).unwrap_err();
    assert!(matches!(error, OpenError::Option(_)), "{error}");
}

#[test]
fn links_pipes_and_directories_with_a_segments_name_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = Spool::open(options(directory.path())).unwrap();
    append(&mut opened, 1).unwrap();
    drop(opened);
    let name = |n: u64| directory.path().join(format!("{n:020}.seg"));
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), name(3)).unwrap();
    fs::create_dir(name(4)).unwrap();
    assert!(Command::new("mkfifo").arg(name(5)).status().unwrap().success());
    let mut opened = Spool::open(options(directory.path())).unwrap();
    assert_eq!(opened.report.findings.len(), 3);
    assert!(opened.report.findings.iter().all(|finding| matches!(finding, Finding::Stranger(_))));
    assert_eq!(rest(&mut opened.reader), [1]);
    assert_eq!(fs::metadata(elsewhere.path()).unwrap().len(), 0);
}

#[test]
fn files_removed_under_the_running_spool_are_errors_not_panics() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = Spool::open(Options { tail_bytes: 0, ..options(directory.path()) }).unwrap();
    let spans: Vec<_> = (0..40).map(|n| append(&mut opened, n).unwrap()).collect();
    let first = directory.path().join(format!("{:020}.seg", 0));
    fs::remove_file(&first).unwrap();
    assert!(opened.reader.next(Duration::ZERO).is_err());
    let lost = opened.reader.skip().unwrap();
    assert_eq!(lost.span.start, 0);
    let there = rest(&mut opened.reader);
    let behind: Vec<u64> = (0..40).filter(|&n| spans[n as usize].start >= lost.span.end).collect();
    assert_eq!(there, behind);
    opened.spool.settle_below(spans[39].end).unwrap();
    opened.spool.checkpoint(b"").unwrap();
    assert_eq!(opened.spool.stats().counts.remove_errors, 1);
    fs::remove_dir_all(directory.path()).unwrap();
    let _ = append(&mut opened, 41);
    assert!(opened.spool.checkpoint(b"").is_err());
}

/// A file system of a few MiB.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(path: &Path, bytes: u64) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test mounts a small tmpfs and therefore needs root; run it with sudo, or leave it out with: \
             cargo test -p ddc-spool -- --skip full_disk"
        );
        let size = format!("size={bytes},mode=0700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "ddc-spool-test"]).arg(path).status();
        assert!(mounted.unwrap().success(), "tmpfs cannot be mounted on {}", path.display());
        Self(path.into())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a failing test may still hold files open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_survived_and_ends_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let tmpfs = Tmpfs::mount(directory.path(), 4 << 20);
    let mut opened = Spool::open(options(&tmpfs.0)).unwrap();
    // Somebody else fills the disk, and goes away again; three times.
    let (mut kept, mut refused, mut spans) = (Vec::new(), 0, Vec::new());
    for round in 0..3 {
        for n in round * 1000..round * 1000 + 300 {
            match append(&mut opened, n) {
                Ok(span) => {
                    kept.push(n);
                    spans.push(span);
                }
                Err(error) => {
                    assert_eq!(error.as_str(), "disk_full", "{error}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 100 * (round + 1), "round {round}: the disk was not full: {refused}");
        // What the disk holds is whole, and the checkpoint can be written on the full disk.
        assert_eq!(rest(&mut opened.reader), kept);
        let upto = spans.len() - 3;
        spans[..upto].iter().for_each(|span| opened.spool.settle(*span).unwrap());
        opened.spool.checkpoint(&vec![round as u8; 50_000]).unwrap();
        kept.clear();
        spans = spans.split_off(upto);
        assert!(opened.spool.stats().counts.trimmed_segments > 5 * round);
    }
    let end = opened.spool.end();
    drop(opened);
    let mut opened = Spool::open(options(&tmpfs.0)).unwrap();
    assert!(opened.report.findings.is_empty(), "{:?}", opened.report.findings);
    assert_eq!((opened.report.end, opened.report.table.len()), (end, 50_000));
    assert_eq!(rest(&mut opened.reader).len(), 3);
    drop(opened);
    drop(tmpfs);
}

#[test]
fn a_full_disk_with_drop_oldest_always_keeps_the_newest() {
    let directory = tempfile::tempdir().unwrap();
    let tmpfs = Tmpfs::mount(directory.path(), 4 << 20);
    let mut opened = Spool::open(Options { when_full: WhenFull::DropOldest, ..options(&tmpfs.0) }).unwrap();
    let mut dropped = 0;
    for n in 0..600 {
        while append(&mut opened, n).is_err() {
            let mut condemned = opened.spool.condemned().expect("something to drop");
            while condemned.next_lost().unwrap().is_some() {
                dropped += 1;
            }
            condemned.let_go().unwrap();
        }
    }
    let there = rest(&mut opened.reader);
    assert_eq!((there.len() + dropped, there.last()), (600, Some(&599)));
    assert!(there.len() > 100 && there.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    drop(opened);
    drop(tmpfs);
}

/// A receive thread and a sink thread as in the egress: frames of every seventh partition are parked and read again by position,
/// settled late and out of order; the sink stands still at times, so that the oldest must be dropped. Each frame that was taken
/// is settled exactly once or lost by name, never both.
#[test]
fn a_sink_that_parks_and_stands_still_gets_every_frame_or_its_loss() {
    const FRAMES: u64 = 6000;
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        max_bytes: 8 << 20,
        tail_bytes: 256 << 10,
        when_full: WhenFull::DropOldest,
        ..options(directory.path())
    };
    let Opened { spool, mut appender, mut reader, .. } = Spool::open(options).unwrap();
    let receiving = std::thread::spawn(move || {
        let mut refused = Vec::new();
        for number in 0..FRAMES {
            let head = Head { session: [2; 12], block: number, ..Head::default() };
            let payload = number.to_be_bytes().repeat(1 + number as usize * 37 % 1000);
            if appender.append(&head, &[&payload]).is_err() {
                refused.push(number);
            }
            if number % 50 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        refused
    });
    let number_of = |payload: &[u8]| {
        let number = u64::from_be_bytes(*payload.first_chunk().unwrap());
        assert!(
            payload == number.to_be_bytes().repeat(1 + number as usize * 37 % 1000),
            "frame {number} is wrong"
        );
        number
    };
    let (mut fate, mut parked) = (vec![0; FRAMES as usize], Vec::new());
    let mut steps = 0;
    let mut closed = false;
    while !(closed && parked.is_empty()) {
        steps += 1;
        match reader.next(Duration::from_millis(2)).unwrap() {
            Next::Frame(frame) if number_of(&frame.payload) % 7 == 0 => parked.push(frame.span),
            Next::Frame(frame) => {
                fate[number_of(&frame.payload) as usize] += 1;
                spool.settle(frame.span).unwrap();
            }
            Next::Closed => closed = true,
            Next::Nothing | Next::Skipped(_) => {}
            Next::Damaged(damage) => panic!("{damage}"),
        }
        if steps % 700 == 0 {
            std::thread::sleep(Duration::from_millis(60));
        }
        if steps % 40 == 0 || closed {
            // The parked ones, newest first; what was dropped meanwhile is lost already.
            for span in parked.drain(parked.len() / 2..).rev() {
                match spool.read(span.start) {
                    Ok(frame) => {
                        fate[number_of(&frame.payload) as usize] += 1;
                        spool.settle(span).unwrap();
                    }
                    Err(error) => assert!(matches!(error, ddc_spool::ReadError::Absent(_)), "{error}"),
                }
            }
            spool.checkpoint(b"").unwrap();
            while let Some(mut condemned) = spool.condemned() {
                while let Some(lost) = condemned.next_lost().unwrap() {
                    let ddc_spool::Lost::Frame(frame) = lost else { panic!("{lost:?}") };
                    fate[number_of(&frame.payload) as usize] += 100;
                }
                condemned.let_go().unwrap();
            }
        }
    }
    let mut settled = 0;
    let refused = receiving.join().unwrap();
    for (number, fate) in fate.into_iter().enumerate() {
        let expected = if refused.contains(&(number as u64)) { fate == 0 } else { fate == 1 || fate == 100 };
        assert!(expected, "frame {number}: {fate}");
        settled += usize::from(fate == 1);
    }
    assert_eq!(spool.lowest(), spool.end());
    let counts = spool.stats().counts;
    assert_eq!(settled as u64 + counts.dropped_frames, counts.appended_frames);
    assert!(settled > 500, "{counts:?}");
}
