"""Writes OCI image layouts: layers from tar entries, configs, manifests, indexes."""

import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile

EPOCH = 1_700_000_000
MEDIA = "application/vnd.oci.image."


class Layout:
    """An OCI image layout directory with one blob store for all images in it."""

    def __init__(self, path):
        self.path = path
        self.manifests = []
        os.makedirs(f"{path}/blobs/sha256", exist_ok=True)
        with open(f"{path}/oci-layout", "w") as file:
            json.dump({"imageLayoutVersion": "1.0.0"}, file)

    def blob(self, data, media_type):
        """Stores bytes and returns their descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        with open(f"{self.path}/blobs/sha256/{digest}", "wb") as file:
            file.write(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def image(self, name, layers, config=None, architecture="amd64", as_index=False):
        """Stores an image. A layer is (tar bytes, compression), or a ready (descriptor, diff_id) pair."""
        descriptors, diff_ids = [], []
        for layer in layers:
            if isinstance(layer[0], dict):
                descriptor, diff_id = layer
            else:
                descriptor, diff_id = self.layer(*layer)
            descriptors.append(descriptor)
            diff_ids.append(diff_id)
        document = {
            "created": "2024-01-01T00:00:00Z",
            "architecture": architecture,
            "os": "linux",
            "config": config or {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        config_blob = self.blob(json.dumps(document).encode(), MEDIA + "config.v1+json")
        manifest = {
            "schemaVersion": 2,
            "mediaType": MEDIA + "manifest.v1+json",
            "config": config_blob,
            "layers": descriptors,
        }
        descriptor = self.blob(json.dumps(manifest).encode(), manifest["mediaType"])
        if as_index:
            descriptor["platform"] = {"architecture": architecture, "os": "linux"}
            index = {"schemaVersion": 2, "mediaType": MEDIA + "index.v1+json", "manifests": [descriptor]}
            descriptor = self.blob(json.dumps(index).encode(), index["mediaType"])
        self.manifests.append(descriptor | {"annotations": {"org.opencontainers.image.ref.name": name}})

    def layer(self, tar, compression):
        """Compresses and stores a layer; returns its descriptor and diff id."""
        diff_id = "sha256:" + hashlib.sha256(tar).hexdigest()
        if compression == "gzip":
            data, suffix = gzip.compress(tar, 6, mtime=0), "+gzip"
        elif compression == "zstd":
            data, suffix = subprocess.run(["zstd", "-q", "-3"], input=tar, stdout=subprocess.PIPE, check=True).stdout, "+zstd"
        else:
            data, suffix = tar, ""
        return self.blob(data, MEDIA + "layer.v1.tar" + suffix), diff_id

    def finish(self):
        with open(f"{self.path}/index.json", "w") as file:
            json.dump({"schemaVersion": 2, "manifests": self.manifests}, file, indent=1)


class Tar:
    """Builds a tar entry by entry, with what people do to tars: odd names, ids, xattrs, devices."""

    def __init__(self):
        self.buffer = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.buffer, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, name, kind=tarfile.REGTYPE, data=b"", mode=0o644, uid=0, gid=0, mtime=EPOCH, link="", device=(0, 0), pax=None):
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.uid, info.gid, info.mtime, info.linkname = kind, mode, uid, gid, mtime, link
        info.devmajor, info.devminor = device
        info.size = len(data)
        info.pax_headers = pax or {}
        self.tar.addfile(info, io.BytesIO(data))
        return self

    def file(self, name, text="", **more):
        return self.add(name, data=text if isinstance(text, bytes) else text.encode(), **more)

    def dir(self, name, mode=0o755, **more):
        return self.add(name, kind=tarfile.DIRTYPE, mode=mode, **more)

    def symlink(self, name, target, **more):
        return self.add(name, kind=tarfile.SYMTYPE, link=target, mode=0o777, **more)

    def hardlink(self, name, target, **more):
        return self.add(name, kind=tarfile.LNKTYPE, link=target, **more)

    def bytes(self):
        self.tar.close()
        return self.buffer.getvalue()
