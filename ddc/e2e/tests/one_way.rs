//! The line over a software diode: everything crosses, and not one frame returns.
//!
//! The brokers are outside the namespaces, reached over each namespace's loopback; the link is the only way out of either.

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use ddc_e2e::broker::Pair;
use ddc_e2e::cluster::Cluster;
use ddc_e2e::netns::{DESTINATION, Diode, End, Frames, INTERFACE, SOURCE};
use ddc_e2e::produce::{Producer, any_kind};
use ddc_e2e::proxy::{Link, Proxy};
use ddc_e2e::verify::Crossing;
use ddc_e2e::wait;

const LIMIT: Duration = Duration::from_mins(1);
const PARTITIONS: u32 = 4;
const RECORDS: u64 = 12_000;
/// Crosses in some 93 blocks of its own, 6,700 datagrams.
const LARGE: usize = 8 << 20;

/// A link through a diode, both sides running inside.
struct Line {
    ingress: Option<Proxy>,
    egress: Option<Proxy>,
    link: Link,
    source: Cluster,
    destination: Cluster,
    // Last: namespaces go when nobody is in them any more.
    diode: Diode,
}

impl Line {
    /// Runs both sides; `topic` exists at the source.
    fn start(name: &str, topic: &str, lost_per_mille: u32) -> Line {
        let pair = Pair::kafka_4();
        let (source, destination) = (pair.source.plaintext(), pair.destination.plaintext());
        let mut diode = Diode::new(lost_per_mille);
        diode.lend(End::Source, &source);
        diode.lend(End::Destination, &destination);
        let mut link = Link::new(name, &source, &destination, &[topic]);
        let target = format!("{DESTINATION}:{}", link.port());
        link.ingress.set("link.target", target.as_str()).set("link.interface", INTERFACE);
        link.egress.set("link.listen", target.as_str()).set("link.interface", INTERFACE);
        let (source, destination) = (Cluster::new(&source), Cluster::new(&destination));
        source.create(topic, PARTITIONS, &[]);
        // The egress first: a closed port would make its host's kernel answer.
        let egress = diode.at(End::Destination, || {
            let egress = link.start_egress();
            wait::until("the egress listens", LIMIT, || egress.get("/healthz"));
            egress
        });
        let ingress = diode.at(End::Source, || link.start_ingress());
        let line = Line { ingress: Some(ingress), egress: Some(egress), link, source, destination, diode };
        line.at_source(Proxy::wait_ready);
        line.at_destination(Proxy::wait_ready);
        line
    }

    fn at_source<T: Send>(&self, work: impl FnOnce(&Proxy) -> T + Send) -> T {
        let ingress = self.ingress.as_ref().expect("it runs");
        self.diode.at(End::Source, || work(ingress))
    }

    fn at_destination<T: Send>(&self, work: impl FnOnce(&Proxy) -> T + Send) -> T {
        let egress = self.egress.as_ref().expect("it runs");
        self.diode.at(End::Destination, || work(egress))
    }

    /// Every kind of record, and a large one.
    fn produce(&self, topic: &str) {
        let producer = Producer::new(self.source.brokers());
        producer.fill(topic, PARTITIONS, 0..RECORDS);
        let mut large = any_kind(3);
        large.value = Some(noise(LARGE));
        producer.send(topic, 0, &large);
        producer.fill(topic, PARTITIONS, RECORDS..RECORDS + u64::from(PARTITIONS));
    }

    /// Everything has arrived as it was; nothing is reported as missing.
    fn assert_intact(&self, topic: &str) {
        let outcome = Crossing::new(&self.source, &self.destination, topic).settle(LIMIT);
        outcome.assert_intact();
        assert_eq!(outcome.sent as u64, RECORDS + 1 + u64::from(PARTITIONS));
        let egress = self.egress.as_ref().expect("it runs");
        assert_eq!(egress.named_missing(), []);
    }

    /// Both sides, in the order that leaves no closed port while datagrams come.
    fn stop(&mut self) {
        self.ingress.take().expect("it runs").stop();
        self.egress.take().expect("it runs").stop();
    }
}

/// What no compression makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(next).collect()
}

/// Whatever the egress's host does, nothing comes to the source: counted at three places.
#[track_caller]
fn assert_nothing_returned(frames: Frames) {
    assert_eq!(frames.returned, 0, "the diode has let frames back: {frames:?}");
    assert_eq!(frames.source_received, 0, "frames came to the source: {frames:?}");
    assert_eq!(frames.source_interface_received, 0, "frames came to the source: {frames:?}");
}

#[test]
fn everything_crosses_and_not_one_frame_returns() {
    let topic = "one-way";
    let mut line = Line::start("one-way", topic, 0);
    line.produce(topic);
    line.assert_intact(topic);

    let (packets, blocks) = line.at_destination(|egress| {
        assert_eq!(egress.metric("ddc_egress_packet_loss_total", &[]), 0);
        let blocks = egress.metric("ddc_egress_blocks_received_total", &[]);
        (egress.metric("ddc_egress_packets_received_total", &[]), blocks)
    });
    assert!(
        packets > 5_000 && blocks > 100,
        "{packets} datagrams in {blocks} blocks: the test proves little"
    );
    line.stop();
    let after = line.diode.frames();
    println!("          {after:?}");
    assert_nothing_returned(after);
    // The egress has not even tried: its interface has sent nothing, no acknowledgement, no ARP, no ICMP.
    assert_eq!((after.destination_sent, after.returning, after.turned_back), (0, 0, 0), "{after:?}");
    // And what went the right way is all there, so the counters do count.
    assert!(after.source_sent >= packets, "{after:?}");
    assert_eq!(
        (after.entered, after.crossed, after.destination_received, after.lost),
        (after.source_sent, after.source_sent, after.source_sent, 0),
        "{after:?}"
    );

    the_destination_answers_in_vain(&line);
    an_open_bridge_would_be_noticed(&line);
}

