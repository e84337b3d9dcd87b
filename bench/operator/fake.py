"""What the operator's benchmark has instead of nodes and engines. For measuring only: nothing here is a test of what is right.

- Nodes that are Ready, with leases that are renewed.
- A kubelet for all of them: a pod that was bound is said to run, then to be ready, with an address of its own; one that is
  deleted is gone soon after.
- One engine for all coordinators: the addresses of pods are local ones in the cluster's network namespace, so one listener
  sees by the destination which coordinator was meant. It answers as `docs/rest.md` says, as far as the operator asks: the
  status with long polls, standby and activation, checkpoints that go on.
- A witness: who applied, created and reported what, and when (`GET /` at the witness' port).
"""

import argparse
import asyncio
import json
import queue
import random
import socket
import sys
import threading
import time
from datetime import datetime, timezone

from kube import Cluster, Refused

PODS = "10.128.0.0/16"
STREAMJOBS = "/apis/streamjob.dev/v1alpha1/streamjobs"
JOB, REVISION, COMPONENT = "streamjob.dev/job", "streamjob.dev/revision", "app.kubernetes.io/component"
RENEW_SECONDS = 3
SPEAK_SECONDS = 10


def now_text():
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def complain(what, error):
    print(f"fake: {what}: {error}", file=sys.stderr, flush=True)


class Writers:
    """Threads that do what they are told, each with a connection of its own."""

    def __init__(self, cluster, number):
        self.tasks = queue.SimpleQueue()
        for _ in range(number):
            threading.Thread(target=self._work, args=(cluster.client(),), daemon=True).start()

    def put(self, task):
        self.tasks.put(task)

    def _work(self, client):
        while True:
            task = self.tasks.get()
            try:
                task(client)
            except Refused as error:
                # Deleted in between, or another object of that name by now.
                if error.status not in (404, 409):
                    complain("refused", error)
            except Exception as error:  # noqa: BLE001: one pod less, seen in the result
                complain("failed", error)


class Later:
    """Puts tasks after a while; one thread."""

    def __init__(self, loop, writers):
        self.loop, self.writers = loop, writers

    def put(self, seconds, task):
        self.loop.call_soon_threadsafe(self.loop.call_later, seconds, self.writers.put, task)


class Nodes:
    def __init__(self, cluster, number):
        self.client = cluster.client()
        self.names = [f"fake-{index}" for index in range(number)]

    def register(self):
        for name in self.names:
            self.client.call("POST", "/api/v1/nodes", {
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
            })
            self.say_ready(name)
            self.client.call("POST", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", {
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": name},
                "spec": {"holderIdentity": name, "leaseDurationSeconds": 10},
            })

    def say_ready(self, name):
        many = {"cpu": "10000", "memory": "100Ti", "ephemeral-storage": "100Ti", "pods": "10000"}
        status = {"status": {
            "capacity": many, "allocatable": many,
            "addresses": [{"type": "InternalIP", "address": "172.30.0.1"}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "Fake", "message": "is not there",
                            "lastHeartbeatTime": now_text(), "lastTransitionTime": now_text()}],
            "nodeInfo": {"kubeletVersion": "v1.34.4", "osImage": "fake", "operatingSystem": "linux",
                         "architecture": "amd64", "bootID": "", "machineID": "", "systemUUID": "",
                         "kernelVersion": "", "containerRuntimeVersion": "fake://1", "kubeProxyVersion": ""},
        }}
        self.client.call("PATCH", f"/api/v1/nodes/{name}/status", status,
                         content_type="application/strategic-merge-patch+json")

    def renew(self):
        spoke = time.time()
        while True:
            # Where the machine is too busy for a lease to be renewed in time, a node is given up, and has to say that it is back.
            speaks = time.time() >= spoke + SPEAK_SECONDS
            if speaks:
                spoke = time.time()
            stamp = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            for name in self.names:
                try:
                    self.client.call(
                        "PATCH", f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}",
                        {"spec": {"renewTime": stamp}}, content_type="application/merge-patch+json")
                    if speaks:
                        self.say_ready(name)
                except (OSError, Refused) as error:
                    complain("lease", error)
            time.sleep(RENEW_SECONDS)


