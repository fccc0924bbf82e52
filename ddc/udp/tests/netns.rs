//! Both sockets between two network namespaces joined by a veth pair of MTU 1500: what loopback cannot show.
//!
//! Needs root and iproute2, and says so by failing: a test that skips itself proves nothing. Each test makes its own
//! namespaces under names that carry the process id, and removes them when it ends, however it ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ddc_udp::{
    ReceiveBatch, ReceiverOptions, ReceiverSocket, SEND_WAIT, SendError, SenderOptions, SenderSocket,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const LONG: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(100);

/// Two namespaces, each with one end of a veth pair named `link0`: the source has 198.18.0.1/24 and fd18::1, the
/// destination 198.18.0.2/24 and fd18::2. Both know each other's hardware address, as across a diode.
struct Pair {
    source: String,
    destination: String,
}

impl Pair {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests make network namespaces and therefore need root; run them with sudo, or leave them out with: \
             cargo test -p ddc-udp --lib --test loopback"
        );
        let id = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // Made before anything is, so that its drop removes whatever a failing step leaves.
        let pair = Pair { source: format!("ddc-udp-s-{id}"), destination: format!("ddc-udp-d-{id}") };
        let (s, d) = (pair.source.as_str(), pair.destination.as_str());
        ip(&format!("netns add {s}"));
        ip(&format!("netns add {d}"));
        ip(&format!("-n {s} link add link0 mtu 1500 type veth peer name link0 mtu 1500 netns {d}"));
        for (name, host) in [(s, 1), (d, 2)] {
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {name} address add 198.18.0.{host}/24 broadcast 198.18.0.255 dev link0"));
            ip(&format!("-n {name} address add fd18::{host}/64 dev link0 nodad"));
            ip(&format!("-n {name} link set link0 address 02:00:00:00:00:0{host} up"));
        }
        ip(&format!("-n {s} neighbour replace 198.18.0.2 lladdr 02:00:00:00:00:02 nud permanent dev link0"));
        ip(&format!("-n {s} neighbour replace fd18::2 lladdr 02:00:00:00:00:02 nud permanent dev link0"));
        pair.wait_until_ready();
        pair
    }

    /// The kernel notices the carrier a little after both ends are up, and until then drops what is sent or received.
    fn wait_until_ready(&self) {
        let deadline = Instant::now() + LONG;
        for name in [&self.source, &self.destination] {
            // The last thing to come: IPv6's multicast route.
            while output("ip", &format!("-n {name} -6 route show table local ff00::/8 dev link0")).is_empty()
            {
                assert!(Instant::now() < deadline, "link0 in {name} does not become ready");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn sender(&self, target: &str, interface: Option<&str>) -> SenderSocket {
        let interface = interface.map(str::to_owned);
        let options = SenderOptions { interface, ..SenderOptions::new(target.parse().unwrap()) };
        inside(&self.source, || SenderSocket::open(&options).unwrap())
    }

    fn receiver(&self, options: &ReceiverOptions) -> ReceiverSocket {
        inside(&self.destination, || ReceiverSocket::open(options).unwrap())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for name in [&self.source, &self.destination] {
            // Its veth end goes with it. Failing here would hide why the test failed.
            let _ = Command::new("ip").args(["netns", "delete", name]).output();
        }
    }
}

fn ip(arguments: &str) {
    run("ip", arguments);
}

fn run(program: &str, arguments: &str) {
    output(program, arguments);
}

/// What the command printed; a command that fails ends the test with its complaint.
fn output(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program} ({error}); install iproute2"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {}", complaint.trim_end());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs `work` on a thread that lives in the namespace. A socket stays in the namespace that it was made in.
fn inside<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let namespace = File::open(format!("/run/netns/{name}")).unwrap();
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

fn listen(address: &str) -> ReceiverOptions {
    ReceiverOptions { interface: Some("link0".into()), ..ReceiverOptions::new(address.parse().unwrap()) }
}

/// Sends 100 datagrams of up to MTU size and expects exactly those, from the source's address.
fn crosses(sender: &SenderSocket, receiver: &mut ReceiverSocket, largest: usize) {
    let datagrams: Vec<Vec<u8>> = (0..100u8).map(|n| vec![n; largest - usize::from(n)]).collect();
    let slices: Vec<&[u8]> = datagrams.iter().map(Vec::as_slice).collect();
    let mut sent = 0;
    while sent < slices.len() {
        sent += sender.send(&slices[sent..]).unwrap();
    }
    let mut batch = ReceiveBatch::new();
    let mut seen = Vec::new();
    let deadline = Instant::now() + LONG;
    while seen.len() < datagrams.len() && Instant::now() < deadline {
        receiver.receive(&mut batch, SHORT).unwrap();
        for datagram in batch.datagrams() {
            assert_eq!(datagram.source.ip(), sender.local_addr().ip());
            seen.push(datagram.bytes.to_vec());
        }
    }
    let what = format!("{} to {}, heard on {}", sender.local_addr(), sender.target(), receiver.local_addr());
    assert_eq!(seen.len(), datagrams.len(), "datagrams from {what}");
    for (n, (seen, sent)) in seen.iter().zip(&datagrams).enumerate() {
        assert!(
            seen == sent,
            "datagram {n} of {} bytes differs from that of {} bytes: {what}",
            seen.len(),
            sent.len()
        );
    }
    assert_eq!(receiver.receive(&mut batch, SHORT).unwrap(), 0, "more came than was sent: {what}");
}

fn hears_nothing(receiver: &mut ReceiverSocket) -> bool {
    receiver.receive(&mut ReceiveBatch::new(), SHORT).unwrap() == 0
}

#[test]
fn unicast_carries_the_mtu_and_refuses_one_byte_more() {
    let pair = Pair::new();
    for (address, room) in [("198.18.0.2:7401", 1472), ("[fd18::2]:7401", 1452)] {
        let mut receiver = pair.receiver(&listen(address));
        let sender = pair.sender(address, None);
        crosses(&sender, &mut receiver, room);

        let large = vec![0; room + 1];
        let error = sender.send(&[&large]).unwrap_err();
        let SendError::TooLarge { bytes, mtu, room: stated, target } = error else { panic!("{error:?}") };
        assert_eq!((bytes, mtu, stated), (room + 1, 1500, room));
        assert_eq!(target, address.parse::<SocketAddr>().unwrap());
        assert!(hears_nothing(&mut receiver), "a fragment or a cut datagram arrived");
        crosses(&sender, &mut receiver, room);
    }
}

#[test]
fn multicast_reaches_members_of_its_group_only() {
    let pair = Pair::new();
    let groups =
        [("239.18.0.1", "239.18.0.9", "0.0.0.0", 1472), ("[ff05::18:1]", "[ff05::18:9]", "[::]", 1452)];
    for (group, other, any, room) in groups {
        // Each step has a port of its own: a child process that another test is just starting may hold on to a copy of
        // a socket already closed here, until it has executed its program.

        // Bound to the group itself.
        let sender = pair.sender(&format!("{group}:7401"), Some("link0"));
        let stranger = pair.sender(&format!("{other}:7401"), Some("link0"));
        let mut receiver = pair.receiver(&listen(&format!("{group}:7401")));
        crosses(&sender, &mut receiver, room);
        assert_eq!(stranger.send(&[b"not for us"]).unwrap(), 1);
        assert!(hears_nothing(&mut receiver), "{other} was heard on {group}");

        // Bound to any address, with the group named beside it.
        let sender = pair.sender(&format!("{group}:7402"), Some("link0"));
        let joined = ReceiverOptions { group: Some(sender.target().ip()), ..listen(&format!("{any}:7402")) };
        let mut receiver = pair.receiver(&joined);
        crosses(&sender, &mut receiver, room);
    }
}

/// Without joining, the host takes no part in the group.
#[test]
fn multicast_does_not_arrive_without_a_membership() {
    let pair = Pair::new();
    for (group, any) in [("239.18.0.1", "0.0.0.0"), ("[ff05::18:1]", "[::]")] {
        let sender = pair.sender(&format!("{group}:7401"), Some("link0"));
        let group = Some(sender.target().ip());
        let options = ReceiverOptions { group, join: false, ..listen(&format!("{any}:7401")) };
        let mut receiver = pair.receiver(&options);
        assert_eq!(sender.send(&[b"to members"]).unwrap(), 1);
        assert!(hears_nothing(&mut receiver), "arrived without a membership");
    }
}

/// `join: false` works with a membership that something else holds.
#[test]
fn a_membership_held_elsewhere_is_enough() {
    let pair = Pair::new();
    let holder = inside(&pair.destination, || std::net::UdpSocket::bind("0.0.0.0:0").unwrap());
    holder.join_multicast_v4(&"239.18.0.1".parse().unwrap(), &"198.18.0.2".parse().unwrap()).unwrap();
    let mut receiver = pair.receiver(&ReceiverOptions { join: false, ..listen("239.18.0.1:7401") });
    crosses(&pair.sender("239.18.0.1:7401", Some("link0")), &mut receiver, 1472);
}

#[test]
fn broadcast_reaches_an_unbound_listener() {
    let pair = Pair::new();
    let mut receiver = pair.receiver(&listen("0.0.0.0:7401"));
    crosses(&pair.sender("198.18.0.255:7401", None), &mut receiver, 1472);
    crosses(&pair.sender("255.255.255.255:7401", Some("link0")), &mut receiver, 1472);
}

#[test]
fn an_interface_that_goes_down_is_temporary() {
    let pair = Pair::new();
    let s = &pair.source;
    let mut receiver = pair.receiver(&listen("0.0.0.0:7401"));
    let sender = pair.sender("198.18.0.2:7401", None);
    assert_eq!(sender.send(&[b"before"]).unwrap(), 1);
    ip(&format!("-n {s} link set link0 down"));
    let error = sender.send(&[b"lost"]).unwrap_err();
    assert!(matches!(error, SendError::Unreachable { .. }) && error.is_temporary(), "{error:?}");
    ip(&format!("-n {s} link set link0 up"));
    ip(&format!("-n {s} neighbour replace 198.18.0.2 lladdr 02:00:00:00:00:02 nud permanent dev link0"));
    assert_eq!(sender.send(&[b"after"]).unwrap(), 1);

    ip(&format!("-n {s} address delete 198.18.0.1/24 dev link0"));
    let error = sender.send(&[b"no address"]).unwrap_err();
    assert!(error.is_temporary(), "{error:?}");

    let mut batch = ReceiveBatch::new();
    let mut seen = Vec::new();
    while receiver.receive(&mut batch, SHORT).unwrap() > 0 {
        seen.extend(batch.datagrams().map(|datagram| datagram.bytes.to_vec()));
    }
    assert_eq!(seen, [&b"before"[..], b"after"]);
}

/// An interface slower than the rate: nothing the kernel took is lost behind our back, and the wait is bounded.
#[test]
fn a_full_interface_queue_holds_the_sender_back() {
    let pair = Pair::new();
    run(
        "ip",
        &format!(
            "netns exec {} tc qdisc add dev link0 root tbf rate 20mbit burst 4kb limit 16kb",
            pair.source
        ),
    );
    let mut receiver = pair.receiver(&listen("0.0.0.0:7401"));
    let sender = pair.sender("198.18.0.2:7401", None);
    let mut sent = 0;
    let datagram = [7; 1400];
    let started = Instant::now();
    while sent < 200 {
        match sender.send(&[&datagram[..]; 20]) {
            Ok(taken) => sent += taken,
            Err(SendError::Busy) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(started.elapsed() < LONG, "sent {sent}");
    }
    // 200 × 1442 bytes at 20 Mbit/s.
    assert!(
        started.elapsed() >= Duration::from_millis(90),
        "the queue did not hold back: the test shows nothing"
    );
    let mut batch = ReceiveBatch::new();
    let mut received = 0;
    while received < sent {
        match receiver.receive(&mut batch, LONG).unwrap() {
            0 => break,
            count => received += count,
        }
    }
    assert_eq!(received, sent, "the kernel said sent and threw away");

    // A queue that moves nothing: one datagram per minute.
    run(
        "ip",
        &format!(
            "netns exec {} tc qdisc replace dev link0 root tbf rate 200bit burst 1600 limit 1600",
            pair.source
        ),
    );
    let mut busy = None;
    for _ in 0..20 {
        let started = Instant::now();
        if let Err(error) = sender.send(&[&datagram[..]]) {
            busy = Some((error, started.elapsed()));
            break;
        }
    }
    let (error, took) = busy.expect("twenty datagrams fit a queue of one");
    assert!(matches!(error, SendError::Busy) && error.is_temporary(), "{error:?}");
    assert!(took >= SEND_WAIT && took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn a_route_that_prohibits_is_temporary() {
    let pair = Pair::new();
    let sender = pair.sender("198.18.0.2:7401", None);
    ip(&format!("-n {} route add prohibit 198.18.0.2/32 metric 0", pair.source));
    let error = sender.send(&[b"prohibited"]).unwrap_err();
    assert!(error.is_temporary(), "{error:?}");
    ip(&format!("-n {} route delete prohibit 198.18.0.2/32", pair.source));
    assert_eq!(sender.send(&[b"allowed"]).unwrap(), 1);
}

/// A forged "fragmentation needed" must not stop a link: under PMTUDISC_DO one would, for ten minutes.
#[test]
fn a_forged_fragmentation_needed_is_passed_over() {
    let pair = Pair::new();
    let mut receiver = pair.receiver(&listen("198.18.0.2:7401"));
    let sender = pair.sender("198.18.0.2:7401", None);
    crosses(&sender, &mut receiver, 1472);
    let message = fragmentation_needed(sender.local_addr(), sender.target(), 600);
    inside(&pair.destination, || {
        let raw =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(socket2::Protocol::ICMPV4));
        let to = SocketAddr::new(sender.local_addr().ip(), 0);
        assert_eq!(raw.unwrap().send_to(&message, &to.into()).unwrap(), message.len());
    });
    // The kernel did take it in: it is counted, or the test shows nothing.
    std::thread::sleep(SHORT);
    crosses(&sender, &mut receiver, 1472);
    assert_eq!(sender.ignored_errors(), 1);
}

/// ICMP type 3 code 4 about a UDP datagram from `from` to `to`.
fn fragmentation_needed(from: SocketAddr, to: SocketAddr, mtu: u16) -> Vec<u8> {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else { panic!("IPv4 only") };
    let mut message = vec![3, 4, 0, 0, 0, 0];
    message.extend(mtu.to_be_bytes());
    // The datagram it complains of: an IPv4 header (total length 1500, DF, TTL 64, UDP) and the UDP header.
    message.extend([0x45, 0, 0x05, 0xDC, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    message.extend(from.ip().octets());
    message.extend(to.ip().octets());
    message
        .extend([from.port().to_be_bytes(), to.port().to_be_bytes(), 1480u16.to_be_bytes(), [0, 0]].concat());
    let sum: u32 = message.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xFFFF) + (sum >> 16);
    let checksum = !((folded & 0xFFFF) + (folded >> 16)) as u16;
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}
