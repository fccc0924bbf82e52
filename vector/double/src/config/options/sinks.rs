//! The options of the sinks, those of the snippets too.

use super::super::shape::{Field, Shape, optional, required};
use super::{INPUTS, POSITIVE, TLS};

const AUTH: Shape = Shape::Object(&[
    required("strategy", Shape::OneOf(&["basic", "bearer"])),
    optional("user", Shape::Text),
    optional("password", Shape::Text),
    optional("token", Shape::Text),
]);
const ENCODING: Shape = Shape::Object(&[
    required("codec", Shape::OneOf(&["json", "text", "logfmt", "raw_message"])),
    optional("only_fields", Shape::List(&Shape::Text)),
    optional("except_fields", Shape::List(&Shape::Text)),
    optional(
        "timestamp_format",
        Shape::OneOf(&["rfc3339", "unix", "unix_ms", "unix_us", "unix_ns", "unix_float"]),
    ),
]);
const BUFFER: Shape = Shape::Object(&[
    optional("type", Shape::OneOf(&["memory", "disk"])),
    optional("max_events", POSITIVE),
    optional("max_size", POSITIVE),
    optional("when_full", Shape::OneOf(&["block", "drop_newest"])),
]);
const BATCH: Shape = Shape::Object(&[
    optional("max_bytes", POSITIVE),
    optional("max_events", POSITIVE),
    optional("timeout_secs", Shape::Number),
]);
const HEALTHCHECK: Field = optional("healthcheck", Shape::Object(&[optional("enabled", Shape::Bool)]));
const BUFFER_FIELD: Field = optional("buffer", BUFFER);

/// The options of one sink type.
pub(super) fn sink(kind: &str) -> Option<&'static [Field]> {
    Some(match kind {
        "prometheus_exporter" => PROMETHEUS_EXPORTER,
        "console" => CONSOLE,
        "file" => FILE,
        "loki" => LOKI,
        "elasticsearch" => ELASTICSEARCH,
        "kafka" => KAFKA,
        "statsd" => STATSD,
        _ => return None,
    })
}

const PROMETHEUS_EXPORTER: &[Field] = &[
    INPUTS,
    required("address", Shape::Listen),
    optional("auth", AUTH),
    optional("tls", TLS),
    optional("buckets", Shape::List(&Shape::Number)),
    optional("quantiles", Shape::List(&Shape::Number)),
    optional("default_namespace", Shape::Text),
    optional("distributions_as_summaries", Shape::Bool),
    optional("flush_period_secs", POSITIVE),
    optional("suppress_timestamp", Shape::Bool),
    BUFFER_FIELD,
];

const CONSOLE: &[Field] = &[
    INPUTS,
    optional("target", Shape::OneOf(&["stdout", "stderr"])),
    required("encoding", ENCODING),
    BUFFER_FIELD,
];

const FILE: &[Field] = &[
    INPUTS,
    required("path", Shape::Text),
    required("encoding", ENCODING),
    optional("idle_timeout_secs", POSITIVE),
    optional("compression", Shape::OneOf(&["none", "gzip", "zstd"])),
    BUFFER_FIELD,
];

const LOKI: &[Field] = &[
    INPUTS,
    HEALTHCHECK,
    required("endpoint", Shape::Target),
    optional("path", Shape::Text),
    required("labels", Shape::Map(&Shape::Text)),
    required("encoding", ENCODING),
    optional("compression", Shape::OneOf(&["none", "gzip", "snappy", "zlib", "zstd"])),
    optional("out_of_order_action", Shape::OneOf(&["accept", "drop", "rewrite_timestamp"])),
    optional("remove_timestamp", Shape::Bool),
    optional("tenant_id", Shape::Text),
    optional("auth", AUTH),
    optional("tls", TLS),
    optional("batch", BATCH),
    BUFFER_FIELD,
];

const ELASTICSEARCH: &[Field] = &[
    INPUTS,
    HEALTHCHECK,
    required("endpoints", Shape::List(&Shape::Target)),
    optional("mode", Shape::OneOf(&["bulk", "data_stream"])),
    optional("bulk", Shape::Object(&[optional("index", Shape::Text), optional("action", Shape::Text)])),
    optional(
        "data_stream",
        Shape::Object(&[
            optional("type", Shape::Text),
            optional("dataset", Shape::Text),
            optional("namespace", Shape::Text),
            optional("auto_routing", Shape::Bool),
            optional("sync_fields", Shape::Bool),
        ]),
    ),
    optional("api_version", Shape::OneOf(&["auto", "v6", "v7", "v8"])),
    optional("compression", Shape::OneOf(&["none", "gzip", "snappy", "zlib", "zstd"])),
    optional("auth", AUTH),
    optional("tls", TLS),
    optional("batch", BATCH),
    BUFFER_FIELD,
];

const KAFKA: &[Field] = &[
    INPUTS,
    HEALTHCHECK,
    required("bootstrap_servers", Shape::Target),
    required("topic", Shape::Text),
    optional("key_field", Shape::Text),
    required("encoding", ENCODING),
    optional("compression", Shape::OneOf(&["none", "gzip", "lz4", "snappy", "zstd"])),
    optional("librdkafka_options", Shape::Map(&Shape::Text)),
    optional("message_timeout_ms", POSITIVE),
    optional(
        "sasl",
        Shape::Object(&[
            optional("enabled", Shape::Bool),
            optional("mechanism", Shape::Text),
            optional("username", Shape::Text),
            optional("password", Shape::Text),
        ]),
    ),
    optional("tls", TLS),
    optional("batch", BATCH),
    BUFFER_FIELD,
];

const STATSD: &[Field] = &[
    INPUTS,
    HEALTHCHECK,
    required("mode", Shape::OneOf(&["udp"])),
    required("address", Shape::Target),
    optional("default_namespace", Shape::Text),
    optional("send_buffer_size", POSITIVE),
    optional("batch", BATCH),
    BUFFER_FIELD,
];
