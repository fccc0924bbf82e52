"""Images as OCI layouts, checked from the index down: every byte hangs on one digest.

    oci-layout  index.json ─▶ index ─┬▶ manifest amd64 ─▶ configuration, layers
                                     └▶ manifest arm64 ─▶ configuration, layers        all of them in blobs/sha256/
"""

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from . import files
from .catalogue import DIGEST
from .problem import wrong

INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
JSON_LIMIT = 8 << 20
MOST_MANIFESTS = 64
MOST_LAYERS = 256
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


@dataclass
class Image:
    """What a layout holds. `architectures`: architecture → (digest of its manifest, of its configuration)."""

    digest: str
    architectures: dict[str, tuple[str, str]] = field(default_factory=dict)
    blobs: dict[str, int] = field(default_factory=dict)


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def verify(where: str, directory: Path, *, exact: bool = True) -> Image:
    """Reads a layout and checks all of it. `exact`: a file that nothing refers to is an error."""
    top = top_descriptor(where, directory)
    image = Image(descriptor(where, top)[0])
    walk(where, directory, top, image, depth=0)
    if not image.architectures:
        raise wrong(where, "no image for Linux in it")
    if exact:
        expected = {"oci-layout", "index.json"} | {f"blobs/sha256/{d.removeprefix('sha256:')}" for d in image.blobs}
        for path in sorted(directory.rglob("*")):
            name = path.relative_to(directory).as_posix()
            if path.is_symlink() or (not path.is_dir() and name not in expected):
                raise wrong(where, f"a file that does not belong to the image: {name}", do="make the bundle again")
    return image


def walk(where: str, directory: Path, entry: dict, image: Image, depth: int) -> None:
    digest, size = descriptor(where, entry)
    content = small_blob(where, directory, digest, size)
    image.blobs[digest] = size
    document = files.parse_json(f"{where} {digest}", content)
    media_type = document.get("mediaType") or entry.get("mediaType")
    if media_type in INDEXES:
        if depth > 1:
            raise wrong(where, "indexes within indexes within indexes")
        for child in entries(where, document, "manifests", MOST_MANIFESTS):
            walk(where, directory, child, image, depth + 1)
    elif media_type in MANIFESTS:
        manifest(where, directory, entry, document, image)
    else:
        raise wrong(where, f"{digest} is neither an index nor a manifest", found=media_type)


def manifest(where: str, directory: Path, entry: dict, document: dict, image: Image) -> None:
    config = document.get("config")
    if not isinstance(config, dict):
        raise wrong(where, "a manifest without a configuration")
    config_digest, config_size = descriptor(where, config)
    content = small_blob(where, directory, config_digest, config_size)
    image.blobs[config_digest] = config_size
    for layer in entries(where, document, "layers", MOST_LAYERS):
        digest, size = descriptor(where, layer)
        check_blob(where, directory, digest, size)
        image.blobs[digest] = size
    platform = entry.get("platform") or {}
    if platform.get("os") == "unknown":
        # What a builder says about how it was made; not an image.
        return
    facts = files.parse_json(f"{where} {config_digest}", content)
    os_name, architecture = facts.get("os"), facts.get("architecture")
    if platform and platform.get("architecture") != architecture:
        raise wrong(
            where,
            f"the index offers {config_digest} for another architecture than it was made for",
            expected=platform.get("architecture"),
            found=architecture,
            do="do not use this image; tell its publisher",
        )
    if os_name == "linux" and isinstance(architecture, str):
        image.architectures.setdefault(architecture, (entry["digest"], config_digest))


def top_descriptor(where: str, directory: Path) -> dict:
    index = files.parse_json(where, files.read_small(where, directory / "index.json", JSON_LIMIT))
    files.read_small(where, directory / "oci-layout", JSON_LIMIT)
    listed = entries(where, index, "manifests", MOST_MANIFESTS)
    if len(listed) != 1:
        raise wrong(
            where,
            "an OCI layout must hold one image, with one index for all its architectures",
            found=f"{len(listed)} entries in index.json",
            do="make it with: skopeo copy --all docker://… oci:FOLDER/NAME",
        )
    return listed[0]


def entries(where: str, document: dict, key: str, most: int) -> list[dict]:
    listed = document.get(key)
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise wrong(where, f"`{key}` is not a list")
    if len(listed) > most:
        raise wrong(where, f"too many {key}", expected=f"at most {most}", found=len(listed))
    return listed


def descriptor(where: str, entry: dict) -> tuple[str, int]:
    digest, size = entry.get("digest"), entry.get("size")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise wrong(where, "not a digest", expected="sha256:…", found=digest)
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise wrong(where, f"{digest} has no size", found=size)
    return digest, size


def blob_path(directory: Path, digest: str) -> Path:
    return directory / "blobs" / "sha256" / digest.removeprefix("sha256:")


def small_blob(where: str, directory: Path, digest: str, size: int) -> bytes:
    if size > JSON_LIMIT:
        raise wrong(where, f"{digest} is too large for a document", expected=f"at most {JSON_LIMIT} bytes", found=size)
    check_blob(where, directory, digest, size)
    return files.read_small(where, blob_path(directory, digest), JSON_LIMIT)


def check_blob(where: str, directory: Path, digest: str, size: int) -> None:
    path = blob_path(directory, digest)
    if path.is_symlink() or not path.is_file():
        raise wrong(where, f"a part of the image is missing: {digest}", do="fetch it again")
    if path.stat().st_size != size:
        raise wrong(where, f"{digest} is damaged", expected=f"{size} bytes", found=path.stat().st_size, do="fetch it again")
    found = "sha256:" + files.sha256(path)
    if found != digest:
        raise wrong(where, "a part of the image is damaged or forged", expected=digest, found=found, do="fetch it again")


def copy(where: str, source: Path, target: Path, limit: int) -> None:
    """Takes from a layout what its one image needs, and nothing else."""
    image = verify(where, source, exact=False)
    total = sum(image.blobs.values())
    if total > limit:
        raise wrong(where, "the image is too large", expected=f"at most {limit} bytes", found=total)
    start(target)
    for digest in image.blobs:
        shutil.copyfile(blob_path(source, digest), blob_path(target, digest))
    finish(target, top_descriptor(where, source))


def from_directory(where: str, source: Path, target: Path) -> None:
    """Turns skopeo's `dir:` form, which keeps the publisher's bytes, into a layout. What the names claim is checked later."""
    start(target)
    top = files.read_small(where, source / "manifest.json", JSON_LIMIT)
    for path in sorted(source.iterdir()):
        name = path.name
        if re.fullmatch(r"[0-9a-f]{64}(\.manifest\.json)?", name):
            os.replace(path, blob_path(target, "sha256:" + name[:64]))
    digest = digest_of(top)
    files.write(blob_path(target, digest), top)
    media_type = files.parse_json(where, top).get("mediaType")
    if media_type not in INDEXES + MANIFESTS:
        # OCI documents may leave it out; then their lists tell.
        media_type = INDEXES[0] if b'"manifests"' in top else MANIFESTS[0]
    finish(target, {"mediaType": media_type, "digest": digest, "size": len(top)})


def start(target: Path) -> None:
    (target / "blobs" / "sha256").mkdir(parents=True)


def finish(target: Path, top: dict) -> None:
    entry = {key: top[key] for key in ("mediaType", "digest", "size") if key in top}
    index = {"schemaVersion": 2, "mediaType": INDEXES[0], "manifests": [entry]}
    files.write(target / "index.json", json.dumps(index))
    files.write(target / "oci-layout", LAYOUT)
