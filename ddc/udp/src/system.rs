//! The unsafe system calls: `sendmmsg`, `recvmmsg` and the socket options that the safe crates lack.
//!
//! Every function works on pointers that it makes itself, from slices that outlive the call; none of them is kept.
//! `portable.rs` does the same one datagram at a time and is what these are tested against.

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::ptr;
use std::time::Duration;

use socket2::Socket;

use crate::BATCH;
use crate::batch::ReceiveBatch;

/// Sends from the front of `datagrams`, at most [`BATCH`]; returns how many the kernel took.
/// An error is returned only when the first one was refused; one behind it shows at the next call.
pub(crate) fn send_batch(socket: &Socket, datagrams: &[&[u8]]) -> io::Result<usize> {
    let count = datagrams.len().min(BATCH);
    if count == 0 {
        // The kernel would answer 0 too, but only after taking a look at the socket's errors.
        return Ok(0);
    }
    let mut vectors = [const { libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 } }; BATCH];
    // SAFETY: mmsghdr is integers and pointers only, for which all zeroes (null) is a valid value.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    for ((datagram, vector), header) in datagrams.iter().zip(&mut vectors).zip(&mut headers) {
        // The kernel only reads through this pointer; iovec has no const form.
        vector.iov_base = datagram.as_ptr().cast_mut().cast();
        vector.iov_len = datagram.len();
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: the first `count` headers point to vectors, and those to the caller's slices; all outlive the call, which
    // keeps none of them. No name and no control data are given (null, length 0). `count` is at most BATCH.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            count as libc::c_uint,
            (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Room for one control message that carries a u32 (24 bytes with its header), aligned as cmsghdr must be.
type Control = [u64; 4];

/// What one `recvmmsg` brought.
pub(crate) struct Received {
    pub(crate) datagrams: usize,
    /// The drop counter stamped on the last datagram; none when nothing was dropped before it was queued.
    pub(crate) drops: Option<u32>,
}

/// Fills the batch with what waits in the socket's queue, without waiting. `WouldBlock` when there is nothing.
pub(crate) fn receive_batch(socket: &Socket, batch: &mut ReceiveBatch) -> io::Result<Received> {
    let mut names = [const { MaybeUninit::<libc::sockaddr_storage>::zeroed() }; BATCH];
    let mut controls: [Control; BATCH] = [[0; 4]; BATCH];
    let mut vectors = [const { libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 } }; BATCH];
    // SAFETY: mmsghdr is integers and pointers only, for which all zeroes (null) is a valid value.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };

    let mut room = 0;
    let parts = names.iter_mut().zip(&mut controls).zip(vectors.iter_mut().zip(&mut headers));
    for ((bytes, _), ((name, control), (vector, header))) in batch.slots().zip(parts) {
        room = bytes.len();
        vector.iov_base = bytes.as_mut_ptr().cast();
        vector.iov_len = bytes.len();
        let message = &mut header.msg_hdr;
        message.msg_iov = vector;
        message.msg_iovlen = 1;
        message.msg_name = name.as_mut_ptr().cast();
        message.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of::<Control>() as _;
    }

    // MSG_TRUNC makes each length the one on the wire, so that a datagram larger than its slot shows by how much.
    // SAFETY: all BATCH headers point to distinct, writable memory of the lengths given: the batch's slots and the
    // arrays above, all borrowed until after the last use of `headers`. No timeout is given (null).
    let received = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            BATCH as libc::c_uint,
            (libc::MSG_DONTWAIT | libc::MSG_TRUNC) as _,
            ptr::null_mut(),
        )
    };
    let datagrams = usize::try_from(received).map_err(|_| io::Error::last_os_error())?.min(BATCH);

    for (((_, slot), header), name) in batch.slots().zip(&headers).zip(&names).take(datagrams) {
        slot.wire_bytes = header.msg_len as usize;
        slot.truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 || slot.wire_bytes > room;
        slot.source = source_of(name, header.msg_hdr.msg_namelen)?;
    }
    batch.set_filled(datagrams);
    let drops = datagrams.checked_sub(1).and_then(|last| drops_of(&headers[last].msg_hdr));
    Ok(Received { datagrams, drops })
}

