#!/usr/bin/env python3
"""Writes a container image as one file in the format of `docker save`, which docker, podman, kind and containerd load.

It knows nothing of what is in the image: layers are tar files. The same input gives the same bytes.
"""

import argparse
import hashlib
import io
import json
import os
import tarfile


def header(name: str, size: int) -> tarfile.TarInfo:
    """Header of a file that belongs to root and has no date."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    return info


def digest(path: str) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    sha = hashlib.sha256()
    with open(path, "rb") as content:
        while chunk := content.read(1 << 20):
            sha.update(chunk)
    return sha.hexdigest()


def main() -> None:
    """Reads the arguments and writes the image."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", required=True, help="file to write")
    parser.add_argument("--name", required=True, help="full name with tag")
    parser.add_argument("--layer", required=True, action="append", help="tar file, repeatable, lowest first")
    parser.add_argument("--user", required=True, help="numeric user and group, 65532:65532")
    parser.add_argument("--entrypoint", required=True, action="append", help="repeatable: program, then fixed arguments")
    arguments = parser.parse_args()

    digests = [digest(layer) for layer in arguments.layer]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {
                "User": arguments.user,
                "Entrypoint": arguments.entrypoint,
                "Env": ["PATH=/usr/bin:/bin"],
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}" for layer in digests]},
            "history": [{"created": "1970-01-01T00:00:00Z"} for _ in digests],
        },
        sort_keys=True,
    ).encode()
    names = [f"{layer}/layer.tar" for layer in digests]
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [arguments.name], "Layers": names}]).encode()
    with tarfile.open(arguments.output, "w") as image:
        for name, path in zip(names, arguments.layer):
            with open(path, "rb") as content:
                image.addfile(header(name, os.path.getsize(path)), content)
        for name, content in ((config_name, config), ("manifest.json", manifest)):
            image.addfile(header(name, len(content)), io.BytesIO(content))


if __name__ == "__main__":
    main()
