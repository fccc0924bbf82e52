//! The share of the link, the order of blocks, and what becomes of slices when blocks are lost.

use ddc_wire::Content;
use std::num::NonZeroU64;

use super::*;
use crate::config::Rate;

const RATE: u64 = 80_000_000;

fn ends(rate: Rate) -> (ReplayIn, ReplayOut) {
    let (sender, receiver) = bounded(WAITING_SLICES);
    let flow = Arc::new(Flow::default());
    let now = Instant::now();
    let share = Share {
        rate: RateCell::new(rate),
        code: Code::new(64, 8).unwrap(),
        symbol_size: 1400,
        ip_overhead: 20,
        credit: 0.0,
        since: now,
        last: now,
    };
    let input = ReplayIn { sender, flow: Arc::clone(&flow) };
    (input, ReplayOut { receiver, flow, share, rest: VecDeque::new(), serial: 0, on_way: VecDeque::new() })
}

fn limited() -> (ReplayIn, ReplayOut) {
    let text = format!("{}Mbit/s", RATE / 1_000_000);
    assert!(NonZeroU64::new(RATE).is_some());
    ends(Rate::Limited(text.parse().unwrap()))
}

fn slice(base: i64, blocks: usize, len: usize) -> ReplaySlice {
    let block = |number: usize| PackedBlock {
        bytes: vec![number as u8; len],
        full: true,
        records: 1,
        record_bytes: 1,
        content: Content::Records,
        marks: Vec::new(),
    };
    ReplaySlice { base, end: base + 10, records: 1, blocks: (0..blocks).map(block).collect() }
}

/// A replay that has always more to send gets half of the rate, not more, with nothing live beside it.
#[test]
fn half_of_the_rate_and_not_more() {
    let (input, mut output) = limited();
    input.set_active(true);
    let start = Instant::now();
    let (mut number, mut bits, mut base) = (0, 0.0, 0);
    for step in 0..10_000u64 {
        let now = start + Duration::from_micros(step * 1000);
        while input.hand(0, slice(base, 1, 80_000)).is_ok() {
            base += 10;
        }
        while let Some(block) = output.begin(now, 0, false, number) {
            number += 1;
            bits += 8.0 * block_wire_bytes(block.bytes.len(), Code::new(64, 8).unwrap(), 1400, 20) as f64;
        }
    }
    let share = bits / (RATE as f64 * 10.0);
    assert!((0.45..=0.51).contains(&share), "{share} of the rate in 10 s");
}

#[test]
fn live_records_come_first_but_not_for_ever() {
    let (input, mut output) = limited();
    let start = Instant::now();
    assert_eq!(output.begin(start, 0, false, 0), None, "nothing to send");
    input.hand(0, slice(0, 1, 1000)).unwrap();
    // 10 ms at 80 Mbit/s are 100,000 bytes.
    assert_eq!(
        output.begin(start + Duration::from_millis(1), 100_001, false, 0),
        None,
        "much waits for the link"
    );
    assert!(!output.is_starved(start + Duration::from_millis(999)));
    let later = start + Duration::from_millis(1100);
    assert!(output.is_starved(later));
    assert!(output.begin(later, 1 << 30, true, 0).is_some(), "one a second goes all the same");
    input.hand(0, slice(10, 1, 1000)).unwrap();
    assert!(!output.is_starved(later + Duration::from_millis(500)), "and then waits for its second again");
    let (input, mut output) = ends(Rate::Unlimited);
    input.hand(0, slice(0, 1, 1000)).unwrap();
    assert_eq!(output.begin(start, SHORT_QUEUE_BYTES + 1, false, 0), None);
    assert!(output.begin(start, SHORT_QUEUE_BYTES, false, 0).is_some());
}

#[test]
fn the_blocks_of_a_slice_go_one_behind_the_other_and_count_when_the_last_one_was_sent() {
    let (input, mut output) = limited();
    let now = Instant::now();
    assert_eq!(input.hand(0, slice(0, 3, 1000)), Ok(0));
    assert_eq!(input.hand(0, slice(10, 1, 1000)), Ok(1));
    let first = output.begin(now, 0, false, 7).unwrap();
    assert_eq!((first.bytes[0], output.is_mid_slice()), (0, true));
    assert_eq!(output.rest(8).unwrap().bytes[0], 1);
    assert_eq!(output.rest(9).unwrap().bytes[0], 2);
    assert!(!output.is_mid_slice() && output.rest(10).is_none());
    output.note_sent(9);
    assert_eq!(input.sent(), 0, "the last block of three is number 9");
    output.note_sent(10);
    assert_eq!(input.sent(), 1);
}

#[test]
fn what_was_made_before_a_loss_is_not_sent_after_it() {
    let (input, mut output) = limited();
    let now = Instant::now() + Duration::from_millis(10);
    for base in [0, 10, 20] {
        input.hand(0, slice(base, 2, 1000)).unwrap();
    }
    assert!(output.begin(now, 0, false, 0).is_some());
    output.note_lost();
    assert!(!output.is_mid_slice());
    assert_eq!((input.losses(), input.sent()), (1, 0));
    assert_eq!(output.begin(now + Duration::from_secs(1), 0, false, 5), None, "all of it is made again");
    assert_eq!(input.flow.waiting.load(Ordering::Relaxed), 0, "and its room is free");
    let serial = input.hand(1, slice(0, 1, 1000)).unwrap();
    assert!(output.begin(now + Duration::from_secs(2), 0, false, 5).is_some());
    output.note_sent(6);
    assert_eq!(input.sent(), serial + 1);
}

#[test]
fn what_waits_is_bounded_and_one_slice_always_may() {
    let (input, output) = limited();
    let len = WAITING_BYTES as usize + 1;
    assert!(input.hand(0, slice(0, 1, len)).is_ok());
    assert_eq!(input.hand(0, slice(10, 1, 1)), Err(NotTaken::Full(slice(10, 1, 1))));
    drop(output);
    let (input, output) = limited();
    drop(output);
    assert_eq!(input.hand(0, slice(0, 1, 1)), Err(NotTaken::Closed));
    assert_eq!(input.flow.waiting.load(Ordering::Relaxed), 0);
}