/// Now the destination's host does its best to answer: a datagram, a connection, and what its kernel says to a datagram for a
/// closed port. It has no neighbour entry at first, so it asks with ARP; with one, IP itself goes out.
fn the_destination_answers_in_vain(line: &Line) {
    let before = line.diode.frames();
    let answer = |what: &str| {
        line.diode.at(End::Source, || {
            let socket = UdpSocket::bind((SOURCE, 0)).unwrap();
            socket.send_to(b"to a closed port", (DESTINATION, line.link.port())).unwrap();
        });
        line.diode.at(End::Destination, || {
            let socket = UdpSocket::bind((DESTINATION, line.link.port())).unwrap();
            // Without a neighbour the kernel may say so at once; that is an answer that fails as well.
            let _ = socket.send_to(b"answer", (SOURCE, 7401));
            let address = format!("{SOURCE}:22").parse().unwrap();
            let refused = TcpStream::connect_timeout(&address, Duration::from_millis(300));
            assert!(refused.is_err(), "{what}: a connection was made through a diode");
        });
    };
    answer("with ARP");
    let asked = wait::until("the host asks with ARP", LIMIT, || {
        let frames = line.diode.frames();
        if frames.turned_back > before.turned_back { Ok(frames) } else { Err(format!("{frames:?}")) }
    });
    assert_nothing_returned(asked);

    line.diode.at(End::Destination, || {
        let entry =
            format!("neighbour replace {SOURCE} lladdr 02:00:00:00:00:01 nud permanent dev {INTERFACE}");
        let status = std::process::Command::new("ip").args(entry.split(' ')).status().unwrap();
        assert!(status.success());
    });
    answer("with a neighbour entry");
    let answered = wait::until("the host answers with IP", LIMIT, || {
        // ICMP, UDP and a SYN.
        let frames = line.diode.frames();
        if frames.turned_back >= asked.turned_back + 3 { Ok(frames) } else { Err(format!("{frames:?}")) }
    });
    println!("          {answered:?}");
    assert_nothing_returned(answered);
    assert_eq!(
        answered.destination_sent, answered.returning,
        "the diode sees all that is sent: {answered:?}"
    );
}

/// The same counters on a bridge without the rule: a test that cannot fail proves nothing.
fn an_open_bridge_would_be_noticed(line: &Line) {
    line.diode.open_both_ways();
    line.diode.at(End::Destination, || {
        UdpSocket::bind((DESTINATION, 0)).unwrap().send_to(b"back", (SOURCE, 7401)).unwrap();
    });
    let frames = wait::until("the frame returns", LIMIT, || {
        let frames = line.diode.frames();
        if frames.source_received > 0 { Ok(frames) } else { Err(format!("{frames:?}")) }
    });
    assert!(frames.returned > 0 && frames.source_interface_received > 0, "{frames:?}");
}

#[test]
fn one_percent_of_loss_is_repaired_and_shown() {
    let topic = "one-way-lossy";
    let mut line = Line::start("one-way-lossy", topic, 10);
    line.produce(topic);
    line.assert_intact(topic);

    let repaired = line.at_destination(|egress| {
        assert_eq!(egress.metric("ddc_egress_blocks_unrepairable_total", &[]), 0);
        assert_eq!(egress.metric("ddc_egress_records_missing_total", &[]), 0);
        egress.metric("ddc_egress_symbols_repaired_total", &[])
    });
    // The last lost ones are known to be lost when a later one arrives, at the latest the next heartbeat.
    let seen = line.diode.frames();
    let lost = wait::until("/metrics shows what the diode has lost", LIMIT, || {
        let lost = line.at_destination(|egress| {
            let late = egress.metric("ddc_egress_packets_late_total", &[]);
            egress.metric("ddc_egress_packet_loss_total", &[]) - late
        });
        if lost >= seen.lost { Ok(lost) } else { Err(format!("{lost} of {}", seen.lost)) }
    });
    let now = line.diode.frames();
    line.stop();
    println!("          {lost} lost, {repaired} symbols repaired; {now:?}");
    assert!(lost <= now.lost, "/metrics says {lost} lost, the diode {}", now.lost);
    // One in a hundred of some ten thousand, give or take six standard deviations.
    assert!(now.lost * 1000 > now.entered * 4 && now.lost * 1000 < now.entered * 20, "{now:?}");
    assert!(repaired > 0 && repaired <= seen.lost, "{repaired} symbols repaired of {} lost", seen.lost);
    let after = line.diode.frames();
    assert_nothing_returned(after);
    assert_eq!((after.destination_sent, after.returning), (0, 0), "{after:?}");
    assert_eq!(after.crossed + after.lost, after.source_sent, "{after:?}");
}
