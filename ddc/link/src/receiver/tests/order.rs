//! Blocks in order, the give-up rule, and the accounting of what is lost.

use proptest::prelude::*;

use super::*;

const LOST: GivenUpReason = GivenUpReason::Lost;
const PARTIAL: GivenUpReason = GivenUpReason::Unrepairable;

#[test]
fn blocks_come_out_in_order_and_nothing_is_reported() {
    let (mut maker, mut bench) = (Maker::new(1), Bench::new());
    let blocks: Vec<_> = (0..4).map(|number| maker.block(&text(number))).collect();
    assert!(batches(&bench.take(&blocks[1])).is_empty(), "block 0 is waited for");
    bench.take(&blocks[2]);
    assert_eq!(batches(&bench.take(&blocks[0])), [text(0), text(1), text(2)]);
    assert_eq!(batches(&bench.take(&blocks[3])), [text(3)]);
    assert!(given_up(&bench.pass(Duration::from_secs(100))).is_empty());
    let counters = bench.receiver.counters();
    assert_eq!((counters.blocks_received, counters.blocks_repaired, counters.packets_lost), (4, 0, 0));
    assert_eq!(counters.symbols_spare, 8, "every repair symbol");
    assert_eq!(bench.receiver.window_bytes(), 0);
    assert_eq!(bench.receiver.next_deadline(), None);
}

#[test]
fn what_is_missing_is_repaired_and_counted_by_layer() {
    let (mut maker, mut bench) = (Maker::new(1), Bench::new());
    let block = maker.block(&text(0));
    bench.take(&block[..1]);
    assert_eq!(batches(&bench.take(&block[3..])), [text(0)], "two of five are missing");
    let heartbeat = maker.heartbeat(0, Duration::ZERO);
    bench.take([&heartbeat]);
    bench.pass(Duration::from_millis(1200));
    bench.poll();
    let counters = bench.receiver.counters().clone();
    assert_eq!((counters.symbols_repaired, counters.blocks_repaired), (2, 1));
    assert_eq!((counters.packets_lost, counters.packets_late), (2, 0));
    assert_eq!(bench.handle(&block[1]), Ok(()));
    let counters = bench.receiver.counters();
    assert_eq!(
        (counters.packets_lost, counters.packets_late),
        (2, 1),
        "late: lost − late is what never came"
    );
    assert_eq!(counters.blocks_late, 0);
}

/// (a): overtaken by a block ≥ b + 2·D_max, then 256 packet numbers or the reorder timeout.
#[test]
fn an_overtaken_block_is_given_up_after_the_reorder_timeout() {
    let (mut maker, mut bench) = (Maker::new(1), Bench::new());
    let blocks: Vec<_> = (0..4).map(|number| maker.block(&text(number))).collect();
    bench.take(&blocks[0][..2]);
    bench.take(&blocks[1]);
    assert!(given_up(&bench.pass(REORDER * 3)).is_empty(), "block 1 does not overtake block 0");
    bench.take(&blocks[2]);
    assert!(given_up(&bench.pass(just_before(REORDER))).is_empty());
    let events = bench.pass(Duration::from_millis(2));
    assert_eq!(given_up(&events), [(0, 0, PARTIAL, GiveUpCause::Overtaken)]);
    assert_eq!(batches(&events), [text(1), text(2)]);
    assert_eq!(bench.receiver.counters().blocks_unrepairable, 1);
}

#[test]
fn an_overtaken_block_is_given_up_after_256_packet_numbers() {
    let (mut maker, mut bench) = (Maker::new(1), Bench::new());
    let blocks: Vec<_> = (0..3).map(|number| maker.block(&text(number))).collect();
    bench.take(&blocks[0][..1]);
    bench.take(&blocks[1]);
    let overtaking = maker.packet - blocks[2].len() as u64;
    bench.take(&blocks[2][..1]);
    maker.packet = overtaking + OVERTAKEN_PACKETS - 1;
    let heartbeat = maker.heartbeat(0, Duration::from_secs(1));
    assert!(given_up(&bench.take([&heartbeat])).is_empty(), "255 numbers");
    let heartbeat = maker.heartbeat(0, Duration::from_secs(1));
    assert_eq!(given_up(&bench.take([&heartbeat])), [(0, 0, PARTIAL, GiveUpCause::Overtaken)]);
}

