//! `ddc check`: whether configuration files are right, and what they would open. Opens nothing itself, unless `--host` or
//! `--connect` says so; then this host or the brokers are asked, and nothing is changed there.

use std::fmt::Write;
use std::path::PathBuf;

use ddc_proxy::config::{
    self, ByteSize, Config, DeadLetterPlace, EgressConfig, IngressConfig, KafkaSink, KafkaSource, LinkKey,
    Loaded, MissingRecords, Seal, Sink, Source, SpoolConfig, Stream, TopicPattern, check_together,
    unused_together,
};

use ddc_proxy::host::file_system;

use super::preflight::{self, Preflight};
use super::print;
use crate::exit::{Exit, Failure};

/// Check configuration files and say what they would open
///
/// Reads the files and the key and password files they name; opens no socket and asks no broker, unless --host or
/// --connect is given. Files that are given together are also checked against each other, as for one process or one
/// host. Exit code 78 when anything is wrong; 69 when --host finds that this host lacks something, or --connect that a
/// cluster does not answer or refuses this client. Warnings do not change the exit code.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A configuration file, of either side; give it several times for several links
    #[arg(short = 'c', long = "config", value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// Also ask this host, without changing anything: interface, MTU, route and neighbour; UDP and admin ports; socket
    /// buffers as the kernel gives them to a service without privileges; the state directory and at least 64 MiB on its
    /// file system; the clock. Run it as the service's user, or as root
    #[arg(long)]
    host: bool,
    /// Also ask the brokers, for 10 s per file at most: whether they let us in, what there is to read, and whether the
    /// destination's topics would keep records as they are. Joins no group and changes nothing
    #[arg(long)]
    connect: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut wrong = Vec::new();
    let mut right = Vec::new();
    for file in &arguments.files {
        match config::load(file) {
            Ok(loaded) => right.push(loaded),
            Err(error) => wrong.extend(error.lines()),
        }
    }
    wrong.extend(check_together(&right));
    for loaded in &right {
        // Finds what only librdkafka's own start finds, such as a certificate that does not fit its key.
        for (table, client, role) in loaded.config.clients() {
            if let Err(errors) = client.try_out(&role) {
                let file = loaded.file.display();
                wrong.extend(errors.iter().map(|error| format!("{file}: [{table}]: {error}")));
            }
        }
    }
    let mut pages: Vec<String> = right.iter().map(page).collect();
    let unused = unused_together(&right);
    pages.extend((!unused.is_empty()).then(|| format!("{}\n", unused.join("\n"))));
    print(&pages.join("\n"))?;
    if !wrong.is_empty() {
        return Err(Failure { exit: Exit::Config, lines: wrong });
    }
    // The host first: a missing route explains a broker that does not answer.
    let asked = [
        arguments.host.then_some(preflight::of_host as Ask),
        arguments.connect.then_some(preflight::of_clusters),
    ];
    let mut all = Vec::new();
    for ask in asked.into_iter().flatten() {
        let Preflight { lines, problems } = ask(&right);
        print(&format!("\n{}\n", lines.join("\n")))?;
        all.extend(problems);
    }
    // Problems end the command; warnings are for people to weigh.
    if all.is_empty() { Ok(()) } else { Err(Failure { exit: Exit::Unavailable, lines: all }) }
}

type Ask = fn(&[Loaded<Config>]) -> Preflight;

/// What one file says, for people.
fn page(loaded: &Loaded<Config>) -> String {
    let mut page = Page(String::new());
    let link = loaded.config.link();
    let title =
        format!("{}: {} of link {} (id {})", loaded.file.display(), loaded.config.side(), link.name, link.id);
    let _ = writeln!(page.0, "{title}");
    match &loaded.config {
        Config::Ingress(config) => ingress(&mut page, config),
        Config::Egress(config) => egress(&mut page, config),
    }
    page.row("state", link.state_dir.display());
    if let Config::Egress(EgressConfig { spool: Some(config), .. }) = &loaded.config {
        page.row("spool", spool(config));
    }
    if let Some(letters) = loaded.config.dead_letters() {
        let place = match &letters.place {
            DeadLetterPlace::Topic(topic) => format!("topic {topic} of the same cluster"),
            DeadLetterPlace::Directory { path, max_size } => {
                format!("{}, at most {max_size}", path.display())
            }
        };
        page.row(
            "refused",
            format!("records are kept in {place}; if they cannot be: {}", letters.on_failure),
        );
    }
    let admin = loaded.config.admin();
    let listen = admin.listen.map(|address| format!("TCP {address}"));
    let socket = admin.socket.as_ref().map(|path| format!("Unix socket {}", path.display()));
    let listeners: Vec<String> = listen.into_iter().chain(socket).collect();
    page.row("admin", if listeners.is_empty() { "none".to_owned() } else { listeners.join(", ") });
    let telemetry = loaded.config.telemetry();
    let site = telemetry.site.as_ref().map(|site| format!("site {site}"));
    let statsd = telemetry.statsd.iter().map(|address| format!("StatsD to {address}"));
    let syslog = telemetry.syslog.iter().map(|target| format!("syslog to {target}"));
    let rows: Vec<String> = site.into_iter().chain(statsd).chain(syslog).collect();
    page.row(
        "telemetry",
        if rows.is_empty() { "the admin listener only".to_owned() } else { rows.join(", ") },
    );
    let items = loaded.config.memory();
    let total = ByteSize(items.iter().map(|item| item.size.bytes()).sum()).rounded();
    page.row("memory", format!("up to {total}"));
    for item in items {
        page.row("", format!("{:>8}  {}", item.size.rounded().to_string(), item.purpose));
    }
    for notice in &loaded.notices {
        page.row("notice", notice.at(&loaded.file));
    }
    page.0
}

