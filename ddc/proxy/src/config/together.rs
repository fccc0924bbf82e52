//! Checks over all links of one process: what two of them cannot share.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::common::{Admin, LinkSettings};
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
        && same_place(x, y)
    {
        found.push(format!("[admin] socket = \"{}\"", y.display()));
    }
    if let (Config::Egress(x), Config::Egress(y)) = (a, b)
        && same_socket(x.listen, y.listen)
        && may_share_interface(&x.link, &y.link)
    {
        found.push(format!("[link] listen = \"{}\"", y.listen));
    }
    let both_egress = a.side() == Side::Egress && b.side() == Side::Egress;
    for x in listening(a).iter().filter(|_| !both_egress) {
        found.extend(
            listening(b).iter().filter(|y| same_socket(x.1, y.1)).map(|y| format!("{} = \"{}\"", y.0, y.1)),
        );
    }
    if same_place(&a.link().state_dir, &b.link().state_dir) {
        found.push(format!("[link] state_dir = \"{}\"", b.link().state_dir.display()));
    }
    // Below one state directory, that is said already.
    if let (Some(x), Some(y)) = (spool(a), spool(b))
        && same_place(x, y)
        && !same_place(&a.link().state_dir, &b.link().state_dir)
    {
        found.push(format!("[spool] directory = \"{}\"", y.display()));
    }
    let letters = |config: &Config| {
        config.dead_letters().and_then(|letters| letters.directory()).map(std::path::Path::to_owned)
    };
    if let (Some(x), Some(y)) = (letters(a), letters(b))
        && same_place(&x, &y)
    {
        found.push(format!("[dead_letters] directory = \"{}\"", y.display()));
    }
    if a.side() == b.side() && a.link().name == b.link().name {
        found.push(format!("[link] name = \"{}\"", b.link().name));
    }
    if a.link().id == b.link().id && may_share_interface(a.link(), b.link()) {
        match (a, b) {
            (Config::Ingress(x), Config::Ingress(y)) if x.target.ip() == y.target.ip() => {
                found.push(format!("[link] id = {} with target = \"{}\"", y.link.id.0, y.target));
            }
            // One port is said above.
            (Config::Egress(x), Config::Egress(y))
                if overlap(x.listen.ip(), y.listen.ip()) && x.listen.port() != y.listen.port() =>
            {
                found.push(format!("[link] id = {} with listen = \"{}\"", y.link.id.0, y.listen));
            }
            _ => {}
        }
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

fn spool(config: &Config) -> Option<&Path> {
    match config {
        Config::Egress(config) => config.spool.as_ref().map(|spool| spool.directory.as_path()),
        Config::Ingress(_) => None,
    }
}

fn socket(admin: &Admin) -> Option<&Path> {
    admin.socket.as_deref()
}

/// Whether two addresses cannot be bound side by side.
pub(crate) fn same_socket(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && overlap(a.ip(), b.ip())
}

/// Whether what is sent to one address may arrive at the other.
fn overlap(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
}

/// Whether both may use one interface: no name stands for all.
fn may_share_interface(a: &LinkSettings, b: &LinkSettings) -> bool {
    a.interface.as_ref().zip(b.interface.as_ref()).is_none_or(|(a, b)| a == b)
}

/// Whether two paths lead to one file or directory, however they are written; one that is not there yet is compared as
/// it is written.
fn same_place(a: &Path, b: &Path) -> bool {
    let real =
        |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or(path.to_owned());
    a == b || real(a) == real(b)
}
