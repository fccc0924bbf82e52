//! Both sockets over loopback: every combination of IP version and engine behaves alike.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ddc_udp::{
    BATCH, DATAGRAM_ROOM, Engine, OpenError, ReceiveBatch, ReceiverOptions, ReceiverSocket, SendError,
    SenderOptions, SenderSocket,
};
use proptest::prelude::*;

const LOCALS: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];
const ENGINES: [Engine; 2] = [Engine::Batched, Engine::Portable];
/// For what must come; only a failing test waits that long.
const LONG: Duration = Duration::from_secs(5);
/// For what must not come.
const SHORT: Duration = Duration::from_millis(50);

fn receiver(listen: &str, engine: Engine) -> ReceiverSocket {
    // What an unchanged Debian grants everybody: the tests must not need more.
    let receive_buffer = 208 << 10;
    let options = ReceiverOptions { engine, receive_buffer, ..ReceiverOptions::new(listen.parse().unwrap()) };
    ReceiverSocket::open(&options).unwrap()
}

fn sender(target: SocketAddr, engine: Engine) -> SenderSocket {
    SenderSocket::open(&SenderOptions { engine, ..SenderOptions::new(target) }).unwrap()
}

fn send_all(sender: &SenderSocket, datagrams: &[Vec<u8>]) {
    let slices: Vec<&[u8]> = datagrams.iter().map(Vec::as_slice).collect();
    let mut sent = 0;
    while sent < slices.len() {
        let taken = sender.send(&slices[sent..]).unwrap();
        assert!(taken > 0, "neither progress nor an error");
        sent += taken;
    }
}

/// Takes `count` datagrams, or what came before `LONG` was over.
fn take(receiver: &mut ReceiverSocket, count: usize) -> Vec<Vec<u8>> {
    let mut batch = ReceiveBatch::new();
    let mut seen = Vec::new();
    let deadline = Instant::now() + LONG;
    while seen.len() < count && Instant::now() < deadline {
        let received = receiver.receive(&mut batch, Duration::from_millis(100)).unwrap();
        assert!(received <= BATCH);
        assert_eq!(received, batch.len());
        seen.extend(batch.datagrams().map(|datagram| {
            assert!(!datagram.truncated);
            assert_eq!(datagram.wire_bytes, datagram.bytes.len());
            datagram.bytes.to_vec()
        }));
    }
    seen
}

/// Distinct contents and lengths, the empty datagram among them.
fn numbered(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| n.to_be_bytes().iter().copied().cycle().take(n * 37 % 1473).collect()).collect()
}

#[test]
fn batches_of_every_size_arrive_whole_and_in_order() {
    for local in LOCALS {
        for sending in ENGINES {
            for receiving in ENGINES {
                let mut receiver = receiver(local, receiving);
                let sender = sender(receiver.local_addr(), sending);
                for count in [1, 2, BATCH - 1, BATCH, BATCH + 1, 200] {
                    let datagrams = numbered(count);
                    send_all(&sender, &datagrams);
                    assert_eq!(
                        take(&mut receiver, count),
                        datagrams,
                        "{local} {sending:?} {receiving:?} {count}"
                    );
                }
                assert_eq!(receiver.socket_drops(), 0);
                assert_eq!(sender.ignored_errors(), 0);
                assert_eq!(
                    receiver.receive(&mut ReceiveBatch::new(), SHORT).unwrap(),
                    0,
                    "more came than was sent"
                );
            }
        }
    }
}

#[test]
fn the_source_is_the_senders_address() {
    for local in LOCALS {
        for engine in ENGINES {
            let mut receiver = receiver(local, engine);
            let source: SocketAddr = local.parse().unwrap();
            let options = SenderOptions { source: Some(source), ..SenderOptions::new(receiver.local_addr()) };
            let sender = SenderSocket::open(&options).unwrap();
            assert_eq!(sender.target(), receiver.local_addr());
            assert_ne!(sender.local_addr().port(), 0);
            assert_eq!(sender.send(&[b"here"]).unwrap(), 1);
            let mut batch = ReceiveBatch::new();
            assert_eq!(receiver.receive(&mut batch, LONG).unwrap(), 1);
            let seen = batch.datagrams().next().unwrap();
            assert_eq!((seen.source, &*seen.bytes), (sender.local_addr(), &b"here"[..]));
        }
    }
}

