"""An image archive as ``docker save`` writes it: uncompressed layers of many files, the same every time."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
from pathlib import Path

LAYERS = 5
FILES = 6000
"""In each layer."""
SIZE = 400 * 1024 * 1024
"""Bytes of all files together."""
_PER_DIRECTORY = 60
_TIME = 1_700_000_000


def write(path: Path, *, repository: str, size: int = SIZE) -> None:
    """Write the archive of ``repository:latest``, with files of ``size`` bytes together, to ``path``."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        diff_ids, names = [], []
        for number in range(LAYERS):
            layer = _layer(number, size)
            diff_ids.append(f"sha256:{hashlib.sha256(layer).hexdigest()}")
            names.append(f"{diff_ids[-1].removeprefix('sha256:')}/layer.tar")
            _add(archive, names[-1], layer)
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "created": "2023-11-14T22:13:20Z",
                "config": {"Cmd": ["/bin/true"]},
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
                "history": [{"created_by": f"layer {n}"} for n in range(LAYERS)],
            }
        ).encode()
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        _add(archive, name, config)
        manifest = [{"Config": name, "RepoTags": [f"{repository}:latest"], "Layers": names}]
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def _layer(number: int, size: int) -> bytes:
    """Files of random sizes around the mean. Half of each is random and half is text, so that it
    compresses to about half, as programs and libraries do."""
    dice = random.Random(number)
    mean = size // LAYERS // FILES
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as layer:
        for n in range(FILES):
            if n % _PER_DIRECTORY == 0:
                directory = tarfile.TarInfo(f"layer{number}/d{n // _PER_DIRECTORY:03}")
                directory.type, directory.mode, directory.mtime = tarfile.DIRTYPE, 0o755, _TIME
                layer.addfile(directory)
            half = dice.randrange(mean)  # twice its mean value is the mean size
            text = b"%06d the quick brown fox jumps over the lazy dog\n" % n
            content = dice.randbytes(half) + (text * (half // len(text) + 1))[:half]
            _add(layer, f"layer{number}/d{n // _PER_DIRECTORY:03}/f{n:05}", content)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(content), 0o644, _TIME
    archive.addfile(member, io.BytesIO(content))
