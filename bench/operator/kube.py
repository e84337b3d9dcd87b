"""A client of the Kubernetes API, as far as this benchmark needs one: JSON over connections that stay open, and watches.
Standard library only. Not for more than one thread each."""

import base64
import http.client
import json
import os
import ssl
import subprocess
import tempfile
from urllib.parse import urlencode, urlsplit


class Refused(Exception):
    def __init__(self, status, message):
        super().__init__(f"HTTP {status}: {message}")
        self.status = status


def _context(cluster, user):
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    if "client-certificate-data" in user:
        # The library takes files only.
        with tempfile.TemporaryDirectory() as directory:
            names = []
            for part in ("client-certificate-data", "client-key-data"):
                names.append(os.path.join(directory, part))
                with open(names[-1], "wb") as file:
                    file.write(base64.b64decode(user[part]))
            context.load_cert_chain(*names)
    return context


class Cluster:
    """Whom KUBECONFIG speaks of; `kubectl` reads it."""

    def __init__(self):
        config = json.loads(subprocess.check_output(
            ["kubectl", "config", "view", "--raw", "--minify", "--flatten", "-o", "json"]))
        self.cluster = config["clusters"][0]["cluster"]
        user = config["users"][0]["user"]
        self.context = _context(self.cluster, user)
        self.headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        self.address = urlsplit(self.cluster["server"])

    def client(self):
        return Client(self)


class Client:
    def __init__(self, cluster):
        self.cluster = cluster
        self.connection = None

    def _send(self, method, path, body, content_type, timeout):
        if self.connection is None:
            address = self.cluster.address
            self.connection = http.client.HTTPSConnection(
                address.hostname, address.port or 443, context=self.cluster.context, timeout=timeout)
        headers = dict(self.cluster.headers)
        if body is not None:
            body = json.dumps(body).encode()
            headers["Content-Type"] = content_type
        self.connection.request(method, path, body, headers)
        return self.connection.getresponse()

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def call(self, method, path, body=None, content_type="application/json", **query):
        if query:
            path += "?" + urlencode(query)
        # A connection that was idle for long may be closed by now: once more on a new one.
        for last in (False, True):
            try:
                answer = self._send(method, path, body, content_type, 60)
                text = answer.read()
                break
            except (OSError, http.client.HTTPException):
                self.close()
                if last:
                    raise
        if answer.status >= 300:
            raise Refused(answer.status, text[:500].decode(errors="replace"))
        return json.loads(text)

    def list(self, path):
        """Objects, and the resource version that a watch goes on from."""
        items, token = [], None
        while True:
            page = self.call("GET", path, limit=500, **({"continue": token} if token else {}))
            items.extend(page["items"])
            token = page["metadata"].get("continue")
            if not token:
                return items, page["metadata"]["resourceVersion"]

    def follow(self, path, seen):
        """Calls `seen(type, object)` for everything that is there and whatever happens to it, for ever."""
        while True:
            items, version = self.list(path)
            for item in items:
                seen("ADDED", item)
            items = None
            try:
                while version:
                    version = self._watch(path, version, seen)
            except (OSError, http.client.HTTPException):
                pass
            self.close()

    def _watch(self, path, version, seen):
        query = urlencode({"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version})
        answer = self._send("GET", f"{path}?{query}", None, None, None)
        self.connection.sock.settimeout(None)
        if answer.status >= 300:
            answer.read()
            return None
        while line := answer.readline():
            event = json.loads(line)
            if event["type"] == "ERROR":
                return None
            version = event["object"]["metadata"]["resourceVersion"]
            if event["type"] != "BOOKMARK":
                seen(event["type"], event["object"])
        return version
