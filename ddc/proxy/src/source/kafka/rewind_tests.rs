//! Rewinds and pauses against a mock cluster: what is sent again, what the group has, what a receiver makes of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ddc_link::receiver::{Disposition, PartitionKey, Positions};
use ddc_wire::{ChunkHeader, ChunkKind, Epoch, SourceState, TopicId};

use super::tests::{Chunk, Run, committed, mock, produce, settings};
use crate::pause;
use crate::rewind::{Named, PartitionState, Report, Request, State};
use crate::source::history::Reach;

const WALL: Duration = Duration::from_secs(1_800_000_001);

fn request(id: &str, since: Instant) -> Request {
    Request {
        id: id.to_owned(),
        by: None,
        // Now is no time to go back to.
        since: format!("{}us", since.elapsed().as_micros().max(1)),
        topics: Vec::new(),
        partitions: Vec::new(),
        dry_run: false,
    }
}

/// Asks, and waits for the end.
fn rewind(run: &mut Run, request: Request) -> Report {
    let (report, begun) = run.rewinds.begin(request, "test", Instant::now(), WALL).unwrap();
    assert!(begun);
    let mut over = report.clone();
    run.until("the rewind is over", |run| {
        over = run.rewinds.get(&report.id).unwrap();
        over.state.is_over()
    });
    over
}

/// `count` records of each partition more have been sent.
fn send_more(run: &mut Run, mock: &super::tests::Mock, partitions: i32, count: usize) {
    let before = run.records;
    for partition in 0..partitions {
        produce(mock, partition, count, 20);
    }
    run.until("they are sent", |run| {
        run.send();
        run.records == before + partitions as u64 * count as u64
    });
    // Until the source has taken note of it.
    run.until("nothing is behind", |run| run.shared.lag.load(Ordering::Relaxed) == 0);
}

/// An egress: what it writes of these chunks, and what it misses in the end.
#[derive(Default)]
struct Egress {
    positions: Positions,
    written: Vec<(i32, i64)>,
    late: usize,
    duplicates: usize,
    gaps: usize,
}

impl Egress {
    fn take(&mut self, chunks: &[Chunk]) {
        for chunk in chunks {
            let header = ChunkHeader {
                kind: ChunkKind::Live,
                stream: "",
                topic: "t",
                topic_id: TopicId::default(),
                partition: chunk.partition,
                partition_count: 2,
                epoch: Epoch(chunk.epoch),
                origin: chunk.origin,
                previous: chunk.previous,
                end: chunk.end,
                count: chunk.count,
            };
            let visit = self.positions.enter(&header, chunk.offsets.len() as u32);
            self.gaps += usize::from(visit.missing.is_some());
            for offset in &chunk.offsets {
                match visit.disposition(*offset) {
                    Disposition::Duplicate => self.duplicates += 1,
                    disposition => {
                        self.late += usize::from(disposition == Disposition::Late);
                        self.written.push((chunk.partition, *offset));
                    }
                }
            }
            visit.finish();
        }
    }

    /// Everything once, nothing missing.
    fn assert_whole(&self, partitions: i32, records: i64) {
        let once: BTreeSet<(i32, i64)> = self.written.iter().copied().collect();
        let all = (0..partitions).flat_map(|partition| (0..records).map(move |offset| (partition, offset)));
        assert_eq!(once, all.collect());
        assert_eq!(once.len(), self.written.len(), "nothing twice");
        for partition in 0..partitions {
            let key = PartitionKey { topic: "t".into(), partition, ..PartitionKey::default() };
            assert_eq!(self.positions.get(&key).unwrap().holes(), [], "partition {partition}");
        }
    }
}

