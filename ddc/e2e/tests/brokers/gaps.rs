//! What is missing is in the journal, in a topic, in an exported file; what comes after all closes it. Nothing of that holds
//! up a record.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ddc_e2e::broker::{Broker, Pair};
use ddc_e2e::cluster::Cluster;
use ddc_e2e::produce::Producer;
use ddc_e2e::proxy::{Link, Proxy, TomlValue, binary};
use ddc_e2e::verify::{Crossing, Reader};
use ddc_e2e::wait::{until, until_true};
use serde_json::Value;

use crate::{LIMIT, clusters};

/// A path that can be cut: every datagram crosses, or none.
struct Cut {
    lossy: Arc<AtomicBool>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Cut {
    /// Between the two sides of a link that are not started yet.
    fn between(link: &mut Link) -> Cut {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        link.ingress.set("link.target", socket.local_addr().unwrap().to_string());
        let egress = format!("127.0.0.1:{}", link.port());
        let (is_cut, end) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (cut, ends) = (Arc::clone(&is_cut), Arc::clone(&end));
        let thread = thread::spawn(move || {
            let mut datagram = vec![0; 65_536];
            while !ends.load(Relaxed) {
                let Ok((length, _)) = socket.recv_from(&mut datagram) else { continue };
                if !cut.load(Relaxed) {
                    // Refused while no egress listens: lost, as on a diode.
                    let _ = socket.send_to(&datagram[..length], &egress);
                }
            }
        });
        Cut { lossy: is_cut, end, thread: Some(thread) }
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.end.store(true, Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || matches!(ended, Some(Ok(()))));
    }
}

/// Cuts the path while a hundred records are sent to these partitions in turn; returns when the egress has named them.
fn lose(cut: &Cut, ingress: &Proxy, egress: &Proxy, producer: &Producer, topic: &str, partitions: u32) {
    let sent = || ingress.status()["sent"]["records"].as_u64().unwrap();
    let before = sent();
    cut.lossy.store(true, Relaxed);
    producer.fill(topic, partitions, 1000..1100);
    until_true("they are sent", LIMIT, || sent() == before + 100);
    cut.lossy.store(false, Relaxed);
    producer.fill(topic, partitions, 1100..1150);
    until_true("they are named", LIMIT, || egress.named_missing().len() == partitions as usize);
}

/// `ddc gaps` with these arguments and the egress's configuration; standard output.
fn gaps(file: &Path, arguments: &[&str]) -> String {
    let output = Command::new(binary()).arg("gaps").args(arguments).arg("-c").arg(file).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(output.stderr));
    text(output.stdout)
}

/// The gaps of an export, by partition; one each.
fn exported(file: &Path, arguments: &[&str]) -> BTreeMap<i64, Value> {
    let text = gaps(file, &[&["export"], arguments].concat());
    let export: Value = serde_json::from_str(&text).unwrap();
    let gaps = export["gaps"].as_array().unwrap().clone();
    let by_partition: BTreeMap<_, _> =
        gaps.iter().map(|gap| (gap["partition"].as_i64().unwrap(), gap.clone())).collect();
    assert_eq!(by_partition.len(), gaps.len(), "one for each partition: {text}");
    by_partition
}

/// The configuration that the egress of this link was started with.
fn egress_file(link: &Link) -> PathBuf {
    Path::new(&link.secret("not-used", "")).with_file_name("egress.toml")
}

/// What the topic has, in the order of each key.
fn published(reader: &mut Reader) -> Vec<Value> {
    if reader.read().is_err() {
        return Vec::new();
    }
    let record = |value: &Option<Vec<u8>>| serde_json::from_slice(value.as_deref().unwrap()).unwrap();
    reader
        .rows
        .iter()
        .map(|row| {
            let value: Value = record(&row.value);
            assert_eq!(
                row.key.as_deref(),
                value["id"].as_str().map(str::as_bytes),
                "the key is the gap's id"
            );
            value
        })
        .collect()
}

fn with_topic(link: &mut Link, cluster: &Cluster, topic: &str) {
    link.egress.set("missing_records.brokers", vec![TomlValue::from(cluster.brokers())]);
    link.egress.set("missing_records.topic", topic);
    // What was sent stays uncommitted, so that the next ingress sends it again.
    link.ingress.set("source.kafka.commit_delay", "60s");
}

