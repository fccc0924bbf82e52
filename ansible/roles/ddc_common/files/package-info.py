#!/usr/bin/env python3
"""Says what a .deb or .rpm file is, as JSON: format, name, version, architecture, sha256. Standard library only.

Runs on the controller, which may have neither dpkg nor rpm: package-info.py FILE
"""
import hashlib
import io
import json
import struct
import sys
import tarfile

# Our names: as Debian's.
ARCHITECTURES = {"amd64": "amd64", "x86_64": "amd64", "arm64": "arm64", "aarch64": "arm64", "all": "all", "noarch": "all"}


def deb(data):
    """An ar archive; one member, control.tar.*, holds the file `control`."""
    at = 8
    while at + 60 <= len(data):
        name = data[at:at + 16].decode("ascii", "replace").strip().rstrip("/")
        size = int(data[at + 48:at + 58])
        body = data[at + 60:at + 60 + size]
        if name.startswith("control.tar"):
            with tarfile.open(fileobj=io.BytesIO(body)) as archive:
                member = next(m for m in archive.getmembers() if m.name.lstrip("./") == "control")
                text = archive.extractfile(member).read().decode()
            fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line and not line.startswith(" "))
            return {"format": "deb", "name": fields["Package"], "version": fields["Version"], "architecture": fields["Architecture"]}
        at += 60 + size + size % 2
    raise ValueError("has no control.tar")


def rpm_header(data, at):
    """The index of a header structure at `at`, as tag → (type, offset, count); where its store begins; where it ends."""
    magic, entries, store = struct.unpack_from(">3sx4xII", data, at)
    if magic != b"\x8e\xad\xe8":
        raise ValueError("has a broken header")
    index = {}
    for number in range(entries):
        tag, kind, offset, _count = struct.unpack_from(">IIII", data, at + 16 + 16 * number)
        index[tag] = (kind, offset)
    begin = at + 16 + 16 * entries
    return index, begin, begin + store


def rpm(data):
    """A lead of 96 bytes, the header of signatures (padded to 8), the header."""
    _, _, end = rpm_header(data, 96)
    index, begin, _ = rpm_header(data, end + -end % 8)

    def text(tag):
        at = begin + index[tag][1]
        return data[at:data.index(b"\0", at)].decode()

    return {"format": "rpm", "name": text(1000), "version": f"{text(1001)}-{text(1002)}", "architecture": text(1022)}


def main():
    path = sys.argv[1]
    with open(path, "rb") as file:
        data = file.read()
    try:
        if data[:8] == b"!<arch>\n":
            info = deb(data)
        elif data[:4] == b"\xed\xab\xee\xdb":
            info = rpm(data)
        else:
            raise ValueError("is neither a .deb nor an .rpm")
        info["architecture"] = ARCHITECTURES.get(info["architecture"], info["architecture"])
    except (ValueError, KeyError, StopIteration, struct.error, tarfile.TarError) as error:
        info = {"format": "unknown", "name": "", "version": "", "architecture": "unknown", "problem": str(error) or repr(error)}
    info["sha256"] = hashlib.sha256(data).hexdigest()
    print(json.dumps(info))


main()
