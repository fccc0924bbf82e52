//! Any order of calls, against a model that is a list of frames.

use proptest::prelude::*;

use super::*;
use crate::checkpoint::Checkpoint;
use crate::{CheckpointError, Span};

#[derive(Debug, Clone)]
enum Step {
    Append,
    Read(u8),
    /// Settles one of the frames that are there.
    Settle(u16),
    ReadOne(u16),
    Checkpoint,
    Sync,
    /// The disk is full, or not any more.
    Room(Option<u16>),
    /// Everything is dropped and opened again.
    Reopen,
    /// As a kill leaves it.
    Kill,
    DropOldest,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => Just(Step::Append),
        6 => any::<u8>().prop_map(Step::Read),
        8 => any::<u16>().prop_map(Step::Settle),
        3 => any::<u16>().prop_map(Step::ReadOne),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Sync),
        1 => prop_oneof![Just(None), (0u16..20_000).prop_map(Some)].prop_map(Step::Room),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
        1 => Just(Step::DropOldest),
    ]
}

/// What the spool should hold.
#[derive(Default)]
struct Model {
    /// Number, span, settled.
    frames: Vec<(u64, Span, bool)>,
    next: u64,
    /// Index of the frame that the reader reads next.
    reading: usize,
    /// The lowest unsettled position as of the last checkpoint: what a restart begins at.
    stored: u64,
    /// What is below was dropped.
    dropped: u64,
}

impl Model {
    fn lowest(&self, end: u64) -> u64 {
        self.frames.iter().find(|frame| !frame.2).map_or(end, |frame| frame.1.start)
    }

    /// After a restart everything above the checkpoint is unsettled again.
    fn restart(&mut self) {
        let stored = self.stored;
        self.frames.retain(|frame| frame.1.end > stored);
        self.frames.iter_mut().for_each(|frame| frame.2 = false);
        (self.reading, self.dropped) = (0, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn as_a_list_of_frames(steps in prop::collection::vec(step(), 1..150), tail in 0usize..3, always in any::<bool>()) {
        let fsync = if always { Fsync::Always } else { options().fsync };
        let when_full = WhenFull::DropOldest;
        let options = Options { tail_bytes: tail * 900, max_bytes: 12 * 9192, fsync, when_full, ..options() };
        let (mut disk, mut model) = (MemoryDisk::default(), Model::default());
        let mut opened = open_with(&disk, options.clone());
        for step in steps {
            match step {
                Step::Append => {
                    let number = model.next;
                    model.next += 1;
                    if let Ok(span) = opened.appender.append(&head(number), &[&payload(number)]) {
                        model.frames.push((number, span, false));
                    }
                }
                Step::Read(count) => {
                    for _ in 0..count % 16 {
                        match opened.reader.next(NOW).unwrap() {
                            Next::Nothing => {
                                prop_assert_eq!(model.reading, model.frames.len());
                                break;
                            }
                            Next::Frame(frame) => {
                                let (number, span, _) = model.frames[model.reading];
                                prop_assert_eq!((number_of(&frame), frame.span), (number, span));
                                prop_assert!(span.start >= model.dropped, "lost by name and given all the same");
                                model.reading += 1;
                            }
                            Next::Skipped(span) => {
                                let gone = model.frames.iter().take_while(|frame| frame.1.end <= span.end).count();
                                prop_assert!(model.frames[..gone].iter().all(|frame| frame.2));
                                model.reading = model.reading.max(gone);
                            }
                            other => prop_assert!(false, "{:?}", other),
                        }
                    }
                }
                Step::Settle(which) => {
                    let len = model.frames.len();
                    if let Some(frame) = model.frames.get_mut(usize::from(which) % len.max(1)) {
                        opened.spool.settle(frame.1).unwrap();
                        frame.2 = true;
                    }
                }
                Step::ReadOne(which) => {
                    if let Some(frame) = model.frames.get(usize::from(which) % model.frames.len().max(1)) {
                        match opened.spool.read(frame.1.start) {
                            Ok(read) => prop_assert_eq!(number_of(&read), frame.0),
                            // Trimmed: then it is settled, and so is everything before it.
                            Err(_) => prop_assert!(frame.1.end <= model.stored.max(model.dropped)),
                        }
                    }
                }
                Step::Checkpoint => match opened.spool.checkpoint(b"") {
                    Ok(lowest) => {
                        prop_assert_eq!(lowest, model.lowest(opened.spool.end()));
                        model.stored = lowest;
                    }
                    Err(CheckpointError::Io(_)) => {}
                    Err(error) => prop_assert!(false, "{}", error),
                },
                Step::Sync => {
                    opened.spool.sync().unwrap();
                    prop_assert_eq!(opened.spool.synced(), opened.spool.end());
                }
                Step::Room(room) => disk.faults(|faults| faults.room = room.map(u64::from)),
                Step::Reopen | Step::Kill => {
                    let state = disk.state();
                    let end = opened.spool.end();
                    drop(opened);
                    disk = MemoryDisk::of(if matches!(step, Step::Kill) { state } else { disk.state() });
                    opened = open_with(&disk, options.clone());
                    prop_assert!(opened.report.findings.is_empty(), "{:?}", opened.report.findings);
                    prop_assert_eq!((opened.report.end, opened.report.lowest), (end, model.stored));
                    model.restart();
                }
                Step::DropOldest => {
                    if let Some(mut condemned) = opened.spool.condemned() {
                        let span = condemned.span();
                        let mut expected = model.frames.iter_mut().filter(|frame| !frame.2 && frame.1.end <= span.end);
                        while let Some(lost) = condemned.next_lost().unwrap() {
                            let crate::Lost::Frame(frame) = lost else { panic!("{lost:?}") };
                            let known = expected.next().unwrap();
                            prop_assert_eq!(number_of(&frame), known.0);
                            known.2 = true;
                        }
                        prop_assert!(expected.next().is_none());
                        // Without room for the checkpoint the segment goes with the next one.
                        let _ = condemned.let_go();
                        model.dropped = span.end;
                    }
                    // A settled segment is trimmed instead, by a checkpoint too.
                    let stored = Checkpoint::decode(disk.state().file("checkpoint")).unwrap().lowest;
                    prop_assert!(stored == model.stored || stored == model.lowest(opened.spool.end()));
                    model.stored = stored;
                }
            }
            prop_assert_eq!(opened.spool.lowest(), model.lowest(opened.spool.end()));
            let stats = opened.spool.stats();
            prop_assert!(stats.bytes <= options.max_bytes && stats.tail_bytes <= options.tail_bytes);
            let files: usize = disk.state().segments().iter().map(|name| disk.state().file(name).len()).sum();
            prop_assert_eq!(stats.bytes, files as u64);
        }
    }
}
