"""Reading what a job wrote, and comparing multisets of rows."""

import json
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path

# The field that the filesystem sink adds with 'sink.changelog' = 'true'.
KIND = "op"
WEIGHTS = {"+I": 1, "+U": 1, "-U": -1, "-D": -1}


def files_of(path):
    """Finished files of a table; those that start with a dot or an underscore are not visible output."""
    path = Path(path)
    if path.is_file():
        return [path]
    return sorted(
        file for file in path.rglob("*") if file.is_file() and not any(part[0] in "._" for part in file.relative_to(path).parts)
    )


def read_rows(path):
    files = files_of(path)
    if not files:
        sys.exit(f"{path}: no finished file")
    for file in files:
        with open(file, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield json.loads(line, parse_float=Decimal)
                except ValueError as error:
                    sys.exit(f"{file}, line {number}: {error}: {line[:120]!r}")


def plain(value):
    if isinstance(value, Decimal):
        return str(value.normalize().quantize(Decimal(1)) if value == value.to_integral_value() else value.normalize())
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return str(value)
    return value


def key(row):
    """A row without absent fields, numbers written one way: equal rows have equal keys."""
    return json.dumps({name: plain(value) for name, value in row.items() if value is not None}, sort_keys=True)


def final_table(rows):
    """Weights of the rows that a changelog adds up to; rows without a kind are inserts."""
    weights = Counter()
    for row in rows:
        row = dict(row)
        kind = row.pop(KIND, "+I")
        weights[key(row)] += WEIGHTS[kind]
    return Counter({row: weight for row, weight in weights.items() if weight != 0})


def compare(what, expected, found):
    """Says whether two multisets are equal; ends the process with code 1 and the first differences when not."""
    if expected == found:
        print(f"{what}: {sum(expected.values())} rows as expected")
        return
    missing, extra = expected - found, found - expected
    negative = Counter({row: weight for row, weight in found.items() if weight < 0})
    print(
        f"{what}: expected {sum(expected.values())} rows, found {sum(found.values())}; "
        f"{sum(missing.values())} missing, {sum(extra.values())} too many, {len(negative)} taken away that were never there",
        file=sys.stderr,
    )
    for title, rows in (("missing", missing), ("too many", extra), ("never there", negative)):
        for row, weight in list(rows.items())[:5]:
            print(f"  {title} {weight:+d}: {row[:300]}", file=sys.stderr)
    sys.exit(1)
