//! The table `[telemetry]`: where measurements and messages go.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::choices;
use crate::config::values::{Endpoint, SiteName, SyslogTarget};

/// Where measurements and messages go besides the admin listener and standard error: to a collector on this host, such as
/// Vector. A collector that is slow or away never holds up records; what it did not get is counted. When a process runs
/// several links, the first file's `[telemetry]` holds.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(crate) struct RawTelemetry {
    /// The label `site` of everything that is measured: 1 to 63 of `A-Z`, `a-z`, `0-9`, `.`, `_` and `-`, such as `north`. Without it
    /// there is no such label.
    pub(crate) site: Option<SiteName>,
    /// Where metrics are sent each second, as StatsD over UDP, such as `["127.0.0.1:8125"]`; every address gets everything.
    pub(crate) statsd: Vec<Endpoint>,
    /// Where log messages are sent besides standard error, as syslog (RFC 5424), each with its transport, such as
    /// `["udp://127.0.0.1:5140"]`; also `tcp://127.0.0.1:5140`, `unix:///run/vector/ddc-syslog.sock` (a stream) and
    /// `unixgram:///dev/log`, whose daemon must read RFC 5424 there (rsyslog: `SysSock.UseSpecialParser="off"`; the journal
    /// does not: it takes standard error).
    pub(crate) syslog: Vec<SyslogTarget>,
    /// The syslog facility of these messages.
    pub(crate) syslog_facility: SyslogFacility,
}

impl Default for RawTelemetry {
    fn default() -> Self {
        Self { site: None, statsd: Vec::new(), syslog: Vec::new(), syslog_facility: SyslogFacility::Local0 }
    }
}

choices! {
    /// The syslog facility of messages.
    SyslogFacility {
        /// User programs.
        User = "user",
        /// System daemons.
        Daemon = "daemon",
        /// For local use.
        Local0 = "local0",
        /// For local use.
        Local1 = "local1",
        /// For local use.
        Local2 = "local2",
        /// For local use.
        Local3 = "local3",
        /// For local use.
        Local4 = "local4",
        /// For local use.
        Local5 = "local5",
        /// For local use.
        Local6 = "local6",
        /// For local use.
        Local7 = "local7",
    }
}
