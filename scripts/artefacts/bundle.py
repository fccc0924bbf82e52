"""The bundle: a folder, and the same as one file, with everything a site without internet needs from others."""

import os
import tarfile
from pathlib import Path

from . import files, layout, lock, package
from .catalogue import Artefact
from .problem import EX_UNAVAILABLE, Problem, wrong

LOCK = "versions.lock"
ABOUT = "README"
GENERATED = ("helm-values.yaml", "compose.env", ABOUT)
# Environment variables of deploy/compose.
COMPOSE = {
    "VECTOR_IMAGE": "vector-image",
    "PROMETHEUS_IMAGE": "prometheus-image",
    "ALERTMANAGER_IMAGE": "alertmanager-image",
    "GRAFANA_IMAGE": "grafana-image",
    "KAFKA_IMAGE": "kafka-image",
}

README = """\
What DDC installs or runs but does not make, fetched and checked by `make mirror` (docs/mirror.md).

  python3 scripts/mirror.py verify --bundle DIRECTORY        from a checkout of DDC: nothing here has changed
  (cd DIRECTORY && sha256sum packages/*)                     by hand: the sums stand in versions.lock

packages/          deb and rpm files; Ansible: vector_source: file
images/NAME/       OCI layouts, one image each with all its architectures. Load one into
  a registry         skopeo copy --all --preserve-digests oci:images/NAME docker://registry.example.org:5000/…
  Docker             skopeo copy oci:images/NAME docker-daemon:NAME:TAG       (its id is `config` in versions.lock)
  containerd         tar -C images/NAME -cf - . | ctr -n k8s.io images import -
helm-values.yaml   helm install … -f helm-values.yaml
compose.env        deploy/compose/single-pair/up.sh --bundle DIRECTORY
"""


def verified(where: str, root: Path, name: str, entry: dict, artefact: Artefact | None) -> dict | None:
    """The part of a lock's entry that lies in the bundle; what lies there and differs is an error."""
    if entry["kind"] == "image":
        directory = root / entry["file"]
        if not directory.exists():
            return None
        image = layout.verify(where, directory)
        if image.digest != entry["digest"]:
            raise wrong(where, "another image", expected=entry["digest"], found=image.digest, do="carry the bundle again")
        for architecture, value in entry["architectures"].items():
            found = image.architectures.get(architecture)
            if found != (value["digest"], value["config"]):
                raise wrong(where, f"another image for {architecture}", expected=value["digest"], found=found and found[0])
        return entry
    architectures = {}
    for architecture, value in entry["architectures"].items():
        path = root / value["file"]
        place = f"{where} {architecture}"
        if not path.exists() and not path.is_symlink():
            continue
        if path.is_symlink() or not path.is_file():
            raise wrong(place, f"{value['file']} is not a plain file")
        found = files.sha256(path)
        if found != value["sha256"]:
            raise wrong(place, f"{value['file']} is damaged or forged", expected=value["sha256"], found=found, do="carry it again")
        if artefact:
            package.check(place, path, artefact, architecture)
        architectures[architecture] = value
    return entry | {"architectures": architectures} if architectures else None


