//! A software diode: three network namespaces, of which the middle one passes frames in one direction only.
//!
//! ```text
//!   source                       diode                          destination
//!   link0 198.18.0.1/24 ═══ to-source ─ bridge ─ to-destination ═══ link0 198.18.0.2/24
//!                                 ──▶ passes (some are lost, if asked for)
//!                                 ◀── dropped, whatever it is: IP, ARP, anything
//! ```
//!
//! The source knows the destination's hardware address beforehand, since ARP would need an answer. IPv6 is off: by itself the
//! kernel then sends nothing at all, and every frame has a known author. What brokers and tests need inside a namespace
//! comes over its loopback ([`Diode::lend`]), so no interface but `link0` leads out of it.
//!
//! Needs root, iproute2 and nftables, and says so by failing: a test that skips itself proves nothing.

use std::fs::{self, File};
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use crate::wait;

/// The source's address on the link.
pub const SOURCE: &str = "198.18.0.1";
/// The destination's address on the link.
pub const DESTINATION: &str = "198.18.0.2";
/// The interface at either end of the link.
pub const INTERFACE: &str = "link0";

const SOURCE_MAC: &str = "02:00:00:00:00:01";
const DESTINATION_MAC: &str = "02:00:00:00:00:02";
/// Carrier and bridge ports come up within milliseconds.
const UP: Duration = Duration::from_secs(10);
/// Connections that are lent at a time; a Kafka client has a few for each broker.
const CONNECTIONS: u32 = 256;

/// The namespaces, removed with all that is in them on drop. Processes inside must have ended by then.
pub struct Diode {
    source: String,
    between: String,
    destination: String,
    lent: Vec<Lent>,
}

/// Which end of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Where the ingress runs.
    Source,
    /// Where the egress runs.
    Destination,
}

/// Frames counted at every place on the line, since the diode was made. Each place counts on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frames {
    /// Sent by the source's interface (its own counter).
    pub source_sent: u64,
    /// Came to the diode's port at the source's side.
    pub entered: u64,
    /// Dropped on purpose, as asked for.
    pub lost: u64,
    /// Passed on towards the destination.
    pub crossed: u64,
    /// Came to the destination's interface.
    pub destination_received: u64,
    /// Sent by the destination's interface (its own counter): what the egress's host emitted.
    pub destination_sent: u64,
    /// Came to the diode's port at the destination's side: the same, seen by the diode.
    pub returning: u64,
    /// Those of them that were about to be passed on, and were dropped.
    pub turned_back: u64,
    /// Left the diode's port towards the source: what must never be.
    pub returned: u64,
    /// Came to the source's interface, by nftables before any protocol looks at them.
    pub source_received: u64,
    /// The same by the interface's own counter.
    pub source_interface_received: u64,
}

impl Diode {
    /// Makes one that loses `lost_per_mille` of the frames on their way, by chance.
    ///
    /// # Panics
    /// Without root, iproute2 or nftables.
    pub fn new(lost_per_mille: u32) -> Diode {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(
            rustix::process::geteuid().is_root(),
            "this test makes network namespaces and therefore needs root: run it with sudo, or leave out \
             `--test one_way`"
        );
        let id = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // Made before anything is, so that its drop removes whatever a failing step leaves.
        let diode = Diode {
            source: format!("ddc-e2e-s-{id}"),
            between: format!("ddc-e2e-b-{id}"),
            destination: format!("ddc-e2e-d-{id}"),
            lent: Vec::new(),
        };
        for name in diode.names() {
            run("ip", &["netns", "add", name]);
            inside(name, || {
                for scope in ["all", "default"] {
                    fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1").unwrap();
                }
            });
            ip(name, "link set lo up");
        }
        diode.wire();
        diode.rules(lost_per_mille);
        diode.wait_until_up();
        diode
    }

    fn names(&self) -> [&str; 3] {
        [&self.source, &self.between, &self.destination]
    }

    fn name(&self, end: End) -> &str {
        match end {
            End::Source => &self.source,
            End::Destination => &self.destination,
        }
    }

