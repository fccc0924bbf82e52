#!/usr/bin/env python3
"""Reads the dashboards into Grafana's own types and writes them back: what gets lost, Grafana does not know.

    grafana/check.py            sets up what it needs, checks every file in grafana/dashboards
    grafana/check.py FILE...    checks these files

The types are those of Grafana's foundation SDK, made from Grafana's schemas: one release for Grafana 10.1, one for 11.6. What both
know, the versions between and Grafana 12 know too. It also tries itself on a broken dashboard, so that a check that finds nothing is
no accident.

A key or value that is lost, a panel or query type that the SDK has no type for, and a unit that is not in Grafana's list are faults.
Exit codes: 0 all is well, 1 a fault, 69 the SDK is not to be had.
"""

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path

# The newest releases for the oldest Grafana that we support and for the newest that the SDK has types for.
RELEASES = ("1769699998!10.1.0", "1769699379!11.6.0")
UNAVAILABLE = 69
HERE = Path(__file__).resolve().parent

# What Grafana reads and its published schemas do not name. Each with where Grafana reads it.
NOT_IN_THE_SCHEMA = {
    # The Prometheus plug-in's annotations: one query, with its own names for step, title and text.
    "annotations.list[].step",
    "annotations.list[].tagKeys",
    "annotations.list[].textFormat",
    "annotations.list[].titleFormat",
    "annotations.list[].useValueForTime",
    # A variable's definition: what the editor shows.
    "templating.list[].definition",
}


def main() -> int:
    if len(sys.argv) > 2 and sys.argv[1] == "--inside":
        return inside([Path(name) for name in sys.argv[2:]])
    files = [Path(name) for name in sys.argv[1:]] or sorted((HERE / "dashboards").glob("*.json"))
    if not files:
        print("grafana/check.py: no dashboards in grafana/dashboards; run: cargo xtask dashboards", file=sys.stderr)
        return 1
    worst = 0
    for release in RELEASES:
        python = interpreter(release)
        if python is None:
            return UNAVAILABLE
        done = subprocess.run([python, __file__, "--inside", *map(str, files)], check=False)
        print(f"grafana-foundation-sdk {release}: {'ok' if done.returncode == 0 else 'FAILED'}", flush=True)
        worst = max(worst, done.returncode)
    return worst


def interpreter(release: str):
    """The Python of a virtual environment that has this release; made once, beside the other caches."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "ddc" / f"grafana-sdk-{release.replace('!', '-')}"
    python = home / "bin" / "python"
    marker = home / "complete"
    if marker.is_file():
        return str(python)
    package = f"grafana-foundation-sdk=={release}"
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--no-deps", package], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"grafana/check.py: cannot install {package} from PyPI: {error}; python3-venv is needed", file=sys.stderr)
        return None
    marker.write_text(release)
    return str(python)


# --- within the virtual environment ---------------------------------------------------------------------------------


def inside(files) -> int:
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models import units

    register_default_plugins()
    known_units = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}
    # Grafana has it among its booleans in every version; the SDK's list leaves the booleans out.
    known_units |= {"bool_yes_no"}
    faults = self_test(known_units)
    for file in files:
        faults += [f"{file}: {fault}" for fault in check(json.loads(file.read_text()), known_units)]
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


def check(page, known_units):
    """Everything in `page` that Grafana's types lose or do not know."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.runtime import UnknownDataquery, panelcfg_config
    from grafana_foundation_sdk.models.dashboard import Dashboard

    try:
        model = Dashboard.from_json(page)
    except (KeyError, TypeError, ValueError) as error:
        return [f"cannot be read: {type(error).__name__}: {error}"]
    back = json.loads(JSONEncoder(sort_keys=True).encode(model))
    faults = list(lost(page, back, ""))
    for panel in page.get("panels", []):
        title = panel.get("title")
        if panel.get("type") != "row" and panelcfg_config(panel.get("type")) is None:
            faults.append(f"panel {title!r}: Grafana has no panel type {panel.get('type')!r}")
        config = panel.get("fieldConfig", {})
        found = [config.get("defaults", {}).get("unit")]
        for override in config.get("overrides", []):
            found += [p.get("value") for p in override.get("properties", []) if p.get("id") == "unit"]
        for unit in found:
            if unit is not None and unit not in known_units:
                faults.append(f"panel {title!r}: Grafana has no unit {unit!r}")
    for panel in model.panels or []:
        for target in getattr(panel, "targets", None) or []:
            if isinstance(target, UnknownDataquery):
                faults.append(f"panel {panel.title!r}: a query of no known type")
    return faults


def lost(before, after, path):
    """The paths of what is in `before` and not, or not the same, in `after`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            here = f"{path}.{key}" if path else key
            if key in after:
                yield from lost(value, after[key], here)
            elif generic(here) not in NOT_IN_THE_SCHEMA:
                yield f"{here}: Grafana has no such key"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after)):
            yield from lost(one, other, f"{path}[{index}]")
    elif before != after:
        yield f"{path}: {before!r} became {after!r}"


def generic(path):
    """`a[3].b` → `a[].b`"""
    return re.sub(r"\[\d+\]", "[]", path)


def self_test(known_units):
    """Broken dashboards must be found broken."""
    good = {
        "uid": "t",
        "title": "T",
        "schemaVersion": 39,
        "panels": [
            {
                "id": 1,
                "type": "timeseries",
                "title": "P",
                "fieldConfig": {"defaults": {"unit": "s", "custom": {"lineWidth": 1}}, "overrides": []},
                "options": {"tooltip": {"mode": "multi", "sort": "desc"}},
                "targets": [{"refId": "A", "expr": "up", "datasource": {"type": "prometheus", "uid": "x"}}],
            }
        ],
    }
    broken = []
    for change in (
        lambda page: page.update(nonsense=1),
        lambda page: page["panels"][0].update(nonsense=1),
        lambda page: page["panels"][0].update(type="graph"),
        lambda page: page["panels"][0]["options"].update(nonsense=1),
        lambda page: page["panels"][0]["fieldConfig"]["defaults"].update(nonsense=1),
        lambda page: page["panels"][0]["fieldConfig"]["defaults"]["custom"].update(nonsense=1),
        lambda page: page["panels"][0]["fieldConfig"]["defaults"].update(unit="parsec"),
        lambda page: page["panels"][0]["targets"][0].update(nonsense=1),
        lambda page: page["panels"][0]["targets"][0]["datasource"].update(type="nonsense"),
    ):
        page = copy.deepcopy(good)
        change(page)
        broken.append(page)
    faults = [f"self-test: a good dashboard is found broken: {fault}" for fault in check(good, known_units)]
    faults += [f"self-test: this is not found broken: {page}" for page in broken if not check(page, known_units)]
    return faults


if __name__ == "__main__":
    sys.exit(main())
