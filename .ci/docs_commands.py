#!/usr/bin/env python3
"""Runs the commands that the documentation shows.

Every fenced ```console block is run: its lines that start with `$ `, in order, in one shell a file, at the root of the tree.
A command that fails ends the check. A block that cannot run here stands under a line `<!-- not run: why -->`.
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
# CI builds outside the tree; the pages name the usual place.
TARGET = os.environ.get("CARGO_TARGET_DIR", "target")
LIMIT_SECONDS = 1800


def commands(page):
    found, skipped = [], 0
    for block in BLOCK.finditer("\n" + page.read_text(encoding="utf-8")):
        if NOT_RUN.search(block.group("before")):
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
    total = 0
    for page in PAGES:
        found, skipped = commands(page)
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
