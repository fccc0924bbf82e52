#!/usr/bin/env python3
"""Tries to make a host speak on an interface, in one way per name. For tests of the one-way guard.

provoke.py NAME INTERFACE      exit code 0 when the attempt was made, 1 when the kernel refused it (said on stderr)
provoke.py list from-inside    the names of what is tried in the receiving host
provoke.py list from-outside   the names of what is sent at a host to make it answer
"""

import ctypes
import mmap
import os
import socket
import struct
import subprocess
import sys
import time

# The other end and the host itself, as deploy/one-way/test.sh lays the cable.
PEER, OWN = "198.18.0.1", "198.18.0.2"
SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20
ANY_MAC = bytes.fromhex("020000000099")


def mac(interface):
    with open(f"/sys/class/net/{interface}/address") as file:
        return bytes.fromhex(file.read().strip().replace(":", ""))


def raw(interface, frame, bypass=False):
    """A packet socket: below IP, ARP and every inet table of nftables."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        if bypass:
            sender.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        sender.bind((interface, 0))
        sender.send(frame.ljust(60, b"\0"))


def udp(interface, target, port, payload=b"x", ttl=None, times=1):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        if ttl:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        for _ in range(times):
            sender.sendto(payload, (target, port))


def ethernet(interface, to, kind, payload):
    return to + mac(interface) + struct.pack("!H", kind) + payload


def arp(interface, operation, sender, target):
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    body += mac(interface) + socket.inet_aton(sender) + bytes(6) + socket.inet_aton(target)
    return ethernet(interface, b"\xff" * 6, 0x0806, body)


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(protocol, source, target, payload):
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0,
                         socket.inet_aton(source), socket.inet_aton(target))
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload


# --- tried in the receiving host ------------------------------------------------------------------------------------


def ping(interface):
    """An echo request, and the question who has the address before it."""
    subprocess.run(["ping", "-c", "1", "-W", "1", "-I", interface, PEER], stdout=subprocess.DEVNULL, check=False)


def arping(interface):
    raw(interface, arp(interface, 1, OWN, PEER))


def traceroute(interface):
    for ttl in (1, 2, 3):
        udp(interface, PEER, 33434 + ttl, ttl=ttl)


def tcp_connect(interface):
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        client.settimeout(0.3)
        client.connect((PEER, 80))


def mdns(interface):
    udp(interface, "224.0.0.251", 5353, b"\0\0\0\0\0\1\0\0\0\0\0\0\5local\0\0\x0c\0\1")


def dhcp_discover(interface):
    body = b"\1\1\6\0" + bytes(24) + mac(interface) + bytes(202) + b"\x63\x82\x53\x63\x35\1\1\xff"
    datagram = struct.pack("!HHHH", 68, 67, 8 + len(body), 0) + body
    raw(interface, ethernet(interface, b"\xff" * 6, 0x0800, ipv4(17, "0.0.0.0", "255.255.255.255", datagram)))


def broadcast(interface):
    udp(interface, "255.255.255.255", 67)


def igmp_join(interface):
    """The membership report, and the leave message behind it."""
    index = socket.if_nametoindex(interface)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as member:
        request = socket.inet_aton("239.1.2.3") + socket.inet_aton("0.0.0.0") + struct.pack("@i", index)
        member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        time.sleep(0.3)


def neighbour_solicitation(interface):
    subprocess.run(["ping", "-6", "-c", "1", "-W", "1", f"fe80::1%{interface}"], stdout=subprocess.DEVNULL, check=False)


def mld_join(interface):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as member:
        request = socket.inet_pton(socket.AF_INET6, "ff02::1234") + struct.pack("@i", socket.if_nametoindex(interface))
        member.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
        time.sleep(0.3)


def lldp(interface):
    body = b"\x02\x07\x04" + mac(interface) + b"\x04\x05\x05" + interface[:4].encode() + b"\x06\x02\0\x78\0\0"
    raw(interface, ethernet(interface, bytes.fromhex("0180c200000e"), 0x88CC, body))


def vlan(interface):
    raw(interface, ethernet(interface, b"\xff" * 6, 0x8100, b"\0\x05\x08\x06"))


def spanning_tree(interface):
    raw(interface, bytes.fromhex("0180c2000000") + mac(interface) + b"\0\x26\x42\x42\x03" + bytes(35))


def packet_socket_bypass(interface):
    """PACKET_QDISC_BYPASS: straight to the driver, past the queueing disciplines and so past tc."""
    raw(interface, ethernet(interface, ANY_MAC, 0x88B5, b"bypass"), bypass=True)


def macvlan(interface):
    """A second interface on top of this one."""
    subprocess.run(["ip", "link", "add", "link", interface, "name", "above0", "type", "macvlan"], check=True)
    try:
        subprocess.run(["ip", "link", "set", "above0", "up"], check=True)
        raw("above0", ethernet("above0", b"\xff" * 6, 0x88B5, b"macvlan"))
    finally:
        subprocess.run(["ip", "link", "delete", "above0"], check=True)


def link_down_and_up(interface):
    """Leave messages, gratuitous ARP, router solicitations: what a stack says when a link changes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as member:
        request = socket.inet_aton("239.1.2.3") + socket.inet_aton("0.0.0.0") + struct.pack("@i", socket.if_nametoindex(interface))
        member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        subprocess.run(["ip", "link", "set", interface, "down"], check=True)
        subprocess.run(["ip", "link", "set", interface, "up"], check=True)
        time.sleep(0.3)


