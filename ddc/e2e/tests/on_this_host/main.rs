//! `ddc check --host` in a network namespace: every finding comes when its cause does, and goes with it. `ddc ready` as a
//! probe asks. Secrets as systemd, Kubernetes and compose mount them, and exchanged under a link that runs.
//!
//! Needs root, as every test with namespaces.

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

mod running;
mod secrets;

use std::fs::{self, Permissions};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use ddc_e2e::netns::{DESTINATION, Diode, End, INTERFACE, SOURCE};
use ddc_e2e::proxy::binary;
use ddc_e2e::wait;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(30);
/// The user of the container images.
const USER: u32 = 65532;

/// Exit code, standard output, standard error.
struct Answer {
    code: i32,
    out: String,
    errors: String,
}

impl Answer {
    fn of(command: &mut Command) -> Answer {
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Answer { code: output.status.code().unwrap(), out: text(output.stdout), errors: text(output.stderr) }
    }

    /// Exactly one finding holds all of `parts`, among them its severity; a problem, and nothing else, means 69.
    #[track_caller]
    fn assert_finding(&self, parts: &[&str]) {
        let fits = |line: &&str| parts.iter().all(|part| line.contains(part));
        let found = self.out.lines().chain(self.errors.lines()).filter(fits).count();
        assert_eq!(found, 1, "{parts:?}:\n{}\n{}", self.out, self.errors);
        assert_eq!(self.code, if self.errors.is_empty() { 0 } else { 69 }, "{}", self.errors);
    }

    /// Nothing is wrong, and of the path, the ports, the buffers and the disk nothing is doubtful.
    #[track_caller]
    fn assert_clean(&self) {
        assert_eq!((self.code, self.errors.as_str()), (0, ""), "{}", self.out);
        assert!(
            !self.out.lines().any(|line| line.starts_with("link ") && line.contains(": warning: ")),
            "{}",
            self.out
        );
    }
}

/// A directory with a key and one configuration; everybody may enter it.
struct Host {
    directory: TempDir,
}

impl Host {
    fn new() -> Host {
        let directory = tempfile::Builder::new().prefix("ddc-e2e-host-").tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let host = Host { directory };
        // Also other users must reach it.
        fs::copy(binary(), host.at("ddc")).unwrap();
        host.key("link.key", '1');
        host
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn key(&self, name: &str, digit: char) {
        fs::write(self.at(name), digit.to_string().repeat(64)).unwrap();
        fs::set_permissions(self.at(name), Permissions::from_mode(0o400)).unwrap();
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).unwrap();
    }

    fn ddc(&self, arguments: &str) -> Command {
        let mut command = Command::new(self.at("ddc"));
        command.current_dir(self.directory.path()).args(arguments.split_whitespace());
        command
    }

    /// Asks at one end of a diode about a configuration.
    fn check(&self, diode: &Diode, end: End, text: &str) -> Answer {
        self.write("link.toml", text);
        diode.at(end, || Answer::of(&mut self.ddc("check --host -c link.toml")))
    }
}

const INGRESS: &str = r#"[link]
name = "plant-a"
id = 1
interface = "link0"
source_address = "198.18.0.1"
target = "198.18.0.2:7401"
socket_buffer = "64KiB"
state_dir = "state"
[[link.keys]]
id = 1
file = "link.key"
[source.udp]
streams = { syslog = "127.0.0.1:5141" }
receive_buffer = "64KiB"
[admin]
socket = "admin.sock"
"#;

const EGRESS: &str = r#"[link]
name = "plant-a"
id = 1
listen = "198.18.0.2:7401"
socket_buffer = "64KiB"
state_dir = "state"
[[link.keys]]
id = 1
file = "link.key"
[sink.udp]
streams = { syslog = "127.0.0.1:5142" }
"#;

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_way_of_an_ingress_is_judged_by_what_the_kernel_says() {
    let (host, diode) = (Host::new(), Diode::new(0));
    let check = |text: &str| host.check(&diode, End::Source, text);
    let change = |arguments: &str| diode.at(End::Source, || ip(arguments));
    let right = check(INGRESS);
    right.assert_clean();
    right.assert_finding(&["host: ok: ", std::env::consts::ARCH, " pages of "]);
    right.assert_finding(&["ingress host: ok: sends from 198.18.0.1 to 198.18.0.2:7401"]);
    right.assert_finding(&["ok: interface link0 has an MTU of 1500"]);
    right.assert_finding(&["ok: neighbour 198.18.0.2 on link0 is written down as 02:00:00:00:00:02"]);
    assert!(!host.at("state").exists() && !host.at("admin.sock").exists(), "the check has made something");

    // A neighbour that was asked for; then none.
    change(&format!("neighbour replace {DESTINATION} lladdr 02:00:00:00:00:02 dev {INTERFACE} nud stale"));
    check(INGRESS).assert_finding(&[
        "warning: ",
        "was learned by asking (02:00:00:00:00:02)",
        "nud permanent",
    ]);
    change(&format!("neighbour del {DESTINATION} lladdr 02:00:00:00:00:02 dev {INTERFACE}"));
    check(INGRESS).assert_finding(&["warning: no neighbour entry for 198.18.0.2 on link0", "nud permanent"]);
    change(&format!(
        "neighbour replace {DESTINATION} lladdr 02:00:00:00:00:02 dev {INTERFACE} nud permanent"
    ));

    change("link set link0 mtu 1400");
    check(INGRESS).assert_finding(&[
        "problem: ",
        "link0 has an MTU of 1400, [link] mtu is 1500",
        "write mtu = 1400",
    ]);
    check(&INGRESS.replace("[[link.keys]]", "mtu = 1400\n[[link.keys]]")).assert_clean();
    // The same when the kernel chooses the interface.
    check(&INGRESS.replace("interface = \"link0\"\n", ""))
        .assert_finding(&["problem: interface link0 has an MTU of 1400"]);
    change("link set link0 mtu 1500");

    let absent = check(&INGRESS.replace("link0", "eth9"));
    absent.assert_finding(&["problem: interface eth9 does not exist", "ip link"]);
    assert_eq!(absent.errors.lines().count(), 1, "said once: {}", absent.errors);
    check(&INGRESS.replace(SOURCE, "198.18.0.77")).assert_finding(&["problem: cannot bind 198.18.0.77"]);
    let elsewhere = INGRESS.replace("interface = \"link0\"\n", "").replace(DESTINATION, "192.0.2.1");
    check(&elsewhere).assert_finding(&["problem: cannot send to 192.0.2.1:7401", "ip route get 192.0.2.1"]);
    change("link set link0 down");
    check(INGRESS).assert_finding(&["problem: interface link0 is down", "ip link set link0 up"]);
    change("link set link0 up");
    change(&format!(
        "neighbour replace {DESTINATION} lladdr 02:00:00:00:00:02 dev {INTERFACE} nud permanent"
    ));
    wait::until("it is all right again", LIMIT, || {
        let answer = check(INGRESS);
        let doubtful =
            answer.out.lines().any(|line| line.starts_with("link ") && line.contains(": warning: "));
        if answer.code == 0 && !doubtful { Ok(()) } else { Err(answer.out + &answer.errors) }
    });
}

