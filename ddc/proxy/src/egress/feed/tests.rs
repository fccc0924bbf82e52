//! The feed with a spool, on real files: what goes in comes out, in every weather of the disk.

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ddc_link::receiver::{BatchHead, MissingReason, ReleasedBatch, StoredSession, StoredState};
use ddc_spool::{Bytes, Fsync, Options, WhenFull};
use ddc_telemetry::LinkMetrics;
use ddc_telemetry::reasons::{SpoolDrop, SpoolRefusal};
use ddc_wire::{BlockNumber, Codec, Content, KeyId, Session};
use tempfile::TempDir;

use super::item::Dropped;
use super::*;
use crate::egress::shared::{Shared, lock};

const LEN: usize = 8_000;

/// A spool's directory, and how it is opened.
struct Place {
    directory: TempDir,
    when_full: WhenFull,
    max_age: Option<Duration>,
    held_limit: u64,
    metrics: Arc<LinkMetrics<ddc_telemetry::EgressMetrics>>,
    shared: Arc<Shared>,
}

impl Place {
    fn new(when_full: WhenFull) -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            when_full,
            max_age: None,
            held_limit: 1 << 30,
            metrics: Arc::new(LinkMetrics::egress("l")),
            shared: Arc::default(),
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Four segments of 64 KiB at most: eight batches or so in each.
    fn options(&self) -> Options {
        Options {
            segment_bytes: 64 << 10,
            max_bytes: 4 * (64 << 10),
            max_frame_bytes: 32 << 10,
            tail_bytes: 16 << 10,
            fsync: Fsync::Interval(Duration::from_millis(1)),
            when_full: self.when_full,
            max_age: self.max_age,
            ..Options::new(self.path(), *b"link l, id 1")
        }
    }

    fn open(&self) -> (FeedIn, FeedOut) {
        self.open_with(self.options(), &mut []).unwrap()
    }

    fn open_with(
        &self,
        options: Options,
        sessions: &mut [StoredSession],
    ) -> anyhow::Result<(FeedIn, FeedOut)> {
        let (recycle, _) = crossbeam_channel::bounded(1);
        let parts = SpoolParts {
            options,
            held_limit: self.held_limit,
            max_batch_bytes: 1 << 20,
            metrics: Arc::clone(&self.metrics),
            shared: Arc::clone(&self.shared),
            recycle,
        };
        open_spool(parts, sessions)
    }

    fn segments(&self) -> Vec<PathBuf> {
        let mut segments: Vec<_> =
            fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        segments.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
        segments.sort();
        segments
    }
}

/// A batch that is told apart by its block.
fn batch(block: u64) -> ReleasedBatch {
    let head = BatchHead {
        session: Session::new(7, 7),
        key_id: KeyId(3),
        first_block: block - 1,
        last_block: block,
        content: if block.is_multiple_of(5) { Content::Ledger } else { Content::Records },
        codec: Codec::Zstd,
        raw_len: 12_345,
    };
    ReleasedBatch::kept(head, Bytes::from(vec![block as u8; LEN]))
}

