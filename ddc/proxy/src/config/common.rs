//! What both sides share once it is checked: link, keys, admin listener, log; and the collector of mistakes.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ddc_wire::{KeyId, LinkId};

use super::paths::{self, Located};
use super::problem::Remark;
use super::raw::{LogFormat, LogLevel, RawAdmin, RawKey, RawLinkCommon, RawLog, SealMode};
use super::secrets::{self, SecretKey};
use super::units::ByteSize;
use super::values::{AdminListen, FilePath, InterfaceName, LinkName};
use super::walk::Document;
use super::{Environment, Side};

/// Collects mistakes and notices with their lines while a raw configuration is turned into a validated one.
pub(crate) struct Checker<'a> {
    file: &'a Path,
    document: &'a Document<'a>,
    pub(crate) environment: Environment<'a>,
    problems: Vec<Remark>,
    notices: Vec<Remark>,
}

impl<'a> Checker<'a> {
    pub(crate) fn new(file: &'a Path, document: &'a Document<'a>, environment: Environment<'a>) -> Self {
        Self { file, document, environment, problems: Vec::new(), notices: Vec::new() }
    }

    /// Reports a mistake about the key at `path`.
    pub(crate) fn problem(&mut self, path: &[&str], message: impl Into<String>) {
        self.problems.push(self.remark(path, message));
    }

    /// Reports something that should be known.
    pub(crate) fn notice(&mut self, path: &[&str], message: impl Into<String>) {
        self.notices.push(self.remark(path, message));
    }

    /// The value of a result; its error is reported.
    pub(crate) fn take<T>(&mut self, path: &[&str], result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.problem(path, message)).ok()
    }

    /// Whether the key is written in the file.
    pub(crate) fn is_written(&self, path: &[&str]) -> bool {
        self.document.has(path)
    }

    /// Where a path of the file leads.
    pub(crate) fn locate(&self, path: &FilePath) -> Result<Located, String> {
        paths::locate(self.file, &path.0, self.environment)
    }

    /// The same for a path that is not read here; `header` and `key` name it when it leads nowhere.
    pub(crate) fn place(&mut self, header: &'static str, key: &'static str, path: &FilePath) -> PathBuf {
        let located = self.locate(path).map_err(|why| format!("`{key}` in [{header}]: {why}"));
        self.take(&[header, key], located).map_or_else(PathBuf::new, |located| located.path)
    }

    fn remark(&self, path: &[&str], message: impl Into<String>) -> Remark {
        Remark { line: self.document.line(path), message: message.into() }
    }

    pub(crate) fn finish(mut self) -> (Vec<Remark>, Vec<Remark>) {
        self.problems.sort_by_key(|remark| remark.line);
        self.notices.sort_by_key(|remark| remark.line);
        (self.problems, self.notices)
    }
}

/// The largest IP packet of a path, in bytes: 576 to 9216.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mtu(u16);

impl Mtu {
    /// The size in bytes.
    pub fn bytes(self) -> usize {
        usize::from(self.0)
    }

    /// The largest UDP payload: the MTU less the IP header of the address's family and the UDP header.
    pub fn datagram_size(self, peer: IpAddr) -> usize {
        self.bytes() - if peer.is_ipv4() { 20 } else { 40 } - 8
    }

    /// S_max: the bytes of a block that one datagram carries. The same for both seals.
    pub fn symbol_size(self, peer: IpAddr) -> usize {
        // Never below zero: the smallest MTU, 576, leaves 468 bytes over IPv6.
        self.datagram_size(peer) - ddc_wire::OVERHEAD
    }
}

/// What `[link]` says on both sides.
#[derive(Debug, Clone)]
pub struct LinkSettings {
    /// The label.
    pub name: LinkName,
    /// The number in every datagram.
    pub id: LinkId,
    /// The interface to use; the kernel's routing decides when there is none.
    pub interface: Option<InterfaceName>,
    /// The largest IP packet of the path.
    pub mtu: Mtu,
    /// Where this side keeps what must survive a restart.
    pub state_dir: PathBuf,
    /// The socket buffer to ask of the kernel.
    pub socket_buffer: ByteSize,
}