    fn wire(&self) {
        let bridge = &self.between;
        ip(bridge, "link add bridge type bridge stp_state 0 mcast_snooping 0");
        for (name, port, address, mac) in [
            (&self.source, "to-source", SOURCE, SOURCE_MAC),
            (&self.destination, "to-destination", DESTINATION, DESTINATION_MAC),
        ] {
            ip(
                bridge,
                &format!("link add {port} mtu 1500 type veth peer name {INTERFACE} mtu 1500 netns {name}"),
            );
            ip(name, &format!("link set {INTERFACE} address {mac}"));
            ip(name, &format!("address add {address}/24 dev {INTERFACE}"));
            ip(bridge, &format!("link set {port} master bridge up"));
            ip(name, &format!("link set {INTERFACE} up"));
        }
        ip(bridge, "link set bridge up");
        // As for a real diode: nobody could answer the question who has this address.
        let neighbour =
            format!("neighbour replace {DESTINATION} lladdr {DESTINATION_MAC} nud permanent dev {INTERFACE}");
        ip(&self.source, &neighbour);
    }

    fn rules(&self, lost_per_mille: u32) {
        let lose = match lost_per_mille {
            0 => String::new(),
            share => format!(
                "iifname \"to-source\" oifname \"to-destination\" numgen random mod 1000 < {share} counter name \"lost\" drop;"
            ),
        };
        nft(
            &self.between,
            &format!(
                "table bridge diode {{
                   counter entered {{ }}
                   counter lost {{ }}
                   counter crossed {{ }}
                   counter returning {{ }}
                   counter turned_back {{ }}
                   counter returned {{ }}
                   chain arriving {{
                     type filter hook prerouting priority 0; policy accept;
                     iifname \"to-source\" counter name \"entered\";
                     iifname \"to-destination\" counter name \"returning\";
                   }}
                   chain cut {{ }}
                   chain forward {{
                     type filter hook forward priority 0; policy drop;
                     jump cut;
                     {lose}
                     iifname \"to-source\" oifname \"to-destination\" counter name \"crossed\" accept;
                     counter name \"turned_back\" drop;
                   }}
                   chain leaving {{
                     type filter hook postrouting priority 0; policy accept;
                     oifname \"to-source\" counter name \"returned\";
                   }}
                 }}"
            ),
        );
        for end in [End::Source, End::Destination] {
            let arriving = format!(
                "table netdev link {{
                   counter received {{ }}
                   chain arriving {{
                     type filter hook ingress device \"{INTERFACE}\" priority 0; policy accept;
                     counter name \"received\";
                   }}
                 }}"
            );
            nft(self.name(end), &arriving);
        }
    }

    fn wait_until_up(&self) {
        for end in [End::Source, End::Destination] {
            wait::until(&format!("{INTERFACE} of the {end:?} is up"), UP, || {
                match self.interface(end)["operstate"].as_str() {
                    Some("UP") => Ok(()),
                    state => Err(format!("{state:?}")),
                }
            });
        }
        wait::until("both ports of the bridge forward", UP, || {
            let ports: Value =
                serde_json::from_str(&output("bridge", &["-n", &self.between, "-j", "link", "show"]))
                    .unwrap();
            let states: Vec<_> = ports.as_array().unwrap().iter().map(|port| port["state"].clone()).collect();
            if states == ["forwarding", "forwarding"] { Ok(()) } else { Err(format!("{states:?}")) }
        });
    }

    /// Takes the diode's rules away: frames pass in both directions, uncounted by the diode. Shows that a test would notice.
    pub fn open_both_ways(&self) {
        nft(&self.between, "delete chain bridge diode forward");
    }

    /// Cuts the cable: from now on nothing passes.
    pub fn cut(&self) {
        nft(&self.between, "add rule bridge diode cut drop");
    }

    /// Mends what [`Diode::cut`] cut.
    pub fn mend(&self) {
        nft(&self.between, "flush chain bridge diode cut");
    }

    /// Does something at one end of the link. Sockets made, processes and threads started there stay there.
    pub fn at<T: Send>(&self, end: End, work: impl FnOnce() -> T + Send) -> T {
        inside(self.name(end), work)
    }

    /// Makes a TCP listener of this machine's loopback reachable at one end under the same address. Bytes are
    /// carried over by threads of this process: no frame of them leaves the namespace.
    pub fn lend(&mut self, end: End, address: &str) {
        let address = address.to_owned();
        let listener = self.at(end, || TcpListener::bind(&address)).expect("the same port is free in there");
        self.lent.push(Lent::start(self.name(end).to_owned(), address, listener));
    }

    /// What was counted so far.
    pub fn frames(&self) -> Frames {
        let diode = counters(&self.between);
        let (source, destination) = (self.interface(End::Source), self.interface(End::Destination));
        let own =
            |interface: &Value, direction: &str| interface["stats64"][direction]["packets"].as_u64().unwrap();
        Frames {
            source_sent: own(&source, "tx"),
            entered: counter(&diode, "entered"),
            lost: counter(&diode, "lost"),
            crossed: counter(&diode, "crossed"),
            destination_received: counter(&counters(&self.destination), "received"),
            destination_sent: own(&destination, "tx"),
            returning: counter(&diode, "returning"),
            turned_back: counter(&diode, "turned_back"),
            returned: counter(&diode, "returned"),
            source_received: counter(&counters(&self.source), "received"),
            source_interface_received: own(&source, "rx"),
        }
    }

    fn interface(&self, end: End) -> Value {
        let text = output("ip", &["-n", self.name(end), "-s", "-j", "link", "show", INTERFACE]);
        serde_json::from_str::<Value>(&text).unwrap()[0].take()
    }
}

