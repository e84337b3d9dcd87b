#!/usr/bin/env python3
"""Measures the engine on bounded jobs in local mode: rows/s, rows per CPU-second of all processes (start, planning and
checkpoints included), peak memory, checkpoint durations.

Every configuration runs `--repeat` times, interleaved, and the median is printed. CPU time is what the operating system
charged the supervisor and all its (waited for) children. `--flink FILE` adds a column with ratios to the figures of
another engine, a JSON object {"query/parallelism/checkpoint": rows per CPU-second}.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

BID = """
CREATE TABLE bid (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING,
  `dateTime` TIMESTAMP(3), extra STRING,
  WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND
) WITH ('connector' = 'nexmark', 'events.num' = '{events}', 'first-event.rate' = '100000', 'next-event.rate' = '100000');
"""
KV = """
CREATE TABLE kv (k BIGINT, v BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '{events}',
  'rows-per-second' = '1000000000', 'fields.k.min' = '0', 'fields.k.max' = '999999',
  'fields.v.min' = '0', 'fields.v.max' = '1000');
"""
# Name: (tables, sink columns, query, million events at parallelism 1)
QUERIES = {
    "q0": (BID, "auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, `dateTime` TIMESTAMP(3), extra STRING",
           "SELECT auction, bidder, price, channel, url, `dateTime`, extra FROM bid", 30),
    "q1": (BID, "auction BIGINT, bidder BIGINT, price DECIMAL(23, 3), `dateTime` TIMESTAMP(3), extra STRING",
           "SELECT auction, bidder, 0.908 * price AS price, `dateTime`, extra FROM bid", 30),
    "q2": (BID, "auction BIGINT, price BIGINT", "SELECT auction, price FROM bid WHERE MOD(auction, 123) = 0", 60),
    "count": (BID, "bidder BIGINT, n BIGINT, total BIGINT",
              "SELECT bidder, COUNT(*), SUM(price) FROM bid GROUP BY bidder", 60),
    "kvcount": (KV, "k BIGINT, n BIGINT, total BIGINT", "SELECT k, COUNT(*), SUM(v) FROM kv GROUP BY k", 60),
    "q7max": (BID, "`end` TIMESTAMP(3), price BIGINT, n BIGINT",
              "SELECT window_end, MAX(price), COUNT(*) FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), "
              "INTERVAL '10' SECOND)) GROUP BY window_start, window_end", 60),
}


def job_file(directory, query, parallelism, interval, scale):
    tables, columns, select, millions = QUERIES[query]
    events = int(millions * scale * 1_000_000)
    sql = tables.format(events=events)
    sql += f"CREATE TABLE sink ({columns}) WITH ('connector' = 'blackhole');\nINSERT INTO sink {select};\n"
    checkpoint = f"  checkpoint:\n    interval: {interval}\n" if interval else ""
    text = (
        "apiVersion: streamjob.dev/v1alpha1\nkind: StreamJob\nmetadata:\n"
        f"  name: bench-{query.lower()}\nspec:\n  parallelism: {parallelism}\n  workers:\n    slots: {parallelism}\n"
        + checkpoint + "  program:\n    sql: |\n" + "".join(f"      {line}\n" for line in sql.splitlines())
    )
    path = os.path.join(directory, "job.yaml")
    with open(path, "w") as file:
        file.write(text)
    return path, events


class Sampler(threading.Thread):
    """Peak of the summed resident memory of a process and its descendants, MiB."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peak, self.stopped = pid, 0.0, False

    def run(self):
        while not self.stopped:
            self.peak = max(self.peak, sum(resident(p) for p in descendants(self.pid)))
            time.sleep(0.05)


def descendants(pid):
    found, queue = [], [pid]
    while queue:
        current = queue.pop()
        found.append(current)
        try:
            for task in os.listdir(f"/proc/{current}/task"):
                with open(f"/proc/{current}/task/{task}/children") as file:
                    queue += [int(child) for child in file.read().split()]
        except OSError:
            pass
    return found


def resident(pid):
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith("VmRSS"):
                    return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def run(engine, query, parallelism, interval, scale):
    with tempfile.TemporaryDirectory() as directory:
        path, events = job_file(directory, query, parallelism, interval, scale)
        data = os.path.join(directory, "data")
        started = time.monotonic()
        process = subprocess.Popen([engine, "run", path, "--data-dir", data, "--fresh"],
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        sampler = Sampler(process.pid)
        sampler.start()
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
        sampler.stopped = True
        if os.waitstatus_to_exitcode(status) != 0:
            sys.exit(f"{query} at parallelism {parallelism} failed:\n{output}")
        cpu = usage.ru_utime + usage.ru_stime
        durations = checkpoint_durations(os.path.join(data, "logs"))
        return {"events": events, "wall": wall, "cpu": cpu, "rss": sampler.peak, "checkpoints": durations}


def checkpoint_durations(logs):
    found = []
    for name in os.listdir(logs) if os.path.isdir(logs) else []:
        with open(os.path.join(logs, name), errors="replace") as file:
            for line in file:
                if "checkpoint completed" in line:
                    try:
                        entry = json.loads(line)
                        found.append(int(entry.get("fields", entry).get("duration_ms", 0)))
                    except ValueError:
                        pass
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="target/release/streamjob-engine")
    parser.add_argument("--queries", default=",".join(QUERIES))
    parser.add_argument("--parallelism", default="1,2")
    parser.add_argument("--checkpoints", default="off,1s")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of events")
    parser.add_argument("--flink", help="JSON file to compare with")
    arguments = parser.parse_args()
    flink = {}
    if arguments.flink:
        with open(arguments.flink) as file:
            flink = json.load(file)
    configurations = [
        (query, int(parallelism), checkpoint)
        for query in arguments.queries.split(",")
        for parallelism in arguments.parallelism.split(",")
        for checkpoint in arguments.checkpoints.split(",")
    ]
    results = {configuration: [] for configuration in configurations}
    for _ in range(arguments.repeat):
        for query, parallelism, checkpoint in configurations:
            interval = None if checkpoint == "off" else checkpoint
            outcome = run(arguments.engine, query, parallelism, interval, arguments.scale)
            results[(query, parallelism, checkpoint)].append(outcome)
    print(f"{'query':8} {'p':>2} {'ckpt':>5} {'M rows':>7} {'wall s':>7} {'CPU s':>7} {'M rows/s':>9} "
          f"{'M rows/CPU-s':>13} {'x Flink':>8} {'RSS MiB':>8} {'ckpts':>6} {'avg/max ms':>11}")
    for (query, parallelism, checkpoint), runs in results.items():
        wall = statistics.median(run["wall"] for run in runs)
        cpu = statistics.median(run["cpu"] for run in runs)
        events = runs[0]["events"]
        durations = [duration for run in runs for duration in run["checkpoints"]]
        rate = events / cpu
        reference = flink.get(f"{query}/{parallelism}/{checkpoint}")
        ratio = f"{rate / reference:8.2f}" if reference else f"{'-':>8}"
        times = f"{statistics.mean(durations):.0f}/{max(durations)}" if durations else "-"
        print(f"{query:8} {parallelism:2} {checkpoint:>5} {events / 1e6:7.1f} {wall:7.2f} {cpu:7.2f} {events / wall / 1e6:9.2f} "
              f"{rate / 1e6:13.2f} {ratio} {max(run['rss'] for run in runs):8.0f} {len(durations) / len(runs):6.1f} {times:>11}")


if __name__ == "__main__":
    main()
