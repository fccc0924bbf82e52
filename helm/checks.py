#!/usr/bin/env python3
"""Checks what the chart renders. check.sh calls it; needs PyYAML and kubernetes-validate (scripts/tools.sh).

    checks.py kubernetes FILE…          every manifest, strictly, against Kubernetes 1.29 to the newest that is known
    checks.py ddc FILE…                 every ddc configuration through `ddc check` ($DDC_BIN), memory against its limit
    checks.py vector FILE…              every Vector's files and environment through $VECTOR_BIN validate and test
    checks.py rules FILE…               every PrometheusRule through promtool, and equal to deploy/prometheus/rules
    checks.py dashboards FILE…          every dashboard equal to grafana/dashboards

FILE is what `helm template` wrote. Prints what is wrong, a line each, then what was checked; exit code 1 when anything is wrong.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
MEBI = 1 << 20
# Chart.yaml: kubeVersion.
OLDEST = 29
# Where the chart mounts things in the container.
SECRETS = "/run/secrets/ddc"

problems: list[str] = []


def main() -> int:
    check, files = sys.argv[1], [Path(name) for name in sys.argv[2:]]
    done = {"kubernetes": kubernetes, "ddc": ddc, "vector": vector, "rules": rules, "dashboards": dashboards}[check](files)
    for problem in problems:
        print(problem)
    if done.startswith("0 "):
        print("there was nothing to check")
        return 1
    print(done)
    return 1 if problems else 0


def manifests(file: Path, kind: str | None = None) -> list[dict]:
    found = [manifest for manifest in yaml.safe_load_all(file.read_text()) if manifest]
    return [manifest for manifest in found if kind in (None, manifest["kind"])]


def run(command: list[str], **options) -> tuple[int, str]:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, **options)
    return result.returncode, result.stdout.strip()


# --- Kubernetes' own schemas ---------------------------------------------------------------------------------------


def kubernetes(files: list[Path]) -> str:
    import kubernetes_validate

    versions = sorted({v for v in kubernetes_validate.utils.all_versions() if minor(v) >= OLDEST}, key=minor)
    if not versions:
        problems.append(f"kubernetes-validate knows no version from 1.{OLDEST} on")
    # The same manifest in two files, but for its name, is one check.
    seen = {json.dumps(manifest, sort_keys=True): (file, manifest) for file in files for manifest in manifests(file)}
    count = 0
    for version in versions:
        for file, manifest in seen.values():
            if manifest["apiVersion"].startswith("monitoring.coreos.com/"):
                continue  # helm/test.sh has the operator's own definitions
            count += 1
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except Exception as error:  # its exceptions have no common class
                where = ".".join(str(part) for part in getattr(error, "path", []))
                problems.append(f"{file.name}: {manifest['kind']} {manifest['metadata']['name']}, Kubernetes {version}: {where}: {getattr(error, 'message', error)}")
    return f"{count} checks, Kubernetes {versions[0] if versions else '?'} to {versions[-1] if versions else '?'}"


def minor(version: str) -> int:
    return int(version.lstrip("v").split(".")[1])


# --- ddc -----------------------------------------------------------------------------------------------------------


def ddc(files: list[Path]) -> str:
    binary = os.environ["DDC_BIN"]
    count = 0
    with tempfile.TemporaryDirectory() as scratch:
        key = Path(scratch) / "link.key"
        for command in ([binary, "keygen", "--out", str(key)], certificate_command(scratch)):
            code, said = run(command)
            if code:
                problems.append(f"{' '.join(command)}: {said}")
                return "nothing"
        for file in files:
            for deployment in manifests(file, "Deployment"):
                pod = deployment["spec"]["template"]["spec"]
                for container in pod["containers"]:
                    count += 1
                    directory = Path(tempfile.mkdtemp(dir=scratch))
                    where = f"{file.name}: {deployment['metadata']['name']}, container {container['name']}"
                    check_ddc(where, binary, file, pod, container, directory, scratch)
    return f"{count} configurations of ddc"


def certificate_command(scratch: str) -> list[str]:
    return ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test", "-keyout", f"{scratch}/tls.key", "-out", f"{scratch}/tls.crt"]


def check_ddc(where: str, binary: str, file: Path, pod: dict, container: dict, directory: Path, scratch: str) -> None:
    """Lays the container's files out as the kubelet would, in `directory`, and has ddc look at them."""
    mounted = {mount["mountPath"]: volume for mount in container["volumeMounts"] for volume in pod["volumes"] if volume["name"] == mount["name"]}
    config = mounted["/etc/ddc"]["configMap"]
    data = next(m["data"] for m in manifests(file, "ConfigMap") if m["metadata"]["name"] == config["name"])
    text = data[config["items"][0]["key"]]
    secrets = mounted[SECRETS]["projected"]
    if secrets["defaultMode"] != 0o440:
        problems.append(f"{where}: secrets are mounted with mode {secrets['defaultMode']:o}")
    placed = set()
    for source in secrets["sources"]:
        for item in next(iter(source.values()))["items"]:
            placed.add(item["path"])
            write_secret(directory / item["path"], scratch)
    for name in set(re.findall(re.escape(SECRETS) + r'/([^"]+)', text)) ^ placed:
        problems.append(f"{where}: {name} is mounted or named in the configuration, not both")
    path = directory / "ddc.toml"
    path.write_text(text.replace(SECRETS, str(directory)))
    code, said = run([binary, "check", "-c", str(path)])
    if code:
        problems.append(f"{where}: ddc check: exit code {code}\n{said}")
        return
    needed = int(re.search(r"memory +up to (\d+)MiB", said)[1]) * MEBI + socket_buffers(text)
    limit = quantity(container["resources"]["limits"]["memory"])
    if needed > limit:
        problems.append(f"{where}: needs up to {needed // MEBI} MiB with socket buffers, the limit is {limit // MEBI} MiB")
    admin = re.search(r'listen = "(127\.0\.0\.1:\d+)"', text)[1]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        if admin not in container[probe]["exec"]["command"]:
            problems.append(f"{where}: {probe} does not ask {admin}")


