//! Configuration: one TOML file is one side of one link.
//!
//! ```text
//!  file → tree with lines → walk beside the schema → raw structs → cross checks → IngressConfig | EgressConfig
//!         (syntax)           (unknown, missing,       (raw/)        (keys, sizes,
//!                             wrong values)                          addresses)
//! ```
//!
//! [`load`] reads the file and the key and password files it names, and nothing else: no socket, no broker, no
//! directory is touched. Everything that is wrong is reported at once, each mistake with file, line and what to do.
//! What it returns has no illegal states left: the rest of the program checks nothing again.

mod common;
mod dead_letters;
mod default_file;
mod document;
mod egress;
mod ingress;
mod kafka;
mod paths;
mod problem;
mod raw;
mod schema;
mod secrets;
mod sharing;
mod spool;
mod telemetry;
mod together;
mod udp;
mod units;
mod values;
mod walk;

use std::fmt;
use std::path::{Path, PathBuf};

use ddc_kafka::settings::{ClientSettings, Role};
use ddc_wire::LinkId;

pub use common::{Admin, LinkKey, LinkSettings, Log, MemoryItem, Mtu, Seal};
pub use dead_letters::{DeadLetterPlace, DeadLetters};
pub use default_file::default_file;
pub use document::configuration_page;
pub use egress::{EgressConfig, KafkaSink, MissingRecords, Receive, RenameRegex, Sink};
pub use ingress::{Fec, IngressConfig, KafkaSource, Pack, Source};
pub use problem::{ConfigError, Remark};
pub use raw::{
    BadTimestamp, CommitOnStop, Compression, DeliveryMode, FsyncWhen, LateDatagrams, LateRecords, LogFormat,
    LogLevel, LostProgress, OnFailure, PartitionMode, SaslMechanism, SealMode, SecurityProtocol, StartAt,
    SyslogFacility, WhenSpoolFull,
};
pub use schema::schema;
pub use secrets::{Secret, SecretKey};
pub use spool::{SpoolConfig, SpoolSize};
pub use telemetry::Telemetry;
pub use together::{check_together, unused_together};
pub use udp::{Stream, UdpSink, UdpSource};
pub use units::{BitRate, ByteSize, Rate, Span, ValueError};
pub use values::{
    AdminListen, Broker, FecCode, InterfaceName, LinkName, SiteName, StreamName, TopicName, TopicPattern,
};

/// Looks up an environment variable; tests hand in their own.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Which end of a link a file configures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The source side, which sends.
    Ingress,
    /// The destination side, which receives.
    Egress,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// A configuration that can be run.
#[derive(Debug, Clone)]
pub struct Loaded<C> {
    /// The file it came from.
    pub file: PathBuf,
    /// What is configured.
    pub config: C,
    /// What is right but should be known: a translated setting, a link without protection.
    pub notices: Vec<Remark>,
}

/// Either side's configuration.
#[derive(Debug, Clone)]
pub enum Config {
    /// The source side.
    Ingress(IngressConfig),
    /// The destination side.
    Egress(EgressConfig),
}

const NO_SIDE: &str = "an ingress has [source], an egress has [sink]: this file has neither, or both";

/// The largest configuration file that is read.
const LARGEST_FILE: u64 = 1024 * 1024;

/// Loads a file of either side; which one, its `[source]` or `[sink]` says.
pub fn load(file: &Path) -> Result<Loaded<Config>, ConfigError> {
    parse(file, &read(file)?, None, &process_environment)
}

/// Loads an ingress's file; a file of the other side is refused.
pub fn load_ingress(file: &Path) -> Result<Loaded<IngressConfig>, ConfigError> {
    let loaded = parse(file, &read(file)?, Some(Side::Ingress), &process_environment)?;
    match loaded.config {
        Config::Ingress(config) => Ok(Loaded { file: loaded.file, config, notices: loaded.notices }),
        Config::Egress(_) => Err(ConfigError::of_file(file, wrong_side(Side::Ingress))),
    }
}

/// Loads an egress's file; a file of the other side is refused.
pub fn load_egress(file: &Path) -> Result<Loaded<EgressConfig>, ConfigError> {
    let loaded = parse(file, &read(file)?, Some(Side::Egress), &process_environment)?;
    match loaded.config {
        Config::Egress(config) => Ok(Loaded { file: loaded.file, config, notices: loaded.notices }),
        Config::Ingress(_) => Err(ConfigError::of_file(file, wrong_side(Side::Egress))),
    }
}

