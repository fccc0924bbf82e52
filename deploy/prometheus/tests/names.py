"""Holds rules, tests, runbooks and documentation to each other.

    names.py DIRECTORY_OF_deploy/prometheus DOCS_DIRECTORY

Reads the files as text, by the layout they are written in; what promtool checks is not checked again. Prints what is wrong, then
one line of counts; exit code 1 when anything was wrong.
"""

import re
import sys
from pathlib import Path

here, docs = Path(sys.argv[1]), Path(sys.argv[2])
parts = sorted((here / "rules/parts").glob("*.yml"))
compat = here / "rules/compat.yml"
wrong = []

# Always fires: it has no other case than that.
ALWAYS = {"Watchdog"}
SEVERITIES = {"critical", "warning", "info", "none"}
# What a name of ours may end with beyond the catalogue's.
HISTOGRAM = re.compile(r"_(bucket|sum|count)$")


def code(text):
    """Without comments, and without the texts of alerts, which name metrics and labels in prose."""
    lines = [line for line in text.splitlines() if not re.match(r"\s*(#|summary:|description:|runbook_url:|dashboard:)", line)]
    return "\n".join(lines)


# ---- sides: which part is used where
used = {}
for side in ("source", "destination", "both"):
    for link in sorted((here / "rules" / side).iterdir()):
        target = here / "rules/parts" / link.name
        if not link.is_symlink() or link.resolve() != target.resolve():
            wrong.append(f"rules/{side}/{link.name} is not a symbolic link to ../parts/{link.name}")
        used.setdefault(link.name, set()).add(side)
for part in parts:
    if "both" not in used.get(part.name, set()):
        wrong.append(f"rules/parts/{part.name} is not used in rules/both")

# ---- alerts
alerts, recorded, text_of = {}, set(), {}
for part in parts:
    text = part.read_text(encoding="utf-8")
    recorded |= set(re.findall(r"- record: (\S+)", code(text)))
    for block in re.split(r"\n(?=      - (?:alert|record): )", text):
        found = re.match(r"      - alert: (\w+)\n", block)
        if not found:
            continue
        name = found.group(1)
        severity = re.search(r"\n          severity: (\w+)", block)
        alerts.setdefault(name, {"part": part.name, "severities": [], "rules": 0})
        alerts[name]["rules"] += 1
        alerts[name]["severities"].append(severity.group(1) if severity else "")
        if not severity or severity.group(1) not in SEVERITIES:
            wrong.append(f"{part.name}: {name} has no known severity")
        if not re.search(r"\n        annotations: \*\w+", block):
            for annotation in ("summary", "description", "runbook_url", "dashboard"):
                if not re.search(rf"\n          {annotation}: ", block):
                    wrong.append(f"{part.name}: {name} has no {annotation}")
            if f"docs/runbooks/{name}.md" not in block:
                wrong.append(f"{part.name}: {name} does not link to its runbook")
            if "/d/ddc-" not in block:
                wrong.append(f"{part.name}: {name} does not link to a dashboard")

# ---- runbooks
index = (docs / "runbooks/README.md").read_text(encoding="utf-8") if (docs / "runbooks/README.md").exists() else ""
for name, alert in alerts.items():
    page = docs / "runbooks" / f"{name}.md"
    if not page.exists():
        wrong.append(f"alert {name} has no docs/runbooks/{name}.md")
        continue
    text = page.read_text(encoding="utf-8")
    for heading in ("## What happened", "## What is lost", "## What to do", "## How to see it is over"):
        if heading not in text:
            wrong.append(f"docs/runbooks/{name}.md lacks `{heading}`")
    row = re.search(rf"^\| \[{name}\]\({name}\.md\) \| ([^|]+) \|", index, re.M)
    if not row:
        wrong.append(f"docs/runbooks/README.md does not list {name}")
    elif set(re.split(r", ", row.group(1).strip())) != set(alert["severities"]):
        wrong.append(f"docs/runbooks/README.md: {name} is {row.group(1).strip()}, the rules say {', '.join(alert['severities'])}")
for page in sorted((docs / "runbooks").glob("*.md")):
    if page.stem != "README" and page.stem not in alerts:
        wrong.append(f"docs/runbooks/{page.name} belongs to no alert")

