//! The single values of a configuration: names, addresses, codes, patterns.
//!
//! Every type reads itself from text and writes itself back; serde and the JSON Schema use the same two functions, so
//! there is one definition of what is right. [`check`] finds the reader of a value by the format name that the schema
//! carries: that is how all wrong values of a file are named at once, not only the first.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use ddc_telemetry::syslog::{Target, TargetError};

use super::paths;
use super::units::{ByteSize, Rate, Span, ValueError};

/// Gives a type that has `FromStr` and `Display` its serde and JSON Schema sides, and lists it in [`FORMATS`].
macro_rules! text_values {
    ($($type:ty = $format:literal, $label:literal;)*) => {
        /// A value type: the name of its format in the schema, what people call it, and its reader.
        pub(crate) const FORMATS: &[(&str, &str, fn(&str) -> Result<(), ValueError>)] =
            &[$(($format, $label, |text| text.parse::<$type>().map(drop))),*];

        $(
            impl serde::Serialize for $type {
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.collect_str(self)
                }
            }

            impl<'de> serde::Deserialize<'de> for $type {
                fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    <String as serde::Deserialize>::deserialize(deserializer)?
                        .parse()
                        .map_err(serde::de::Error::custom)
                }
            }

            impl schemars::JsonSchema for $type {
                fn inline_schema() -> bool {
                    true
                }

                fn schema_name() -> std::borrow::Cow<'static, str> {
                    $format.into()
                }

                fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                    schemars::json_schema!({ "type": "string", "format": $format })
                }
            }
        )*
    };
}

text_values! {
    Span = "duration-text", "duration";
    ByteSize = "byte-size", "size";
    Rate = "bit-rate", "rate";
    LinkName = "link-name", "name";
    Endpoint = "endpoint", "address:port";
    Address = "ip-address", "IP address";
    InterfaceName = "interface-name", "interface";
    FilePath = "file-path", "path";
    FecCode = "fec-code", "FEC code";
    Broker = "broker", "host:port";
    TopicName = "topic-name", "topic";
    TopicPattern = "topic-pattern", "topic or ^pattern";
    TopicPrefix = "topic-prefix", "text";
    Pattern = "pattern", "regular expression";
    AdminListen = "admin-listen", "address:port or \"none\"";
    SiteName = "site-name", "name";
    SyslogTarget = "syslog-target", "transport://address";
}

/// Whether `text` is right for the schema format `format`; a format that is not ours is always right.
pub(crate) fn check(format: &str, text: &str) -> Result<(), ValueError> {
    FORMATS.iter().find(|(name, ..)| *name == format).map_or(Ok(()), |(_, _, read)| read(text))
}

/// What people call a value of the schema format `format`.
pub(crate) fn label(format: &str) -> Option<&'static str> {
    FORMATS.iter().find(|(name, ..)| *name == format).map(|(_, label, _)| *label)
}

/// `Display` and access for a newtype around text.
macro_rules! text_newtype {
    ($type:ident) => {
        impl $type {
            /// The text as it was written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// A link's label in logs, metrics and defaults: 1 to 63 of `a-z`, `0-9`, `-`, not `-` at either end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LinkName(String);
text_newtype!(LinkName);

impl FromStr for LinkName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let right = (1..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        right.then(|| Self(text.to_owned())).ok_or_else(|| {
            ValueError::new(format!(
                "{text:?} is no name: 1 to 63 of a-z, 0-9 and -, not at the ends; for example \"plant-a\""
            ))
        })
    }
}

/// The name of a stream of datagrams, as [`LinkName`]: so it is a topic's name and a label value without escapes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName(String);
text_newtype!(StreamName);

impl FromStr for StreamName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        text.parse::<LinkName>().map(|name| Self(name.0)).map_err(|_| {
            ValueError::new(format!(
                "{text:?} is no stream's name: 1 to 63 of a-z, 0-9 and -, not at the ends; for example \"syslog\""
            ))
        })
    }
}

/// The label `site`: 1 to 63 of `A-Z`, `a-z`, `0-9`, `.`, `_`, `-`.
///
/// It stands in StatsD tags, Prometheus labels and syslog's structured data: what has a meaning in any of them is
/// refused here, by name, so that none of them has to escape it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SiteName(String);
text_newtype!(SiteName);

impl FromStr for SiteName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let why = match text.chars().find(|c| !right(*c)) {
            None if (1..=63).contains(&text.len()) => return Ok(Self(text.to_owned())),
            None => "must have 1 to 63 characters".to_owned(),
            Some(c @ (',' | ':' | '|' | '#' | '@')) => {
                format!("has {c:?}, which separates values and tags in StatsD")
            }
            Some(c @ ('"' | '\\' | ']' | '=')) => {
                format!("has {c:?}, which ends or escapes a value in labels and structured data")
            }
            Some(c) if c.is_control() => format!("has {c:?}, which ends a line or a message"),
            Some(c) => format!("has {c:?}"),
        };
        Err(ValueError::new(format!(
            "{text:?} is no label value: it {why}; 1 to 63 of A-Z, a-z, 0-9, '.', '_' and '-'; for example \"north\""
        )))
    }
}

