//! The configuration files as they are written: one serde struct per TOML table.
//!
//! The doc comment of a field is the only documentation of its key: `docs/configuration.md`, the JSON Schemas and the
//! file that `ddc config` prints are all made from it. A field's `example` stands for a value that only the user can
//! know; a key that has neither an example nor a default is optional.
//!
//! Nothing here is checked beyond a single value; [`super::ingress`] and [`super::egress`] make sense of the whole.

mod dead_letters;
mod egress;
mod ingress;
mod kafka;
mod spool;
mod telemetry;
mod udp;

pub use dead_letters::OnFailure;
pub use ingress::Compression;
pub use kafka::{
    BadTimestamp, CommitOnStop, DeliveryMode, LateRecords, LostProgress, PartitionMode, SaslMechanism,
    SecurityProtocol, StartAt,
};
pub use spool::{FsyncWhen, WhenSpoolFull};
pub use telemetry::SyslogFacility;
pub use udp::LateDatagrams;

pub(crate) use dead_letters::RawDeadLetters;
pub(crate) use egress::*;
pub(crate) use ingress::{RawIngress, RawIngressLink, default_rate};
pub(crate) use kafka::{
    PROPERTY_FORMAT, RawKafkaClient, RawKafkaSink, RawKafkaSource, RawProperty, RawRenameRegex, RawSasl,
    RawSecurity, RawTls,
};
pub(crate) use spool::RawSpool;
pub(crate) use telemetry::RawTelemetry;
pub(crate) use udp::{RawUdpSink, RawUdpSource};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::ByteSize;
use super::values::{AdminListen, FilePath, InterfaceName, LinkName};

/// Declares an enumeration that is written as lower-case words.
macro_rules! choices {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
        pub enum $name { $($(#[$variant_meta])* #[serde(rename = $text)] $variant,)* }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $(Self::$variant => $text,)* })
            }
        }
    };
}
pub(crate) use choices;

/// The keys of `[link]` that both sides have.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct RawLinkCommon {
    /// The link's label in logs, metrics and default names: 1 to 63 of `a-z`, `0-9` and `-`.
    #[schemars(example = "plant-a")]
    pub(crate) name: LinkName,
    /// The link's number in every datagram. The same on both sides, and different for every link that shares a path.
    #[schemars(example = 1)]
    pub(crate) id: u16,
    /// The network interface to use, such as `eth1`. Without it the kernel's routing decides.
    pub(crate) interface: Option<InterfaceName>,
    /// The largest IP packet the path carries, in bytes; datagrams are never fragmented. 9000 with jumbo frames on
    /// *every* device of the path. The same on both sides.
    #[serde(default = "defaults::mtu")]
    #[schemars(range(min = 576, max = 9216))]
    pub(crate) mtu: u32,
    /// How datagrams are protected. `none` is for measurements only: anyone who reaches the egress can then write into
    /// the destination. The same on both sides.
    #[serde(default = "defaults::seal")]
    pub(crate) seal: SealMode,
    /// The directory in which this side keeps what must survive a restart. Every link side needs its own.
    /// Without it: `/var/lib/ddc/` and the link's name.
    pub(crate) state_dir: Option<FilePath>,
    /// How large a socket buffer is asked of the kernel. Smaller ones lose datagrams at high rates;
    /// the kernel's limit is raised with `sysctl net.core.rmem_max` (egress) and `net.core.wmem_max` (ingress).
    #[serde(default = "defaults::socket_buffer")]
    pub(crate) socket_buffer: ByteSize,
    /// The link's keys. With `seal = "aes-256-gcm"` at least one is needed; to change keys without a gap, add the new
    /// one on the egress, then on the ingress, make it the ingress's `active_key`, and remove the old one.
    #[serde(default)]
    pub(crate) keys: Vec<RawKey>,
}

choices! {
    /// How datagrams are protected.
    SealMode {
        /// Every datagram is encrypted and authenticated.
        Aes256Gcm = "aes-256-gcm",
        /// Only a checksum against accidents.
        None = "none",
    }
}

/// One key of the link.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct RawKey {
    /// The key's number in every datagram, 0 to 255. The same on both sides.
    #[schemars(example = 1)]
    pub(crate) id: u8,
    /// The file that holds the key: 64 hex digits and a newline, made by `ddc keygen`. Only its owner and groups of the
    /// process may read it. The same content on both sides.
    #[schemars(example = "/etc/ddc/keys/plant-a.key")]
    pub(crate) file: FilePath,
}

/// Where this process answers `ddc ready`, scrapes of `/metrics` and questions about its state.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(crate) struct RawAdmin {
    /// The TCP address of the admin API, on loopback; `none` for no TCP. Without it: 127.0.0.1 and port 9640 + link id on
    /// an ingress, 9660 + link id on an egress (for link ids up to 19).
    pub(crate) listen: Option<AdminListen>,
    /// A Unix socket for the admin API, besides the TCP address. Its mode is 0660.
    pub(crate) socket: Option<FilePath>,
}

/// What a file says of its admin listener, with the link's id, which its default port goes by.
#[derive(Debug, Deserialize)]
pub(crate) struct RawAdminOnly {
    pub(crate) link: RawLinkId,
    #[serde(default)]
    pub(crate) admin: RawAdmin,
}

/// The id alone.
#[derive(Debug, Deserialize)]
pub(crate) struct RawLinkId {
    pub(crate) id: u16,
}

/// What a file says of where the link's state lies.
#[derive(Debug, Deserialize)]
pub(crate) struct RawPlaceOnly {
    pub(crate) link: RawPlaceLink,
    pub(crate) dead_letters: Option<RawDeadLetters>,
    #[serde(default)]
    pub(crate) telemetry: RawTelemetry,
}

/// The link's name, and what leads to its state.
#[derive(Debug, Deserialize)]
pub(crate) struct RawPlaceLink {
    pub(crate) name: LinkName,
    pub(crate) id: u16,
    pub(crate) state_dir: Option<FilePath>,
    #[serde(default = "defaults::seal")]
    pub(crate) seal: SealMode,
}

/// What is logged. When a process runs several links, the first file's `[log]` holds.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(crate) struct RawLog {
    /// The least severe level that is written.
    pub(crate) level: LogLevel,
    /// How a line looks on standard error.
    pub(crate) format: LogFormat,
}

impl Default for RawLog {
    fn default() -> Self {
        Self { level: LogLevel::Info, format: LogFormat::Text }
    }
}

choices! {
    /// The least severe level that is written.
    LogLevel {
        /// Data was lost or will be.
        Error = "error",
        /// A human should look; nothing is lost.
        Warn = "warn",
        /// The life cycle: started, connected, stopped.
        Info = "info",
        /// What a developer wants to know.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

choices! {
    /// How a log line looks.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
}

/// Defaults of single keys in tables that also have required keys.
pub(crate) mod defaults {
    use super::{ByteSize, SealMode};

    pub(crate) fn mtu() -> u32 {
        1500
    }

    pub(crate) fn seal() -> SealMode {
        SealMode::Aes256Gcm
    }

    pub(crate) fn socket_buffer() -> ByteSize {
        ByteSize::mib(16)
    }
}