fn named_and_closed(pair: &Pair) {
    let (source, destination) = clusters(pair);
    source.create("holes", 2, &[]);
    destination.create("gaps-of-holes", 1, &[]);
    let mut link = Link::new("holes", source.brokers(), destination.brokers(), &["holes"]);
    with_topic(&mut link, &destination, "gaps-of-holes");
    link.egress.set("telemetry.site", "north");
    let cut = Cut::between(&mut link);
    let (ingress, egress) = link.start();
    let file = egress_file(&link);
    let producer = Producer::new(source.brokers());
    producer.fill("holes", 2, 0..200);
    Crossing::new(&source, &destination, "holes").settle(LIMIT).assert_intact();
    assert_eq!(exported(&file, &["--all"]), BTreeMap::new(), "no gap without a loss");
    lose(&cut, &ingress, &egress, &producer, "holes", 2);

    let open = exported(&file, &[]);
    for (partition, gap) in &open {
        let named = egress.named_missing();
        let named = named.iter().find(|named| i64::from(named.partition) == *partition).unwrap();
        assert_eq!((gap["first"].as_i64(), gap["last"].as_i64()), (Some(named.first), Some(named.last)));
        assert_eq!((gap["records"].as_u64(), gap["state"].as_str()), (named.records, Some("open")));
    }
    assert_eq!(open.len(), 2);
    let mut reader = Reader::new(&destination, "gaps-of-holes");
    until_true("the topic has them", LIMIT, || published(&mut reader).len() == 2);
    for record in published(&mut reader) {
        let gap = &open[&record["partition"].as_i64().unwrap()];
        assert_eq!((record["event"].as_str(), record["site"].as_str()), (Some("found"), Some("north")));
        assert_eq!((record["link"].as_str(), record["set"].as_str()), (Some("holes"), Some("holes")));
        for (name, value) in gap.as_object().unwrap() {
            assert_eq!(&record[name], value, "{name}");
        }
    }
    // kill -9: the journal is as it was.
    egress.kill();
    assert_eq!(exported(&file, &[]), open);
    let egress = link.start_egress();
    egress.wait_ready();
    assert_eq!(exported(&file, &[]), open);
    // What was sent and not committed comes again.
    ingress.kill();
    let ingress = link.start_ingress();
    until_true("all is closed", LIMIT, || exported(&file, &[]).is_empty());
    let closed = exported(&file, &["--all"]);
    let ids = |gaps: &BTreeMap<i64, Value>| gaps.values().map(|gap| gap["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&closed), ids(&open));
    egress.wait_logged(&["records that were missing have arrived", "\"state\":\"closed\""]);
    until("the topic says so", LIMIT, || {
        let all = published(&mut reader);
        let last: BTreeMap<String, Value> =
            all.iter().map(|record| (record["id"].to_string(), record.clone())).collect();
        let done = last.values().all(|record| record["event"] == "closed" && record["state"] == "closed");
        if done && last.len() == 2 { Ok(()) } else { Err(format!("{all:?}")) }
    });
    let outcome = Crossing::new(&source, &destination, "holes").settle(LIMIT);
    assert!(outcome.lost.is_empty(), "{:?}", outcome.lost);
    assert_eq!(egress.metric("ddc_egress_gaps_open", &[]), 0);
    assert_eq!(egress.named_missing(), [], "nothing was named by the second egress");
    drop(ingress);
}

#[test]
fn a_gap_is_named_and_closed_everywhere_on_kafka_4() {
    named_and_closed(Pair::kafka_4());
}

#[test]
fn a_gap_is_named_and_closed_everywhere_on_kafka_3() {
    named_and_closed(Pair::kafka_3());
}

/// Its broker away, over a restart of the egress too, then a topic that is not there: nothing waits, nothing is forgotten.
#[test]
fn a_topic_that_cannot_be_written_is_written_later() {
    let (source, destination) = clusters(Pair::kafka_4());
    source.create("later", 1, &[]);
    let third = Broker::start("missing-records", "4");
    let mut link = Link::new("later", source.brokers(), destination.brokers(), &["later"]);
    third.wait_ready();
    let away = third.plaintext();
    let other = Cluster::new(&away);
    with_topic(&mut link, &other, "gaps-of-later");
    third.stop();
    let cut = Cut::between(&mut link);
    let (ingress, egress) = link.start();
    let producer = Producer::new(source.brokers());
    producer.fill("later", 1, 0..200);
    until_true("they arrive", LIMIT, || egress.metric("ddc_egress_records_delivered_total", &[]) == 200);
    lose(&cut, &ingress, &egress, &producer, "later", 1);
    until_true("the rest arrives", LIMIT, || egress.metric("ddc_egress_records_delivered_total", &[]) == 250);
    let line = egress.wait_logged(&["records about gaps cannot be published", &away]);
    println!("          {line}");
    let status = |egress: &Proxy| egress.status()["missing_records"].clone();
    until_true("status", LIMIT, || status(&egress)["trouble"].is_string() && status(&egress)["waiting"] == 1);
    assert!(egress.metric("ddc_egress_gap_record_errors_total", &["reason=\"connection\""]) > 0);
    let since = status(&egress)["waiting_since"].clone();
    assert!(since.is_string(), "{since}");
    assert!(egress.metric("ddc_egress_gap_records_oldest_timestamp_seconds", &[]) > 0);
    egress.wait_ready();
    egress.kill();
    let egress = link.start_egress();
    until("the next life knows since when", LIMIT, || {
        let now = status(&egress)["waiting_since"].clone();
        if now == since { Ok(()) } else { Err(format!("{now}, not {since}")) }
    });
    third.restart();
    egress.wait_logged(&["records about gaps cannot be published", "gaps-of-later"]);
    assert_eq!(other.partitions("gaps-of-later"), None, "not created by asking");
    other.create("gaps-of-later", 1, &[]);
    let mut reader = Reader::new(&other, "gaps-of-later");
    until_true("it is written", LIMIT, || published(&mut reader).len() == 1);
    assert_eq!(published(&mut reader)[0]["changed_at"], since, "when it was found, not when it was written");
    until_true("nothing waits", LIMIT, || {
        let status = status(&egress);
        status["waiting"] == 0 && status["trouble"].is_null() && status["waiting_since"].is_null()
    });
    egress.stop();
    let egress = link.start_egress();
    egress.wait_ready();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(published(&mut reader).len(), 1, "what was published is remembered");
    assert_eq!(egress.metric("ddc_egress_gap_records_published_total", &[]), 0);
}

/// A topic that takes no record of that size: that record is left out, the line goes on.
#[test]
fn a_topic_that_refuses_a_record_for_ever_holds_up_nothing() {
    let (source, destination) = clusters(Pair::kafka_4());
    source.create("strict", 2, &[]);
    destination.create("gaps-of-strict", 1, &[("max.message.bytes", "300")]);
    let mut link = Link::new("strict", source.brokers(), destination.brokers(), &["strict"]);
    with_topic(&mut link, &destination, "gaps-of-strict");
    let cut = Cut::between(&mut link);
    let (ingress, egress) = link.start();
    let producer = Producer::new(source.brokers());
    producer.fill("strict", 2, 0..100);
    until_true("they arrive", LIMIT, || egress.metric("ddc_egress_records_delivered_total", &[]) == 100);
    lose(&cut, &ingress, &egress, &producer, "strict", 2);
    egress.wait_logged(&["refuses a record about a gap for ever"]);
    until_true("nothing waits", LIMIT, || {
        egress.metric("ddc_egress_gap_record_errors_total", &["reason=\"too_large\""]) >= 2
            && egress.status()["missing_records"]["waiting"] == 0
    });
    assert_eq!(exported(&egress_file(&link), &[]).len(), 2, "the journal has them");
    until_true("the rest arrives", LIMIT, || egress.metric("ddc_egress_records_delivered_total", &[]) == 150);
}

/// A file system of its own, for a disk that can be full. Needs root.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path) -> SmallDisk {
        std::fs::create_dir(path).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=128k", "tmpfs"]).arg(path).status();
        assert!(mounted.unwrap().success(), "a tmpfs can be mounted: this test needs root");
        SmallDisk(path.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let ended = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(thread::panicking() || ended.unwrap().success());
    }
}

#[test]
fn a_full_disk_holds_up_nothing_and_forgets_nothing() {
    const PARTITIONS: u32 = 24;
    let (source, destination) = clusters(Pair::kafka_4());
    source.create("full-disk", PARTITIONS, &[]);
    let mut link = Link::new("full-disk", source.brokers(), destination.brokers(), &["full-disk"]);
    let file = egress_file(&link);
    let disk = SmallDisk::mount(&file.with_file_name("small"));
    link.egress.set("link.state_dir", disk.0.to_str().unwrap());
    // It has a policy of its own for a full disk, and a test for that.
    link.egress.set("spool.directory", file.with_file_name("spool").to_str().unwrap());
    let cut = Cut::between(&mut link);
    let (ingress, egress) = link.start();
    let producer = Producer::new(source.brokers());
    producer.fill("full-disk", PARTITIONS, 0..48);
    let delivered = || egress.metric("ddc_egress_records_delivered_total", &[]);
    until_true("they arrive", LIMIT, || delivered() == 48);
    let filler = disk.0.join("filler");
    assert!(std::fs::write(&filler, vec![1; 1 << 20]).is_err(), "the disk is full");
    lose(&cut, &ingress, &egress, &producer, "full-disk", PARTITIONS);
    until_true("the rest arrives", LIMIT, || delivered() == 98);
    let trouble = || egress.status()["gaps"]["journal_trouble"].clone();
    until_true("it is said", LIMIT, || trouble().is_string());
    egress.wait_logged(&["the gap journal cannot be written", "make room"]);
    assert_eq!(egress.status()["gaps"]["open"], PARTITIONS);
    std::fs::remove_file(&filler).unwrap();
    until_true("it is over", LIMIT, || trouble().is_null());
    assert_eq!(exported(&file, &[]).len(), PARTITIONS as usize);
    drop(ingress);
    egress.stop();
}
