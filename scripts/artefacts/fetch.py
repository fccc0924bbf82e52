"""Where bytes come from: the network, or a folder that a person filled. Nothing is trusted here; others check it."""

import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from . import files, layout
from .catalogue import Artefact
from .problem import EX_UNAVAILABLE, Problem, wrong

TRIES = 3
# Without a byte for so long, a connection is given up; with a trickle of them, a download after this.
STALL_SECONDS = 60
FILE_SECONDS = 3600
IMAGE_SECONDS = 3 * 3600
MANIFEST_LIMIT = 4 << 20


class Origin(Protocol):
    def small(self, where: str, url: str, limit: int) -> bytes: ...

    def file(self, where: str, url: str, target: Path, limit: int) -> None: ...

    def image(self, where: str, artefact: Artefact, digest: str, target: Path) -> None:
        """Makes an OCI layout with every architecture at `target`; `digest`, when known, is what must be served."""


class Network:
    """HTTPS, and for images skopeo."""

    def small(self, where: str, url: str, limit: int) -> bytes:
        return self.retried(where, url, lambda: b"".join(self.open(where, url, limit)))

    def file(self, where: str, url: str, target: Path, limit: int) -> None:
        def once() -> None:
            # From the start each time: what a broken transfer left behind is not worth the doubt.
            with target.open("wb") as file:
                for chunk in self.open(where, url, limit):
                    file.write(chunk)

        self.retried(where, url, once)

    def image(self, where: str, artefact: Artefact, digest: str, target: Path) -> None:
        skopeo = shutil.which("skopeo")
        if not skopeo:
            raise Problem(EX_UNAVAILABLE, f"{where}: skopeo is missing; run: apt-get install skopeo")
        top = self.skopeo(where, [skopeo, "inspect", "--raw", f"docker://{artefact.reference}"], target, MANIFEST_LIMIT)
        served = layout.digest_of(top)
        if digest and served != digest:
            raise wrong(
                where,
                f"{artefact.reference} is another image now",
                expected=digest,
                found=served,
                do="a tag can be moved: find out why; to take the new one, remove the entry from the lock and the digest from versions.toml",
            )
        directory = target.with_name(target.name + ".dir")
        source = f"docker://{artefact.repository}@{served}"
        # By digest, so that what is copied is what was looked at; --all and --preserve-digests keep the publisher's bytes.
        command = [skopeo, "copy", "--quiet", "--all", "--preserve-digests", source, f"dir:{directory}"]
        self.skopeo(where, command, directory, artefact.max_bytes)
        layout.from_directory(where, directory, target)

    def skopeo(self, where: str, command: list[str], directory: Path, limit: int) -> bytes:
        """Runs it within a time and, for what it writes into `directory` or prints, a size."""
        deadline = time.monotonic() + IMAGE_SECONDS
        with files.temporary(directory.parent) as scratch:
            out, err = scratch / "out", scratch / "err"
            with out.open("wb") as stdout, err.open("wb") as stderr:
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
            try:
                while process.poll() is None:
                    if time.monotonic() > deadline:
                        raise Problem(EX_UNAVAILABLE, f"{where}: skopeo took longer than {IMAGE_SECONDS} s")
                    if max(size(directory), out.stat().st_size) > limit:
                        raise wrong(where, "the image is too large", expected=f"at most {limit} bytes")
                    time.sleep(0.2)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            if process.returncode:
                said = err.read_bytes()[-2000:].decode("utf-8", "replace").strip().splitlines()
                raise Problem(EX_UNAVAILABLE, f"{where}: skopeo: {said[-1] if said else 'failed'}")
            if size(directory) > limit:
                raise wrong(where, "the image is too large", expected=f"at most {limit} bytes")
            return files.read_small(where, out, MANIFEST_LIMIT)

    def open(self, where: str, url: str, limit: int) -> Iterator[bytes]:
        """The body in pieces. Raises before more than `limit` bytes have been taken."""
        opener = urllib.request.build_opener(SecureRedirects)
        request = urllib.request.Request(url, headers={"User-Agent": "ddc-mirror", "Accept-Encoding": "identity"})
        deadline = time.monotonic() + FILE_SECONDS
        with opener.open(request, timeout=STALL_SECONDS) as answer:
            length = answer.headers.get("Content-Length", "")
            announced = int(length) if length.isdecimal() else None
            if announced is not None and announced > limit:
                raise wrong(where, "too large", expected=f"at most {limit} bytes", found=f"{announced} announced")
            taken = 0
            while chunk := answer.read(files.CHUNK):
                taken += len(chunk)
                if taken > limit:
                    raise wrong(where, "too large", expected=f"at most {limit} bytes", do="see max_bytes in versions.toml")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not complete after {FILE_SECONDS} s")
                yield chunk
            if announced is not None and taken != announced:
                raise ConnectionError(f"cut off: {taken} of {announced} bytes")

    def retried(self, where: str, url: str, once):
        for attempt in range(1, TRIES + 1):
            try:
                return once()
            except urllib.error.HTTPError as error:
                said = f"HTTP {error.code} {error.reason}"
                if error.code < 500 and error.code not in (408, 429):
                    break
            except OSError as error:
                said = str(getattr(error, "reason", None) or error)
            if attempt < TRIES:
                time.sleep(2**attempt)
        raise Problem(
            EX_UNAVAILABLE,
            f"{where}: {url} could not be had: {said}; try again, or put the file into a folder by hand and give --from FOLDER",
        )


class SecureRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, request, file, code, message, headers, newurl):
        if not newurl.startswith("https://"):
            raise urllib.error.URLError(f"redirected away from HTTPS, to {newurl[:200]}")
        return super().redirect_request(request, file, code, message, headers, newurl)


class Folder:
    """Files under their own names, images as OCI layouts under the artefact's; a bundle is such a folder too."""

    def __init__(self, root: Path):
        if not root.is_dir():
            raise Problem(EX_UNAVAILABLE, f"--from {root}: no such folder")
        self.root = root

    def find(self, where: str, name: str) -> Path:
        for candidate in (self.root / name, self.root / "packages" / name, self.root / "images" / name):
            if candidate.exists():
                return candidate
        raise Problem(EX_UNAVAILABLE, f"{where}: there is no {name} in {self.root}")

    def small(self, where: str, url: str, limit: int) -> bytes:
        return files.read_small(where, self.find(where, url.rsplit("/", 1)[-1]), limit)

    def file(self, where: str, url: str, target: Path, limit: int) -> None:
        source = self.find(where, url.rsplit("/", 1)[-1])
        if not source.is_file():
            raise wrong(where, f"{source} is not a file")
        if source.stat().st_size > limit:
            raise wrong(where, "too large", expected=f"at most {limit} bytes", found=source.stat().st_size)
        shutil.copyfile(source, target)

    def image(self, where: str, artefact: Artefact, digest: str, target: Path) -> None:
        layout.copy(where, self.find(where, artefact.name), target, artefact.max_bytes)


def size(path: Path) -> int:
    if not path.is_dir():
        return 0
    total = 0
    for file in path.rglob("*"):
        try:
            total += file.lstat().st_size
        except FileNotFoundError:
            pass
    return total