# --- sent at a host to make it answer -------------------------------------------------------------------------------


def closed_port_flood(interface):
    """200 datagrams to a port where nobody listens: ICMP port unreachable."""
    udp(interface, OWN, 7499, b"x" * 100, times=200)


def echo_request(interface):
    body = struct.pack("!BBHHH", 8, 0, 0, 1, 1) + b"12345678"
    body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    raw(interface, ethernet(interface, b"\xff" * 6, 0x0800, ipv4(1, PEER, OWN, body)))
    subprocess.run(["ping", "-c", "1", "-W", "1", "-I", interface, OWN], stdout=subprocess.DEVNULL, check=False)


def who_has(interface):
    raw(interface, arp(interface, 1, PEER, OWN))


def tcp_syn(interface):
    """A connection to the host's ssh."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        client.settimeout(0.5)
        client.connect((OWN, 22))


# --- past everything ------------------------------------------------------------------------------------------------


def xdp_socket(interface):
    """One frame through an AF_XDP socket in copy mode: the kernel hands it to the driver without any hook."""
    XDP, UMEM_REG, FILL, COMPLETION, TX_RING, OFFSETS, PAGE_OFFSET_TX = 283, 4, 5, 6, 3, 1, 0x80000000
    frame = ethernet(interface, ANY_MAC, 0x88B5, b"xdp").ljust(60, b"\0")
    memory = mmap.mmap(-1, 16 * 4096)
    memory[: len(frame)] = frame
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    sender = socket.socket(44, socket.SOCK_RAW)
    sender.setsockopt(XDP, UMEM_REG, struct.pack("=QQIIII", address, 16 * 4096, 4096, 0, 0, 0))
    for ring in (FILL, COMPLETION, TX_RING):
        sender.setsockopt(XDP, ring, struct.pack("=I", 64))
    # Of the four rings (rx, tx, fill, completion) the second: producer, consumer, descriptors, flags.
    producer, _, descriptors, _ = struct.unpack("=16Q", sender.getsockopt(XDP, OFFSETS, 128))[4:8]
    ring = mmap.mmap(sender.fileno(), descriptors + 64 * 16, offset=PAGE_OFFSET_TX)
    bind = ctypes.CDLL(None, use_errno=True).bind
    copy_mode = 2
    where = struct.pack("=HHIII", 44, copy_mode, socket.if_nametoindex(interface), 0, 0)
    if bind(sender.fileno(), where, len(where)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    ring[descriptors : descriptors + 16] = struct.pack("=QII", 0, len(frame), 0)
    ring[producer : producer + 4] = struct.pack("=I", 1)
    kick(sender)
    time.sleep(0.1)


def kick(sender):
    """Tells the kernel that there is something to send."""
    send = ctypes.CDLL(None, use_errno=True).sendto
    if send(sender.fileno(), None, 0, socket.MSG_DONTWAIT, None, 0) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


FROM_INSIDE = [ping, arping, traceroute, tcp_connect, mdns, dhcp_discover, broadcast, igmp_join, neighbour_solicitation,
               mld_join, lldp, vlan, spanning_tree, packet_socket_bypass, macvlan, link_down_and_up]
FROM_OUTSIDE = [closed_port_flood, echo_request, who_has, tcp_syn]


def main():
    if sys.argv[1] == "list":
        for attempt in FROM_INSIDE if sys.argv[2] == "from-inside" else FROM_OUTSIDE:
            print(attempt.__name__)
        return
    attempts = {attempt.__name__: attempt for attempt in [*FROM_INSIDE, *FROM_OUTSIDE, xdp_socket]}
    try:
        attempts[sys.argv[1]](sys.argv[2])
    except TimeoutError:
        pass  # nobody answered: the attempt was made
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"{sys.argv[1]}: {error}")


main()
