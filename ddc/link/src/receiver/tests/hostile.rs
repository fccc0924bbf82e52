//! Whatever is thrown at it: refused with the reason, nothing delivered, the stream goes on.

use proptest::prelude::*;

use super::*;

/// Every reason there is, by a datagram that earns it.
#[test]
fn every_reason_has_its_datagram() {
    let mut bench = Bench::new();
    let mut maker = Maker::new(10);
    let good = maker.block(&text(0));
    bench.take(&good[..1]);
    let expect = |bench: &mut Bench, datagram: &[u8], reason: Reject| {
        let before = bench.rejected(reason);
        assert_eq!(bench.handle(datagram), Err(reason));
        assert_eq!(bench.rejected(reason), before + 1);
        assert!(bench.poll().is_empty(), "{reason}");
    };
    let changed = |at: usize, to: u8| {
        let mut datagram = good[1].clone();
        datagram[at] = to;
        datagram
    };
    expect(&mut bench, &[], Reject::Short);
    expect(&mut bench, &good[1][..59], Reject::Short);
    expect(&mut bench, &vec![0; 9189], Reject::Long);
    expect(&mut bench, &changed(0, b'X'), Reject::Magic);
    expect(&mut bench, &changed(2, 2), Reject::Version);
    expect(&mut bench, &changed(3, 99), Reject::Kind);
    expect(&mut bench, &changed(3, 4), Reject::Reserved);
    expect(&mut bench, &changed(3, 5), Reject::Reserved);
    expect(&mut bench, &changed(5, 9), Reject::Link);
    expect(&mut bench, &changed(6, 9), Reject::Key);
    expect(&mut bench, &changed(50, good[1][50] ^ 1), Reject::Seal);
    expect(&mut bench, &good[1][..good[1].len() - 1], Reject::Seal);
    expect(&mut bench, &good[0], Reject::Replay);
    let mut far = maker.clone();
    far.packet = 5 << 28;
    expect(&mut bench, &far.block(&text(1))[0], Reject::PacketNumber);

    // Authentic and odd: shapes, headers that disagree with their block, payloads that are none.
    let odd = |maker: &mut Maker, change: &dyn Fn(&mut Header), payload: &[u8]| {
        let packet_number = maker.header(Kind::Source, 0).packet_number;
        let mut header = Header { packet_number, ..Header::decode(&good[1], 16).unwrap() };
        change(&mut header);
        maker.seal(&header, payload)
    };
    let changes: [&dyn Fn(&mut Header); 8] = [
        &|header| header.source_symbols = 0,
        &|header| header.symbol_size = 19,
        &|header| header.repair_symbols = 3,
        &|header| header.block_len += 1,
        &|header| header.d_max = 0,
        &|header| header.symbol_index = 77,
        &|header| header.kind = Kind::Repair,
        &|header| header.block = BlockNumber(u64::MAX),
    ];
    for change in changes {
        let datagram = odd(&mut maker, change, &[0; 20]);
        expect(&mut bench, &datagram, Reject::Header);
    }
    let datagram = odd(&mut maker, &|_| {}, &[0; 3]);
    expect(&mut bench, &datagram, Reject::Header);
    let repeated = odd(&mut maker, &|header| header.symbol_index = 0, &[0; 20]);
    expect(&mut bench, &repeated, Reject::Duplicate);
    for kind in [Kind::Heartbeat, Kind::Goodbye] {
        let header = maker.header(kind, 0);
        let datagram = maker.seal(&header, &[0xff; 5]);
        expect(&mut bench, &datagram, Reject::Payload);
    }
    let datagram = maker.goodbye(MAX_GOODBYE_AHEAD + 1);
    expect(&mut bench, &datagram, Reject::Payload);
    bench.wall += 1_000_000;
    let future = Maker { session: SessionId::new(u64::MAX, 1), ..Maker::new(0) }.block(&text(1));
    expect(&mut bench, &future[0], Reject::SessionFuture);

    // The stream went on all the while.
    assert_eq!(batches(&bench.take(&good[1..])), [text(0)]);
    bench.take([&maker.goodbye(0)]);
    bench.pass(Duration::from_secs(1));
    let old = Maker::new(9).block(&text(1));
    assert_eq!(bench.handle(&old[0]), Err(Reject::SessionRetired));
    // The rest has tests of its own.
    let elsewhere = [Reject::SessionRate, Reject::BlockOld, Reject::WindowFull];
    for reason in Reject::ALL {
        assert!(bench.rejected(*reason) > 0 || elsewhere.contains(reason), "{reason} has no test");
    }
}

#[test]
fn unknown_sessions_cost_a_bounded_number_of_derivations() {
    let mut bench = Bench::new();
    let mut seal = 0;
    for start in 0..10_000 {
        let forged = Maker { key: LinkKey::new([9; 32]), ..Maker::new(start) }.heartbeat(0, Duration::ZERO);
        match bench.handle(&forged) {
            Err(Reject::Seal) => seal += 1,
            other => assert_eq!(other, Err(Reject::SessionRate)),
        }
    }
    assert_eq!(seal, DERIVATION_BURST);
    assert_eq!((bench.receiver.sessions().count(), bench.receiver.window_bytes()), (0, 0));
    bench.now += Duration::from_millis(10);
    assert_eq!(bench.handle(&Maker::new(1).heartbeat(0, Duration::ZERO)), Ok(()), "a real one gets in soon");
    let mut maker = Maker::new(1);
    maker.packet = 1;
    bench.take(&maker.block(&text(0)));
}

