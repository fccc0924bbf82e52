//! The admin listener over real sockets, asked by hand-written HTTP.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use super::*;
use crate::config::Side;
use crate::state::StateDir;

/// A state that can be switched.
struct Switch {
    broken: AtomicBool,
    seconds: AtomicU64,
    maintenance: Maintenance,
    /// What only an ingress has.
    orders: Option<(Rewinds, Pauses)>,
    _directory: tempfile::TempDir,
}

impl Switch {
    fn new(ingress: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = Arc::new(StateDir::open(directory.path()).unwrap());
        let maintenance = Maintenance::open("plant-a", Side::Ingress, Arc::clone(&state), Instant::now(), 0);
        let orders =
            ingress.then(|| (crate::rewind::tests::rewinds(), Pauses::open("plant-a", state).unwrap()));
        Self {
            orders,
            broken: AtomicBool::new(false),
            seconds: AtomicU64::new(0),
            maintenance,
            _directory: directory,
        }
    }
}

impl AdminState for Switch {
    fn health(&self) -> Result<(), String> {
        if self.broken.load(Ordering::SeqCst) {
            Err("the link thread stands still".to_owned())
        } else {
            Ok(())
        }
    }

    fn ready(&self) -> Result<(), Vec<String>> {
        self.health().map_err(|_| vec!["no broker answers".to_owned(), "no partition is assigned".to_owned()])
    }

    fn metrics(&self) -> String {
        "# TYPE ddc_process_ticks_total counter\nddc_process_ticks_total 7\n".to_owned()
    }

    fn status(&self) -> serde_json::Value {
        serde_json::json!({ "link": "plant-a", "side": "ingress" })
    }

    fn maintenance(&self) -> &Maintenance {
        &self.maintenance
    }

    fn rewinds(&self) -> Option<&Rewinds> {
        self.orders.as_ref().map(|(rewinds, _)| rewinds)
    }

    fn pauses(&self) -> Option<&Pauses> {
        self.orders.as_ref().map(|(_, pauses)| pauses)
    }

    fn pause_status(&self) -> Option<serde_json::Value> {
        Some(self.pauses()?.status(2))
    }

    fn each_second(&self) -> Result<(), Vec<String>> {
        self.seconds.fetch_add(1, Ordering::SeqCst);
        self.ready()
    }
}

/// A server on its own thread.
struct Running {
    address: SocketAddr,
    state: Arc<Switch>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

fn start(socket: Option<&Path>) -> Running {
    start_as(Switch::new(false), socket)
}

fn start_as(state: Switch, socket: Option<&Path>) -> Running {
    let state = Arc::new(state);
    let admin = Admin { listen: Some("127.0.0.1:0".parse().unwrap()), socket: socket.map(Path::to_owned) };
    let server = AdminServer::bind(&admin, state.clone()).unwrap();
    let address = server.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime
            .block_on(server.run(async {
                let _ = stopped.await;
            }))
            .unwrap();
    });
    Running { address, state, stop: Some(stop), thread: Some(thread) }
}

impl Running {
    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    fn ask(&self, request: &str) -> String {
        talk(TcpStream::connect(self.address).unwrap(), request)
    }

    fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

fn talk(mut stream: impl Read + Write, request: &str) -> String {
    // A server that refuses early may close before everything is written.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn code(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

#[test]
fn every_page_answers() {
    let server = start(None);
    assert_eq!((code(&server.get("/healthz")), body(&server.get("/healthz"))), ("200", "ok\n"));
    assert_eq!(body(&server.get("/readyz")), "ready\n");
    assert!(server.get("/metrics").contains("content-type: text/plain; version=0.0.4"));
    assert!(body(&server.get("/metrics")).ends_with("ddc_process_ticks_total 7\n"));
    assert_eq!(body(&server.get("/status")), "{\"link\":\"plant-a\",\"side\":\"ingress\"}\n");
    assert!(server.get("/status").contains("cache-control: no-store"));

    server.state.broken.store(true, Ordering::SeqCst);
    let sick = server.get("/healthz");
    assert_eq!((code(&sick), body(&sick)), ("503", "the link thread stands still\n"));
    let text = server.get("/readyz");
    assert_eq!(code(&text), "503");
    assert_eq!(body(&text), "not ready\nno broker answers\nno partition is assigned\n");
    let json = server
        .ask("GET /readyz HTTP/1.1\r\nhost: x\r\naccept: application/json\r\nconnection: close\r\n\r\n");
    assert_eq!(code(&json), "503");
    let json: serde_json::Value = serde_json::from_str(body(&json)).unwrap();
    assert_eq!(json["reasons"][1], "no partition is assigned");
    assert_eq!(json["ready"], false);
}

#[test]
fn what_is_not_there_and_what_is_not_http() {
    let server = start(None);
    assert_eq!(code(&server.get("/")), "404");
    assert_eq!(code(&server.get("/status/../../etc/passwd")), "404");
    let posted =
        server.ask("POST /status HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi");
    assert_eq!(code(&posted), "405");
    assert!(posted.contains("allow: GET,HEAD"), "{posted}");
    assert_eq!(code(&server.ask("GARBAGE\r\n\r\n")), "400");
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(100_000));
    assert!(matches!(code(&server.ask(&long)), "414" | "431" | "none"), "a long request is refused");
    // A client that leaves in the middle of a request harms nobody.
    let mut half = TcpStream::connect(server.address).unwrap();
    half.write_all(b"GET /sta").unwrap();
    half.shutdown(Shutdown::Both).unwrap();
    assert_eq!(code(&server.get("/healthz")), "200");
}

/// Clients that send nothing are thrown out after 5 s, and never more than 64 are held: others are served afterwards.
#[test]
fn slow_clients_do_not_block_others_for_ever() {
    let server = start(None);
    let silent: Vec<TcpStream> = (0..MAX_CONNECTIONS)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address).unwrap();
            stream.write_all(b"GET /").unwrap();
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    assert_eq!(code(&server.get("/healthz")), "200");
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(2), "all places were taken: {waited:?}");
    assert!(waited < Duration::from_secs(9), "{waited:?}");
    drop(silent);
}

#[test]
fn a_stop_is_quick_and_removes_the_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.sock");
    let mut server = start(Some(&path));
    let request = "GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    assert_eq!(code(&talk(UnixStream::connect(&path).unwrap(), request)), "200");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
    // An idle connection does not hold the stop up.
    let idle = TcpStream::connect(server.address).unwrap();
    let began = Instant::now();
    server.stop();
    assert!(began.elapsed() < DRAIN_TIME + Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(!path.exists());
    assert!(TcpStream::connect(server.address).is_err());
    drop(idle);
}

#[test]
fn only_a_dead_socket_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let bind = |path: &Path| {
        let admin = Admin { listen: None, socket: Some(path.to_owned()) };
        AdminServer::bind(&admin, Arc::new(Switch::new(false)))
            .err()
            .map(|error| error.to_string().replace(&directory.path().display().to_string(), "DIR"))
    };
    let stale = directory.path().join("stale.sock");
    drop(StdUnixListener::bind(&stale).unwrap());
    assert!(stale.exists());
    assert_eq!(bind(&stale), None);
    assert!(!stale.exists(), "gone with its server");

    let alive = directory.path().join("alive.sock");
    let _listener = StdUnixListener::bind(&alive).unwrap();
    assert_eq!(
        bind(&alive).as_deref(),
        Some(
            "admin socket DIR/alive.sock: another process answers on it; stop that one or choose another path"
        )
    );
    assert!(alive.exists());

    let file = directory.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert_eq!(
        bind(&file).as_deref(),
        Some("admin socket DIR/file: something else has this path; remove it or choose another path")
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");

    let nowhere = bind(&directory.path().join("none/a.sock")).unwrap();
    assert!(nowhere.ends_with("; run: mkdir -p DIR/none"), "{nowhere}");
}

