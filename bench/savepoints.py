#!/usr/bin/env python3
"""Savepoint, restore and rescaling in place, beside Apache Flink 2.3 in the same run on the same machine.

Both engines run one job at parallelism 1: rows n = 0, 1, 2 ... at a fixed rate, key n mod KEYS, value n mod 1000, grouped
by key into a count and a sum, results discarded, state in memory, storage on the local disk. Flink runs in processes of its
own (JobManager with 1 GiB heap, TaskManager with 6 GiB and two slots, adaptive scheduler, hashmap state backend); ours is
`streamjob-engine run` with one worker of two slots. Both are driven by the same client through Flink's REST API. Both
sync their files to the disk before a savepoint counts, so a disk that is busy otherwise shows in both.

Measured by the client's clock, with polls every 10 ms, while rows keep coming:

  savepoint   from the request until COMPLETED
  restore     from the request to run the job until every task is RUNNING, which it is once its state is there.
              Flink: POST /jars/:id/run to a cluster that is up and warm. Ours: the start of the program itself, so that all
              processes and the planning of the SQL are in our time and are not in Flink's
  rescale     1 -> 2 in place, from PUT resource-requirements until every task is RUNNING at the new parallelism. Flink
              rescales after its next checkpoint: one is triggered at once, which is the soonest that it can be
  rescale 2 -> 1 likewise

Flink's two formats of savepoints are both measured, and the faster one counts.

Before anything is timed every key has state; each engine does all of it once (savepoints: twice) without being counted.
Before results are compared the state in the savepoints is read back (Flink's by its State Processor API, ours as Arrow
files): all keys, each with the sum that its count demands, counts that differ by two at most; after rescaling all keys again.
Otherwise no table is printed and the exit code is 1.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from flink.cluster import Cluster  # noqa: E402
from flink_rest import Job, Rest, wait  # noqa: E402

TIMEOUT = 600
VALUES = 1000
# Share of the machine that others may use while nothing is said to disturb.
QUIET = 0.1
MEASURES = ("savepoint", "restore", "rescale 1 -> 2", "rescale 2 -> 1")
JOB = """\
apiVersion: streamjob.dev/v1alpha1
kind: StreamJob
metadata:
  name: count-by-key
spec:
  parallelism: 1
  maxParallelism: 128
  workers:
    slots: 2
  checkpoint:
    interval: 12h
{restore}  program:
    sql: |
      CREATE TABLE numbers (n BIGINT) WITH (
        'connector' = 'datagen', 'rows-per-second' = '{rate}',
        'fields.n.kind' = 'sequence', 'fields.n.start' = '0', 'fields.n.end' = '9000000000000000000');
      CREATE TABLE sink (k BIGINT, n BIGINT, total BIGINT) WITH ('connector' = 'blackhole');
      INSERT INTO sink
      SELECT k, COUNT(*), SUM(v) FROM (SELECT CAST(MOD(n, {keys}) AS BIGINT) AS k, CAST(MOD(n, {values}) AS BIGINT) AS v
                                 FROM numbers) AS numbered
      GROUP BY k;
"""


class FlinkSide:
    name = "flink"
    formats = ("CANONICAL", "NATIVE")
    # A rescale waits for a checkpoint, which the user has to trigger, or to wait for.
    rescales_after_checkpoint = True

    def __init__(self, directory, keys, rate):
        self.directory, self.keys, self.rate = directory, keys, rate
        self.cluster = Cluster(directory)
        self.rest = Rest(self.cluster.address)
        self.job = None

    def start(self):
        self.cluster.start()
        wait("Flink's TaskManager", self.ready, 120, 0.2)
        self.jar = self.cluster.upload()

    def ready(self):
        self.cluster.check()
        return self.rest.get("/overview")["slots-available"] == 2

    def run(self, entry, arguments, savepoint=None):
        body = {"entryClass": f"dev.streamjob.bench.{entry}", "programArgsList": [str(a) for a in arguments]}
        if savepoint:
            body["savepointPath"] = savepoint
        return Job(self.rest, self.rest.call("POST", f"/jars/{self.jar}/run", body)["jobid"])

    def launch(self, savepoint=None):
        arguments = ["--keys", self.keys, "--rate", self.rate, "--parallelism", 1]
        self.job = self.run("CountByKey", arguments, savepoint)

    def end_job(self):
        self.job.cancel(TIMEOUT)

    def totals(self, savepoint):
        """Read by Flink's own State Processor API, on the cluster."""
        job = self.run("SumSavepoint", ["--savepoint", savepoint])
        wait("the sums of the savepoint", lambda: job.details()["state"] == "FINISHED", TIMEOUT, 0.2)
        found = self.rest.get(job.path("/accumulators"))["user-task-accumulators"]
        return {entry["name"]: int(entry["value"]) for entry in found}

    def stop(self):
        self.cluster.stop()


