//! The spool: the destination is away, the egress dies, the disk is full, a byte is damaged; and what is lost is named, no more.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ddc_e2e::broker::Pair;
use ddc_e2e::cluster::Cluster;
use ddc_e2e::produce::{Producer, Sample, now_millis};
use ddc_e2e::proxy::{Link, Proxy};
use ddc_e2e::verify::{Crossing, Outcome, offsets_of, spans};
use ddc_e2e::wait::{timed, until, until_true};

use crate::{LIMIT, clusters};

const PARTITIONS: u32 = 3;

/// A link whose destination has been taken away after some records have crossed.
struct Stage {
    source: Cluster,
    destination: Cluster,
    producer: Producer,
    link: Link,
    pair: &'static Pair,
    topic: &'static str,
    ingress: Proxy,
}

impl Stage {
    fn set(topic: &'static str, configure: impl FnOnce(&mut Link)) -> (Stage, Proxy) {
        let pair = Pair::kafka_4();
        let (source, destination) = clusters(pair);
        source.create(topic, PARTITIONS, &[]);
        let producer = Producer::new(source.brokers());
        producer.fill(topic, PARTITIONS, 0..600);
        let mut link = Link::new(topic, source.brokers(), destination.brokers(), &[topic]);
        configure(&mut link);
        let (ingress, egress) = link.start();
        Crossing::new(&source, &destination, topic).wait_for(600, LIMIT);
        // Until the positions are stored: what is delivered and not stored may come twice (at least once).
        until_true("everything is settled and stored", LIMIT, || {
            egress.status()["spool"]["waiting_bytes"] == 0
        });
        pair.destination.kill();
        egress.wait_unready(&["destination"]);
        (Stage { source, destination, producer, link, pair, topic, ingress }, egress)
    }

    /// Waits until everything that is at the source has come to the egress.
    fn wait_received(&self, egress: &Proxy, records: u64) {
        until("all is sent", LIMIT, || {
            let sent = self.ingress.metric("ddc_ingress_records_sent_total", &[]);
            if sent >= records { Ok(()) } else { Err(format!("{sent} of {records}")) }
        });
        // The heartbeat that counts them comes behind them.
        until("all is received", LIMIT, || {
            let told = egress.metric("ddc_egress_source_records_sent", &[]);
            if told >= records { Ok(()) } else { Err(format!("{told} of {records}")) }
        });
        // Until the last block is ordered and appended.
        std::thread::sleep(Duration::from_millis(500));
    }

    fn destination_back(&self) {
        timed("the destination is back", || self.pair.destination.restart());
    }

    fn settle(&self) -> Outcome {
        timed("all has crossed", || Crossing::new(&self.source, &self.destination, self.topic).settle(LIMIT))
    }
}

/// Exactly the lost ones are named, all with this reason.
fn assert_exact(outcome: &Outcome, egress: &Proxy, reason: &str) {
    let named = egress.named_missing();
    for range in &named {
        println!("          named: {range:?}");
        assert_eq!(range.reason, reason, "{range:?}");
    }
    let offsets: BTreeSet<_> = offsets_of(&named);
    assert!(!outcome.lost.is_empty(), "nothing was lost: the test proves nothing");
    assert_eq!(offsets, outcome.lost, "named {:?}, lost {:?}", spans(&offsets), spans(&outcome.lost));
    let records: Option<u64> = named.iter().map(|range| range.records).sum();
    assert_eq!(records, Some(outcome.lost.len() as u64), "{named:?}");
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    files.sort();
    files
}

#[test]
fn what_arrives_while_the_destination_is_away_outlives_a_killed_egress() {
    // So little memory that most of it must come back from the disk.
    let (stage, egress) = Stage::set("spool-killed", |link| {
        link.egress
            .set("sink.buffer", "1MiB")
            .set("link.receive.max_record_bytes", "1MiB")
            .set("spool.segment_size", "1MiB");
        link.ingress.set("link.pack.max_record_bytes", "1MiB");
    });
    stage.producer.fill(stage.topic, PARTITIONS, 600..10_600);
    stage.wait_received(&egress, 10_600);
    let waiting = egress.status()["spool"].clone();
    println!("          {waiting}");
    assert!(waiting["waiting_bytes"].as_u64() > Some(1 << 20), "{waiting}");
    egress.kill();
    // Nobody receives meanwhile, so nothing may be sent meanwhile: the wire keeps nothing. (The ledger is sent, and comes again.)
    let egress = stage.link.start_egress();
    egress.wait_logged(&["spool opened"]);
    until_true("it receives", LIMIT, || egress.status()["heartbeat"].is_object());
    stage.producer.fill(stage.topic, PARTITIONS, 10_600..20_600);
    stage.wait_received(&egress, 20_600);
    assert_eq!(egress.metric("ddc_egress_records_delivered_total", &[]), 0);
    egress.kill();
    let egress = stage.link.start_egress();
    egress.wait_logged(&["spool opened"]);
    stage.destination_back();
    let outcome = stage.settle();
    outcome.assert_intact();
    assert_eq!(outcome.sent, 20_600);
    egress.wait_ready();
    assert_eq!(egress.named_missing(), []);
    until_true("all is settled", LIMIT, || egress.status()["spool"]["waiting_bytes"] == 0);
    assert!(egress.metric("ddc_egress_spool_read_bytes_total", &[]) > 1 << 20, "it came from the disk");
    let files = segments(&stage.link.directory().join("egress-state/spool"));
    assert!(files.len() <= 2, "what is settled is removed: {files:?}");
}

