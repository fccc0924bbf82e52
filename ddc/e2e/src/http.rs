//! A question over HTTP to a listener on loopback, as plain as can be: one connection, one answer, read to its end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The largest answer that is read; a Prometheus page of hundreds of links has a few MiB.
const LARGEST: u64 = 64 << 20;

/// Which HTTP is spoken. With 1.0 no server answers in chunks; with 1.1 ours must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1, `Connection: close`.
    Http11,
}

/// An answer: status code, head (status line and headers), body.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// Status line and headers.
    pub head: String,
    /// The body as it came.
    pub body: String,
}

/// Asks for `path`. An error: nobody answers, not within `patience`, or not in HTTP and UTF-8.
pub fn get(port: u16, path: &str, version: Version, patience: Duration) -> Result<Answer, String> {
    let told = |error: std::io::Error| error.to_string();
    let version = match version {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
    };
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(told)?;
    stream.set_read_timeout(Some(patience)).map_err(told)?;
    let request = format!("GET {path} {version}\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(told)?;
    let mut answer = String::new();
    stream.take(LARGEST).read_to_string(&mut answer).map_err(told)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("an answer without a head")?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or("no status code")?;
    Ok(Answer { code, head: head.to_owned(), body: body.to_owned() })
}
