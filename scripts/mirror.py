#!/usr/bin/env python3
"""`make mirror`: fetches what deploy/versions.toml names, checks it, and writes deploy/versions.lock and an offline bundle.

    mirror.py [fetch] [--architectures amd64,arm64] [--only NAME]… [--bundle DIR] [--from FOLDER] [--no-tar]
    mirror.py verify [--bundle DIR] [--lock FILE]          offline: the bundle is what the lock says
    mirror.py generate --registry R --out D [--bundle DIR] helm-values.yaml and compose.env for the site's registry
    mirror.py load --out FILE [--bundle DIR]               the bundle's images into this machine's Docker; FILE: their ids
    mirror.py references                                   compose's references without digests, from versions.toml

Needs Python 3.11 or later, and skopeo for images from a registry. What it checks and what the lock means: docs/mirror.md.
Exit codes: 0, 64 usage, 65 an artefact is not what it should be, 69 something cannot be had, 78 versions.toml or lock wrong.
"""

import sys

if sys.version_info < (3, 11):
    sys.exit("mirror.py: needs Python 3.11 or later (it reads TOML)")

# Nothing is written beside the sources.
sys.dont_write_bytecode = True

import argparse
import fcntl
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

from artefacts import bundle, catalogue, docker, fetch, files, layout, lock, package
from artefacts.catalogue import ARCHITECTURES, Artefact
from artefacts.problem import EX_UNAVAILABLE, EX_USAGE, Problem, wrong

ROOT = Path(__file__).resolve().parent.parent
SUMS_LIMIT = 1 << 20


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    try:
        artefacts = catalogue.load(options.versions)
        if options.command == "verify":
            for line in bundle.verify(options.bundle, options.lock, artefacts):
                print(line)
        elif options.command == "generate":
            generate(options)
        elif options.command == "load":
            for line in bundle.verify(options.bundle, options.lock, artefacts):
                print(line)
            files.write(options.out, docker.load(options.bundle))
        elif options.command == "references":
            print(references(artefacts), end="")
        else:
            run(options, artefacts)
    except Problem as problem:
        print(f"mirror: {problem}", file=sys.stderr)
        return problem.code
    except OSError as error:
        print(f"mirror: {error.filename or options.bundle}: {error.strerror or error}", file=sys.stderr)
        return EX_UNAVAILABLE
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mirror.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = lambda message: (print(f"mirror: {message}; mirror.py --help tells more", file=sys.stderr), sys.exit(EX_USAGE))
    parser.add_argument("command", nargs="?", default="fetch", choices=["fetch", "verify", "generate", "load", "references"])
    parser.add_argument("--versions", type=Path, default=ROOT / "deploy/versions.toml", help=argparse.SUPPRESS)
    parser.add_argument("--bundle", type=Path, default=ROOT / "bundle", help="the bundle's folder (default: bundle)")
    parser.add_argument("--lock", type=Path, help="fetch: the lock to write (default: deploy/versions.lock); verify: one to compare with")
    parser.add_argument("--architectures", default=",".join(ARCHITECTURES), help="default: amd64,arm64")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this artefact; may be given again")
    parser.add_argument("--from", dest="folder", type=Path, metavar="FOLDER", help="take everything from here, not from the network")
    parser.add_argument("--no-tar", action="store_true", help="no bundle.tar beside the bundle")
    parser.add_argument("--registry", default="", metavar="HOST:PORT", help="generate: the site's registry in place of the publishers'")
    parser.add_argument("--out", type=Path, metavar="PATH", help="generate: the directory, load: the file to write")
    options = parser.parse_args(arguments)
    if options.command in ("generate", "load") and not options.out:
        parser.error(f"{options.command} needs --out")
    options.architectures = [name for name in options.architectures.split(",") if name]
    if not options.architectures or set(options.architectures) - set(ARCHITECTURES):
        parser.error(f"--architectures takes {' and '.join(ARCHITECTURES)}, separated by a comma")
    if options.registry and not re.fullmatch(r"[a-z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9._-]+)*", options.registry):
        parser.error("--registry takes HOST, HOST:PORT or HOST:PORT/PATH")
    options.bundle = options.bundle.resolve()
    return options


def run(options: argparse.Namespace, artefacts: dict[str, Artefact]) -> None:
    for name in options.only:
        if name not in artefacts:
            raise Problem(EX_USAGE, f"--only {name}: versions.toml has {', '.join(artefacts)}")
    wanted = [artefact for artefact in artefacts.values() if not options.only or artefact.name in options.only]
    lock_path = options.lock or ROOT / "deploy/versions.lock"
    with alone(options.bundle):
        # What the lock says of other versions or addresses is forgotten; what it says of these holds.
        known = lock.current(lock.load(lock_path), artefacts)
        origin = fetch.Folder(options.folder) if options.folder else fetch.Network()
        entries = dict(known)
        for artefact in wanted:
            work = image if artefact.kind == "image" else packages
            entries[artefact.name] = work(artefact, options, origin, known.get(artefact.name))
        lock.save(lock_path, entries)
        finish(options, entries, artefacts)
    print(f"mirror: {lock_path} and {options.bundle} are complete: {', '.join(artefact.name for artefact in wanted)}")


