//! Both sides run: what they hold is told from what strangers hold, probes get their answers, and keys that are exchanged
//! as the kubelet does it are taken over at SIGHUP.

use std::fs;
use std::net::UdpSocket;
use std::process::{Child, Stdio};
use std::time::Duration;

use ddc_e2e::netns::{Diode, End};
use ddc_e2e::proxy::Signal;
use ddc_e2e::{reaper, wait};
use rustix::process::{Pid, kill_process};

use super::secrets::exchange;
use super::{Answer, EGRESS, Host, INGRESS, LIMIT};

/// A side that runs; killed with the test.
struct Running(Child);

impl Running {
    fn start(host: &Host, side: &str, name: &str) -> Running {
        let mut command = host.ddc(&format!("{side} -c {name}.toml"));
        command.env("CREDENTIALS_DIRECTORY", host.at("secret"));
        let log = fs::File::create(host.at(&format!("{name}.log"))).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        reaper::watch(&child);
        Running(child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        reaper::ended(&self.0);
    }
}

#[test]
fn a_running_link_is_told_from_strangers_probed_and_given_new_keys() {
    let (host, diode) = (Host::new(), Diode::new(0));
    let credential = "\"${CREDENTIALS_DIRECTORY}/link.key\"";
    let state = |text: &str, name: &str| {
        text.replace("\"state\"", &format!("\"{name}\"")).replace("\"link.key\"", credential)
    };
    let (ingress, egress) = (state(INGRESS, "in"), state(EGRESS, "out"));
    host.write("ingress.toml", &ingress);
    host.write("egress.toml", &egress);
    exchange(&host.at("secret"), "..one", "1");
    let ask = |end: End, arguments: &str| diode.at(end, || Answer::of(&mut host.ddc(arguments)));
    let not_yet = ask(End::Destination, "ready -c egress.toml");
    assert_eq!(not_yet.code, 69, "{}", not_yet.errors);

    let running_egress = diode.at(End::Destination, || Running::start(&host, "egress", "egress"));
    let running_ingress = diode.at(End::Source, || Running::start(&host, "ingress", "ingress"));
    // The keys are not needed for a probe, nor is their directory known to it.
    for (end, who) in [
        (End::Destination, "-c egress.toml"),
        (End::Destination, "--admin 127.0.0.1:9661"),
        (End::Source, "-c ingress.toml"),
        (End::Source, "--socket admin.sock"),
    ] {
        for (how, word) in [("", "ready\n"), ("--live", "live\n")] {
            wait::until(&format!("{who} is {word}"), LIMIT, || {
                let answer = ask(end, &format!("ready {how} {who}"));
                if answer.out == word && answer.code == 0 { Ok(()) } else { Err(answer.errors) }
            });
        }
    }
    // What a link holds itself is no problem; what another one would take is.
    let with_key = |end: End, file: &str| {
        let mut command = host.ddc(&format!("check --host -c {file}"));
        command.env("CREDENTIALS_DIRECTORY", host.at("secret"));
        diode.at(end, || Answer::of(&mut command))
    };
    let own = with_key(End::Destination, "egress.toml");
    own.assert_finding(&["ok: UDP 198.18.0.2:7401 is held by this link's egress, which runs"]);
    own.assert_finding(&["ok: TCP 127.0.0.1:9661 is held by this link's egress, which runs"]);
    let own = with_key(End::Source, "ingress.toml");
    own.assert_finding(&["ok: UDP 127.0.0.1:5141 is held by this link's ingress, which runs"]);
    own.assert_finding(&["admin.sock is held by this link's ingress"]);
    host.write("other.toml", &egress.replace("plant-a", "plant-b"));
    let other = with_key(End::Destination, "other.toml");
    other.assert_finding(&["problem: TCP 127.0.0.1:9661 is taken", "the egress of link plant-a answers"]);

    // Across, by the keys that both have; not by a key that only one has.
    let sender = diode.at(End::Source, || UdpSocket::bind("127.0.0.1:0").unwrap());
    let receiver = diode.at(End::Destination, || UdpSocket::bind("127.0.0.1:5142").unwrap());
    receiver.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let crosses = |text: &str| {
        sender.send_to(text.as_bytes(), "127.0.0.1:5141").unwrap();
        let mut room = [0; 64];
        while let Ok(length) = receiver.recv(&mut room) {
            if &room[..length] == text.as_bytes() {
                return true;
            }
        }
        false
    };
    wait::until_true("a datagram crosses", LIMIT, || crosses("one"));
    let reloaded =
        |name: &str| fs::read_to_string(host.at(name)).unwrap().matches("configuration read again: ").count();
    exchange(&host.at("secret"), "..two", "2");
    running_ingress.signal(Signal::HUP);
    wait::until_true("the ingress has read again", LIMIT, || reloaded("ingress.log") == 1);
    wait::until_true("the egress refuses what the new key seals", LIMIT, || !crosses("two"));
    assert!(!crosses("three"), "the egress still has the old key");
    running_egress.signal(Signal::HUP);
    wait::until_true("the egress has read again", LIMIT, || reloaded("egress.log") == 1);
    wait::until_true("a datagram crosses again", LIMIT, || crosses("four"));
}
