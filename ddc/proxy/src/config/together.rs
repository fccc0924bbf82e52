//! Checks over all links of one process: what two of them cannot share.

use std::net::SocketAddr;
use std::path::Path;

use super::common::Admin;
use super::{Config, IngressConfig, Loaded, Side, Source};

/// Finds what links of one process would take from each other: ports, sockets, state directories, names.
/// Each clash is one sentence that begins with the later file's name.
pub fn check_together(all: &[Loaded<Config>]) -> Vec<String> {
    let mut clashes = Vec::new();
    for (number, later) in all.iter().enumerate() {
        for earlier in &all[..number] {
            for what in clashes_of(&earlier.config, &later.config) {
                clashes.push(format!(
                    "{}: {what} is also used by {}; every link side needs its own",
                    later.file.display(),
                    earlier.file.display()
                ));
            }
        }
    }
    clashes
}

/// Finds tables that do not hold: a process has one `[telemetry]`, its first file's. Files of different sides are of
/// different processes, and a file without the table agrees with every other.
pub fn unused_together(all: &[Loaded<Config>]) -> Vec<String> {
    let mut unused = Vec::new();
    for (number, later) in all.iter().enumerate() {
        let first = all[..number].iter().find(|first| first.config.side() == later.config.side());
        if let Some(first) = first
            && !later.config.telemetry().is_default()
            && first.config.telemetry() != later.config.telemetry()
        {
            unused.push(format!(
                "{}: [telemetry] differs from that of {} and is not used when both run in one process: the first file's holds; write the same there, or leave it out here",
                later.file.display(),
                first.file.display()
            ));
        }
    }
    unused
}

fn clashes_of(a: &Config, b: &Config) -> Vec<String> {
    let mut found = Vec::new();
    if let (Some(x), Some(y)) = (a.admin().listen, b.admin().listen)
        && same_socket(x, y)
    {
        found.push(format!("[admin] listen = \"{y}\""));
    }
    if let (Some(x), Some(y)) = (socket(a.admin()), socket(b.admin()))
        && x == y
    {
        found.push(format!("[admin] socket = \"{}\"", y.display()));
    }
    if let (Config::Egress(x), Config::Egress(y)) = (a, b)
        && same_socket(x.listen, y.listen)
        && x.link.interface.as_ref().zip(y.link.interface.as_ref()).is_none_or(|(x, y)| x == y)
    {
        found.push(format!("[link] listen = \"{}\"", y.listen));
    }
    let both_egress = a.side() == Side::Egress && b.side() == Side::Egress;
    for x in listening(a).iter().filter(|_| !both_egress) {
        found.extend(
            listening(b).iter().filter(|y| same_socket(x.1, y.1)).map(|y| format!("{} = \"{}\"", y.0, y.1)),
        );
    }
    if a.link().state_dir == b.link().state_dir {
        found.push(format!("[link] state_dir = \"{}\"", b.link().state_dir.display()));
    }
    if a.side() == b.side() && a.link().name == b.link().name {
        found.push(format!("[link] name = \"{}\"", b.link().name));
    }
    if let (Config::Ingress(x), Config::Ingress(y)) = (a, b)
        && x.link.id == y.link.id
        && x.target == y.target
    {
        found.push(format!("[link] id = {} with target = \"{}\"", y.link.id.0, y.target));
    }
    found
}

/// The UDP sockets that a side listens on, each with its key. Two egresses' `listen` are compared apart: interfaces part them.
fn listening(config: &Config) -> Vec<(String, SocketAddr)> {
    match config {
        Config::Egress(config) => vec![("[link] listen".to_owned(), config.listen)],
        Config::Ingress(IngressConfig { source: Source::Udp(source), .. }) => {
            let key = |name: &_| format!("[source.udp] streams.{name}");
            source.streams.iter().map(|stream| (key(&stream.name), stream.address)).collect()
        }
        Config::Ingress(_) => Vec::new(),
    }
}

fn socket(admin: &Admin) -> Option<&Path> {
    admin.socket.as_deref()
}

/// Whether two addresses cannot be bound side by side.
pub(crate) fn same_socket(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |x: SocketAddr, y: SocketAddr| x.ip() == y.ip() || x.ip().is_unspecified();
    a.port() == b.port() && (a.is_ipv4() == b.is_ipv4()) && (covers(a, b) || covers(b, a))
}
