//! Where messages go and under which facility: the two values that the configuration gives.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use ::syslog as crate_syslog;

/// The longest path a Unix socket can have: `sun_path` has 108 bytes, the last of which is zero.
const MAX_SOCKET_PATH: usize = 107;

/// A collector, with the transport.
///
/// Addresses are IP addresses: nothing is resolved, so that a name server that is away holds up no log. Whether an address off the
/// machine is wanted is for the configuration to judge.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// `udp://127.0.0.1:5140`: a datagram per message, [`Target::message_limit`] 2 KiB.
    Udp(SocketAddr),
    /// `tcp://127.0.0.1:5140`: octet counting (RFC 6587), connects again by itself.
    Tcp(SocketAddr),
    /// `unix:///run/vector/syslog.sock`: a stream, one line per message, as Vector's `syslog` source with `mode: unix` reads it.
    Unix(PathBuf),
    /// `unixgram:///dev/log`: a datagram per message, as syslog daemons read it.
    UnixDatagram(PathBuf),
}

impl Target {
    /// The most bytes of one message, framing not counted. 2 KiB over UDP: what RFC 5424 §6.1 asks every receiver to take, and at
    /// most two fragments. 8000 elsewhere: rsyslog's default `maxMessageSize` is 8096, and of a longer message over TCP it makes two,
    /// the second of which is empty.
    pub fn message_limit(&self) -> usize {
        match self {
            Self::Udp(_) => 2048,
            Self::Tcp(_) | Self::Unix(_) | Self::UnixDatagram(_) => 8000,
        }
    }
}

/// Not a [`Target`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "syslog target {text:?}: {why}; write for example \"udp://127.0.0.1:5140\", \"tcp://127.0.0.1:5140\", \"unix:///run/vector/syslog.sock\" or \"unixgram:///dev/log\""
)]
pub struct TargetError {
    text: String,
    why: &'static str,
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let parsed = match text.split_once("://") {
            None => Err("it has no transport before `://`"),
            Some(("udp", rest)) => address(rest).map(Self::Udp),
            Some(("tcp", rest)) => address(rest).map(Self::Tcp),
            Some(("unix", rest)) => path(rest).map(Self::Unix),
            Some(("unixgram", rest)) => path(rest).map(Self::UnixDatagram),
            Some(_) => Err("the transport is none of udp, tcp, unix, unixgram"),
        };
        parsed.map_err(|why| TargetError { text: text.to_owned(), why })
    }
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    let address: SocketAddr =
        text.parse().map_err(|_| "it needs an IP address and a port; names are not resolved")?;
    match address {
        address if address.port() == 0 => Err("port 0 is no port to send to"),
        address if address.ip().is_unspecified() => Err("the address names no host"),
        address => Ok(address),
    }
}

fn path(text: &str) -> Result<PathBuf, &'static str> {
    match text {
        text if !text.starts_with('/') => Err("it needs an absolute path: three slashes"),
        text if text.contains(char::is_control) => Err("the path has a control character"),
        text if text.len() > MAX_SOCKET_PATH => {
            Err("the path is longer than the 107 bytes of a socket's path")
        }
        text => Ok(PathBuf::from(text)),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => write!(f, "udp://{address}"),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::UnixDatagram(path) => write!(f, "unixgram://{}", path.display()),
        }
    }
}

/// The facility of every message. Only those that fit a service; `local0` unless the configuration says otherwise.
#[derive(Clone, Copy)]
pub struct Facility(pub(super) crate_syslog::Facility);

/// The facilities by name.
const FACILITIES: [(&str, crate_syslog::Facility); 10] = [
    ("user", crate_syslog::Facility::LOG_USER),
    ("daemon", crate_syslog::Facility::LOG_DAEMON),
    ("local0", crate_syslog::Facility::LOG_LOCAL0),
    ("local1", crate_syslog::Facility::LOG_LOCAL1),
    ("local2", crate_syslog::Facility::LOG_LOCAL2),
    ("local3", crate_syslog::Facility::LOG_LOCAL3),
    ("local4", crate_syslog::Facility::LOG_LOCAL4),
    ("local5", crate_syslog::Facility::LOG_LOCAL5),
    ("local6", crate_syslog::Facility::LOG_LOCAL6),
    ("local7", crate_syslog::Facility::LOG_LOCAL7),
];

/// Not a [`Facility`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("syslog facility {0:?} is not known; use user, daemon or local0 to local7, for example \"local0\"")]
pub struct FacilityError(String);

impl FromStr for Facility {
    type Err = FacilityError;

    fn from_str(text: &str) -> Result<Self, FacilityError> {
        let known = FACILITIES.iter().find(|(name, _)| *name == text);
        known.map(|(_, facility)| Self(*facility)).ok_or_else(|| FacilityError(text.to_owned()))
    }
}

impl Default for Facility {
    fn default() -> Self {
        Self(crate_syslog::Facility::LOG_LOCAL0)
    }
}

impl PartialEq for Facility {
    fn eq(&self, other: &Self) -> bool {
        self.0 as u8 == other.0 as u8
    }
}

impl Eq for Facility {}

impl fmt::Display for Facility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Made only from the table and the default, which is in it.
        let name = FACILITIES.iter().find(|(_, facility)| *facility as u8 == self.0 as u8);
        f.write_str(name.map_or("local0", |(name, _)| name))
    }
}

impl fmt::Debug for Facility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_written_as_they_are_read() {
        for text in [
            "udp://127.0.0.1:5140",
            "udp://[::1]:5140",
            "tcp://198.18.0.9:601",
            "unix:///run/vector/syslog.sock",
            "unixgram:///dev/log",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        let longest = format!("unix:///{}", "x".repeat(106));
        assert_eq!(longest.parse::<Target>().unwrap().to_string(), longest);
    }

    #[test]
    fn what_is_no_target_is_quoted_with_the_reason_and_an_example() {
        let long = format!("unixgram:///{}", "x".repeat(107));
        for (wrong, why) in [
            ("", "no transport"),
            ("/dev/log", "no transport"),
            ("tls://127.0.0.1:1", "none of udp, tcp, unix, unixgram"),
            ("UDP://127.0.0.1:1", "none of udp, tcp, unix, unixgram"),
            ("udp://localhost:514", "names are not resolved"),
            ("udp://127.0.0.1", "an IP address and a port"),
            ("udp://127.0.0.1:5140/", "an IP address and a port"),
            ("udp://127.0.0.1:0", "port 0"),
            ("tcp://0.0.0.0:514", "names no host"),
            ("tcp://[::]:514", "names no host"),
            ("unix://run/x", "three slashes"),
            ("unixgram://", "three slashes"),
            ("unix:///a\nb", "control character"),
            ("unix:///a\0b", "control character"),
            (long.as_str(), "107 bytes"),
        ] {
            let error = wrong.parse::<Target>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("syslog target {wrong:?}: ")), "{error}");
            assert!(error.contains(why) && error.contains("for example \"udp://127.0.0.1:5140\""), "{error}");
        }
    }

    #[test]
    fn facilities_are_written_as_they_are_read() {
        for (name, _) in FACILITIES {
            assert_eq!(name.parse::<Facility>().unwrap().to_string(), name);
        }
        assert_eq!(Facility::default(), "local0".parse().unwrap());
        assert_ne!(Facility::default(), "local1".parse().unwrap());
        for wrong in ["", "kern", "LOCAL0", "local8", "16"] {
            let error = wrong.parse::<Facility>().unwrap_err().to_string();
            assert!(error.contains(&format!("{wrong:?}")) && error.contains("local0"), "{error}");
        }
    }
}