/// Only where the admin API of a file's link listens: for probes, which must not depend on keys and passwords, and for
/// which the rest of the file has been checked at the start.
pub fn load_admin(file: &Path) -> Result<Admin, ConfigError> {
    let text = read(file)?;
    let failed = |problems| ConfigError { file: file.to_owned(), problems };
    let document = walk::Document::parse(&text).map_err(failed)?;
    let Some(side) = side_of(&document) else {
        return Err(ConfigError::of_file(file, NO_SIDE));
    };
    let raw: raw::RawAdminOnly = document.deserialize().map_err(|remark| failed(vec![remark]))?;
    let mut checker = common::Checker::new(file, &document, &process_environment);
    let admin = common::admin(&raw.admin, side, raw.link.id, &mut checker);
    let (problems, _) = checker.finish();
    if problems.is_empty() { Ok(admin) } else { Err(failed(problems)) }
}

/// Whose state lies where: for commands that read what a link has written, and need neither its keys nor its passwords.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The side that the file is of.
    pub side: Side,
    /// The link's name.
    pub link: LinkName,
    /// Its number.
    pub link_id: LinkId,
    /// `[telemetry] site`.
    pub site: Option<SiteName>,
    /// The state directory; it need not be there.
    pub state_dir: PathBuf,
    /// Whether the link is sealed; what is not sealed writes down nothing of what it received.
    pub sealed: bool,
    /// `[dead_letters] directory`; it need not be there.
    pub dead_letters: Option<PathBuf>,
}

/// Only the [`Place`] that a file speaks of; the rest of the file has been checked at the start.
pub fn load_place(file: &Path) -> Result<Place, ConfigError> {
    let text = read(file)?;
    let failed = |problems| ConfigError { file: file.to_owned(), problems };
    let document = walk::Document::parse(&text).map_err(failed)?;
    let Some(side) = side_of(&document) else {
        return Err(ConfigError::of_file(file, NO_SIDE));
    };
    let raw: raw::RawPlaceOnly = document.deserialize().map_err(|remark| failed(vec![remark]))?;
    let raw::RawPlaceLink { name, id, state_dir, seal } = raw.link;
    let mut checker = common::Checker::new(file, &document, &process_environment);
    let state_dir = common::state_dir(&name, state_dir.as_ref(), &mut checker);
    let directory = raw.dead_letters.and_then(|letters| letters.directory);
    let dead_letters = directory.map(|directory| checker.place("dead_letters", "directory", &directory));
    let (problems, _) = checker.finish();
    if !problems.is_empty() {
        return Err(failed(problems));
    }
    let sealed = seal != SealMode::None;
    Ok(Place {
        side,
        link: name,
        link_id: LinkId(id),
        site: raw.telemetry.site,
        state_dir,
        sealed,
        dead_letters,
    })
}

fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn read(file: &Path) -> Result<String, ConfigError> {
    let refuse = |why: String| Err(ConfigError::of_file(file, why));
    let metadata = match std::fs::metadata(file) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return refuse(
                "no such file; `ddc config --side ingress|egress` prints one to begin with".to_owned(),
            );
        }
        Err(error) => return refuse(format!("cannot be read: {error}")),
    };
    if !metadata.is_file() {
        return refuse("is not a file".to_owned());
    }
    if metadata.len() > LARGEST_FILE {
        return refuse("is larger than 1 MiB, so it is no configuration".to_owned());
    }
    match std::fs::read(file) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(error) => {
                let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = before.split(|byte| *byte == b'\n').count();
                let message = "is not UTF-8 text".to_owned();
                Err(ConfigError {
                    file: file.to_owned(),
                    problems: vec![Remark { line: Some(line), message }],
                })
            }
        },
        Err(error) => refuse(format!("cannot be read: {error}")),
    }
}

/// Parses the text of a file; key and password files are read, `environment` is asked for passwords.
///
/// `file` names the text in messages and is where relative paths start. Without `side` the text says which it is.
pub fn parse(
    file: &Path,
    text: &str,
    side: Option<Side>,
    environment: Environment<'_>,
) -> Result<Loaded<Config>, ConfigError> {
    let failed = |problems| ConfigError { file: file.to_owned(), problems };
    let document = walk::Document::parse(text).map_err(failed)?;
    let found = side_of(&document);
    let Some(actual) = found.or(side) else {
        return Err(ConfigError::of_file(file, NO_SIDE));
    };
    if let Some(wanted) = side.filter(|wanted| *wanted != actual) {
        return Err(ConfigError::of_file(file, wrong_side(wanted)));
    }
    let other = if actual == Side::Ingress { Side::Egress } else { Side::Ingress };
    let mut problems = document.check(&schema(actual), &schema(other));
    problems.extend(one_end(&document, actual));
    if !problems.is_empty() {
        // Values that belong together are only compared when each is right by itself.
        return Err(failed(problems));
    }
    let mut checker = common::Checker::new(file, &document, environment);
    let config = match actual {
        Side::Ingress => document
            .deserialize()
            .map(|raw| ingress::validate(raw, &mut checker).map(|config| Config::Ingress(*config))),
        Side::Egress => document
            .deserialize()
            .map(|raw| egress::validate(raw, &mut checker).map(|config| Config::Egress(*config))),
    };
    let config = config.map_err(|remark| failed(vec![remark]))?;
    let (problems, notices) = checker.finish();
    match config {
        Some(config) if problems.is_empty() => Ok(Loaded { file: file.to_owned(), config, notices }),
        _ => Err(failed(problems)),
    }
}

