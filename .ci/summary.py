#!/usr/bin/env python3
"""Adds up the results of every cargo test run in a log, and of every script that says `N passed, N failed`, and prints them as one
line of that form."""

import re
import sys

RESULT = re.compile(r"^(?:test result: \w+\. |\w+: )?(\d+) passed[;,] (\d+) failed\b")


def main():
    passed = failed = 0
    with open(sys.argv[1], encoding="utf-8", errors="replace") as log:
        for line in log:
            if match := RESULT.match(line):
                passed += int(match.group(1))
                failed += int(match.group(2))
    print(f"{passed} passed, {failed} failed")


if __name__ == "__main__":
    main()
