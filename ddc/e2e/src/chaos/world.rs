//! What a chaos run happens to: two brokers, both sides of a link, the relay between them, topics under load, a small disk,
//! clocks that can be set.

use std::collections::{HashMap, HashSet};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::judge::{Promise, Reported, Window};
use super::load::Stream;
use super::relay::Relay;
use super::tail::{Seen, Tail};
use crate::broker::Broker;
use crate::cluster::Cluster;
use crate::proxy::{Link, Proxy};

/// The egress's disk, when it is a small one: room for what it keeps, quickly filled.
const DISK: &str = "256m";
/// What the ingress may send: a bound for catching up, too.
const RATE: &str = "60Mbit/s";
/// Fewer blocks than by default, each with more records. What is lost stays lost until the one replay at the end, and a
/// partition remembers 1024 holes: an hour of weather must not make more, or the oldest are given up, as promised.
const LINGER: &str = "20ms";
/// What is read of a topic is read by then, on a busy machine with brokers that have just come back.
pub const LIMIT: Duration = Duration::from_mins(2);

/// Topics: name at the source, at the destination, partitions at the begin.
const TOPICS: [(&str, &str, u32); 3] = [
    ("chaos-steady", "chaos-renamed", 3),
    ("chaos-growing", "chaos-growing", 1),
    ("chaos-reborn", "chaos-reborn", 2),
];
/// The topic that gets more partitions.
pub const GROWING: usize = 1;
/// The topic that is deleted and made again.
pub const REBORN: usize = 2;

/// How a run is set up.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// Records per second, all topics together.
    pub per_second: u64,
    /// What the egress promises.
    pub promise: Promise,
    /// Everything lies in it: data, logs, configurations, journal.
    pub directory: PathBuf,
}

/// A topic under load.
pub struct Topic {
    /// At the source.
    pub name: Arc<str>,
    /// How many partitions it has.
    pub partitions: u32,
    /// How many topics of this name were there before.
    pub life: u32,
    /// Its load; none while it is away.
    pub stream: Option<Stream>,
    /// Reads this life of it; none while it is away.
    pub tail: Option<Tail>,
    /// How many records each partition of an ended life got, and all of them.
    pub ended: Vec<(Vec<u64>, Vec<Seen>)>,
}

/// All of it.
pub struct World {
    /// How it was set up.
    pub setup: Setup,
    /// When the run began.
    pub begin: Instant,
    /// What the ingress reads.
    pub source: Broker,
    /// What the egress writes.
    pub destination: Broker,
    /// A client of the source.
    pub cluster: Cluster,
    /// Configurations, keys, state directories.
    pub link: Link,
    /// The number of the key in use.
    pub key: u8,
    /// The diode.
    pub relay: Arc<Relay>,
    /// None while it is down.
    pub ingress: Option<Proxy>,
    /// None while it is down.
    pub egress: Option<Proxy>,
    /// Topics of the source.
    pub topics: Vec<Topic>,
    /// Topics of the destination.
    pub arrivals: Vec<(Arc<str>, Tail)>,
    /// Which topic and which life of it has this id.
    pub ids: HashMap<String, (Arc<str>, u32)>,
    /// Lives of topics that were ended.
    pub ended: HashSet<(Arc<str>, u32)>,
    /// When the egress crashed, as [`super::judge::Evidence::crashes`] wants it.
    pub crashes: Vec<Window>,
    /// The egress's small disk, or why it has none.
    pub disk: Result<Disk, String>,
    /// Clocks that can be set, or why they cannot.
    pub clocks: Result<Clocks, String>,
}

