//! Where measurements and messages go, checked: `[telemetry]` of either side.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

use ddc_telemetry::syslog::Target;

use super::common::Checker;
use super::raw::{RawTelemetry, SyslogFacility};
use super::values::SiteName;

/// The most targets of one kind: each costs a copy of everything.
const MOST_TARGETS: usize = 8;

/// Where measurements and messages go besides the admin listener and standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// The label `site` of every series and message.
    pub site: Option<SiteName>,
    /// Where StatsD lines go; every address gets all of them.
    pub statsd: Vec<SocketAddr>,
    /// Where log messages go besides standard error.
    pub syslog: Vec<Target>,
    /// The facility of these messages.
    pub facility: SyslogFacility,
}

impl Telemetry {
    /// Whether anything is said at all: a file without `[telemetry]` says nothing.
    pub fn is_default(&self) -> bool {
        self.site.is_none()
            && self.statsd.is_empty()
            && self.syslog.is_empty()
            && self.facility == SyslogFacility::Local0
    }
}

pub(crate) fn telemetry(raw: RawTelemetry, checker: &mut Checker<'_>) -> Telemetry {
    let RawTelemetry { site, statsd, syslog, syslog_facility } = raw;
    let statsd: Vec<SocketAddr> = statsd.into_iter().map(|endpoint| endpoint.0).collect();
    let syslog: Vec<Target> = syslog.into_iter().map(|target| target.0).collect();
    targets(checker, "statsd", &statsd);
    targets(checker, "syslog", &syslog);
    for (number, address) in statsd.iter().enumerate() {
        address_of_target(checker, "statsd", number, *address);
    }
    for (number, target) in syslog.iter().enumerate() {
        if let Target::Udp(address) | Target::Tcp(address) = target {
            address_of_target(checker, "syslog", number, *address);
        }
    }
    if syslog.is_empty() && syslog_facility != SyslogFacility::Local0 {
        checker.notice(
            &["telemetry", "syslog_facility"],
            "syslog_facility is not used: there is no target in `syslog`",
        );
    }
    Telemetry { site, statsd, syslog, facility: syslog_facility }
}

fn targets<T: fmt::Display>(checker: &mut Checker<'_>, key: &str, targets: &[T]) {
    if targets.len() > MOST_TARGETS {
        let message = format!(
            "`{key}` in [telemetry]: {} targets; at most {MOST_TARGETS}, let a collector pass it on",
            targets.len()
        );
        checker.problem(&["telemetry", key], message);
    }
    let mut seen = BTreeSet::new();
    for (number, target) in targets.iter().map(ToString::to_string).enumerate() {
        if seen.contains(&target) {
            let message =
                format!("`{key}` in [telemetry]: {target} is there twice and would get everything twice");
            checker.problem(&["telemetry", key, &number.to_string()], message);
        }
        seen.insert(target);
    }
}

