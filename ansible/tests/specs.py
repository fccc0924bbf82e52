"""Argument specs and defaults agree: every default is described, and every described default is the true one."""
import pathlib
import sys

import yaml

ROLES = pathlib.Path(__file__).parent.parent / "roles"
SHARED = ("ddc_site", "ddc_links", "ddc_airgapped", "ddc_versions_lock")
problems = []
for spec_file in sorted(ROLES.glob("*/meta/argument_specs.yml")):
    role = spec_file.parent.parent.name
    specs = yaml.safe_load(spec_file.read_text())["argument_specs"]
    options = specs["main"]["options"]
    defaults = yaml.safe_load((ROLES / role / "defaults/main.yml").read_text()) or {}
    if specs["preflight"]["options"] != options:
        problems.append(f"{role}: main and preflight take different options")
    for name, option in options.items():
        if not (name.startswith(f"{role}_") or name in SHARED):
            problems.append(f"{role}: {name} begins neither with {role}_ nor is it shared")
        if name in defaults and "default" in option and defaults[name] != option["default"]:
            problems.append(f"{role}: {name} has default {defaults[name]!r}, described as {option['default']!r}")
        if "default" in option and name not in defaults and name not in SHARED:
            problems.append(f"{role}: {name} has a default in its description only")

        def described(path, one):
            if not one.get("description"):
                problems.append(f"{role}: {path} has no description")
            for inner, suboption in one.get("options", {}).items():
                described(f"{path}.{inner}", suboption)

        described(name, option)
    for name in defaults:
        if name not in options:
            problems.append(f"{role}: default {name} is not described")
print("\n".join(problems) or "all described")
sys.exit(bool(problems))