/// How datagrams are protected; `K` is one key on an ingress, all keys on an egress.
#[derive(Debug, Clone)]
pub enum Seal<K> {
    /// A checksum only.
    None,
    /// AES-256-GCM with the link's key or keys.
    Aes256Gcm(K),
}

/// One key of the link.
#[derive(Debug, Clone)]
pub struct LinkKey {
    /// Its number in every datagram.
    pub id: KeyId,
    /// The key.
    pub key: SecretKey,
    /// The file it was read from.
    pub file: PathBuf,
}

/// Where the admin API listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// A loopback address, when it listens on TCP at all.
    pub listen: Option<SocketAddr>,
    /// A Unix socket.
    pub socket: Option<PathBuf>,
}

/// What is logged and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// The least severe level.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
}

impl From<RawLog> for Log {
    fn from(raw: RawLog) -> Self {
        Self { level: raw.level, format: raw.format }
    }
}

/// One part of the memory a link may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryItem {
    /// What for.
    pub purpose: &'static str,
    /// At most how much.
    pub size: ByteSize,
}

/// What a process takes before any buffer: code, stacks, librdkafka, allocator.
pub(crate) const BASE_MEMORY: ByteSize = ByteSize::mib(32);

/// Records in flight besides the buffers: one being read, one being packed or unpacked, one being handed over.
pub(crate) const RECORDS_IN_FLIGHT: u64 = 3;

/// The largest `max_record_bytes`: what the wire format's batches hold.
pub(crate) const LARGEST_RECORD: ByteSize = ByteSize::mib(256);

pub(crate) fn link(
    raw: &RawLinkCommon,
    checker: &mut Checker<'_>,
    peer: IpAddr,
    peer_key: &'static str,
) -> LinkSettings {
    if peer.is_ipv6() && raw.mtu < 1280 {
        let message = format!("`mtu` in [link]: {} is too small for IPv6, which needs 1280", raw.mtu);
        checker.problem(&["link", "mtu"], message);
    }
    if let IpAddr::V6(address) = peer
        && address.is_unicast_link_local()
        && raw.interface.is_none()
    {
        let message = format!(
            "`{peer_key}` in [link]: {peer} is a link-local address, which needs `interface`; for example interface = \"eth1\""
        );
        checker.problem(&["link", peer_key], message);
    }
    if !(ByteSize(64 << 10)..=ByteSize::mib(1024)).contains(&raw.socket_buffer) {
        let message = format!(
            "`socket_buffer` in [link]: {} is out of range; it can be 64KiB to 1GiB",
            raw.socket_buffer
        );
        checker.problem(&["link", "socket_buffer"], message);
    }
    LinkSettings {
        name: raw.name.clone(),
        id: LinkId(raw.id),
        interface: raw.interface.clone(),
        // In range: the schema says 576 to 9216.
        mtu: Mtu(u16::try_from(raw.mtu).unwrap_or(u16::MAX)),
        state_dir: state_dir(&raw.name, raw.state_dir.as_ref(), checker),
        socket_buffer: raw.socket_buffer,
    }
}

/// Where a link's state lies.
pub(crate) fn state_dir(name: &LinkName, written: Option<&FilePath>, checker: &mut Checker<'_>) -> PathBuf {
    match written {
        Some(path) => checker.place("link", "state_dir", path),
        None => PathBuf::from(format!("/var/lib/ddc/{name}")),
    }
}