def write_secret(path: Path, scratch: str) -> None:
    """Something of the right kind for each name that the chart uses."""
    if path.name.startswith("link-"):
        content = (Path(scratch) / "link.key").read_text()
    elif path.name.endswith(".pem"):
        content = (Path(scratch) / "tls.crt").read_text()
    elif path.name == "kafka-client.key":
        content = (Path(scratch) / "tls.key").read_text()
    else:
        content = "secret\n"
    path.write_text(content)
    path.chmod(0o440)


def socket_buffers(text: str) -> int:
    """The kernel doubles what is asked, and counts it as the container's."""
    asked = re.search(r'socket_buffer = "(\d+)MiB"', text)
    streams = len(re.findall(r'^\w+ = "(?:127\.0\.0\.1|0\.0\.0\.0):\d+"', text, re.M)) if "[source.udp" in text else 0
    return 2 * MEBI * (int(asked[1]) if asked else 16) + 2 * 4 * MEBI * streams


def quantity(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", text).groups()
    return int(number) * {"Mi": MEBI, "Gi": MEBI << 10}[unit]


# --- Vector --------------------------------------------------------------------------------------------------------


def vector(files: list[Path]) -> str:
    binary = os.environ["VECTOR_BIN"]
    seen: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        code, said = run(certificate_command(scratch))
        if code:
            problems.append(said)
        (Path(scratch) / "ca.crt").write_bytes((Path(scratch) / "tls.crt").read_bytes())
        for file in files:
            for deployment in manifests(file, "Deployment"):
                pod = deployment["spec"]["template"]["spec"]
                for container in pod.get("initContainers", []):
                    where = f"{file.name}: {deployment['metadata']['name']}"
                    directory = Path(tempfile.mkdtemp(dir=scratch))
                    check_vector(where, binary, file, pod, container, directory, scratch, seen)
    return f"{len(seen)} different Vectors, by {run([binary, '--version'])[1].splitlines()[0]}"


def check_vector(where: str, binary: str, file: Path, pod: dict, container: dict, directory: Path, scratch: str, seen: dict) -> None:
    config = next(volume for volume in pod["volumes"] if volume["name"] == "vector-config")["configMap"]
    data = next(m["data"] for m in manifests(file, "ConfigMap") if m["metadata"]["name"] == config["name"])
    (directory / "vrl").mkdir()
    for item in config["items"]:
        (directory / item["path"]).write_text(data[item["key"]])
    environment = {"PATH": os.environ["PATH"]}
    for variable in container["env"]:
        # A Secret's value, or the pod's address.
        value = variable.get("value", "127.0.0.1" if variable["name"] == "POD_IP" else "secret")
        value = value.replace("$(POD_IP)", "127.0.0.1").replace("/etc/ddc/vector", str(directory)).replace("/etc/ddc/tls", scratch)
        environment[variable["name"]] = value
    given = [argument.replace("/etc/ddc/vector", str(directory)) for argument in container["args"] if argument != "--config"]
    known = json.dumps([sorted(data.items()), container["args"], sorted(environment.items())]).replace(str(directory), "")
    if known in seen:
        return
    seen[known] = where
    # Snippets name hosts that need not be there: options and topology only.
    extra = any("/extra-" in name for name in given)
    code, said = run([binary, "validate", *(["--no-environment"] if extra else []), *given], env=environment)
    if code:
        problems.append(f"{where}: vector validate: exit code {code}\n{said}")
        return
    tests = [ROOT / "vector/tests/metrics.yaml", ROOT / "vector/tests/logs.yaml"]
    if any(name.endswith("destination.yaml") for name in given):
        tests.append(ROOT / "vector/tests/destination.yaml")
    if not extra:
        code, said = run([binary, "test", *given, *map(str, tests)], env=environment)
        if code:
            problems.append(f"{where}: vector test: exit code {code}\n{said}")


# --- monitoring ----------------------------------------------------------------------------------------------------


def rules(files: list[Path]) -> str:
    count = 0
    views = {"source", "destination", "both"}
    for file in files:
        found = {m["metadata"]["name"].rsplit("-", 1)[1]: m for m in manifests(file, "PrometheusRule")}
        for part, manifest in found.items():
            count += 1
            with tempfile.NamedTemporaryFile("w", suffix=".yml") as written:
                yaml.safe_dump(manifest["spec"], written)
                written.flush()
                code, said = run(["promtool", "check", "rules", "--lint=all", "--lint-fatal", written.name])
            if code:
                problems.append(f"{file.name}: {part}: promtool: {said}")
            source = ROOT / "deploy/prometheus/rules" / ("compat.yml" if part == "compat" else f"parts/{part}.yml")
            links = {"{{ $externalLabels.ddc_docs }}": "https://docs.example.org/ddc/", "{{ $externalLabels.ddc_grafana }}": "https://grafana.example.org"}
            text = source.read_text()
            if manifest["metadata"]["labels"].get("release"):  # the file of ci/ that sets the two URLs
                for variable, url in links.items():
                    text = text.replace(variable, url)
            if yaml.safe_load(text) != manifest["spec"]:
                problems.append(f"{file.name}: {part} differs from {source.relative_to(ROOT)}")
        if found and not any(set(found) - {"compat"} == parts_of(view) for view in views):
            problems.append(f"{file.name}: the parts {sorted(found)} are those of no folder of deploy/prometheus/rules")
    return f"{count} PrometheusRules"


def parts_of(view: str) -> set[str]:
    return {path.stem for path in (ROOT / "deploy/prometheus/rules" / view).glob("*.yml")}


def dashboards(files: list[Path]) -> str:
    count = 0
    wanted = {f"ddc-{path.name}": path for path in (ROOT / "grafana/dashboards").glob("*.json")}
    for file in files:
        found = {key: value for m in manifests(file, "ConfigMap") for key, value in m["data"].items() if key in wanted}
        count += len(found)
        if found and set(found) != set(wanted):
            problems.append(f"{file.name}: dashboards {sorted(found)}, there are {sorted(wanted)}")
        for name, text in found.items():
            if text.rstrip("\n") != wanted[name].read_text().rstrip("\n"):
                problems.append(f"{file.name}: {name} differs from {wanted[name].relative_to(ROOT)}")
    return f"{count} dashboards"


if __name__ == "__main__":
    sys.exit(main())