class OurSide:
    name = "streamjob"
    formats = ("CANONICAL",)
    rescales_after_checkpoint = False

    def __init__(self, directory, keys, rate, engine):
        self.directory, self.keys, self.rate, self.engine = directory, keys, rate, engine
        self.process, self.job, self.launches = None, None, 0

    def start(self):
        pass

    def launch(self, savepoint=None):
        self.launches += 1
        self.data = os.path.join(self.directory, f"data-{self.launches}")
        os.makedirs(self.data)
        path = os.path.join(self.directory, f"job-{self.launches}.yaml")
        restore = f"  restoreFrom:\n    path: {savepoint}\n" if savepoint else ""
        with open(path, "w") as file:
            file.write(JOB.format(keys=self.keys, rate=self.rate, values=VALUES, restore=restore))
        self.log = open(os.path.join(self.directory, f"run-{self.launches}.log"), "w")
        self.process = subprocess.Popen([self.engine, "run", path, "--data-dir", self.data],
                                        stdout=self.log, stderr=subprocess.STDOUT)
        self.job = wait("the engine's REST address", self.find_job, 60, 0.002)

    def find_job(self):
        if self.process.poll() is not None:
            with open(self.log.name) as file:
                raise SystemExit(f"streamjob-engine run ended at once:\n{file.read()[-4000:]}")
        try:
            with open(os.path.join(self.data, "run.json")) as file:
                rest = Rest(json.load(file)["rest"])
        except (OSError, ValueError, KeyError):
            return None
        jobs = rest.get("/jobs")["jobs"]
        return Job(rest, jobs[0]["id"]) if jobs else None

    def end_job(self):
        self.job.rest.call("PATCH", self.job.path("?mode=cancel"))
        self.process.wait(timeout=TIMEOUT)
        self.log.close()
        shutil.rmtree(self.data)

    def totals(self, savepoint):
        here = os.path.dirname(os.path.abspath(__file__))
        python = subprocess.run([os.path.join(here, "../e2e/parts/pyarrow.sh")], check=True, capture_output=True, text=True)
        command = [python.stdout.strip(), os.path.join(here, "savepoint_totals.py"), savepoint, str(VALUES)]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()


def check_totals(side, savepoint, balanced):
    """`balanced`: the job has always run at parallelism 1, so no key is more than a block of rows behind another."""
    found = side.totals(savepoint)
    if (found["keys"], found["maxKey"], found["wrongSums"]) != (side.keys, side.keys - 1, 0):
        raise SystemExit(f"{side.name}: wrong state in {savepoint}: {found}, of {side.keys} keys")
    if balanced and (found["minCount"] < 1 or found["maxCount"] - found["minCount"] > 2):
        raise SystemExit(f"{side.name}: rows are missing or there twice in {savepoint}: {found}")
    return found


class OtherLoad:
    """Share of the machine's CPU time that went to others than the measured processes and this one, while it is entered."""

    def __init__(self):
        self.share = 0.0

    def __enter__(self):
        self.before = self.read()
        return self

    def __exit__(self, *_):
        total, idle, own = (after - before for after, before in zip(self.read(), self.before))
        self.share = max(0.0, (total - idle - own) / total) if total else 0.0

    def read(self):
        with open("/proc/stat") as file:
            fields = [int(field) for field in file.readline().split()[1:9]]
        # Both engines' processes are children of this one.
        own = sum(cpu_ticks(pid) for pid in descendants(os.getpid()))
        return sum(fields), fields[3] + fields[4], own


