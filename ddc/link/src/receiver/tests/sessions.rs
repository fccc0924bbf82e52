//! Sessions: opened, continued, retired, replaced; clocks that are wrong; two senders.

use super::*;

fn retired(events: &[Event]) -> Vec<(SessionId, RetiredWhy)> {
    let sessions = events.iter().filter_map(|event| match event {
        Event::SessionRetired { session, why, .. } => Some((*session, *why)),
        _ => None,
    });
    sessions.collect()
}

fn opened(events: &[Event]) -> Vec<(SessionId, u64, bool)> {
    let sessions = events.iter().filter_map(|event| match event {
        Event::SessionOpened { session, first_block, continued, .. } => {
            Some((*session, *first_block, *continued))
        }
        _ => None,
    });
    sessions.collect()
}

#[test]
fn a_goodbye_takes_effect_after_the_reorder_timeout_and_names_the_tail() {
    let (mut maker, mut bench) = (Maker::new(1), Bench::new());
    let first = maker.block(&text(0));
    let second = maker.block(&text(1));
    let goodbye = maker.goodbye(2);
    bench.take([&goodbye]);
    bench.take(&first[1..]);
    assert!(retired(&bench.pass(just_before(REORDER))).is_empty());
    let events = bench.pass(Duration::from_millis(1));
    let ended = GiveUpCause::SessionEnded;
    assert_eq!(batches(&bench.events), [text(0)], "reordered before the goodbye, all the same");
    assert_eq!(given_up(&events), [(1, 1, GivenUpReason::Lost, ended)]);
    assert_eq!(retired(&events), [(maker.session, RetiredWhy::Goodbye(GoodbyeReason::Stop))]);
    let counters = bench.receiver.counters();
    assert_eq!(counters.packets_lost, 1 + second.len() as u64 + 2, "up to the last packet it names");
    assert_eq!(bench.handle(&second[0]), Err(Reject::SessionRetired));
    assert_eq!(bench.receiver.sessions().count(), 0);

    // Only newer ones now, also in the next life.
    let stored = bench.receiver.stored();
    for mut bench in [bench, Bench::with(|_| {}, &stored)] {
        assert_eq!(bench.handle(&Maker::new(0).block(&text(0))[0]), Err(Reject::SessionRetired));
        assert_eq!(bench.handle(&Maker::new(2).block(&text(0))[0]), Ok(()));
    }
}

#[test]
fn silence_alone_retires_nothing() {
    let (mut maker, mut bench) = (Maker::new(1), Bench::new());
    bench.take(&maker.block(&text(0)));
    assert!(retired(&bench.pass(Duration::from_secs(100_000))).is_empty());
    assert_eq!(batches(&bench.take(&maker.block(&text(1)))), [text(1)], "dormant, and goes on");
    let copy = Maker { packet: 0, next_block: 0, ..maker.clone() }.block(&text(0));
    assert_eq!(bench.handle(&copy[0]), Err(Reject::Replay), "it kept its window");

    let mut newer = Maker::new(2);
    bench.take(&newer.block(&text(2)));
    bench.pass(Duration::from_secs(9));
    bench.take(&newer.block(&text(3)));
    let events = bench.pass(Duration::from_secs(2));
    assert_eq!(retired(&events), [(maker.session, RetiredWhy::Silent)]);
    assert_eq!(bench.handle(&maker.block(&text(4))[0]), Err(Reject::SessionRetired));
    // The newer one is silent too, beside nothing newer.
    assert!(retired(&bench.pass(Duration::from_secs(100))).is_empty());
}