fn side_of(document: &walk::Document<'_>) -> Option<Side> {
    match (document.has(&["source"]), document.has(&["sink"])) {
        (true, false) => Some(Side::Ingress),
        (false, true) => Some(Side::Egress),
        (true, true) => None,
        // Not finished yet: the link tells as much.
        (false, false) => match (document.has(&["link", "target"]), document.has(&["link", "listen"])) {
            (true, false) => Some(Side::Ingress),
            (false, true) => Some(Side::Egress),
            _ => None,
        },
    }
}

/// What is wrong when not exactly one kind of source, or sink, is there.
fn one_end(document: &walk::Document<'_>, side: Side) -> Option<Remark> {
    let (end, whose, example) = match side {
        Side::Ingress => ("source", "an ingress", "brokers = [\"localhost:9092\"], topics = [\"orders\"]"),
        Side::Egress => ("sink", "an egress", "brokers = [\"localhost:9092\"]"),
    };
    let message = match (document.has(&[end, "kafka"]), document.has(&[end, "udp"])) {
        (true, false) | (false, true) => return None,
        (true, true) => format!(
            "[{end}.kafka] and [{end}.udp] are both there: a link has one {end}; keep one, and give the other a link of its own"
        ),
        (false, false) => format!(
            "no {end}: {whose} has [{end}.kafka] or [{end}.udp]; for example: [{end}.kafka] {example}; or [{end}.udp] streams = {{ syslog = \"127.0.0.1:5141\" }}"
        ),
    };
    Some(Remark { line: document.line(&[end, "udp"]), message })
}

fn wrong_side(wanted: Side) -> String {
    match wanted {
        Side::Ingress => "configures an egress ([sink]); run: ddc egress -c with this file".to_owned(),
        Side::Egress => "configures an ingress ([source]); run: ddc ingress -c with this file".to_owned(),
    }
}

impl Config {
    /// Which side this is.
    pub fn side(&self) -> Side {
        match self {
            Self::Ingress(_) => Side::Ingress,
            Self::Egress(_) => Side::Egress,
        }
    }

    /// What both sides have of a link.
    pub fn link(&self) -> &LinkSettings {
        match self {
            Self::Ingress(config) => &config.link,
            Self::Egress(config) => &config.link,
        }
    }

    /// The admin listener.
    pub fn admin(&self) -> &Admin {
        match self {
            Self::Ingress(config) => &config.admin,
            Self::Egress(config) => &config.admin,
        }
    }

    /// What is logged and how.
    pub fn log(&self) -> Log {
        match self {
            Self::Ingress(config) => config.log,
            Self::Egress(config) => config.log,
        }
    }

    /// Where measurements and messages go.
    pub fn telemetry(&self) -> &Telemetry {
        match self {
            Self::Ingress(config) => &config.telemetry,
            Self::Egress(config) => &config.telemetry,
        }
    }

    /// How the Kafka cluster is reached and what the client is for, if the link reads or writes one.
    pub fn kafka(&self) -> Option<(&ClientSettings, Role)> {
        match self {
            Self::Ingress(config) => config.kafka(),
            Self::Egress(config) => config.kafka(),
        }
    }

    /// Every Kafka client of the link: the table that it is written in, its settings, what it is for.
    pub fn clients(&self) -> Vec<(&'static str, &ClientSettings, Role)> {
        match self {
            Self::Ingress(config) => config.clients(),
            Self::Egress(config) => config.clients(),
        }
    }

    /// Where this side keeps its dead letters.
    pub fn dead_letters(&self) -> Option<&DeadLetters> {
        match self {
            Self::Ingress(config) => config.dead_letters.as_ref(),
            Self::Egress(config) => config.dead_letters.as_ref(),
        }
    }

    /// The memory that this link may use, by purpose.
    pub fn memory(&self) -> Vec<MemoryItem> {
        match self {
            Self::Ingress(config) => config.memory(),
            Self::Egress(config) => config.memory(),
        }
    }
}

#[cfg(test)]
mod tests;