#[test]
fn the_reach_of_an_interleaver_is_respected() {
    let (mut maker, mut bench) = (Maker::new(1), Bench::new());
    maker.d_max = 4;
    let blocks: Vec<_> = (0..9).map(|number| maker.block(&text(number))).collect();
    bench.take(&blocks[0][..1]);
    for block in &blocks[1..8] {
        bench.take(block);
    }
    assert!(given_up(&bench.pass(Duration::from_secs(1))).is_empty(), "block 7 is within 2·D_max");
    bench.take(&blocks[8]);
    assert_eq!(given_up(&bench.pass(REORDER)), [(0, 0, PARTIAL, GiveUpCause::Overtaken)]);
}

/// (b): 2 s of silence before the first heartbeat; afterwards only a heartbeat that says that all of it was sent, and
/// the reorder timeout.
#[test]
fn a_block_is_given_up_once_all_of_it_was_sent() {
    let (mut maker, mut bench) = (Maker::new(1), Bench::new());
    let block = maker.block(&text(0));
    bench.take(&block[..2]);
    assert!(given_up(&bench.pass(just_before(Duration::from_secs(2)))).is_empty());
    let events = bench.pass(Duration::from_millis(2));
    assert_eq!(given_up(&events), [(0, 0, PARTIAL, GiveUpCause::Silent)], "before the first heartbeat");

    let block = maker.block(&text(1));
    bench.take(&block[..1]);
    bench.take([&maker.heartbeat_after(1, 0, Duration::ZERO)]);
    assert!(
        given_up(&bench.pass(Duration::from_mins(10))).is_empty(),
        "the sender stands still in the middle of it"
    );
    bench.take(&block[1..2]);
    bench.take([&maker.heartbeat(0, Duration::ZERO)]);
    assert!(given_up(&bench.pass(just_before(REORDER))).is_empty(), "a symbol may have been overtaken");
    let events = bench.pass(Duration::from_millis(2));
    assert_eq!(given_up(&events), [(1, 1, PARTIAL, GiveUpCause::Silent)]);
}

#[test]
fn a_heartbeat_reveals_a_wholly_lost_tail() {
    let (mut maker, mut bench) = (Maker::new(1), Bench::new());
    let block = maker.block(&text(0));
    bench.take(&block);
    maker.block(&text(1));
    maker.block(&text(2));
    let heartbeat = maker.heartbeat(0, Duration::from_millis(20));
    bench.take([&heartbeat]);
    let events = bench.pass(REORDER);
    // Block 2 proves that 0 is over, not 1 or 2: the heartbeat says that these were sent whole, as one range.
    assert_eq!(given_up(&events), [(1, 2, LOST, GiveUpCause::Silent)]);
    assert_eq!(bench.receiver.counters().blocks_lost, 2);
    bench.take([&maker.heartbeat(0, Duration::ZERO)]);
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.receiver.counters().packets_lost, 10, "all symbols of both blocks");
}

/// A jump over 2⁴⁰ blocks is one range, and costs no loop over its blocks.
#[test]
fn a_huge_jump_is_one_range() {
    let (mut maker, mut bench) = (Maker::new(1), Bench::new());
    bench.take(&maker.block(&text(0)));
    maker.next_block = 1 << 40;
    assert!(batches(&bench.take(&maker.block(&text(1)))).is_empty());
    let events = bench.pass(Duration::from_secs(3));
    let ranges = given_up(&events);
    assert!(ranges.len() <= 2, "{ranges:?}");
    assert_eq!((ranges[0].0, ranges[ranges.len() - 1].1), (1, (1 << 40) - 1));
    assert_eq!(batches(&events), [text(1)]);
    assert_eq!(bench.receiver.counters().blocks_lost, (1 << 40) - 1);
}

#[test]
fn a_block_completed_too_late_is_an_event_of_its_own() {
    let (mut maker, mut bench) = (Maker::new(1), Bench::new());
    let blocks: Vec<_> = (0..4).map(|number| maker.block(&text(number))).collect();
    bench.take(&blocks[1][..1]);
    bench.take(&blocks[2]);
    bench.take(&blocks[3]);
    bench.pass(Duration::from_secs(3));
    assert_eq!(given_up(&bench.events).len(), 2, "0 wholly, 1 in part");
    for number in [0, 1] {
        let missing = &blocks[number][number..];
        for (at, datagram) in missing.iter().enumerate() {
            let late = bench.take([datagram]);
            let complete = at + number + 1 == blocks[number].len() - 2;
            let expected = Event::LateBlock { session: maker.session, block: number as u64 };
            assert_eq!(late, if complete { vec![expected] } else { vec![] }, "{number} {at}");
        }
    }
    let counters = bench.receiver.counters();
    assert_eq!((counters.blocks_late, counters.symbols_late), (2, 9));
    assert_eq!(batches(&bench.events), [text(2), text(3)], "nothing of a late block is delivered");
}