#[test]
fn addresses_that_cannot_be_served_are_refused() {
    let refused = |address: &str| {
        let admin = Admin { listen: Some(address.parse().unwrap()), socket: None };
        AdminServer::bind(&admin, Arc::new(Switch::new(false)))
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    assert_eq!(
        refused("0.0.0.0:0"),
        "admin listener 0.0.0.0:0: only loopback addresses are served without TLS and authentication"
    );
    let taken = StdTcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let message = refused(&address);
    assert!(message.contains("; choose another port in [admin] listen"), "{message}");
}

fn change(server: &Running, method: &str, path: &str, headers: &str) -> String {
    server.ask(&format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n"
    ))
}

const ON_PURPOSE: &str = "x-ddc-request: 1\r\n";

#[test]
fn maintenance_is_begun_shown_and_ended() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let server = start(Some(&socket));
    assert_eq!(body(&server.get("/maintenance")), "{\"maintenance\":null}\n");

    let begun = change(&server, "POST", "/maintenance?for=2h&by=ops", ON_PURPOSE);
    assert_eq!(code(&begun), "200", "{begun}");
    let json: serde_json::Value = serde_json::from_str(body(&server.get("/maintenance"))).unwrap();
    let by = json["maintenance"]["by"].as_str().unwrap();
    assert!(by.starts_with("ops (127.0.0.1:"), "{by}");
    assert!((7190..=7200).contains(&json["maintenance"]["seconds_left"].as_u64().unwrap()), "{json}");
    assert_eq!(server.state.seconds.load(Ordering::SeqCst), 1, "the metric moves with the answer");

    // On a Unix socket the kernel tells who asks.
    let request = format!(
        "POST /maintenance?for=1min HTTP/1.1\r\nhost: x\r\n{ON_PURPOSE}content-length: 0\r\nconnection: close\r\n\r\n"
    );
    let begun = talk(UnixStream::connect(&socket).unwrap(), &request);
    assert!(body(&begun).contains("\"by\":\"uid "), "{begun}");

    let ended = change(&server, "DELETE", "/maintenance", ON_PURPOSE);
    assert_eq!((code(&ended), body(&ended)), ("200", "{\"maintenance\":null}\n"));
    assert!(server.state.maintenance.current(Instant::now()).is_none());
    assert_eq!(code(&change(&server, "DELETE", "/maintenance", ON_PURPOSE)), "200", "ended is ended");
}

/// What a page in an operator's browser can send changes nothing.
#[test]
fn a_web_page_begins_and_ends_nothing() {
    let server = start(None);
    for (headers, why) in [
        ("", "needs the header x-ddc-request: 1"),
        ("x-ddc-request: yes\r\n", "needs the header x-ddc-request: 1"),
        (
            "content-type: text/plain\r\nsec-fetch-site: cross-site\r\norigin: http://evil.example\r\n",
            "a web page may not",
        ),
        // By a name that leads to 127.0.0.1, a page is of the same site and may set headers.
        ("x-ddc-request: 1\r\norigin: http://evil.example:9641\r\n", "a web page may not"),
    ] {
        for (method, page) in [
            ("POST", "/maintenance?for=2h"),
            ("DELETE", "/maintenance?for=2h"),
            ("POST", "/v1/replay"),
            ("DELETE", "/v1/replay/x"),
            ("POST", "/v1/rewind"),
            ("POST", "/v1/pause"),
            ("POST", "/v1/resume"),
        ] {
            let answer = change(&server, method, page, headers);
            assert_eq!(code(&answer), "403", "{method} {page} {headers}");
            assert!(body(&answer).contains(why), "{answer}");
        }
    }
    // A browser asks before it sends a header of ours across sites; it is told no.
    let asked = change(
        &server,
        "OPTIONS",
        "/maintenance",
        "origin: http://evil.example\r\naccess-control-request-headers: x-ddc-request\r\n",
    );
    assert_eq!(code(&asked), "405");
    assert!(!asked.to_lowercase().contains("access-control-allow"), "{asked}");
    assert!(server.state.maintenance.current(Instant::now()).is_none());
    assert_eq!(server.state.seconds.load(Ordering::SeqCst), 0);
}

