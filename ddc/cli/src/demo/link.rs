//! The link of the demo: a real ingress and a real egress, configured by files as any other, over UDP on loopback.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use ddc_proxy::config::{self, BitRate, Rate, SecretKey};
use ddc_proxy::{egress, ingress};
use ddc_telemetry::Registry;
use ddc_telemetry::notify::Watchdog;
use ddc_udp::{ReceiverOptions, ReceiverSocket};
use ring::rand::{SecureRandom, SystemRandom};
use tempfile::TempDir;

use super::Demo;
use super::clusters::Cluster;
use super::relay::Relay;

/// An embedded cluster lets a fetch that finds nothing wait for its whole time, also when records come: so the time is
/// short. Real clusters answer at once.
pub(super) const MOCK_FETCH_WAIT_MS: u32 = 5;

/// What stands before a source topic's name at the destination.
pub(super) const DESTINATION_PREFIX: &str = "copy.";

/// Both sides, and what is between them. Fields are dropped in this order: sender first.
pub(super) struct Link {
    pub(super) ingress: ingress::Ingress,
    pub(super) egress: egress::Egress,
    pub(super) relay: Option<Relay>,
    /// Key, configuration files, state directories.
    _directory: TempDir,
}

impl Link {
    /// Writes both configuration files with a fresh key and starts both sides, the egress first.
    pub(super) fn start(
        demo: &Demo,
        seed: u64,
        source: &Cluster,
        destination: &Cluster,
        registry: &Registry,
        watchdog: &Watchdog,
    ) -> anyhow::Result<Self> {
        // Readable by its owner only, as tempfile makes them.
        let directory = tempfile::tempdir().context("a directory for the demo's configuration")?;
        write_key(&directory.path().join("demo.key"))?;
        let listen = free_port()?;
        let egress_file = directory.path().join("egress.toml");
        std::fs::write(&egress_file, egress_toml(demo, listen, destination))?;
        let relay = match demo.loss {
            share if share > 0.0 => Some(Relay::start(listen, share, seed)?),
            _ => None,
        };
        let target = relay.as_ref().map_or(listen, Relay::listen);
        let ingress_file = directory.path().join("ingress.toml");
        std::fs::write(&ingress_file, ingress_toml(demo, target, source))?;

        let options = egress::Options { registry: registry.clone(), watchdog: watchdog.clone() };
        let egress = egress::start(config::load_egress(&egress_file)?.config, &options)?;
        let options = ingress::Options { registry: registry.clone(), watchdog: watchdog.clone() };
        let ingress = ingress::start(config::load_ingress(&ingress_file)?.config, &options)?;
        Ok(Self { ingress, egress, relay, _directory: directory })
    }

    /// Whether one of the sides has ended by itself.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.ingress.has_failed() {
            return Err(anyhow!("the ingress has stopped; run again with --verbose to see why"));
        }
        if self.egress.has_failed() {
            return Err(anyhow!("the egress has stopped; run again with --verbose to see why"));
        }
        Ok(())
    }

    /// Drains the ingress, then the egress.
    pub(super) fn stop(self) {
        let Self { ingress, egress, relay, _directory } = self;
        if !ingress.join() {
            tracing::error!("a thread of the ingress panicked");
        }
        if !egress.join().sound {
            tracing::error!("a thread of the egress panicked");
        }
        drop(relay);
    }
}

/// The rate without `--rate`: [`RATE`], or what the kernel's receive buffer can hold for [`STALL`], the time for which the
/// receiving thread may have to wait for its turn. Where nobody raised `net.core.rmem_max` that is some 40 Mbit/s.
pub(super) fn default_rate() -> Rate {
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    // Without a socket there is no demo; the egress will say why.
    let granted = ReceiverSocket::open(&ReceiverOptions::new(any_port)).map(|socket| socket.buffer().granted);
    let rate = granted.map_or(RATE, |bytes| affordable(bytes as u64));
    BitRate::new(rate).map_or(Rate::Unlimited, Rate::Limited)
}

/// In bits per second, for a receive buffer of so many bytes.
fn affordable(buffer: u64) -> u64 {
    // The kernel doubles what it grants, and books a datagram of a 1500-byte packet as 2304 bytes.
    let datagrams = buffer * 2 / 2304;
    let bits = datagrams * ON_WIRE_BITS * 1000 / STALL.as_millis() as u64;
    (bits / 1_000_000 * 1_000_000).clamp(1_000_000, RATE)
}

/// The default where buffers allow it: both clusters, both sides and the comparison keep up on two cores.
const RATE: u64 = 400_000_000;
/// See [`default_rate`].
const STALL: Duration = Duration::from_millis(50);
/// A packet of 1500 bytes with all of its Ethernet framing.
const ON_WIRE_BITS: u64 = 1538 * 8;

fn write_key(path: &Path) -> anyhow::Result<()> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow!("the system gives no random numbers"))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(SecretKey::new(bytes).to_file_text().as_bytes())?;
    Ok(())
}

/// A UDP port that is free now. Another process could take it before the egress does; then the egress says so.
fn free_port() -> anyhow::Result<SocketAddr> {
    let socket = UdpSocket::bind("127.0.0.1:0").context("a UDP port on loopback")?;
    Ok(socket.local_addr()?)
}

fn common(text: &mut String, demo: &Demo, side: &str) {
    // Writing into a String cannot fail.
    let _ = write!(
        text,
        "name = \"demo\"\nid = 1\nmtu = {}\nstate_dir = \"{side}-state\"\n[[link.keys]]\nid = 1\nfile = \"demo.key\"\n",
        demo.mtu
    );
}

fn ingress_toml(demo: &Demo, target: SocketAddr, source: &Cluster) -> String {
    let mut text = format!("[link]\ntarget = \"{target}\"\nrate = \"{}\"\n", demo.rate());
    common(&mut text, demo, "ingress");
    let (brokers, topics) = (list(source.brokers()), list(source.topics()));
    let group = toml::Value::from(source.group());
    let _ = write!(
        text,
        "[link.fec]\ncode = \"{}\"\ninterleave = {}\n\
         [link.pack]\ncompression = \"{}\"\n\
         [source.kafka]\nbrokers = {brokers}\ntopics = {topics}\ngroup = {group}\n",
        demo.fec, demo.interleave, demo.compression
    );
    if source.is_mock() {
        let _ = write!(text, "[source.kafka.properties]\n\"fetch.wait.max.ms\" = {MOCK_FETCH_WAIT_MS}\n");
    }
    text + "[admin]\nlisten = \"none\"\n"
}

fn egress_toml(demo: &Demo, listen: SocketAddr, destination: &Cluster) -> String {
    let mut text = format!("[link]\nlisten = \"{listen}\"\n");
    common(&mut text, demo, "egress");
    let brokers = list(destination.brokers());
    let _ = write!(
        text,
        "[sink.kafka]\nbrokers = {brokers}\ntopic_prefix = \"{DESTINATION_PREFIX}\"\n[admin]\nlisten = \"none\"\n"
    );
    text
}

/// A TOML array of strings.
fn list(texts: &[String]) -> toml::Value {
    texts.iter().map(String::as_str).collect::<Vec<_>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_buffer_makes_a_slow_default_and_a_large_one_does_not_make_a_fast_one() {
        assert_eq!(affordable(208 << 10), 45_000_000);
        assert_eq!(affordable(4 << 20), RATE);
        assert_eq!(affordable(1 << 40), RATE);
        assert_eq!(affordable(0), 1_000_000);
    }
}