class Witness:
    """Unix times by name."""

    def __init__(self):
        self.created = {}
        self.running = {}
        self.ready_jobs = {}
        self.states = {}

    def text(self):
        return json.dumps({
            "created": dict(self.created), "running": dict(self.running), "ready": dict(self.ready_jobs),
            "states": dict(self.states),
        }).encode()

    def saw_job(self, kind, job):
        name = f"{job['metadata']['namespace']}/{job['metadata']['name']}"
        if kind == "DELETED":
            self.ready_jobs.pop(name, None)
            self.states.pop(name, None)
            return
        status = job.get("status") or {}
        self.states[name] = status.get("state", "")
        ready = any(condition["type"] == "Ready" and condition["status"] == "True"
                    for condition in status.get("conditions", ()))
        if ready:
            self.ready_jobs.setdefault(name, time.time())
        else:
            self.ready_jobs.pop(name, None)


class Kubelet:
    def __init__(self, nodes, later, engines, witness, loop):
        self.nodes = set(nodes.names)
        self.later, self.engines, self.witness, self.loop = later, engines, witness, loop
        self.addresses = {}
        # By uid, what says that the pod is ready.
        self.ready = {}
        self.ending = set()
        self.next = 0

    def saw(self, kind, pod):
        metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status", {})
        uid, name = metadata["uid"], f"{metadata['namespace']}/{metadata['name']}"
        if kind == "DELETED":
            self.ending.discard(uid)
            self.ready.pop(uid, None)
            address = self.addresses.pop(uid, None)
            if address:
                self.loop.call_soon_threadsafe(self.engines.gone, address)
            return
        self.witness.created.setdefault(name, time.time())
        if spec.get("nodeName") not in self.nodes:
            return
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        if "deletionTimestamp" in metadata:
            if uid not in self.ending:
                self.ending.add(uid)
                self.later.put(0.2, lambda client: client.call(
                    "DELETE", path, {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}))
            return
        if uid in self.addresses:
            unready = any(condition["type"] == "Ready" and condition["status"] != "True"
                          for condition in status.get("conditions", ()))
            if unready and uid in self.ready:
                # Its node was given up in between.
                self.later.put(0.3, self.ready[uid])
            return
        if status.get("phase") not in (None, "Pending"):
            return
        address = self.address()
        self.addresses[uid] = address
        containers = [container["name"] for container in spec["containers"]]
        image = spec["containers"][0]["image"]

        def started(client):
            client.call("PATCH", path + "/status", self.status(uid, address, containers, image, False),
                        content_type="application/strategic-merge-patch+json")
            self.loop.call_soon_threadsafe(self.engines.came, address, pod)
            self.later.put(0.3, ready)

        def ready(client):
            client.call("PATCH", path + "/status", self.status(uid, address, containers, image, True),
                        content_type="application/strategic-merge-patch+json")
            self.witness.running.setdefault(name, time.time())
            self.ready[uid] = ready

        self.later.put(0.3, started)

    def address(self):
        """Not used soon again: none of the network's first and last address of a /24."""
        while True:
            self.next = self.next % 65000 + 1
            address = f"10.128.{self.next >> 8}.{self.next & 255}"
            if self.next & 255 not in (0, 255) and address not in self.engines.pods:
                return address

    @staticmethod
    def status(uid, address, containers, image, ready):
        truth, stamp = "True" if ready else "False", now_text()
        conditions = [{"type": kind, "status": status, "lastTransitionTime": stamp} for kind, status in (
            ("PodReadyToStartContainers", "True"), ("Initialized", "True"), ("Ready", truth),
            ("ContainersReady", truth), ("PodScheduled", "True"))]
        return {"metadata": {"uid": uid}, "status": {
            "phase": "Running", "hostIP": "172.30.0.1", "hostIPs": [{"ip": "172.30.0.1"}], "podIP": address,
            "podIPs": [{"ip": address}], "startTime": stamp, "conditions": conditions,
            "containerStatuses": [{
                "name": container, "image": image, "imageID": f"{image}@sha256:{'0' * 64}", "ready": ready,
                "started": True, "restartCount": 0, "containerID": f"fake://{uid}",
                "state": {"running": {"startedAt": stamp}},
            } for container in containers],
        }}


