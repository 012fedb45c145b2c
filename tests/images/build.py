#!/usr/bin/env python3
"""Builds the images that demo and tests use, from Debian's packages, into an OCI image layout.

usage: build.py LAYOUT BUSYBOX PYTHON_ROOT_TAR REDIS_ROOT_TAR
"""

import os
import subprocess
import sys
import tarfile

import hostile
import layers
from oci import Layout, Tar

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def busybox_layer(busybox):
    """A root file system around one static binary, its applets hard links as in the well-known image."""
    with open(busybox, "rb") as file:
        binary = file.read()
    tar = Tar()
    for name in ["bin", "etc", "home", "proc", "sys", "dev", "usr", "usr/bin", "var"]:
        tar.dir(name)
    tar.dir("tmp", mode=0o1777).dir("root", mode=0o700).dir("home/app", uid=1000, gid=1000)
    tar.file("bin/busybox", binary, mode=0o755)
    listed = subprocess.run([busybox, "--list"], stdout=subprocess.PIPE, check=True, text=True).stdout.split()
    for applet in listed:
        if applet != "busybox":
            tar.hardlink(f"bin/{applet}", "bin/busybox", mode=0o755)
    tar.symlink("usr/bin/env", "../../bin/env")
    tar.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:App:/home/app:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
    tar.file("etc/group", "root:x:0:\napp:x:1000:\nextra:x:2000:app\nmore:x:2001:app\nnogroup:x:65534:\n")
    return tar.bytes()


def ids_of(root_tar, user):
    """A user's ids, from the /etc/passwd in a root file system's tar."""
    with tarfile.open(root_tar) as tar:
        passwd = tar.extractfile("./etc/passwd").read().decode()
    fields = next(line.split(":") for line in passwd.splitlines() if line.startswith(f"{user}:"))
    return int(fields[2]), int(fields[3])


def read(path):
    with open(path, "rb") as file:
        return file.read()


def main():
    path, busybox, python_root, redis_root = sys.argv[1:]
    os.makedirs(path, exist_ok=True)
    layout = Layout(path)
    base = layout.layer(busybox_layer(busybox), "gzip")

    layout.image("busybox:latest", [base], {"Cmd": ["sh"], "Env": [PATH]}, as_index=True)
    layout.image("debian-python:latest", [(read(python_root), "gzip")], {"Cmd": ["python3"], "Env": [PATH, "LANG=C.UTF-8"]})
    uid, gid = ids_of(redis_root, "redis")
    data = Tar().dir("data", uid=uid, gid=gid).bytes()
    layout.image(
        "redis:latest",
        [(read(redis_root), "gzip"), (data, "gzip")],
        {
            "Entrypoint": ["redis-server"],
            "Cmd": ["--save", "", "--dir", "/data"],
            "Env": [PATH, "REDIS_IMAGE=husk"],
            "User": "redis",
            "WorkingDir": "/data",
            "Volumes": {"/data": {}},
            "ExposedPorts": {"6379/tcp": {}},
            "StopSignal": "SIGINT",
        },
    )
    layers.add(layout, busybox, base, PATH)
    hostile.add(layout, base, PATH)
    layout.finish()


if __name__ == "__main__":
    main()
