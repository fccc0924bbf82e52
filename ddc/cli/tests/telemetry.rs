//! `[telemetry]` of a running egress: StatsD and syslog arrive, maintenance survives a restart, a stop sends the last figures.

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// Killed when a test fails.
struct Egress(Child);

impl Egress {
    fn start(file: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ddc"));
        Self(command.args(["egress", "-c"]).arg(file).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Asks it to stop, and waits for its exit code.
    fn stop(mut self) -> Option<i32> {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        until("the process ends", || self.0.try_wait().unwrap()).code()
    }
}

impl Drop for Egress {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(done) = done() {
            return done;
        }
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(20));
    }
}

/// `None` while nobody listens.
fn ask(to: SocketAddr, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(to).ok()?;
    write!(stream, "{request} HTTP/1.1\r\nhost: x\r\nx-ddc-request: 1\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Everything that has come, as one text.
fn drain(mut receive: impl FnMut(&mut [u8]) -> std::io::Result<usize>) -> String {
    let mut buffer = vec![0; 65_536];
    let mut text = String::new();
    while let Ok(len) = receive(&mut buffer) {
        text += std::str::from_utf8(&buffer[..len]).unwrap();
        text.push('\n');
    }
    text
}

#[test]
fn a_running_egress_tells_its_collectors_and_keeps_its_maintenance() {
    let directory = tempfile::tempdir().unwrap();
    let statsd = UdpSocket::bind("127.0.0.1:0").unwrap();
    let syslog = UnixDatagram::bind(directory.path().join("log.sock")).unwrap();
    statsd.set_nonblocking(true).unwrap();
    syslog.set_nonblocking(true).unwrap();
    let free_udp = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let file = directory.path().join("egress.toml");
    let text = format!(
        "[link]\nname = \"t\"\nid = 1\nseal = \"none\"\nlisten = \"{free_udp}\"\nstate_dir = \"state\"\n\
         [sink.kafka]\nbrokers = [\"127.0.0.1:1\"]\ndrain_timeout = \"1s\"\n[admin]\nlisten = \"{admin}\"\n\
         [telemetry]\nsite = \"north\"\nstatsd = [\"{}\"]\nsyslog = [\"unixgram://{}/log.sock\"]\nsyslog_facility = \"local3\"\n",
        statsd.local_addr().unwrap(),
        directory.path().display(),
    );
    std::fs::write(&file, text).unwrap();

    let egress = Egress::start(&file);
    let begun = until("the admin listener answers", || ask(admin, "POST /maintenance?for=2h&by=test"));
    assert!(begun.starts_with("HTTP/1.1 200") && begun.contains("\"by\":\"test (127.0.0.1:"), "{begun}");
    let (mut lines, mut messages) = (String::new(), String::new());
    until("StatsD says that the link is maintained and not ready", || {
        lines += &drain(|buffer| statsd.recv(buffer));
        let tags = "|g|#site:north,link:t,side:egress";
        let told = |name: &str| lines.lines().any(|line| line == format!("{name}{tags}"));
        (told("ddc.link_maintenance:1") && told("ddc.ready:0")).then_some(())
    });
    assert!(lines.contains("ddc.process_ticks:") && lines.contains("process:egress-t"), "{lines}");
    assert_eq!(egress.stop(), Some(0));
    messages += &drain(|buffer| syslog.recv(buffer));
    // local3 is 19; INFO is 6, WARN is 4.
    for part in [
        "<158>1 ",
        "<156>1 ",
        " ddc-egress ",
        "[ddc@32473 ",
        "site=\"north\"",
        "egress started",
        "maintenance has begun",
    ] {
        assert!(messages.contains(part), "{part}: {messages}");
    }
    assert!(messages.contains("stopping: draining"), "the end is told too: {messages}");

    let egress = Egress::start(&file);
    let kept = until("the admin listener answers", || ask(admin, "GET /maintenance"));
    assert!(kept.contains("\"by\":\"test (127.0.0.1:"), "{kept}");
    assert!(ask(admin, "DELETE /maintenance").unwrap().ends_with("{\"maintenance\":null}\n"));
    assert_eq!(egress.stop(), Some(0));
    let egress = Egress::start(&file);
    let gone = until("the admin listener answers", || ask(admin, "GET /status"));
    assert!(gone.contains("\"maintenance\":null"), "{gone}");
    assert_eq!(egress.stop(), Some(0));
}