/// The sender's address as the kernel wrote it.
fn source_of(name: &MaybeUninit<libc::sockaddr_storage>, length: libc::socklen_t) -> io::Result<SocketAddr> {
    let length = length as usize;
    // SAFETY: the storage was zeroed when it was made, so each of its bytes has a value, whatever the kernel wrote.
    let family = libc::c_int::from(unsafe { name.assume_init_ref() }.ss_family);
    match family {
        libc::AF_INET if length >= size_of::<libc::sockaddr_in>() => {
            // SAFETY: sockaddr_storage is larger than sockaddr_in and aligned for it; the family says which one it is,
            // and any bytes are a valid value of its integers.
            let v4 = unsafe { name.as_ptr().cast::<libc::sockaddr_in>().read() };
            let address = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Ok(SocketAddrV4::new(address, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 if length >= size_of::<libc::sockaddr_in6>() => {
            // SAFETY: as above, for sockaddr_in6.
            let v6 = unsafe { name.as_ptr().cast::<libc::sockaddr_in6>().read() };
            let address = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Ok(SocketAddrV6::new(address, u16::from_be(v6.sin6_port), v6.sin6_flowinfo, v6.sin6_scope_id)
                .into())
        }
        // Cannot be for an IP socket.
        _ => Err(io::Error::from_raw_os_error(libc::EPROTO)),
    }
}

/// The SO_RXQ_OVFL stamp among a received message's control data.
#[allow(clippy::unnecessary_cast, reason = "cmsg_len is usize with glibc and u32 with musl")]
fn drops_of(message: &libc::msghdr) -> Option<u32> {
    // SAFETY: the kernel has set msg_control and msg_controllen to the control data that it wrote, inside the aligned
    // buffer that `message` still points to; the CMSG macros stay within that, and a u32 is read only from a message
    // whose length covers one.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(message);
        while let Some(header) = control.as_ref() {
            if header.cmsg_level == libc::SOL_SOCKET
                && header.cmsg_type == libc::SO_RXQ_OVFL
                && header.cmsg_len as usize >= libc::CMSG_LEN(size_of::<u32>() as u32) as usize
            {
                return Some(libc::CMSG_DATA(control).cast::<u32>().read_unaligned());
            }
            control = libc::CMSG_NXTHDR(message, control);
        }
    }
    None
}

/// Sets an option whose value is an int.
fn set_int(socket: &Socket, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the pointer and length are those of a live c_int, which the kernel only reads.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has every datagram stamped with the socket's drop counter (SO_RXQ_OVFL).
pub(crate) fn stamp_drops(socket: &Socket) -> io::Result<()> {
    set_int(socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)
}

/// Has a full interface queue reported as ENOBUFS (IP_RECVERR, IPV6_RECVERR); without it the kernel throws the datagram
/// away and reports it as sent.
pub(crate) fn report_queue_overflow(socket: &Socket, ipv6: bool) -> io::Result<()> {
    if ipv6 {
        set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)
    } else {
        set_int(socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)
    }
}

/// The socket's drop counter as it stands now (SO_MEMINFO), the one that SO_RXQ_OVFL stamps on datagrams.
pub(crate) fn drops_now(socket: &Socket) -> io::Result<u32> {
    const DROPS: usize = libc::SK_MEMINFO_DROPS as usize;
    let mut values = [0u32; DROPS + 1];
    let mut length = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the pointer and length are those of a live, writable array of integers; the kernel writes at most `length`
    // bytes and then stores how many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if (length as usize) < size_of_val(&values) {
        // A kernel that does not know this field.
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    Ok(values[DROPS])
}

/// The kernel's bound for the error of the wall clock; none when nobody keeps the clock (adjtimex(2)).
pub(crate) fn clock_error() -> io::Result<Option<Duration>> {
    // SAFETY: timex is integers only, for which all zeroes is a valid value; `modes` 0 asks and sets nothing.
    let mut time: libc::timex = unsafe { mem::zeroed() };
    // SAFETY: the pointer is to a live, writable timex, which is not kept.
    let state = unsafe { libc::adjtimex(&raw mut time) };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    let kept = state != libc::TIME_ERROR && time.status & libc::STA_UNSYNC == 0;
    Ok(kept.then(|| Duration::from_micros(u64::try_from(time.maxerror).unwrap_or(0))))
}