fn address_of_target(checker: &mut Checker<'_>, key: &str, number: usize, address: SocketAddr) {
    let path = ["telemetry", key, &number.to_string()];
    if address.ip().is_unspecified() {
        let message = format!(
            "`{key}` in [telemetry]: {address} names no host; for a collector on this host \"127.0.0.1:{}\"",
            address.port()
        );
        checker.problem(&path, message);
    } else if !address.ip().is_loopback() {
        let message = format!(
            "{key} target {address} is not on this host: what is sent there is neither encrypted nor authenticated; better send it to a collector on loopback that passes it on with TLS"
        );
        checker.notice(&path, message);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, Environment, Loaded, parse, unused_together};
    use super::*;

    const INGRESS: &str = "[link]\nname = \"a\"\nid = 1\nseal = \"none\"\ntarget = \"198.18.0.2:7401\"\n\
        [source.kafka]\nbrokers = [\"localhost:9092\"]\ntopics = [\"orders\"]\n[telemetry]\n";

    fn load(file: &str, lines: &str) -> Result<Loaded<Config>, String> {
        let nothing: Environment<'_> = &|_| None;
        parse(Path::new(file), &format!("{INGRESS}{lines}\n"), None, nothing).map_err(|e| e.to_string())
    }

    fn refused(lines: &str) -> String {
        load("f", lines).map_or_else(|error| error, |_| panic!("{lines} was taken"))
    }

    fn notices(lines: &str) -> Vec<String> {
        let notices = load("f", lines).unwrap().notices;
        notices.into_iter().map(|n| n.message).filter(|n| !n.starts_with("seal")).collect()
    }

    #[test]
    fn what_is_written_is_what_holds() {
        let lines = "site = \"north.1_a-B\"\nstatsd = [\"127.0.0.1:8125\", \"[::1]:8126\"]\nsyslog_facility = \"local7\"\n\
            syslog = [\"unixgram:///dev/log\", \"unix:///run/v.sock\", \"udp://127.0.0.1:5140\", \"tcp://[::1]:5140\"]";
        let loaded = load("f", lines).unwrap();
        let telemetry = loaded.config.telemetry();
        assert_eq!(telemetry.site.as_ref().map(SiteName::as_str), Some("north.1_a-B"));
        assert_eq!(telemetry.statsd.len(), 2);
        let written: Vec<String> = telemetry.syslog.iter().map(ToString::to_string).collect();
        assert_eq!(
            written,
            ["unixgram:///dev/log", "unix:///run/v.sock", "udp://127.0.0.1:5140", "tcp://[::1]:5140"]
        );
        assert_eq!(telemetry.facility, SyslogFacility::Local7);
        assert!(notices(lines).is_empty(), "loopback needs no warning");
        assert!(load("f", "").unwrap().config.telemetry().is_default());
    }

    /// What would break a StatsD line, a label or a syslog message is refused, and the reason is said.
    #[test]
    fn a_label_value_that_needs_escaping_is_refused_by_its_character() {
        for (site, why) in [
            ("a,b", "has ',', which separates values and tags in StatsD"),
            ("a:b", "has ':', which separates"),
            ("a|b", "has '|', which separates"),
            ("a#b", "has '#', which separates"),
            ("a\\nb", "has '\\n', which ends a line"),
            ("a\\u0000", "has '\\0', which ends a line"),
            ("a\\\"b", "has '\"', which ends or escapes"),
            ("a]b", "has ']', which ends or escapes"),
            ("a b", "has ' '; 1 to 63"),
            ("nørd", "has 'ø'; 1 to 63"),
            ("", "must have 1 to 63 characters"),
        ] {
            let said = refused(&format!("site = \"{site}\""));
            assert!(said.contains(why) && said.starts_with("f:10: `site` in [telemetry]"), "{site}: {said}");
        }
        assert!(refused(&format!("site = \"{}\"", "x".repeat(64))).contains("1 to 63 characters"));
    }

    #[test]
    fn targets_that_cannot_be_reached_are_refused() {
        for (lines, why) in [
            ("statsd = [\"localhost:8125\"]", "names are not resolved"),
            ("statsd = [\"127.0.0.1\"]", "has no port"),
            ("statsd = [\"0.0.0.0:8125\"]", "names no host; for a collector on this host \"127.0.0.1:8125\""),
            ("statsd = \"127.0.0.1:8125\"", "must be a list"),
            ("statsd = [\"127.0.0.1:1\", \"127.0.0.1:1\"]", "would get everything twice"),
            ("syslog = [\"/dev/log\"]", "it has no transport"),
            ("syslog = [\"unix://dev/log\"]", "it needs an absolute path"),
            ("syslog = [\"tls://127.0.0.1:1\"]", "none of udp, tcp, unix, unixgram"),
            ("syslog = [\"udp://127.0.0.1\"]", "it needs an IP address and a port"),
            ("syslog = [\"tcp://[::]:514\"]", "names no host"),
            ("syslog_facility = \"local9\"", "did you mean"),
            ("statd = []", "did you mean `statsd`?"),
        ] {
            let said = refused(lines);
            assert!(said.contains(why), "{lines}: {said}");
        }
        let nine: Vec<String> = (1..=9).map(|port| format!("\"127.0.0.1:{port}\"")).collect();
        assert!(refused(&format!("statsd = [{}]", nine.join(", "))).contains("9 targets; at most 8"));
        let long = format!("syslog = [\"unixgram:///{}\"]", "x".repeat(107));
        assert!(refused(&long).contains("107 bytes"), "{}", refused(&long));
    }

    #[test]
    fn a_target_on_another_host_is_a_notice() {
        for lines in ["statsd = [\"198.18.0.9:8125\"]", "syslog = [\"tcp://198.18.0.9:514\"]"] {
            let notices = notices(lines);
            assert!(notices.len() == 1 && notices[0].contains("neither encrypted"), "{notices:?}");
        }
        assert!(notices("syslog_facility = \"user\"")[0].contains("is not used"));
    }

    #[test]
    fn the_first_files_table_holds_and_another_one_is_told() {
        let all =
            |second: &str| [load("a.toml", "site = \"north\"").unwrap(), load("b.toml", second).unwrap()];
        assert!(unused_together(&all("site = \"north\"")).is_empty());
        assert!(unused_together(&all("")).is_empty(), "a file without the table agrees");
        let told = unused_together(&all("site = \"south\""));
        assert!(
            told.len() == 1 && told[0].starts_with("b.toml: [telemetry] differs from that of a.toml"),
            "{told:?}"
        );
    }
}