/// Rows of a label and a value.
struct Page(String);

impl Page {
    fn row(&mut self, label: &str, value: impl std::fmt::Display) {
        // Writing into a String cannot fail.
        let _ = writeln!(self.0, "  {label:<11}{value}");
    }
}

fn ingress(page: &mut Page, config: &IngressConfig) {
    let link = &config.link;
    let from = config.source_address.map(|address| format!(" from {address}")).unwrap_or_default();
    let on = link.interface.as_ref().map(|interface| format!(" on {interface}")).unwrap_or_default();
    page.row("sends", format!("UDP to {}{from}{on}, at most {}", config.target, config.rate));
    page.row(
        "datagrams",
        format!(
            "MTU {}, {} bytes of data each, FEC {}, interleave {}",
            link.mtu.bytes(),
            link.mtu.symbol_size(config.target.ip()),
            config.fec.code,
            config.fec.interleave
        ),
    );
    match &config.seal {
        Seal::None => page.row("seal", "none: NOT PROTECTED"),
        Seal::Aes256Gcm(key) => page.row("seal", format!("AES-256-GCM, {}", shown(key))),
    }
    match &config.source {
        Source::Kafka(source) => kafka_source(page, source),
        Source::Udp(source) => {
            streams(page, "reads", "UDP on", &source.streams);
            let (longest, buffer) = (source.max_datagram, source.receive_buffer);
            page.row(
                "",
                format!(
                    "datagrams of up to {longest}; a socket buffer of {buffer} each is asked of the kernel"
                ),
            );
        }
    }
}

/// One row per stream.
fn streams(page: &mut Page, label: &str, what: &str, streams: &[Stream]) {
    for (number, Stream { name, address }) in streams.iter().enumerate() {
        page.row(if number == 0 { label } else { "" }, format!("stream {name}: {what} {address}"));
    }
}

fn kafka_source(page: &mut Page, source: &KafkaSource) {
    page.row(
        "reads",
        format!("Kafka {} ({})", source.client.brokers.join(", "), source.client.protocol.name()),
    );
    let topics: Vec<&str> = source.topics.iter().map(TopicPattern::as_str).collect();
    page.row("", format!("group {}, topics {}", source.group, topics.join(", ")));
    page.row("", format!("starts at {} when the group has no commit", source.start_at));
}

/// Where it lies, how large it gets and what is free there.
fn spool(config: &SpoolConfig) -> String {
    let directory = config.directory.display();
    let system = match file_system(&config.directory) {
        Ok(system) => system,
        Err(error) => return format!("{directory}; its file system cannot be asked for: {error}"),
    };
    let free = ByteSize(system.free).rounded();
    match config.size(system.bytes) {
        Ok(size) => format!("{directory}, up to {}; {free} free there", size.max.rounded()),
        Err(why) => format!("{directory}; {free} free there: {why}"),
    }
}

fn egress(page: &mut Page, config: &EgressConfig) {
    let link = &config.link;
    let group = config.multicast_group.map(|group| format!(", multicast group {group}")).unwrap_or_default();
    let on = link.interface.as_ref().map(|interface| format!(" on {interface}")).unwrap_or_default();
    page.row("receives", format!("UDP on {}{group}{on}, MTU {}", config.listen, link.mtu.bytes()));
    match &config.seal {
        Seal::None => page.row("seal", "none: NOT PROTECTED"),
        Seal::Aes256Gcm(keys) => {
            let keys: Vec<String> = keys.iter().map(shown).collect();
            page.row("seal", format!("AES-256-GCM, {}", keys.join("; ")));
        }
    }
    match &config.sink {
        Sink::Kafka(sink) => kafka_sink(page, sink),
        Sink::Udp(sink) => {
            streams(page, "writes", "UDP to", &sink.streams);
            page.row("", format!("late datagrams: {}", sink.late));
        }
    }
    if let Some(MissingRecords { client, topic }) = &config.missing_records {
        let brokers = client.brokers.join(", ");
        page.row(
            "missing",
            format!(
                "what becomes of gaps goes to topic {topic} of Kafka {brokers} ({})",
                client.protocol.name()
            ),
        );
    }
}

fn kafka_sink(page: &mut Page, sink: &KafkaSink) {
    page.row("writes", format!("Kafka {} ({})", sink.client.brokers.join(", "), sink.client.protocol.name()));
    let names = match (sink.topic_prefix.as_str(), sink.rename.len() + sink.rename_regex.len()) {
        ("", 0) => "topics keep their names".to_owned(),
        ("", rules) => format!("topics keep their names but for {rules} rename rules"),
        (prefix, 0) => format!("topics get the prefix {prefix}"),
        (prefix, rules) => format!("topics get the prefix {prefix}, but for {rules} rename rules"),
    };
    let missing = if sink.create_topics { "created" } else { "reported" };
    page.row("", format!("{names}; partition: {}; missing topics are {missing}", sink.partition));
}

fn shown(key: &LinkKey) -> String {
    format!("key {} from {} (fingerprint {})", key.id, key.file.display(), key.key.fingerprint())
}
