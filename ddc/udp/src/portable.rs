//! One datagram per system call, without unsafe code: the twin of `system.rs`, with the same contract.

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recvfrom, send};
use socket2::Socket;

use crate::BATCH;
use crate::batch::ReceiveBatch;

/// Sends from the front of `datagrams` until the kernel refuses or [`BATCH`] are sent; returns how many it took.
/// An error is returned only when the first one was refused.
pub(crate) fn send_batch(socket: &Socket, datagrams: &[&[u8]]) -> io::Result<usize> {
    let mut sent = 0;
    for datagram in datagrams.iter().take(BATCH) {
        match send(socket, datagram, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) => sent += 1,
            Err(error) if sent == 0 => return Err(error.into()),
            Err(_) => break,
        }
    }
    Ok(sent)
}

/// Fills the batch with what waits in the socket's queue, without waiting; returns how many datagrams.
/// `WouldBlock` when there is none.
pub(crate) fn receive_batch(socket: &Socket, batch: &mut ReceiveBatch) -> io::Result<usize> {
    let mut received = 0;
    let mut failure = None;
    for (bytes, slot) in batch.slots() {
        let room = bytes.len();
        // With TRUNC the call tells the datagram's length on the wire, not the length it stored.
        match recvfrom(socket, bytes, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
            Ok((_, wire_bytes, source)) => {
                let Some(source) = source.and_then(|any| SocketAddr::try_from(any).ok()) else {
                    // Cannot be for an IP socket; a datagram without a source is no datagram of ours.
                    failure = Some(Errno::PROTO);
                    break;
                };
                slot.wire_bytes = wire_bytes;
                slot.truncated = wire_bytes > room;
                slot.source = source;
                received += 1;
            }
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    batch.set_filled(received);
    match failure {
        Some(error) if received == 0 => Err(error.into()),
        _ => Ok(received),
    }
}