def verify(root: Path, trusted: Path | None, artefacts: dict[str, Artefact]) -> list[str]:
    """Everything that the lock names is there and right, and nothing else is there. One line for each artefact."""
    if not root.is_dir():
        raise Problem(EX_UNAVAILABLE, f"{root}: no such bundle")
    own = root / LOCK
    if not own.is_file():
        raise Problem(EX_UNAVAILABLE, f"{root}: there is no {LOCK} in it; it was not made by make mirror, or not to its end")
    entries = lock.load(own)
    if trusted:
        agree(entries, trusted)
    lines, expected = [], {LOCK, *GENERATED}
    for name, entry in sorted(entries.items()):
        artefact = artefacts.get(name)
        same = artefact if artefact and artefact.version == entry["version"] and artefact.kind == entry["kind"] else None
        found = verified(name, root, name, entry, same)
        missing = set(entry["architectures"]) - set(found["architectures"] if found else {})
        if missing:
            raise wrong(name, f"not in the bundle: {', '.join(sorted(missing))}", do="carry it again")
        if entry["kind"] == "image":
            expected.add(entry["file"])
        else:
            expected |= {value["file"] for value in entry["architectures"].values()}
        lines.append(f"{name} {entry['version']} ({', '.join(sorted(entry['architectures']))}): as in the lock")
    for name, content in generate(entries).items():
        path = root / name
        if not path.is_file() or path.is_symlink() or path.read_bytes() != content.encode():
            raise wrong(name, "not what belongs to this lock", do="carry the bundle again, or make it again")
    strangers(root, expected)
    return lines


def agree(entries: dict[str, dict], trusted: Path) -> None:
    if not trusted.is_file():
        raise Problem(EX_UNAVAILABLE, f"{trusted}: no such lock; run make mirror on a connected machine")
    known = lock.load(trusted)
    for name, entry in entries.items():
        if name not in known:
            raise wrong(name, f"in the bundle, but not in {trusted}")
        want = known[name]
        for architecture, value in entry["architectures"].items():
            if want["architectures"].get(architecture) != value:
                raise wrong(name, f"the bundle's lock says something else about {architecture} than {trusted}")
        for key in ("kind", "version", "digest", "reference"):
            if entry.get(key) != want.get(key):
                raise wrong(name, f"another {key} than in {trusted}", expected=want.get(key), found=entry.get(key))


def strangers(root: Path, expected: set[str]) -> None:
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        within_image = "/".join(name.split("/")[:2]) in expected and name.startswith("images/")
        if name in expected or within_image or (path.is_dir() and not path.is_symlink()):
            continue
        raise wrong(name, "a file that the lock does not know", do="remove it, or make the bundle again")


def reference(entry: dict, registry: str = "") -> str:
    """host/path:tag@digest; with `registry` in place of the publisher's host."""
    name = entry["reference"]
    if registry:
        name = registry + "/" + name.split("/", 1)[1]
    return f"{name}@{entry['digest']}" if entry.get("digest") else name


def generate(entries: dict[str, dict], registry: str = "") -> dict[str, str]:
    images = {name: entry for name, entry in entries.items() if entry["kind"] == "image"}
    head = "# Written by scripts/mirror.py from versions.lock. Do not edit.\n"
    compose = "".join(
        f"{variable}={reference(images[name], registry)}\n" for variable, name in COMPOSE.items() if name in images
    )
    return {
        "helm-values.yaml": head + helm(images, registry),
        "compose.env": head + compose,
        ABOUT: README,
    }


def helm(images: dict[str, dict], registry: str) -> str:
    if "vector-image" not in images:
        return "{}\n"
    name, _, digest = reference(images["vector-image"], registry).partition("@")
    repository, _, tag = name.rpartition(":")
    return f'vector:\n  image:\n    repository: "{repository}"\n    tag: "{tag}"\n    digest: "{digest}"\n'


def pack(root: Path) -> Path:
    """The bundle as one file beside it, the same bytes for the same content, and its sum."""
    target = root.with_name(root.name + ".tar")
    with files.temporary(root.parent) as scratch:
        part = scratch / target.name
        with tarfile.open(part, "w", format=tarfile.GNU_FORMAT) as archive:
            for path in sorted(root.rglob("*")):
                if path.name.startswith(".mirror-"):
                    continue
                archive.add(path, f"{root.name}/{path.relative_to(root).as_posix()}", recursive=False, filter=plain)
        digest = files.sha256(part)
        os.replace(part, target)
    files.write(target.with_name(target.name + ".sha256"), f"{digest}  {target.name}\n")
    return target


def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.isdir() else 0o644
    return entry