#[test]
fn a_datagram_larger_than_its_slot_is_flagged_and_its_neighbours_are_not() {
    for local in LOCALS {
        for engine in ENGINES {
            let mut receiver = receiver(local, engine);
            let sender = sender(receiver.local_addr(), engine);
            let sizes = [100, DATAGRAM_ROOM, DATAGRAM_ROOM + 1, 0, 20_000, 7];
            let datagrams: Vec<_> = sizes.iter().map(|&size| vec![0xAB; size]).collect();
            send_all(&sender, &datagrams);
            let mut batch = ReceiveBatch::new();
            let mut seen = Vec::new();
            while seen.len() < sizes.len() {
                assert_ne!(receiver.receive(&mut batch, LONG).unwrap(), 0);
                seen.extend(batch.datagrams().map(|d| (d.wire_bytes, d.truncated, d.bytes.len())));
            }
            let room = DATAGRAM_ROOM;
            let expected: Vec<_> = sizes.iter().map(|&size| (size, size > room, size.min(room))).collect();
            assert_eq!(seen, expected, "{local} {engine:?}");
        }
    }
}

#[test]
fn nothing_to_receive_takes_the_timeout_and_no_longer_than_reasonable() {
    for engine in ENGINES {
        let mut receiver = receiver("127.0.0.1:0", engine);
        let mut batch = ReceiveBatch::new();
        for timeout in [Duration::ZERO, Duration::from_millis(30)] {
            let started = Instant::now();
            assert_eq!(receiver.receive(&mut batch, timeout).unwrap(), 0);
            assert!(batch.is_empty());
            assert!(started.elapsed() >= timeout);
            assert!(started.elapsed() < timeout + Duration::from_secs(2));
        }
    }
}

#[test]
fn a_wait_ends_with_the_first_datagram_and_leaves_no_old_ones_in_the_batch() {
    for engine in ENGINES {
        let mut receiver = receiver("127.0.0.1:0", engine);
        let sender = sender(receiver.local_addr(), engine);
        let mut batch = ReceiveBatch::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(SHORT);
                sender.send(&[b"late"]).unwrap();
            });
            let started = Instant::now();
            assert_eq!(receiver.receive(&mut batch, LONG).unwrap(), 1);
            assert!(started.elapsed() < LONG);
        });
        assert_eq!(receiver.receive(&mut batch, Duration::ZERO).unwrap(), 0);
        assert_eq!(batch.datagrams().count(), 0);
    }
}

/// sent = received + dropped by the socket: a full queue is no mystery.
#[test]
fn what_the_queue_drops_is_counted_exactly() {
    for local in LOCALS {
        for engine in ENGINES {
            let options = ReceiverOptions {
                receive_buffer: 16 << 10,
                engine,
                ..ReceiverOptions::new(local.parse().unwrap())
            };
            let mut receiver = ReceiverSocket::open(&options).unwrap();
            let sender = sender(receiver.local_addr(), Engine::Batched);
            let mut batch = ReceiveBatch::new();
            let mut total = 0u64;
            let mut received = 0u64;
            let mut drops = 0;
            // Two floods with a drain after each: the count goes on, it does not begin again.
            for _ in 0..2 {
                send_all(&sender, &vec![vec![1; 1400]; 300]);
                total += 300;
                loop {
                    match receiver.receive(&mut batch, SHORT).unwrap() {
                        0 => break,
                        count => received += count as u64,
                    }
                    assert!(receiver.socket_drops() >= drops, "the count fell");
                    drops = receiver.socket_drops();
                }
                assert!(received < total, "the queue held more than it should: the test shows nothing");
                assert_eq!(received + receiver.socket_drops(), total, "{local} {engine:?}");
            }
        }
    }
}

