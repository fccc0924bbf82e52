//! The other end of the admin listener: one question to a running link, as probes and checks ask it.
//!
//! Bounded in time and size, and without a runtime: a container's probe starts a process for each question.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::maintenance::GUARD;

/// How long connecting, asking and each part of the answer may take: a probe must be quick.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// The longest answer that is read; the longest of ours is `/status`, some kilobytes.
const LONGEST_ANSWER: u64 = 1024 * 1024;

/// The longest answer about a replay: a line for each of its ranges, and what is gone.
const LONGEST_REPORT: u64 = 32 * 1024 * 1024;

/// Where an admin listener is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `[admin] listen`.
    Tcp(SocketAddr),
    /// `[admin] socket`.
    Unix(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// What came back: the status code and the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP's status code.
    pub code: u16,
    /// The body.
    pub body: String,
}

/// Asks for `path`, such as `/readyz`. `None`: what answered does not speak HTTP.
pub fn get(place: &Place, path: &str) -> io::Result<Option<Answer>> {
    exchange(place, &head("GET", path, "accept: text/plain\r\n"), LONGEST_ANSWER)
}

/// Asks for something else than a page: `POST` with a body of JSON, `DELETE`, or a `GET` with a long answer.
pub fn ask_for(place: &Place, method: &str, path: &str, body: Option<&[u8]>) -> io::Result<Option<Answer>> {
    let length = body
        .map(|body| format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()))
        .unwrap_or_default();
    // What changes something must be meant: no web page can send this header.
    let mut request = head(method, path, &format!("{GUARD}: 1\r\n{length}"));
    request.extend_from_slice(body.unwrap_or_default());
    exchange(place, &request, LONGEST_REPORT)
}

fn exchange(place: &Place, request: &[u8], longest: u64) -> io::Result<Option<Answer>> {
    let answer = match place {
        Place::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            ask(stream, request, longest)?
        }
        Place::Unix(socket) => {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            ask(stream, request, longest)?
        }
    };
    Ok(parse(&answer))
}

fn head(method: &str, path: &str, headers: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{headers}connection: close\r\n\r\n").into_bytes()
}

fn ask(mut stream: impl Read + Write, request: &[u8], longest: u64) -> io::Result<Vec<u8>> {
    // In one piece: what answers need not gather it.
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.take(longest).read_to_end(&mut answer)?;
    Ok(answer)
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let code = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { code, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_other_protocols_are_not() {
        let answer = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 9\r\n\r\nnot ready\nno broker\n";
        assert_eq!(parse(answer), Some(Answer { code: 503, body: "not ready\nno broker\n".to_owned() }));
        for other in [
            &b""[..],
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 abc\r\n\r\n",
            b"\xff\xfe\r\n\r\n",
        ] {
            assert_eq!(parse(other), None);
        }
    }
}
