#!/usr/bin/env python3
"""Pushes every image of an OCI layout to a registry, byte for byte (OCI distribution specification, "Pushing").

usage: push.py LAYOUT http://HOST:PORT

Manifests that a registry refuses, such as those with absurd sizes, are reported and left out.
"""

import json
import sys
import urllib.error
import urllib.parse
import urllib.request


def request(method, url, data=None, content_type="application/octet-stream"):
    headers = {"Content-Type": content_type} if data is not None else {}
    return urllib.request.urlopen(urllib.request.Request(url, data=data, method=method, headers=headers))


def exists(url):
    try:
        request("HEAD", url)
        return True
    except urllib.error.HTTPError:
        return False


def push_blob(registry, repository, digest, data):
    if exists(f"{registry}/v2/{repository}/blobs/{digest}"):
        return
    upload = request("POST", f"{registry}/v2/{repository}/blobs/uploads/", b"").headers["Location"]
    upload = urllib.parse.urljoin(registry, upload)
    separator = "&" if "?" in upload else "?"
    request("PUT", f"{upload}{separator}digest={urllib.parse.quote(digest)}", data)


def push_manifest(layout, registry, repository, descriptor, reference):
    def read(digest):
        with open(f"{layout}/blobs/sha256/{digest.split(':')[1]}", "rb") as file:
            return file.read()

    body = read(descriptor["digest"])
    document = json.loads(body)
    for child in document.get("manifests", []):
        push_manifest(layout, registry, repository, child, child["digest"])
    for blob in [document.get("config"), *document.get("layers", [])]:
        if blob:
            try:
                push_blob(registry, repository, blob["digest"], read(blob["digest"]))
            except FileNotFoundError:
                pass
    request("PUT", f"{registry}/v2/{repository}/manifests/{reference}", body, descriptor["mediaType"])


def main():
    layout, registry = sys.argv[1:]
    with open(f"{layout}/index.json") as file:
        manifests = json.load(file)["manifests"]
    for descriptor in manifests:
        name = descriptor["annotations"]["org.opencontainers.image.ref.name"]
        repository, tag = name.split(":")
        try:
            push_manifest(layout, registry, repository, descriptor, tag)
        except urllib.error.HTTPError as error:
            print(f"registry refuses {name}: {error.code}", file=sys.stderr)


if __name__ == "__main__":
    main()
