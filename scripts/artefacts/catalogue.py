"""deploy/versions.toml, parsed: what is wanted, from where, and what is already known about it."""

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from .problem import EX_CONFIG, Problem

ARCHITECTURES = ("amd64", "arm64")
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z._+~-]{0,62}")
# A file name and nothing else: no directory, no leading dot, nothing a shell or a terminal would take for itself.
FILE = re.compile(r"[0-9A-Za-z][0-9A-Za-z._+~-]{0,126}")
SHA256 = re.compile(r"[0-9a-f]{64}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# host/path:tag, with the host written out: what a bare name means differs from machine to machine.
REFERENCE = re.compile(r"[a-z0-9.-]+\.[a-z]+(:[0-9]+)?(/[a-z0-9][a-z0-9._-]*)+:[0-9A-Za-z_][0-9A-Za-z._-]{0,127}")
MAX_BYTES = 20_000_000_000


@dataclass(frozen=True)
class Source:
    """Where one architecture of a package comes from."""

    url: str
    file: str
    sha256: str


@dataclass(frozen=True)
class Artefact:
    name: str
    kind: str
    version: str
    licence: str
    used_by: str
    max_bytes: int
    # Packages and archives.
    sums: str = ""
    sources: dict[str, Source] = field(default_factory=dict)
    # Images.
    reference: str = ""
    digest: str = ""

    @property
    def package(self) -> str:
        """The name inside the deb or rpm: `vector` of `vector-deb`."""
        return self.name.rsplit("-", 1)[0]

    @property
    def repository(self) -> str:
        return self.reference.rsplit(":", 1)[0]

    @property
    def tag(self) -> str:
        return self.reference.rsplit(":", 1)[1]


def load(path: Path) -> dict[str, Artefact]:
    """All artefacts by name. Unknown keys are errors, so that a misspelt `sha256` is not taken for an empty one."""
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise Problem(EX_CONFIG, f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Problem(EX_CONFIG, f"{path}: not TOML: {error}") from None
    if document.get("schema") != 1:
        raise Problem(EX_CONFIG, f"{path}: schema must be 1")
    known(path, "the file", document, {"schema", "artefact"})
    artefacts: dict[str, Artefact] = {}
    for number, entry in enumerate(document.get("artefact", []), 1):
        artefact = parse(f"{path}: artefact {entry.get('name', number)}", entry)
        if artefact.name in artefacts:
            raise Problem(EX_CONFIG, f"{path}: artefact {artefact.name} is there twice")
        artefacts[artefact.name] = artefact
    if not artefacts:
        raise Problem(EX_CONFIG, f"{path}: no [[artefact]]")
    return artefacts


def parse(where: str, entry: dict) -> Artefact:
    kind = text(where, entry, "kind", re.compile("package|archive|image"))
    own = {"reference", "digest"} if kind == "image" else {"sums", "architectures"}
    known(where, "it", entry, {"name", "kind", "version", "licence", "home", "used_by", "max_bytes"} | own)
    version = text(where, entry, "version", VERSION)
    max_bytes = entry.get("max_bytes")
    if not isinstance(max_bytes, int) or not 0 < max_bytes <= MAX_BYTES:
        raise Problem(EX_CONFIG, f"{where}: max_bytes must be a number of bytes up to {MAX_BYTES}")
    common = {
        "name": text(where, entry, "name", NAME),
        "kind": kind,
        "version": version,
        "licence": text(where, entry, "licence", re.compile(r"[0-9A-Za-z.+ ()-]+")),
        "used_by": str(entry.get("used_by", "")),
        "max_bytes": max_bytes,
    }
    if kind == "image":
        reference = text(where, entry, "reference", None).replace("{version}", version)
        if not REFERENCE.fullmatch(reference):
            raise Problem(EX_CONFIG, f"{where}: reference must be host/path:tag, without a digest; found {reference}")
        return Artefact(**common, reference=reference, digest=optional(where, entry, "digest", DIGEST))
    sums = str(entry.get("sums", "")).replace("{version}", version)
    if sums:
        https(where, "sums", sums)
    architectures = entry.get("architectures")
    if not isinstance(architectures, dict) or not architectures:
        raise Problem(EX_CONFIG, f"{where}: no [artefact.architectures.amd64] or .arm64")
    known(where, "architectures", architectures, set(ARCHITECTURES))
    sources = {}
    for architecture, source in architectures.items():
        place = f"{where} {architecture}"
        known(place, "it", source, {"url", "sha256"})
        url = text(place, source, "url", None).replace("{version}", version)
        sources[architecture] = Source(url, https(place, "url", url), optional(place, source, "sha256", SHA256))
    return Artefact(**common, sums=sums, sources=sources)


def https(where: str, key: str, url: str) -> str:
    """The file name at the end of an HTTPS address."""
    parts = urlsplit(url)
    name = unquote(parts.path).rsplit("/", 1)[-1]
    if parts.scheme != "https" or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise Problem(EX_CONFIG, f"{where}: {key} must be a plain https:// address; found {url}")
    if not FILE.fullmatch(name):
        raise Problem(EX_CONFIG, f"{where}: {key} does not end in a file name; found {url}")
    return name


def known(where: str, what: str, table: object, keys: set[str]) -> None:
    if not isinstance(table, dict):
        raise Problem(EX_CONFIG, f"{where}: {what} must be a table")
    for key in table:
        if key not in keys:
            raise Problem(EX_CONFIG, f"{where}: unknown key `{key}`; there are {', '.join(sorted(keys))}")


def text(where: str, table: dict, key: str, pattern: re.Pattern | None) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value or (pattern and not pattern.fullmatch(value)):
        raise Problem(EX_CONFIG, f"{where}: `{key}` is missing or not what it should be; found {value!r}")
    return value


def optional(where: str, table: dict, key: str, pattern: re.Pattern) -> str:
    value = table.get(key, "")
    if value == "":
        return ""
    return text(where, table, key, pattern)
