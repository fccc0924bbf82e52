//! Which librdkafka properties an operator may set, and under which names they go.

use std::ffi::CStr;

use rdkafka::bindings as sys;

use super::Role;

/// Synonyms librdkafka accepts, and the name each stands for. They share one value inside librdkafka, so two of
/// them in one configuration would win by chance.
const SYNONYMS: &[(&str, &str)] = &[
    ("metadata.broker.list", "bootstrap.servers"),
    ("sasl.mechanism", "sasl.mechanisms"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("fetch.message.max.bytes", "max.partition.fetch.bytes"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("retries", "message.send.max.retries"),
    ("compression.codec", "compression.type"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("request.required.acks", "acks"),
    ("auto.commit.enable", "enable.auto.commit"),
    ("sasl.oauthbearer.client.credentials.client.id", "sasl.oauthbearer.client.id"),
    ("sasl.oauthbearer.client.credentials.client.secret", "sasl.oauthbearer.client.secret"),
];

/// The one name of a property that has several.
pub(super) fn canonical(key: &str) -> &str {
    SYNONYMS.iter().find(|(synonym, _)| *synonym == key).map_or(key, |(_, name)| name)
}

/// Why an operator may not set this property in this role; `None` = he may.
pub(super) fn protected(role: &Role, name: &str) -> Option<&'static str> {
    everywhere(name).or_else(|| match role {
        Role::Source(_) | Role::Replay(_) => in_source(name),
        Role::Sink(_) => in_sink(name),
        // Only what concerns the connection reaches these.
        Role::Admin | Role::Log => None,
    })
}

fn everywhere(name: &str) -> Option<&'static str> {
    Some(match name {
        "bootstrap.servers" => "it is made from `brokers`",
        "security.protocol" => "it is made from `security.protocol` of DDC's configuration",
        "sasl.mechanisms" => "it is made from `security.sasl.mechanism`",
        "sasl.username" => "it is made from `security.sasl.username`",
        "sasl.password" => "a password belongs in a file: `security.sasl.password_file`",
        "ssl.ca.location" => "it is made from `security.tls.ca_file`",
        "ssl.certificate.location" => "it is made from `security.tls.certificate_file`",
        "ssl.key.location" => "it is made from `security.tls.key_file`",
        "ssl.key.password" => "a password belongs in a file: `security.tls.key_password_file`",
        "ssl.endpoint.identification.algorithm" => "it is made from `security.tls.verify_hostname`",
        "plugin.library.paths" => "DDC loads no foreign code into its process",
        "log.queue" | "log_level" | "enabled_events" => "DDC routes librdkafka's log and events itself",
        "allow.auto.create.topics" => {
            "asking for a topic must not create it; the egress creates topics on purpose"
        }
        _ => return None,
    })
}

fn in_source(name: &str) -> Option<&'static str> {
    Some(match name {
        "group.id" => "it is made from `group`",
        "enable.auto.commit"
        | "enable.auto.offset.store"
        | "auto.commit.interval.ms"
        | "offset.store.method" => "offsets are committed by DDC's own rule: only what was sent is committed",
        "auto.offset.reset" => "use `start_at`; an offset that is gone is reported, never skipped in silence",
        "enable.partition.eof" => "the source has no use for it and would take it for an error",
        "partition.assignment.strategy" | "group.protocol" | "group.remote.assignor" => {
            "the commit rule is built on the cooperative-sticky assignment of the classic group protocol"
        }
        _ => return None,
    })
}

fn in_sink(name: &str) -> Option<&'static str> {
    Some(match name {
        "enable.idempotence" | "acks" | "message.send.max.retries" => {
            "without it records could be lost, doubled or reordered"
        }
        "message.timeout.ms" => "a destination that is away is waited for; a time limit would drop records",
        "queuing.strategy" => "records must stay in order",
        "enable.gapless.guarantee" => {
            "a record refused for ever would stop the link; DDC reports it and steps over"
        }
        "delivery.report.only.error" => "DDC counts and keeps positions by the acknowledgements",
        "transactional.id" => "DDC names its transactions itself",
        _ => return None,
    })
}

/// Whether a property's value must never be shown.
pub(super) fn is_secret(key: &str) -> bool {
    const PARTS: [&str; 6] = ["password", "secret", "passphrase", "token", ".pem", "oauthbearer.config"];
    key != "sasl.oauthbearer.token.endpoint.url" && PARTS.iter().any(|part| key.contains(part))
}

/// Whether a property is about reaching the cluster, so that it serves every client of it.
pub(super) fn concerns_connection(name: &str) -> bool {
    const PREFIXES: [&str; 13] = [
        "sasl.",
        "ssl.",
        "ssl_",
        "https.",
        "enable.ssl.",
        "enable.sasl.",
        "socket.",
        "broker.",
        "reconnect.",
        "connections.",
        "client.",
        "api.version.",
        "test.mock.",
    ];
    name == "debug" || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The existing property with the most similar name, when one is similar enough to be a slip of the pen.
pub(super) fn nearest_property(key: &str) -> Option<String> {
    // librdkafka lists each setting under one of its names.
    let synonyms = SYNONYMS.iter().flat_map(|(synonym, name)| [(*synonym).to_owned(), (*name).to_owned()]);
    property_names()
        .into_iter()
        .chain(synonyms)
        .map(|name| (strsim::jaro_winkler(key, &name), name))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// Every property librdkafka lists for a client or a topic.
fn property_names() -> Vec<String> {
    let mut names = Vec::new();
    // SAFETY: both configurations are created, dumped and destroyed here. A dump is an array of `count` C strings,
    // name and value in turn, valid until it is freed with the same count.
    unsafe {
        let client = sys::rd_kafka_conf_new();
        let mut count = 0;
        let dump = sys::rd_kafka_conf_dump(client, &raw mut count);
        collect_names(dump, count, &mut names);
        sys::rd_kafka_conf_dump_free(dump, count);
        sys::rd_kafka_conf_destroy(client);

        let topic = sys::rd_kafka_topic_conf_new();
        let dump = sys::rd_kafka_topic_conf_dump(topic, &raw mut count);
        collect_names(dump, count, &mut names);
        sys::rd_kafka_conf_dump_free(dump, count);
        sys::rd_kafka_topic_conf_destroy(topic);
    }
    names
}

/// # Safety
/// `dump` points to `count` valid C strings.
unsafe fn collect_names(dump: *mut *const std::ffi::c_char, count: usize, names: &mut Vec<String>) {
    for index in (0..count).step_by(2) {
        // SAFETY: index < count, and each entry is a C string (the caller's promise).
        let name = unsafe { CStr::from_ptr(*dump.add(index)) };
        names.push(name.to_string_lossy().into_owned());
    }
}
