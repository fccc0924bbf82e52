"""Takes a bundle's images into a Docker engine that can reach no registry. An image keeps its id, the digest of its
configuration: by that compose names it, so what runs is what the lock names."""

import os
import shutil
import subprocess
from pathlib import Path

from . import lock
from .bundle import COMPOSE, LOCK
from .problem import EX_UNAVAILABLE, Problem, wrong

SECONDS = 900


def load(root: Path) -> str:
    """Environment lines for compose. The bundle must have been verified."""
    for program in ("docker", "skopeo"):
        if not shutil.which(program):
            raise Problem(EX_UNAVAILABLE, f"{program} is missing; run: apt-get install {program}")
    architecture = run("docker", "version", "--format", "{{.Server.Arch}}")
    entries = lock.load(root / LOCK)
    lines = "# Written by scripts/mirror.py from the images of a bundle. Do not edit.\n"
    for variable, name in COMPOSE.items():
        if name not in entries:
            continue
        entry = entries[name]
        facts = entry["architectures"].get(architecture)
        if not facts:
            raise Problem(EX_UNAVAILABLE, f"{name}: the bundle has it for {', '.join(entry['architectures'])}, not for {architecture}")
        reference = entry["reference"]
        if image_id(facts["config"]) != facts["config"]:
            daemon = ["--dest-daemon-host", os.environ["DOCKER_HOST"]] if os.environ.get("DOCKER_HOST") else []
            command = ["skopeo", "--insecure-policy", "--override-os", "linux", "--override-arch", architecture, "copy", "--quiet"]
            run(*command, *daemon, f"oci:{root / entry['file']}", f"docker-daemon:{reference}")
        found = image_id(reference)
        if found != facts["config"]:
            raise wrong(
                name,
                "this Docker gives images another id",
                expected=facts["config"],
                found=found,
                do="it keeps images in containerd's store: bring the bundle's images into a registry instead (docs/mirror.md)",
            )
        lines += f"{variable}={facts['config']}\n"
    return lines


def image_id(name: str) -> str:
    """Empty when there is no such image."""
    done = subprocess.run(["docker", "image", "inspect", "--format", "{{.Id}}", name], capture_output=True, text=True, timeout=SECONDS)
    return done.stdout.strip()


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise Problem(EX_UNAVAILABLE, f"{command[0]}: {said[-1] if said else 'failed'}")
    return done.stdout.strip()