/// One flipped bit anywhere: nothing is delivered, nothing is kept, and the packet itself is still welcome.
#[test]
fn a_flipped_bit_anywhere_delivers_nothing() {
    for seal in [SealMode::Aes256Gcm, SealMode::None] {
        let mut bench = Bench::with(|config| config.seal = seal, &[]);
        let mut maker = Maker { seal, repairs: 0, ..Maker::new(1) };
        bench.take(&maker.block(&text(0)));
        let good = maker.block(&text(1));
        for datagram in &good {
            for bit in 0..datagram.len() * 8 {
                bench.now += Duration::from_millis(1);
                let mut flipped = datagram.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(bench.handle(&flipped).is_err(), "bit {bit}");
                assert_eq!(bench.poll(), [], "bit {bit}");
            }
            for len in 0..datagram.len() {
                assert!(bench.handle(&datagram[..len]).is_err());
            }
        }
        assert_eq!(bench.receiver.window_bytes(), 0);
        assert_eq!(batches(&bench.take(&good)), [text(1)]);
    }
}

#[test]
fn a_replayed_stream_delivers_nothing_again() {
    let (mut maker, mut bench) = (Maker::new(1), Bench::new());
    let all: Vec<_> = (0..20).flat_map(|number| maker.block(&text(number))).collect();
    bench.take(&all);
    let delivered = batches(&bench.events).len();
    for datagram in &all {
        assert_eq!(bench.handle(datagram), Err(Reject::Replay));
    }
    assert!(bench.pass(Duration::from_secs(10)).is_empty());
    assert_eq!(delivered, 20);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Random bytes, some with a good head; nothing happens but counting.
    #[test]
    fn random_bytes(datagrams in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..200), any::<bool>()), 1..20)) {
        let mut bench = Bench::new();
        for (mut bytes, dressed) in datagrams {
            if dressed && bytes.len() > 8 {
                let kind = bytes[3] % 6;
                bytes[..7].copy_from_slice(&[b'D', b'D', 1, kind, 0, 1, 1]);
            }
            prop_assert!(bench.handle(&bytes).is_err());
        }
        prop_assert_eq!(bench.poll(), []);
        prop_assert_eq!(bench.receiver.counters().packets, 0);
        prop_assert_eq!((bench.receiver.sessions().count(), bench.receiver.window_bytes()), (0, 0));
        prop_assert_eq!(bench.receiver.next_deadline(), None);
    }

    /// Authentic headers of any content: never a panic, never too much memory, and polling always ends.
    #[test]
    fn authentic_nonsense(
        headers in prop::collection::vec((0u8..4, any::<u8>(), prop_oneof![0u64..40, any::<u64>()], prop_oneof![0u64..300, 0u64..(1 << 29)], (any::<u16>(), any::<u8>(), any::<u8>(), any::<u8>(), 0u32..(1 << 24)), 0usize..100, 0u64..3000), 1..60),
        tidy: bool,
        unpolled: bool,
    ) {
        let mut bench = Bench::with(|config| config.window_bytes = 0, &[]);
        let maker = Maker::new(1);
        for (kind, d_max, block, packet, (size, index, k, r, len), payload, millis) in headers {
            let kind = [Kind::Source, Kind::Repair, Kind::Heartbeat, Kind::Goodbye][kind as usize];
            let mut header = Header { d_max, packet_number: PacketNumber(packet), ..maker.clone().header(kind, block) };
            (header.symbol_size, header.symbol_index, header.source_symbols) = (size, index, k);
            (header.repair_symbols, header.block_len) = (r, len);
            let mut payload = vec![r; payload];
            if tidy && kind.is_symbol() {
                header.symbol_size = 1 + size % 9000;
                header.source_symbols = 1 + k % 128;
                header.repair_symbols = 1 + r % 127;
                let (k, r) = (u16::from(header.source_symbols), u16::from(header.repair_symbols));
                header.block_len = u32::from(k) * u32::from(header.symbol_size);
                header.symbol_index = match kind {
                    Kind::Source => u16::from(index) % k,
                    _ => k + u16::from(index) % r,
                } as u8;
                header.d_max = d_max.max(1);
                payload = vec![index; header.symbol_size as usize];
            }
            if tidy && kind == Kind::Heartbeat {
                payload.clear();
                Heartbeat { rate_bits: u64::from(len), interleave_span_micros: u32::MAX, ..Default::default() }.encode(&mut payload);
            }
            bench.now += Duration::from_millis(millis);
            let _ = bench.handle(&maker.seal(&header, &payload));
            prop_assert!(bench.receiver.window_bytes() <= MIN_WINDOW_BYTES);
            if !unpolled {
                bench.poll();
            }
        }
        bench.pass(Duration::from_secs(200));
        prop_assert!(bench.receiver.window_bytes() <= MIN_WINDOW_BYTES);
    }
}
