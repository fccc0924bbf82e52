#!/usr/bin/env python3
"""Tests of scripts/mirror.py, with stand-ins: packages and images made here, a few bytes each, under the names of real ones.

None of them is what its name says; no address outside this machine is asked. Real: the program, skopeo, and a registry's
protocol (served here, on loopback). The last line is the sum. `test_mirror.py -v` names each case.
"""

import gzip
import hashlib
import http.server
import io
import json
import lzma
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import unittest
from pathlib import Path
from unittest import mock

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from artefacts import fetch, layout, package
from artefacts.catalogue import Artefact
from artefacts.problem import Problem

ELF = {"amd64": 62, "arm64": 183}
RPM = {"amd64": "x86_64", "arm64": "aarch64"}
DEB_NAME = "vector_{version}-1_{architecture}.deb"


# --- stand-ins -------------------------------------------------------------------------------------------------------


def elf(architecture: str) -> bytes:
    return b"\x7fELF\x02\x01\x01" + b"\0" * 9 + struct.pack("<HH", 2, ELF[architecture]) + b"a stand-in, not Vector"


def tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def deb(architecture="amd64", version="0.57.0-1", name="vector", machine=None, data=None) -> bytes:
    control = f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nDescription: a stand-in\n more\n"
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": gzip.compress(tar({"./control": control.encode()}), mtime=0),
        "data.tar.xz": data or lzma.compress(tar({"./usr/bin/vector": elf(machine or architecture)})),
    }
    out = b"!<arch>\n"
    for member, content in members.items():
        out += f"{member:<16}{0:<12}{0:<6}{0:<6}{0o100644:<8o}{len(content):<10}`\n".encode() + content + b"\n" * (len(content) % 2)
    return out


def rpm(architecture="amd64", version="0.57.0", name="vector") -> bytes:
    def header(values: dict[int, str]) -> bytes:
        index, store = b"", b""
        for tag, value in values.items():
            index += struct.pack(">iiii", tag, 6, len(store), 1)
            store += value.encode() + b"\0"
        return b"\x8e\xad\xe8\x01\0\0\0\0" + struct.pack(">II", len(values), len(store)) + index + store

    signature = header({1000: "signature"})
    lead = b"\xed\xab\xee\xdb" + b"\0" * 92
    padding = b"\0" * (-(96 + len(signature)) % 8)
    return lead + signature + padding + header({1000: name, 1001: version, 1002: "1", 1022: RPM.get(architecture, architecture)})


DOCKER = {
    "index": "application/vnd.docker.distribution.manifest.list.v2+json",
    "manifest": "application/vnd.docker.distribution.manifest.v2+json",
    "config": "application/vnd.docker.container.image.v1+json",
    "layer": "application/vnd.docker.image.rootfs.diff.tar.gzip",
}
OCI = {
    "index": "application/vnd.oci.image.index.v1+json",
    "manifest": "application/vnd.oci.image.manifest.v1+json",
    "config": "application/vnd.oci.image.config.v1+json",
    "layer": "application/vnd.oci.image.layer.v1.tar+gzip",
}


class StandInImage:
    """An image for several architectures, as blobs; `lies`: what its configurations say in place of the index's word."""

    def __init__(self, architectures=("amd64", "arm64"), types=OCI, content="a stand-in", lies=None):
        self.blobs: dict[str, bytes] = {}
        self.types = types
        children = []
        for architecture in architectures:
            raw = tar({f"{content}-{architecture}": content.encode()})
            layer = self.add("layer", gzip.compress(raw, mtime=0))
            config = {
                "architecture": (lies or {}).get(architecture, architecture),
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(raw).hexdigest()]},
            }
            manifest = {
                "schemaVersion": 2,
                "mediaType": types["manifest"],
                "config": self.add("config", json.dumps(config).encode()),
                "layers": [layer],
            }
            child = self.add("manifest", json.dumps(manifest).encode())
            children.append(child | {"platform": {"architecture": architecture, "os": "linux"}})
        index = {"schemaVersion": 2, "mediaType": types["index"], "manifests": children}
        self.top = self.add("index", json.dumps(index).encode())

    def add(self, kind: str, content: bytes) -> dict:
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        return {"mediaType": self.types[kind], "digest": digest, "size": len(content)}

    def write(self, directory: Path) -> None:
        (directory / "blobs/sha256").mkdir(parents=True)
        for digest, content in self.blobs.items():
            (directory / "blobs/sha256" / digest[7:]).write_bytes(content)
        (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [self.top]}))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# --- the program, with a folder --------------------------------------------------------------------------------------


