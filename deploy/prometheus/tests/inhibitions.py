"""Puts the alerts of inhibitions.txt into a running Alertmanager and asks which of them it holds back.

    inhibitions.py http://127.0.0.1:PORT inhibitions.txt

Each line is a case with a link of its own, so that cases do not meet. Prints what is wrong; exit code 1 then.
"""

import json
import sys
import time
import urllib.request

# Alerts that concern a site, not a link.
OF_A_SITE = {"VectorDown", "FarTelemetrySilent"}


def labels(text, case):
    found = {"site": "north", "link": f"link-{case}"}
    found.update(pair.split("=", 1) for pair in text.split())
    if found["alertname"] in OF_A_SITE:
        # This case needs a site of its own.
        found["site"] = f"site-{case}"
    return {name: value for name, value in found.items() if value}


def cases(path):
    for number, line in enumerate(open(path, encoding="utf-8"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        wanted, rest = line.split(None, 1)
        first, second = rest.split("|")
        first, second = labels(first, number), labels(second, number)
        if first["alertname"] in OF_A_SITE:
            second["site"] = first["site"]
        yield number, wanted, first, dict(second, case=str(number))


def call(url, body=None):
    request = urllib.request.Request(url, headers={"Content-Type": "application/json"})
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(request, data, timeout=5) as answer:
        return json.loads(answer.read() or "null")


def main():
    base, path = sys.argv[1], sys.argv[2]
    wanted = {number: (want, second) for number, want, _, second in cases(path)}
    call(f"{base}/api/v2/alerts", [{"labels": first} for _, _, first, _ in cases(path)])
    call(f"{base}/api/v2/alerts", [{"labels": second} for _, second in wanted.values()])
    # Alertmanager's inhibitor learns of alerts a moment after the API has taken them.
    for _ in range(50):
        got = {}
        for alert in call(f"{base}/api/v2/alerts?active=true&inhibited=true&silenced=true&unprocessed=true"):
            if "case" in alert["labels"]:
                held = bool(alert["status"]["inhibitedBy"])
                got[int(alert["labels"]["case"])] = "held" if held else "told"
        wrong = [number for number, (want, _) in wanted.items() if got.get(number) != want]
        if not wrong:
            break
        time.sleep(0.1)
    for number in wrong:
        want, second = wanted[number]
        print(f"{path}:{number}: {second['alertname']} must be {want}, is {got.get(number)}")
    print(f"{len(wanted) - len(wrong)} of {len(wanted)} cases as wanted")
    sys.exit(1 if wrong else 0)


main()
