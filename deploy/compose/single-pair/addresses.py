#!/usr/bin/env python3
"""The proxies' files name addresses, since a name would need a name server on the link: `addresses.py COMPOSE DIRECTORY`
checks that each of them is what compose.yaml gives to a container of that side, and that Vector listens where it is sent to."""

import re
import sys
import tomllib
from pathlib import Path

ADDRESS = re.compile(r"198\.18\.[0-9]+\.[0-9]+")
# Which networks a side's files may name.
NETWORKS = {"source": ("198.18.1.", "198.18.2."), "destination": ("198.18.2.", "198.18.3.")}


def texts(value):
    if isinstance(value, dict):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    elif isinstance(value, str):
        yield value


def main() -> int:
    compose = Path(sys.argv[1]).read_text()
    given = set(re.findall(r"ipv4_address: (\S+)", compose.replace(" }", "")))
    listening = set(re.findall(r"_LISTEN: (198\.18\.[0-9.]+:[0-9]+)", compose))
    bad = []
    for side, prefixes in NETWORKS.items():
        for path in sorted((Path(sys.argv[2]) / side).glob("*.toml")):
            document = tomllib.loads(path.read_text())
            for text in texts(document):
                for address in ADDRESS.findall(text):
                    if address not in given:
                        bad.append(f"{path.name}: {address} belongs to no container of compose.yaml")
                    if not address.startswith(prefixes):
                        bad.append(f"{path.name}: {address} is on the other side")
            sink = document.get("sink", {}).get("udp", {}).get("streams", {})
            for target in [*document["telemetry"]["statsd"], *document["telemetry"]["syslog"], *sink.values()]:
                target = target.removeprefix("udp://")
                # The ingress of the telemetry link takes the second copy.
                if target not in listening and not target.startswith("198.18.1.4:"):
                    bad.append(f"{path.name}: nobody listens on {target}")
            if document["telemetry"]["site"] != "lab":
                bad.append(f"{path.name}: site is not the one of compose.yaml")
    print("\n".join(bad))
    return 1 if bad or not given else 0


if __name__ == "__main__":
    sys.exit(main())