#[test]
fn what_a_dead_egress_was_sent_goes_again_under_a_new_epoch() {
    let mock = mock(2);
    let mut run = Run::start(&mock.bootstrap_servers(), |_| {});
    send_more(&mut run, &mock, 2, 100);
    std::thread::sleep(Duration::from_millis(1100));
    let died = Instant::now();
    let heard = run.chunks.len();
    send_more(&mut run, &mock, 2, 50);

    let dry = rewind(&mut run, Request { dry_run: true, ..request("dry", died) });
    assert_eq!((dry.state, dry.records, dry.partitions.len()), (State::Done, 100, 2));
    assert!(dry.partitions.iter().all(|one| one.state == PartitionState::Would), "{dry:?}");
    let lost = run.chunks.len();
    assert_eq!(run.metrics.rewinds.value(), 0);

    let starts = committed(&mock, 2);
    let report = rewind(&mut run, request("a", died));
    assert_eq!((report.state, report.records, report.problem.clone()), (State::Done, 100, None));
    for one in &report.partitions {
        assert_eq!((one.from, one.to, one.records), (150, 100, 50), "{one:?}");
        assert_eq!((one.state, one.reached, one.deleted), (PartitionState::Done, Reach::Time, None));
    }
    // The rule of commits holds: what is young is not committed, though reading goes on ahead of it.
    for (partition, (offset, metadata)) in committed(&mock, 2) {
        assert_eq!((offset, metadata.previous), (0, None), "{partition}");
        assert!(metadata.epoch > starts[&partition].1.epoch, "a new epoch");
    }
    run.until("they go again", |run| {
        run.send();
        run.records == 400
    });
    send_more(&mut run, &mock, 2, 30);
    assert_eq!(run.records, 460, "and nothing else");
    assert_eq!((run.metrics.rewinds.value(), run.metrics.rewound_records.value()), (1, 100));

    // The egress that died had the first part; one that lived has all; both end whole.
    let (mut died, mut lived) = (Egress::default(), Egress::default());
    died.take(&run.chunks[..heard]);
    died.take(&run.chunks[lost..]);
    died.assert_whole(2, 180);
    assert_eq!((died.gaps, died.late, died.duplicates), (0, 0, 0));
    lived.take(&run.chunks);
    lived.assert_whole(2, 180);
    assert_eq!((lived.gaps, lived.late, lived.duplicates), (0, 0, 100));
    // One that came back in between named its gap, which fills.
    let mut returned = Egress::default();
    returned.take(&run.chunks[..heard]);
    returned.take(&run.chunks[lost - 1..lost]);
    returned.take(&run.chunks[lost..]);
    returned.assert_whole(2, 180);

    // The same id is the same rewind; another wish under it is refused.
    let wish = Request { since: report.since.clone(), ..request("a", Instant::now()) };
    assert!(!run.rewinds.begin(wish, "test", Instant::now(), WALL).unwrap().1);
    let earlier = Instant::now().checked_sub(Duration::from_mins(1)).unwrap();
    let other = run.rewinds.begin(request("a", earlier), "test", Instant::now(), WALL);
    assert!(other.unwrap_err().to_string().contains("choose another id"));
    run.stop();
}

#[test]
fn a_rewind_behind_the_commit_takes_the_group_with_it_and_twice_is_not_further() {
    let mock = mock(2);
    let mut run = Run::start(&mock.bootstrap_servers(), |config| {
        settings(config).commit_delay = Duration::from_millis(10);
    });
    send_more(&mut run, &mock, 2, 100);
    std::thread::sleep(Duration::from_millis(1100));
    let then = Instant::now();
    send_more(&mut run, &mock, 2, 50);
    run.until("all is committed", |_| committed(&mock, 2).values().all(|(offset, _)| *offset == 150));

    let only =
        Request { partitions: vec![Named { topic: "t".into(), partition: 1 }], ..request("one", then) };
    let report = rewind(&mut run, only);
    assert_eq!((report.partitions.len(), report.partitions[0].to, report.records), (1, 100, 50));
    let now = committed(&mock, 2);
    assert_eq!((now[&0].0, now[&1].0), (150, 100), "{now:?}");
    assert_eq!((now[&1].1.previous, now[&1].1.count, now[&1].1.origin), (Some(99), 100, 0));
    assert!(now[&1].1.epoch > now[&0].1.epoch);

    // To a time when it stood further on than it does now: it does not skip what has to go again.
    let report = rewind(&mut run, request("again", Instant::now()));
    let of = |report: &Report, partition: i32| report.partitions[partition as usize].clone();
    assert!(of(&report, 1).to <= 150 && of(&report, 0).state == PartitionState::Unchanged, "{report:?}");
    let report = rewind(&mut run, request("all", then.checked_sub(Duration::from_hours(1)).unwrap()));
    assert_eq!((of(&report, 0).to, of(&report, 1).to), (0, 0), "as far as it goes");
    assert!(report.partitions.iter().all(|one| one.reached == Reach::Start), "and that is said: {report:?}");
    run.until("all is sent", |run| {
        run.send();
        run.shared.lag.load(Ordering::Relaxed) == 0
    });
    let mut egress = Egress::default();
    egress.take(&run.chunks);
    egress.assert_whole(2, 150);
    run.until("all is committed again", |run| {
        run.send();
        committed(&mock, 2).values().all(|(offset, _)| *offset == 150)
    });
    run.stop();
}

