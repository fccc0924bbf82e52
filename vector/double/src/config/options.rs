//! Every option of every component that our files use, as Vector 0.43 documents them; whatever is not here is an error.
//!
//! Options that are newer than 0.43 are left out on purpose: the files must load there.

mod sinks;

use super::shape::{Field, Shape, optional, required};

const COUNT: Shape = Shape::Integer(0, i64::MAX);
pub(super) const POSITIVE: Shape = Shape::Integer(1, i64::MAX);
const PATTERNS: Shape = Shape::Object(&[
    optional("includes", Shape::List(&Shape::Text)),
    optional("excludes", Shape::List(&Shape::Text)),
]);
pub(super) const TLS: Shape = Shape::Object(&[
    optional("enabled", Shape::Bool),
    optional("crt_file", Shape::Text),
    optional("key_file", Shape::Text),
    optional("key_pass", Shape::Text),
    optional("ca_file", Shape::Text),
    optional("verify_certificate", Shape::Bool),
    optional("verify_hostname", Shape::Bool),
    optional("server_name", Shape::Text),
    optional("alpn_protocols", Shape::List(&Shape::Text)),
]);
pub(super) const INPUTS: Field = required("inputs", Shape::List(&Shape::Text));

/// The top level of a file.
pub const TOP: &[Field] = &[
    optional(
        "api",
        Shape::Object(&[
            optional("enabled", Shape::Bool),
            optional("address", Shape::Listen),
            // Gone in later versions: leave it out.
            optional("playground", Shape::Bool),
        ]),
    ),
    optional("data_dir", Shape::Text),
    optional("timezone", Shape::OneOf(&["UTC", "local"])),
    optional("sources", Shape::Any),
    optional("transforms", Shape::Any),
    optional("sinks", Shape::Any),
    optional("tests", Shape::List(&TEST)),
];

const TEST: Shape = Shape::Object(&[
    required("name", Shape::Text),
    required(
        "inputs",
        Shape::List(&Shape::Object(&[
            required("insert_at", Shape::Text),
            optional("type", Shape::OneOf(&["log", "metric", "raw", "vrl"])),
            optional("value", Shape::Text),
            optional("source", Shape::Text),
            optional("log_fields", Shape::Map(&Shape::Any)),
            optional("metric", METRIC),
        ])),
    ),
    optional(
        "outputs",
        Shape::List(&Shape::Object(&[
            required("extract_from", Shape::Any),
            optional("conditions", Shape::List(&Shape::Condition)),
        ])),
    ),
    optional("no_outputs_from", Shape::List(&Shape::Text)),
]);
const VALUE: Shape = Shape::Object(&[required("value", Shape::Number)]);
const METRIC: Shape = Shape::Object(&[
    required("name", Shape::Text),
    optional("namespace", Shape::Text),
    optional("tags", Shape::Map(&Shape::Text)),
    optional("timestamp", Shape::Text),
    required("kind", Shape::OneOf(&["incremental", "absolute"])),
    optional("counter", VALUE),
    optional("gauge", VALUE),
    optional("set", Shape::Object(&[required("values", Shape::List(&Shape::Text))])),
    optional(
        "distribution",
        Shape::Object(&[
            required(
                "samples",
                Shape::List(&Shape::Object(&[required("value", Shape::Number), required("rate", POSITIVE)])),
            ),
            required("statistic", Shape::OneOf(&["histogram", "summary"])),
        ]),
    ),
]);

/// What kind of component a table is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// `sources`
    Sources,
    /// `transforms`
    Transforms,
    /// `sinks`
    Sinks,
}

impl Section {
    /// The name of the section.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sources => "sources",
            Self::Transforms => "transforms",
            Self::Sinks => "sinks",
        }
    }

    /// The component types of this section that are known.
    pub fn types(self) -> &'static [&'static str] {
        match self {
            Self::Sources => &["statsd", "syslog", "host_metrics", "internal_metrics"],
            Self::Transforms => &["remap", "route", "filter", "dedupe", "tag_cardinality_limit"],
            Self::Sinks => {
                &["prometheus_exporter", "console", "file", "loki", "elasticsearch", "kafka", "statsd"]
            }
        }
    }
}

/// The options of one component type, besides `type`; `mode` decides for some. `None`: unknown type or mode.
pub fn options(section: Section, kind: &str, mode: Option<&str>) -> Option<&'static [Field]> {
    Some(match (section, kind, mode) {
        (Section::Sources, "statsd", Some("udp")) => STATSD_UDP,
        (Section::Sources, "syslog", Some("udp")) => SYSLOG_UDP,
        (Section::Sources, "syslog", Some("tcp")) => SYSLOG_TCP,
        (Section::Sources, "syslog", Some("unix")) => SYSLOG_UNIX,
        (Section::Sources, "host_metrics", _) => HOST_METRICS,
        (Section::Sources, "internal_metrics", _) => INTERNAL_METRICS,
        (Section::Transforms, kind, _) => return transform(kind),
        (Section::Sinks, kind, _) => return sinks::sink(kind),
        _ => return None,
    })
}

