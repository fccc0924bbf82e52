//! `ddc ready`: asks a running link whether it does its work; made for container probes and scripts.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::{print, words};
use crate::exit::{Exit, Failure};

/// Ask a running ingress or egress whether it is ready
///
/// Exit code 0 when it is; 69 when it is not, with the reasons, or when it does not answer.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Arguments {
    /// The admin listener's TCP address, such as 127.0.0.1:9641
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin: Option<SocketAddr>,
    /// The admin listener's Unix socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// How long connecting, asking and each part of the answer may take: a probe must be quick.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest answer that is read; ours has a few lines.
const LONGEST_ANSWER: u64 = 64 * 1024;

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (asked, answer) = match (&arguments.admin, &arguments.socket) {
        (Some(address), _) => (address.to_string(), ask_tcp(*address)),
        (None, Some(path)) => (path.display().to_string(), ask_unix(path)),
        // clap requires one of the two.
        (None, None) => return Err(Failure::new(Exit::Usage, "one of --admin and --socket is needed")),
    };
    let unavailable = |why: String| Failure::new(Exit::Unavailable, format!("{asked}: {why}"));
    let answer = answer.map_err(|error| unavailable(no_answer(&error)))?;
    match parse(&answer) {
        Some((200, _)) => print("ready\n"),
        Some((503, body)) => {
            let reasons: Vec<String> = body
                .lines()
                .skip(1)
                .filter(|line| !line.is_empty())
                .map(|line| format!("not ready: {line}"))
                .collect();
            if reasons.is_empty() {
                return Err(unavailable("not ready".to_owned()));
            }
            Err(Failure { exit: Exit::Unavailable, lines: reasons })
        }
        Some((code, _)) => {
            Err(unavailable(format!("answers with HTTP {code}: is this a ddc admin listener?")))
        }
        None => Err(unavailable("does not answer in HTTP: is this a ddc admin listener?".to_owned())),
    }
}

fn no_answer(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
            format!("nothing listens there ({})", words(error))
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no answer within {} s", PATIENCE.as_secs())
        }
        _ => words(error),
    }
}

fn ask_tcp(address: SocketAddr) -> io::Result<Vec<u8>> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    ask(stream)
}

fn ask_unix(path: &PathBuf) -> io::Result<Vec<u8>> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    ask(stream)
}

fn ask(mut stream: impl Read + Write) -> io::Result<Vec<u8>> {
    stream.write_all(
        b"GET /readyz HTTP/1.1\r\nhost: localhost\r\naccept: text/plain\r\nconnection: close\r\n\r\n",
    )?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer)?;
    Ok(answer)
}

/// The status code and the body of an HTTP/1 answer.
fn parse(answer: &[u8]) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let code = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((code, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_other_protocols_are_not() {
        let answer = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 9\r\n\r\nnot ready\nno broker\n";
        assert_eq!(parse(answer), Some((503, "not ready\nno broker\n".to_owned())));
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
