//! `ddc top`, the real binary: against recorded pages, hostile listeners, a real egress, and on a real terminal (a pty).

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;

const EGRESS: [&str; 2] = [
    include_str!("../src/commands/top/fixtures/egress-1.prom"),
    include_str!("../src/commands/top/fixtures/egress-2.prom"),
];
const INGRESS: [&str; 2] = [
    include_str!("../src/commands/top/fixtures/ingress-1.prom"),
    include_str!("../src/commands/top/fixtures/ingress-2.prom"),
];

fn ddc() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ddc"));
    command.env_remove("NO_COLOR").env("http_proxy", "http://127.0.0.1:9");
    command
}

fn top(arguments: &[&str]) -> (i32, String, String) {
    let output = ddc().arg("top").args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// What a listener does with a connection whose request named this path.
type Serve = Arc<dyn Fn(&str, &mut dyn Stream) + Send + Sync>;

fn served(mut stream: impl Stream + 'static, serve: &Serve) {
    let serve = Arc::clone(serve);
    thread::spawn(move || {
        let mut request = [0; 2048];
        let read = stream.read(&mut request).unwrap_or(0);
        let request = String::from_utf8_lossy(&request[..read]).into_owned();
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        serve(&path, &mut stream);
    });
}

/// A listener on TCP for the rest of the test; its address.
fn tcp(serve: Serve) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || listener.incoming().for_each(|stream| served(stream.unwrap(), &serve)));
    address
}

/// A listener on a Unix socket.
fn unix(path: &Path, serve: Serve) -> String {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || listener.incoming().for_each(|stream| served(stream.unwrap(), &serve)));
    format!("unix:{}", path.display())
}

