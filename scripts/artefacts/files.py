"""Reading, hashing and writing of files, with bounds; a file appears under its name only when it is complete."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .problem import EX_UNAVAILABLE, Problem, wrong

CHUNK = 1 << 20
FIRST_BYTES = 512


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_small(where: str, path: Path, limit: int) -> bytes:
    """The whole of a file that has no business being large."""
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise Problem(EX_UNAVAILABLE, f"{where}: {path} cannot be read: {error.strerror}") from None
    if len(content) > limit:
        raise wrong(where, f"{path.name} is too large", expected=f"at most {limit} bytes")
    return content


@contextmanager
def temporary(directory: Path) -> Iterator[Path]:
    """A directory beside what it will become a part of, gone at the end."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".mirror-", dir=directory) as name:
        yield Path(name)


def place(temporary_file: Path, target: Path) -> None:
    """Gives a complete file or directory its name; what had it before goes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir() and not target.is_symlink():
        old = temporary_file.parent / "replaced"
        target.rename(old)
    temporary_file.replace(target)


def write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    descriptor, name = tempfile.mkstemp(prefix=".mirror-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def parse_json(where: str, content: bytes) -> dict:
    """An object; duplicate keys are refused, since two readers may take two different ones."""

    def unique(pairs: list[tuple[str, object]]) -> dict:
        table = dict(pairs)
        if len(table) != len(pairs):
            raise ValueError("a key is there twice")
        return table

    try:
        value = json.loads(content, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise wrong(where, f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise wrong(where, "not a JSON object")
    return value


def refuse_page(where: str, first: bytes) -> None:
    """A portal's or proxy's error page in place of a file is the commonest surprise: say so."""
    start = first[:FIRST_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise wrong(
            where,
            "this is a web page, not the file",
            found=first[:60].decode("utf-8", "replace"),
            do="look at the address in a browser: a proxy or a portal may ask for a login",
        )
