//! Which listeners to ask: addresses as people write them, configuration files, or the default ports of this host.

use std::path::{Path, PathBuf};

use ddc_proxy::config;

use super::clean::clean;
use super::page::MAX_LINKS;
use crate::exit::{Exit, Failure};

/// Listeners that one `ddc top` asks. One listener of a process is enough: its page has all links of the process.
pub(super) const MAX_TARGETS: usize = 2 * MAX_LINKS;
/// The default ports of admin listeners, ingress and egress.
const DEFAULT_PORTS: std::ops::Range<u16> = 9640..9680;

/// A listener to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) place: Place,
    /// How it is shown.
    pub(super) name: String,
    /// Nobody named it: it is shown only once it has answered.
    pub(super) guessed: bool,
}

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// `host:port`, as it stands in a URL.
    Tcp(String),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Target {
    fn new(place: Place, guessed: bool) -> Self {
        let name = match &place {
            Place::Tcp(authority) => clean(authority, 100),
            Place::Unix(path) => clean(&format!("unix:{}", path.display()), 120),
        };
        Self { place, name, guessed }
    }
}

/// What the arguments name; the default ports when they name nothing.
pub(super) fn targets(files: &[PathBuf], addresses: &[String]) -> Result<Vec<Target>, Failure> {
    let mut targets = Vec::new();
    let mut wrong = Vec::new();
    for address in addresses {
        match parse(address) {
            Ok(place) => targets.push(Target::new(place, false)),
            Err(why) => wrong.push(format!("`{}`: {why}", clean(address, 200))),
        }
    }
    if !wrong.is_empty() {
        return Err(Failure { exit: Exit::Usage, lines: wrong });
    }
    for file in files {
        targets.push(Target::new(of_file(file)?, false));
    }
    if targets.is_empty() {
        let guess = |port| Target::new(Place::Tcp(format!("127.0.0.1:{port}")), true);
        return Ok(DEFAULT_PORTS.map(guess).collect());
    }
    // Asked twice, a listener would be taken for two.
    let mut once: Vec<Target> = Vec::new();
    for target in targets {
        if !once.contains(&target) {
            once.push(target);
        }
    }
    if once.len() > MAX_TARGETS {
        let line = format!("{} listeners are named, {MAX_TARGETS} at most are asked", once.len());
        return Err(Failure::new(Exit::Usage, line));
    }
    Ok(once)
}

/// `host:port`, `http://host:port`, `unix:/path` or `/path`.
fn parse(text: &str) -> Result<Place, String> {
    if let Some(path) = text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text)) {
        let path = path.strip_prefix("//").unwrap_or(path);
        if !path.starts_with('/') || path.len() > 107 {
            return Err(
                "a Unix socket has an absolute path of at most 107 bytes: unix:/run/ddc/plant-a.sock".into(),
            );
        }
        return Ok(Place::Unix(PathBuf::from(path)));
    }
    if text.starts_with("https:") {
        return Err(
            "an admin listener speaks plain HTTP on loopback or a Unix socket; from afar go through ssh -L"
                .into(),
        );
    }
    let expected = "expected host:port, http://host:port or unix:/path, such as 127.0.0.1:9641";
    let rest = text.strip_prefix("http://").unwrap_or(text);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = rest.rsplit_once(':').ok_or(expected)?;
    if port.parse::<u16>().ok().is_none_or(|port| port == 0) {
        return Err(expected.into());
    }
    let url = reqwest::Url::parse(&format!("http://{rest}/")).map_err(|_| expected)?;
    let plain = url.username().is_empty() && url.password().is_none() && url.path() == "/";
    if host.is_empty() || !plain || url.query().is_some() || url.fragment().is_some() {
        return Err(expected.into());
    }
    Ok(Place::Tcp(rest.to_owned()))
}

/// The admin address of a configuration file.
fn of_file(file: &Path) -> Result<Place, Failure> {
    let loaded = config::load(file).map_err(|error| Failure { exit: Exit::Config, lines: error.lines() })?;
    let admin = loaded.config.admin();
    match (admin.listen, &admin.socket) {
        (Some(address), _) if address.port() != 0 => Ok(Place::Tcp(address.to_string())),
        (_, Some(path)) => Ok(Place::Unix(path.clone())),
        _ => Err(Failure::new(
            Exit::Config,
            format!(
                "{}: its [admin] has no fixed port and no socket; name the address instead",
                file.display()
            ),
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails should panic")]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_people_write_them() {
        for (text, place) in [
            ("127.0.0.1:9641", Place::Tcp("127.0.0.1:9641".into())),
            ("http://plant.example:9641/", Place::Tcp("plant.example:9641".into())),
            ("[::1]:9641", Place::Tcp("[::1]:9641".into())),
            ("unix:/run/ddc/a.sock", Place::Unix("/run/ddc/a.sock".into())),
            ("unix:///run/ddc/a.sock", Place::Unix("/run/ddc/a.sock".into())),
            ("/run/ddc/a.sock", Place::Unix("/run/ddc/a.sock".into())),
        ] {
            assert_eq!(parse(text), Ok(place), "{text}");
        }
        for text in [
            "",
            "9641",
            ":9641",
            "host",
            "host:0",
            "host:65536",
            "host:x",
            "http://h:1/metrics",
            "u:p@h:1",
            "h:1?x",
            "https://h:1",
            "unix:a.sock",
            "ftp://h:1",
            "[::1:9641",
            "h h:1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("https://h:1").unwrap_err().contains("plain HTTP"));
    }

    #[test]
    fn nothing_named_is_every_default_port_and_nothing_twice() {
        let guessed = targets(&[], &[]).unwrap();
        assert_eq!((guessed.len(), guessed[0].name.as_str()), (40, "127.0.0.1:9640"));
        assert!(guessed.iter().all(|target| target.guessed));
        let named = targets(&[], &["127.0.0.1:1".into(), "http://127.0.0.1:1".into()]).unwrap();
        assert_eq!(named.len(), 1);
        assert!(!named[0].guessed);
        let wrong = targets(&[], &["a".into(), "b\u{1b}".into()]).unwrap_err();
        assert_eq!((wrong.exit, wrong.lines.len()), (Exit::Usage, 2));
        assert!(!wrong.lines[1].contains('\u{1b}'));
    }
}