#[test]
fn a_side_without_replays_says_where_to_ask() {
    let server = start(None);
    for page in ["/v1/replay", "/v1/replay/x"] {
        let answer = server.get(page);
        assert!(code(&answer) == "404" && body(&answer).contains("ask the ingress"), "{answer}");
    }
    for (method, page) in [("POST", "/v1/replay"), ("DELETE", "/v1/replay/x")] {
        let answer = change(&server, method, page, ON_PURPOSE);
        assert!(code(&answer) == "404" && body(&answer).contains("ask the ingress"), "{answer}");
    }
    assert_eq!(code(&change(&server, "PUT", "/v1/replay", ON_PURPOSE)), "405");
}

#[test]
fn a_wrong_length_is_refused_with_an_example() {
    let server = start(None);
    for (query, why) in [
        ("", "`for` is missing"),
        ("?for=2", "is no duration"),
        ("?for=59s", "it can be 1 min to 7 d"),
        ("?for=8d", "it can be 1 min to 7 d"),
        ("?for=2h&by=%0a", "is no name"),
    ] {
        let answer = change(&server, "POST", &format!("/maintenance{query}"), ON_PURPOSE);
        assert_eq!(code(&answer), "400", "{answer}");
        assert!(body(&answer).contains(why), "{query}: {answer}");
    }
    assert_eq!(code(&change(&server, "PUT", "/maintenance?for=2h", ON_PURPOSE)), "405");
}

