//! Listening sockets, each with threads of its own.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::framing::{Frame, Frames};
use super::{Output, syslog_event};
use crate::event::Event;

/// How often a waiting thread looks whether it should stop.
const LOOK: Duration = Duration::from_millis(200);

/// One thread that reads datagrams.
pub(super) fn udp(
    address: &str,
    receive_buffer: Option<usize>,
    output: Output,
    decode: impl Fn(&Output, &[u8], SocketAddr) -> Vec<Event> + Send + 'static,
) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot listen on udp {address}: {error}");
    let address: SocketAddr = address.parse().map_err(|_| format!("{address} is no address:port"))?;
    let socket =
        Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP)).map_err(failed)?;
    if let Some(bytes) = receive_buffer {
        // The kernel gives what it may; a real Vector does not insist either.
        let _ = socket.set_recv_buffer_size(bytes);
    }
    socket.bind(&address.into()).map_err(failed)?;
    let socket: UdpSocket = socket.into();
    socket.set_read_timeout(Some(LOOK)).map_err(failed)?;
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while !output.stopped() {
            match socket.recv_from(&mut buffer) {
                Ok((length, peer)) => output.send(decode(&output, &buffer[..length], peer)),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => output.error(&error.to_string()),
            }
        }
    });
    Ok(())
}

/// Syslog over TCP: one thread that accepts, one for each connection, at most `limit`.
pub(super) fn tcp(address: &str, limit: usize, max_length: usize, output: Output) -> Result<(), String> {
    let listener =
        TcpListener::bind(address).map_err(|error| format!("cannot listen on tcp {address}: {error}"))?;
    let open = Arc::new(AtomicUsize::new(0));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if output.stopped() {
                return;
            }
            let Ok(stream) = stream else { continue };
            if open.fetch_add(1, Ordering::Relaxed) >= limit {
                open.fetch_sub(1, Ordering::Relaxed);
                output.error("too many connections");
                continue;
            }
            let peer = stream.peer_addr().ok().map(|peer| peer.ip().to_string());
            let (output, open) = (output.clone(), open.clone());
            std::thread::spawn(move || {
                read_stream(stream, max_length, peer.as_deref(), &output);
                open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    Ok(())
}

/// Syslog over a Unix stream socket. As with a real Vector, a socket that a killed process left behind is an error.
pub(super) fn unix(path: &Path, mode: Option<u32>, max_length: usize, output: Output) -> Result<(), String> {
    let listener = UnixListener::bind(path)
        .map_err(|error| format!("cannot listen on the Unix socket {}: {error}", path.display()))?;
    if let Some(mode) = mode {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .map_err(|error| format!("cannot set the mode of {}: {error}", path.display()))?;
    }
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if output.stopped() {
                return;
            }
            let Ok(stream) = stream else { continue };
            let output = output.clone();
            std::thread::spawn(move || read_stream(stream, max_length, None, &output));
        }
    });
    Ok(())
}

fn read_stream(mut stream: impl Read, max_length: usize, peer: Option<&str>, output: &Output) {
    let mut frames = Frames::new(max_length);
    let mut buffer = vec![0; 16 * 1024];
    let deliver = |frame: Frame| match frame {
        Frame::Message(message) => output.send(syslog_event(output, &message, peer).into_iter().collect()),
        Frame::Error(error) => output.error(error),
    };
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => frames.push(&buffer[..length]).into_iter().for_each(deliver),
        }
    }
    if let Some(frame) = frames.finish() {
        deliver(frame);
    }
}
