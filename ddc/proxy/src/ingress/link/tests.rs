//! The link thread over a real socket: block numbers must hold across sessions.

use std::net::UdpSocket;
use std::path::Path;

use crossbeam_channel::Sender as BlockSender;
use ddc_link::sender::{Compression, PackConfig, Packer, PartitionStart, Slot};
use ddc_telemetry::Registry;
use ddc_telemetry::notify::Watchdog;
use ddc_wire::{Epoch, RecordHeader, TopicId};

use super::super::{RateCell, SealCell};
use super::*;
use crate::config::{Config, Rate};

fn config(directory: &Path, target: std::net::SocketAddr) -> IngressConfig {
    use std::os::unix::fs::OpenOptionsExt as _;
    for (name, byte) in [("one", "07"), ("two", "08")] {
        let mut file = std::fs::OpenOptions::new();
        let mut file = file.create_new(true).write(true).mode(0o600).open(directory.join(name)).unwrap();
        std::io::Write::write_all(&mut file, format!("{}\n", byte.repeat(32)).as_bytes()).unwrap();
    }
    let text = format!(
        "[link]\nname = \"t\"\nid = 1\ntarget = \"{target}\"\nstate_dir = \"{0}/state\"\nrate = \"unlimited\"\n\
         active_key = 1\n[[link.keys]]\nid = 1\nfile = \"{0}/one\"\n[link.fec]\ncode = \"64+8\"\n\
         [source.kafka]\nbrokers = [\"127.0.0.1:1\"]\ntopics = [\"t\"]\n",
        directory.display(),
    );
    let loaded = crate::config::parse(&directory.join("ingress.toml"), &text, None, &|_| None).unwrap();
    let Config::Ingress(config) = loaded.config else { panic!("an ingress") };
    config
}

struct Rig {
    thread: LinkThread,
    shared: Arc<Shared>,
    blocks: BlockSender<PackedBlock>,
    seal: SealCell,
    watchdog: Watchdog,
    packer: Packer,
    slot: Slot,
    next: i64,
    packed: u64,
}

fn rig(directory: &Path, target: std::net::SocketAddr) -> Rig {
    let config = Arc::new(config(directory, target));
    let metrics = Registry::default().ingress("t").unwrap();
    let shared = Arc::new(Shared::new());
    let state = Arc::new(StateDir::open(&config.link.state_dir).unwrap());
    let (blocks, queue) = crossbeam_channel::bounded(10_000);
    let (rate, seal) = (RateCell::new(Rate::Unlimited), SealCell::new(config.seal.clone()));
    let pack = PackConfig {
        stream: String::new(),
        symbol_size: config.link.mtu.symbol_size(config.target.ip()),
        source_symbols: 64,
        linger: Duration::ZERO,
        compression: Compression::None,
        max_record_bytes: 4 << 20,
        ledger_interval: Duration::from_secs(30),
        ledger_changed: Duration::from_secs(30),
        max_partitions: 1,
    };
    let mut packer = Packer::new(pack, Instant::now()).unwrap();
    let start = PartitionStart {
        topic: "t".into(),
        topic_id: TopicId::default(),
        partition: 0,
        partition_count: 1,
        epoch: Epoch(1),
        origin: 0,
        previous: None,
        count: 0,
        next: 0,
    };
    let slot = packer.assign(start).unwrap();
    let thread =
        LinkThread::open(config, queue, Arc::clone(&shared), state, metrics, rate, seal.clone()).unwrap();
    Rig { thread, shared, blocks, seal, watchdog: Watchdog::new(None), packer, slot, next: 0, packed: 0 }
}

impl Rig {
    /// Packs a record; the blocks it makes.
    fn record(&mut self, bytes: usize) -> Vec<PackedBlock> {
        let (now, value) = (Instant::now(), vec![3; bytes]);
        let none = std::iter::empty::<RecordHeader<'_>>();
        let none: Vec<_> = none.collect();
        self.packer.push(now, self.slot, self.next, None, None, Some(&value), none.iter().copied()).unwrap();
        self.next += 1;
        self.packer.flush(now);
        let blocks: Vec<_> = std::iter::from_fn(|| self.packer.poll(now, true)).collect();
        self.packed += blocks.len() as u64;
        blocks
    }
}