def argument(pod, name, default):
    arguments = pod["spec"]["containers"][0].get("args", [])
    return arguments[arguments.index(name) + 1] if name in arguments else default


class Engines:
    """State of all jobs. Touched in the event loop only."""

    def __init__(self, loop, interval):
        self.loop, self.interval = loop, interval
        self.pods = {}
        self.coordinators = {}
        # What stands in the journal of a job: the newest claim, and the newest checkpoint.
        self.journals = {}
        self.slots = {}

    def came(self, address, pod):
        labels = pod["metadata"].get("labels", {})
        if JOB not in labels or REVISION not in labels:
            self.pods[address] = None
            return
        job = (pod["metadata"]["namespace"], labels[JOB])
        revision = int(labels[REVISION])
        if labels.get(COMPONENT) == "coordinator":
            coordinator = Coordinator(self, job, revision, pod)
            self.pods[address] = self.coordinators[job, revision] = coordinator
            coordinator.start()
        else:
            self.pods[address] = (job, revision)
            slots = self.slots.setdefault((job, revision), {})
            slots[address] = int(argument(pod, "--slots", 1))
            if coordinator := self.coordinators.get((job, revision)):
                coordinator.changed()

    def gone(self, address):
        pod = self.pods.pop(address, None)
        if isinstance(pod, Coordinator):
            pod.end()
            if self.coordinators.get((pod.job, pod.revision)) is pod:
                del self.coordinators[pod.job, pod.revision]
        elif pod:
            self.slots.get(pod, {}).pop(address, None)
            if coordinator := self.coordinators.get(pod):
                coordinator.changed()


class Coordinator:
    def __init__(self, engines, job, revision, pod):
        self.engines, self.job, self.revision = engines, job, revision
        self.job_id = argument(pod, "--job-id", "0" * 32)
        self.max_parallelism = int(argument(pod, "--max-parallelism", 128))
        self.incarnation = random.getrandbits(53)
        self.version = int(time.time() * 1000)
        self.state, self.running_since = "STANDBY", None
        self.completed, self.last_completed_at = 0, None
        self.waiting = []
        self.timer = None
        self.journal = engines.journals.setdefault(job, {"claim": 0, "checkpoint": 0})

    def start(self):
        if self.journal["claim"] == self.revision:
            self.activate()

    def end(self):
        if self.timer:
            self.timer.cancel()

    def activate(self):
        if self.state != "STANDBY":
            return
        self.journal["claim"] = self.revision
        self.state = "RUNNING"
        self.changed()
        self.timer = self.engines.loop.call_later(0.05, self.runs)

    def runs(self):
        self.running_since = int(time.time() * 1000)
        self.changed()
        # Not all jobs at once.
        self.timer = self.engines.loop.call_later(random.random() * self.engines.interval, self.checkpoint)

    def checkpoint(self):
        self.journal["checkpoint"] += 1
        self.completed += 1
        self.last_completed_at = int(time.time() * 1000)
        self.changed()
        self.timer = self.engines.loop.call_later(self.engines.interval, self.checkpoint)

    def changed(self):
        self.version += 1
        waiting, self.waiting = self.waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, seconds):
        waiter = self.engines.loop.create_future()
        self.waiting.append(waiter)
        try:
            await asyncio.wait_for(waiter, seconds)
        except asyncio.TimeoutError:
            if waiter in self.waiting:
                self.waiting.remove(waiter)

    def status(self):
        slots = self.engines.slots.get((self.job, self.revision), {})
        needed, have, newest = 2, sum(slots.values()), self.journal["checkpoint"]
        path = f"/streamjob/state/{self.job[0]}.{self.job[1]}/{self.job_id}/chk-{newest}" if newest else None
        standby = self.state == "STANDBY"
        return {
            "version": self.version, "incarnation": self.incarnation, "job_id": self.job_id, "name": self.job[1],
            "revision": self.revision, "state": self.state, "reason": None,
            "standby": {"ready": have >= needed, "checked": True, "slots": have, "needed": needed} if standby else None,
            "parallelism": needed, "max_parallelism": self.max_parallelism, "guarantee": "exactly-once", "restarts": 0,
            "running_since": self.running_since,
            "restore_point": {"checkpoint": newest, "path": path} if newest else None,
            "restored_from_path": None, "restore_duration_ms": 8 if self.running_since else None,
            # As run.py writes the jobs: nothing is to be changed.
            "checkpoint_config": {
                "interval_ms": int(self.engines.interval * 1000), "mode": "ExactlyOnce", "timeout_ms": 600000,
                "min_pause_ms": 0, "max_concurrent": 1, "tolerable_failures": 0, "retention": "RetainOnCancellation",
                "retained": 1, "incremental": False, "compression": "None"},
            "restart_strategy": {"FixedDelay": {"attempts": 10, "delay_ms": 1000}},
            "checkpoints": {
                "completed": self.completed, "failed": 0, "in_progress": 0, "last_id": newest or None,
                "last_path": path, "last_duration_ms": 25, "last_bytes_new": 4096, "last_bytes_total": 65536,
                "last_completed_at": self.last_completed_at, "last_failure": None, "last_failed_at": None,
                "restored_from": None},
            "latest_savepoint": None,
            "operators": [
                {"uid": uid, "name": uid, "parallelism": 2, "records_in": 1000 * newest, "records_out": 1000 * newest,
                 "records_skipped": 0, "late_records_dropped": 0, "watermark": None}
                for uid in ("source", "aggregate", "sink")],
            "workers": [
                {"id": f"worker-{index}", "pid": 1, "slots": number, "data_addr": f"{address}:41489",
                 "metrics_addr": f"{address}:8082"} for index, (address, number) in enumerate(slots.items())],
        }


