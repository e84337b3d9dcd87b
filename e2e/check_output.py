#!/usr/bin/env python3
"""Checks what the job of the cluster tests has written, against what follows from its generator alone.

The generator counts 1, 2, 3 … The job writes every number into the table `passed`, and count and sum by `n % KEYS` into `totals`, as a
changelog. Shares nothing with the engine: it reads lines of JSON and adds up.

- `passed` holds no number twice. With `--end N` it holds 1 to N, each once. Without it, the job was interrupted or runs: numbers are dealt
  in turn to 128 stripes, and each stripe has to be there without a gap.
- `totals`, where given, taken back and replaced, leaves exactly one line a key, and that one is what the numbers in `passed` add up to.
  The two tables agree only while nothing is written: after the job has ended or was suspended.
"""

import argparse
import json
import sys
from collections import Counter

STRIPES = 128
SHOWN = 10


def lines(path):
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.strip():
                yield json.loads(line)


def some(items):
    items = list(items)
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(map(str, items[:SHOWN])) + more


def check_passed(numbers, end):
    """The problems of `passed`."""
    times = Counter(numbers)
    if twice := sorted(number for number, count in times.items() if count > 1):
        yield f"passed: {len(twice)} numbers are there more than once: {some(twice)}"
    if end is None:
        newest = {}
        for number in times:
            stripe = (number - 1) % STRIPES
            newest[stripe] = max(newest.get(stripe, 0), number)
        lost = [n for stripe, last in newest.items() for n in range(stripe + 1, last, STRIPES) if n not in times]
    else:
        lost = [number for number in range(1, end + 1) if number not in times]
        if strange := sorted(number for number in times if not 1 <= number <= end):
            yield f"passed: {len(strange)} numbers were never generated: {some(strange)}"
    if lost:
        yield f"passed: {len(lost)} numbers are lost: {some(sorted(lost))}"


def check_totals(changes, numbers, keys):
    """The problems of `totals`: which lines stand in the end, whatever the order of the changes."""
    standing = Counter()
    for change in changes:
        line = (change["k"], change["cnt"], change["total"])
        standing[line] += 1 if change["op"] in ("+I", "+U") else -1
    wrong = sorted(line for line, count in standing.items() if count not in (0, 1))
    if wrong:
        yield f"totals: {len(wrong)} lines are written or taken back once too often: {some(wrong)}"
    expected = {}
    for number in numbers:
        count, total = expected.get(number % keys, (0, 0))
        expected[number % keys] = (count + 1, total + number)
    found = {line for line, count in standing.items() if count > 0}
    right = {(key, count, total) for key, (count, total) in expected.items()}
    if surplus := sorted(found - right):
        yield f"totals: {len(surplus)} lines do not follow from the input (key, count, sum): {some(surplus)}"
    if missing := sorted(right - found):
        yield f"totals: {len(missing)} lines are missing (key, count, sum): {some(missing)}"


def main():
    parser = argparse.ArgumentParser(description="Checks the output of the job of the cluster tests")
    parser.add_argument("--passed", required=True, help="file with the lines of table `passed`")
    parser.add_argument("--totals", help="file with the lines of table `totals`; only of a job that writes nothing now")
    parser.add_argument("--keys", type=int, default=100)
    parser.add_argument("--end", type=int, help="the last number, of a job that has finished")
    arguments = parser.parse_args()
    numbers = [line["n"] for line in lines(arguments.passed)]
    problems = list(check_passed(numbers, arguments.end))
    if arguments.totals:
        problems += check_totals(lines(arguments.totals), numbers, arguments.keys)
    for problem in problems:
        print(problem)
    if problems:
        sys.exit(1)
    what = f"{len(numbers)} numbers, each once" + (", totals agree" if arguments.totals else "")
    print(what)


if __name__ == "__main__":
    main()
