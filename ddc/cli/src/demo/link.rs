//! The link of the demo: a real ingress and a real egress, configured by files as any other, over UDP on loopback.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, anyhow};
use ddc_proxy::config::{self, SecretKey};
use ddc_proxy::{egress, ingress};
use ddc_telemetry::Registry;
use ddc_telemetry::notify::Watchdog;
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

        let registry = Registry::default();
        // Nobody kills the demo when a thread stands still; its own time-out ends it.
        let watchdog = Watchdog::new(None);
        let options = egress::Options { registry: registry.clone(), watchdog: watchdog.clone() };
        let egress = egress::start(config::load_egress(&egress_file)?.config, &options)?;
        let options = ingress::Options { registry, watchdog };
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
    let mut text = format!("[link]\ntarget = \"{target}\"\nrate = \"{}\"\n", demo.rate);
    common(&mut text, demo, "ingress");
    let (brokers, topics) = (list(source.brokers()), list(source.topics()));
    // The group is as new as the topics; on a real cluster its offsets go with them.
    let group = toml::Value::from(format!("ddc-demo-{}", source.topics().first().map_or("", String::as_str)));
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
