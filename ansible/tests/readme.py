"""The table of variables in README.md, from the argument specs: `readme.py` writes it, `readme.py --check` compares."""
import pathlib
import sys

import yaml

HERE = pathlib.Path(__file__).parent.parent
ROLES = ["ddc_common", "ddc_ingress", "ddc_egress", "vector", "observability"]
BEGIN, END = "<!-- variables: written by tests/readme.py -->\n", "<!-- end of variables -->\n"


def cell(text):
    return str(text).replace("|", "\\|").strip()


def value(option):
    kind = option["type"]
    if "choices" in option:
        kind = ", ".join(f"`{choice}`" for choice in option["choices"])
    elif kind == "list":
        kind = f"list of {option.get('elements', 'str')}"
    return kind


def rows(options, prefix=""):
    for name, option in options.items():
        default = "**required**" if option.get("required") else f"`{option['default']}`" if option.get("default") not in (None, [], {}, "") else ""
        yield f"| `{prefix}{name}` | {cell(value(option))} | {cell(default)} | {cell(option['description'])} |"
        if "options" in option:
            yield from rows(option["options"], f"{prefix}{name}[]." if option["type"] == "list" else f"{prefix}{name}.")


def table():
    seen, parts = set(), []
    for role in ROLES:
        spec = yaml.safe_load((HERE / "roles" / role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]
        options = {name: option for name, option in spec["options"].items() if name not in seen}
        seen |= options.keys()
        parts.append(f"### {role}\n\n{spec['short_description']}.\n\n| variable | value | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows(options)) + "\n")
    return "\n".join(parts)


readme = HERE / "README.md"
text = readme.read_text()
before, rest = text.split(BEGIN)
after = rest.split(END)[1]
new = f"{before}{BEGIN}\n{table()}\n{END}{after}"
if "--check" in sys.argv:
    if new != text:
        sys.exit("README.md is not what the argument specs say; run: python3 ansible/tests/readme.py (with Ansible's Python)")
else:
    readme.write_text(new)