/// The stamp alone (SO_RXQ_OVFL), before any idle wait has asked the socket itself.
#[test]
fn drops_show_with_the_next_datagram() {
    let options =
        ReceiverOptions { receive_buffer: 16 << 10, ..ReceiverOptions::new("127.0.0.1:0".parse().unwrap()) };
    let mut receiver = ReceiverSocket::open(&options).unwrap();
    let sender = sender(receiver.local_addr(), Engine::Batched);
    let mut batch = ReceiveBatch::new();
    send_all(&sender, &vec![vec![1; 1400]; 100]);
    let mut received = receiver.receive(&mut batch, LONG).unwrap();
    assert!((1..100).contains(&received));
    assert_eq!(receiver.socket_drops(), 0, "all of these were queued before the first drop");
    send_all(&sender, &[vec![2; 10]]);
    received += receiver.receive(&mut batch, LONG).unwrap();
    assert_eq!(receiver.socket_drops() + received as u64, 101);
}

#[test]
fn a_target_that_refuses_is_counted_and_not_fatal() {
    for local in LOCALS {
        for engine in ENGINES {
            // A port that nobody has and, being below the ephemeral range, none of the other tests will get.
            let mut target: SocketAddr = local.parse().unwrap();
            target.set_port(20_000 + (std::process::id() % 10_000) as u16);
            let sender = sender(target, engine);
            send_all(&sender, &numbered(200));
            assert!(sender.ignored_errors() > 0, "the refusals were not seen: the test shows nothing");

            // An egress that comes later gets everything sent from then on.
            let mut receiver = receiver(&target.to_string(), engine);
            let datagrams = numbered(100);
            send_all(&sender, &datagrams);
            assert_eq!(take(&mut receiver, datagrams.len()), datagrams);
        }
    }
}

#[test]
fn a_datagram_too_large_is_typed_and_the_ones_before_it_are_sent() {
    for (local, room) in [("127.0.0.1:0", 65_507), ("[::1]:0", 65_487)] {
        for engine in ENGINES {
            let mut receiver = receiver(local, engine);
            let sender = sender(receiver.local_addr(), engine);
            let large = vec![0; 65_536];
            let small: &[u8] = b"fits";
            assert_eq!(sender.send(&[small, small, &large, small]).unwrap(), 2);
            let error = sender.send(&[&large, small]).unwrap_err();
            assert!(!error.is_temporary());
            let message = error.to_string();
            let SendError::TooLarge { bytes, mtu, room: stated, .. } = error else { panic!("{error:?}") };
            assert_eq!(bytes, 65_536);
            assert!(mtu >= 65_535, "MTU {mtu}");
            if local.starts_with('1') {
                assert_eq!(stated, room);
            }
            assert!(message.contains("65536 bytes") && message.contains("mtu"), "{message}");
            // The socket is as good as before.
            assert_eq!(sender.send(&[small]).unwrap(), 1);
            assert_eq!(take(&mut receiver, 3), [small, small, small]);
        }
    }
}

#[test]
fn nothing_sent_to_a_sender_is_ever_queued() {
    for local in LOCALS {
        let peer = UdpSocket::bind(local).unwrap();
        let sender = sender(peer.local_addr().unwrap(), Engine::Batched);
        for _ in 0..10 {
            peer.send_to(b"answer", sender.local_addr()).unwrap();
        }
        let inode_line = |text: &str| {
            let port = format!(":{:04X} ", sender.local_addr().port());
            let line =
                text.lines().find(|line| line.split_once(": ").is_some_and(|(_, rest)| rest.contains(&port)));
            line.map(|line| line.split_whitespace().nth(4).unwrap().to_owned())
        };
        let table = if peer.local_addr().unwrap().is_ipv4() { "/proc/net/udp" } else { "/proc/net/udp6" };
        let queues =
            inode_line(&std::fs::read_to_string(table).unwrap()).expect("the socket is in the table");
        assert!(queues.ends_with(":00000000"), "bytes wait at the sender: tx:rx = {queues}");
        assert_eq!(sender.send(&[b"on"]).unwrap(), 1);
    }
}