#[test]
fn an_older_session_that_still_sends_goes_on_beside_a_newer_one() {
    let (mut older, mut newer, mut bench) = (Maker::new(1), Maker::new(2), Bench::new());
    for number in 0..30 {
        assert_eq!(batches(&bench.take(&older.block(&text(number)))), [text(number)]);
        assert_eq!(batches(&bench.take(&newer.block(&text(number)))), [text(number)]);
        bench.pass(Duration::from_secs(1));
    }
    assert!(retired(&bench.events).is_empty());
    let source = SocketAddr::from(([198, 18, 0, 1], 7401));
    let two: Vec<_> = bench.events.iter().filter(|e| matches!(e, Event::TwoSenders { .. })).collect();
    let expected = Event::TwoSenders { older: (older.session, source), newer: (newer.session, source) };
    assert_eq!(two, [&expected; 3], "after 10 s, 20 s, 30 s");
    assert_eq!(bench.receiver.counters().two_senders, 3);
}

#[test]
fn a_restarted_sender_is_not_two_senders() {
    let (mut older, mut newer, mut bench) = (Maker::new(1), Maker::new(2), Bench::new());
    for _ in 0..20 {
        bench.take(&older.block(&text(0)));
        bench.pass(Duration::from_secs(1));
    }
    for _ in 0..30 {
        bench.take(&newer.block(&text(0)));
        bench.pass(Duration::from_secs(1));
    }
    assert_eq!(bench.receiver.counters().two_senders, 0);
    assert_eq!(retired(&bench.events), [(older.session, RetiredWhy::Silent)]);
}

#[test]
fn a_fifth_session_replaces_the_one_silent_longest() {
    let mut bench = Bench::new();
    let mut makers: Vec<_> = (1..=6).map(Maker::new).collect();
    for at in [1, 0, 2, 3] {
        let block = makers[at].block(&text(at));
        bench.take(&block[1..3]);
        bench.now += Duration::from_millis(1);
    }
    let forged = Maker { key: LinkKey::new([9; 32]), ..makers[4].clone() }.block(&text(4));
    assert_eq!(bench.handle(&forged[0]), Err(Reject::Seal));
    assert_eq!(bench.receiver.sessions().count(), 4, "only a verified one replaces");
    assert!(bench.handle(&makers[4].block(&text(4))[0]).is_ok());
    let block = makers[5].block(&text(5));
    assert_eq!(bench.handle(&block[0]), Err(Reject::SessionRate), "one at a time, until polled");
    let events = bench.poll();
    assert_eq!(retired(&events), [(makers[1].session, RetiredWhy::Replaced)]);
    assert_eq!(given_up(&events), [(0, 0, GivenUpReason::Unrepairable, GiveUpCause::SessionEnded)]);
    assert_eq!(bench.handle(&makers[1].block(&text(9))[0]), Err(Reject::SessionRetired));
    assert!(bench.handle(&makers[0].block(&text(9))[0]).is_ok(), "older, but open");
    assert!(bench.receiver.stored().len() <= MAX_SESSIONS + 1);
}

#[test]
fn a_session_joined_in_the_middle_starts_near_its_first_packet() {
    for (packet, block, first) in
        [(0, 50, 0), (4095, 50, 0), (4096, 50, 48), (4096, 1, 0), (1 << 40, 1 << 50, (1 << 50) - 2)]
    {
        let (mut maker, mut bench) = (Maker::new(1), Bench::new());
        (maker.packet, maker.next_block) = (packet, block);
        let data = maker.block(&text(0));
        let events = bench.take(&data);
        assert_eq!(opened(&events), [(maker.session, first, false)], "packet {packet} block {block}");
        let events = bench.pass(Duration::from_secs(3));
        let expected: Vec<_> = if first == block { vec![] } else { vec![(first, block - 1)] };
        let ranges: Vec<_> = given_up(&events).iter().map(|range| (range.0, range.1)).collect();
        let joined: Vec<_> = ranges.first().zip(ranges.last()).map(|(a, b)| (a.0, b.1)).into_iter().collect();
        assert_eq!(joined, expected);
        assert_eq!(batches(&bench.events), [text(0)]);
        // What was sent before we listened is not lost on the path.
        let lost = if packet < FRESH_PACKETS { packet } else { 0 };
        bench.take([&maker.heartbeat(0, Duration::ZERO)]);
        bench.pass(Duration::from_secs(2));
        bench.poll();
        assert_eq!(bench.receiver.counters().packets_lost, lost);
    }
    let (mut maker, mut bench) = (Maker::new(1), Bench::new());
    (maker.packet, maker.next_block) = (5000, 50);
    bench.take(&maker.block(&text(0)));
    maker.next_block = 47;
    assert_eq!(bench.handle(&maker.block(&text(0))[0]), Err(Reject::BlockOld));
}

