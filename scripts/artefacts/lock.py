"""versions.lock: what was checked, and nothing else. JSON, sorted; read back as strictly as if a stranger had written it."""

import json
import re
from pathlib import Path

from . import files
from .catalogue import ARCHITECTURES, DIGEST, FILE, NAME, REFERENCE, SHA256, VERSION, Artefact
from .problem import EX_CONFIG, Problem

LIMIT = 4 << 20
CHECKED = re.compile("publisher|declared|first")
URL = re.compile(r"https://[!-~]{1,500}")
PACKAGE_FILE = re.compile(r"packages/(" + FILE.pattern + ")")
IMAGE_FILE = re.compile(r"images/(" + NAME.pattern + ")")


def load(path: Path) -> dict[str, dict]:
    """Entries by name; none when there is no file."""
    if not path.exists():
        return {}
    document = files.parse_json(str(path), files.read_small("lock", path, LIMIT))
    if document.get("schema") != 1 or not isinstance(document.get("artefacts"), dict):
        raise Problem(EX_CONFIG, f"{path}: not a lock of this version (schema 1)")
    for name, entry in document["artefacts"].items():
        check(f"{path}: {name}", name, entry)
    return document["artefacts"]


def save(path: Path, entries: dict[str, dict]) -> None:
    files.write(path, dumps(entries))


def dumps(entries: dict[str, dict]) -> str:
    document = {"schema": 1, "source": "deploy/versions.toml", "artefacts": entries}
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def check(where: str, name: str, entry: object) -> None:
    table = fields(where, entry, {"kind", "version", "licence", "architectures"}, {"reference", "file", "digest", "checked"})
    if not NAME.fullmatch(name):
        raise Problem(EX_CONFIG, f"{where}: not a name")
    matches(where, table, "version", VERSION)
    matches(where, table, "kind", re.compile("package|archive|image"))
    architectures = fields(where, table["architectures"], set(), set(ARCHITECTURES))
    if not architectures:
        raise Problem(EX_CONFIG, f"{where}: no architecture")
    if table["kind"] == "image":
        fields(where, table, {"reference", "file", "digest", "checked"}, set(table))
        matches(where, table, "reference", REFERENCE)
        matches(where, table, "digest", DIGEST)
        matches(where, table, "checked", CHECKED)
        matches(where, table, "file", re.compile(re.escape(f"images/{name}")))
        for architecture, value in architectures.items():
            place = fields(f"{where} {architecture}", value, {"digest", "config"}, set())
            matches(where, place, "digest", DIGEST)
            matches(where, place, "config", DIGEST)
        return
    for architecture, value in architectures.items():
        place = fields(f"{where} {architecture}", value, {"url", "file", "sha256", "size", "checked"}, set())
        matches(where, place, "url", URL)
        matches(where, place, "file", PACKAGE_FILE)
        matches(where, place, "sha256", SHA256)
        matches(where, place, "checked", CHECKED)
        if not isinstance(place["size"], int) or isinstance(place["size"], bool) or place["size"] < 0:
            raise Problem(EX_CONFIG, f"{where}: size is not a number")


def fields(where: str, value: object, needed: set[str], allowed: set[str]) -> dict:
    if not isinstance(value, dict):
        raise Problem(EX_CONFIG, f"{where}: not a table")
    if needed - set(value):
        raise Problem(EX_CONFIG, f"{where}: {', '.join(sorted(needed - set(value)))} is missing; run: make mirror")
    if set(value) - needed - allowed:
        raise Problem(EX_CONFIG, f"{where}: unknown key {', '.join(sorted(set(value) - needed - allowed))}")
    return value


def matches(where: str, table: dict, key: str, pattern: re.Pattern) -> None:
    value = table.get(key)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise Problem(EX_CONFIG, f"{where}: `{key}` is not what it should be; found {value!r:.200}")


def current(entries: dict[str, dict], artefacts: dict[str, Artefact]) -> dict[str, dict]:
    """Entries that versions.toml still asks for, in that version and from that place; the others say nothing any more."""
    kept = {}
    for name, entry in entries.items():
        artefact = artefacts.get(name)
        if not artefact or artefact.version != entry["version"] or artefact.kind != entry["kind"]:
            continue
        if artefact.kind == "image":
            if entry["reference"] == artefact.reference:
                kept[name] = entry
            continue
        architectures = {
            architecture: value
            for architecture, value in entry["architectures"].items()
            if architecture in artefact.sources and artefact.sources[architecture].url == value["url"]
        }
        if architectures:
            kept[name] = entry | {"architectures": architectures}
    return kept