/// Reads the key files. Every bad one is reported; `None` when there is any.
pub(crate) fn keys(raw: &RawLinkCommon, checker: &mut Checker<'_>) -> Option<Seal<Vec<LinkKey>>> {
    if raw.seal == SealMode::None {
        checker.notice(
            &["link", "seal"],
            "seal = \"none\": anyone who can send to the egress can write into the destination; for measurements only",
        );
        if !raw.keys.is_empty() {
            checker.notice(&["link", "keys"], "the keys are not used, since seal = \"none\"");
        }
        return Some(Seal::None);
    }
    if raw.keys.is_empty() {
        checker.problem(
            &["link"],
            "no key for seal = \"aes-256-gcm\"; run: ddc keygen --out FILE, and add: [[link.keys]] id = 1, file = \"FILE\"",
        );
    }
    let mut loaded = Vec::new();
    for (number, key) in raw.keys.iter().enumerate() {
        let place = number.to_string();
        if raw.keys[..number].iter().any(|earlier| earlier.id == key.id) {
            let message =
                format!("`id` in [[link.keys]]: {} is there twice; every key needs its own", key.id);
            checker.problem(&["link", "keys", &place, "id"], message);
        }
        let result = load_key(key, checker, &raw.name);
        loaded.extend(checker.take(&["link", "keys", &place, "file"], result));
    }
    (!loaded.is_empty() && loaded.len() == raw.keys.len()).then_some(Seal::Aes256Gcm(loaded))
}

fn load_key(raw: &RawKey, checker: &Checker<'_>, link: &LinkName) -> Result<LinkKey, String> {
    let located = checker.locate(&raw.file).map_err(|why| format!("`file` in [[link.keys]]: {why}"))?;
    let key = secrets::key_file(&located).map_err(|why| format!("link {link}: {why}"))?;
    Ok(LinkKey { id: KeyId(raw.id), key, file: located.path })
}

/// The highest link id whose default admin port does not run into the other side's range.
const LAST_ID_WITH_ADMIN_PORT: u16 = 19;

pub(crate) fn admin(raw: &RawAdmin, side: Side, id: u16, checker: &mut Checker<'_>) -> Admin {
    let socket = raw.socket.as_ref().map(|path| checker.place("admin", "socket", path));
    let base = if side == Side::Ingress { 9640 } else { 9660 };
    let listen = match raw.listen {
        Some(AdminListen::None) => None,
        Some(AdminListen::Tcp(address)) => {
            if !address.ip().is_loopback() {
                let message = format!(
                    "`listen` in [admin]: {address} is not on loopback; that needs TLS and authentication, which this version does not have; for example \"127.0.0.1:{}\"",
                    address.port()
                );
                checker.problem(&["admin", "listen"], message);
            }
            Some(address)
        }
        None if id <= LAST_ID_WITH_ADMIN_PORT => Some(SocketAddr::from(([127, 0, 0, 1], base + id))),
        None => {
            if socket.is_none() {
                let message = format!(
                    "missing key `listen` in [admin]: link ids above {LAST_ID_WITH_ADMIN_PORT} have no default port; for example: listen = \"127.0.0.1:9700\", or \"none\""
                );
                checker.problem(&["admin"], message);
            }
            None
        }
    };
    if let Some(socket) = &socket {
        // sun_path holds 108 bytes, the last of which is zero.
        if socket.as_os_str().len() > 107 {
            let message = format!("`socket` in [admin]: {} is longer than 107 bytes", socket.display());
            checker.problem(&["admin", "socket"], message);
        }
    }
    Admin { listen, socket }
}

/// Checks `max_record_bytes` by itself and against the buffer that must hold a record.
pub(crate) fn record_size(
    checker: &mut Checker<'_>,
    table: &[&str],
    max_record_bytes: ByteSize,
    buffer: ByteSize,
    buffer_key: &str,
) {
    let header = table.join(".");
    let path: Vec<&str> = table.iter().copied().chain(["max_record_bytes"]).collect();
    if !(ByteSize(1024)..=LARGEST_RECORD).contains(&max_record_bytes) {
        let message = format!(
            "`max_record_bytes` in [{header}]: {max_record_bytes} is out of range; it can be 1KiB to {LARGEST_RECORD}"
        );
        checker.problem(&path, message);
    } else if buffer < max_record_bytes {
        let message = format!(
            "`max_record_bytes` in [{header}]: {max_record_bytes} is more than {buffer_key} = \"{buffer}\" holds; make that at least as large"
        );
        checker.problem(&path, message);
    }
}
