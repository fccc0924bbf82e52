//! Sockets: whether a link could open them here, who has them if not, and how large the kernel makes their buffers.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use ddc_udp::{BufferGrant, Direction, OpenError, ReceiverOptions, ReceiverSocket};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

use super::path::SMALL_BUFFER;
use super::{good, problem, warning};
use crate::admin::client::{self, Place};
use crate::config::{Admin, ByteSize, Config, IngressConfig, Source, UdpSource};
use crate::sink::preflight::Finding;

/// The port that datagrams arrive on; an ingress has none.
pub(super) fn link(config: &Config) -> Option<Finding> {
    let Config::Egress(egress) = config else { return None };
    let mut options = ReceiverOptions::new(egress.listen);
    options.group = egress.multicast_group;
    // Joining would send a report to the network.
    options.join = false;
    options.interface = egress.link.interface.as_ref().map(ToString::to_string);
    Some(udp(options, "`listen` in [link]", config))
}

/// The addresses that streams of datagrams come to.
pub(super) fn streams(config: &Config) -> Vec<Finding> {
    let look = |source: &UdpSource| {
        let look = |stream: &crate::config::Stream| {
            let key = format!("stream {} in [source.udp]", stream.name);
            udp(ReceiverOptions::new(stream.address), &key, config)
        };
        source.streams.iter().map(look).collect()
    };
    udp_source(config).map(look).unwrap_or_default()
}

fn udp_source(config: &Config) -> Option<&UdpSource> {
    match config {
        Config::Ingress(IngressConfig { source: Source::Udp(source), .. }) => Some(source),
        _ => None,
    }
}

fn udp(mut options: ReceiverOptions, key: &str, config: &Config) -> Finding {
    options.receive_buffer = SMALL_BUFFER;
    let address = options.listen;
    match ReceiverSocket::open(&options) {
        Ok(_) => good(format!("UDP {address} is free ({key})")),
        Err(OpenError::Bind { cause, .. }) if cause.kind() == io::ErrorKind::AddrInUse => {
            taken(&format!("UDP {address}"), key, &format!("ss -lunp 'sport = :{}'", address.port()), config)
        }
        Err(error) => problem(format!("{key}: {error}")),
    }
}

/// Somebody has it. The running side of this very link is no problem.
fn taken(what: &str, key: &str, who: &str, config: &Config) -> Finding {
    match running(config) {
        Running::This => good(format!("{what} is held by this link's {}, which runs ({key})", config.side())),
        Running::Other(other) => problem(format!(
            "{what} is taken ({key}), and {other} answers on this file's admin listener; stop that one, or choose other ports"
        )),
        Running::Nobody => problem(format!(
            "{what} is taken ({key}); see by whom: {who}; stop that program or choose another"
        )),
    }
}

/// Who answers on the admin listener of a configuration.
enum Running {
    /// The same side of the same link.
    This,
    /// Another link, or another side.
    Other(String),
    Nobody,
}

fn running(config: &Config) -> Running {
    let (side, link) = (config.side().to_string(), config.link());
    let places = places(config.admin());
    let answers = places.iter().filter_map(|place| client::get(place, "/status").ok().flatten());
    let mut found = Running::Nobody;
    for answer in answers {
        let Ok(status) = serde_json::from_str::<serde_json::Value>(&answer.body) else { continue };
        let (its_side, its_name) = (status["side"].as_str(), status["link"]["name"].as_str());
        if (its_side, its_name) == (Some(&side), Some(link.name.as_str())) {
            return Running::This;
        }
        if let (Some(side), Some(name)) = (its_side, its_name) {
            found = Running::Other(format!("the {side} of link {name}"));
        }
    }
    found
}

fn places(admin: &Admin) -> Vec<Place> {
    let tcp = admin.listen.map(Place::Tcp);
    tcp.into_iter().chain(admin.socket.clone().map(Place::Unix)).collect()
}

/// The buffers of every socket that a link reads or writes, as a process without privileges gets them.
pub(super) fn buffers(config: &Config) -> Vec<Finding> {
    let of_link = match config {
        Config::Ingress(_) => Direction::Send,
        Config::Egress(_) => Direction::Receive,
    };
    let link = (of_link, config.link().socket_buffer, "socket_buffer", "[link]");
    let streams = udp_source(config)
        .map(|source| (Direction::Receive, source.receive_buffer, "receive_buffer", "[source.udp]"));
    [Some(link), streams].into_iter().flatten().map(buffer).collect()
}

fn buffer((direction, size, key, header): (Direction, ByteSize, &str, &str)) -> Finding {
    match BufferGrant::of_this_host(direction, size.bytes() as usize) {
        Ok(grant) => match grant.shortfall() {
            None => good(format!("the kernel gives the socket buffer of {size} (`{key}` in {header})")),
            Some(shortfall) => problem(format!(
                "`{key}` in {header}: {shortfall} (a file in /etc/sysctl.d keeps it; for a container on its host); or, for low rates, write {key} = \"{}KiB\"",
                grant.granted >> 10
            )),
        },
        Err(error) => {
            warning(format!("`{key}` in {header}: the kernel cannot be asked for a socket: {error}"))
        }
    }
}

/// The admin listeners.
pub(super) fn admin(config: &Config) -> Vec<Finding> {
    let admin = config.admin();
    let tcp = admin.listen.map(|address| match bind_tcp(address) {
        Ok(_) => good(format!("TCP {address} is free (`listen` in [admin])")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let who = format!("ss -ltnp 'sport = :{}'", address.port());
            taken(&format!("TCP {address}"), "`listen` in [admin]", &who, config)
        }
        Err(error) => {
            problem(format!("TCP {address} (`listen` in [admin]): {error}; choose another address"))
        }
    });
    tcp.into_iter().chain(admin.socket.as_deref().map(|path| unix(path, config))).collect()
}

/// Binds and does not listen: nobody can connect meanwhile.
fn bind_tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // As the listener does: old connections do not count.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    Ok(socket)
}

fn unix(path: &Path, config: &Config) -> Finding {
    const KEY: &str = "`socket` in [admin]";
    let shown = path.display();
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => problem(format!(
            "{shown} ({KEY}) is something else than a socket; remove it or choose another path"
        )),
        Ok(_) if UnixStream::connect(path).is_ok() => {
            taken(&format!("the socket {shown}"), KEY, &format!("ss -lxp src {shown}"), config)
        }
        Ok(_) => good(format!("the socket {shown} is left over and will be replaced ({KEY})")),
        Err(_) => unix_directory(path, KEY),
    }
}

/// The directory of a socket that is not there: it must be, or be made before the start.
fn unix_directory(path: &Path, key: &str) -> Finding {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let (shown, socket) = (directory.display(), path.display());
    if directory.is_dir() {
        return match super::disk::may_write(directory) {
            Ok(()) => good(format!("the socket {socket} can be made ({key})")),
            Err(why) => problem(format!("the socket {socket} ({key}) cannot be made: {why}")),
        };
    }
    let text = format!(
        "the directory {shown} ({key}) does not exist; systemd makes it at the start with RuntimeDirectory=; by hand run: install -d -m 0750 {shown}"
    );
    // Below /run nothing outlives a boot: that it is missing before the start is the rule.
    if ["/run", "/var/run"].iter().any(|run| directory.starts_with(run)) {
        warning(text)
    } else {
        problem(text)
    }
}
