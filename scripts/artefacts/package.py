"""Looks into deb, rpm and tar files: what they say they are, and what machine their programs are for. Extracts nothing."""

import bz2
import gzip
import io
import lzma
import shutil
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from . import files
from .catalogue import Artefact
from .problem import EX_UNAVAILABLE, Problem, wrong

RPM_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# e_machine of little-endian ELF: EM_X86_64, EM_AARCH64.
ELF_MACHINES = {62: "amd64", 183: "arm64"}

# Bounds on what a hostile package may make us read.
CONTROL_LIMIT = 16 << 20
UNPACKED_LIMIT = 4 << 30
MOST_MEMBERS = 20_000
RPM_HEADER_LIMIT = 64 << 20
MOST_RPM_ENTRIES = 65_536


@dataclass(frozen=True)
class Facts:
    name: str
    version: str
    architecture: str


def check(where: str, path: Path, artefact: Artefact, architecture: str) -> None:
    """It is the package that it should be, for the architecture that it should be for."""
    with path.open("rb") as file:
        first = file.read(files.FIRST_BYTES)
    files.refuse_page(where, first)
    if artefact.kind == "archive":
        machines(where, path, artefact, architecture)
        return
    if first.startswith(b"!<arch>\n"):
        facts = deb(where, path)
        version_fits = facts.version.split(":")[-1].split("-")[0] == artefact.version
    elif first.startswith(b"\xed\xab\xee\xdb"):
        facts = rpm(where, path)
        version_fits = facts.version == artefact.version
    else:
        raise wrong(where, "neither a deb nor an rpm", found=first[:16].hex(" "), do="fetch it again")
    if facts.architecture != architecture:
        raise wrong(
            where,
            "a package for another architecture",
            expected=architecture,
            found=facts.architecture,
            do="the address in versions.toml leads to the wrong file",
        )
    if facts.name != artefact.package:
        raise wrong(where, "another package", expected=artefact.package, found=facts.name)
    if not version_fits:
        raise wrong(where, "another version", expected=artefact.version, found=facts.version)
    if first.startswith(b"!<arch>\n"):
        with member(where, path, "data.tar") as (name, data):
            programs(where, name, data, architecture)


def deb(where: str, path: Path) -> Facts:
    """The fields of the control file; an ar archive of debian-binary, control.tar.*, data.tar.*."""
    with member(where, path, "control.tar") as (name, data), unpacked(where, name, data, CONTROL_LIMIT) as stream:
        for entry, content in members(where, stream):
            if entry.name.removeprefix("./") != "control" or content is None:
                continue
            text = content.read(CONTROL_LIMIT).decode("utf-8", "replace")
            fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line and line[0] not in " \t")
            return Facts(fields.get("Package", ""), fields.get("Version", ""), fields.get("Architecture", ""))
    raise wrong(where, "a deb without a control file")


@contextmanager
def member(where: str, path: Path, wanted: str) -> Iterator[tuple[str, BinaryIO]]:
    """The member of an ar archive whose name begins with `wanted`, as a file of its own."""
    size = path.stat().st_size
    with path.open("rb") as file:
        position = 8
        for _ in range(16):
            file.seek(position)
            header = file.read(60)
            if len(header) < 60 or header[58:] != b"`\n":
                break
            name = header[:16].decode("ascii", "replace").rstrip("/ ")
            digits = header[48:58].strip()
            if not digits.isdigit() or position + 60 + int(digits) > size:
                raise wrong(where, "a truncated or damaged deb", found=f"member {name}", do="fetch it again")
            length = int(digits)
            if name.startswith(wanted):
                yield name, io.BufferedReader(Section(file, position + 60, length))
                return
            position += 60 + length + length % 2
    raise wrong(where, f"a truncated or damaged deb: no {wanted}", do="fetch it again")


class Section(io.RawIOBase):
    """A part of a file."""

    def __init__(self, file: BinaryIO, start: int, length: int):
        self.file, self.position, self.end = file, start, start + length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        self.file.seek(self.position)
        data = self.file.read(min(len(buffer), self.end - self.position))
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)


