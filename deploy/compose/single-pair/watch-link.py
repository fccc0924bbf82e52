#!/usr/bin/env python3
"""Watches the bridge of the one-way network, and says what goes which way: `watch-link.py BRIDGE SECONDS`. Needs root.

Exit code 1 when the egress side sends anything but ARP answers, or when nothing crosses at all."""

import socket
import struct
import sys
import time
from collections import Counter

SOURCE = {"198.18.2.2", "198.18.2.4"}
ETH_P_ALL = 3
SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC = 263, 1, 1


def kind(frame: bytes) -> tuple[str, str, str]:
    """(what, from, to) of an Ethernet frame."""
    protocol = struct.unpack_from("!H", frame, 12)[0]
    if protocol == 0x0806 and len(frame) >= 42:
        what = {1: "ARP question", 2: "ARP answer"}.get(struct.unpack_from("!H", frame, 20)[0], "ARP")
        return what, socket.inet_ntoa(frame[28:32]), socket.inet_ntoa(frame[38:42])
    if protocol == 0x0800 and len(frame) >= 34:
        what = {1: "ICMP", 2: "IGMP", 6: "TCP", 17: "UDP"}.get(frame[23], f"IP {frame[23]}")
        return what, socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34])
    return f"ethertype {protocol:04x}", frame[6:12].hex(":"), frame[0:6].hex(":")


def main() -> int:
    bridge, seconds = sys.argv[1], float(sys.argv[2])
    seen: Counter = Counter()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as link:
        link.bind((bridge, 0))
        # What the bridge hands from port to port does not come by otherwise.
        membership = struct.pack("iHH8s", socket.if_nametoindex(bridge), PACKET_MR_PROMISC, 0, b"")
        link.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, membership)
        link.settimeout(0.5)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                seen[kind(link.recv(65535))] += 1
            except TimeoutError:
                pass
    forward = sum(n for (what, source, _), n in seen.items() if what == "UDP" and source in SOURCE)
    back = {key: n for key, n in seen.items() if key[1] not in SOURCE and key[0] != "ARP answer"}
    for (what, source, to), n in sorted(seen.items()):
        print(f"{n:6} {what} from {source} to {to}")
    print(f"= {forward} datagrams over the link, {sum(back.values())} frames back besides ARP answers")
    return 1 if back or not forward else 0


if __name__ == "__main__":
    sys.exit(main())
