//! The way of the datagrams out of this host, or into it: interface, MTU, route, neighbour.

use std::io;
use std::net::IpAddr;

use ddc_udp::{SenderOptions, SenderSocket};

use super::netlink::{Interface, Neighbour, Netlink, Route};
use super::{good, problem, warning};
use crate::config::{Config, EgressConfig, IngressConfig, LinkSettings};
use crate::sink::preflight::Finding;

/// What a look at the path found.
pub(super) struct Path {
    pub(super) findings: Vec<Finding>,
    /// Whether the interface is there: without it, what follows would only say so again.
    pub(super) is_there: bool,
}

/// The buffer of a socket that is only opened to see whether it can be.
pub(super) const SMALL_BUFFER: usize = 4096;

pub(super) fn look(config: &Config) -> Path {
    let mut path = Path { findings: Vec::new(), is_there: true };
    let result = Netlink::open().and_then(|mut netlink| match config {
        Config::Ingress(config) => path.ingress(&mut netlink, config),
        Config::Egress(config) => path.egress(&mut netlink, config),
    });
    if let Err(error) = result {
        path.add(warning(format!("interfaces and routes cannot be asked for: {error}")));
    }
    path
}

impl Path {
    fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    fn ingress(&mut self, netlink: &mut Netlink, config: &IngressConfig) -> io::Result<()> {
        let named = self.named(netlink, &config.link)?;
        if !self.is_there {
            return Ok(());
        }
        let mut options = SenderOptions::new(config.target);
        options.source = config.source_address.map(|address| (address, 0).into());
        options.interface = named.as_ref().map(|interface| interface.name.clone());
        options.send_buffer = SMALL_BUFFER;
        // As the ingress opens it: the address is ours, the interface may be used, there is a route.
        match SenderSocket::open(&options) {
            Ok(socket) => {
                self.add(good(format!("sends from {} to {}", socket.local_addr().ip(), config.target)));
            }
            Err(error) => {
                self.add(problem(error.to_string()));
                return Ok(());
            }
        }
        let target = config.target.ip();
        let Some(route) = netlink.route(target, named.as_ref().map(|interface| interface.index))? else {
            return Ok(());
        };
        let interface = match named {
            Some(interface) => Some(interface),
            None => netlink.interface(route.interface)?,
        };
        let Some(interface) = interface else { return Ok(()) };
        if config.link.interface.is_none() {
            self.interface(&interface, &config.link);
        }
        if route.is_unicast && interface.has_neighbours() {
            self.neighbour(netlink, target, &route, &interface);
        }
        Ok(())
    }

    fn egress(&mut self, netlink: &mut Netlink, config: &EgressConfig) -> io::Result<()> {
        if config.link.interface.is_some() {
            return self.named(netlink, &config.link).map(drop);
        }
        let listen = config.listen.ip();
        if !listen.is_unspecified() {
            // An address of another host shows when the port is tried.
            if let Some(index) = netlink.interface_of(listen)?
                && let Some(interface) = netlink.interface(index)?
            {
                self.interface(&interface, &config.link);
            }
            return Ok(());
        }
        let mtu = config.link.mtu.bytes();
        let (fit, small): (Vec<_>, Vec<_>) = netlink
            .interfaces()?
            .into_iter()
            .filter(|interface| interface.is_up() && !interface.is_loopback())
            .partition(|interface| interface.mtu as usize >= mtu);
        let list = |interfaces: &[Interface]| {
            let shown: Vec<_> = interfaces.iter().map(|one| format!("{} {}", one.name, one.mtu)).collect();
            if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
        };
        self.add(if fit.is_empty() {
            problem(format!(
                "no interface is up and has an MTU of at least {mtu} (up, with their MTU: {}); set up the one that the diode feeds, and name it as `interface` in [link]",
                list(&small)
            ))
        } else {
            good(format!("listens on all interfaces; up, with an MTU of at least {mtu}: {}", list(&fit)))
        });
        Ok(())
    }

    /// Looks at the interface that the configuration names, if it names one.
    fn named(&mut self, netlink: &mut Netlink, link: &LinkSettings) -> io::Result<Option<Interface>> {
        let Some(name) = &link.interface else { return Ok(None) };
        let found = netlink.interface_named(name.as_str())?;
        if let Some(interface) = &found {
            self.interface(interface, link);
        } else {
            self.is_there = false;
            self.add(problem(format!(
                "interface {name} does not exist; list the interfaces with: ip link, and correct `interface` in [link]"
            )));
        }
        Ok(found)
    }

    fn interface(&mut self, interface: &Interface, link: &LinkSettings) {
        let (name, mtu, wanted) = (&interface.name, interface.mtu, link.mtu.bytes());
        if !interface.is_up() {
            self.add(problem(format!("interface {name} is down; run: ip link set {name} up")));
        } else if !interface.has_carrier() {
            self.add(warning(format!(
                "interface {name} is up but sees no signal; look at the cable, the transceiver and the diode's power"
            )));
        }
        self.add(if mtu as usize >= wanted {
            good(format!("interface {name} has an MTU of {mtu}"))
        } else {
            problem(format!(
                "interface {name} has an MTU of {mtu}, [link] mtu is {wanted}; run: ip link set {name} mtu {wanted}, or write mtu = {mtu} on both sides"
            ))
        });
    }

    /// Nobody answers ARP or neighbour discovery over a diode: the receiver's address must be written down.
    fn neighbour(&mut self, netlink: &mut Netlink, target: IpAddr, route: &Route, interface: &Interface) {
        let hop = route.gateway.unwrap_or(target);
        let name = &interface.name;
        let mend = format!(
            "run: ip neighbour replace {hop} lladdr MAC dev {name} nud permanent, with the MAC of the receiver; PEER_MAC in /etc/ddc/one-way/{name}.conf does so at every start"
        );
        let found = match netlink.neighbour(hop, interface.index) {
            Ok(Neighbour::Permanent(mac)) => {
                good(format!("neighbour {hop} on {name} is written down as {mac}"))
            }
            Ok(Neighbour::Learned(mac)) => warning(format!(
                "neighbour {hop} on {name} was learned by asking ({mac}), which no diode lets happen; {mend}"
            )),
            Ok(Neighbour::Unknown) => warning(format!(
                "no neighbour entry for {hop} on {name}: asking for it gets no answer over a diode, and nothing is sent; {mend}"
            )),
            Err(error) => {
                warning(format!("the neighbour {hop} on {name} cannot be asked for: {error}; {mend}"))
            }
        };
        self.add(found);
    }
}