/// Where syslog messages go, with the transport; what is right is said in [`ddc_telemetry::syslog`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyslogTarget(pub(crate) Target);

impl FromStr for SyslogTarget {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        text.parse().map(Self).map_err(|error: TargetError| ValueError::new(error.to_string()))
    }
}

impl fmt::Display for SyslogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An IP address and a port. Names are not taken: an address that can change has no place on a one-way path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Endpoint(pub(crate) SocketAddr);

impl FromStr for Endpoint {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let why = match text.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 => return Ok(Self(address)),
            Ok(_) => "has port 0; write the port, for example \"198.18.0.2:7401\"",
            Err(_) if text.parse::<IpAddr>().is_ok() => {
                "has no port; for example \"198.18.0.2:7401\" or \"[2001:db8::2]:7401\""
            }
            Err(_) => {
                "is no IP address with a port (names are not resolved); for example \"198.18.0.2:7401\" or \"[2001:db8::2]:7401\""
            }
        };
        Err(ValueError::new(format!("{text:?} {why}")))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An IP address without a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Address(pub(crate) IpAddr);

impl FromStr for Address {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        text.parse().map(Self).map_err(|_| {
            let why = if text.parse::<SocketAddr>().is_ok() {
                "has a port; leave it out"
            } else {
                "is no IP address"
            };
            ValueError::new(format!("{text:?} {why}; for example \"198.18.0.1\""))
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where the admin API listens on TCP: an address, or nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AdminListen {
    /// Not on TCP; a Unix socket may still be configured.
    None,
    /// On this address.
    Tcp(SocketAddr),
}

impl FromStr for AdminListen {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "none" {
            Ok(Self::None)
        } else {
            text.parse::<Endpoint>().map(|endpoint| Self::Tcp(endpoint.0))
        }
    }
}

impl fmt::Display for AdminListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

/// The name of a network interface, as the kernel limits it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceName(String);
text_newtype!(InterfaceName);

impl FromStr for InterfaceName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let right = (1..=15).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':')
            && !matches!(text, "." | "..");
        right.then(|| Self(text.to_owned())).ok_or_else(|| {
            ValueError::new(format!(
                "{text:?} is no interface name (1 to 15 characters); for example \"eth1\""
            ))
        })
    }
}

/// A path as it is written; [`super::paths`] says where it leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct FilePath(pub(crate) PathBuf);

impl FromStr for FilePath {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.is_empty() || text.contains('\0') {
            return Err(ValueError::new(format!(
                "{text:?} is no path; for example \"/etc/ddc/keys/plant-a.key\""
            )));
        }
        paths::check(text)?;
        Ok(Self(PathBuf::from(text)))
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// Source symbols and repair symbols of a full block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FecCode {
    /// k: source symbols in a full block, 1 to 128.
    pub source: u8,
    /// r: repair symbols of a full block, 0 to 127. 0 repairs nothing.
    pub repair: u8,
}

impl FromStr for FecCode {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = || {
            ValueError::new(format!(
                "{text:?} is no FEC code: source symbols (1 to 128) + repair symbols (0 to 127); for example \"64+8\""
            ))
        };
        let (source, repair) = text.split_once('+').ok_or_else(wrong)?;
        let number = |part: &str| -> Result<u8, ValueError> {
            if !part.bytes().all(|b| b.is_ascii_digit()) {
                return Err(wrong());
            }
            part.parse().map_err(|_| wrong())
        };
        let (source, repair) = (number(source.trim())?, number(repair.trim())?);
        if (1..=128).contains(&source) && repair <= 127 { Ok(Self { source, repair }) } else { Err(wrong()) }
    }
}

impl fmt::Display for FecCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.source, self.repair)
    }
}

/// A Kafka broker as `host:port`; the port is 9092 when it is left out, as with every Kafka client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker(String);
text_newtype!(Broker);

impl FromStr for Broker {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong =
            |why: &str| ValueError::new(format!("{text:?} {why}; for example \"kafka-1.example.com:9092\""));
        if text.contains(',') {
            return Err(wrong("holds several brokers; write each as its own text in the list"));
        }
        if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(wrong("is no broker"));
        }
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None => text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        if host.is_empty() {
            return Err(wrong("has no host"));
        }
        match port.map_or(Ok(9092), str::parse::<u16>) {
            Ok(port) if port != 0 => Ok(Self(text.to_owned())),
            _ => Err(wrong("has a wrong port")),
        }
    }
}