/// The key changes while a record of many fragments is half handed over: the session ends behind it, nothing is lost,
/// and the numbers of sent blocks go on.
#[test]
fn a_new_key_neither_loses_blocks_nor_shifts_their_numbers() {
    let directory = tempfile::tempdir().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut rig = rig(directory.path(), socket.local_addr().unwrap());
    let mut small: Vec<PackedBlock> = (0..5).flat_map(|_| rig.record(1000)).collect();
    let large = rig.record(1 << 20);
    assert!(large.len() > 10, "many fragments");
    let first_blocks = small.len() as u64;
    let last = rig.record(1000);
    let (blocks, shared, seal, packed) =
        (rig.blocks.clone(), Arc::clone(&rig.shared), rig.seal.clone(), rig.packed);
    let tick = rig.watchdog.register("t", Instant::now()).unwrap();
    let thread = rig.thread;
    let runs = std::thread::spawn(move || thread.run(&tick, Duration::from_secs(5)));

    small.drain(..).for_each(|block| blocks.send(block).unwrap());
    let half = large.len() / 2;
    let mut large = large.into_iter();
    large.by_ref().take(half).for_each(|block| blocks.send(block).unwrap());
    let session = |shared: &Shared| shared.notes().get("session").map(|note| note["id"].to_string());
    wait("the first half", || shared.sent_blocks.load(Ordering::Acquire) >= first_blocks + half as u64 - 1);
    let first = session(&shared);
    seal.set(crate::config::Seal::Aes256Gcm(key_two(directory.path())));
    // Longer than it takes to notice the key.
    std::thread::sleep(HEARTBEAT_EVERY + Duration::from_millis(300));
    assert_eq!(session(&shared), first, "a session must not end inside a batch");
    large.for_each(|block| blocks.send(block).unwrap());
    wait("the new session", || session(&shared) != first);
    assert_eq!(shared.blocks_lost.load(Ordering::Acquire), 0);
    assert_eq!(shared.sent_blocks.load(Ordering::Acquire), packed - last.len() as u64);
    for block in last {
        blocks.send(block).unwrap();
    }
    wait("the last block", || shared.sent_blocks.load(Ordering::Acquire) == packed);
    shared.source_done.store(true, Ordering::Release);
    shared.stop.store(true, Ordering::Release);
    runs.join().unwrap();
    assert_eq!(shared.sent_blocks.load(Ordering::Acquire), packed);
}

/// A session that must end at once: what it took counts as passed, so that no later block is taken for it, and the source
/// is told of the loss first.
#[test]
fn blocks_that_die_with_their_session_keep_their_numbers() {
    let directory = tempfile::tempdir().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut rig = rig(directory.path(), socket.local_addr().unwrap());
    let mut sender = rig.thread.new_sender().unwrap();
    let block = rig.record(1000).remove(0);
    rig.thread.take(&mut sender, Instant::now(), block);
    assert_eq!(rig.shared.sent_blocks.load(Ordering::Acquire), 0);
    rig.thread.close(&sender);
    assert_eq!(rig.shared.blocks_lost.load(Ordering::Acquire), 1);
    assert_eq!(rig.shared.sent_blocks.load(Ordering::Acquire), 1);

    let mut next = rig.thread.new_sender().unwrap();
    rig.thread.reported = Totals::default();
    let block = rig.record(1000).remove(0);
    rig.thread.take(&mut next, Instant::now(), block);
    assert_eq!(next.blocks_waiting(), 0, "behind the hole, before the source knows: thrown away");
    assert_eq!(rig.shared.sent_blocks.load(Ordering::Acquire), 2, "and passed");
    rig.shared.good_from.store(3, Ordering::Release);
    rig.shared.loss_seen.store(1, Ordering::Release);
    let block = rig.record(1000).remove(0);
    rig.thread.take(&mut next, Instant::now(), block);
    assert_eq!(next.blocks_waiting(), 0, "packed before the source knew");
    let block = rig.record(1000).remove(0);
    rig.thread.take(&mut next, Instant::now(), block);
    assert_eq!(rig.shared.sent_blocks.load(Ordering::Acquire), 3, "it waits");
    while next.poll(Instant::now(), &mut rig.thread.datagrams) == Step::Send {
        rig.thread.report(&next);
    }
    assert_eq!(rig.shared.sent_blocks.load(Ordering::Acquire), 4);
}

fn key_two(directory: &Path) -> crate::config::LinkKey {
    let path = directory.join("ingress.toml");
    let text = format!(
        "[link]\nname = \"t\"\nid = 1\ntarget = \"127.0.0.1:7401\"\nstate_dir = \"{0}/state\"\nrate = \"unlimited\"\n\
         active_key = 2\n[[link.keys]]\nid = 2\nfile = \"{0}/two\"\n[source.kafka]\nbrokers = [\"127.0.0.1:1\"]\ntopics = [\"t\"]\n",
        directory.display(),
    );
    let Config::Ingress(config) = crate::config::parse(&path, &text, None, &|_| None).unwrap().config else {
        panic!("an ingress")
    };
    let Seal::Aes256Gcm(key) = config.seal else { panic!("sealed") };
    key
}

fn wait(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
