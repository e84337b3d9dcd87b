"""A client of Flink's REST API, for whichever engine serves it. Knows paths and JSON; knows nothing of processes."""

import json
import time
import urllib.error
import urllib.request

POLL_SECONDS = 0.01


class RestError(Exception):
    pass


class Rest:
    def __init__(self, address):
        self.address = address.rstrip("/")

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data=data, method=method,
                                         headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                text = reply.read()
                return json.loads(text) if text else {}
        except urllib.error.HTTPError as error:
            raise RestError(f"{method} {path}: {error.code} {error.read().decode(errors='replace')[:2000]}") from error
        except (OSError, ValueError) as error:
            raise RestError(f"{method} {self.address}{path}: {error}") from error

    def get(self, path):
        return self.call("GET", path)


def wait(what, condition, timeout, poll=POLL_SECONDS):
    """What `condition` returns as soon as that is true; RestErrors count as false."""
    deadline = time.monotonic() + timeout
    last = ""
    while time.monotonic() < deadline:
        try:
            found = condition()
            last = ""
            if found:
                return found
        except RestError as error:
            last = f" (last answer: {error})"
        time.sleep(poll)
    raise SystemExit(f"waited {timeout} s for {what}{last}")


class Job:
    """One job behind a REST address."""

    def __init__(self, rest, job):
        self.rest, self.id = rest, job

    def path(self, rest_of_path=""):
        return f"/jobs/{self.id}{rest_of_path}"

    def details(self):
        details = self.rest.get(self.path())
        if details["state"] in ("FAILED", "FAILING"):
            raise SystemExit(f"job {self.id} at {self.rest.address} failed: {self.rest.get(self.path('/exceptions'))}")
        return details

    def running_at(self, parallelism):
        """Whether every vertex has that parallelism and all of its tasks run, which they do once their state is restored."""
        details = self.details()
        return details["state"] == "RUNNING" and all(
            vertex["parallelism"] == parallelism and vertex["tasks"].get("RUNNING", 0) == parallelism
            for vertex in details["vertices"])

    def rows(self):
        """Rows that the counting vertex, the last one, has read since its tasks started."""
        return self.details()["vertices"][-1]["metrics"]["read-records"]

    def savepoint(self, directory, form, timeout):
        """Triggers one and waits for it; its location."""
        trigger = self.rest.call("POST", self.path("/savepoints"),
                                 {"target-directory": directory, "cancel-job": False, "formatType": form})
        path = self.path(f"/savepoints/{trigger['request-id']}")

        def completed():
            answer = self.rest.get(path)
            return answer if answer["status"]["id"] == "COMPLETED" else None

        operation = wait("the savepoint", completed, timeout)["operation"]
        if not operation.get("location"):
            raise SystemExit(f"the savepoint of job {self.id} failed: {operation}")
        return operation["location"]

    def checkpoint(self):
        """Triggers a checkpoint and does not wait for it."""
        self.rest.call("POST", self.path("/checkpoints"), {"checkpointType": "FULL"})

    def require(self, parallelism):
        vertices = [vertex["id"] for vertex in self.details()["vertices"]]
        bounds = {"parallelism": {"lowerBound": 1, "upperBound": parallelism}}
        self.rest.call("PUT", self.path("/resource-requirements"), {vertex: bounds for vertex in vertices})

    def cancel(self, timeout):
        self.rest.call("PATCH", self.path("?mode=cancel"))
        wait("the end of the job", lambda: self.rest.get(self.path())["state"] == "CANCELED", timeout)
