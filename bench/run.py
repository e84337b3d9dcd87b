#!/usr/bin/env python3
"""Measures the engine in local mode. Cases, to be chosen by `--cases`:

  rates     bounded jobs: rows/s, rows per CPU-second of all processes (start, planning and checkpoints included), peak
            memory, checkpoint durations; without and with checkpoints. CPU time is what the operating system charged the
            supervisor and all its (waited for) children, `kernel` the part of it in the kernel. Checkpoints come by the
            clock: on a busy machine there are more of them for the same rows. `--flink FILE` adds a column with ratios to
            the figures of another engine, a JSON object {"query/parallelism/checkpoint": rows per CPU-second}.
  recovery  a job with a million keys in its state and a checkpoint every second; its worker is killed by SIGKILL. Time from
            there until the restored aggregation has all keys back and processes rows, seen on the new worker's /metrics.
  pause     rows in five seconds when writing each snapshot takes half a second beside the rows, and in their way: what
            barriers are good for. Needs a build with fault points, `--engine-with-faults`, which `cargo test --workspace --no-run`
            makes.

Every configuration runs `--repeat` times, interleaved, and the median is printed.
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
import urllib.request

BID = """
CREATE TABLE bid (
  auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING,
  `dateTime` TIMESTAMP(3), extra STRING,
  WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND
) WITH ('connector' = 'nexmark', 'events.num' = '{events}', 'first-event.rate' = '100000', 'next-event.rate' = '100000');
"""
KEYS = 1_000_000
KV = """
CREATE TABLE kv (k BIGINT, v BIGINT) WITH ('connector' = 'datagen', {bound}
  'rows-per-second' = '1000000000', 'fields.k.min' = '0', 'fields.k.max' = '{last_key}',
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


def job_file(directory, query, parallelism, interval, events, keys=KEYS):
    """`events` absent: the job does not end."""
    tables, columns, select, _ = QUERIES[query]
    bound = f"'number-of-rows' = '{events}'," if events else ""
    sql = tables.format(events=events, bound=bound, last_key=keys - 1)
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
    return path


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
    events = int(QUERIES[query][3] * scale * 1_000_000)
    with tempfile.TemporaryDirectory() as directory:
        path = job_file(directory, query, parallelism, interval, events)
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
        return {"events": events, "wall": wall, "cpu": cpu, "kernel": usage.ru_stime, "rss": sampler.peak,
                "checkpoints": durations}


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


class Endless:
    """A job without an end, and what its processes say over HTTP."""

    def __init__(self, engine, directory, interval, keys=KEYS, faults=None):
        path = job_file(directory, "kvcount", 1, interval, None, keys)
        self.data = os.path.join(directory, "data")
        self.log = open(os.path.join(directory, "log"), "w")
        environment = dict(os.environ, STREAMJOB_FAULTS=faults) if faults else None
        self.process = subprocess.Popen([engine, "run", path, "--data-dir", self.data, "--fresh"], env=environment,
                                        stdout=self.log, stderr=subprocess.STDOUT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # As Ctrl-C: a last checkpoint, then the end of all processes.
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def status(self):
        with open(os.path.join(self.data, "run.json")) as file:
            address = json.load(file)["rest"]
        return json.loads(fetch(f"{address}/v1/status"))

    def metric(self, name):
        """By operator, the sum over its subtasks; asked of the workers themselves."""
        values = {}
        for worker in self.status()["workers"]:
            for line in fetch(f"http://{worker['metrics_addr']}/metrics").splitlines():
                if line.startswith(name + "{"):
                    labels, value = line.rsplit(" ", 1)
                    operator = labels.split('operator="', 1)[1].split('"', 1)[0]
                    values[operator] = values.get(operator, 0) + float(value)
        return values

    def rows(self):
        """Keys in the state of the aggregation, and rows that it has processed since it was deployed."""
        state = self.metric("streamjob_operator_state_rows")
        keyed = max(state, key=state.get)
        return state[keyed], self.metric("streamjob_operator_records_in_total")[keyed]

    def wait(self, what, condition, seconds=120):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                sys.exit(f"waiting for {what}, the engine ended; see {self.log.name}")
            try:
                found = condition()
                if found:
                    return found
            except (OSError, ValueError, KeyError):
                pass  # The process that would know is starting or gone.
            time.sleep(0.01)
        sys.exit(f"waited {seconds} s for {what}")


def fetch(address):
    with urllib.request.urlopen(address, timeout=5) as reply:
        return reply.read().decode()


def recovery(engine):
    """Seconds from the worker's death to rows processed with all state."""
    with tempfile.TemporaryDirectory() as directory, Endless(engine, directory, "1s") as job:
        job.wait("all keys", lambda: job.rows()[0] >= KEYS)
        before = job.status()["checkpoints"]["completed"]
        # The first of them may have begun without some keys.
        job.wait("checkpoints with them", lambda: job.status()["checkpoints"]["completed"] >= before + 2)
        worker = job.status()["workers"][0]["pid"]
        os.kill(worker, 9)
        start = time.monotonic()

        def works_again():
            workers = job.status()["workers"]
            if not workers or any(each["pid"] == worker for each in workers):
                return False
            keys, rows = job.rows()
            return keys >= KEYS and rows > 0

        job.wait("rows after the kill", works_again)
        return time.monotonic() - start


def rows_in_five_seconds(engine, fault):
    with tempfile.TemporaryDirectory() as directory, Endless(engine, directory, "250ms", 1000, fault) as job:
        job.wait("a checkpoint", lambda: job.status()["checkpoints"]["completed"])
        before, start = job.rows()[1], time.monotonic()
        time.sleep(5)
        return (job.rows()[1] - before) / (time.monotonic() - start) * 5


def compare_pause(engine, repeat):
    faults = {"in the way of rows": "cut.before=delay:500", "beside them": "upload.before=delay:500"}
    results = {name: [] for name in faults}
    for _ in range(repeat):
        for name, fault in faults.items():
            results[name].append(rows_in_five_seconds(engine, fault))
    for name, rows in results.items():
        print(f"pause: {statistics.median(rows) / 1e6:.2f} M rows in five seconds, snapshots take 0.5 s {name}")
    ratio = statistics.median(results["beside them"]) / statistics.median(results["in the way of rows"])
    print(f"pause: barriers {ratio:.2f} times the rows of standing still")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="target/release/streamjob-engine")
    parser.add_argument("--engine-with-faults", default="target/debug/streamjob-engine")
    parser.add_argument("--cases", default="rates,recovery", help="some of rates, recovery, pause")
    parser.add_argument("--queries", default=",".join(QUERIES))
    parser.add_argument("--parallelism", default="1,2")
    parser.add_argument("--checkpoints", default="off,1s")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of events")
    parser.add_argument("--flink", help="JSON file to compare with")
    arguments = parser.parse_args()
    cases = arguments.cases.split(",")
    if "rates" in cases:
        compare_rates(arguments)
    if "recovery" in cases:
        times = [recovery(arguments.engine) for _ in range(arguments.repeat)]
        print(f"recovery: {KEYS / 1e6:.0f} M keys, worker killed, rows with all state again after "
              f"{statistics.median(times):.2f} s (median of {', '.join(f'{each:.2f}' for each in times)})")
    if "pause" in cases:
        compare_pause(arguments.engine_with_faults, arguments.repeat)


def compare_rates(arguments):
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
    print(f"{'query':8} {'p':>2} {'ckpt':>5} {'M rows':>7} {'wall s':>7} {'CPU s':>7} {'kernel':>7} {'M rows/s':>9} "
          f"{'M rows/CPU-s':>13} {'x Flink':>8} {'RSS MiB':>8} {'ckpts':>6} {'avg/max ms':>11}")
    for (query, parallelism, checkpoint), runs in results.items():
        wall = statistics.median(run["wall"] for run in runs)
        cpu = statistics.median(run["cpu"] for run in runs)
        kernel = statistics.median(run["kernel"] for run in runs)
        events = runs[0]["events"]
        durations = [duration for run in runs for duration in run["checkpoints"]]
        rate = events / cpu
        reference = flink.get(f"{query}/{parallelism}/{checkpoint}")
        ratio = f"{rate / reference:8.2f}" if reference else f"{'-':>8}"
        times = f"{statistics.mean(durations):.0f}/{max(durations)}" if durations else "-"
        print(f"{query:8} {parallelism:2} {checkpoint:>5} {events / 1e6:7.1f} {wall:7.2f} {cpu:7.2f} {kernel:7.2f} "
              f"{events / wall / 1e6:9.2f} {rate / 1e6:13.2f} {ratio} {max(run['rss'] for run in runs):8.0f} {len(durations) / len(runs):6.1f} {times:>11}")


if __name__ == "__main__":
    main()