#[test]
fn ports_buffers_and_the_state_directory_are_tried() {
    let (host, diode) = (Host::new(), Diode::new(0));
    let check = |end: End, text: &str| host.check(&diode, end, text);
    check(End::Destination, EGRESS).assert_clean();
    let held = diode.at(End::Destination, || UdpSocket::bind((DESTINATION, 7401)).unwrap());
    check(End::Destination, EGRESS)
        .assert_finding(&["problem: UDP 198.18.0.2:7401 is taken", "ss -lunp 'sport = :7401'"]);
    drop(held);
    let held = diode.at(End::Destination, || TcpListener::bind("127.0.0.1:9661").unwrap());
    check(End::Destination, EGRESS).assert_finding(&["problem: TCP 127.0.0.1:9661 is taken", "ss -ltnp"]);
    drop(held);
    let held = diode.at(End::Source, || UdpSocket::bind("127.0.0.1:5141").unwrap());
    check(End::Source, INGRESS).assert_finding(&["problem: UDP 127.0.0.1:5141 is taken", "stream syslog"]);
    drop(held);
    check(End::Source, INGRESS).assert_clean();
    check(End::Destination, &EGRESS.replace(DESTINATION, "198.18.0.9"))
        .assert_finding(&["problem: `listen` in [link]: cannot bind 198.18.0.9:7401"]);
    let all = EGRESS.replace(DESTINATION, "0.0.0.0");
    check(End::Destination, &all).assert_finding(&["ok: listens on all interfaces", "link0 1500"]);
    let jumbo = all.replace("[[link.keys]]", "mtu = 9000\n[[link.keys]]");
    check(End::Destination, &jumbo).assert_finding(&[
        "problem: no interface is up",
        "at least 9000",
        "link0 1500",
    ]);

    // More than hosts give, and root would get by force: the limit is the host's, whoever asks.
    for (end, text, key, sysctl) in [
        (End::Source, INGRESS, "socket_buffer", "net.core.wmem_max"),
        (End::Source, INGRESS, "receive_buffer", "net.core.rmem_max"),
        (End::Destination, EGRESS, "socket_buffer", "net.core.rmem_max"),
    ] {
        let large = text.replace(&format!("{key} = \"64KiB\""), &format!("{key} = \"512MiB\""));
        check(end, &large).assert_finding(&[
            "problem: ",
            &format!("`{key}` in "),
            &format!("run: sysctl -w {sysctl}=536870912"),
        ]);
    }

    fs::write(host.at("admin.sock"), "").unwrap();
    check(End::Source, INGRESS).assert_finding(&["problem: ", "admin.sock", "something else than a socket"]);
    fs::remove_file(host.at("admin.sock")).unwrap();
    let nowhere = INGRESS.replace("admin.sock", "none/admin.sock");
    check(End::Source, &nowhere).assert_finding(&["problem: the directory ", "none", "install -d"]);
    let in_run = INGRESS.replace("admin.sock", "/run/ddc-e2e-none/admin.sock");
    check(End::Source, &in_run)
        .assert_finding(&["warning: the directory /run/ddc-e2e-none", "RuntimeDirectory="]);

    // A full disk, and one that another user may not write.
    fs::create_dir(host.at("state")).unwrap();
    host.write("link.toml", INGRESS);
    let mut full = Command::new("unshare");
    full.args([
        "-m",
        "sh",
        "-ec",
        "mount -t tmpfs -o size=1m tmpfs state; exec ./ddc check --host -c link.toml",
    ]);
    full.current_dir(host.directory.path());
    diode.at(End::Source, || Answer::of(&mut full)).assert_finding(&[
        "problem: 1048576 bytes are free on the file system of state, 67108864 are needed",
    ]);
    chown(host.at("link.key"), Some(USER), Some(USER)).unwrap();
    let as_user = || {
        let mut command = host.ddc("check --host -c link.toml");
        diode.at(End::Source, || Answer::of(command.uid(USER).gid(USER)))
    };
    as_user().assert_finding(&["problem: state directory state: ", "cannot be written by user 65532"]);
    chown(host.at("state"), Some(USER), Some(USER)).unwrap();
    as_user().assert_finding(&["ok: state directory state can be written"]);
}