fn http(code: &str, body: &str) -> String {
    format!("HTTP/1.1 {code}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

/// The first page once, the second one from then on.
fn recorded(pages: [&'static str; 2], status: &'static str, ready: &'static str) -> Serve {
    let asked = AtomicUsize::new(0);
    Arc::new(move |path, stream| {
        let answer = match path {
            "/metrics" => http("200 OK", pages[asked.fetch_add(1, Ordering::Relaxed).min(1)]),
            "/status" => http("200 OK", status),
            "/readyz" if ready.contains("true") => http("200 OK", ready),
            "/readyz" => http("503 Service Unavailable", ready),
            _ => http("404 Not Found", ""),
        };
        let _ = stream.write_all(answer.as_bytes());
    })
}

fn ingress() -> Serve {
    let status = include_str!("../src/commands/top/fixtures/ingress-status.json");
    recorded(INGRESS, status, "{\"ready\":true,\"reasons\":[]}")
}

fn egress() -> Serve {
    let status = include_str!("../src/commands/top/fixtures/egress-status.json");
    recorded(EGRESS, status, "{\"ready\":false,\"reasons\":[\"broker \\u001b[31maway\"]}")
}

fn once(addresses: &[&str], more: &[&str]) -> (i32, Value, String) {
    let mut arguments = vec!["--once", "--json", "--interval", "200ms"];
    arguments.extend(more);
    arguments.extend(addresses);
    let (code, out, errors) = top(&arguments);
    (code, serde_json::from_str(&out).unwrap_or_default(), errors)
}

#[test]
fn both_sides_over_tcp_and_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let (ingress, egress) = (tcp(ingress()), unix(&directory.path().join("e.sock"), egress()));
    let (code, view, errors) = once(&[&ingress, &egress], &[]);
    assert_eq!((code, errors.as_str()), (0, ""));
    assert_eq!(view["links"].as_array().unwrap().len(), 1, "{view}");
    let link = &view["links"][0];
    assert_eq!((&link["link"], &link["state"]), (&"plant-a".into(), &"not_ready".into()));
    let (ingress, egress) = (&link["ingress"], &link["egress"]);
    // 2000 records in at least 200 ms; on a busy machine in more, never in much less.
    let rate = egress["records_per_second"].as_f64().unwrap();
    assert!((100.0..=14_000.0).contains(&rate), "{rate}");
    assert_eq!(egress["loss"]["path"]["total"], 130);
    assert_eq!(egress["loss"]["path_ratio"], 0.1);
    assert_eq!((&ingress["state"], &ingress["lag_records"]), (&"ready".into(), &15.into()));
    assert_eq!(egress["reasons"][0], "broker ?[31maway");
    assert_eq!(egress["gaps"][0]["first"], 120);
}

#[test]
fn the_table_names_what_is_wrong_and_steers_no_terminal() {
    let hostile: Serve = Arc::new(|path, stream| {
        let page = "ddc_ready{link=\"a\u{1b}]0;x\u{7}\",side=\"egress\"} 1\nddc_ready{link=\"\u{9b}2J\",side=\"ingress\"} 1\n";
        let body = if path == "/metrics" {
            page
        } else {
            "{\"side\":\"egress\",\"link\":{\"name\":\"\\u001b[2J\"}}"
        };
        let _ = stream.write_all(http("200 OK", body).as_bytes());
    });
    let (egress, hostile) = (tcp(egress()), tcp(hostile));
    let (code, out, errors) = top(&["--once", "--interval", "100ms", &egress, &hostile, "127.0.0.1:1"]);
    assert_eq!((code, errors.as_str()), (0, ""));
    assert!(out.starts_with("LINK ") && out.contains("\nplant-a  "), "{out}");
    assert!(out.contains("plant-a: egress: broker ?[31maway\n"), "{out}");
    assert!(out.contains("127.0.0.1:1: nothing listens there (connection refused)\n"), "{out}");
    assert!(out.contains("\na?]0;x?") && !out.chars().any(|c| c.is_control() && c != '\n'), "{out:?}");
}

#[test]
fn hostile_listeners_are_told_apart_and_hold_up_nobody() {
    let raw = |bytes: &'static [u8]| -> Serve {
        Arc::new(move |_, stream| {
            let _ = stream.write_all(bytes);
        })
    };
    let silent: Serve = Arc::new(|_, stream| {
        // Until the client gives up.
        let _ = stream.read(&mut [0; 1]);
        thread::sleep(Duration::from_secs(8));
    });
    let endless: Serve = Arc::new(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        let lines = "ddc_x 1\n".repeat(8192);
        while stream.write_all(lines.as_bytes()).is_ok() {}
    });
    let redirect: Serve = Arc::new(|_, stream| {
        let _ = stream
            .write_all(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n");
    });
    let addresses = [
        tcp(egress()),
        tcp(silent),
        tcp(endless),
        tcp(redirect),
        tcp(raw(b"SSH-2.0-OpenSSH_9.2\r\n")),
        tcp(raw(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n\xff\xfe\x00\x01")),
        tcp(raw(b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n<html>up 1\n\n\n\n")),
        tcp(raw(b"")),
    ];
    let start = Instant::now();
    let (code, view, _) = once(&addresses.each_ref().map(String::as_str), &[]);
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
    assert_eq!(code, 0, "one has answered");
    let problems: Vec<&str> = view["listeners"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["problem"].as_str().unwrap_or("none"))
        .collect();
    let expected = [
        "none",
        "no answer within 3 s",
        "its /metrics is larger than 8 MiB",
        "it answers /metrics with HTTP 302",
        "it does not answer in HTTP",
        "its /metrics is not UTF-8 text",
        "it answers, but not with ddc's metrics",
        "it does not answer in HTTP",
    ];
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.starts_with(expected), "{problem:?}, expected {expected:?}; all: {problems:?}");
    }
    assert!(view["links"][0]["egress"]["records_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn exit_codes() {
    let (code, out, errors) = top(&["127.0.0.1:1"]);
    assert_eq!((code, out.as_str()), (64, ""), "standard output is no terminal");
    assert!(errors.contains("--once --json"), "{errors}");
    assert_eq!(top(&["--json", "127.0.0.1:1"]).0, 64);
    assert_eq!(top(&["--once", "--interval", "1ms"]).0, 64);
    assert_eq!(top(&["--once", "https://127.0.0.1:1"]).0, 64);
    assert_eq!(top(&["--once", "-c", "no-such-file.toml"]).0, 78);
    let (code, out, errors) = top(&["--once", "--json", "127.0.0.1:1", "unix:/nowhere/x.sock"]);
    assert_eq!((code, out.as_str()), (69, ""));
    assert_eq!(errors.lines().count(), 2, "{errors}");
    assert!(errors.contains("ddc: unix:/nowhere/x.sock: nothing listens there"), "{errors}");
}

/// Ends what it holds when the test ends, also by a panic.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_real_egress_by_its_configuration_file() {
    let directory = tempfile::tempdir().unwrap();
    let key = ddc().current_dir(directory.path()).args(["keygen", "--out", "a.key"]).output().unwrap();
    assert!(key.status.success());
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let admin = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = format!(
        "[link]\nname = \"plant-a\"\nid = 1\nlisten = \"127.0.0.1:{port}\"\nstate_dir = \"state\"\n\
         [[link.keys]]\nid = 1\nfile = \"a.key\"\n[sink.kafka]\nbrokers = [\"127.0.0.1:1\"]\n\
         [admin]\nlisten = \"127.0.0.1:{admin}\"\n"
    );
    std::fs::write(directory.path().join("egress.toml"), file).unwrap();
    let mut command = ddc();
    command.current_dir(directory.path()).args(["egress", "-c", "egress.toml"]);
    let _egress = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let path = directory.path().join("egress.toml");
    let end = Instant::now() + Duration::from_secs(20);
    let view = loop {
        let (code, view, errors) = once(&[], &["-c", path.to_str().unwrap()]);
        if code == 0 && view["links"][0]["egress"]["process_cpu_ratio"].is_number() {
            break view;
        }
        assert!(Instant::now() < end, "{code} {errors} {view}");
        thread::sleep(Duration::from_millis(50));
    };
    let (link, egress) = (&view["links"][0], &view["links"][0]["egress"]);
    assert_eq!((&link["link"], &egress["state"]), (&"plant-a".into(), &"not_ready".into()));
    assert!(egress["reasons"].to_string().contains("no heartbeat of an ingress has come"), "{egress}");
    assert!(link["ingress"].is_null() && egress["heartbeat"]["seen"] == false);
    assert!(egress["process_memory_bytes"].as_u64().unwrap() > 1_000_000);
    assert_eq!(
        (&egress["loss"]["missing_records"]["total"], &egress["records_per_second"]),
        (&0.into(), &0.into())
    );
}

/// `ddc top` on a terminal of 80 × 24.
struct Terminal {
    child: Running,
    keys: File,
    shown: std::sync::mpsc::Receiver<Vec<u8>>,
    so_far: String,
}

impl Terminal {
    fn start(arguments: &[&str], color: bool) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        tcsetwinsize(&master, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = File::options().read(true).write(true).open(name).unwrap();
        let mut command = ddc();
        command.arg("top").args(arguments).env("TERM", "xterm-256color");
        if !color {
            command.env("NO_COLOR", "1");
        }
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
        let child = Running(command.spawn().unwrap());
        // Our copies of the terminal's end in `command` go, so that reading ends when the child does.
        drop(command);
        let mut screen = File::from(master.try_clone().unwrap());
        let (sender, shown) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = screen.read(&mut bytes) {
                let _ = sender.send(bytes[..read].to_vec());
            }
        });
        Self { child, keys: File::from(master), shown, so_far: String::new() }
    }

    /// Waits until `text` was shown, and forgets what came before.
    fn wait_for(&mut self, text: &str) -> String {
        let end = Instant::now() + Duration::from_secs(20);
        while !self.so_far.contains(text) {
            let left = end.saturating_duration_since(Instant::now());
            let bytes = self.shown.recv_timeout(left);
            let bytes = bytes.unwrap_or_else(|_| panic!("{text:?} was not shown, but {:?}", self.so_far));
            self.so_far += &String::from_utf8_lossy(&bytes);
        }
        std::mem::take(&mut self.so_far)
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// The exit code, after the terminal was given back.
    fn end(mut self) -> i32 {
        self.wait_for("\u{1b}[?1049l");
        self.child.0.wait().unwrap().code().unwrap()
    }
}

#[test]
fn on_a_terminal_keys_are_served_while_a_listener_hangs() {
    let hanging: Serve = Arc::new(|_, stream| {
        let _ = stream.read(&mut [0; 1]);
        thread::sleep(Duration::from_mins(1));
    });
    let (egress, hanging) = (tcp(egress()), tcp(hanging));
    let mut terminal = Terminal::start(&["--interval", "200ms", &egress, &hanging], true);
    let first = terminal.wait_for("plant-a");
    assert!(first.contains("\u{1b}[?1049h"), "the alternate screen");
    let start = Instant::now();
    terminal.press("\r");
    terminal.wait_for("RATE");
    terminal.press("?");
    terminal.wait_for("picture;");
    terminal.press("q");
    assert_eq!(terminal.end(), 0);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn sigterm_gives_the_terminal_back_and_no_color_is_obeyed() {
    let address = tcp(egress());
    let mut terminal = Terminal::start(&["--interval", "200ms", &address], false);
    let shown = terminal.wait_for("not ready");
    for color in ["\u{1b}[38;5;", "\u{1b}[33m", "\u{1b}[31m"] {
        assert!(!shown.contains(color), "{shown:?}");
    }
    let process = rustix::process::Pid::from_child(&terminal.child.0);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    assert_eq!(terminal.end(), 0);
}
