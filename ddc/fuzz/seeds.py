#!/usr/bin/env python3
"""Writes the first corpora from the test vectors and a few programs by hand.

Run: python3 ddc/fuzz/seeds.py. What a fuzzer found is kept beside them (README.md says how); a file's name is the
beginning of its SHA-256, so that nothing is there twice.
"""

import hashlib
import json
import struct
from pathlib import Path

HERE = Path(__file__).parent
VECTORS = json.loads((HERE / "../link/tests/vectors/v1.json").read_text())
LIMIT = 4096


def seed(target, data):
    if len(data) > LIMIT:
        return
    directory = HERE / "corpus" / target
    directory.mkdir(parents=True, exist_ok=True)
    (directory / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def block(data):
    return struct.pack(">H", len(data)) + data


def full(who, data, size=63, repairs=4, losses=0):
    """A step of the receiver's program: a proper block, of which the symbols in `losses` do not come."""
    return bytes([0, who, size, repairs]) + struct.pack(">HH", losses, len(data)) + data


def symbol(who, packet=0, ahead=0, size=8, index=0, k=2, r=2, length=16, d_max=1, repair=0):
    return bytes([2, who, repair]) + struct.pack(">HHBHBBBHBB", packet, ahead, d_max, size, index, k, r, length, 0, 0) + bytes(8)


def heartbeat(who, rate=1000):
    return bytes([3, who, 1]) + struct.pack(">HBHBHBB", 1, 40, rate, 10, 20, 10, 0)


def goodbye(who, ahead=2):
    return bytes([4, who]) + struct.pack(">H", ahead)


def again(which, at=0xFFFF):
    return bytes([6, 0, which]) + struct.pack(">H", at)


POLL, RESTART, REKEY = bytes([9, 0]), bytes([8, 0, 0]), bytes([8, 0, 3])


def wait(ms):
    """Time passes, and the receiver gets over that it was not asked for so long."""
    later = lambda ms: bytes([7, 0]) + struct.pack(">H", ms) + POLL
    return later(ms) + later(60)


def main():
    for case in VECTORS["datagrams"] + VECTORS["refused"]:
        data = bytes.fromhex(case.get("datagram") or case["bytes"])
        seed({"prelude": "unpack", "records": "batch", "ledger": "ledger"}.get(case.get("what"), "header"), data)
    for case in VECTORS["heartbeats"] + VECTORS["goodbyes"]:
        payload = bytes.fromhex(case["payload"])
        for data in (payload, payload[:-1], payload + b"\1"):
            seed("heartbeat", data)
    for case in VECTORS["batches"]:
        seed("batch", bytes.fromhex(case["raw"]))
    for case in VECTORS["ledgers"]:
        seed("ledger", bytes.fromhex(case["raw"]))

    blocks = [bytes.fromhex(case["block"]) for case in VECTORS["blocks"]]
    ledger = bytes.fromhex(VECTORS["ledgers"][1]["raw"])
    blocks.append(bytes([4, 0, 1]) + b"\xa2\x04" + ledger)
    whole = blocks[1]
    codec, body = whole[:1], whole[5:]
    raw_len = whole[3:5]
    pieces = [codec + bytes([n, 3]) + raw_len + body[n * 50 : (n + 1) * 50 if n < 2 else None] for n in range(3)]
    rows = [[b] for b in blocks] + [pieces, pieces[:2] + blocks[:1], pieces[1:], [pieces[0]] * 2 + pieces[1:], [b"", b"\0"]]
    rows += [[bytes([n]) + b"\0\1\x7f" + body[:60]] for n in range(3)] + [[b"\1\0\1\xff\xff\xff\x7f"], [b"\2\0\1\xff\xff\x3f\xf0" + b"\xff" * 40]]
    for row in rows:
        seed("unpack", b"".join(map(block, row)))

    small = bytes([0, 0, 1, 0])
    for mode in (0, 1):
        programs = [
            full(0, blocks[0][:900]) + POLL,
            full(0, blocks[1], size=31, losses=0b101) + POLL + full(0, small, size=3) + POLL,
            full(0, blocks[2], size=20, losses=0xFFF) + full(0, small) + full(0, small) + full(0, small) + wait(60) + POLL,
            heartbeat(0) + full(0, small) + goodbye(0) + wait(60) + POLL + full(0, small) + POLL,
            b"".join(full(who, small) for who in range(6)) + POLL + wait(11_000) + full(2, small) + POLL,
            full(0, small) + again(0) + again(0, 300) + again(2, 8) + POLL,
            full(0, small) + POLL + RESTART + again(0) + full(0, small) + POLL,
            full(1, small) + REKEY + full(1, small) + POLL + full(3, small) + POLL,
            symbol(0) + symbol(0, index=1) + POLL + symbol(0, ahead=3) + symbol(0, packet=0xC041) + symbol(0, ahead=0xC001) + wait(3000) + POLL,
            symbol(0, packet=0x4100, ahead=300, size=9128 % 10_000, length=65535, k=128, r=127) + symbol(0, k=0) + symbol(0, d_max=0) + POLL,
            b"".join(symbol(0, ahead=1, size=9000, k=7, r=1, length=60_000) for _ in range(70)) + POLL,
            b"".join(symbol(n % 6, ahead=n, packet=0x4001 * (n % 3)) + wait(n * 40) for n in range(40)) + POLL,
            b"".join(full(0, pieces[n], size=15, losses=1 << n) for n in range(3)) + heartbeat(0, 0) + wait(100) + POLL,
            heartbeat(0, 65535) + goodbye(0, 5000) + goodbye(0, 1) + heartbeat(3) + RESTART + heartbeat(0) + wait(60_000) + POLL,
            full(0, bytes(100), repairs=0, losses=1) + full(0, small) + wait(3000) + again(0) + again(0) + wait(60),
            full(0, bytes(300), repairs=2, losses=0b11011) + full(0, small) + wait(3000) + again(0) + again(1) + again(3) + again(4),
            bytes([5, 0, 0, 60]) + b"DD\1\0" + bytes(56) + POLL,
        ]
        for program in programs:
            seed("receiver", bytes([mode]) + program)


if __name__ == "__main__":
    main()
