"""A daemon killed during a load leaves no process, no mount, and nothing the next start keeps."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from wherry.images.archive import load
from wherry.images.layers import LayerStore
from wherry.images.store import ImageStore
from wherry.linux.mounts import mounts_below
from wherry.model import digest as digests
from wherry.model import oci
from wherry.model.tarwriter import TarMember, archive
from wherry.state.content import Contents, LeaseRows
from wherry.state.database import Database
from wherry.state.images import Images
from wherry.state.schema import MIGRATIONS
from wherry.state.snapshots import Snapshots
from wherry.storage.confined.unpack import Unpacker
from wherry.storage.content import ContentStore
from wherry.storage.drivers.overlay import OverlaySnapshotter
from wherry.storage.gc import Collector
from wherry.storage.leases import Leases

pytestmark = pytest.mark.kernel


def open_images(root: Path) -> tuple[ImageStore, Unpacker]:
    db = Database(root / "wherry.db", MIGRATIONS)
    snapshotter = OverlaySnapshotter(root, Snapshots(db, "overlay"))
    contents, unpacker = Contents(db), Unpacker()
    content = ContentStore(root, contents)
    layers = LayerStore(content, snapshotter, unpacker)
    collector = Collector(content, contents, snapshotter)
    return ImageStore(Images(db), content, layers, Leases(LeaseRows(db)), collector), unpacker


def big_archive() -> bytes:
    layers = [
        archive(
            (TarMember(name=b"l%d/f%d" % (number, n), size=20_000), bytes([n % 256]) * 20_000)
            for n in range(300)
        )
        for number in range(3)
    ]
    config = {
        "architecture": oci.host().architecture,
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [digests.of(layer) for layer in layers]},
    }
    files = [(f"{n}/layer.tar", layer) for n, layer in enumerate(layers)]
    listed = [{"Config": "c.json", "RepoTags": ["big:1"], "Layers": [name for name, _ in files]}]
    files += [("c.json", json.dumps(config).encode()), ("manifest.json", json.dumps(listed).encode())]
    return archive((TarMember(name=name.encode(), size=len(data)), data) for name, data in files)


def session_members(session: int) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        after = text.rpartition(")")[2].split()
        if int(after[3]) == session and after[0] != "Z":
            found.append(text)
    return found


@pytest.mark.parametrize("part", [0.2, 0.5, 0.8, 0.999])
def test_killed_while_loading(tmp_path: Path, part: float) -> None:
    script = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_images_killed as t
images, unpacker = t.open_images(Path(sys.argv[2]))
print("ready", flush=True)
t.load(images, unpacker, sys.stdin.buffer)
"""
    data = big_archive()
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        process.stdin.write(data[: int(len(data) * part)])
        process.stdin.flush()
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        try:
            process.stdin.close()
        except BrokenPipeError:
            pass
    _wait_until_gone(process.pid)
    assert mounts_below(tmp_path) == []
    images, unpacker = open_images(tmp_path)
    images.collect()
    assert list(images.content.walk()) == []
    assert os.listdir(tmp_path / "content/sha256") == os.listdir(tmp_path / "content/ingest") == []
    assert os.listdir(tmp_path / "snapshots/overlay") == []
    (loaded,) = load(images, unpacker, io.BytesIO(data))
    assert len(images.layers.snapshotter.walk()) == 3
    assert images.resolve("big:1").id == loaded.id
    images.layers.close()


def _wait_until_gone(session: int) -> None:
    """The kernel kills the children when their parent dies; wait for each through a pidfd."""
    for text in session_members(session):
        try:
            fd = os.pidfd_open(int(text.split()[0]))
        except ProcessLookupError:
            continue
        try:
            assert select.select([fd], [], [], 5)[0], f"still running: {text}"
        finally:
            os.close(fd)
    assert session_members(session) == []
