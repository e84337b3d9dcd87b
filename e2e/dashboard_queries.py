#!/usr/bin/env python3
"""Asks a Prometheus for what each panel of the chart's dashboards shows.

    dashboard_queries.py --static              every metric that a panel uses is in the generated tables of docs/; no cluster needed
    dashboard_queries.py URL [--wait SECONDS]  every panel's query returns data there; asks again until it does or the time is over

Some series appear only when something has happened: a pause needs an upgrade, a restore a restart.
"""

import argparse
import json
import re
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DASHBOARDS = ROOT / "charts" / "streamjob-operator" / "dashboards"
TABLES = [ROOT / "docs" / "metrics.md", ROOT / "docs" / "operator-metrics.md"]
ROW = re.compile(r"^\| `([a-z_]+)` \| (\w+) \|", re.MULTILINE)
METRIC = re.compile(r"\b(?:streamjob|process)_[a-z_]+\b")
VARIABLES = {"$namespace": ".+", "$job": ".+", "$__rate_interval": "1m", "$__range": "5m"}
SUFFIXES = ("_bucket", "_sum", "_count")


def queries():
    """Dashboard, panel, query."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        dashboard = json.loads(path.read_text(encoding="utf-8"))
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                yield path.name, panel["title"], target["expr"]


def check_static():
    known = {}
    for table in TABLES:
        known.update(ROW.findall(table.read_text(encoding="utf-8")))
    unknown, used = [], set()
    for dashboard, title, query in queries():
        for metric in METRIC.findall(query):
            plain = next((metric.removesuffix(end) for end in SUFFIXES if metric.endswith(end)), metric)
            used.add(plain)
            if known.get(metric) is None and known.get(plain) != "histogram":
                unknown.append(f"{dashboard}: {title}: {metric} is in no table of {', '.join(t.name for t in TABLES)}")
    for path in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            if panel["type"] != "row" and not panel.get("description"):
                unknown.append(f"{path.name}: {panel['title']} has no description")
    return len(used), unknown


def ask(url, query):
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    address = f"{url.rstrip('/')}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            return json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        sys.exit(f"dashboard_queries.py: {query}: {error.read().decode()}")


def check_live(url, wait):
    end = time.monotonic() + wait
    open_queries = list(queries())
    total = len(open_queries)
    while True:
        open_queries = [item for item in open_queries if not ask(url, item[2])]
        if not open_queries or time.monotonic() >= end:
            return total, [f"{dashboard}: {title}: no data for {query}" for dashboard, title, query in open_queries]
        time.sleep(2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", help="a Prometheus")
    parser.add_argument("--static", action="store_true")
    parser.add_argument("--wait", type=float, default=60, help="seconds until every query has data")
    options = parser.parse_args()
    if options.static == bool(options.url):
        parser.error("either --static or a URL")
    total, failures = check_static() if options.static else check_live(options.url, options.wait)
    for failure in failures:
        print(f"FAILED {failure}")
    what = "metrics known" if options.static else "queries with data"
    print(f"dashboards: {total - min(total, len(failures))} of {total} {what}")
    sys.exit(1 if failures or total == 0 else 0)


if __name__ == "__main__":
    main()
