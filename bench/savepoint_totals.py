#!/usr/bin/env python3
"""Reads the state of a savepoint of our engine as any tool can: a manifest in JSON and Arrow files. Knows the one table of the
benchmark's job. Called with the savepoint's directory and the number of different values; prints one JSON object. Runs
with the interpreter that e2e/parts/pyarrow.sh names.
"""

import json
import os
import sys

import pyarrow as arrow
import pyarrow.compute as compute
import pyarrow.ipc  # noqa: F401  (arrow.ipc)


def totals(savepoint, values):
    """How many keys the state has, the total of their counts, the extremes, and how many keys have a wrong sum."""
    with open(os.path.join(savepoint, "_metadata")) as file:
        file.readline()  # format and checksum
        manifest = json.load(file)
    paths = [part["path"]
             for operator in manifest["operators"] for subtask in operator["subtasks"].values()
             for handle in subtask["state"]["keyed"] if handle["name"] == "groups" for part in handle["files"]]
    tables = []
    for path in paths:
        with arrow.memory_map(os.path.join(savepoint, path)) as file:
            table = arrow.ipc.open_file(file).read_all()
        tables.append(table.filter(compute.invert(table["__deleted"])).select([0, 1, 2]))
    table = arrow.concat_tables(tables)
    keys, counts, sums = table.columns
    if keys.type != arrow.int64():
        raise SystemExit(f"the key in {savepoint} is {keys.type} instead of int64, which Flink's job has")
    if compute.count_distinct(keys).as_py() != len(keys):
        raise SystemExit(f"a key stands twice in {savepoint}")
    remainder = compute.subtract(keys, compute.multiply(compute.divide(keys, values), values))
    wrong = compute.not_equal(sums, compute.multiply(counts, remainder))
    extremes = compute.min_max(counts)
    return {"keys": len(keys), "rows": compute.sum(counts).as_py(), "maxKey": compute.max(keys).as_py(),
            "minCount": extremes["min"].as_py(), "maxCount": extremes["max"].as_py(),
            "wrongSums": compute.sum(wrong).as_py()}


if __name__ == "__main__":
    print(json.dumps(totals(sys.argv[1], int(sys.argv[2]))))
