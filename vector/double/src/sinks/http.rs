//! As much of HTTP/1.1 as a scrape needs: one request per connection, heads of at most 8 KiB, at most 32 connections at once, 5 s for each.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const MAX_HEAD: usize = 8 * 1024;
const MAX_CONNECTIONS: usize = 32;
const PATIENCE: Duration = Duration::from_secs(5);

/// A request, as far as it is looked at.
pub(crate) struct Request {
    pub(crate) method: String,
    /// Without the query.
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
}

/// What is answered.
pub(crate) struct Answer {
    /// For example `200 OK`.
    pub(crate) status: &'static str,
    /// Whole header lines.
    pub(crate) header: &'static str,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn not_found() -> Self {
        Self { status: "404 Not Found", header: "", body: String::new() }
    }
}

/// Binds and serves on a thread of its own.
pub(crate) fn serve(
    address: &str,
    stop: &Arc<AtomicBool>,
    handler: impl Fn(&Request) -> Answer + Send + Sync + 'static,
) -> Result<(), String> {
    let listener =
        TcpListener::bind(address).map_err(|error| format!("cannot listen on tcp {address}: {error}"))?;
    let (stop, handler) = (stop.clone(), Arc::new(handler));
    let open = Arc::new(AtomicUsize::new(0));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let Ok(stream) = stream else { continue };
            if open.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
                open.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let (handler, open) = (handler.clone(), open.clone());
            std::thread::spawn(move || {
                // The peer may be gone: nobody to tell.
                let _ = exchange(stream, &*handler);
                open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    Ok(())
}

fn exchange(mut stream: TcpStream, handler: &(dyn Fn(&Request) -> Answer + Sync)) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let length = stream.read(&mut buffer)?;
        if length == 0 || head.len() > MAX_HEAD {
            return Ok(());
        }
        head.extend_from_slice(&buffer[..length]);
    }
    let head = String::from_utf8_lossy(&head);
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let mut word = || words.next().unwrap_or_default().to_owned();
    let (method, target) = (word(), word());
    let authorization = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("authorization"))
        .map(|(_, value)| value.trim().to_owned());
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let answer = handler(&Request { method, path, authorization });
    let Answer { status, header, body } = answer;
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{header}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    stream.flush()
}