#[test]
fn what_is_not_read_here_is_said() {
    let mock = mock(1);
    let mut run = Run::start(&mock.bootstrap_servers(), |_| {});
    send_more(&mut run, &mock, 1, 10);
    let then = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
    let elsewhere = vec![Named { topic: "t".into(), partition: 7 }];
    let report = rewind(&mut run, Request { partitions: elsewhere, ..request("a", then) });
    assert_eq!(report.state, State::Failed);
    assert!(report.problem.unwrap().contains("other members"));
    pause(&run, None);
    run.until("it is paused", |run| run.pauses.wait(Duration::ZERO));
    let report = rewind(&mut run, request("b", then));
    assert!(report.state == State::Failed && report.problem.unwrap().contains("paused"));
    run.stop();
}

fn pause(run: &Run, since: Option<Instant>) {
    let since = since.map(|since| format!("{}us", since.elapsed().as_micros()));
    let request = pause::Request { since, ..pause::Request::default() };
    run.pauses.pause(&request, "test", Instant::now(), WALL).unwrap();
}

fn resume(run: &Run) {
    run.pauses.resume(&pause::Request::default(), "test").unwrap();
}

#[test]
fn a_pause_since_survives_a_restart_and_the_group_knows_where_to_go_on() {
    let mock = mock(2);
    let delay = |config: &mut crate::config::IngressConfig| {
        settings(config).commit_delay = Duration::from_millis(10);
    };
    let mut run = Run::start(&mock.bootstrap_servers(), delay);
    send_more(&mut run, &mock, 2, 100);
    std::thread::sleep(Duration::from_millis(1100));
    let then = Instant::now();
    send_more(&mut run, &mock, 2, 50);
    run.until("all is committed", |_| committed(&mock, 2).values().all(|(offset, _)| *offset == 150));
    let before = run.chunks.clone();

    pause(&run, Some(then));
    run.until("it is paused", |run| run.pauses.wait(Duration::ZERO));
    assert_eq!(run.metrics.assigned_partitions.value(), 0);
    run.until("it says so", |run| {
        run.shared.source_state() == SourceState::Paused
            && run.shared.problems().iter().any(|problem| problem.contains("paused by operator"))
    });
    assert!(run.shared.problems().iter().all(|problem| !problem.contains("no partition is assigned")));
    let group = committed(&mock, 2);
    assert!(group.values().all(|(offset, metadata)| (*offset, metadata.count) == (100, 100)), "{group:?}");
    let told = run.rewinds.summaries().pop().unwrap();
    assert_eq!((told["records"].as_u64(), told["state"].as_str()), (Some(100), Some("done")));
    assert!(run.pauses.kept().is_empty(), "the group has it");

    let directory = run.directory();
    run.stop();
    let mut run = Run::start_in(directory, &mock.bootstrap_servers(), delay);
    produce(&mock, 0, 5, 20);
    std::thread::sleep(Duration::from_millis(1500));
    run.send();
    assert_eq!((run.records, run.metrics.paused.value()), (0, 1), "the pause holds");
    resume(&run);
    run.until("what was sent since goes again, and what came", |run| {
        run.send();
        run.records == 105
    });
    let mut egress = Egress::default();
    egress.take(&before);
    egress.take(&run.chunks);
    assert_eq!((egress.duplicates, egress.gaps, egress.written.len()), (100, 0, 305));
    run.stop();
}