def descendants(pid):
    found = [pid]
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += [one for child in file.read().split() for one in descendants(int(child))]
    except OSError:
        pass
    return found


def cpu_ticks(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
            return int(fields[11]) + int(fields[12])
    except (OSError, IndexError):
        return 0


class Measurements:
    """Seconds and other load of every counted repetition, by engine, keys and measure."""

    def __init__(self, patience):
        self.samples, self.patience = {}, patience

    def wait_until_quiet(self):
        """At most `patience` seconds."""
        end = time.monotonic() + self.patience
        while time.monotonic() < end:
            with OtherLoad() as load:
                time.sleep(0.5)
            if load.share < QUIET:
                break

    def timed(self, side, measure, counted, action):
        if counted:
            self.wait_until_quiet()
        with OtherLoad() as load:
            started = time.monotonic()
            result = action()
            seconds = time.monotonic() - started
        if counted:
            entry = self.samples.setdefault(side.name, {}).setdefault(str(side.keys), {})
            entry.setdefault(measure, []).append({"seconds": round(seconds, 4), "other_load": round(load.share, 3)})
        progress(f"{side.name} {side.keys} keys: {measure} {seconds:.3f} s, other load {load.share:.0%}"
                 + ("" if counted else " (not counted)"))
        return result

    def variants(self, engine, keys, measured):
        """Samples of a measure, by format where it has formats."""
        found = self.samples.get(engine, {}).get(str(keys), {})
        return {name: samples for name, samples in found.items() if name == measured or name.split(" ")[0] == measured}

    def best(self, engine, keys, measured):
        """The smallest of the variants' medians, seconds."""
        medians = [statistics.median(sample["seconds"] for sample in samples)
                   for samples in self.variants(engine, keys, measured).values()]
        return min(medians, default=None)

    def ratio(self, keys, measured):
        """Where there are several formats, against the one that is Flink's fastest."""
        theirs, ours = self.best("flink", keys, measured), self.best("streamjob", keys, measured)
        return theirs / ours if theirs and ours else None

    def ratios(self, all_keys):
        return {str(keys): {measured: self.ratio(keys, measured) for measured in MEASURES} for keys in all_keys}

    def describe(self, engine, keys, measured):
        texts = []
        for name, samples in self.variants(engine, keys, measured).items():
            variant = name[len(measured):].lower()
            seconds = "/".join(f"{sample['seconds']:.2f}" for sample in samples)
            texts.append(f"{engine}{variant} {seconds} ({max(sample['other_load'] for sample in samples):.0%})")
        return ", ".join(texts)


def progress(text):
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def measure(side, repeat, measurements):
    savepoints = os.path.join(side.directory, "savepoints")
    os.makedirs(savepoints)
    side.start()
    side.launch()
    # One round more, so that every row that this counts has gone through the state.
    wait("all keys", lambda: side.job.rows() > side.keys, TIMEOUT, 0.1)

    taken = {}
    # Twice unmeasured: a JVM needs that to compile what it runs.
    for repetition in range(-2, repeat):
        for form in side.formats:
            if form in taken:
                shutil.rmtree(taken[form])
            location = measurements.timed(side, f"savepoint {form}", repetition >= 0,
                                          lambda form=form: side.job.savepoint(savepoints, form, TIMEOUT))
            taken[form] = local_path(location)
    side.end_job()
    totals = {form: check_totals(side, savepoint, balanced=True) for form, savepoint in taken.items()}

    def restore(savepoint):
        side.launch(savepoint)
        wait("the restored job", lambda: side.job.running_at(1), TIMEOUT)

    for repetition in range(-1, repeat):
        for form, savepoint in taken.items():
            measurements.timed(side, f"restore {form}", repetition >= 0, lambda savepoint=savepoint: restore(savepoint))
            wait("the first rows after the restore", lambda: side.job.rows() > 0, TIMEOUT)
            side.end_job()
    side.launch(taken[side.formats[-1]])
    wait("the restored job", lambda: side.job.running_at(1), TIMEOUT)

    def rescale(parallelism):
        side.job.require(parallelism)
        if side.rescales_after_checkpoint:
            side.job.checkpoint()
        wait(f"the job at parallelism {parallelism}", lambda: side.job.running_at(parallelism), TIMEOUT)

    for repetition in range(-1, repeat):
        for before, after in ((1, 2), (2, 1)):
            measurements.timed(side, f"rescale {before} -> {after}", repetition >= 0, lambda after=after: rescale(after))
            wait("the first rows after rescaling", lambda: side.job.rows() > 0, TIMEOUT)
    last = local_path(side.job.savepoint(savepoints, side.formats[-1], TIMEOUT))
    side.end_job()
    check_totals(side, last, balanced=False)
    return {"totals": totals, "savepoint_bytes": {form: size(savepoint) for form, savepoint in taken.items()}}


def local_path(location):
    return location.removeprefix("file://").removeprefix("file:")


def size(directory):
    return sum(os.path.getsize(os.path.join(parent, name)) for parent, _, names in os.walk(directory) for name in names)


def report(measurements, all_keys):
    print(f"{'keys':>9}  {'measure':<14} {'Flink s':>8} {'ours s':>8} {'times faster':>13}  all samples, other load at most")
    for keys in all_keys:
        for measured in MEASURES:
            theirs, ours = measurements.best("flink", keys, measured), measurements.best("streamjob", keys, measured)
            ratio = measurements.ratio(keys, measured)
            ratio = f"{ratio:12.1f}x" if ratio else f"{'-':>13}"
            samples = "; ".join(measurements.describe(engine, keys, measured) for engine in ("flink", "streamjob")
                                if measurements.variants(engine, keys, measured))
            print(f"{keys:>9}  {measured:<14} {number(theirs)} {number(ours)} {ratio}  {samples}")


def number(value):
    return f"{value:8.3f}" if value is not None else f"{'-':>8}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="target/release/streamjob-engine")
    parser.add_argument("--keys", default="1000000,5000000")
    parser.add_argument("--rate", type=int, default=100_000, help="rows a second")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--patience", type=float, default=30,
                        help="seconds to wait for a quiet machine before each measurement")
    parser.add_argument("--only", choices=("flink", "streamjob"), help="measure one engine, without ratios")
    parser.add_argument("--json", help="write all samples into this file")
    parser.add_argument("--directory", help="where data and logs go, and stay; default: a temporary directory")
    arguments = parser.parse_args()
    # A run that is ended takes its processes along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    engine = os.path.abspath(arguments.engine)
    if arguments.only != "flink" and not os.path.exists(engine):
        sys.exit(f"no engine at {engine}: build it with make bench-savepoints, or name it with --engine")
    all_keys = [int(keys) for keys in arguments.keys.split(",")]
    if any(keys % VALUES for keys in all_keys):
        sys.exit(f"--keys: a number of keys has to be a multiple of {VALUES}, so that a key's count tells its sum")
    measurements, facts = Measurements(arguments.patience), {}
    base = os.path.abspath(arguments.directory) if arguments.directory else tempfile.mkdtemp(prefix="streamjob-bench-")
    try:
        for keys in all_keys:
            for name in ("flink", "streamjob"):
                if arguments.only and arguments.only != name:
                    continue
                directory = os.path.join(base, f"{name}-{keys}")
                shutil.rmtree(directory, ignore_errors=True)
                os.makedirs(directory)
                side = (FlinkSide(directory, keys, arguments.rate) if name == "flink"
                        else OurSide(directory, keys, arguments.rate, engine))
                try:
                    facts[f"{name} {keys}"] = measure(side, arguments.repeat, measurements)
                finally:
                    side.stop()
                if not arguments.directory:
                    shutil.rmtree(directory)
    finally:
        if not arguments.directory:
            shutil.rmtree(base, ignore_errors=True)
    report(measurements, all_keys)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"machine": {"cores": os.cpu_count(), "system": platform.platform()}, "rate": arguments.rate,
                       "repeat": arguments.repeat, "times_faster": measurements.ratios(all_keys),
                       "samples": measurements.samples, "facts": facts}, file, indent=1)


if __name__ == "__main__":
    main()