#[test]
fn a_buffer_that_is_too_small_is_said_with_the_remedy() {
    // Nothing grants a gigabyte without being root; root gets it, by force.
    let options =
        ReceiverOptions { receive_buffer: 1 << 30, ..ReceiverOptions::new("127.0.0.1:0".parse().unwrap()) };
    let grant = ReceiverSocket::open(&options).unwrap().buffer();
    assert_eq!(grant.requested, 1 << 30);
    assert_eq!(grant.shortfall().is_some(), grant.granted < grant.requested);
    if let Some(message) = grant.shortfall() {
        assert!(message.ends_with("run: sysctl -w net.core.rmem_max=1073741824"), "{message}");
    }

    let options =
        SenderOptions { send_buffer: 64 << 10, ..SenderOptions::new("127.0.0.1:9".parse().unwrap()) };
    let grant = SenderSocket::open(&options).unwrap().buffer();
    assert!(grant.granted >= 64 << 10, "64 KiB is within everybody's limits: {grant:?}");
}

#[test]
fn mistakes_in_addresses_are_named() {
    let target: SocketAddr = "127.0.0.1:7401".parse().unwrap();
    let open = |change: fn(&mut SenderOptions)| {
        let mut options = SenderOptions::new(target);
        change(&mut options);
        SenderSocket::open(&options).unwrap_err()
    };
    let error = open(|o| o.target.set_port(0));
    assert!(matches!(error, OpenError::NoPort { .. }), "{error}");
    let error = open(|o| o.source = Some("[::1]:0".parse().unwrap()));
    assert!(matches!(error, OpenError::MixedVersions { .. }), "{error}");
    let error = open(|o| o.interface = Some("no-such-if0".into()));
    assert!(matches!(&error, OpenError::Interface { name, .. } if name == "no-such-if0"), "{error}");
    assert!(error.is_temporary(), "an interface may appear later");
    let error = open(|o| o.source = Some("192.0.2.1:0".parse().unwrap()));
    assert!(matches!(error, OpenError::Bind { .. }) && error.is_temporary(), "{error}");

    let first = receiver("127.0.0.1:0", Engine::Batched);
    let error = ReceiverSocket::open(&ReceiverOptions::new(first.local_addr())).unwrap_err();
    assert!(
        matches!(error, OpenError::Bind { .. }) && !error.is_temporary(),
        "a second egress took the port: {error}"
    );
    assert!(error.to_string().contains(&first.local_addr().to_string()), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The batch calls and their portable twins, fed the same, show the same.
    #[test]
    fn both_engines_show_the_same(
        sizes in prop::collection::vec(prop_oneof![0usize..1500, 60usize..70, Just(300), Just(301)], 1..150),
        sending in prop::sample::select(&ENGINES[..]),
        room in prop::sample::select(&[300usize, 2048][..]),
    ) {
        let datagrams: Vec<Vec<u8>> =
            sizes.iter().enumerate().map(|(n, &size)| (0..size).map(|i| (i * 7 + n) as u8).collect()).collect();
        let mut views = Vec::new();
        for receiving in ENGINES {
            let mut receiver = receiver("127.0.0.1:0", receiving);
            let sender = sender(receiver.local_addr(), sending);
            send_all(&sender, &datagrams);
            let mut batch = ReceiveBatch::with_room(room);
            let mut view = Vec::new();
            while view.len() < datagrams.len() {
                prop_assert_ne!(receiver.receive(&mut batch, LONG).unwrap(), 0);
                view.extend(batch.datagrams().map(|d| (d.wire_bytes, d.truncated, d.bytes.to_vec())));
            }
            views.push(view);
        }
        let expected: Vec<_> =
            datagrams.iter().map(|d| (d.len(), d.len() > room, d[..d.len().min(room)].to_vec())).collect();
        prop_assert_eq!(&views[0], &expected);
        prop_assert_eq!(&views[1], &expected);
    }
}