class Server:
    def __init__(self, engines, witness):
        self.engines, self.witness = engines, witness

    async def serve(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = head[0].split(" ")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
                if length := int(headers.get("content-length", 0)):
                    await reader.readexactly(length)
                address = writer.get_extra_info("sockname")[0]
                code, body = await self.answer(address, method, target)
                if code is None:
                    break
                writer.write(b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                             % (code, len(body)) + body)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def answer(self, address, method, target):
        path, _, query = target.partition("?")
        if address == "127.0.0.1":
            return 200, self.witness.text()
        # Nobody is there: the connection is closed.
        if address not in self.engines.pods:
            return None, b""
        if path in ("/readyz", "/healthz"):
            return 200, b"{}"
        coordinator = self.engines.pods[address]
        if not isinstance(coordinator, Coordinator):
            return 404, b'{"errors":["not found"]}'
        if method == "GET" and path == "/v1/status":
            wanted = dict(part.split("=") for part in query.split("&") if "=" in part)
            if int(wanted.get("after", -1)) == coordinator.version:
                await coordinator.wait(min(int(wanted.get("wait", 0)), 30000) / 1000)
            # Its pod may have gone meanwhile.
            if self.engines.pods.get(address) is not coordinator:
                return None, b""
            return 200, json.dumps(coordinator.status()).encode()
        if method == "POST" and path == "/v1/activate":
            was = coordinator.state
            coordinator.activate()
            return (202 if was == "STANDBY" else 200), json.dumps({"state": was}).encode()
        return 404, b'{"errors":["not found"]}'


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--checkpoint-interval", type=float, default=10, help="seconds")
    parser.add_argument("--witness-port", type=int, default=8090)
    options = parser.parse_args()
    loop = asyncio.get_running_loop()
    cluster, witness = Cluster(), Witness()
    engines = Engines(loop, options.checkpoint_interval)
    later = Later(loop, Writers(cluster, 6))
    nodes = Nodes(cluster, options.nodes)
    nodes.register()
    kubelet = Kubelet(nodes, later, engines, witness, loop)
    server = Server(engines, witness)
    # A burst of coordinators is asked at once.
    await asyncio.start_server(server.serve, "0.0.0.0", 8081, family=socket.AF_INET, backlog=4096)
    await asyncio.start_server(server.serve, "127.0.0.1", options.witness_port)
    threading.Thread(target=nodes.renew, daemon=True).start()
    for path, seen in (("/api/v1/pods", kubelet.saw), (STREAMJOBS, witness.saw_job)):
        threading.Thread(target=cluster.client().follow, args=(path, seen), daemon=True).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
