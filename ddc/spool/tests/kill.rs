//! A process that appends is killed (-9) at any moment, again and again: nothing it had appended is lost.
//!
//! The child is this test binary itself: it runs only the test [`child`], which does nothing unless the parent's variable is set.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ddc_spool::{Fsync, Head, Next, Opened, Options, Spool};

const DIRECTORY: &str = "DDC_SPOOL_KILL_DIRECTORY";

fn options(directory: &Path) -> Options {
    Options {
        segment_bytes: 256 << 10,
        max_bytes: 1 << 30,
        fsync: Fsync::Interval(Duration::from_millis(5)),
        ..Options::new(directory, *b"kill")
    }
}

fn payload(number: u64) -> Vec<u8> {
    let mut bytes = vec![number as u8; 100 + (number * 7919 % 4000) as usize];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn number_of(bytes: &[u8]) -> u64 {
    let number = u64::from_be_bytes(*bytes.first_chunk().unwrap());
    assert!(bytes == payload(number), "frame {number} is wrong");
    number
}

/// Appends without end, settles some, and says on its standard output what it did, after it did it.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let Opened { spool, mut appender, mut reader, .. } = Spool::open(options(Path::new(&directory))).unwrap();
    let mut next = 0;
    while let Next::Frame(frame) = reader.next(Duration::ZERO).unwrap() {
        next = number_of(&frame.payload) + 1;
    }
    let mut out = std::io::stdout();
    loop {
        let head = Head { session: [1; 12], block: next, ..Head::default() };
        let span = appender.append(&head, &[&payload(next)]).unwrap();
        writeln!(out, "appended {next} {}", span.end).unwrap();
        if next % 50 == 49 {
            // The newest hundred or so stay.
            let lowest = spool.lowest();
            let Ok(Next::Frame(frame)) = spool.reader_at(lowest).next(Duration::ZERO) else {
                panic!("nothing to settle")
            };
            let below = number_of(&frame.payload).max(next.saturating_sub(100));
            let mut settling = spool.reader_at(lowest);
            writeln!(out, "settling {below}").unwrap();
            while let Ok(Next::Frame(frame)) = settling.next(Duration::ZERO) {
                if number_of(&frame.payload) >= below {
                    break;
                }
                spool.settle(frame.span).unwrap();
            }
            spool.checkpoint(&next.to_be_bytes()).unwrap();
        }
        next += 1;
    }
}

#[test]
fn killed_at_any_moment_it_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (mut appended, mut settling, mut end) = (None, 0, 0);
    for round in 0..25u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let collector = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
        // From during its start to long after.
        std::thread::sleep(Duration::from_millis(5 + round * round * 13 % 240));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in collector.join().unwrap() {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["appended", number, position] => {
                    appended = number.parse::<u64>().ok();
                    end = position.parse().unwrap_or(end);
                }
                ["settling", number] => settling = number.parse().unwrap_or(settling),
                // The test harness says something, and a line may be cut off.
                _ => {}
            }
        }
        let begun = Instant::now();
        let Opened { mut reader, report, .. } = Spool::open(options(directory.path())).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(5));
        let Some(appended) = appended else { continue };
        let mut there = Vec::new();
        loop {
            match reader.next(Duration::ZERO).unwrap() {
                Next::Frame(frame) => there.push(number_of(&frame.payload)),
                // The appender is gone already.
                Next::Closed => break,
                other => panic!("round {round}: {other:?} {:?}", report.findings),
            }
        }
        assert!(there.windows(2).all(|pair| pair[0] + 1 == pair[1]), "round {round}");
        assert!(there.first().is_some_and(|&first| first <= settling), "round {round}: {settling} is lost");
        assert!(there.last().is_some_and(|&last| last >= appended), "round {round}: {appended} is lost");
        assert!(report.end >= end);
        let losses: Vec<_> = report.findings.iter().filter(|finding| finding.is_loss()).collect();
        // Only a frame whose append had not returned can be torn.
        assert!(losses.len() <= 1, "round {round}: {losses:?}");
        assert_eq!(report.sessions[0].block, *there.last().unwrap());
    }
    assert!(appended.unwrap() > 100, "the children did hardly anything: {appended:?}");
}