impl World {
    /// Makes and starts everything; returns when records flow.
    pub fn start(setup: Setup) -> World {
        let broker = |name: &str| {
            let directory = setup.directory.join(name);
            fs::create_dir_all(&directory).unwrap();
            Broker::start_in(directory, name, "4", "plaintext", &[])
        };
        let (source, destination) = (broker("source"), broker("destination"));
        source.wait_ready();
        destination.wait_ready();
        let cluster = Cluster::new(&source.plaintext());
        let directory = tempfile::Builder::new()
            .prefix("link")
            .rand_bytes(0)
            .disable_cleanup(true)
            .tempdir_in(&setup.directory)
            .unwrap();
        let mut link =
            Link::new_in(directory, "chaos", &source.plaintext(), &destination.plaintext(), &["^chaos-.*"]);
        let relay = Arc::new(Relay::start(([127, 0, 0, 1], link.port()).into(), setup.seed));
        link.ingress
            .set("link.target", relay.listen().to_string())
            .set("link.rate", RATE)
            .set("link.pack.linger", LINGER);
        for (topic, renamed, _) in TOPICS {
            if topic != renamed {
                link.egress.set(&format!("sink.kafka.rename.{topic}"), renamed);
            }
        }
        link.egress.set("sink.kafka.delivery", setup.promise.delivery());
        let clocks = Clocks::of(&mut link);
        let disk = Disk::mount(&link.directory().join("egress-state"));
        let begin = Instant::now();
        let arrivals = TOPICS
            .iter()
            .map(|(_, name, _)| ((*name).into(), Tail::start(&destination.plaintext(), name, true, begin)))
            .collect();
        let mut world = World {
            setup,
            begin,
            source,
            destination,
            cluster,
            link,
            key: 1,
            relay,
            ingress: None,
            egress: None,
            topics: Vec::new(),
            arrivals,
            ids: HashMap::new(),
            ended: HashSet::new(),
            crashes: Vec::new(),
            disk,
            clocks,
        };
        for (name, _, partitions) in TOPICS {
            let (stream, tail, ended) = (None, None, Vec::new());
            world.topics.push(Topic { name: name.into(), partitions, life: 0, stream, tail, ended });
        }
        (0..TOPICS.len()).for_each(|topic| world.give_life(topic));
        let (ingress, egress) = world.link.start();
        (world.ingress, world.egress) = (Some(ingress), Some(egress));
        crate::wait::until_true("records of every topic cross", LIMIT, || {
            world.arrivals.iter().all(|(_, tail)| tail.count() > 0)
        });
        world
    }

    /// Creates the topic, reads it, writes it.
    pub fn give_life(&mut self, topic: usize) {
        let (brokers, topics) = (self.source.plaintext(), self.topics.len() as u64);
        let topic = &mut self.topics[topic];
        self.cluster.create(&topic.name, topic.partitions, &[]);
        self.ids.insert(self.cluster.topic_id(&topic.name), (Arc::clone(&topic.name), topic.life));
        topic.tail = Some(Tail::start(&brokers, &topic.name, false, self.begin));
        topic.stream = Some(Stream::start(
            &brokers,
            &topic.name,
            topic.life,
            topic.partitions,
            (self.setup.per_second / topics).max(1),
            self.setup.seed ^ topic.name.len() as u64,
        ));
    }

    /// Ends this life of the topic: what it held is known, then it is deleted.
    pub fn end_life(&mut self, topic: usize) {
        let topic = &mut self.topics[topic];
        let written = topic.stream.take().expect("it lives").stop();
        let tail = topic.tail.take().expect("it lives");
        tail.sync(LIMIT);
        topic.ended.push((written, tail.rows()));
        self.ended.insert((Arc::clone(&topic.name), topic.life));
        self.cluster.delete(&topic.name);
        topic.life += 1;
    }

    /// The time of the run.
    pub fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    /// # Panics
    /// When the side is down: no fault leaves it so.
    pub fn ingress(&self) -> &Proxy {
        self.ingress.as_ref().expect("the ingress is up")
    }

    /// # Panics
    /// When the side is down: no fault leaves it so.
    pub fn egress(&self) -> &Proxy {
        self.egress.as_ref().expect("the egress is up")
    }

    /// # Panics
    /// When a side has ended that nobody ended.
    pub fn assert_alive(&mut self) {
        for (side, proxy) in [("ingress", &mut self.ingress), ("egress", &mut self.egress)] {
            assert!(proxy.as_mut().is_none_or(Proxy::lives), "the {side} has ended by itself");
        }
    }