#[test]
fn a_restarted_receiver_goes_on_and_refuses_what_was_released() {
    let (mut maker, mut bench) = (Maker::new(1), Bench::new());
    let recorded: Vec<_> = (0..5).flat_map(|number| maker.block(&text(number))).collect();
    bench.take(&recorded);
    let stored = bench.receiver.stored();
    assert_eq!(stored.len(), 1);
    assert_eq!((stored[0].next_block, stored[0].state), (BlockNumber(5), StoredState::Open));
    let json = serde_json::to_string(&stored).unwrap();
    assert_eq!(serde_json::from_str::<Vec<StoredSession>>(&json).unwrap(), stored);

    let mut bench = Bench::with(|_| {}, &stored);
    let goodbye = Maker { next_block: 3, packet: 2, ..maker.clone() }.goodbye(0);
    for datagram in recorded.iter().chain([&goodbye]) {
        assert_eq!(bench.handle(datagram), Err(Reject::Replay));
    }
    assert!(bench.poll().is_empty());
    assert_eq!(bench.receiver.counters().packets, 0, "an old packet moves nothing");
    maker.block(&text(5));
    let events = bench.take(&maker.block(&text(6)));
    assert_eq!(opened(&events), [(maker.session, 5, true)]);
    let events = bench.pass(Duration::from_secs(3));
    assert_eq!(given_up(&events), [(5, 5, GivenUpReason::Lost, GiveUpCause::Silent)]);
    assert_eq!(batches(&events), [text(6)]);
    assert_eq!(bench.receiver.counters().packets_lost, 0, "counted from the first packet of this life");
}