/// A small file system of its own.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(path: PathBuf, size: &str) -> Tmpfs {
        fs::create_dir_all(&path).unwrap();
        let options = format!("size={size},mode=0700");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "ddc-e2e"]).arg(&path).status();
        assert!(done.unwrap().success(), "this test needs root");
        Tmpfs(path)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a process of a failed test may still have it open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Random, so that no compression makes it smaller.
fn bulky(seed: u64) -> Sample {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let value = (0..10_000).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    });
    Sample { value: Some(value.collect()), timestamp: now_millis(), ..Sample::default() }
}

/// Sends so many bulky records, in turn to all partitions.
fn send_bulky(stage: &Stage, count: u64) {
    for number in 0..count {
        stage.producer.send(stage.topic, (number % u64::from(PARTITIONS)) as i32, &bulky(number));
    }
    stage.producer.flush();
}

#[test]
fn a_full_disk_costs_what_found_no_room_and_nothing_else() {
    let mut disk = None;
    let (stage, mut egress) = Stage::set("spool-disk-full", |link| {
        let path = link.directory().join("small");
        disk = Some(Tmpfs::mount(path.clone(), "12m"));
        link.egress
            .set("spool.directory", path.join("spool").to_str().unwrap())
            .set("spool.max_size", "1GiB")
            .set("spool.segment_size", "1MiB")
            .set("link.receive.max_record_bytes", "1MiB");
        link.ingress.set("link.pack.max_record_bytes", "1MiB");
    });
    // 20 MB where 12 fit.
    send_bulky(&stage, 2000);
    stage.wait_received(&egress, 2600);
    println!("          {}", egress.wait_unready(&["the disk of the spool is full"]).trim());
    egress.wait_logged(&["a batch was dropped", "the disk of the spool is full"]);
    assert!(egress.metric("ddc_egress_spool_batches_refused_total", &["reason=\"disk_full\""]) > 0);
    assert!(egress.lives());
    assert_eq!(egress.metric("ddc_egress_spool_refusing", &[]), 1);
    // The destination takes what is there, which makes room; what comes then is taken again.
    stage.destination_back();
    until_true("there is room again", LIMIT, || {
        let spool = egress.status()["spool"].clone();
        spool["waiting_bytes"].as_u64() < Some(1 << 20) && spool["bytes"].as_u64() < Some(4 << 20)
    });
    stage.producer.fill(stage.topic, PARTITIONS, 600..1200);
    let outcome = stage.settle();
    outcome.assert_sound();
    assert!(outcome.lost.len() < 2000, "what had room arrived: {:?}", spans(&outcome.lost));
    assert_exact(&outcome, &egress, "disk_full");
    egress.wait_ready();
    assert!(egress.lives());
    assert_eq!(egress.metric("ddc_egress_spool_refusing", &[]), 0);
    drop(egress);
    drop(disk);
}

#[test]
fn a_damaged_byte_costs_the_batch_it_hit_and_that_is_named() {
    let (stage, egress) = Stage::set("spool-damaged", |link| {
        link.egress.set("spool.segment_size", "1MiB").set("link.receive.max_record_bytes", "1MiB");
        link.ingress.set("link.pack.max_record_bytes", "1MiB");
    });
    send_bulky(&stage, 600);
    stage.wait_received(&egress, 1200);
    egress.kill();
    let files = segments(&stage.link.directory().join("egress-state/spool"));
    assert!(files.len() > 3, "{files:?}");
    // Somewhere in the middle of a file that is full, and so in a payload.
    let file = fs::OpenOptions::new().read(true).write(true).open(&files[2]).unwrap();
    let at = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    let egress = stage.link.start_egress();
    egress.wait_logged(&["spool opened"]);
    until_true("it receives", LIMIT, || egress.status()["heartbeat"].is_object());
    stage.destination_back();
    until_true("it is named", LIMIT, || !egress.named_missing().is_empty());
    stage.producer.fill(stage.topic, PARTITIONS, 600..900);
    let outcome = stage.settle();
    outcome.assert_sound();
    // A block is some 90 KB: nine such records, more or less.
    assert!(outcome.lost.len() < 20, "{:?}", spans(&outcome.lost));
    assert_exact(&outcome, &egress, "spool_damaged");
    egress.wait_logged(&["a place of the spool is lost"]);
    assert_eq!(egress.metric("ddc_egress_spool_damaged_places_total", &[]), 1);
}

#[test]
fn a_directory_of_another_link_or_in_use_is_refused_by_name() {
    let (source, destination) = clusters(Pair::kafka_4());
    let mut first = Link::new("spool-first", source.brokers(), destination.brokers(), &["spool-first"]);
    let place = first.directory().join("shared-spool");
    first.egress.set("spool.directory", place.to_str().unwrap());
    let egress = first.start_egress();
    egress.wait_logged(&["spool opened"]);
    let mut second = Link::new("spool-second", source.brokers(), destination.brokers(), &["spool-second"]);
    second.egress.set("spool.directory", place.to_str().unwrap());
    let refused = second.start_egress();
    println!("          {}", refused.wait_logged(&["in use by another process", place.to_str().unwrap()]));
    drop(refused);
    // A checkpoint is there from the start on, and says whose it is.
    egress.stop();
    let mut refused = second.start_egress();
    let said = refused.wait_logged(&["belongs to", "link spool-first, id 7", "link spool-second, id 7"]);
    println!("          {said}");
    until_true("it has ended", LIMIT, || !refused.lives());
    let again = first.start_egress();
    again.wait_logged(&["spool opened"]);
}
