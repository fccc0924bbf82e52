#!/usr/bin/env python3
"""Writes v1.json: known answers for the wire format, version 1, from docs/protocol.md alone.

Nothing here is taken from the Rust sources: where the two disagree, one of them has misread the page. Run it by hand
when the page changes (`make test` runs only the Rust test that reads v1.json, not this script):

    pip install cryptography zstandard lz4
    python3 ddc/link/tests/vectors/make.py > ddc/link/tests/vectors/v1.json

Python 3.11 or later. What zstd and lz4 make of a batch differs between their versions, so those vectors are read back
only; everything else is one sequence of bytes.
"""

import json
import struct

import lz4.block
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SOURCE, REPAIR, HEARTBEAT, GOODBYE, PROBE, STATUS = range(6)
LINK_KEY = bytes(range(32))
OTHER_KEY = bytes(reversed(range(32)))
SESSION = struct.pack(">QI", 1_767_225_600_000_000, 0xDECADE01)
UUID = bytes.fromhex("0123456789abcdeffedcba9876543210")

# --- integers (DDC-W-040 to 043) ---------------------------------------------------------------------------------


def varint(value):
    assert 0 <= value < 2**64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def offset(value):
    assert 0 <= value < 2**63
    return varint(value)


def zigzag(value):
    return varint(2 * value if value >= 0 else -2 * value - 1)


def signed(value):
    """value modulo 2^64, as a signed number."""
    return (value + 2**63) % 2**64 - 2**63


def counted(data):
    return varint(len(data)) + data


# --- seal and keys (DDC-W-060 to 064) ----------------------------------------------------------------------------


def derive(link_key, session, link_id, key_id, epoch, direction=b"data"):
    info = b"ddc/1 " + direction + struct.pack(">HBQ", link_id, key_id, epoch)
    return HKDF(algorithm=SHA256(), length=32, salt=session, info=info).derive(link_key)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283, "the check value of CRC-32C"


def header(f):
    return (
        b"DD"
        + struct.pack(">BBHBB", f.get("version", 1), f["kind"], f["link_id"], f["key_id"], f["d_max"])
        + bytes.fromhex(f["session"])
        + struct.pack(">QQHBBB", f["packet_number"], f["block"], f["symbol_size"], f["symbol_index"], f["source_symbols"], f["repair_symbols"])
        + struct.pack(">I", f["block_len"])[1:]
    )


def fields(kind=SOURCE, packet=0, block=0, size=0, index=0, k=0, r=0, length=0, link=258, key=3, d_max=1, session=SESSION):
    return dict(kind=kind, link_id=link, key_id=key, d_max=d_max, session=session.hex(), packet_number=packet, block=block,
                symbol_size=size, symbol_index=index, source_symbols=k, repair_symbols=r, block_len=length)


def seal(f, payload, mode="aes-256-gcm", link_key=LINK_KEY, direction=b"data"):
    head = header(f)
    if mode == "none":
        return head + payload + struct.pack(">I", crc32c(head + payload))
    key = derive(link_key, bytes.fromhex(f["session"]), f["link_id"], f["key_id"], f["packet_number"] >> 28, direction)
    return head + AESGCM(key).encrypt(bytes(4) + struct.pack(">Q", f["packet_number"]), payload, head)


# --- erasure code (DDC-W-026) ------------------------------------------------------------------------------------


def times(a, b):
    product = 0
    for bit in range(8):
        if b >> bit & 1:
            product ^= a << bit
    for bit in range(14, 7, -1):
        if product >> bit & 1:
            product ^= 0x11D << bit - 8
    return product


def over(a, b):
    return next(q for q in range(256) if times(q, b) == a)


def repairs(block, k, r, size):
    padded = block.ljust(k * size, b"\0")
    out = []
    for i in range(r):
        row = [over(128 ^ j, 128 + i ^ j) for j in range(k)]
        symbol = bytearray(size)
        for j, factor in enumerate(row):
            for at in range(size):
                symbol[at] ^= times(factor, padded[j * size + at])
        out.append(bytes(symbol))
    return out