class Bounded(io.RawIOBase):
    """Ends with an error where a decompression bomb goes on."""

    def __init__(self, where: str, stream: BinaryIO, limit: int):
        self.where, self.stream, self.left = where, stream, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = self.stream.read(min(len(buffer), files.CHUNK))
        self.left -= len(data)
        if self.left < 0:
            raise wrong(self.where, "unpacks to more than it may", do="do not use this file")
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def unpacked(where: str, name: str, data: BinaryIO, limit: int) -> Iterator[BinaryIO]:
    """The content of a compressed tar, whichever way it is compressed."""
    process = None
    try:
        if name.endswith((".gz", ".tgz")):
            stream = gzip.GzipFile(fileobj=data)
        elif name.endswith(".xz"):
            stream = lzma.LZMAFile(data)
        elif name.endswith(".bz2"):
            stream = bz2.BZ2File(data)
        elif name.endswith(".tar"):
            stream = data
        elif name.endswith(".zst"):
            process = zstd(where, data)
            stream = process.stdout
        else:
            raise wrong(where, f"{name}: compressed in a way that is not known here")
        yield io.BufferedReader(Bounded(where, stream, limit))
    except (OSError, EOFError, lzma.LZMAError, tarfile.TarError) as error:
        raise wrong(where, f"{name} is truncated or damaged: {error}", do="fetch it again") from None
    finally:
        if process:
            process.kill()
            process.wait()
            process.stdout.close()


def zstd(where: str, data: BinaryIO) -> subprocess.Popen:
    """Python 3.11 to 3.13 have no zstd of their own."""
    program = shutil.which("zstd")
    if not program:
        raise Problem(EX_UNAVAILABLE, f"{where}: it is compressed with zstd; run: apt-get install zstd")
    import tempfile

    compressed = tempfile.TemporaryFile()
    shutil.copyfileobj(data, compressed)
    compressed.seek(0)
    return subprocess.Popen(
        [program, "-dc", "--memory=256MB"], stdin=compressed, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def members(where: str, stream: BinaryIO) -> Iterator[tuple[tarfile.TarInfo, BinaryIO | None]]:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for number, entry in enumerate(archive):
            if number >= MOST_MEMBERS:
                raise wrong(where, "too many files in it", expected=f"at most {MOST_MEMBERS}")
            yield entry, archive.extractfile(entry) if entry.isreg() else None


def programs(where: str, name: str, data: BinaryIO, architecture: str) -> None:
    """All ELF files in a tar are for `architecture`, and there is one."""
    found = 0
    with unpacked(where, name, data, UNPACKED_LIMIT) as stream:
        for entry, content in members(where, stream):
            if content is None:
                continue
            head = content.read(20)
            if len(head) < 20 or head[:4] != b"\x7fELF":
                continue
            machine = ELF_MACHINES.get(struct.unpack_from("<H", head, 18)[0]) if head[4:6] == b"\x02\x01" else None
            if machine != architecture:
                raise wrong(
                    where, f"{entry.name[:100]} is a program for another machine", expected=architecture, found=machine or "another"
                )
            found += 1
    if not found:
        raise wrong(where, "no program in it")


def machines(where: str, path: Path, artefact: Artefact, architecture: str) -> None:
    with path.open("rb") as file:
        programs(where, artefact.sources[architecture].file, file, architecture)


def rpm(where: str, path: Path) -> Facts:
    """NAME, VERSION and ARCH from the main header: lead (96 bytes), signature header padded to 8, header."""
    with path.open("rb") as file:
        file.seek(96)
        header(where, file)
        file.seek(-file.tell() % 8, io.SEEK_CUR)
        entries, store = header(where, file)
    values = {}
    for tag, kind, offset, _ in entries:
        # RPMTAG_NAME, VERSION, ARCH are of type STRING (6).
        if tag in (1000, 1001, 1022) and kind == 6 and 0 <= offset < len(store):
            values[tag] = store[offset : store.find(b"\0", offset)].decode("utf-8", "replace")
    architecture = values.get(1022, "")
    return Facts(values.get(1000, ""), values.get(1001, ""), RPM_ARCHITECTURES.get(architecture, architecture))


def header(where: str, file: BinaryIO) -> tuple[list[tuple[int, int, int, int]], bytes]:
    intro = file.read(16)
    if len(intro) < 16 or intro[:3] != b"\x8e\xad\xe8":
        raise wrong(where, "a truncated or damaged rpm", do="fetch it again")
    count, length = struct.unpack(">II", intro[8:])
    if count > MOST_RPM_ENTRIES or length > RPM_HEADER_LIMIT:
        raise wrong(where, "an rpm with an impossible header", do="do not use this file")
    index, store = file.read(16 * count), file.read(length)
    if len(index) < 16 * count or len(store) < length:
        raise wrong(where, "a truncated rpm", do="fetch it again")
    return list(struct.iter_unpack(">iiii", index)), store