@contextmanager
def alone(directory: Path):
    """Two runs in one bundle would mix. A folder that is not a bundle is left alone: old artefacts are removed in ours."""
    directory.mkdir(parents=True, exist_ok=True)
    about = directory / bundle.ABOUT
    if any(directory.iterdir()) and not (about.is_file() and about.read_text("utf-8", "replace") == bundle.README):
        raise Problem(EX_USAGE, f"--bundle {directory}: there is something in it, and it is not a bundle; name another folder")
    files.write(about, bundle.README)
    with open(directory.with_name(f".{directory.name}.mirror-lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Problem(EX_UNAVAILABLE, f"{directory}: another mirror.py is at work there; wait for it") from None
        yield
        Path(file.name).unlink(missing_ok=True)


# --- packages --------------------------------------------------------------------------------------------------------


def packages(artefact: Artefact, options: argparse.Namespace, origin: fetch.Origin, known: dict | None) -> dict:
    """The lock's entry for a package, when all of its wanted architectures are right and in the bundle."""
    architectures = dict(known["architectures"]) if known else {}
    sums = published(artefact, origin) if artefact.sums else None
    for architecture in options.architectures:
        source = artefact.sources.get(architecture)
        where = f"{artefact.name} {architecture}"
        if not source:
            raise Problem(EX_UNAVAILABLE, f"{where}: versions.toml has no address for it")
        expected = expectations(where, source, sums, architectures.get(architecture))
        target = options.bundle / "packages" / source.file
        with files.temporary(options.bundle) as scratch:
            candidate = target
            if not (expected and target.is_file() and not target.is_symlink() and files.sha256(target) in expected):
                print(f"mirror: {where}: {source.url}")
                candidate = scratch / source.file
                origin.file(where, source.url, candidate, artefact.max_bytes)
            digest = compare(where, candidate, expected)
            package.check(where, candidate, artefact, architecture)
            if candidate != target:
                files.place(candidate, target)
        checked = "publisher" if sums is not None else "declared" if source.sha256 else "first"
        print(f"mirror: {where}: sha256 {digest} ({checked})")
        architectures[architecture] = {
            "url": source.url,
            "file": f"packages/{source.file}",
            "sha256": digest,
            "size": target.stat().st_size,
            "checked": checked,
        }
    return {"kind": artefact.kind, "version": artefact.version, "licence": artefact.licence, "architectures": architectures}


def published(artefact: Artefact, origin: fetch.Origin) -> dict[str, str]:
    """The publisher's sums: file name → SHA-256."""
    where = f"{artefact.name}: publisher's sums"
    content = origin.small(where, artefact.sums, SUMS_LIMIT)
    files.refuse_page(where, content)
    sums: dict[str, str] = {}
    for line in content.decode("utf-8", "replace").splitlines():
        parts = re.fullmatch(r"([0-9A-Fa-f]{64})[ \t]+\*?(?:\./)?(\S+)", line.strip())
        if not parts:
            continue
        digest, name = parts[1].lower(), parts[2]
        if sums.setdefault(name, digest) != digest:
            raise wrong(where, f"two sums for {name}")
    if not sums:
        raise wrong(where, "no SHA-256 sums in it", do=f"look at {artefact.sums}")
    return sums


def expectations(where: str, source: catalogue.Source, sums: dict[str, str] | None, known: dict | None) -> dict[str, str]:
    """The digests that it must have, each with who says so. They must agree before anything is fetched."""
    expected: dict[str, str] = {}
    if sums is not None:
        if source.file not in sums:
            raise wrong(
                where,
                f"the publisher's sums do not name {source.file}",
                do="correct `sums` or the address in versions.toml; remove `sums` only if the publisher has none",
            )
        expected[sums[source.file]] = "the publisher's sums"
    for digest, who in ((source.sha256, "versions.toml"), (known["sha256"] if known else "", "the lock")):
        if digest and expected and digest not in expected:
            other, says = next(iter(expected.items()))
            raise wrong(
                where,
                f"{who} and {says} do not agree",
                expected=digest,
                found=other,
                do="the file may have been replaced under the same version: find out why before you remove the older sum",
            )
        if digest:
            expected[digest] = who
    return expected


def compare(where: str, path: Path, expected: dict[str, str]) -> str:
    digest = files.sha256(path)
    if expected and digest not in expected:
        with path.open("rb") as file:
            files.refuse_page(where, file.read(files.FIRST_BYTES))
        want, who = next(iter(expected.items()))
        raise wrong(
            where,
            f"{path.name} has not the SHA-256 that {who} give",
            expected=want,
            found=f"{digest} ({path.stat().st_size} bytes)",
            do="nothing was kept; fetch it again, and if it stays so, do not use it",
        )
    return digest


# --- images ----------------------------------------------------------------------------------------------------------


def image(artefact: Artefact, options: argparse.Namespace, origin: fetch.Origin, known: dict | None) -> dict:
    where = artefact.name
    if known and artefact.digest and known["digest"] != artefact.digest:
        raise wrong(where, "versions.toml and the lock do not agree", expected=artefact.digest, found=known["digest"])
    expected = artefact.digest or (known["digest"] if known else "")
    target = options.bundle / "images" / artefact.name
    facts = present(where, target, expected)
    with files.temporary(options.bundle) as scratch:
        candidate = scratch / artefact.name
        if facts is None:
            print(f"mirror: {where}: {artefact.reference}")
            origin.image(where, artefact, expected, candidate)
            facts = layout.verify(where, candidate)
        if expected and facts.digest != expected:
            raise wrong(
                where,
                "another image than versions.toml or the lock names",
                expected=expected,
                found=facts.digest,
                do="find out why; to take the new one, remove the entry from the lock and the digest from versions.toml",
            )
        for architecture in options.architectures:
            if architecture not in facts.architectures:
                raise wrong(
                    where, "not for this architecture", expected=architecture, found=", ".join(sorted(facts.architectures))
                )
        if candidate.exists():
            files.place(candidate, target)
    checked = "declared" if artefact.digest else "first"
    print(f"mirror: {where}: {facts.digest} ({checked})")
    architectures = {
        name: {"digest": manifest, "config": config}
        for name, (manifest, config) in facts.architectures.items()
        if name in ARCHITECTURES
    }
    return {
        "kind": "image",
        "version": artefact.version,
        "licence": artefact.licence,
        "reference": artefact.reference,
        "file": f"images/{artefact.name}",
        "digest": facts.digest,
        "checked": checked,
        "architectures": architectures,
    }


def present(where: str, target: Path, expected: str) -> layout.Image | None:
    """The image of an earlier run, when it is whole and the one that is wanted."""
    if not expected or not target.is_dir():
        return None
    try:
        facts = layout.verify(where, target)
    except Problem:
        return None
    return facts if facts.digest == expected else None


# --- bundle ----------------------------------------------------------------------------------------------------------


def finish(options: argparse.Namespace, entries: dict[str, dict], artefacts: dict[str, Artefact]) -> None:
    """The bundle's own lock names what lies in it, and only that; what is older goes."""
    inside = {}
    for name, entry in entries.items():
        found = bundle.verified(name, options.bundle, name, entry, artefacts[name])
        if found:
            inside[name] = found
    keep = {bundle.LOCK, *bundle.GENERATED}
    for entry in inside.values():
        keep |= {entry["file"]} if entry["kind"] == "image" else {v["file"] for v in entry["architectures"].values()}
    remove_others(options.bundle, keep)
    lock.save(options.bundle / bundle.LOCK, inside)
    for name, content in bundle.generate(inside).items():
        files.write(options.bundle / name, content)
    if not options.no_tar:
        print(f"mirror: {bundle.pack(options.bundle)}")


def remove_others(root: Path, keep: set[str]) -> None:
    """Only below packages/ and images/, which are ours: artefacts of versions that nobody asks for any more."""
    for path in [*root.glob("packages/*"), *root.glob("images/*")]:
        if path.relative_to(root).as_posix() in keep:
            continue
        print(f"mirror: removes {path.relative_to(root)}: not in versions.toml any more")
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def generate(options: argparse.Namespace) -> None:
    entries = lock.load(options.bundle / bundle.LOCK)
    if not entries:
        raise Problem(EX_UNAVAILABLE, f"{options.bundle}: there is no {bundle.LOCK} in it; run make mirror")
    for name, content in bundle.generate(entries, options.registry).items():
        if name != bundle.ABOUT:
            files.write(options.out / name, content)
            print(f"mirror: {options.out / name}")


def references(artefacts: dict[str, Artefact]) -> str:
    head = "# Written by `scripts/mirror.py references` from deploy/versions.toml. Do not edit.\n"
    head += "# Without digests: nobody computed them here. `make mirror` writes bundle/compose.env, which has them.\n"
    return head + "".join(
        f"{variable}={artefacts[name].reference}\n" for variable, name in bundle.COMPOSE.items() if name in artefacts
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