impl Drop for Diode {
    fn drop(&mut self) {
        self.lent.clear();
        for name in self.names() {
            // Its veth ends go with it. Failing here would hide why the test failed.
            let _ = Command::new("ip").args(["netns", "delete", name]).output();
        }
    }
}

/// A listener inside a namespace whose connections go on to this machine's loopback.
struct Lent {
    namespace: String,
    address: String,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Lent {
    fn start(namespace: String, address: String, listener: TcpListener) -> Lent {
        let ended = Arc::new(AtomicBool::new(false));
        let (told, target) = (Arc::clone(&ended), address.clone());
        let thread = thread::spawn(move || {
            let open = Arc::new(AtomicU32::new(0));
            for inner in listener.incoming() {
                if told.load(Ordering::Relaxed) {
                    return;
                }
                // A connection that cannot be carried on is closed, as a broker that is away would.
                let (Ok(inner), Ok(outer)) = (inner, TcpStream::connect(&target)) else { continue };
                assert!(
                    open.fetch_add(1, Ordering::Relaxed) < CONNECTIONS,
                    "{CONNECTIONS} connections to {target}"
                );
                let open = Arc::clone(&open);
                thread::spawn(move || {
                    carry(inner, outer);
                    open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Lent { namespace, address, ended, thread: Some(thread) }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes it; when that fails, it lives until the process ends and disturbs nobody.
        if inside(&self.namespace, || TcpStream::connect(&self.address)).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// Both directions until both have ended.
fn carry(inner: TcpStream, outer: TcpStream) {
    let one_way = |mut from: TcpStream, mut to: TcpStream| {
        // Either end may vanish: then the other one is told.
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    };
    let both = inner
        .set_nodelay(true)
        .and(outer.set_nodelay(true))
        .and(inner.try_clone())
        .and_then(|inner| Ok((inner, outer.try_clone()?)));
    let Ok((inner_back, outer_back)) = both else { return };
    let back = thread::spawn(move || one_way(outer_back, inner_back));
    one_way(inner, outer);
    let _ = back.join();
}

/// Runs `work` on a thread that lives in the namespace.
fn inside<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let namespace = File::open(format!("/run/netns/{name}")).unwrap();
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn ip(namespace: &str, arguments: &str) {
    let arguments: Vec<&str> = ["-n", namespace].into_iter().chain(arguments.split_whitespace()).collect();
    run("ip", &arguments);
}

fn nft(namespace: &str, rules: &str) {
    run("ip", &["netns", "exec", namespace, "nft", rules]);
}

fn counters(namespace: &str) -> Value {
    let text = output("ip", &["netns", "exec", namespace, "nft", "-j", "list", "counters"]);
    serde_json::from_str(&text).unwrap()
}

fn counter(counters: &Value, name: &str) -> u64 {
    let all = counters["nftables"].as_array().unwrap();
    let found = all.iter().find(|entry| entry["counter"]["name"] == name);
    found
        .and_then(|entry| entry["counter"]["packets"].as_u64())
        .unwrap_or_else(|| panic!("no counter {name}"))
}

fn run(program: &str, arguments: &[&str]) {
    output(program, arguments);
}

/// What the command printed; a command that fails ends the test with its complaint.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program} ({error}); install iproute2 and nftables"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {}", arguments.join(" "), complaint.trim_end());
    String::from_utf8_lossy(&output.stdout).into_owned()
}