/// Without brokers a pause takes effect all the same; what they should have heard is kept until they do.
#[test]
fn a_pause_that_cannot_commit_keeps_where_to_go_on() {
    let mock = mock(1);
    let delay = |config: &mut crate::config::IngressConfig| {
        settings(config).commit_delay = Duration::from_millis(10);
    };
    let mut run = Run::start(&mock.bootstrap_servers(), delay);
    send_more(&mut run, &mock, 1, 100);
    std::thread::sleep(Duration::from_millis(1100));
    let then = Instant::now();
    send_more(&mut run, &mock, 1, 50);
    run.until("all is committed", |_| committed(&mock, 1).values().all(|(offset, _)| *offset == 150));
    let before = run.chunks.clone();
    mock.broker_down(1).unwrap();
    pause(&run, Some(then));
    run.until("it is paused", |run| run.pauses.wait(Duration::ZERO));
    let kept = run.pauses.kept();
    assert_eq!((kept.len(), kept[0].offset), (1, 100));
    let directory = run.directory();
    run.stop();

    mock.broker_up(1).unwrap();
    assert_eq!(committed(&mock, 1)[&0].0, 150, "the group never heard of it");
    let mut run = Run::start_in(Arc::clone(&directory), &mock.bootstrap_servers(), delay);
    resume(&run);
    run.until("what was sent since goes again", |run| {
        run.send();
        run.records == 50
    });
    assert!(run.pauses.kept().is_empty(), "it was used");
    assert_eq!(run.chunks[0].previous, Some(99));
    let mut egress = Egress::default();
    egress.take(&before);
    egress.take(&run.chunks);
    egress.assert_whole(1, 150);
    assert_eq!(egress.gaps, 0);
    run.stop();
}

/// The start of what goes back is slow enough for the group to take it away.
#[test]
fn a_rebalance_during_a_rewind_loses_nothing() {
    let mock = mock(4);
    let delay = |config: &mut crate::config::IngressConfig| {
        settings(config).commit_delay = Duration::from_millis(10);
        settings(config).commit_on_stop = crate::config::CommitOnStop::Delayed;
    };
    let mut first = Run::start(&mock.bootstrap_servers(), delay);
    send_more(&mut first, &mock, 4, 100);
    std::thread::sleep(Duration::from_millis(1100));
    let then = Instant::now();
    send_more(&mut first, &mock, 4, 50);
    first.until("all is committed", |_| committed(&mock, 4).values().all(|(offset, _)| *offset == 150));
    mock.broker_round_trip_time(1, Duration::from_millis(300)).unwrap();
    let mut second = Run::start(&mock.bootstrap_servers(), delay);
    second.until("the second joins", |_| {
        first.metrics.rebalances.value() > 1 || {
            // As late as can be: the group is about to be divided anew.
            first.rewinds.summaries().is_empty() && {
                first.rewinds.begin(request("a", then), "test", Instant::now(), WALL).unwrap();
                false
            }
        }
    });
    let mut report = first.rewinds.get("a").unwrap();
    first.until("the rewind is over", |first| {
        report = first.rewinds.get("a").unwrap();
        report.state.is_over()
    });
    mock.broker_round_trip_time(1, Duration::ZERO).unwrap();
    assert_eq!(report.partitions.len(), 4, "{report:?}");
    first.until("all is committed again", |first| {
        first.send();
        second.send();
        let both = first.metrics.assigned_partitions.value() + second.metrics.assigned_partitions.value();
        both == 4 && committed(&mock, 4).values().all(|(offset, _)| *offset == 150)
    });
    // Whoever read it, what was sent since went again.
    for one in &report.partitions {
        let again: usize = first
            .chunks
            .iter()
            .chain(&second.chunks)
            .filter(|chunk| chunk.partition == one.partition)
            .map(|chunk| chunk.offsets.iter().filter(|offset| **offset >= 100).count())
            .sum();
        assert!(again >= 100, "{one:?}: {again}");
        assert!(matches!(one.state, PartitionState::Done | PartitionState::Taken), "{one:?}");
    }
    first.stop();
    second.stop();
}