#[test]
fn fragments_join_and_a_lost_block_costs_its_batch_only() {
    let (mut maker, mut bench) = (Maker::new(1), Bench::new());
    let all: Vec<_> = [(0, 3), (1, 3), (2, 3), (0, 3), (1, 3), (2, 3), (0, 1)]
        .map(|(fragment, fragments)| maker.fragment(b"some bytes", fragment, fragments))
        .into_iter()
        .enumerate()
        .filter(|(number, _)| *number != 4)
        .map(|(_, block)| block)
        .collect();
    for block in &all {
        bench.take(block);
    }
    let events = bench.pass(Duration::from_secs(3));
    assert_eq!(given_up(&events), [(4, 4, LOST, GiveUpCause::Overtaken)]);
    assert_eq!(batches(&bench.events), [b"some bytes".repeat(3), b"some bytes".to_vec()]);
    assert_eq!(bench.receiver.counters().fragments_discarded, 2);
}

#[test]
fn blocks_that_cannot_be_read_are_reported_and_stepped_over() {
    let (mut maker, mut bench) = (Maker::new(1), Bench::with(|config| config.max_batch_bytes = 100, &[]));
    let malformed = maker.raw_block(0, &[0xff; 30]);
    bench.take(&malformed);
    bench.take(&maker.block(&[1; 101]));
    bench.take(&maker.block(&[2; 100]));
    let unreadable = GiveUpCause::Unreadable;
    let expected =
        [(0, 0, GivenUpReason::Malformed, unreadable), (1, 1, GivenUpReason::TooLarge, unreadable)];
    assert_eq!(given_up(&bench.events), expected);
    assert_eq!(batches(&bench.events), [vec![2; 100]]);
    assert_eq!(bench.receiver.counters().blocks_refused, 2);
}

/// A caller that was stopped for a minute finds the rest of the block in its socket buffer: nothing is given up.
#[test]
fn a_stopped_receiver_does_not_hold_its_own_silence_against_a_block() {
    let (mut maker, mut bench) = (Maker::new(1), Bench::new());
    bench.take([&maker.heartbeat(0, Duration::ZERO)]);
    let block = maker.block(&text(0));
    bench.take(&block[..1]);
    bench.now += Duration::from_mins(1);
    assert_eq!(bench.poll(), [], "polled before the socket was read");
    assert_eq!(batches(&bench.take(&block[1..])), [text(0)]);

    // A caller that is always late gets on all the same.
    let block = maker.block(&text(1));
    bench.take(&block[..1]);
    bench.take([&maker.heartbeat(0, Duration::ZERO)]);
    for _ in 0..3 {
        bench.now += Duration::from_mins(1);
        bench.poll();
    }
    assert_eq!(given_up(&bench.events), [(1, 1, PARTIAL, GiveUpCause::Silent)]);
}

/// A cut of a minute inside a session: what was sent meanwhile is one lost range, and the stream goes on.
#[test]
fn a_long_cut_costs_what_was_sent_meanwhile() {
    let (mut maker, mut bench) = (Maker::new(1), Bench::new());
    bench.take(&maker.block(&text(0)));
    for number in 1..5000 {
        maker.block(&text(number));
    }
    bench.pass(Duration::from_mins(1));
    for number in 5000..5003 {
        bench.take(&maker.block(&text(number)));
    }
    bench.pass(Duration::from_secs(1));
    let ranges = given_up(&bench.events);
    assert_eq!((ranges[0].0, ranges[ranges.len() - 1].1), (1, 4999));
    assert!(ranges.len() <= 3 && ranges.iter().all(|range| range.2 == LOST), "{ranges:?}");
    assert_eq!(batches(&bench.events), [text(0), text(5000), text(5001), text(5002)]);
    assert_eq!(bench.receiver.counters().blocks_lost, 4999);
}