fn taken(output: &mut FeedOut) -> Option<Arc<Item>> {
    let until = Instant::now() + Duration::from_millis(200);
    while Instant::now() < until {
        if let Taken::Item(item) = output.take(Duration::from_millis(10)) {
            return Some(Arc::new(*item));
        }
    }
    None
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn block(item: &Item) -> u64 {
    item.batch.last_block
}

#[test]
fn what_goes_in_comes_out_and_again_after_a_restart_until_it_is_settled() {
    let place = Place::new(WhenFull::DropNewest);
    let (mut input, mut output) = place.open();
    assert!(!output.was_used());
    let before = ddc_udp::clock::wall_clock_micros();
    for number in 1..=10 {
        input.offer(batch(number)).unwrap();
    }
    let items: Vec<_> = (1..=10).map(|_| taken(&mut output).unwrap()).collect();
    for (item, number) in items.iter().zip(1..) {
        assert_eq!(item.batch, batch(number), "from memory or disk, all of it is the same");
        assert!(item.received_micros >= before && item.dropped_before.is_none());
    }
    assert!(output.used() >= 10 * LEN as u64, "{}", output.used());
    let spans: Vec<_> = items.iter().map(|item| item.span.unwrap()).collect();
    output.progress_written();
    // Not in order, and one not at all.
    for item in [&items[1], &items[0], &items[3]] {
        output.settle(Arc::clone(item));
    }
    assert_eq!(block(&output.reread(spans[2]).unwrap().unwrap()), 3);
    drop(items);
    drop(input);
    assert!(matches!(output.take(Duration::ZERO), Taken::Closed));
    assert!(output.used() < LEN as u64, "what nobody holds costs no memory: {}", output.used());
    drop(output);

    let stored = |next: u64, state| StoredSession {
        key_id: KeyId(3),
        session: Session::new(7, 7),
        next_block: BlockNumber(next),
        state,
    };
    let mut sessions =
        [stored(4, StoredState::Open), stored(99, StoredState::Open), stored(0, StoredState::Retired)];
    let (mut input, mut output) = place.open_with(place.options(), &mut sessions).unwrap();
    assert_eq!(
        sessions.map(|stored| stored.next_block.0),
        [11, 99, 0],
        "what lies in the spool is not expected again"
    );
    assert!(output.was_used());
    let again: Vec<_> = (0..8).map(|_| taken(&mut output).unwrap()).collect();
    assert_eq!(again.iter().map(|item| block(item)).collect::<Vec<_>>(), [3, 4, 5, 6, 7, 8, 9, 10]);
    assert!(again.iter().all(|item| item.dropped_before.is_none()));
    input.offer(batch(11)).unwrap();
    let first = taken(&mut output).unwrap();
    let restart = Dropped { batches: 0, reason: MissingReason::Restart };
    assert_eq!((block(&first), first.dropped_before), (11, Some(restart)), "nobody received before it");
    for item in again {
        output.settle(item);
    }
    assert!(output.reread(spans[2]).is_ok(), "settled or not, it is there until it is trimmed");
    drop(output);
    assert!(
        lock(&place.shared.spool).clone().unwrap().waiting_bytes < 2 * LEN as u64,
        "the last word of the keeper"
    );
}

/// Batches of which nothing came into the progress (an idle ledger, or what cannot be used) are no sign that it was lost.
#[test]
fn what_is_settled_without_progress_is_no_use() {
    let place = Place::new(WhenFull::DropNewest);
    let (mut input, mut output) = place.open();
    for number in 1..=3 {
        input.offer(batch(number)).unwrap();
        let item = taken(&mut output).unwrap();
        output.settle(item);
    }
    drop((input, output));
    let (_input, mut output) = place.open();
    assert!(taken(&mut output).is_none(), "all of it is settled");
    assert!(!output.was_used());
}

#[test]
fn no_more_is_taken_than_may_be_held() {
    let mut place = Place::new(WhenFull::DropNewest);
    place.held_limit = 3 * LEN as u64;
    let (mut input, mut output) = place.open();
    for number in 1..=6 {
        input.offer(batch(number)).unwrap();
    }
    let mut items: Vec<_> = (0..3).map(|_| taken(&mut output).unwrap()).collect();
    assert!(taken(&mut output).is_none(), "what is held is not settled");
    output.settle(items.remove(0));
    assert_eq!(block(&taken(&mut output).unwrap()), 4);
    drop(items);
    assert_eq!(block(&taken(&mut output).unwrap()), 5, "memory counts, not what is settled");
}

#[test]
fn a_full_spool_refuses_until_there_is_room_and_the_next_item_says_so() {
    let place = Place::new(WhenFull::DropNewest);
    let (mut input, mut output) = place.open();
    let mut refused = 0;
    let mut kept = Vec::new();
    for number in 1..=60 {
        match input.offer(batch(number)) {
            Ok(()) => kept.push(number),
            Err(error) => {
                assert!(error.to_string().contains("the spool is full"), "{error}");
                refused += 1;
            }
        }
    }
    assert!(kept.len() > 20 && refused > 20, "{} kept", kept.len());
    assert_eq!(kept, (1..=kept.len() as u64).collect::<Vec<_>>(), "once refused, always refused");
    for number in &kept {
        let item = taken(&mut output).unwrap();
        assert_eq!((block(&item), item.dropped_before), (*number, None));
        output.settle(item);
    }
    wait_for("trimmed", || {
        input.offer(batch(100)).is_ok_and(|()| true) || {
            refused += 1;
            false
        }
    });
    let item = taken(&mut output).unwrap();
    let dropped = Dropped { batches: refused, reason: MissingReason::SpoolFull };
    assert_eq!((block(&item), item.dropped_before), (100, Some(dropped)));
    drop((item, input, output));
    let (_input, mut output) = place.open();
    let item = taken(&mut output).unwrap();
    assert_eq!((block(&item), item.dropped_before), (100, Some(dropped)), "the frame itself says so");
    assert_eq!(place.metrics.spool_batches_refused.value(SpoolRefusal::Full), refused);
}

#[test]
fn the_oldest_goes_and_what_follows_says_why_also_after_a_restart() {
    let place = Place::new(WhenFull::DropOldest);
    let (mut input, mut output) = place.open();
    input.offer(batch(1)).unwrap();
    let first = taken(&mut output).unwrap();
    let lost = first.span.unwrap();
    // The keeper is not as quick as this loop: what was refused says so by itself.
    let mut refused = Vec::new();
    for number in 2..=100 {
        wait_for("room", || {
            let taken = input.offer(batch(number)).is_ok();
            if !taken && refused.last() != Some(&number) {
                refused.push(number);
            }
            taken
        });
    }
    let own = |number: u64, reason| refused.contains(&number).then_some(reason);
    // Two segments of room, and nothing more goes.
    wait_for("dropped", || {
        let view = lock(&place.shared.spool).clone().unwrap();
        place.metrics.spool_batches_dropped.value(SpoolDrop::Room) > 50 && view.bytes <= 2 * (64 << 10)
    });
    assert!(output.reread(lost).unwrap().is_none(), "it went with the others");
    let item = taken(&mut output).unwrap();
    assert!(block(&item) > 50, "{}", block(&item));
    assert_eq!(item.dropped_before.map(|dropped| dropped.reason), Some(MissingReason::SpoolFull));
    let dropped = place.metrics.spool_batches_dropped.value(SpoolDrop::Room);
    // The first one was in memory when it went: it is on its way, not lost.
    assert_eq!(dropped, block(&item) - 2);
    let second = taken(&mut output).unwrap();
    let reason = |item: &Item| item.dropped_before.map(|dropped| dropped.reason);
    let expected = (block(&item) + 1, own(block(&item) + 1, MissingReason::SpoolFull));
    assert_eq!((block(&second), reason(&second)), expected);
    drop((first, item, second, input, output));

    let (input, mut output) = place.open();
    let item = taken(&mut output).unwrap();
    assert_eq!(item.dropped_before.map(|dropped| dropped.reason), Some(MissingReason::SpoolFull));
    output.settle(item);
    let item = taken(&mut output).unwrap();
    output.settle(item);
    drop((input, output));
    let (_input, mut output) = place.open();
    let third = taken(&mut output).unwrap();
    assert_eq!(reason(&third), own(block(&third), MissingReason::SpoolFull), "it has been said");
}

#[test]
fn what_is_too_old_goes() {
    let mut place = Place::new(WhenFull::DropNewest);
    place.max_age = Some(Duration::from_millis(50));
    let (mut input, mut output) = place.open();
    for number in 1..=10 {
        input.offer(batch(number)).unwrap();
    }
    wait_for("expired", || place.metrics.spool_batches_dropped.value(SpoolDrop::Age) > 0);
    let item = taken(&mut output).unwrap();
    assert_eq!(item.dropped_before.map(|dropped| dropped.reason), Some(MissingReason::SpoolExpired));
    assert!(block(&item) > 5, "{}", block(&item));
}

#[test]
fn one_damaged_byte_costs_one_batch() {
    let place = Place::new(WhenFull::DropNewest);
    let (mut input, output) = place.open();
    for number in 1..=20 {
        input.offer(batch(number)).unwrap();
    }
    drop((input, output));
    let segments = place.segments();
    assert!(segments.len() > 2);
    let file = fs::OpenOptions::new().read(true).write(true).open(&segments[0]).unwrap();
    // In the payload of the third frame.
    let at = 8192 + 2 * (64 + LEN as u64) + 64 + 100;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    assert_eq!(byte, [3], "this is where it should be");
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();

    let (_input, mut output) = place.open();
    let items: Vec<_> = std::iter::from_fn(|| taken(&mut output)).collect();
    let blocks: Vec<_> = items.iter().map(|item| block(item)).collect();
    assert_eq!(blocks, (1..=20).filter(|number| *number != 3).collect::<Vec<_>>());
    let says: Vec<_> =
        items.iter().filter(|item| item.dropped_before.is_some()).map(|item| block(item)).collect();
    assert_eq!(says, [4]);
    let dropped = Dropped { batches: 1, reason: MissingReason::SpoolDamaged };
    assert_eq!(items[2].dropped_before, Some(dropped));
    for item in items {
        // What is held is found again by its place, and settled then.
        let span = item.span.unwrap();
        drop(item);
        let item = output.reread(span).unwrap().unwrap();
        output.settle(Arc::from(item));
    }
    drop(output);
    let view = lock(&place.shared.spool).clone().unwrap();
    assert_eq!(view.waiting_bytes, 0, "the damaged place is settled with what told of it");
    assert_eq!(place.metrics.spool_damaged_places.value(), 1);
}

#[test]
fn a_frame_of_another_version_is_stepped_over() {
    let place = Place::new(WhenFull::DropNewest);
    {
        let opened = ddc_spool::Spool::open(place.options()).unwrap();
        let mut appender = opened.appender;
        let good = frame::head(&batch(1), 5, None);
        for head in [good, ddc_spool::Head { kind: 9, ..good }, frame::head(&batch(2), 6, None)] {
            appender.append(&head, &[b"payload"]).unwrap();
        }
    }
    let (_input, mut output) = place.open();
    assert_eq!(taken(&mut output).unwrap().dropped_before, None);
    let item = taken(&mut output).unwrap();
    let dropped = Dropped { batches: 1, reason: MissingReason::SpoolDamaged };
    assert_eq!((block(&item), item.dropped_before, item.received_micros), (2, Some(dropped), 6));
}

#[test]
fn a_strangers_directory_is_refused_and_so_is_one_in_use() {
    let place = Place::new(WhenFull::DropNewest);
    let refused = |options| match place.open_with(options, &mut []) {
        Ok(_) => panic!("it was opened"),
        Err(error) => format!("{error:#}"),
    };
    let (mut input, output) = place.open();
    let second = refused(place.options());
    assert!(second.contains("in use by another process"), "{second}");
    input.offer(batch(1)).unwrap();
    drop((input, output));
    let foreign = refused(Options { identity: b"link other, id 1".to_vec(), ..place.options() });
    assert!(
        foreign.contains("belongs to \"link l, id 1\"") && foreign.contains("\"link other, id 1\""),
        "{foreign}"
    );
    fs::write(place.path().join("file"), "").unwrap();
    let file = refused(Options { directory: place.path().join("file/spool"), ..place.options() });
    assert!(file.contains("cannot be created"), "{file}");
}