/// Whether a component type has modes, and which are known here.
pub fn modes(section: Section, kind: &str) -> Option<&'static [&'static str]> {
    match (section, kind) {
        // A Unix socket of Vector's statsd source is a stream; cadence sends datagrams. TCP is not used.
        (Section::Sources, "statsd") => Some(&["udp"]),
        (Section::Sources, "syslog") => Some(&["udp", "tcp", "unix"]),
        _ => None,
    }
}

const HOST_METRICS: &[Field] = &[
    // Whole seconds there, fractions in `internal_metrics`.
    optional("scrape_interval_secs", POSITIVE),
    optional("namespace", Shape::Text),
    optional(
        "collectors",
        Shape::List(&Shape::OneOf(&[
            "cgroups",
            "cpu",
            "disk",
            "filesystem",
            "host",
            "load",
            "memory",
            "network",
            "process",
        ])),
    ),
    optional("disk", Shape::Object(&[optional("devices", PATTERNS)])),
    optional("network", Shape::Object(&[optional("devices", PATTERNS)])),
    optional(
        "filesystem",
        Shape::Object(&[
            optional("devices", PATTERNS),
            optional("filesystems", PATTERNS),
            optional("mountpoints", PATTERNS),
        ]),
    ),
];

fn transform(kind: &str) -> Option<&'static [Field]> {
    Some(match kind {
        "remap" => REMAP,
        "route" => ROUTE,
        "filter" => FILTER,
        "dedupe" => DEDUPE,
        "tag_cardinality_limit" => TAG_CARDINALITY_LIMIT,
        _ => return None,
    })
}

const STATSD_UDP: &[Field] = &[
    required("mode", Shape::Text),
    required("address", Shape::Listen),
    optional("receive_buffer_bytes", POSITIVE),
    optional("sanitize", Shape::Bool),
    // Recorded (`timer_ms_keep`): 0.43 takes it and does nothing.
    optional("convert_to", Shape::OneOf(&["seconds", "milliseconds"])),
];

const SYSLOG_UDP: &[Field] = &[
    required("mode", Shape::Text),
    required("address", Shape::Listen),
    optional("receive_buffer_bytes", POSITIVE),
    optional("max_length", POSITIVE),
    optional("host_key", Shape::Text),
];

const SYSLOG_TCP: &[Field] = &[
    required("mode", Shape::Text),
    required("address", Shape::Listen),
    optional("receive_buffer_bytes", POSITIVE),
    optional("max_length", POSITIVE),
    optional("host_key", Shape::Text),
    optional("connection_limit", POSITIVE),
    optional("keepalive", Shape::Object(&[optional("time_secs", COUNT)])),
    optional("permit_origin", Shape::List(&Shape::Text)),
    optional("tls", TLS),
];

const SYSLOG_UNIX: &[Field] = &[
    required("mode", Shape::Text),
    required("path", Shape::Text),
    optional("socket_file_mode", COUNT),
    optional("max_length", POSITIVE),
    optional("host_key", Shape::Text),
];

const INTERNAL_METRICS: &[Field] = &[
    optional("scrape_interval_secs", Shape::Number),
    optional("namespace", Shape::Text),
    optional("tags", Shape::Object(&[optional("host_key", Shape::Text), optional("pid_key", Shape::Text)])),
];

const REMAP: &[Field] = &[
    INPUTS,
    optional("source", Shape::Text),
    optional("file", Shape::Text),
    optional("drop_on_error", Shape::Bool),
    optional("drop_on_abort", Shape::Bool),
    optional("reroute_dropped", Shape::Bool),
    optional("metric_tag_values", Shape::OneOf(&["single", "full"])),
    optional("timezone", Shape::Text),
];

const ROUTE: &[Field] =
    &[INPUTS, required("route", Shape::Map(&Shape::Condition)), optional("reroute_unmatched", Shape::Bool)];

const FILTER: &[Field] = &[INPUTS, required("condition", Shape::Condition)];

const DEDUPE: &[Field] = &[
    INPUTS,
    optional(
        "fields",
        Shape::Object(&[
            optional("match", Shape::List(&Shape::Text)),
            optional("ignore", Shape::List(&Shape::Text)),
        ]),
    ),
    optional("cache", Shape::Object(&[optional("num_events", POSITIVE)])),
];

const TAG_CARDINALITY_LIMIT: &[Field] = &[
    INPUTS,
    required("mode", Shape::OneOf(&["exact", "probabilistic"])),
    optional("cache_size_per_key", POSITIVE),
    optional("value_limit", POSITIVE),
    optional("limit_exceeded_action", Shape::OneOf(&["drop_tag", "drop_event"])),
];
