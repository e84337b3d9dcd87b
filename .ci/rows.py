#!/usr/bin/env python3
"""Which rows of the Flink feature inventory are shown, and by which tests: writes docs/flink-rows.md.

A test shows rows by its name: `r09_even_odd_...` shows R09, `r12_r71_pointer_...` shows R12 and R71. With --check the file is
compared instead of written, so that it cannot go stale.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "flink-rows.md"

ROWS = {
    1: "Consistent global checkpoint: state and source positions after the same input prefix",
    2: "Periodic automatic checkpoints; none without an interval",
    3: "Recovery: restart, restore state, replay from the stored source positions",
    4: "Stop-the-world snapshot as a baseline to compare with",
    5: "Asynchronous barrier snapshots: processing goes on while state is written",
    6: "Barriers with increasing ids, in order on every channel",
    7: "Coordinator injects barriers at the sources; ids increase across its failures, the first is 1",
    8: "A source forwards the barrier before it does its snapshot work",
    9: "Barrier alignment; the even/odd example with 8 and 8",
    10: "An operator forwards the barrier, then goes on",
    11: "A checkpoint is complete only when every task acknowledged it",
    12: "The pointer to the latest checkpoint survives the coordinator",
    13: "Acknowledgements carry state handles, sizes and times of every subtask",
    14: "At most once, when nothing is checkpointed or a source cannot replay",
    15: "At-least-once mode: no channel waits; duplicates possible, loss not",
    16: "Exactly-once mode",
    17: "The even/odd example of two parallel number sources",
    18: "Checkpoint interval, at least 10 ms",
    19: "Checkpointing mode, exactly once by default",
    20: "Checkpoint timeout, 10 minutes by default",
    21: "Minimum pause between checkpoints",
    22: "Concurrent checkpoints",
    23: "Tolerable consecutive checkpoint failures, counted by reason",
    24: "Preferring checkpoints for recovery: removed upstream, accepted with a warning",
    25: "Retention of checkpoints on cancellation, failure and finish",
    27: "Checkpoint storage path and layout",
    28: "Checkpoint interval as a trade-off between latency and overhead",
    32: "State in memory, snapshots that later writes do not change",
    33: "State backend and storage of a job",
    34: "The default with nothing configured",
    35: "Keyed value state: visits per user, exact after ten kills",
    36: "Keyed and operator state (list, union, broadcast)",
    38: "Restart strategy fixed delay",
    39: "Restart strategy failure rate",
    40: "Restart strategy none",
    41: "The default restart strategy",
    42: "A job's restart strategy goes before the default",
    43: "Failover strategy full",
    44: "Failover strategy region",
    45: "Pipelined regions",
    46: "A lost result partition restarts its producer; consumers always restart",
    47: "Savepoint on demand",
    48: "Stop with savepoint",
    49: "Start from a savepoint",
    50: "Start from a retained checkpoint, given as directory or manifest; ids go on from it",
    51: "Default directory of savepoints",
    52: "Operators' uids keep their state apart",
    53: "What savepoints are for: backup, upgrade, rescaling",
    54: "State by operator and name, dealt out anew at a restore",
    55: "What checkpoints can and savepoints can",
    56: "Names of savepoints",
    57: "End-to-end guarantee: the weakest of source, engine and sink",
    58: "Replayable source: positions come from the checkpoint",
    59: "Click source that cannot replay: the guarantee goes down to at most once",
    65: "Print sink with prefix and subtask",
    66: "The event of the click counter: user, url, timestamp",
    67: "Event time with increasing timestamps",
    68: "Figures of the web page on checkpoints",
    69: "Command line and configuration keys",
    70: "Object storage without rename and append, with faults",
    71: "The pointer is stored highly available; coordinator killed at each step of completion",
    74: "Keyed operators give the same results at any parallelism",
    75: "Several retained checkpoints",
}

# Rows of later parts that tests show already.
LATER = {
    26: "Unaligned checkpoints",
    29: "State and checkpoints in memory, with a limit",
    30: "State in memory, checkpoints in files",
    31: "State in RocksDB, incremental checkpoints",
    37: "State with a time to live",
    60: "Idempotent sink",
    61: "Transactional sink: nothing is visible before its checkpoint is complete",
    62: "Write-ahead sink",
    63: "Two-phase commit, whatever step a crash hits",
    64: "Kafka sink, exactly once",
}

NAME = re.compile(r"^((?:r\d\d_)+)\w+$")
FUNCTION = re.compile(r"\bfn\s+(\w+)\s*\(")
ATTRIBUTE = re.compile(r"^\s*#\[(?:\w+::)*test(?:\(.*\))?\]\s*$")
NOT_BETWEEN = re.compile(r"^\s*(#\[|//|$)")


def tests_in(file):
    """Names of the test functions of a source file; ignored ones show nothing."""
    lines = file.read_text(encoding="utf-8").splitlines()
    in_proptest = False
    for index, line in enumerate(lines):
        if re.match(r"^\s*(proptest::)?proptest!\s*\{", line):
            in_proptest = True
        function = FUNCTION.search(line)
        if not function:
            continue
        attributes = []
        above = index - 1
        while above >= 0 and NOT_BETWEEN.match(lines[above]):
            attributes.append(lines[above])
            above -= 1
        if any("#[ignore" in attribute for attribute in attributes):
            continue
        if in_proptest or any(ATTRIBUTE.match(attribute) for attribute in attributes):
            yield function.group(1)


def shown():
    """Test names by row number."""
    rows = defaultdict(list)
    for file in sorted((ROOT / "engine").rglob("*.rs")):
        if "target" in file.relative_to(ROOT).parts:
            continue
        for name in tests_in(file):
            match = NAME.match(name)
            if match:
                for number in re.findall(r"\d\d", match.group(1)):
                    rows[int(number)].append((file.relative_to(ROOT), name))
    return rows


def page(rows):
    missing = [number for number in ROWS if number not in rows]
    text = [
        "# Rows of the feature inventory and what shows them",
        "",
        "<!-- Written by .ci/rows.py (`make docs`); edit that, not this. -->",
        "",
        "Each row is a feature of Apache Flink's fault tolerance. A row counts as shown when a test bears its number.",
        "",
        f"{len(ROWS) - len(missing)} of {len(ROWS)} rows are shown.",
        "Missing: " + (", ".join(f"R{number:02d}" for number in missing) or "none") + ".",
        "",
        "| row | feature | shown by |",
        "|---|---|---|",
    ]
    for number, title in sorted({**ROWS, **{n: t for n, t in LATER.items() if n in rows}}.items()):
        tests = rows.get(number)
        by = "<br>".join(f"`{name}` ({path})" for path, name in tests) if tests else "**missing**"
        text.append(f"| R{number:02d} | {title} | {by} |")
    return "\n".join(text) + "\n"


def main():
    rows = shown()
    unknown = sorted(number for number in rows if number not in ROWS and number not in LATER)
    for number in unknown:
        print(f"rows: R{number:02d} is in the name of {rows[number][0][1]} but not on the list in .ci/rows.py", file=sys.stderr)
    text = page(rows)
    if "--check" in sys.argv[1:]:
        if unknown or not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
            sys.exit("rows: docs/flink-rows.md is stale: run `make docs` and commit it")
        print(f"rows: {text.splitlines()[6]}")
        return
    PAGE.write_text(text, encoding="utf-8")
    print(f"rows: wrote {PAGE.relative_to(ROOT)}: {text.splitlines()[6]} {text.splitlines()[7]}")


if __name__ == "__main__":
    main()