class Mirror(unittest.TestCase):
    def setUp(self):
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="mirror-test.")))
        self.folder = self.directory / "from"
        self.folder.mkdir()
        self.bundle = self.directory / "bundle"
        self.lock = self.directory / "versions.lock"
        self.versions()
        self.debs()

    def versions(self, version="0.57.0", sha="", digest="", sums=True):
        source = 'url = "https://packages.example.org/{version}/vector_{version}-1_%s.deb"\nsha256 = "%s"\n'
        (self.directory / "versions.toml").write_text(
            f'schema = 1\n[[artefact]]\nname = "vector-deb"\nkind = "package"\nversion = "{version}"\nlicence = "MPL-2.0"\n'
            + ('sums = "https://packages.example.org/{version}/SUMS"\n' if sums else "")
            + "max_bytes = 1000000\n"
            + "[artefact.architectures.amd64]\n" + source % ("amd64", sha)
            + "[artefact.architectures.arm64]\n" + source % ("arm64", "")
            + f'[[artefact]]\nname = "vector-image"\nkind = "image"\nversion = "{version}"\nlicence = "MPL-2.0"\n'
            + f'reference = "docker.example.org/timberio/vector:{{version}}-alpine"\ndigest = "{digest}"\nmax_bytes = 1000000\n'
        )  # fmt: skip

    def debs(self, version="0.57.0", **changed: bytes):
        """Both debs, their sums, and the image; `changed`: the bytes that one architecture has in place of the right ones."""
        listed = ""
        for architecture in ELF:
            right = deb(architecture, f"{version}-1")
            name = DEB_NAME.format(version=version, architecture=architecture)
            (self.folder / name).write_bytes(changed.get(architecture, right))
            listed += f"{sha256(right)}  {name}\n"
        (self.folder / "SUMS").write_text(listed)
        shutil.rmtree(self.folder / "vector-image", ignore_errors=True)
        self.image = StandInImage(content=version)
        self.image.write(self.folder / "vector-image")

    def run_mirror(self, *arguments, code=0) -> str:
        command = [sys.executable, HERE / "mirror.py", *arguments, "--versions", self.directory / "versions.toml"]
        command += ["--bundle", self.bundle]
        if not arguments or arguments[0] == "fetch":
            command += ["--lock", self.lock, "--from", self.folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        return done.stdout + done.stderr

    def refused(self, *said, arguments=("fetch",), code=65):
        """It fails, says why, and leaves no lock that was not there and no deb under its name."""
        before = self.lock.read_bytes() if self.lock.exists() else None
        output = self.run_mirror(*arguments, code=code)
        for text in said:
            self.assertIn(text, output)
        after = self.lock.read_bytes() if self.lock.exists() else None
        self.assertEqual(before, after, "the lock changed although something was wrong")

    def fetched(self) -> dict:
        self.run_mirror("fetch")
        return json.loads(self.lock.read_text())["artefacts"]

    def test_right(self):
        entries = self.fetched()
        one = entries["vector-deb"]["architectures"]["arm64"]
        self.assertEqual(one["sha256"], sha256(deb("arm64")))
        self.assertEqual((one["checked"], one["size"]), ("publisher", len(deb("arm64"))))
        self.assertEqual((self.bundle / one["file"]).read_bytes(), deb("arm64"))
        image = entries["vector-image"]
        self.assertEqual((image["digest"], image["checked"]), (self.image.top["digest"], "first"))
        self.assertEqual(set(image["architectures"]), {"amd64", "arm64"})
        self.assertIn(f"vector:0.57.0-alpine@{image['digest']}", (self.bundle / "compose.env").read_text())
        self.assertIn(image["digest"], (self.bundle / "helm-values.yaml").read_text())
        self.run_mirror("verify")
        tar_sum = (self.directory / "bundle.tar.sha256").read_text().split()[0]
        self.assertEqual(tar_sum, sha256((self.directory / "bundle.tar").read_bytes()))
        # Again: nothing is fetched, nothing changes.
        shutil.move(self.folder / DEB_NAME.format(version="0.57.0", architecture="amd64"), self.directory / "away")
        self.assertEqual(self.fetched(), entries)
        self.assertEqual(tar_sum, sha256((self.directory / "bundle.tar").read_bytes()))

    def test_the_tar_holds_the_bundle(self):
        self.fetched()
        (self.directory / "site").mkdir()
        subprocess.run(["tar", "-C", self.directory / "site", "-xf", self.directory / "bundle.tar"], check=True)
        self.bundle = self.directory / "site/bundle"
        self.run_mirror("verify", "--lock", self.lock)

    def test_wrong_digest(self):
        self.debs(amd64=deb("amd64") + b"\n")
        self.refused("vector-deb amd64", "publisher's sums", f"expected {sha256(deb('amd64'))}", "found", "nothing was kept")
        self.assertFalse(self.lock.exists())
        self.assertFalse(list(self.bundle.glob("packages/*amd64*")))

    def test_wrong_digest_in_versions_toml(self):
        self.versions(sha="0" * 64)
        self.refused("versions.toml and the publisher's sums do not agree", "0" * 64)

    def test_declared_digest_without_publishers_sums(self):
        self.versions(sha=sha256(deb("amd64")), sums=False)
        entry = self.fetched()["vector-deb"]["architectures"]
        self.assertEqual((entry["amd64"]["checked"], entry["arm64"]["checked"]), ("declared", "first"))

    def test_wrong_architecture(self):
        # The sums are of the wrong file too: only a look inside tells.
        wrong = deb("arm64")
        self.debs(amd64=wrong)
        (self.folder / "SUMS").write_text(
            "".join(f"{sha256(wrong)}  {DEB_NAME.format(version='0.57.0', architecture=a)}\n" for a in ELF)
        )
        self.refused("vector-deb amd64: a package for another architecture", "expected amd64; found arm64")

    def trusted(self, amd64: bytes):
        """A deb that the publisher's sums name, whatever it is."""
        self.debs(amd64=amd64)
        name = DEB_NAME.format(version="0.57.0", architecture="amd64")
        (self.folder / "SUMS").write_text(
            f"{sha256(amd64)}  {name}\n{sha256(deb('arm64'))}  {DEB_NAME.format(version='0.57.0', architecture='arm64')}\n"
        )

    def test_wrong_machine_inside(self):
        self.trusted(deb("amd64", machine="arm64"))
        self.refused("./usr/bin/vector is a program for another machine", "expected amd64; found arm64")

    def test_no_program_inside(self):
        self.trusted(deb(data=lzma.compress(tar({"./readme": b"nothing"}))))
        self.refused("no program in it")

    def test_another_version_inside(self):
        self.trusted(deb(version="0.41.0-1"))
        self.refused("another version", "expected 0.57.0", "0.41.0")

    def test_another_package_inside(self):
        self.trusted(deb(name="vectör\x1b[31m"))
        self.refused("another package; expected vector")

    def test_truncated(self):
        self.trusted(deb("amd64")[:-40])
        self.refused("truncated or damaged")
        self.trusted(deb("amd64")[:90])
        self.refused("truncated or damaged")

    def test_truncated_against_the_sum(self):
        self.debs(amd64=deb("amd64")[:-40])
        self.refused("has not the SHA-256 that the publisher's sums give")

    def test_a_web_page(self):
        page = b"<!DOCTYPE html><title>Please log in</title>"
        self.debs(amd64=page)
        self.refused("vector-deb amd64: this is a web page, not the file", "proxy or a portal")
        self.trusted(page)
        self.refused("this is a web page")
        (self.folder / "SUMS").write_bytes(page)
        self.refused("publisher's sums: this is a web page")

    def test_sums_without_our_entry(self):
        (self.folder / "SUMS").write_text(f"{'0' * 64}  another.deb\n")
        self.refused("the publisher's sums do not name vector_0.57.0-1_amd64.deb", "correct `sums`")
        (self.folder / "SUMS").write_text("nothing\n")
        self.refused("no SHA-256 sums in it")
        name = DEB_NAME.format(version="0.57.0", architecture="amd64")
        (self.folder / "SUMS").write_text(f"{'0' * 64}  {name}\n{'1' * 64}  {name}\n")
        self.refused(f"two sums for {name}")

    def test_too_large(self):
        self.trusted(deb() + b"\0" * 1_000_000)
        self.refused("too large; expected at most 1000000 bytes")

    def test_a_bomb(self):
        self.trusted(deb(data=lzma.compress(tar({"./zeros": b"\0" * 3_000_000}))))
        with mock.patch.object(package, "UNPACKED_LIMIT", 1_000_000), self.assertRaises(Problem) as caught:
            path = self.folder / DEB_NAME.format(version="0.57.0", architecture="amd64")
            artefact = Artefact("vector-deb", "package", "0.57.0", "MPL-2.0", "", 1)
            package.check("vector-deb", path, artefact, "amd64")
        self.assertIn("unpacks to more than it may", str(caught.exception))

    def test_missing(self):
        (self.folder / DEB_NAME.format(version="0.57.0", architecture="arm64")).unlink()
        self.refused("vector-deb arm64: there is no vector_0.57.0-1_arm64.deb in", code=69)

    def test_a_failure_keeps_what_the_lock_said(self):
        self.fetched()
        self.versions(version="0.58.0")
        self.debs(version="0.58.0", arm64=b"<html>")
        self.refused("this is a web page")

    def test_replaced_under_the_same_version(self):
        self.fetched()
        shutil.rmtree(self.bundle)
        evil = deb(data=lzma.compress(tar({"./usr/bin/vector": elf("amd64") + b"evil"})))
        self.trusted(evil)
        self.refused("the lock and the publisher's sums do not agree", "replaced under the same version")

    def test_upgrade(self):
        before = self.fetched()
        self.versions(version="0.58.0")
        self.debs(version="0.58.0")
        after = self.fetched()
        self.assertEqual({entry["version"] for entry in after.values()}, {"0.58.0"})
        self.assertNotEqual(before["vector-image"]["digest"], after["vector-image"]["digest"])
        self.assertFalse(list(self.bundle.glob("packages/*0.57.0*")), "the old version is still in the bundle")
        self.run_mirror("verify", "--lock", self.lock)

    def test_upgrade_of_one(self):
        """The lock must not go on speaking of what versions.toml no longer asks for."""
        self.fetched()
        self.versions(version="0.58.0")
        self.debs(version="0.58.0")
        self.run_mirror("fetch", "--only", "vector-deb")
        entries = json.loads(self.lock.read_text())["artefacts"]
        self.assertEqual(set(entries), {"vector-deb"})
        self.run_mirror("verify")

    def test_one_architecture_and_the_other_later(self):
        self.run_mirror("fetch", "--architectures", "amd64", "--only", "vector-deb")
        self.assertEqual(set(json.loads(self.lock.read_text())["artefacts"]["vector-deb"]["architectures"]), {"amd64"})
        self.run_mirror("fetch", "--architectures", "arm64", "--only", "vector-deb")
        self.assertEqual(set(json.loads(self.lock.read_text())["artefacts"]["vector-deb"]["architectures"]), set(ELF))

    def test_usage(self):
        self.refused("--architectures takes amd64 and arm64", arguments=("fetch", "--architectures", "riscv64"), code=64)
        self.refused("versions.toml has vector-deb", arguments=("fetch", "--only", "nothing"), code=64)
        (self.bundle / "packages").mkdir(parents=True)
        (self.bundle / "packages/mine").write_text("not the program's")
        self.refused("it is not a bundle", code=64)
        self.assertTrue((self.bundle / "packages/mine").exists())

    def test_versions_toml(self):
        for change, said in {
            'licence = "MPL-2.0"': ("", "`licence` is missing"),
            "sha256 =": ("sha265 =", "unknown key `sha265`"),
            "https://packages": ("http://packages", "must be a plain https:// address"),
            "/vector_{version}-1_amd64.deb": ("/%2e%2e", "does not end in a file name"),
            'name = "vector-deb"': ('name = "../deb"', "`name` is missing or not what it should be"),
            "docker.example.org/": ("", "reference must be host/path:tag"),
            "schema = 1": ("schema = 2", "schema must be 1"),
        }.items():
            self.versions()
            text = (self.directory / "versions.toml").read_text()
            self.assertIn(change, text)
            (self.directory / "versions.toml").write_text(text.replace(change, said[0], 1))
            with self.subTest(change):
                self.refused(said[1], code=78)

    # --- images

    def image_is(self, **changed):
        shutil.rmtree(self.folder / "vector-image")
        self.image = StandInImage(**changed)
        self.image.write(self.folder / "vector-image")

    def test_image_not_for_this_architecture(self):
        self.image_is(architectures=("amd64",))
        self.refused("vector-image: not for this architecture; expected arm64; found amd64")

    def test_image_whose_index_lies(self):
        self.image_is(lies={"arm64": "amd64"})
        self.refused("another architecture than it was made for", "expected arm64; found amd64")

    def test_image_with_another_digest(self):
        self.versions(digest="sha256:" + "0" * 64)
        self.refused("another image", "sha256:" + "0" * 64, self.image.top["digest"])

    def test_image_whose_tag_moved(self):
        self.fetched()
        shutil.rmtree(self.bundle)
        self.image_is(content="another")
        self.refused("another image", self.image.top["digest"])

    def test_image_damaged(self):
        for digest in list(self.image.blobs):
            with self.subTest(digest):
                self.image_is(content="0.57.0")
                path = self.folder / "vector-image/blobs/sha256" / digest[7:]
                content = bytearray(path.read_bytes())
                content[-1] ^= 1
                path.write_bytes(content)
                self.refused(digest)
                path.unlink()
                self.refused(digest, "missing")

    def test_image_with_a_path_for_a_digest(self):
        self.image.top["digest"] = "sha256:../../../../etc/passwd"
        shutil.rmtree(self.folder / "vector-image")
        self.image.write(self.folder / "vector-image")
        self.refused("not a digest")

    # --- the bundle at the site

    def test_tampered_bundle(self):
        self.fetched()
        packages = self.bundle / "packages" / DEB_NAME.format(version="0.57.0", architecture="amd64")
        blob = next((self.bundle / "images/vector-image/blobs/sha256").iterdir())
        tampered = {
            "is damaged or forged": lambda: packages.write_bytes(packages.read_bytes() + b"x"),
            "not in the bundle: amd64": packages.unlink,
            "is not a plain file": lambda: (packages.unlink(), packages.symlink_to("/etc/hostname")),
            "is damaged": lambda: blob.write_bytes(blob.read_bytes()[:-1]),
            "compose.env: not what belongs to this lock": lambda: (self.bundle / "compose.env").write_text("VECTOR_IMAGE=evil\n"),
            "a file that the lock does not know": lambda: (self.bundle / "packages/evil.deb").write_bytes(b"x"),
            "does not belong to the image": lambda: (self.bundle / "images/vector-image/evil").write_bytes(b"x"),
        }
        for said, tamper in tampered.items():
            with self.subTest(said):
                kept = self.directory / "kept"
                shutil.copytree(self.bundle, kept)
                tamper()
                self.assertIn(said, self.run_mirror("verify", code=65))
                shutil.rmtree(self.bundle)
                kept.rename(self.bundle)
                self.run_mirror("verify")

    def test_a_bundle_with_a_forged_lock(self):
        """Whoever can change the bundle can change the lock in it: the one that came by another way tells."""
        self.fetched()
        path = self.bundle / "versions.lock"
        evil = deb(data=lzma.compress(tar({"./usr/bin/vector": elf("amd64") + b"evil"})))
        text = path.read_text().replace(sha256(deb("amd64")), sha256(evil))
        path.write_text(text.replace(f'"size": {len(deb("amd64"))}', f'"size": {len(evil)}'))
        (self.bundle / "packages" / DEB_NAME.format(version="0.57.0", architecture="amd64")).write_bytes(evil)
        self.run_mirror("verify")
        self.assertIn("says something else about amd64", self.run_mirror("verify", "--lock", self.lock, code=65))

    def test_a_lock_that_leads_elsewhere(self):
        self.fetched()
        for old, new in (
            ('"packages/vector_0.57.0-1_amd64.deb"', '"../../etc/passwd"'),
            ('"packages/vector_0.57.0-1_amd64.deb"', '"packages/.."'),
            ('"images/vector-image"', '"/etc"'),
            ('"schema": 1', '"schema": 2'),
            ('"kind": "image"', '"kind": "image", "kind": "package"'),
        ):
            path = self.bundle / "versions.lock"
            text = path.read_text()
            self.assertIn(old, text)
            path.write_text(text.replace(old, new, 1))
            with self.subTest(new):
                done = self.run_mirror("verify", code=65 if "kind" in new else 78)
                self.assertRegex(done, "is not what it should be|not a lock|a key is there twice")
            path.write_text(text)

    def test_no_lock(self):
        self.assertIn("no such bundle", self.run_mirror("verify", code=69))
        self.fetched()
        self.assertIn("run make mirror", self.run_mirror("verify", "--lock", self.directory / "none", code=69))
        (self.bundle / "versions.lock").unlink()
        self.assertIn("there is no versions.lock in it", self.run_mirror("verify", code=69))

    def test_another_registry(self):
        self.fetched()
        site = self.directory / "site"
        self.run_mirror("generate", "--registry", "registry.example.net:5000", "--out", site)
        digest = self.image.top["digest"]
        self.assertIn(f"registry.example.net:5000/timberio/vector:0.57.0-alpine@{digest}", (site / "compose.env").read_text())
        self.assertIn('repository: "registry.example.net:5000/timberio/vector"', (site / "helm-values.yaml").read_text())
        self.run_mirror("verify")


class Rpm(unittest.TestCase):
    def check(self, content: bytes, architecture="amd64"):
        with tempfile.NamedTemporaryFile(suffix=".rpm") as file:
            file.write(content)
            file.flush()
            artefact = Artefact("vector-rpm", "package", "0.57.0", "MPL-2.0", "", 1)
            package.check("vector-rpm", Path(file.name), artefact, architecture)

    def test_right(self):
        self.check(rpm("amd64"))
        self.check(rpm("arm64"), "arm64")

    def test_wrong(self):
        for content, said in (
            (rpm("arm64"), "expected amd64; found arm64"),
            (rpm("noarch"), "found noarch"),
            (rpm(name="other"), "another package"),
            (rpm(version="0.5"), "another version"),
            (rpm()[:100], "truncated"),
            (rpm()[:-4], "truncated"),
            (rpm()[:96] + b"\x8e\xad\xe8\x01\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", "impossible header"),
            (b"PK\x03\x04", "neither a deb nor an rpm"),
        ):
            with self.subTest(said), self.assertRaisesRegex(Problem, said):
                self.check(content)


# --- the network, on loopback ----------------------------------------------------------------------------------------


class Server(http.server.BaseHTTPRequestHandler):
    """What the test put into `answers`: path → (code, headers, body)."""

    answers: dict[str, tuple[int, dict, bytes]] = {}
    asked: list[str] = []

    def do_GET(self):
        self.asked.append(self.path)
        code, headers, body = self.answers.get(self.path, (404, {}, b"no"))
        self.send_response(code)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


class Network(unittest.TestCase):
    def setUp(self):
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="mirror-test.")))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
        self.port = server.server_address[1]
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        Server.answers, Server.asked = {}, []
        self.enterContext(mock.patch.object(fetch.time, "sleep"))
        # Catalogue addresses are HTTPS; the code below it is asked directly here, since no certificate is at hand.
        self.base = f"http://127.0.0.1:{self.port}"

    def get(self, path: str, limit=1000) -> bytes:
        target = self.directory / "file"
        fetch.Network().file("thing", self.base + path, target, limit)
        return target.read_bytes()

    def test_right(self):
        Server.answers["/a"] = (200, {}, b"content")
        self.assertEqual(self.get("/a"), b"content")

    def test_not_there(self):
        with self.assertRaisesRegex(Problem, "thing: .*/a could not be had: HTTP 404 .*--from FOLDER"):
            self.get("/a")
        self.assertEqual(len(Server.asked), 1, "404 is not worth another try")

    def test_server_trouble_is_tried_again(self):
        Server.answers["/a"] = (503, {}, b"")
        with self.assertRaisesRegex(Problem, "HTTP 503"):
            self.get("/a")
        self.assertEqual(len(Server.asked), fetch.TRIES)

    def test_cut_off(self):
        Server.answers["/a"] = (200, {"Content-Length": "100"}, b"content")
        with self.assertRaisesRegex(Problem, "could not be had"):
            self.get("/a")

    def test_too_large(self):
        Server.answers["/a"] = (200, {}, b"x" * 2000)
        with self.assertRaisesRegex(Problem, "too large"):
            self.get("/a")
        # Not announced: noticed while it comes.
        Server.answers["/a"] = (200, {"Content-Length": "", "Connection": "close"}, b"x" * 2000)
        with self.assertRaisesRegex(Problem, "too large"):
            self.get("/a")

    def test_redirected_away_from_https(self):
        Server.answers["/a"] = (302, {"Location": self.base + "/b"}, b"")
        Server.answers["/b"] = (200, {}, b"content")
        with self.assertRaisesRegex(Problem, "redirected away from HTTPS"):
            self.get("/a")
        self.assertNotIn("/b", Server.asked)

    def serve(self, image: StandInImage) -> Artefact:
        """A registry that knows one image."""
        Server.answers["/v2/"] = (200, {"Docker-Distribution-API-Version": "registry/2.0"}, b"{}")
        for digest, content in image.blobs.items():
            kind = json.loads(content).get("mediaType", "") if content[:1] == b"{" else ""
            headers = {"Content-Type": kind or "application/octet-stream", "Docker-Content-Digest": digest}
            Server.answers[f"/v2/timberio/vector/manifests/{digest}"] = (200, headers, content)
            Server.answers[f"/v2/timberio/vector/blobs/{digest}"] = (200, headers, content)
        Server.answers["/v2/timberio/vector/manifests/1"] = Server.answers[f"/v2/timberio/vector/manifests/{image.top['digest']}"]
        settings = self.directory / "home/.config/containers/registries.conf"
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(f'[[registry]]\nlocation = "127.0.0.1:{self.port}"\ninsecure = true\n')
        settings.with_name("policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        environment = {"HOME": str(self.directory / "home"), "no_proxy": "*"}
        self.enterContext(mock.patch.dict(os.environ, environment))
        reference = f"127.0.0.1:{self.port}/timberio/vector:1"
        return Artefact("vector-image", "image", "1", "MPL-2.0", "", 100_000, reference=reference)

    def test_image_by_skopeo(self):
        self.enterContext(mock.patch.object(fetch.time, "sleep", new=lambda _: threading.Event().wait(0.02)))
        for types in (DOCKER, OCI):
            image = StandInImage(types=types)
            artefact = self.serve(image)
            target = self.directory / types["index"].rsplit("/", 1)[-1]
            fetch.Network().image("vector-image", artefact, "", target)
            facts = layout.verify("vector-image", target)
            self.assertEqual(facts.digest, image.top["digest"])
            self.assertEqual(set(facts.blobs), set(image.blobs), "not all architectures")
            # What a site does with it: into a registry, with the publisher's digests. skopeo's dir: stands for one.
            out = target.with_name("pushed")
            command = ["skopeo", "copy", "--quiet", "--all", "--preserve-digests", f"oci:{target}", f"dir:{out}"]
            subprocess.run(command, check=True, timeout=60)
            self.assertEqual(layout.digest_of((out / "manifest.json").read_bytes()), image.top["digest"])
            shutil.rmtree(out)

    def test_image_refused(self):
        artefact = self.serve(StandInImage())
        with self.assertRaisesRegex(Problem, "is another image now"):
            fetch.Network().image("vector-image", artefact, "sha256:" + "0" * 64, self.directory / "a")
        small = Artefact(**(artefact.__dict__ | {"max_bytes": 100}))
        with self.assertRaisesRegex(Problem, "too large"):
            fetch.Network().image("vector-image", small, "", self.directory / "b")
        with self.assertRaisesRegex(Problem, "skopeo: "):
            gone = Artefact(**(artefact.__dict__ | {"reference": artefact.reference + "x"}))
            fetch.Network().image("vector-image", gone, "", self.directory / "c")
        with mock.patch.object(fetch.shutil, "which", return_value=None), self.assertRaisesRegex(Problem, "skopeo is missing"):
            fetch.Network().image("vector-image", artefact, "", self.directory / "d")

    def test_image_whose_blob_is_forged(self):
        image = StandInImage()
        artefact = self.serve(image)
        layer = next(d for d, content in image.blobs.items() if content[:2] == b"\x1f\x8b")
        code, headers, content = Server.answers[f"/v2/timberio/vector/blobs/{layer}"]
        Server.answers[f"/v2/timberio/vector/blobs/{layer}"] = (code, headers, content[:-1] + b"\xff")
        with self.assertRaises(Problem):
            fetch.Network().image("vector-image", artefact, "", self.directory / "a")
            layout.verify("vector-image", self.directory / "a")


class Real(unittest.TestCase):
    """deploy/versions.toml itself."""

    def test_no_digest_is_typed_in(self):
        from artefacts import catalogue

        artefacts = catalogue.load(HERE.parent / "deploy/versions.toml")
        for artefact in artefacts.values():
            for source in artefact.sources.values():
                self.assertEqual(source.sha256, "", f"{artefact.name}: who computed it? make mirror writes the lock, not this")
            self.assertEqual(artefact.digest, "", artefact.name)
        self.assertEqual(artefacts["vector-deb"].version, artefacts["vector-image"].version)
        self.assertEqual(artefacts["vector-deb"].version, artefacts["vector-rpm"].version)


if __name__ == "__main__":
    if not shutil.which("skopeo"):
        sys.exit("test_mirror.py: skopeo is missing; run: apt-get install skopeo")
    print("stand-ins for packages and images, made here; skopeo is real; no address outside this machine")
    program = unittest.main(exit=False)
    bad = len(program.result.failures) + len(program.result.errors)
    print(f"{program.result.testsRun - bad} passed, {bad} failed")
    sys.exit(bad > 0)
