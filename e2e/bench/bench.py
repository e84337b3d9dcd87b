#!/usr/bin/env python3
"""Throughput of the engine: Nexmark into a blackhole, at parallelism 1 and 2, checkpoints off and every second.

Prints events per second of wall time, events per CPU-second summed over every process of the run, the highest sum of their
resident memory, and how long checkpoints took. Nothing else should run on the machine meanwhile.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
MARK = "STREAMJOB_BENCH_RUN"

# Query: what the sink holds, what is inserted, events. Enough events for ten seconds and more.
QUERIES = {
    "q0": (
        "auction BIGINT, bidder BIGINT, price BIGINT, dateTime TIMESTAMP(3), extra VARCHAR",
        "SELECT auction, bidder, price, dateTime, extra FROM bid",
        20_000_000,
    ),
    "q1": (
        "auction BIGINT, bidder BIGINT, price DECIMAL(23, 3), dateTime TIMESTAMP(3), extra VARCHAR",
        "SELECT auction, bidder, 0.908 * price AS price, dateTime, extra FROM bid",
        20_000_000,
    ),
    "q2": (
        "auction BIGINT, price BIGINT",
        "SELECT auction, price FROM bid WHERE MOD(auction, 123) = 0",
        60_000_000,
    ),
    "count": (
        "bidder BIGINT, bids BIGINT, spent BIGINT",
        "SELECT bidder, COUNT(*) AS bids, SUM(price) AS spent FROM bid GROUP BY bidder",
        20_000_000,
    ),
    "window-max": (
        "maxprice BIGINT, bids BIGINT, window_end TIMESTAMP(3)",
        "SELECT MAX(price) AS maxprice, COUNT(*) AS bids, window_end\n"
        "FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '10' SECOND))\n"
        "GROUP BY window_start, window_end",
        40_000_000,
    ),
}
# Events a second of event time, as in the published runs.
RATE = 100_000


def source_and_view():
    """The table and the view of the example jobs, from the example itself."""
    text = (ROOT / "examples/nexmark/q0.yaml").read_text(encoding="utf-8")
    sql = text[text.index("CREATE TABLE events") : text.index("CREATE TABLE results")]
    return sql.replace("${RATE}", str(RATE)).replace("${PACED}", "false")


def job(query, events, parallelism, interval):
    columns, select, _ = QUERIES[query]
    sql = (
        source_and_view().replace("${EVENTS}", str(events))
        + f"\nCREATE TABLE sink ({columns}) WITH ('connector' = 'blackhole');\nINSERT INTO sink\n{select};\n"
    )
    checkpoint = f"  checkpoint: {{ interval: {interval} }}\n" if interval else ""
    body = "".join(f"      {line.strip()}\n" for line in sql.splitlines())
    return (
        "apiVersion: streamjob.dev/v1alpha1\nkind: StreamJob\n"
        f"metadata:\n  name: bench-{query}\nspec:\n  parallelism: {parallelism}\n"
        f"{checkpoint}  program:\n    sql: |\n{body}"
    )


class Memory(threading.Thread):
    """The highest sum of resident memory over the processes of a run."""

    def __init__(self, mark):
        super().__init__(daemon=True)
        self.entry = f"{MARK}={mark}".encode()
        self.peak = 0
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(0.1):
            self.peak = max(self.peak, sum(self.resident(pid) for pid in filter(str.isdigit, os.listdir("/proc"))))

    def resident(self, pid):
        try:
            if self.entry not in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return 0
            return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return 0


def run(engine, query, events, parallelism, interval):
    directory = Path(tempfile.mkdtemp(prefix="streamjob-bench-"))
    try:
        (directory / "job.yaml").write_text(job(query, events, parallelism, interval), encoding="utf-8")
        mark = directory.name
        memory = Memory(mark)
        memory.start()
        start = time.monotonic()
        with open(directory / "log", "wb") as log:
            child = subprocess.Popen(
                [engine, "run", "job.yaml", "--data-dir", "state", "--fresh"],
                cwd=directory,
                env={**os.environ, MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - start
        memory.over.set()
        text = (directory / "log").read_text(encoding="utf-8", errors="replace")
        if status != 0:
            sys.exit(f"{query}: ended with status {status}\n{text[-3000:]}")
        return {
            "wall": wall,
            # Of the supervisor and of every process it waited for.
            "cpu": usage.ru_utime + usage.ru_stime,
            "memory": memory.peak,
            "checkpoints": checkpoint_durations(text),
        }
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def checkpoint_durations(log):
    """Milliseconds, from the log's lines on completed checkpoints."""
    return [int(match) for match in re.findall(r"checkpoint \d+ completed in (\d+) ms", log)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--queries", default=",".join(QUERIES))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the usual number of events")
    parser.add_argument("--runs", type=int, default=1, help="runs of each; the one of median CPU time is shown")
    arguments = parser.parse_args()
    engine = str(Path(arguments.engine).resolve())

    print("| query | parallelism | checkpoints | events | wall s | CPU s | events/s | events/CPU-s | peak MiB | checkpoints, ms median/max |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for query in arguments.queries.split(","):
        events = int(QUERIES[query][2] * arguments.scale)
        for parallelism in (1, 2):
            for interval in (None, "1s"):
                results = [run(engine, query, events, parallelism, interval) for _ in range(arguments.runs)]
                result = sorted(results, key=lambda one: one["cpu"])[len(results) // 2]
                took = result["checkpoints"]
                print(
                    f"| {query} | {parallelism} | {interval or 'off'} | {events / 1e6:.0f} M | {result['wall']:.1f} | {result['cpu']:.1f} "
                    f"| {millions(events / result['wall'])} | {millions(events / result['cpu'])} | {result['memory'] / 2**20:.0f} "
                    f"| {f'{len(took)}: {statistics.median(took):.0f}/{max(took)}' if took else '-'} |",
                    flush=True,
                )


def millions(number):
    return f"{number / 1e6:.2f} M"


if __name__ == "__main__":
    main()
