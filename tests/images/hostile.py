"""Images that are broken or mean harm. Each must give one clear error and leave nothing behind."""

import gzip
import hashlib
import json

from oci import MEDIA, Tar

BOMB_MIB = 1024


def add(layout, base, path):
    config = {"Cmd": ["true"], "Env": [path]}

    def evil(name, tar, compression="gzip"):
        layout.image(f"{name}:latest", [base, (tar.bytes(), compression)], config)

    # Climbing out of the root, each by another way.
    evil("climb-dotdot", Tar().file("../../../../escaped", "evil"))
    evil("climb-inside", Tar().file("etc/../../../escaped", "evil"))
    evil("climb-hardlink", Tar().hardlink("shadow", "../../../../etc/shadow"))
    evil("climb-whiteout", Tar().file("../../.wh.etc"))
    # These stay inside: an absolute name, and symlinks that lead out, resolve in the image's root.
    inside = Tar().file("/absolute", "inside").symlink("out", "../../../..").file("out/via-symlink", "inside")
    evil("stays-inside", inside)

    # Compresses to a thousandth, and does not consist of zeros, which would be stored as holes.
    block = bytes(range(1, 255)) * 4128
    bomb = Tar()
    for number in range(BOMB_MIB // 64):
        bomb.file(f"bomb/{number}", (block * 65)[: 64 << 20])
    evil("bomb", bomb)

    good, diff_id = layout.layer(Tar().file("payload", bytes(range(256)) * 4096).bytes(), "gzip")
    with open(f"{layout.path}/blobs/sha256/{good['digest'][7:]}", "rb") as file:
        data = file.read()

    def broken(name, data):
        layer = layout.blob(data, MEDIA + "layer.v1.tar+gzip")
        layout.image(f"{name}:latest", [base, (layer, diff_id)], config)

    broken("truncated", data[: len(data) // 2])
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0x10
    broken("flipped", bytes(flipped))
    broken("not-a-tar", gzip.compress(b"this is no tar file at all" * 100, mtime=0))
    wrong = "sha256:" + hashlib.sha256(b"something else").hexdigest()
    layout.image("wrong-diff-id:latest", [base, (good, wrong)], config)

    # Manifests that no registry client should fall for.
    def manifest(name, layers, config_blob=None):
        diff_ids = [wrong] * len(layers)
        document = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        body = {
            "schemaVersion": 2,
            "mediaType": MEDIA + "manifest.v1+json",
            "config": config_blob or layout.blob(json.dumps(document).encode(), MEDIA + "config.v1+json"),
            "layers": layers,
        }
        descriptor = layout.blob(json.dumps(body).encode(), body["mediaType"])
        layout.manifests.append(descriptor | {"annotations": {"org.opencontainers.image.ref.name": f"{name}:latest"}})

    manifest("absurd-size", [good | {"size": 1 << 62}])
    manifest("wrong-size", [good | {"size": good["size"] + 1}])
    manifest("no-config", [good], {"mediaType": MEDIA + "config.v1+json", "digest": wrong, "size": 100})
    layout.image("arm-only:latest", [base], config, architecture="arm64", as_index=True)

    # Well made, but not to be run as it is.
    layout.image("entry-missing:latest", [base], {"Entrypoint": ["/no/such/program"], "Env": [path]})
    layout.image("entry-not-executable:latest", [base], {"Entrypoint": ["/etc/passwd"], "Env": [path]})
    layout.image("user-missing:latest", [base], config | {"User": "nosuchuser"})
    layout.image("no-command:latest", [base], {"Env": [path]})
