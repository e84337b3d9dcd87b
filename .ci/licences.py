#!/usr/bin/env python3
"""Checks what the engine depends on, from `cargo metadata` alone.

- Every dependency's licence must be on the list of allowed ones.
- Crates whose types cross our interfaces exist in exactly one version.
- Known vulnerabilities: asked of cargo-audit or cargo-deny, if one is installed and has its database on this machine.
  Neither downloads anything here; without them this check says that it did not run.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
}

# Two versions of one of these would be two incompatible types of the same name.
SINGLE = re.compile(r"^(arrow(-.*)?|datafusion(-.*)?|object_store|sqlparser|tokio|prometheus)$")

TARGET = "x86_64-unknown-linux-gnu"


def allowed(expression):
    """Whether an SPDX expression can be met with allowed licences alone."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))
    position = 0

    def peek():
        return tokens[position] if position < len(tokens) else None

    def take():
        nonlocal position
        position += 1
        return tokens[position - 1]

    def either():
        result = both()
        while peek() == "OR":
            take()
            right = both()
            result = result or right
        return result

    def both():
        result = one()
        while peek() == "AND":
            take()
            right = one()
            result = result and right
        return result

    def one():
        if peek() == "(":
            take()
            result = either()
            take()
            return result
        name = take()
        if peek() == "WITH":
            take()
            name = f"{name} WITH {take()}"
        return name in ALLOWED

    return either() and position == len(tokens)


def advisories():
    databases = {
        "cargo-audit": Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo")) / "advisory-db",
        "cargo-deny": Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo")) / "advisory-dbs",
    }
    commands = {
        "cargo-audit": ["cargo", "audit", "--no-fetch", "--deny", "warnings"],
        "cargo-deny": ["cargo", "deny", "--offline", "check", "advisories"],
    }
    for tool, database in databases.items():
        if shutil.which(tool) and database.exists():
            return subprocess.run(commands[tool]).returncode == 0
    print("advisories: NOT CHECKED here: neither cargo-audit nor cargo-deny is installed with its database")
    return True


def main():
    metadata = json.loads(
        subprocess.run(
            ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", TARGET],
            check=True,
            stdout=subprocess.PIPE,
        ).stdout
    )
    used = {node["id"] for node in metadata["resolve"]["nodes"]}
    problems = []
    versions = defaultdict(set)
    foreign = [package for package in metadata["packages"] if package["id"] in used and package["source"]]
    for package in foreign:
        name = f"{package['name']} {package['version']}"
        licence = package["license"]
        if licence is None:
            problems.append(f"{name}: names no licence")
        elif not allowed(licence):
            problems.append(f"{name}: licence {licence} is not on the list in .ci/licences.py")
        if SINGLE.match(package["name"]):
            versions[package["name"]].add(package["version"])
    for name, found in versions.items():
        if len(found) > 1:
            problems.append(f"{name}: {len(found)} versions ({', '.join(sorted(found))}) where one must do")
    for name in ("arrow", "datafusion-common", "object_store"):
        if name not in versions:
            problems.append(f"{name}: not among the dependencies; has the rule in .ci/licences.py gone stale?")
    if not advisories():
        problems.append("a dependency has a known vulnerability, see above")
    for problem in problems:
        print(f"dependencies: {problem}", file=sys.stderr)
    if problems:
        sys.exit(1)
    print(f"dependencies: {len(foreign)} crates, all licences allowed, one version of each shared type")


if __name__ == "__main__":
    main()
