//! What was lost comes back by `ddc replay`: exactly that, once, beside live records; what is gone is named and closed.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ddc_e2e::broker::Pair;
use ddc_e2e::cluster::Cluster;
use ddc_e2e::produce::{Load, Producer};
use ddc_e2e::proxy::{Link, Proxy};
use ddc_e2e::verify::{Crossing, Named, Row};
use ddc_e2e::wait::{timed, until, until_true};
use ddc_link::receiver::OffsetRange;

use crate::{LIMIT, clusters};

/// Stands on the link: hands datagrams on, or swallows them.
pub(crate) struct Cut {
    closed: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    /// Datagrams that came, handed on or not.
    seen: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Cut {
    pub(crate) fn on(link: &mut Link) -> Cut {
        let tap = UdpSocket::bind("127.0.0.1:0").unwrap();
        tap.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        link.ingress.set("link.target", tap.local_addr().unwrap().to_string());
        let egress = format!("127.0.0.1:{}", link.port());
        let (closed, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let seen = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&seen);
        let (closed_now, stopped) = (Arc::clone(&closed), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let (out, mut buffer) = (UdpSocket::bind("127.0.0.1:0").unwrap(), [0; 2048]);
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, _)) = tap.recv_from(&mut buffer) else { continue };
                counter.fetch_add(1, Ordering::Relaxed);
                if !closed_now.load(Ordering::Relaxed) {
                    // An egress that is not there yet refuses: then they are lost as on any path.
                    let _ = out.send_to(&buffer[..length], &egress);
                }
            }
        });
        Cut { closed, stop, seen, thread: Some(thread) }
    }

    /// Waits until everything that the ingress has sent by now has come here: none of it passes later.
    pub(crate) fn catch_up(&self, ingress: &Proxy) {
        let sent = ingress.metric("ddc_ingress_packets_sent_total", &[]);
        until_true("the cut has seen what was sent", LIMIT, || self.seen.load(Ordering::Relaxed) >= sent);
    }

    pub(crate) fn set(&self, closed: bool) {
        self.closed.store(closed, Ordering::Relaxed);
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs `ddc replay`, which must end well; what it prints.
pub(crate) fn replay(link: &Link, arguments: &[String]) -> String {
    let (code, out, errors) = run(link, arguments);
    assert_eq!(code, 0, "{arguments:?}: {out}{errors}");
    out
}

pub(crate) fn run(link: &Link, arguments: &[String]) -> (i32, String, String) {
    let head = ["replay", "-c", "ingress.toml"].map(str::to_owned);
    let (code, out, errors) = link.command(head.iter().chain(arguments));
    for line in out.lines().chain(errors.lines()) {
        println!("          {line}");
    }
    (code, out, errors)
}

pub(crate) fn range(topic: &str, partition: i32, from: i64, to: i64) -> Vec<String> {
    [
        "--topic",
        topic,
        "--partition",
        &partition.to_string(),
        "--from",
        &from.to_string(),
        "--to",
        &to.to_string(),
    ]
    .map(str::to_owned)
    .to_vec()
}

fn of_named(named: &[Named]) -> Vec<String> {
    named.iter().flat_map(|gap| range(&gap.topic, gap.partition, gap.first, gap.last)).collect()
}

pub(crate) fn with(mut arguments: Vec<String>, more: &[&str]) -> Vec<String> {
    arguments.extend(more.iter().map(|word| (*word).to_owned()));
    arguments
}

/// A partition, the life of its topic, what it misses.
pub(crate) type Holes = (i32, String, Vec<(i64, i64)>);

/// What the progress topic says of the link: partition, topic id, holes.
pub(crate) fn holes(link: &Link) -> Vec<Holes> {
    let table = ddc_e2e::verify::progress(link);
    let pair = |hole: &OffsetRange| (hole.first, hole.last);
    table
        .iter()
        .map(|(key, progress)| {
            let holes = progress.position.holes().iter().map(pair).collect();
            (key.partition, key.topic_id.to_string(), holes)
        })
        .collect()
}

pub(crate) fn wait_closed(link: &Link) {
    until("every hole is closed", LIMIT, || {
        let open: Vec<_> = holes(link).into_iter().filter(|(.., holes)| !holes.is_empty()).collect();
        if open.is_empty() { Ok(()) } else { Err(format!("{open:?}")) }
    });
}

pub(crate) fn late(egress: &Proxy) -> u64 {
    egress.metric("ddc_egress_records_late_total", &[])
}

/// Where each record stands at the destination: nothing may be added by a replay of what is there.
fn places(crossing: &Crossing) -> BTreeSet<(i32, i64)> {
    crossing.arrived().iter().map(|row: &Row| (row.partition, row.offset)).collect()
}

fn a_lost_range(pair: &Pair, topic: &str) {
    let (source, destination) = clusters(pair);
    source.create(topic, 3, &[]);
    let mut link = Link::new(topic, source.brokers(), destination.brokers(), &[topic]);
    let cut = Cut::on(&mut link);
    let (ingress, egress) = link.start();
    let load = Load::start(source.brokers(), topic, 3, 1500);
    let mut crossing = Crossing::new(&source, &destination, topic);
    crossing.wait_for(1500, LIMIT);
    cut.set(true);
    load.run_for(2000);
    cut.set(false);
    until_true("the egress names what is missing", LIMIT, || egress.named_missing().len() >= 3);
    let named = egress.named_missing();
    let lost: u64 = named.iter().filter_map(|gap| gap.records).sum();
    assert!(lost > 500, "the test proves something: {named:?}");
    println!("          lost: {named:?}");
    // What it would do, and nothing of it is done.
    let dry = replay(&link, &with(of_named(&named), &["--dry-run"]));
    assert!(dry.contains("nothing was sent") && dry.contains("at half of the link's rate"), "{dry}");
    assert_eq!(late(&egress), 0);
    // Beside live records.
    let out = timed("replayed", || replay(&link, &with(of_named(&named), &["--by", "e2e"])));
    assert!(out.contains("done:"), "{out}");
    until("all of it has arrived", LIMIT, || match late(&egress) {
        late if late == lost => Ok(()),
        late => Err(format!("{late} of {lost}")),
    });
    load.run_for(1500);
    load.stop();
    let outcome = crossing.settle(LIMIT);
    outcome.assert_intact();
    wait_closed(&link);
    assert_eq!(egress.named_missing().len(), named.len(), "a replay makes no gap");
    assert_eq!(ingress.metric("ddc_ingress_replay_records_sent_total", &[]), lost);
    ingress.wait_logged(&["a replay was asked for", "e2e (", "\"ranges\":"]);
    ingress.wait_logged(&["a replay is done"]);
    assert_eq!(ingress.status()["replay"]["state"], "done");
    // Twice, and what was never missing: nothing new in Kafka.
    let before = places(&crossing);
    replay(&link, &of_named(&named));
    let all: Vec<String> = (0..3).flat_map(|partition| range(topic, partition, 0, 100)).collect();
    replay(&link, &all);
    let sent = outcome.sent as u64 + lost;
    until_true("the repetitions have arrived", LIMIT, || {
        egress.metric("ddc_egress_records_received_total", &[]) >= sent + 303
    });
    crossing.settle(LIMIT).assert_intact();
    assert_eq!(places(&crossing), before);
    assert_eq!(late(&egress), lost);
}

#[test]
fn a_lost_range_is_replayed_once_on_kafka_4() {
    a_lost_range(Pair::kafka_4(), "replayed");
}

#[test]
fn a_lost_range_is_replayed_once_on_kafka_3() {
    a_lost_range(Pair::kafka_3(), "replayed");
}

/// A link that lost a stretch of one partition, and lost nothing since.
pub(crate) struct Lossy {
    pub(crate) source: Cluster,
    pub(crate) destination: Cluster,
    pub(crate) link: Link,
    _cut: Cut,
    pub(crate) ingress: Option<Proxy>,
    pub(crate) egress: Proxy,
    pub(crate) named: Named,
}

/// `lost` makes the records that do not arrive.
pub(crate) fn lossy(topic: &str, config: &[(&str, &str)], lost: impl FnOnce(&Cluster, &Producer)) -> Lossy {
    let (source, destination) = clusters(Pair::kafka_4());
    source.create(topic, 1, config);
    let mut link = Link::new(topic, source.brokers(), destination.brokers(), &[topic]);
    let cut = Cut::on(&mut link);
    let (ingress, egress) = link.start();
    let producer = Producer::new(source.brokers());
    producer.fill(topic, 1, 0..100);
    let mut crossing = Crossing::new(&source, &destination, topic);
    crossing.wait_for(100, LIMIT);
    cut.set(true);
    let before = ingress.metric("ddc_ingress_records_sent_total", &[]);
    lost(&source, &producer);
    until_true("the lost ones were sent", LIMIT, || {
        ingress.metric("ddc_ingress_records_sent_total", &[]) >= before + 100
            && ingress.status()["source"]["lag_records"] == 0
    });
    cut.catch_up(&ingress);
    cut.set(false);
    producer.fill(topic, 1, 200..300);
    until_true("the egress names what is missing", LIMIT, || !egress.named_missing().is_empty());
    let named = egress.named_missing();
    assert_eq!(named.len(), 1, "{named:?}");
    let named = named.into_iter().next().unwrap();
    Lossy { source, destination, link, _cut: cut, ingress: Some(ingress), egress, named }
}

/// Without a running ingress; and not beside one.
#[test]
fn offline_and_only_offline() {
    let topic = "replay-offline";
    let mut lossy = lossy(topic, &[], |_, producer| producer.fill(topic, 1, 100..200));
    let offline = with(range(topic, 0, lossy.named.first, lossy.named.last), &["--offline"]);
    let (code, _, errors) = run(&lossy.link, &offline);
    assert!(code == 69 && errors.contains("an ingress runs with"), "{code} {errors}");
    lossy.ingress.take().unwrap().stop();
    let (code, _, errors) = run(&lossy.link, &range(topic, 0, 100, 199));
    assert!(code == 69 && errors.contains("--offline"), "{code} {errors}");
    let (code, out, errors) = run(&lossy.link, &offline);
    assert!(code == 0 && out.contains("100 records"), "{code} {out} {errors}");
    assert!(errors.contains("a replay without a running ingress was asked for"), "the audit line: {errors}");
    until("all of it has arrived", LIMIT, || match late(&lossy.egress) {
        100 => Ok(()),
        late => Err(format!("{late}")),
    });
    wait_closed(&lossy.link);
    // Its session is before the next one of the ingress.
    let ingress = lossy.link.start_ingress();
    Producer::new(lossy.source.brokers()).fill(topic, 1, 300..400);
    let outcome = Crossing::new(&lossy.source, &lossy.destination, topic).settle(LIMIT);
    outcome.assert_intact();
    assert_eq!(lossy.egress.named_missing().len(), 1);
    drop(ingress);
}

#[test]
fn what_cannot_be_replayed_is_refused_by_name() {
    let (source, destination) = clusters(Pair::kafka_4());
    source.create("replay-refused", 2, &[]);
    let link = Link::new(
        "replay-refused",
        source.brokers(),
        destination.brokers(),
        &["replay-refused", "^replay-absent.*"],
    );
    let (ingress, egress) = link.start();
    Producer::new(source.brokers()).fill("replay-refused", 2, 0..100);
    Crossing::new(&source, &destination, "replay-refused").settle(LIMIT);
    for (topic, partition, from, to, exit, why) in [
        ("replay-refused", 0, 10, 9, 64, "reversed"),
        ("other", 0, 0, 9, 64, "not carried by link replay-refused"),
        ("replay-refused", 0, 0, i64::MAX - 1, 64, "of one replay"),
        ("replay-refused", 2, 0, 9, 69, "replay-refused[2] does not exist: the topic has 2 partitions"),
        ("replay-refused", 0, 50, 59, 69, "the log ends before offset 50"),
        ("replay-absent", 0, 0, 9, 69, "topic replay-absent"),
    ] {
        let (code, _, errors) = run(&link, &range(topic, partition, from, to));
        assert!(code == exit && errors.contains(why), "{why}: {code} {errors}");
    }
    let out =
        replay(&link, &[range("replay-refused", 0, 0, 20), range("replay-refused", 0, 10, 70)].concat());
    assert!(
        out.contains("1 ranges overlapped or touched") && out.contains("not in the log yet: 50-70"),
        "{out}"
    );
    assert_eq!(late(&egress), 0, "nothing of it was missing");
    assert_eq!(ingress.metric("ddc_ingress_replays_failed_total", &[]), 3);
    // The egress's listener is not the place.
    assert_eq!(egress.get("/v1/replay").unwrap().0, 404);
    assert_eq!(ingress.get("/v1/replay/none").unwrap().0, 404);
    // The same name again is the same replay.
    let named = with(range("replay-refused", 0, 0, 20), &["--id", "once"]);
    replay(&link, &named);
    let sent = ingress.metric("ddc_ingress_replay_records_sent_total", &[]);
    replay(&link, &named);
    assert_eq!(ingress.metric("ddc_ingress_replay_records_sent_total", &[]), sent, "it was not begun anew");
    let (code, _, errors) = run(&link, &with(range("replay-refused", 0, 0, 21), &["--id", "once"]));
    assert!(code == 64 && errors.contains("with other ranges"), "{code} {errors}");
}