/// A Kafka topic's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicName(String);
text_newtype!(TopicName);

/// Kafka's rule for what a topic may be called.
fn is_topic_text(text: &str) -> bool {
    text.len() <= 249 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

impl FromStr for TopicName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.is_empty() || !is_topic_text(text) || matches!(text, "." | "..") {
            return Err(ValueError::new(format!(
                "{text:?} is no topic: 1 to 249 of a-z, A-Z, 0-9, . _ and -; for example \"orders\""
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

/// What is put before a topic's name: the characters of a topic, may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicPrefix(String);
text_newtype!(TopicPrefix);

impl FromStr for TopicPrefix {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if !is_topic_text(text) {
            return Err(ValueError::new(format!(
                "{text:?} is no prefix of a topic: only a-z, A-Z, 0-9, . _ and -; for example \"plant-a.\""
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A topic's name, or a regular expression that begins with `^`, as librdkafka's subscription takes both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPattern(String);
text_newtype!(TopicPattern);

impl TopicPattern {
    /// Whether this is a regular expression.
    pub fn is_pattern(&self) -> bool {
        self.0.starts_with('^')
    }
}

impl FromStr for TopicPattern {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if !text.starts_with('^') {
            return match text.parse::<TopicName>() {
                Ok(_) => Ok(Self(text.to_owned())),
                Err(error) if text.contains(['*', '[', '(', '\\', '$', '+', '|']) => Err(ValueError::new(
                    format!("{error}; a pattern begins with ^, for example \"^audit\\\\..*\""),
                )),
                Err(error) => Err(error),
            };
        }
        // librdkafka matches with POSIX extended expressions; these would be taken literally or refused by the broker client.
        for foreign in ["\\d", "\\D", "(?", "*?", "+?"] {
            if text.contains(foreign) {
                return Err(ValueError::new(format!(
                    "{text:?}: {foreign} is not known to Kafka's (POSIX) patterns; write [0-9] for a digit"
                )));
            }
        }
        text.parse::<Pattern>().map(|pattern| Self(pattern.0))
    }
}

/// A regular expression in the syntax of Rust's `regex` crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(String);

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Pattern {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match regex::Regex::new(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => {
                // The crate's message is a drawing over several lines; its last line says what is wrong.
                let drawing = error.to_string();
                let why = drawing.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                Err(ValueError::new(format!("{text:?} is no regular expression: {why}")))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;

    /// What the reader of `format` says about each text; empty when it is right.
    fn said(format: &str, text: &str) -> String {
        check(format, text).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn right_values_are_taken_and_written_back() {
        for (format, text) in [
            ("link-name", "plant-a"),
            ("link-name", "7"),
            ("endpoint", "198.18.0.2:7401"),
            ("endpoint", "[2001:db8::2]:7401"),
            ("ip-address", "ff02::1"),
            ("interface-name", "enp3s0.100"),
            ("fec-code", "128+127"),
            ("fec-code", "1+0"),
            ("broker", "kafka"),
            ("broker", "kafka:9092"),
            ("broker", "[::1]:9092"),
            ("topic-pattern", "orders"),
            ("topic-pattern", "^audit\\..*"),
            ("topic-prefix", ""),
            ("admin-listen", "none"),
        ] {
            assert_eq!(said(format, text), "", "{format} {text}");
        }
        assert_eq!("64 + 8".parse::<FecCode>().unwrap().to_string(), "64+8");
    }

    #[test]
    fn every_wrong_value_is_quoted_and_corrected() {
        let table = [
            ("link-name", "Plant A"),
            ("link-name", ""),
            ("link-name", "-a"),
            ("endpoint", "198.18.0.2"),
            ("endpoint", "diode.example.com:7401"),
            ("endpoint", "198.18.0.2:0"),
            ("endpoint", "198.18.0.2:70000"),
            ("ip-address", "198.18.0.1:7401"),
            ("ip-address", "eth0"),
            ("interface-name", "a-name-that-is-too-long"),
            ("fec-code", "64"),
            ("fec-code", "64+128"),
            ("fec-code", "0+8"),
            ("fec-code", "+64+8"),
            ("broker", "a:9092,b:9092"),
            ("broker", "kafka://a:9092"),
            ("broker", "a:port"),
            ("broker", ":9092"),
            ("topic-name", "a/b"),
            ("topic-pattern", "audit.*"),
            ("topic-pattern", "^audit(.*"),
            ("topic-pattern", "^audit-\\d+"),
            ("topic-prefix", "plant a/"),
            ("file-path", ""),
            ("admin-listen", "localhost:9641"),
        ];
        let said: Vec<String> =
            table.iter().map(|(format, text)| format!("{format}: {}", said(format, text))).collect();
        insta::assert_snapshot!(said.join("\n"));
    }
}