    /// What the egress's journal says is missing: open and given up. Also writes it as the file for the replay.
    pub fn reported(&self) -> (PathBuf, Vec<Reported>, usize) {
        let file = self.link.directory().join("gaps.json");
        let path = file.to_str().expect("a path of ours");
        let (code, out, errors) = self.link.command(["gaps", "export", "-c", "egress.toml", "-o", path]);
        assert_eq!(code, 0, "ddc gaps export: {out}{errors}");
        let text = fs::read_to_string(&file).unwrap();
        let export: Value = serde_json::from_str(&text).expect("the gap file is JSON");
        let (mut reported, mut open) = (Vec::new(), 0);
        for gap in export["gaps"].as_array().expect("the gap file has gaps") {
            let ranges = |name: &str| gap[name].as_array().cloned().unwrap_or_default();
            open += ranges("open").len();
            for range in ranges("open").into_iter().chain(ranges("given_up")) {
                reported.push(self.reported_of(gap, &range));
            }
        }
        (file, reported, open)
    }

    fn reported_of(&self, gap: &Value, range: &Value) -> Reported {
        let text = |name: &str| gap[name].as_str().expect("a gap has it").to_owned();
        let known = self.ids.get(&text("topic_id")).filter(|(topic, _)| **topic == *text("topic"));
        Reported {
            topic: text("topic").into(),
            life: known.map(|(_, life)| *life),
            partition: gap["partition"].as_i64().expect("a gap has it") as i32,
            first: range[0].as_i64().expect("a range has it"),
            last: range[1].as_i64().expect("a range has it"),
            reason: text("reason"),
        }
    }
}

impl Promise {
    /// What `[sink.kafka] delivery` says.
    pub fn delivery(self) -> &'static str {
        match self {
            Promise::ExactlyOnce => "exactly_once",
            Promise::AtLeastOnce => "at_least_once",
        }
    }
}

/// A file system of its own, that can be full. Needs root.
pub struct Disk(PathBuf);

impl Disk {
    fn mount(path: &Path) -> Result<Disk, String> {
        fs::create_dir_all(path).map_err(|error| error.to_string())?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={DISK}"), "tmpfs"]).arg(path);
        match mount.output() {
            Ok(done) if done.status.success() => Ok(Disk(path.to_owned())),
            Ok(done) => Err(format!(
                "a tmpfs cannot be mounted (run as root): {}",
                String::from_utf8_lossy(&done.stderr).trim()
            )),
            Err(error) => Err(format!("mount cannot be run: {error}")),
        }
    }

    /// Fills it to the last byte.
    pub fn fill(&self) {
        let filled = fs::write(self.filler(), vec![1; 512 << 20]);
        assert!(filled.is_err(), "the disk is full");
    }

    /// There is room again.
    pub fn empty(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A copy of what it held is kept with the rest; then it goes, whoever still has files open there.
        let kept = self.0.with_file_name("egress-state-kept");
        let _ = Command::new("cp").arg("-a").arg(&self.0).arg(kept).status();
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Each side's wall clock, moved by a library that is loaded into its process: the machine's own is left alone.
///
/// What the C library waits for by the wall clock goes on by the machine's.
pub struct Clocks {
    directory: PathBuf,
}

impl Clocks {
    /// For processes that are not started yet.
    fn of(link: &mut Link) -> Result<Clocks, String> {
        let (source, library) = (link.directory().join("clock.c"), link.directory().join("clock.so"));
        fs::write(&source, include_str!("clock.c")).unwrap();
        let compiled =
            Command::new("cc").args(["-shared", "-fPIC", "-O2", "-o"]).args([&library, &source]).output();
        match compiled {
            Ok(done) if done.status.success() => {}
            Ok(done) => return Err(format!("clock.c: {}", String::from_utf8_lossy(&done.stderr))),
            Err(error) => return Err(format!("clocks cannot be set, there is no C compiler: {error}")),
        }
        let clocks = Clocks { directory: link.directory().to_owned() };
        for (side, settings) in [("ingress", &mut link.ingress), ("egress", &mut link.egress)] {
            clocks.set(side, 0);
            settings
                .environment("LD_PRELOAD", library.to_str().expect("a path of ours"))
                .environment("CHAOS_CLOCK", clocks.file(side).to_str().expect("a path of ours"));
        }
        Ok(clocks)
    }

    /// Sets a side's clock back by so many seconds, at once.
    pub fn set(&self, side: &str, back: u32) {
        // In place: processes have mapped it.
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(self.file(side)).unwrap();
        file.write_all_at(&(-i64::from(back)).to_ne_bytes(), 0).unwrap();
    }

    fn file(&self, side: &str) -> PathBuf {
        self.directory.join(format!("{side}-clock"))
    }
}
