#!/usr/bin/env python3
"""Runs the commands that the documentation shows.

Every fenced ```console block is run: its lines that start with `$ `, in order, in one shell a file, at the root of the tree.
A command that fails ends the check. A block that cannot run here stands under a line `<!-- not run: why -->`.

Blocks under a line `<!-- cluster -->`, and all of docs/kubernetes.md, need a cluster: they are run with `--cluster`, against that of
KUBECONFIG, and those alone. HELM_ARGUMENTS is added to `helm upgrade`, for images that are no release.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?P<before>[^\n]*)\n```console\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: .+ -->")
CLUSTER = "<!-- cluster -->"
CLUSTER_PAGES = [ROOT / "docs" / "kubernetes.md"]
# CI builds outside the tree; the pages name the usual place.
TARGET = os.environ.get("CARGO_TARGET_DIR", "target")
LIMIT_SECONDS = 1800


def commands(page, cluster):
    found, skipped = [], 0
    for block in BLOCK.finditer("\n" + page.read_text(encoding="utf-8")):
        needs_cluster = page in CLUSTER_PAGES or CLUSTER in block.group("before")
        if NOT_RUN.search(block.group("before")) or needs_cluster != cluster:
            skipped += 1
            continue
        lines = block.group("body").splitlines()
        continued = False
        for line in lines:
            if line.startswith("$ "):
                found.append(line[2:].replace("target/debug/", f"{TARGET}/debug/"))
                continued = line.endswith("\\")
            elif continued:
                found[-1] += "\n" + line.replace("target/debug/", f"{TARGET}/debug/")
                continued = line.endswith("\\")
    return found, skipped


def main():
    cluster = sys.argv[1:] == ["--cluster"]
    if sys.argv[1:] and not cluster:
        sys.exit("usage: docs_commands.py [--cluster]")
    total = 0
    for page in PAGES:
        found, skipped = commands(page, cluster)
        if cluster:
            added = os.environ.get("HELM_ARGUMENTS", "")
            found = [f"{command} {added}" if command.startswith("helm upgrade") else command for command in found]
        if not found:
            continue
        script = "set -euo pipefail\n" + "\n".join(f"echo '+' {quote(command)}\n{command}" for command in found)
        print(f"docs: {page.relative_to(ROOT)}: {len(found)} commands, {skipped} blocks not run", flush=True)
        result = subprocess.run(["bash", "-c", script], cwd=ROOT, timeout=LIMIT_SECONDS, stdin=subprocess.DEVNULL)
        if result.returncode != 0:
            sys.exit(f"docs: {page.relative_to(ROOT)}: a command failed with code {result.returncode}")
        total += len(found)
    if total == 0:
        sys.exit("docs: no command found; has the form of the blocks changed?")
    print(f"docs: {total} commands work")


def quote(text):
    return "'" + text.replace("'", "'\\''") + "'"


if __name__ == "__main__":
    main()
