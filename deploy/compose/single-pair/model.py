#!/usr/bin/env python3
"""What must hold for the pair, asked of compose's own reading of it: `model.py FILE` with `docker compose config --format json`."""

import json
import sys

# Who may stand in two networks: the proxies, and each in the link's and its own side's only.
SIDES = {
    "ingress": {"source", "one-way"},
    "telemetry-ingress": {"source", "one-way"},
    "egress": {"one-way", "destination"},
    "telemetry-egress": {"one-way", "destination"},
}
# Images that write into their own root when they start, or that nobody has tried read-only.
WRITABLE = {"kafka-source", "kafka-destination", "topics", "grafana"}
ONE_SHOT = {"topics"}
# Who has secrets, and which.
SECRETS = {
    "ingress": {"plant-a.key"},
    "egress": {"plant-a.key"},
    "telemetry-ingress": {"telemetry.key"},
    "telemetry-egress": {"telemetry.key"},
    "grafana": {"grafana-password"},
}


def problems(model: dict):
    networks = model["networks"]
    if set(networks) != {"source", "one-way", "destination"}:
        yield f"there are the networks {sorted(networks)}"
    for name in ("source", "one-way"):
        if networks[name].get("internal") is not True:
            yield f"the network {name} leads out"
    for name, service in model["services"].items():
        joined = set(service.get("networks") or {})
        if name in SIDES and joined != SIDES[name]:
            yield f"{name} stands in {sorted(joined)}, not in {sorted(SIDES[name])}"
        if name not in SIDES and len(joined) != 1:
            yield f"{name} stands in {sorted(joined)}: only a proxy stands in two networks"
        if name not in SIDES and "one-way" in joined:
            yield f"{name} stands in the link's network"
        if service.get("network_mode") or service.get("privileged") or service.get("pid"):
            yield f"{name} shares a namespace of the machine, or is privileged"
        if service.get("cap_drop") != ["ALL"] or service.get("cap_add"):
            yield f"{name} keeps capabilities"
        if "no-new-privileges:true" not in service.get("security_opt", []):
            yield f"{name} may gain privileges"
        if not service.get("read_only") and name not in WRITABLE:
            yield f"{name} can write into its root file system"
        if not service.get("mem_limit"):
            yield f"{name} has no limit on memory"
        if name not in ONE_SHOT and not service.get("restart"):
            yield f"{name} does not come back"
        check = service.get("healthcheck") or {}
        if name not in ONE_SHOT and (check.get("disable") or not check.get("test")):
            yield f"{name} has no health check"
        if (service.get("user") or "1").split(":")[0] in ("0", "root"):
            yield f"{name} runs as root"
        for port in service.get("ports", []):
            if port.get("host_ip") != "127.0.0.1":
                yield f"{name} shows port {port['published']} to other machines"
            if joined & {"source", "one-way"}:
                yield f"{name} publishes a port of the {sorted(joined)} network"
        for volume in service.get("volumes", []):
            if volume["type"] == "bind" and not volume.get("read_only"):
                yield f"{name} can write into {volume['source']}"
        secrets = {entry["source"] for entry in service.get("secrets", [])}
        if secrets != SECRETS.get(name, set()):
            yield f"{name} has the secrets {sorted(secrets)}"
    for name in SIDES:
        if name not in model["services"]:
            yield f"{name} is missing"


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        found = list(problems(json.load(file)))
    for problem in found:
        print(problem)
    sys.exit(bool(found))