# ---- test cases: four links for each alert, by the names that tests/life.yml explains
cases = 0
tests = "\n".join(path.read_text(encoding="utf-8") for path in sorted((here / "tests").glob("*.yml")))
groups = {}
for group in re.split(r"\n(?=  - name: )", tests):
    found = re.match(r"  - name: (.+)\n", group)
    if found:
        groups.setdefault(found.group(1), code(group))
for name in sorted(alerts):
    group = groups.get(name)
    if group is None:
        wrong.append(f"no test group is named {name}")
        continue
    if name in ALWAYS:
        cases += 1
        continue
    series, wanted = group.split("promql_expr_test:", 1)
    for case in ("fires", "quiet", "reset", "stale"):
        if not re.search(rf'="(?:ingress-|egress-)?{case}[-\w]*"', series):
            wrong.append(f"the tests of {name} have no case `{case}`")
        cases += 1
    expected = "\n".join(re.findall(r"labels: '([^']*)'", wanted))
    if "fires" not in expected and 'what="' not in expected:
        wrong.append(f"the tests of {name} never expect it to fire")
    if re.search(r'alertname="%s"' % name, wanted) is None:
        wrong.append(f"the tests of {name} ask for another alert")
    for line in re.findall(r"ALERTS.*?(?=\n      - |\Z)", wanted, re.S):
        if re.search(r"labels: '[^']*\"(?:ingress-|egress-)?(quiet|reset)", line):
            wrong.append(f"the tests of {name} expect a case to fire that must not")

# ---- names of metrics
catalogue = (docs / "metrics.md").read_text(encoding="utf-8")
known = set(re.findall(r"^\| `(ddc_\w+)` \|", catalogue, re.M))
# Metrics of others, as they call them.
foreign = {
    "up",
    "vector_component_errors_total",
    "vector_component_discarded_events_total",
    "prometheus_rule_evaluation_failures_total",
    "prometheus_rule_group_iterations_missed_total",
    "prometheus_notifications_dropped_total",
    "host_network_receive_errs_total",
    "host_network_transmit_errs_total",
    "host_filesystem_used_ratio",
    "host_memory_available_bytes",
    "host_memory_total_bytes",
}
# Labels and words with our prefix that are no metrics.
labels = {"ddc_role", "ddc_side", "ddc_docs", "ddc_grafana"}
compat_names = set(re.findall(r"- record: (\S+)", compat.read_text(encoding="utf-8")))
seen = set()
for path in [*parts, compat, *sorted((here / "tests").glob("*.yml"))]:
    body = code(path.read_text(encoding="utf-8"))
    allowed = known | labels | (compat_names if path == compat or path.parent.name == "tests" else set())
    for name in set(re.findall(r"(?<![\w:/-])ddc_\w+", body)):
        seen.add(name)
        if name not in allowed and HISTOGRAM.sub("", name) not in allowed:
            wrong.append(f"{path.name}: {name} is not in docs/metrics.md")
    for name in set(re.findall(r"ddc:[\w:]+", body)):
        if name not in recorded:
            wrong.append(f"{path.name}: {name} is recorded nowhere")
    for name in set(re.findall(r"\b(?:vector|prometheus|host|node)_\w+", body)) - foreign:
        wrong.append(f"{path.name}: {name} is a metric that nobody has vouched for")
# Texts and runbooks may not promise metrics that do not exist either.
for path in [*parts, *sorted((docs / "runbooks").glob("*.md")), here / "README.md"]:
    if not path.exists():
        wrong.append(f"{path} is missing")
        continue
    for name in set(re.findall(r"(?<![\w:/-])ddc_\w+", path.read_text(encoding="utf-8"))):
        if name not in known | labels | compat_names and HISTOGRAM.sub("", name) not in known:
            wrong.append(f"{path.name}: {name} is not in docs/metrics.md")
    for name in set(re.findall(r"ddc:[a-z_]+:[a-z0-9_]+", path.read_text(encoding="utf-8"))):
        if name not in recorded:
            wrong.append(f"{path.name}: {name} is recorded nowhere")

for name in recorded:
    if f"`{name}`" not in (here / "README.md").read_text(encoding="utf-8"):
        wrong.append(f"README.md does not say what {name} is")

for line in sorted(set(wrong)):
    print(line)
rules = sum(alert["rules"] for alert in alerts.values())
print(
    f"{len(alerts)} alerts in {rules} rules, {len(recorded)} recorded names and {len(compat_names)} compatible ones, "
    f"{cases} required cases, {len(seen & known)} of {len(known)} catalogued metrics used"
)
sys.exit(1 if wrong else 0)