# --- blocks and batches (DDC-W-053 to 058) -----------------------------------------------------------------------


def prelude(codec, content, fragment, fragments, raw_len):
    return bytes([codec | content << 2]) + varint(fragment) + varint(fragments) + varint(raw_len)


def place(c):
    """Stream, topic, topic id and partition, and the flag for a configured id."""
    uuid = c.get("uuid")
    out = counted(c["stream"].encode()) + counted(c["topic"].encode())
    out += bytes.fromhex(uuid) if uuid else varint(c["configured"])
    return out + varint(c["partition"]), 0 if uuid else 4


def records(c):
    following = c["origin"] if c["previous"] is None else c["previous"] + 1
    before, out = 0, b""
    for r in c["records"]:
        key, value = ((None if part is None else bytes.fromhex(part)) for part in (r["key"], r["value"]))
        flags = (key is not None) | (value is not None) << 1 | bool(r["headers"]) << 2
        flags |= {None: 0, "create": 8, "append": 16}[r["time_kind"]]
        out += bytes([flags]) + offset(r["offset"] - following)
        following = r["offset"] + 1
        if r["time_kind"]:
            out += zigzag(signed(r["time"] - before))
            before = r["time"]
        out += b"".join(counted(part) for part in (key, value) if part is not None)
        if r["headers"]:
            out += varint(len(r["headers"]))
            for name, content in r["headers"]:
                out += counted(bytes.fromhex(name))
                out += varint(0) if content is None else varint(len(content) // 2 + 1) + bytes.fromhex(content)
    return out


def chunk(c):
    where, flags = place(c)
    flags |= (c["kind"] == "replay") | (c["previous"] is not None) << 1
    out = bytes([flags]) + where + varint(c["partition_count"]) + varint(c["epoch"]) + offset(c["origin"])
    out += b"" if c["previous"] is None else offset(c["previous"])
    out += offset(c["end"]) + varint(c["count"]) + varint(len(c["filtered"]))
    following = c["origin"] if c["previous"] is None else c["previous"] + 1
    for first, last in c["filtered"]:
        out += offset(first - following) + offset(last - first)
        following = last + 1
    return out + varint(len(c["records"])) + counted(records(c))


def entry(e):
    where, flags = place(e)
    out = bytes([flags | (e["last"] is not None) << 1]) + where + varint(e["epoch"]) + offset(e["origin"])
    out += b"" if e["last"] is None else offset(e["last"])
    return out + varint(e["count"]) + varint(e["blocks_back"])


def heartbeat(h):
    return struct.pack(">8QIB", h["wall_clock_micros"], h["uptime_micros"], h["packets"], h["blocks"], h["records"], h["bytes"],
                       2**64 - 1 if h["lag"] is None else h["lag"], h["rate_bits"], h["interleave_span_micros"], h["source_state"])


def goodbye(g):
    return struct.pack(">QB", g["last_packet"], g["reason"])


# --- the vectors -------------------------------------------------------------------------------------------------


def record(at, key=None, value=None, headers=(), time_kind=None, time=0):
    hexed = lambda part: None if part is None else part.hex()
    return dict(offset=at, key=hexed(key), value=hexed(value), headers=[(name.hex(), hexed(content)) for name, content in headers],
                time_kind=time_kind, time=time)


def chunk_of(items, *, kind="live", stream="", topic="orders", uuid=UUID.hex(), configured=0, partition=0, partition_count=0,
             epoch=0, origin=0, previous=None, end=0, count=0, filtered=()):
    return dict(kind=kind, stream=stream, topic=topic, uuid=uuid, configured=configured, partition=partition, epoch=epoch,
                partition_count=partition_count, origin=origin, previous=previous, end=end, count=count, filtered=list(filtered),
                records=items)


EVERYTHING = chunk_of(
    [
        record(101, b"key", b"value", [(b"a", b"1"), (b"a", b"1"), (b"", b""), (b"null", None), (b"\xff", bytes(200))], "create", 1_767_225_600_123),
        record(102, b"", b"", (), "append", 1_767_225_600_000),
        record(105, None, None, (), None),
        record(300, b"k" * 130, None, [(b"h", None)], "create", -1),
        record(301, None, b"v" * 300, (), "create", 2**63 - 1),
        record(302, None, b"after the largest time the smallest", (), "append", -(2**63)),
    ],
    stream="plant", topic="órdenes", partition=7, partition_count=12, epoch=1_767_225_600_000_001, origin=3, previous=99,
    end=400, count=77, filtered=[(103, 104), (106, 299), (399, 399)])

BATCHES = {
    "no chunk": [],
    "one small record": [chunk_of([record(0, None, b"hello")], end=1, count=1)],
    "a chunk with every form of every field": [EVERYTHING],
    "an empty chunk moves the end": [chunk_of([], uuid=None, configured=0, topic="t", origin=5, end=5)],
    "a configured id, no previous, the largest numbers": [chunk_of(
        [record(2**63 - 2, b"k", b"v")], uuid=None, configured=2**64 - 1, topic="t" * 255, stream="s" * 255,
        partition=2**31 - 1, partition_count=2**31 - 1, epoch=2**64 - 1, origin=0, end=2**63 - 1, count=2**64 - 1)],
    "replay beside live": [
        chunk_of([record(50, b"k", b"again")], kind="replay", origin=0, previous=49, end=60, count=51, filtered=[(51, 59)]),
        chunk_of([record(1000, b"k", b"live")], origin=0, previous=999, end=1001, count=900)],
}

LEDGERS = {
    "no entry": [],
    "every form": [
        dict(stream="", topic="orders", uuid=UUID.hex(), configured=0, partition=0, epoch=1, origin=0, last=41, count=40, blocks_back=1),
        dict(stream="plant", topic="t" * 255, uuid=None, configured=2**64 - 1, partition=2**31 - 1, epoch=2**64 - 1, origin=2**63 - 1,
             last=None, count=0, blocks_back=2**32 - 1),
        dict(stream="", topic="", uuid="00" * 16, configured=0, partition=3, epoch=0, origin=0, last=2**63 - 2, count=2**64 - 1, blocks_back=300)],
}

HEARTBEATS = [
    dict(wall_clock_micros=1_767_225_601_000_000, uptime_micros=1_000_003, packets=5, blocks=1, records=9, bytes=4321, lag=12,
         rate_bits=800_000_000, interleave_span_micros=20_000, source_state=1),
    dict(wall_clock_micros=2**64 - 1, uptime_micros=0, packets=2**63, blocks=0, records=0, bytes=0, lag=None, rate_bits=0,
         interleave_span_micros=2**32 - 1, source_state=5),
]
GOODBYES = [dict(last_packet=2**64 - 1, reason=0), dict(last_packet=12, reason=1)]


def keys():
    cases = [(LINK_KEY, SESSION, 258, 3, epoch, "data") for epoch in (0, 1, 2, 2**36 - 1)]
    cases += [(LINK_KEY, SESSION, 258, 3, 0, "status"), (OTHER_KEY, SESSION, 258, 3, 0, "data"), (LINK_KEY, bytes(12), 258, 3, 0, "data"),
              (LINK_KEY, SESSION, 0, 255, 0, "data"), (LINK_KEY, SESSION, 65535, 0, 0, "data")]
    for link_key, session, link, key, epoch, direction in cases:
        f = fields(PROBE, epoch << 28 | 5, link=link, key=key, session=session)
        yield dict(link_key=link_key.hex(), session=session.hex(), link_id=link, key_id=key, epoch=epoch, direction=direction,
                   derived=derive(link_key, session, link, key, epoch, direction.encode()).hex(), header=f, payload="00010203",
                   datagram=seal(f, bytes(range(4)), link_key=link_key, direction=direction.encode()).hex())


def datagrams():
    symbol = bytes(range(100))
    cases = [("source symbol", fields(SOURCE, 0, 0, 100, 0, 2, 4, 150), symbol),
             ("last source symbol, unpadded", fields(SOURCE, 1, 0, 100, 1, 2, 4, 150), symbol[:50]),
             ("repair symbol, last index", fields(REPAIR, 2**28, 2**62 - 1, 100, 5, 2, 4, 150, d_max=255), symbol),
             ("the largest block's last symbol", fields(REPAIR, 2**64 - 1, 7, 9128, 254, 128, 127, 128 * 9128), bytes(9128)),
             ("one byte", fields(SOURCE, 3, 1, 1, 0, 1, 0, 1), b"\x07"),
             ("heartbeat", fields(HEARTBEAT, 4, 2), heartbeat(HEARTBEATS[0])),
             ("heartbeat of a later sender", fields(HEARTBEAT, 5, 2), heartbeat(HEARTBEATS[0]) + b"more"),
             ("goodbye", fields(GOODBYE, 10, 2), goodbye(GOODBYES[1]))]
    for name, f, payload in cases:
        for mode in ("aes-256-gcm", "none"):
            yield dict(name=name, seal=mode, link_key=LINK_KEY.hex(), header=f, payload=payload.hex(), datagram=seal(f, payload, mode).hex())


def blocks():
    chunks = [chunk_of([record(n, b"key-%d" % n, b"a value that repeats itself " * 4) for n in range(40)], end=40, count=40)]
    raw = b"".join(map(chunk, chunks))
    bodies = [("none", 0, raw), ("zstd", 1, zstandard.ZstdCompressor(level=1).compress(raw)),
              ("zstd, no size in the frame", 1, zstandard.ZstdCompressor(level=3, write_content_size=False, write_checksum=True).compress(raw)),
              ("lz4", 2, lz4.block.compress(raw, store_size=False))]
    for name, codec, body in bodies:
        yield dict(name=name, codec=codec, raw=raw.hex(), block=(prelude(codec, 0, 0, 1, len(raw)) + body).hex())


def preludes():
    for codec, content, fragment, fragments, raw_len in [(0, 0, 0, 1, 0), (1, 0, 0, 1, 127), (2, 1, 0, 1, 128), (1, 0, 65_535, 65_536, 257 << 20)]:
        yield dict(codec=codec, content=content, fragment=fragment, fragments=fragments, raw_len=raw_len,
                   bytes=prelude(codec, content, fragment, fragments, raw_len).hex())


def codes():
    for k, r, size, length, lost in [(1, 4, 10, 10, [0]), (3, 4, 8, 20, [0, 2]), (5, 5, 7, 29, [0, 1, 2, 3, 4]), (13, 5, 3, 37, [12])]:
        block = bytes((n * n * 7 + n * 3 + 11) % 256 for n in range(length))
        yield dict(source_symbols=k, repair_symbols=r, symbol_size=size, block=block.hex(), lost=lost,
                   repairs=[symbol.hex() for symbol in repairs(block, k, r, size)])


def whole():
    """A session from its first datagram to its last: one ledger, one short batch, each a block; what a receiver makes of it."""
    out, packet = [], 0

    def send(kind, block, payload, **shape):
        nonlocal packet
        f = fields(kind, packet, block, **shape)
        out.append(dict(header=f, payload=payload.hex(), datagram=seal(f, payload).hex()))
        packet += 1

    batches = [(1, b"".join(map(entry, LEDGERS["every form"]))), (0, b"".join(map(chunk, BATCHES["a chunk with every form of every field"])))]
    send(HEARTBEAT, 0, heartbeat(HEARTBEATS[0]))
    for number, (content, raw) in enumerate(batches):
        block = prelude(0, content, 0, 1, len(raw)) + raw
        k, r = -(-len(block) // 400), 4
        size = -(-len(block) // k)
        shape = dict(size=size, k=k, r=r, length=len(block))
        for j in range(k):
            send(SOURCE, number, block[j * size : (j + 1) * size], index=j, **shape)
        for i, symbol in enumerate(repairs(block, k, r, size)):
            send(REPAIR, number, symbol, index=k + i, **shape)
    for _ in range(3):
        send(GOODBYE, 2, goodbye(dict(last_packet=1 + sum(1 for d in out if d["header"]["kind"] < 2) + 2, reason=0)))
    assert packet - 1 == struct.unpack(">Q", bytes.fromhex(out[-1]["payload"])[:8])[0]
    return dict(link_key=LINK_KEY.hex(), datagrams=out, raw=[raw.hex() for _, raw in batches])


def refused():
    f = fields(SOURCE, 7, 0, 100, 0, 2, 4, 150)
    payload = bytes(range(100))
    good = seal(f, payload)

    def changed(at, to, base=good):
        return base[:at] + bytes([to]) + base[at + 1 :]

    def datagram(name, reason, data, mode="aes-256-gcm"):
        return dict(what="datagram", name=name, seal=mode, reason=reason, bytes=data.hex())

    yield datagram("nothing", "short", b"")
    yield datagram("a byte less than header and tag", "short", seal(fields(HEARTBEAT), b"")[:59])
    yield datagram("a byte less than header and CRC", "short", seal(fields(HEARTBEAT), b"", "none")[:47], "none")
    yield datagram("9189 bytes", "long", good.ljust(9189, b"\0"))
    yield datagram("another magic", "magic", changed(0, 0x45))
    yield datagram("version 0", "version", changed(2, 0))
    yield datagram("version 2, sealed as such", "version", seal(f | dict(version=2), payload))
    yield datagram("kind 6", "kind", seal(f | dict(kind=6), payload))
    yield datagram("probe", "reserved", seal(fields(PROBE, 7), b""))
    yield datagram("status", "reserved", seal(fields(STATUS, 7), b""))
    yield datagram("another link", "link", seal(f | dict(link_id=259), payload))
    yield datagram("a key id that is not in the ring", "key", seal(f | dict(key_id=4), payload))
    for name, at in [("session", 19), ("packet number", 27), ("block", 35), ("index", 38), ("payload", 44), ("tag", len(good) - 1), ("d_max", 7)]:
        yield datagram(f"one bit of the {name} flipped", "seal", changed(at, good[at] ^ 1))
    yield datagram("sealed with another key", "seal", seal(f, payload, link_key=OTHER_KEY))
    yield datagram("sealed for the other direction", "seal", seal(f, payload, direction=b"status"))
    yield datagram("a CRC where a tag is wanted", "seal", seal(f, payload, "none"))
    yield datagram("a tag where a CRC is wanted", "seal", good, "none")
    yield datagram("a CRC with one bit flipped", "seal", changed(147, seal(f, payload, "none")[147] ^ 128, seal(f, payload, "none")), "none")
    yield datagram("truncated by one byte", "seal", good[:-1])
    for name, change in [("k' = 0", dict(source_symbols=0)), ("k' = 129", dict(source_symbols=129)), ("r' = 128", dict(repair_symbols=128)),
                         ("S = 0", dict(symbol_size=0)), ("S = 9129", dict(symbol_size=9129)), ("D_max = 0", dict(d_max=0)),
                         ("L too small for k'", dict(block_len=100)), ("L too large for k'", dict(block_len=201)),
                         ("a repair index on a source symbol", dict(symbol_index=2)), ("a source index on a repair symbol", dict(kind=REPAIR)),
                         ("an index behind the block", dict(kind=REPAIR, symbol_index=6))]:
        yield datagram(name, "header", seal(f | change, payload))
    yield datagram("payload longer than S", "header", seal(f, payload + b"\0"))
    yield datagram("payload shorter than S", "header", seal(f, payload[:50]))
    yield datagram("last symbol neither S nor its part of L", "header", seal(f | dict(symbol_index=1), payload[:51]))
    yield datagram("a repair symbol without its end", "header", seal(f | dict(kind=REPAIR, symbol_index=2), payload[:50]))
    yield datagram("heartbeat too short", "payload", seal(fields(HEARTBEAT, 7), heartbeat(HEARTBEATS[0])[:-1]))
    yield datagram("heartbeat with an unknown state", "payload", seal(fields(HEARTBEAT, 7), heartbeat(HEARTBEATS[0] | dict(source_state=6))))
    yield datagram("goodbye too short", "payload", seal(fields(GOODBYE, 7), goodbye(GOODBYES[0])[:-1]))
    yield datagram("goodbye with an unknown reason", "payload", seal(fields(GOODBYE, 7), goodbye(dict(last_packet=7, reason=2))))

    def part(what, name, data):
        return dict(what=what, name=name, bytes=data.hex())

    yield part("prelude", "nothing", b"")
    yield part("prelude", "codec 3", prelude(3, 0, 0, 1, 0))
    yield part("prelude", "content 2", prelude(0, 2, 0, 1, 0))
    yield part("prelude", "an undefined flag", prelude(16, 0, 0, 1, 0))
    yield part("prelude", "fragment 1 of 1", prelude(0, 0, 1, 1, 0))
    yield part("prelude", "no fragments", prelude(0, 0, 0, 0, 0))
    yield part("prelude", "65,537 fragments", prelude(0, 0, 0, 65_537, 0))
    yield part("prelude", "a batch over the limit", prelude(0, 0, 0, 1, (257 << 20) + 1))
    yield part("prelude", "a number longer than needed", b"\0\0\x81\0\0")
    yield part("prelude", "a number of more than 64 bits", b"\0\0\x01" + b"\xff" * 9 + b"\x02")

    small = chunk_of([record(10, b"k", b"v")], origin=10, end=12, count=1)
    body = chunk(small)
    yield part("records", "cut", body[:-1])
    yield part("records", "a byte too many", body + b"\0")
    yield part("records", "an undefined flag of a chunk", bytes([body[0] | 8]) + body[1:])
    yield part("records", "a record at the end", chunk(small | dict(end=10)))
    yield part("records", "origin behind the end", chunk(small | dict(origin=13, records=[])))
    yield part("records", "previous at the end", chunk(small | dict(previous=12, records=[])))
    yield part("records", "a filtered range at the end", chunk(small | dict(filtered=[(11, 12)])))
    yield part("records", "partition of 32 bits", chunk(small | dict(partition=2**31)))
    yield part("records", "a name of 256 bytes", chunk(small | dict(topic="t" * 256)))
    yield part("records", "a name that is not UTF-8", body.replace(b"orders", b"\xff\xffders"))
    at = len(body) - len(records(small))
    yield part("records", "both times", body[:at] + bytes([body[at] | 24]) + body[at + 1 :])
    yield part("records", "an undefined flag of a record", body[:at] + bytes([body[at] | 32]) + body[at + 1 :])
    yield part("records", "headers announced, none there", body[: at - 1] + counted(b"\x04\0\0"))
    yield part("records", "more records than bytes", body[: at - 2] + b"\x02" + body[at - 1 :])
    yield part("records", "fewer records than bytes", body[: at - 2] + b"\0" + body[at - 1 :])
    one = LEDGERS["every form"][0]
    yield part("ledger", "cut", entry(one)[:-1])
    yield part("ledger", "no block back", entry(one | dict(blocks_back=0)))
    yield part("ledger", "a replay flag", bytes([entry(one)[0] | 1]) + entry(one)[1:])
    yield part("ledger", "last of 63 ones", entry(one | dict(last=2**63 - 1)))
    yield part("ledger", "more than 32 bits of blocks back", entry(one | dict(blocks_back=2**32)))


def main():
    vectors = dict(
        about="Known answers for the wire, version 1. Generated by ddc/link/tests/vectors/make.py; do not edit.",
        keys=list(keys()),
        datagrams=list(datagrams()),
        heartbeats=[h | dict(payload=heartbeat(h).hex()) for h in HEARTBEATS],
        goodbyes=[g | dict(payload=goodbye(g).hex()) for g in GOODBYES],
        preludes=list(preludes()),
        batches=[dict(name=name, chunks=chunks, raw=b"".join(map(chunk, chunks)).hex()) for name, chunks in BATCHES.items()],
        ledgers=[dict(name=name, entries=entries, raw=b"".join(map(entry, entries)).hex()) for name, entries in LEDGERS.items()],
        blocks=list(blocks()),
        codes=list(codes()),
        session=whole(),
        refused=list(refused()),
    )
    print(json.dumps(vectors, indent=1))


if __name__ == "__main__":
    main()