/// Many blocks begun and none finished: the window holds, the oldest go, and the stream goes on.
#[test]
fn memory_stays_in_bounds() {
    let (mut maker, mut bench) = (Maker::new(1), Bench::with(|config| config.window_bytes = 0, &[]));
    maker.symbol_size = 9000;
    maker.d_max = 255;
    for _ in 0..300 {
        let block = maker.raw_block(maker.next_block, &vec![1; 9000 * 20]);
        for datagram in [&block[0], &block[block.len() - 1]] {
            assert_eq!(bench.handle(datagram), Ok(()));
            assert!(bench.receiver.window_bytes() <= MIN_WINDOW_BYTES);
        }
        bench.poll();
    }
    let ranges = given_up(&bench.events);
    assert!(ranges.len() > 250 && ranges.iter().all(|range| range.3 == GiveUpCause::WindowFull));
    assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "each once, in order");

    // Tiny blocks are charged for more than their bytes.
    maker.symbol_size = 1;
    for _ in 0..20_000 {
        let block = maker.raw_block(maker.next_block, &[1; 2]);
        assert_eq!(bench.handle(&block[0]), Ok(()));
        bench.poll();
    }
    assert!(bench.receiver.window_bytes() <= MIN_WINDOW_BYTES);

    // A caller that does not poll is refused more, not given more memory.
    let mut bench = Bench::with(|config| config.window_bytes = 0, &[]);
    let mut maker = Maker::new(1);
    (maker.symbol_size, maker.repairs) = (9000, 0);
    let (mut full, data) = (0, vec![3; 90_000]);
    for _ in 0..100 {
        for datagram in maker.block(&data) {
            full += u64::from(bench.handle(&datagram) == Err(Reject::WindowFull));
        }
    }
    assert!(full > 0 && full == bench.rejected(Reject::WindowFull));
    assert!(bench.receiver.window_bytes() <= MIN_WINDOW_BYTES);
    let first = batches(&bench.poll());
    assert!(first.len() > 10 && first.iter().all(|batch| *batch == data));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Any loss, duplication and reordering within the sender's contract: what comes out is what was sent, in
    /// order, once; every block is either released or reported, never both; the packet counts add up.
    #[test]
    fn any_weather(
        sizes in prop::collection::vec((1usize..150, 0u8..3), 1..40),
        fates in prop::collection::vec((0u8..100, 0usize..12, 0u64..2000), 50..400),
        loss in 0u8..60,
        restart_of_receiver in prop::option::of(0usize..400),
    ) {
        let (mut maker, mut bench) = (Maker::new(1), Bench::new());
        let mut sent = Vec::new();
        let mut datagrams = Vec::new();
        for (number, (len, repairs)) in sizes.iter().enumerate() {
            maker.repairs = *repairs as usize;
            let data: Vec<u8> = (0..*len).map(|at| (at * 7 + number) as u8).collect();
            datagrams.extend(maker.block(&data));
            sent.push(data);
        }
        datagrams.push(maker.heartbeat(0, Duration::from_millis(1)));
        let total = datagrams.len();
        // Moves each datagram some places back, drops and doubles some.
        let fate = |at: usize| fates[at % fates.len()];
        let mut order: Vec<usize> = (0..total).collect();
        order.sort_by_key(|&at| at + fate(at).1);
        let (mut came, mut doubled) = (0u64, 0);
        for (step, at) in order.into_iter().enumerate() {
            if restart_of_receiver == Some(step) {
                let stored = bench.receiver.stored();
                let old = std::mem::replace(&mut bench, Bench::with(|_| {}, &stored));
                bench.now = old.now;
                bench.events = old.events;
                (came, doubled) = (0, 0);
            }
            let (dice, _, micros) = fate(at);
            if dice < loss && at + 1 < total {
                continue;
            }
            bench.now += Duration::from_micros(micros);
            let before = bench.receiver.counters().packets;
            let _ = bench.handle(&datagrams[at]);
            came += bench.receiver.counters().packets - before;
            if dice % 5 == 0 {
                prop_assert_eq!(bench.handle(&datagrams[at]), Err(Reject::Replay));
                doubled += 1;
            }
            bench.poll();
        }
        if restart_of_receiver.is_some_and(|step| step < total) {
            // Heartbeats go on: without one nobody tells this life of blocks that only the former one heard of.
            let before = bench.receiver.counters().packets;
            let _ = bench.handle(&maker.heartbeat(0, Duration::from_millis(1)));
            came += bench.receiver.counters().packets - before;
        }
        bench.pass(Duration::from_secs(5));
        bench.poll();

        let mut next = 0;
        for event in &bench.events {
            match event {
                Event::Batch(batch) => {
                    prop_assert_eq!(batch.first_block, next);
                    prop_assert_eq!(batch.bytes(), &sent[next as usize][..]);
                    next += 1;
                }
                Event::GivenUp { first, last, .. } => {
                    prop_assert_eq!(*first, next);
                    next = last + 1;
                }
                _ => {}
            }
        }
        prop_assert_eq!(next as usize, sent.len());
        prop_assert_eq!(bench.receiver.window_bytes(), 0);
        let counters = bench.receiver.counters();
        prop_assert_eq!(counters.packets, came);
        prop_assert_eq!(doubled > 0, counters.rejected(Reject::Replay) > 0 && doubled > 0);
        if restart_of_receiver.is_none_or(|step| step >= total) {
            prop_assert_eq!(counters.packets_lost - counters.packets_late, total as u64 - came);
        }
    }
}