/// Asks with a body.
fn order(server: &Running, page: &str, body: &str) -> String {
    let length = body.len();
    server.ask(&format!(
        "POST {page} HTTP/1.1\r\nhost: x\r\n{ON_PURPOSE}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    ))
}

#[test]
fn a_rewind_is_asked_for_once_and_hostile_ones_are_refused() {
    let server = start_as(Switch::new(true), None);
    let huge = format!("{{\"since\": \"20s\", \"by\": \"{}\"}}", "a".repeat(10 << 20));
    for (body, expected, why) in [
        ("", "400", "for example"),
        ("{\"since\": \"-1\"}", "400", "neither a duration"),
        ("{\"since\": \"1e9y\"}", "400", "neither a duration"),
        ("{\"since\": \"20s\", \"topics\": [\"nobody\"]}", "400", "not carried"),
        ("{\"since\": \"20s\", \"evil\": 1}", "400", "unknown field"),
        (&huge[..600 << 10], "413", "512 KiB"),
    ] {
        let answer = order(&server, "/v1/rewind", body);
        assert!(code(&answer) == expected && body_has(&answer, why), "{why}: {answer}");
    }
    // Whoever goes on writing after the refusal may not hear it; nobody else is harmed.
    assert!(matches!(code(&order(&server, "/v1/rewind", &huge)), "413" | "none"));
    let asked = "{\"since\": \"20s\", \"id\": \"a\"}";
    assert_eq!(code(&order(&server, "/v1/rewind", asked)), "202");
    assert_eq!(code(&order(&server, "/v1/rewind", asked)), "200", "the same again");
    assert_eq!(code(&order(&server, "/v1/rewind", "{\"since\": \"21s\", \"id\": \"a\"}")), "422");
    assert_eq!(code(&order(&server, "/v1/rewind", "{\"since\": \"20s\"}")), "409", "one at a time");
    assert!(body_has(&server.get("/v1/rewind/a"), "\"asked\""));
    assert!(body_has(&server.get("/v1/rewind"), "\"since\":\"20s\""));
    assert_eq!(code(&server.get("/v1/rewind/b")), "404");
}

fn body_has(answer: &str, words: &str) -> bool {
    body(answer).contains(words)
}

#[test]
fn pauses_are_ordered_shown_and_withdrawn() {
    let server = start_as(Switch::new(true), None);
    let pauses = server.state.pauses().unwrap();
    assert!(body_has(&server.get("/v1/pause"), "\"state\":\"running\""));
    for (page, body, expected, why) in [
        ("/v1/pause", "{\"since\": \"-1s\"}", "400", "neither a duration"),
        ("/v1/pause", "{\"fence\": -1}", "400", "no order"),
        ("/v1/pause", "{\"all\": true}", "400", "not known here"),
        ("/v1/resume", "{\"since\": \"1s\"}", "400", "not known here"),
    ] {
        let answer = order(&server, page, body);
        assert!(code(&answer) == expected && body_has(&answer, why), "{answer}");
    }
    assert_eq!(code(&order(&server, "/v1/pause", &"x".repeat(10_000))), "413");
    assert!(!pauses.is_paused());
    // Nobody plays the source here: it is ordered, and not done.
    let answer = order(&server, "/v1/pause", "{\"by\": \"c\", \"fence\": 7}");
    assert!(code(&answer) == "202" && body_has(&answer, "\"state\":\"pausing\""), "{answer}");
    pauses.set_left(true);
    let answer = order(&server, "/v1/pause", "");
    assert!(code(&answer) == "200" && body_has(&answer, "\"state\":\"paused\""), "{answer}");
    assert!(body_has(&answer, "\"by\":\"operator\""), "{answer}");
    assert_eq!(code(&order(&server, "/v1/pause", "{\"by\": \"c\", \"fence\": 6}")), "409");
    assert_eq!(code(&order(&server, "/v1/resume", "{\"by\": \"d\"}")), "409");
    assert_eq!(code(&order(&server, "/v1/resume", "{\"by\": \"c\", \"fence\": 7}")), "200", "still paused");
    pauses.set_left(false);
    assert_eq!(code(&order(&server, "/v1/resume", "{\"all\": true}")), "200");
    assert!(!pauses.is_paused());
}

#[test]
fn a_side_that_cannot_go_back_says_so() {
    let server = start(None);
    for page in ["/v1/rewind", "/v1/rewind/x", "/v1/pause"] {
        assert_eq!(code(&server.get(page)), "404", "{page}");
    }
    for page in ["/v1/rewind", "/v1/pause", "/v1/resume"] {
        assert_eq!(code(&order(&server, page, "{}")), "404", "{page}");
    }
}

/// No listener grants less than `operate` today; one that does is obeyed.
#[test]
fn a_role_that_is_not_granted_is_refused() {
    use hyper::service::Service;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ask = |granted: Option<Role>, method: &str, page: &str| {
        let request = axum::http::Request::builder().method(method).uri(page);
        let request = request.header("x-ddc-request", "1").body(axum::body::Body::from("{}")).unwrap();
        let mut router = router(Arc::new(Switch::new(true))).layer(Extension(Peer("test".into())));
        if let Some(role) = granted {
            router = router.layer(Extension(Granted(role)));
        }
        runtime.block_on(TowerToHyperService::new(router).call(request)).unwrap().status().as_u16()
    };
    for (granted, method, page, expected) in [
        (Some(Role::Read), "GET", "/status", 200),
        (Some(Role::Read), "POST", "/v1/rewind", 403),
        (Some(Role::Read), "POST", "/v1/resume", 403),
        (Some(Role::Fence), "POST", "/v1/resume", 200),
        (Some(Role::Fence), "POST", "/v1/rewind", 400),
        (Some(Role::Fence), "POST", "/v1/replay", 403),
        (Some(Role::Fence), "DELETE", "/v1/replay/x", 403),
        (Some(Role::Fence), "DELETE", "/maintenance", 403),
        (Some(Role::Operate), "DELETE", "/maintenance", 200),
        (None, "GET", "/status", 403),
    ] {
        assert_eq!(ask(granted, method, page), expected, "{granted:?} {method} {page}");
    }
}