#[test]
fn stored_sessions_that_nobody_wrote_are_refused_or_harmless() {
    for (text, problem) in [
        (r#"{"key_id":1,"session":"00","next_block":1,"state":"open"}"#, "24 hexadecimal digits"),
        (
            r#"{"key_id":1,"session":"00000000000000000000000é","next_block":1,"state":"open"}"#,
            "24 hexadecimal",
        ),
        (
            r#"{"key_id":1,"session":"000000000000000000000000","next_block":9223372036854775807,"state":"open"}"#,
            "out of range",
        ),
        (r#"{"key_id":1,"session":"000000000000000000000000","next_block":1,"state":"shut"}"#, "shut"),
    ] {
        let error = serde_json::from_str::<StoredSession>(text).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    let many: Vec<_> = (1..=9)
        .map(|start| StoredSession {
            key_id: KeyId(1),
            session: SessionId::new(start, 0),
            next_block: BlockNumber(u64::MAX),
            state: StoredState::Open,
        })
        .collect();
    let bench = Bench::with(|_| {}, &many);
    assert_eq!(bench.receiver.sessions().count(), MAX_SESSIONS);
}

#[test]
fn clocks_in_2099_and_1970() {
    const DAY: u64 = 24 * 3600 * 1_000_000;
    let year_2099 = 4_070_908_800_000_000;
    let at = |start: u64| Maker { session: SessionId::new(start, 1), ..Maker::new(0) };
    let mut bench = Bench::new();
    assert_eq!(bench.handle(&at(year_2099).block(&text(0))[0]), Err(Reject::SessionFuture));
    assert_eq!(bench.handle(&at(WALL + DAY + 1).block(&text(0))[0]), Err(Reject::SessionFuture));
    assert!(bench.receiver.stored().is_empty(), "refused, and not kept");
    assert_eq!(bench.handle(&at(WALL + DAY).block(&text(0))[0]), Ok(()));
    assert_eq!(bench.handle(&at(1).block(&text(0))[0]), Ok(()), "1970 is no newer than nothing retired");

    // An egress whose own clock cannot be right takes what comes; then 2099 is the newest accepted.
    let mut bench = Bench::new();
    bench.wall = BUILD;
    let mut future = at(year_2099);
    assert_eq!(bench.handle(&future.block(&text(0))[0]), Ok(()));
    bench.wall = WALL;
    assert_eq!(
        bench.handle(&at(year_2099 + 2 * DAY).block(&text(0))[0]),
        Ok(()),
        "its clock lags behind 2099"
    );
    bench.take([&future.goodbye(0)]);
    bench.pass(Duration::from_secs(1));
    assert_eq!(
        bench.handle(&at(WALL).block(&text(0))[0]),
        Err(Reject::SessionRetired),
        "clock set right again"
    );
    // The remedy: a new key id on both sides.
    let mut keyring = Keyring::default();
    keyring.insert(KeyId(2), LinkKey::new([2; 32]));
    bench.receiver.set_keyring(bench.now, keyring);
    let events = bench.poll();
    assert_eq!(retired(&events).len(), 1);
    assert_eq!(retired(&events)[0].1, RetiredWhy::KeyRemoved);
    let mut remedy = Maker { key_id: KeyId(2), key: LinkKey::new([2; 32]), ..at(WALL) };
    assert_eq!(bench.handle(&remedy.block(&text(0))[0]), Ok(()));
    assert_eq!(bench.handle(&future.block(&text(0))[0]), Err(Reject::Key));
}

#[test]
fn without_a_seal_nothing_is_kept() {
    let mut maker = Maker { seal: SealMode::None, ..Maker::new(1) };
    let mut bench = Bench::with(|config| config.seal = SealMode::None, &[]);
    assert_eq!(batches(&bench.take(&maker.block(&text(0)))), [text(0)]);
    bench.take([&maker.goodbye(0)]);
    bench.pass(Duration::from_secs(1));
    assert!(bench.receiver.stored().is_empty());
    // The mode is the configuration's, never the packet's.
    let mut sealed = Bench::new();
    assert_eq!(sealed.handle(&Maker { packet: 9, ..maker }.block(&text(0))[0]), Err(Reject::Seal));
}

#[test]
fn keys_follow_the_packet_number_and_others_are_not_derived() {
    let (mut maker, mut bench) = (Maker::new(1), Bench::new());
    maker.packet = (5 << 28) - 3;
    assert_eq!(batches(&bench.take(&maker.block(&text(0)))), [text(0)], "across the border of two keys");
    // Both keys open what they should; behind the window and beyond the next key nothing is even tried.
    for (packet, expected) in [
        ((5 << 28) - 100, Ok(())),
        ((5 << 28) - (1 << 20), Err(Reject::Replay)),
        (7 << 28, Err(Reject::PacketNumber)),
        (6 << 28, Ok(())),
        (7 << 28, Ok(())),
    ] {
        maker.packet = packet;
        let datagram = maker.heartbeat(0, Duration::ZERO);
        assert_eq!(bench.handle(&datagram), expected, "{packet}");
    }
}

#[test]
fn heartbeats_are_passed_on_with_the_difference_of_the_clocks() {
    let (mut maker, mut bench) = (Maker::new(1), Bench::new());
    bench.wall = WALL - 5;
    let events = bench.take([&maker.heartbeat(77, Duration::ZERO)]);
    let Event::Heartbeat { session, heartbeat, clock_difference_micros } = &events[1] else { panic!() };
    assert_eq!((*session, heartbeat.rate_bits, *clock_difference_micros), (maker.session, 77, -5));
}
